package audience

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/profile"
)

// world is a population with a planted kind of customer.
type world struct {
	pop    Population
	truth  map[string]bool
	kind   []string // ids of the planted kind
	engine index.Engine
}

type worldOptions struct {
	n       int
	dim     int
	columns bool
	reverse bool // order of insertion

	precision index.Precision
}

func idOf(i int) string { return fmt.Sprintf("c%05d", i) }

// worldOf is a world of these rows, without a schema.
func worldOf(t *testing.T, spec index.Spec, rows []index.Row) *world {
	t.Helper()
	store := memory.Open()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	eng, err := store.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for batch := range slices.Chunk(rows, 50_000) {
		if err := eng.Upsert(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
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
	return &world{engine: eng, pop: Population{Snap: snap, Spec: eng.Spec()}, truth: map[string]bool{}}
}

// newWorld plants a kind (a fifth of everyone) that is older, often from "north",
// and whose vectors lean one way; nothing separates it fully.
func newWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	schema := profile.Schema{}
	if o.columns {
		schema.Fields = []profile.Field{
			{Name: "age", Type: profile.TypeNumber},
			{Name: "region", Type: profile.TypeCategory},
			{Name: "tags", Type: profile.TypeSet},
			{Name: "gender", Type: profile.TypeCategory, Sensitive: true},
			{Name: "same", Type: profile.TypeCategory},
		}
	}
	truth := map[string]bool{}
	var kind []string
	rng := rand.New(rand.NewPCG(7, 7))
	rows := make([]index.Row, o.n)
	for i := range rows {
		is := i%5 == 0
		id := idOf(i)
		truth[id] = is
		if is {
			kind = append(kind, id)
		}
		row := index.Row{ID: id, Values: map[string]index.Value{}}
		if o.dim > 0 {
			row.Vector = make([]float32, o.dim)
			for j := range row.Vector {
				row.Vector[j] = float32(rng.NormFloat64())
			}
			if is {
				row.Vector[0] += 1.5
				row.Vector[1] -= 1.5
			}
		}
		if o.columns {
			age, region, gender := 20+rng.Float64()*40, []string{"north", "south", "east"}[rng.IntN(3)], "f"
			tags := []string{fmt.Sprintf("t%d", rng.IntN(6))}
			if is {
				age += 15
				if rng.IntN(2) == 0 {
					region = "north"
				}
				gender = "m"
				tags = append(tags, "sails")
			}
			slices.Sort(tags)
			row.Values = map[string]index.Value{
				"age": {Kind: index.Number, Num: age}, "region": {Kind: index.Category, Str: region},
				"tags": {Kind: index.Set, Set: tags}, "gender": {Kind: index.Category, Str: gender},
				"same": {Kind: index.Category, Str: "x"},
			}
		}
		rows[i] = row
	}
	if o.reverse {
		slices.Reverse(rows)
	}
	w := worldOf(t, index.Spec{Name: "w", Dim: o.dim, Columns: schema.Columns(), Precision: o.precision}, rows)
	w.pop.Schema, w.truth, w.kind = schema, truth, kind
	return w
}

func refs(ids []string) []SeedRef {
	out := make([]SeedRef, len(ids))
	for i, id := range ids {
		out[i] = SeedRef{ID: id}
	}
	return out
}

func count(n int) Size { return Size{Count: &n} }

func mustBuild(t *testing.T, w *world, req Request) *Result {
	t.Helper()
	res, err := Build(t.Context(), w.pop, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// auc evaluates a result's model on everyone but the seeds.
func (w *world) auc(t *testing.T, res *Result, seeds []string) float64 {
	t.Helper()
	scores, err := w.pop.Snap.Scan(t.Context(), index.ScanRequest{Bins: res.Model.Bins, Sets: []index.HeadSet{res.Model.Set}})
	if err != nil {
		t.Fatal(err)
	}
	truth := make([]bool, len(scores[0]))
	for row := range truth {
		id := w.pop.Snap.ID(uint32(row))
		truth[row] = w.truth[id]
		if slices.Contains(seeds, id) {
			scores[0][row] = float32(math.Inf(-1))
		}
	}
	return Evaluate(scores[0], truth).AUC
}

func TestEveryMethodFindsThePlantedKind(t *testing.T) {
	for _, o := range []worldOptions{{n: 4000, dim: 16, columns: true}, {n: 4000, dim: 16}, {n: 4000, columns: true}} {
		w := newWorld(t, o)
		for _, method := range []string{Auto, Centroid, Clusters, Classifier, Trees, Neighbours} {
			t.Run(fmt.Sprintf("dim=%d columns=%v %s", o.dim, o.columns, method), func(t *testing.T) {
				seeds := w.kind[:200]
				req := Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(400), Method: method}
				if method == Clusters && o.dim == 0 || method == Trees && !o.columns {
					if _, err := Build(t.Context(), w.pop, req, nil); !errors.Is(err, index.ErrInvalid) {
						t.Fatalf("%s without its features: %v", method, err)
					}
					return
				}
				res := mustBuild(t, w, req)
				if len(res.Members) != 400 {
					t.Fatalf("%d members", len(res.Members))
				}
				if auc := w.auc(t, res, seeds); !(auc > 0.8) {
					t.Errorf("AUC %.3f, want above 0.8 (%s)", auc, res.Manifest.Method)
				}
				if res.Quality.Verdict != Signal {
					t.Errorf("verdict %q: %s", res.Quality.Verdict, res.Quality.Words)
				}
				if got := res.Quality.Measure.AUC; !(got.Low <= got.Value && got.Value <= got.High) {
					t.Errorf("interval %+v does not hold its value", got)
				}
				for i, m := range res.Members {
					if w.truth[m.ID] && slices.Contains(seeds, m.ID) {
						t.Fatalf("seed %s is a member", m.ID)
					}
					sum := 0.0
					for _, p := range m.Parts {
						sum += float64(p.Value)
						if p.Of == "gender" || p.Of == "same" {
							t.Fatalf("part of %s", p.Of)
						}
					}
					if math.Abs(sum-float64(m.Score)) > 1e-5 {
						t.Fatalf("member %d: parts add up to %v, score %v", i, sum, m.Score)
					}
					if i > 0 && (m.Score > res.Members[i-1].Score || m.Score == res.Members[i-1].Score && m.ID < res.Members[i-1].ID) {
						t.Fatalf("member %d is out of order", i)
					}
				}
				last := res.Curve[len(res.Curve)-1]
				if last.Size != res.Manifest.Eligible {
					t.Errorf("curve ends at %d of %d", last.Size, res.Manifest.Eligible)
				}
			})
		}
	}
}

func TestModelScoresAsTheScanDoes(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, dim: 16, columns: true})
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:100])}, Size: count(200)})
	for _, m := range res.Members[:50] {
		rows, err := w.engine.Get(t.Context(), []string{m.ID})
		if err != nil {
			t.Fatal(err)
		}
		score, parts := res.Model.Score(rows[0].Vector, rows[0].Values)
		if d := math.Abs(float64(score - m.Score)); d > 2e-3 {
			t.Errorf("%s: model %v, scan %v", m.ID, score, m.Score)
		}
		sum := 0.0
		for _, p := range parts {
			sum += float64(p.Value)
		}
		if math.Abs(sum-float64(score)) > 1e-5 {
			t.Errorf("%s: parts add up to %v, score %v", m.ID, sum, score)
		}
	}
}

