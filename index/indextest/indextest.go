// Package indextest is the suite that every engine passes: the same operations
// on every engine and precision against a plain model, and relations that must
// hold between runs. Failures print the seed that repeats them.
package indextest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// Config is one engine under test.
type Config struct {
	// Open returns an empty store.
	Open func(t *testing.T) index.Store
	// Reopen closes a store and opens its data again. nil: not durable.
	Reopen func(t *testing.T, s index.Store) index.Store
	// Recall is the share of a search's answers that must be the exact ones;
	// 0 means all of them. What is answered must be true of the row all the same,
	// in order, and as many as there are.
	Recall float64
	// Precisions are those that are run; nil is all.
	Precisions []index.Precision

	found *found
}

// found counts the answers of searches that may miss some.
type found struct{ right, all atomic.Int64 }

const dim = 13

var columns = []index.Column{
	{Name: "age", Kind: index.Number}, {Name: "city", Kind: index.Category},
	{Name: "tags", Kind: index.Set}, {Name: "vip", Kind: index.Bool}, {Name: "seen", Kind: index.Time},
}

// Run runs the suite on all precisions.
func Run(t *testing.T, cfg Config) {
	cfg.found = &found{}
	if cfg.Precisions == nil {
		cfg.Precisions = []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary}
	}
	for _, p := range cfg.Precisions {
		t.Run(string(p), func(t *testing.T) {
			t.Run("model", func(t *testing.T) { testModel(t, cfg, p) })
			t.Run("permuted", func(t *testing.T) { testPermuted(t, cfg, p) })
			t.Run("concurrent", func(t *testing.T) { testConcurrent(t, cfg, p) })
			t.Run("scan", func(t *testing.T) { testScan(t, cfg, p) })
			t.Run("best", func(t *testing.T) { testBest(t, cfg, p) })
			t.Run("roundtrip", func(t *testing.T) { testRoundTrip(t, cfg, p) })
			t.Run("oldsnapshot", func(t *testing.T) { testOldSnapshot(t, cfg, p) })
			t.Run("together", func(t *testing.T) { testTogether(t, cfg, p) })
		})
	}
	t.Run("progress", func(t *testing.T) { testProgress(t, cfg) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, cfg) })
	if cfg.Recall > 0 {
		right, all := cfg.found.right.Load(), cfg.found.all.Load()
		t.Logf("recall of pages: %.4f of %d answers", float64(right)/float64(max(1, all)), all)
		if all == 0 || float64(right) < cfg.Recall*float64(all) {
			t.Errorf("%d of %d answers are the exact ones; want a share of %v", right, all, cfg.Recall)
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func randomRow(rng *rand.Rand, id string) index.Row {
	r := index.Row{ID: id, Values: map[string]index.Value{}, Record: []byte(fmt.Sprintf("%s/%d", id, rng.Uint32()))}
	if rng.IntN(8) > 0 {
		r.Vector = make([]float32, dim)
		for i := range r.Vector {
			r.Vector[i] = float32(rng.IntN(7) - 3)
		}
	}
	cities := []string{"Oslo", "Bergen", "北京", ""}
	put := func(name string, v index.Value) {
		if rng.IntN(4) > 0 {
			r.Values[name] = v
		}
	}
	put("age", index.Value{Kind: index.Number, Num: float64(rng.IntN(80))})
	put("city", index.Value{Kind: index.Category, Str: cities[rng.IntN(4)]})
	put("vip", index.Value{Kind: index.Bool, Num: float64(rng.IntN(2))})
	put("seen", index.Value{Kind: index.Time, Num: float64(rng.IntN(1e6))})
	var set []string
	for _, tag := range []string{"a", "b", "c", "d"} {
		if rng.IntN(3) == 0 {
			set = append(set, tag)
		}
	}
	put("tags", index.Value{Kind: index.Set, Set: set})
	return r
}

type filterCase struct {
	name  string
	f     *index.Filter
	holds func(r *index.Row) bool
}

func filterCases() []filterCase {
	yes, b := true, "B"
	num := func(r *index.Row, n string) (float64, bool) { v, ok := r.Values[n]; return v.Num, ok }
	tag := func(r *index.Row, s string) bool { return slices.Contains(r.Values["tags"].Set, s) }
	city := func(r *index.Row, s string) bool { v, ok := r.Values["city"]; return ok && v.Str == s }
	return []filterCase{
		{"all", nil, func(*index.Row) bool { return true }},
		{"age range", &index.Filter{Field: "age", Gte: 20, Lt: 40.0}, func(r *index.Row) bool {
			a, ok := num(r, "age")
			return ok && a >= 20 && a < 40
		}},
		{"city in", &index.Filter{Field: "city", In: []any{"Oslo", "nowhere"}}, func(r *index.Row) bool { return city(r, "Oslo") }},
		{"city empty", &index.Filter{Field: "city", Eq: ""}, func(r *index.Row) bool { return city(r, "") }},
		{"prefix", &index.Filter{Field: "city", Prefix: &b}, func(r *index.Row) bool { return city(r, "Bergen") }},
		{"vip", &index.Filter{Field: "vip", Eq: true}, func(r *index.Row) bool { v, ok := num(r, "vip"); return ok && v == 1 }},
		{"tags exist", &index.Filter{Field: "tags", Exists: &yes}, func(r *index.Row) bool { return len(r.Values["tags"].Set) > 0 }},
		{"time", &index.Filter{Field: "seen", Gt: "1970-01-06T00:00:00Z"}, func(r *index.Row) bool { v, ok := num(r, "seen"); return ok && v > 5*86400 }},
		{"id", &index.Filter{Field: "id", Lt: "c3"}, func(r *index.Row) bool { return r.ID < "c3" }},
		{"tree", &index.Filter{
			Should:  []index.Filter{{Field: "tags", In: []any{"a", "b"}}, {Field: "city", Eq: "北京"}},
			MustNot: []index.Filter{{Field: "vip", Eq: false}},
		}, func(r *index.Row) bool {
			v, ok := num(r, "vip")
			return (tag(r, "a") || tag(r, "b") || city(r, "北京")) && (!ok || v != 0)
		}},
	}
}

func query() []float32 {
	q := make([]float32, dim)
	for i := range q {
		q[i] = float32(i%5) - 1.5
	}
	return q
}

// verify compares everything an engine answers with the model.
func verify(t *testing.T, cfg Config, e index.Engine, model map[string]index.Row, seed uint64) {
	t.Helper()
	ctx := context.Background()
	s := must[index.Snapshot](t)(e.Snapshot(ctx))
	defer func() { check(t, s.Close()) }()
	if got := int(s.Live().GetCardinality()); got != len(model) {
		t.Fatalf("seed %d: %d live rows, model has %d", seed, got, len(model))
	}
	ids := make([]string, 0, len(model))
	for id := range model {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	rows := must[[]*index.Row](t)(e.Get(ctx, append(ids, "absent")))
	if rows[len(ids)] != nil {
		t.Fatalf("seed %d: absent id found", seed)
	}
	for i, id := range ids {
		if rows[i] == nil || string(rows[i].Record) != string(model[id].Record) {
			t.Fatalf("seed %d: id %q: record differs", seed, id)
		}
		if row, ok := s.Find(id); !ok || s.ID(row) != id || !s.Live().Contains(row) {
			t.Fatalf("seed %d: id %q: not found in the snapshot", seed, id)
		}
	}
	bins := []index.Bins{{Column: "age", Kind: index.Number, Edges: []float64{20, 40}}, {Column: "city", Kind: index.Category, Values: []string{"Oslo"}}, {Column: "tags", Kind: index.Set, Values: []string{"a", "c"}}}
	head := index.Head{Vector: query(), Bias: 0.5, Tables: [][]float32{{1, 2, 3, 4}, {5, 6, 7}, {0.1, 0.2, 0.3, 0.4}}}
	for _, c := range filterCases() {
		mask, err := s.Match(c.f)
		check(t, err)
		scores := must[[][]float32](t)(s.Scan(ctx, index.ScanRequest{Bins: bins, Mask: mask, Sets: []index.HeadSet{{Heads: []index.Head{head}}}}))[0]
		vec := make([]float32, dim)
		for _, id := range ids {
			r := model[id]
			row, _ := s.Find(id)
			if mask.Contains(row) != c.holds(&r) {
				t.Fatalf("seed %d: filter %s: id %q: match is %v (values %v)", seed, c.name, id, mask.Contains(row), r.Values)
			}
			if !mask.Contains(row) {
				if !math.IsInf(float64(scores[row]), -1) {
					t.Fatalf("seed %d: filter %s: masked row scores %v", seed, c.name, scores[row])
				}
				continue
			}
			check(t, s.Vectors([]uint32{row}, vec))
			want := expect(&r, vec, &head)
			if d := math.Abs(float64(scores[row]) - want); !(d <= 2e-3+1e-3*math.Abs(want)) {
				t.Fatalf("seed %d: filter %s: id %q scores %v, want %v", seed, c.name, id, scores[row], want)
			}
		}
		hits := must[[]index.Hit](t)(e.Search(ctx, index.Query{Vector: query(), Filter: c.f, Limit: len(model) + 1}))
		if len(hits) != int(mask.GetCardinality()) {
			t.Fatalf("seed %d: filter %s: %d hits, %d match", seed, c.name, len(hits), mask.GetCardinality())
		}
		if !slices.IsSortedFunc(hits, func(a, b index.Hit) int {
			return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
		}) {
			t.Fatalf("seed %d: filter %s: hits are not in order of score, then id", seed, c.name)
		}
		var found index.Found
		part := must[[]index.Hit](t)(e.Search(ctx, index.Query{Vector: query(), Filter: c.f, Limit: 5, Offset: 3, Found: &found}))
		want := hits[min(3, len(hits)):min(8, len(hits))]
		if found.Path == "" || cfg.Recall == 0 && !found.Exact {
			t.Fatalf("seed %d: filter %s: found is %+v", seed, c.name, found)
		}
		if !found.Exact {
			cfg.compare(t, part, want, hits)
		} else if !slices.Equal(part, want) {
			t.Fatalf("seed %d: filter %s: page %v, want %v", seed, c.name, part, want)
		}
	}
}

// compare counts the answers of a page that are the exact ones; every one must
// be a true row of the whole list.
func (cfg *Config) compare(t *testing.T, part, want, whole []index.Hit) {
	t.Helper()
	if len(part) != len(want) {
		t.Fatalf("a page of %d hits, want %d", len(part), len(want))
	}
	for i, h := range part {
		if !slices.Contains(whole, h) || i > 0 && slices.Index(whole, part[i-1]) >= slices.Index(whole, h) {
			t.Fatalf("page %v is no part of %v in its order", part, whole)
		}
		if slices.Contains(want, h) {
			cfg.found.right.Add(1)
		}
	}
	cfg.found.all.Add(int64(len(want)))
}

func expect(r *index.Row, vec []float32, h *index.Head) float64 {
	sum := float64(h.Bias)
	for i, x := range vec {
		sum += float64(x) * float64(h.Vector[i])
	}
	bin := 0
	if v, ok := r.Values["age"]; ok {
		bin = 1
		for _, e := range []float64{20, 40} {
			if e <= v.Num {
				bin++
			}
		}
	}
	sum += float64(h.Tables[0][bin])
	bin = 0
	if v, ok := r.Values["city"]; ok {
		bin = 1
		if v.Str == "Oslo" {
			bin = 2
		}
	}
	sum += float64(h.Tables[1][bin])
	set := r.Values["tags"].Set
	if len(set) == 0 {
		return sum + float64(h.Tables[2][0])
	}
	part := 0.0
	for _, s := range set {
		part += float64(h.Tables[2][map[string]int{"a": 2, "c": 3, "b": 1, "d": 1}[s]])
	}
	return sum + part/math.Sqrt(float64(len(set)))
}

func testModel(t *testing.T, cfg Config, p index.Precision) {
	const seed = 20260131
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx := context.Background()
	s := cfg.Open(t)
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "m", Dim: dim, Precision: p, Columns: columns}))
	model := map[string]index.Row{}
	for step := range 40 {
		var ids []string
		for _, i := range rng.Perm(300)[:1+rng.IntN(60)] {
			ids = append(ids, fmt.Sprintf("c%d", i))
		}
		before := must[index.Snapshot](t)(e.Snapshot(ctx))
		live, version := before.Live().Clone(), before.Version()
		if rng.IntN(4) == 0 {
			want := 0
			for _, id := range ids {
				if _, ok := model[id]; ok {
					want++
				}
				delete(model, id)
			}
			if got := must[int](t)(e.Delete(ctx, ids)); got != want {
				t.Fatalf("seed %d step %d: deleted %d, want %d", seed, step, got, want)
			}
		} else {
			batch := make([]index.Row, len(ids))
			for i, id := range ids {
				batch[i] = randomRow(rng, id)
				model[id] = batch[i]
			}
			check(t, e.Upsert(ctx, batch))
			if rng.IntN(3) == 0 {
				check(t, e.Upsert(ctx, batch)) // twice is once
			}
		}
		if !before.Live().Equals(live) || before.Version() != version {
			t.Fatalf("seed %d step %d: an old snapshot changed", seed, step)
		}
		it := live.Iterator()
		for it.HasNext() {
			row := it.Next()
			if got, ok := before.Find(before.ID(row)); !ok || got != row {
				t.Fatalf("seed %d step %d: old snapshot: id %q found at %d (%v), want %d", seed, step, before.ID(row), got, ok, row)
			}
		}
		if step == 20 && cfg.Reopen != nil {
			s = cfg.Reopen(t, s)
			e = must[index.Engine](t)(s.Open(ctx, "m"))
		}
		if step%10 == 0 || step == 39 {
			verify(t, cfg, e, model, seed)
		}
	}
	check(t, s.Close())
	if err := e.Upsert(ctx, nil); !errors.Is(err, index.ErrClosed) {
		t.Fatalf("upsert after close: %v", err)
	}
}

