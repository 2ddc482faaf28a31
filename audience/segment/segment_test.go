package segment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/phrases"
	"github.com/kindred-search/kindred/profile"
)

// planted is a population with known groups.
type planted struct {
	pop  Population
	of   map[string]int
	rows []index.Row
}

// plant stores rows; texts and groups go by id.
func plant(t *testing.T, dim int, columns []index.Column, schema []profile.Field, rows []index.Row, of map[string]int, texts map[string]string) *planted {
	t.Helper()
	eng, err := memory.Open().Create(t.Context(), index.Spec{Name: "x", Dim: dim, Precision: index.Fp32, Columns: columns})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Upsert(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	snap, err := eng.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &planted{pop: Population{Snap: snap, Spec: eng.Spec(), Schema: profile.Schema{Fields: schema}}, of: of, rows: rows}
	if texts != nil {
		p.pop.Texts = func(_ context.Context, ids []string) ([][]string, error) {
			out := make([][]string, len(ids))
			for i, id := range ids {
				out[i] = []string{texts[id]}
			}
			return out, nil
		}
	}
	return p
}

// best is the same of the groups' own centres: what cannot be bettered but by luck.
func (p *planted) best(m *Model) float64 {
	groups := map[int][]float64{}
	count := map[int]float64{}
	at := make([][]float32, len(p.rows))
	for i, row := range p.rows {
		at[i] = m.Space.Place(row.Vector, row.Values)
		g := p.of[row.ID]
		if groups[g] == nil {
			groups[g] = make([]float64, len(at[i]))
		}
		count[g]++
		for j, x := range at[i] {
			groups[g][j] += float64(x)
		}
	}
	var centers [][]float32
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		c := make([]float32, len(groups[g]))
		for j, x := range groups[g] {
			c[j] = float32(x / count[g])
		}
		centers = append(centers, c)
	}
	var a, b []int
	for i, row := range p.rows {
		n, _, _ := nearest(at[i], centers)
		a, b = append(a, n), append(b, p.of[row.ID])
	}
	return agreement(a, b, 256)
}

// agreed is the adjusted Rand index of a model's segments and the planted groups.
func (p *planted) agreed(m *Model) float64 {
	var a, b []int
	for _, row := range p.rows {
		n, _ := m.Assign(row.Vector, row.Values)
		a, b = append(a, n), append(b, p.of[row.ID])
	}
	return agreement(a, b, 256)
}

// blobs draws n unit vectors around k directions, of unequal sizes.
func blobs(t *testing.T, n, k, dim int, noise float64, seed uint64) *planted {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 9))
	unit := func(around []float32, spread float64) []float32 {
		v, sum := make([]float32, dim), 0.0
		for j := range v {
			v[j] = float32(spread * rng.NormFloat64() / math.Sqrt(float64(dim)))
			if around != nil {
				v[j] += around[j]
			}
			sum += float64(v[j]) * float64(v[j])
		}
		for j := range v {
			v[j] /= float32(math.Sqrt(sum))
		}
		return v
	}
	centers := make([][]float32, k)
	for c := range centers {
		centers[c] = unit(nil, 1)
	}
	var rows []index.Row
	of := map[string]int{}
	for i := range n {
		c := rng.IntN(k)
		if rng.IntN(2) == 0 { // the first half of the groups is three times as large
			c = rng.IntN((k + 1) / 2)
		}
		id := fmt.Sprintf("c%05d", i)
		rows, of[id] = append(rows, index.Row{ID: id, Vector: unit(centers[c], noise)}), c
	}
	return plant(t, dim, nil, nil, rows, of, nil)
}

func TestNumberIsFound(t *testing.T) {
	for _, c := range []struct {
		k, n  int
		noise float64
	}{{2, 600, 0.8}, {3, 900, 1}, {5, 1500, 1}, {8, 2000, 1}, {12, 2400, 1.2}, {15, 3000, 1}} {
		p := blobs(t, c.n, c.k, 48, c.noise, uint64(c.k))
		set, m, err := Discover(t.Context(), p.pop, Params{}, nil)
		if err != nil {
			t.Errorf("%d groups: %v", c.k, err)
			continue
		}
		if ari, best := p.agreed(m), p.best(m); len(set.Segments) != c.k || ari < best-0.02 || best < 0.9 {
			t.Errorf("%d groups: %d segments that agree with them by %.3f, %.3f can be; %+v", c.k, len(set.Segments), ari, best, set.Choices)
		}
	}
}

func TestOneCrowdHasNoSegments(t *testing.T) {
	p := blobs(t, 1500, 1, 48, 1, 4)
	_, _, err := Discover(t.Context(), p.pop, Params{}, nil)
	if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "one crowd") {
		t.Fatalf("%v", err)
	}
	// Who asks for a number gets it, with a warning.
	set, _, err := Discover(t.Context(), p.pop, Params{K: 6}, nil)
	if err != nil || len(set.Segments) != 6 || len(set.Warnings) != 1 || !strings.Contains(set.Warnings[0], "6 segments as asked") {
		t.Fatalf("%+v, %v", set, err)
	}
}

