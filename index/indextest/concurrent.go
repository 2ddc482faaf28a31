package indextest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// fingerprint hashes everything that a snapshot answers.
func fingerprint(snap index.Snapshot, req index.ScanRequest) (uint64, error) {
	h := fnv.New64a()
	num := func(x uint64) { _, _ = h.Write(binary.LittleEndian.AppendUint64(nil, x)) }
	num(uint64(snap.Len()))
	num(snap.Version())
	live := snap.Live().ToArray()
	for _, row := range live {
		_, _ = h.Write([]byte(snap.ID(row)))
		found, ok := snap.Find(snap.ID(row))
		if !ok || found != row {
			return 0, fmt.Errorf("id %q is in row %d and found in %d (%v)", snap.ID(row), row, found, ok)
		}
		num(uint64(row))
	}
	for _, c := range filterCases() {
		m, err := snap.Match(c.f)
		if err != nil {
			return 0, err
		}
		num(m.GetCardinality())
		for _, row := range m.ToArray() {
			num(uint64(row))
		}
	}
	scores, err := snap.Scan(context.Background(), req)
	if err != nil {
		return 0, err
	}
	for _, set := range scores {
		for _, x := range set {
			num(uint64(math.Float32bits(x)))
		}
	}
	for _, c := range columns {
		d, err := snap.Column(c.Name)
		if err != nil {
			return 0, err
		}
		for _, x := range d.Numbers {
			num(math.Float64bits(x))
		}
		_, _ = fmt.Fprint(h, d.Codes, d.Offsets, d.Dict)
	}
	vec := make([]float32, len(live)*dim)
	if err := snap.Vectors(live, vec); err != nil {
		return 0, err
	}
	for _, x := range vec {
		num(uint64(math.Float32bits(x)))
	}
	return h.Sum64(), nil
}

// testOldSnapshot: a snapshot answers the same before, during and after
// upserts, deletes, new columns and the compaction that they bring about.
func testOldSnapshot(t *testing.T, cfg Config, p index.Precision) {
	const seed = 41
	ctx := context.Background()
	s := cfg.Open(t)
	e, model := grown(t, s, p, seed)
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	rng := rand.New(rand.NewPCG(seed, 1))
	req := randomRequest(rng, snap.Live())
	req.Mask = nil
	before := must[uint64](t)(fingerprint(snap, req))
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for rounds := 0; rounds < 2 || !done.Load(); rounds++ {
				got, err := fingerprint(snap, req)
				if err != nil || got != before {
					t.Errorf("seed %d: an old snapshot answers %x, was %x (%v)", seed, got, before, err)
					return
				}
			}
		})
	}
	for step := range 25 {
		var batch []index.Row
		for _, i := range rng.Perm(900)[:60] {
			batch = append(batch, randomRow(rng, fmt.Sprintf("c%d", i)))
		}
		if step > 12 {
			for i := range batch {
				batch[i].Values["late"] = index.Value{Kind: index.Category, Str: fmt.Sprint(rng.IntN(9))}
			}
		}
		if step == 12 {
			check(t, s.Alter(ctx, "scan", []index.Column{{Name: "late", Kind: index.Category}}))
		}
		check(t, e.Upsert(ctx, batch))
		for _, r := range batch {
			model[r.ID] = r
		}
		if step%5 == 4 {
			gone := slices.Sorted(maps.Keys(model))[:40]
			if n := must[int](t)(e.Delete(ctx, gone)); n != len(gone) {
				t.Errorf("seed %d step %d: %d deleted, want %d", seed, step, n, len(gone))
			}
			for _, id := range gone {
				delete(model, id)
			}
		}
	}
	done.Store(true)
	wg.Wait()
	if got := must[uint64](t)(fingerprint(snap, req)); got != before {
		t.Errorf("seed %d: an old snapshot answers %x in the end, was %x", seed, got, before)
	}
	now := must[index.Snapshot](t)(e.Snapshot(ctx))
	if now.Version() == snap.Version() {
		t.Errorf("seed %d: the version did not change", seed)
	}
	if got := must[uint64](t)(fingerprint(now, req)); got == before {
		t.Errorf("seed %d: the new snapshot answers as the old one does", seed)
	}
	check(t, now.Close())
	check(t, snap.Close())
	verify(t, cfg, e, model, seed)
	check(t, s.Close())
}