func testPermuted(t *testing.T, cfg Config, p index.Precision) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(5, 5))
	var all []index.Row
	for i := range 400 {
		all = append(all, randomRow(rng, fmt.Sprintf("c%d", i)))
	}
	var first []index.Hit
	for round, size := range []int{400, 400, 7} {
		s := cfg.Open(t)
		e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "p", Dim: dim, Precision: p, Columns: columns}))
		if round > 0 {
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		for batch := range slices.Chunk(all, size) {
			check(t, e.Upsert(ctx, batch))
		}
		hits := must[[]index.Hit](t)(e.Search(ctx, index.Query{Vector: query(), Limit: 400}))
		if round == 0 {
			first = hits
		} else if !slices.Equal(first, hits) {
			t.Fatalf("round %d: another order or batching of the same rows gives other hits", round)
		}
		check(t, s.Close())
	}
}

func testConcurrent(t *testing.T, cfg Config, p index.Precision) {
	ctx := context.Background()
	s := cfg.Open(t)
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "x", Dim: dim, Precision: p, Columns: columns}))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(9, uint64(w)))
			for range 15 {
				var batch []index.Row
				for i := range 20 {
					batch = append(batch, randomRow(rng, fmt.Sprintf("w%d-%d", w, i)))
				}
				if err := e.Upsert(ctx, batch); err != nil {
					t.Error(err)
				}
				snap, err := e.Snapshot(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if n := snap.Live().GetCardinality(); n%20 != 0 {
					t.Errorf("a snapshot sees %d rows: part of a batch", n)
				}
				if _, err := e.Search(ctx, index.Query{Vector: query(), Filter: &index.Filter{Field: "city", Eq: "Oslo"}, Limit: 5}); err != nil {
					t.Error(err)
				}
				if err := snap.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if hits := must[[]index.Hit](t)(e.Search(ctx, index.Query{Limit: 1000})); len(hits) != 80 {
		t.Fatalf("%d rows, want 80", len(hits))
	}
	check(t, s.Close())
}

func testRefusals(t *testing.T, cfg Config) {
	ctx := context.Background()
	s := cfg.Open(t)
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "r", Dim: 2, Columns: columns}))
	nan := float32(math.NaN())
	err := e.Upsert(ctx, []index.Row{
		{ID: "ok"}, {ID: ""}, {ID: "ok"}, {ID: "v", Vector: []float32{1}}, {ID: "n", Vector: []float32{nan, 0}},
		{ID: "k", Values: map[string]index.Value{"age": {Kind: index.Category}, "nope": {Kind: index.Bool}}}, {ID: "\xff"},
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 7 || !errors.Is(err, index.ErrInvalid) {
		t.Fatalf("want 7 faults, got: %v", err)
	}
	if hits := must[[]index.Hit](t)(e.Search(ctx, index.Query{Limit: 9})); len(hits) != 0 {
		t.Fatalf("a refused batch left %v", hits)
	}
	for _, f := range []index.Filter{{Field: "x", Eq: 1}, {Field: "age", Eq: "a"}, {Eq: 1}, {Field: "vip", Gt: 1}, {Field: "age"}} {
		if _, err := e.Search(ctx, index.Query{Filter: &f, Limit: 1}); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("filter %+v: %v", f, err)
		}
	}
	if _, err := s.Create(ctx, index.Spec{Name: "r"}); !errors.Is(err, index.ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	if _, err := s.Create(ctx, index.Spec{Name: "R!"}); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := s.Open(ctx, "absent"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("open absent: %v", err)
	}
	check(t, s.Alter(ctx, "r", []index.Column{{Name: "extra", Kind: index.Number}}))
	check(t, e.Upsert(ctx, []index.Row{{ID: "e", Values: map[string]index.Value{"extra": {Kind: index.Number, Num: 4}}}}))
	if hits := must[[]index.Hit](t)(e.Search(ctx, index.Query{Filter: &index.Filter{Field: "extra", Eq: 4}, Limit: 9})); len(hits) != 1 {
		t.Errorf("altered column: %v", hits)
	}
	check(t, s.Drop(ctx, "r"))
	if err := e.Upsert(ctx, []index.Row{{ID: "late"}}); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("upsert after drop: %v", err)
	}
	check(t, s.Close())
}