// people draws three kinds of customers told apart by columns, and a fourth column
// that gives them away but is sensitive.
func people(t *testing.T, n int, seed uint64) *planted {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	kinds := []struct {
		age, spread float64
		region      string
		tags        []string
		says        string
	}{
		{25, 4, "north", []string{"games", "music"}, "plays video games all night"},
		{45, 4, "south", []string{"garden"}, "grows tomatoes in the garden"},
		{70, 4, "east", []string{"opera", "travel"}, "听歌剧，坐船旅行"},
	}
	var rows []index.Row
	of, texts := map[string]int{}, map[string]string{}
	for i := range n {
		g := rng.IntN(3)
		k := kinds[g]
		region := k.region
		if rng.IntN(20) == 0 {
			region = "west"
		}
		values := map[string]index.Value{
			"age":    {Kind: index.Number, Num: k.age + k.spread*rng.NormFloat64()},
			"region": {Kind: index.Category, Str: region},
			"likes":  {Kind: index.Set, Set: k.tags},
			"secret": {Kind: index.Category, Str: fmt.Sprint("g", g)},
		}
		if rng.IntN(20) == 0 {
			delete(values, "age")
		}
		id := fmt.Sprintf("p%05d", i)
		rows = append(rows, index.Row{ID: id, Values: values})
		of[id], texts[id] = g, k.says
	}
	columns := []index.Column{{Name: "age", Kind: index.Number}, {Name: "region", Kind: index.Category}, {Name: "likes", Kind: index.Set}, {Name: "secret", Kind: index.Category}}
	schema := []profile.Field{{Name: "age", Type: profile.TypeNumber}, {Name: "region", Type: profile.TypeCategory}, {Name: "likes", Type: profile.TypeSet}, {Name: "secret", Type: profile.TypeCategory, Sensitive: true}}
	return plant(t, 0, columns, schema, rows, of, texts)
}