func TestRandomSeedsGiveNoSignal(t *testing.T) {
	w := newWorld(t, worldOptions{n: 4000, dim: 16, columns: true})
	signals := 0
	for draw := range 5 {
		rng := rand.New(rand.NewPCG(uint64(draw), 3))
		var seeds []string
		for _, i := range rng.Perm(4000)[:100] {
			seeds = append(seeds, fmt.Sprintf("c%05d", i))
		}
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(200)})
		if res.Quality.Verdict != NoSignal {
			signals++
		}
	}
	if signals > 1 {
		t.Errorf("%d of 5 random seed lists were called a signal", signals)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	var first []byte
	for _, reverse := range []bool{false, false, true} {
		w := newWorld(t, worldOptions{n: 1500, dim: 8, columns: true, reverse: reverse})
		seeds := refs(w.kind[:80])
		if reverse {
			slices.Reverse(seeds)
		}
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: seeds}, Size: count(100)})
		res.Manifest.Version = 0
		raw, err := json.Marshal(res)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = raw
		}
		if !bytes.Equal(first, raw) {
			t.Errorf("reverse=%v: the result differs", reverse)
		}
	}
}

func TestSizes(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, columns: true})
	seeds := refs(w.kind[:50])
	all, half, zero, sure := 1950, 0.5, 0.0, 0.5
	for _, c := range []struct {
		name string
		size Size
		ok   func(n int) bool
	}{
		{"one", count(1), func(n int) bool { return n == 1 }},
		{"all", Size{Count: &all}, func(n int) bool { return n == 1950 }},
		{"half", Size{Ratio: &half}, func(n int) bool { return n == 975 }},
		{"threshold", Size{Threshold: &zero}, func(n int) bool { return n > 0 && n < 1950 }},
		{"precision", Size{MinPrecision: &sure}, func(n int) bool { return n > 0 && n < 1950 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := mustBuild(t, w, Request{Seeds: Seeds{IDs: seeds}, Size: c.size, Method: Centroid})
			if !c.ok(len(res.Members)) {
				t.Errorf("%d members", len(res.Members))
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t, worldOptions{n: 500, dim: 4, columns: true})
	no := false
	over := 500
	everyone := make([]string, 0, 500)
	for id := range w.truth {
		everyone = append(everyone, id)
	}
	seeds := Seeds{IDs: refs(w.kind[:40])}
	for name, req := range map[string]Request{
		"no seeds":          {Size: count(10)},
		"unknown seeds":     {Seeds: Seeds{IDs: refs([]string{"x", "y"})}, Size: count(10)},
		"few seeds":         {Seeds: Seeds{IDs: refs(w.kind[:5])}, Size: count(10)},
		"everyone":          {Seeds: Seeds{IDs: refs(everyone)}, Size: count(10)},
		"no size":           {Seeds: seeds},
		"two sizes":         {Seeds: seeds, Size: Size{Count: &over, Ratio: new(float64)}},
		"size above n":      {Seeds: seeds, Size: Size{Count: &over}},
		"weight":            {Seeds: Seeds{IDs: []SeedRef{{ID: "c00000", Weight: math.NaN()}}}, Size: count(10)},
		"method":            {Seeds: seeds, Size: count(10), Method: "magic"},
		"column":            {Seeds: seeds, Size: count(10), Features: Features{Columns: []string{"nope"}}},
		"nothing to go by":  {Seeds: seeds, Size: count(10), Features: Features{Text: &no, Columns: []string{}}},
		"contradiction":     {Seeds: seeds, Negatives: Negatives{IDs: refs(w.kind[:1])}, Size: count(10)},
		"filter is unknown": {Seeds: seeds, Size: count(10), Filter: &index.Filter{Field: "nope", Eq: "x"}},
		"filter for nobody": {Seeds: seeds, Size: count(10), Filter: &index.Filter{Field: "age", Gt: 1000.0}},
		"text, no model":    {Seeds: Seeds{Text: "sails"}, Size: count(10)},
	} {
		if _, err := Build(t.Context(), w.pop, req, nil); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: error %v does not match ErrInvalid", name, err)
		}
	}
	_, err := Build(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(append([]string{"nobody"}, w.kind[:3]...))}, Size: count(10)}, nil)
	if !errors.Is(err, ErrTooFewSeeds) || !bytes.Contains([]byte(err.Error()), []byte("3 of 4")) {
		t.Errorf("too few seeds: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, w.pop, Request{Seeds: seeds, Size: count(10)}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSensitiveColumnsStayOutUnlessAllowed(t *testing.T) {
	w := newWorld(t, worldOptions{n: 1000, columns: true})
	req := Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: count(100)}
	res := mustBuild(t, w, req)
	if slices.Contains(res.Manifest.Columns, "gender") || !slices.Contains(res.Manifest.Left, "gender: sensitive") {
		t.Errorf("columns %v, left out %v", res.Manifest.Columns, res.Manifest.Left)
	}
	req.Features.AllowSensitive = []string{"gender"}
	if res = mustBuild(t, w, req); !slices.Contains(res.Manifest.Columns, "gender") {
		t.Errorf("columns %v", res.Manifest.Columns)
	}
}

func TestEvaluateAgainstCountingPairs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for trial := range 30 {
		n := 5 + rng.IntN(60)
		scores, truth := make([]float32, n), make([]bool, n)
		for i := range scores {
			scores[i] = float32(rng.IntN(8)) // many ties
			truth[i] = rng.IntN(3) == 0
		}
		truth[0], truth[1] = true, false
		want, pairs := 0.0, 0.0
		for i := range n {
			for j := range n {
				if truth[i] && !truth[j] {
					pairs++
					switch {
					case scores[i] > scores[j]:
						want++
					case scores[i] == scores[j]:
						want += 0.5
					}
				}
			}
		}
		got := Evaluate(scores, truth, 1, n)
		if math.Abs(got.AUC-want/pairs) > 1e-12 {
			t.Fatalf("trial %d: AUC %v, want %v", trial, got.AUC, want/pairs)
		}
		if all := float64(got.Positives) / float64(n); math.Abs(got.Precision[n]-all) > 1e-12 {
			t.Fatalf("trial %d: precision of everyone %v, want %v", trial, got.Precision[n], all)
		}
	}
}