// testTogether writes generations of the same rows while others read: every
// reader sees one whole generation, none goes back, and what Get shows, a later
// snapshot and search show too.
func testTogether(t *testing.T, cfg Config, p index.Precision) {
	const rows, gens = 25, 60
	ctx := context.Background()
	s := cfg.Open(t)
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "t", Dim: dim, Precision: p, Columns: []index.Column{{Name: "gen", Kind: index.Number}, {Name: "name", Kind: index.Category}}}))
	ids := make([]string, rows)
	for i := range ids {
		ids[i] = fmt.Sprintf("c%d", i)
	}
	generation := func(g int) []index.Row {
		batch := make([]index.Row, rows)
		for i, id := range ids {
			vec := make([]float32, dim) // a sign tells generations apart in every precision
			for j := range vec {
				vec[j] = float32(1 / math.Sqrt(dim))
			}
			vec[g%dim] *= -1
			batch[i] = index.Row{ID: id, Vector: vec, Record: []byte(fmt.Sprint(g)), Values: map[string]index.Value{
				"gen": {Kind: index.Number, Num: float64(g)}, "name": {Kind: index.Category, Str: fmt.Sprint(g)}}}
		}
		return batch
	}
	check(t, e.Upsert(ctx, generation(0)))
	var done atomic.Bool
	var acked atomic.Int64
	var wg sync.WaitGroup
	reader := func(look func() (int, error)) {
		wg.Go(func() {
			for last := 0; ; {
				stop, floor := done.Load(), int(acked.Load())
				g, err := look()
				if err != nil {
					t.Error(err)
					return
				}
				if g < last || g < floor {
					t.Errorf("generation %d is seen after %d was, and %d was acknowledged", g, last, floor)
					return
				}
				if last = g; stop {
					return
				}
			}
		})
	}
	bySnapshot := func() (int, error) {
		snap, err := e.Snapshot(ctx)
		if err != nil {
			return 0, err
		}
		d, err := snap.Column("gen")
		if err != nil {
			return 0, err
		}
		live := snap.Live().ToArray()
		g := int(d.Numbers[live[0]])
		scores, err := snap.Scan(ctx, index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: generation(g)[0].Vector}}}}})
		if err != nil {
			return 0, err
		}
		for _, row := range live {
			if len(live) != rows || int(d.Numbers[row]) != g || scores[0][row] < 0.99 {
				return 0, fmt.Errorf("a snapshot of %d rows mixes generations %d and %v (score %v)", len(live), g, d.Numbers[row], scores[0][row])
			}
		}
		return g, snap.Close()
	}
	reader(bySnapshot)
	reader(func() (int, error) { // Get, then what others see
		got, err := e.Get(ctx, ids)
		if err != nil {
			return 0, err
		}
		g := int(got[0].Values["gen"].Num)
		for i, r := range got {
			if int(r.Values["gen"].Num) != g || string(r.Record) != fmt.Sprint(g) || !(r.Vector[g%dim] < 0) || !(r.Vector[(g+1)%dim] > 0) {
				return 0, fmt.Errorf("get mixes generation %d with %v (record %s) in row %d", g, r.Values["gen"].Num, r.Record, i)
			}
		}
		later, err := bySnapshot()
		if err == nil && later < g {
			err = fmt.Errorf("get shows generation %d before a snapshot does (%d)", g, later)
		}
		return g, err
	})
	reader(func() (int, error) {
		floor := int(acked.Load())
		hits, err := e.Search(ctx, index.Query{Limit: rows, Filter: &index.Filter{Field: "gen", Gte: floor}})
		if err != nil || len(hits) != rows {
			return 0, fmt.Errorf("%d rows of generation %d or later (%v)", len(hits), floor, err)
		}
		hits, err = e.Search(ctx, index.Query{Limit: rows, Filter: &index.Filter{Field: "name", Eq: fmt.Sprint(floor)}})
		if err != nil || len(hits) != 0 && len(hits) != rows {
			return 0, fmt.Errorf("%d rows of generation %d (%v)", len(hits), floor, err)
		}
		return floor, nil
	})
	for g := 1; g <= gens; g++ {
		check(t, e.Upsert(ctx, generation(g)))
		acked.Store(int64(g))
	}
	done.Store(true)
	wg.Wait()
	check(t, s.Close())
}