func TestColumnsAreSegmentedAndNamed(t *testing.T) {
	p := people(t, 1200, 2)
	set, m, err := Discover(t.Context(), p.pop, Params{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ari := p.agreed(m); len(set.Segments) != 3 || ari < 0.97 {
		t.Fatalf("%d segments, agreement %.3f; %+v", len(set.Segments), ari, set.Choices)
	}
	if !reflect.DeepEqual(set.Columns, []string{"age", "region", "likes"}) || !slices.ContainsFunc(set.Left, func(s string) bool { return strings.HasPrefix(s, "secret: sensitive") }) {
		t.Errorf("columns %q, left out %q", set.Columns, set.Left)
	}
	for g, words := range [][]string{{"games", "north"}, {"tomatoes", "south"}, {"歌剧", "east"}} {
		i := slices.IndexFunc(set.Segments, func(s Segment) bool { return p.of[s.Typical[0]] == g })
		if i < 0 {
			t.Fatalf("no segment of group %d", g)
		}
		s := set.Segments[i]
		for _, w := range words {
			if !strings.Contains(s.Label, w) && !slices.ContainsFunc(s.Columns, func(r audience.Reason) bool { return r.Label == w && r.Lift > 2 }) {
				t.Errorf("group %d is %q, which does not tell of %q (%+v)", g, s.Label, w, s.Columns)
			}
		}
		if strings.Contains(s.Label, "secret") {
			t.Errorf("%q tells of a sensitive column", s.Label)
		}
	}
	// Where nobody wrote, labels are of columns alone.
	p.pop.Texts = nil
	set, _, err = Discover(t.Context(), p.pop, Params{K: 3}, nil)
	if err != nil || len(set.Segments[0].Phrases) != 0 || !strings.Contains(set.Segments[0].Label, ": ") {
		t.Errorf("%+v, %v", set, err)
	}
}

// Everyone's segment is the same by a scan, one by one, and after the model was
// stored; and by the definition: the nearest centre.
func TestScanIsAssign(t *testing.T) {
	p := people(t, 400, 3)
	_, m, err := Discover(t.Context(), p.pop, Params{K: 11}, nil) // more than one pass
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var stored Model
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, n := range stored.Numbers {
		members, margin, err := stored.Members(t.Context(), p.pop.Snap, n, p.pop.Snap.Live())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range members {
			got[p.pop.Snap.ID(row)] = n
			if margin[row] < 0 {
				t.Errorf("a margin of %v", margin[row])
			}
		}
	}
	for _, row := range p.rows {
		n, clear := m.Assign(row.Vector, row.Values)
		z := m.Space.Place(row.Vector, row.Values)
		_, near, next := nearest(z, m.Centers)
		if got[row.ID] != n && next-near > 1e-4 {
			t.Errorf("%s: %d by a scan, %d alone", row.ID, got[row.ID], n)
		}
		if clear < 0 || clear > 1 {
			t.Errorf("clearness %v", clear)
		}
	}
	if _, _, err := m.Members(t.Context(), p.pop.Snap, 99, p.pop.Snap.Live()); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("segment 99: %v", err)
	}
	if _, _, err := m.Members(t.Context(), p.pop.Snap, m.Numbers[0], roaring.New()); err != nil {
		t.Errorf("of nobody: %v", err)
	}
}

// Segments keep their numbers while they hold the same people, new ones get new
// numbers, and the same run gives the same bytes.
func TestNumbersAreKept(t *testing.T) {
	p := blobs(t, 1500, 5, 24, 0.8, 7)
	set, m, err := Discover(t.Context(), p.pop, Params{K: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, m2, err := Discover(t.Context(), p.pop, Params{K: 5}, nil)
	if err != nil || !reflect.DeepEqual(set, again) || !reflect.DeepEqual(m, m2) {
		t.Fatalf("another run gives another answer (%v)", err)
	}
	p.pop.Before = m
	_, other, err := Discover(t.Context(), p.pop, Params{K: 5, Seed: 99}, nil)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, row := range p.rows {
		a, _ := m.Assign(row.Vector, nil)
		b, _ := other.Assign(row.Vector, nil)
		if a != b {
			moved++
		}
	}
	if moved > 30 || other.Next != m.Next {
		t.Errorf("%d customers changed number; next %d, was %d", moved, other.Next, m.Next)
	}
	_, more, err := Discover(t.Context(), p.pop, Params{K: 7}, nil)
	if err != nil {
		t.Fatal(err)
	}
	numbers := slices.Sorted(slices.Values(more.Numbers))
	if len(slices.Compact(slices.Clone(numbers))) != 7 || numbers[6] >= more.Next || more.Next <= 6 {
		t.Errorf("numbers %v, next %d", numbers, more.Next)
	}
}

func TestNearest(t *testing.T) {
	p := people(t, 600, 5)
	_, m, err := Discover(t.Context(), p.pop, Params{K: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range m.Numbers {
		c, err := m.Center(n)
		if err != nil {
			t.Fatal(err)
		}
		near := m.Nearest(c, false)
		if len(near) != 3 || near[0].Number != n || math.Abs(near[0].Score-1) > 1e-6 || near[1].Score < near[2].Score {
			t.Errorf("nearest to %d: %+v", n, near)
		}
	}
}

func TestDiscoverRefuses(t *testing.T) {
	p := people(t, 30, 6)
	text := false
	for _, c := range []struct {
		req  Params
		says string
	}{
		{Params{K: 1}, "k 1: want 2 to 128"},
		{Params{MaxK: 1000}, "max_k 1000"},
		{Params{K: 8}, "30 customers are too few for segments: 80 at least"},
		{Params{K: 2, Features: audience.Features{Columns: []string{"hat"}}}, `"hat" is not a column`},
		{Params{K: 2, Features: audience.Features{Text: &text, Columns: []string{}}}, "no text and no column"},
	} {
		if _, _, err := Discover(t.Context(), p.pop, c.req, nil); !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	big := blobs(t, 2000, 4, 24, 1, 8)
	stages := 0
	_, _, err := Discover(ctx, big.pop, Params{}, func(stage string, _, _ int) {
		if stage == "choosing how many" {
			stages++
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || stages == 0 {
		t.Errorf("after %d steps: %v", stages, err)
	}
	// Identical customers are one crowd, not a division by zero.
	var rows []index.Row
	for i := range 100 {
		rows = append(rows, index.Row{ID: fmt.Sprint(i), Vector: []float32{1, 0}})
	}
	same := plant(t, 2, nil, nil, rows, nil, nil)
	if _, _, err := Discover(t.Context(), same.pop, Params{K: 3}, nil); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("identical customers: %v", err)
	}
}

// More segments than different customers leave none empty.
func TestFewDifferentCustomers(t *testing.T) {
	var rows []index.Row
	for i := range 200 {
		v := []float32{1, 0}
		if i%2 == 0 {
			v = []float32{0, 1}
		}
		rows = append(rows, index.Row{ID: fmt.Sprint(i), Vector: v})
	}
	p := plant(t, 2, nil, nil, rows, nil, nil)
	set, m, err := Discover(t.Context(), p.pop, Params{K: 6}, nil)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, s := range set.Segments {
		total += s.Size
		if s.Size == 0 || s.Number == 0 || math.IsNaN(s.Cohesion) || math.IsNaN(s.Silhouette) {
			t.Errorf("%+v", s)
		}
	}
	if total != 200 || len(set.Segments) != len(m.Centers) || len(set.Segments) < 2 {
		t.Errorf("%d customers in %d segments of %d centres", total, len(set.Segments), len(m.Centers))
	}
}

func TestLabelsSayAThingOnce(t *testing.T) {
	s := Segment{Columns: []audience.Reason{{Column: "age", Label: "below 31", Lift: 2, Z: 9}, {Column: "plan", Label: "pro", Lift: 0.2, Z: -9}, {Column: "city", Label: "x", Lift: 1.1, Z: 4}}}
	for _, p := range []string{"never looked better", "patch never looked", "drip hose", "早上跑十公里", "每天早上跑", "too many"} {
		s.Phrases = append(s.Phrases, phrases.Phrase{Text: p})
	}
	if got, want := label(&s), "never looked better, drip hose, 早上跑十公里 · age: below 31"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := label(&Segment{}); got != "nothing stands out" {
		t.Errorf("%q", got)
	}
}
