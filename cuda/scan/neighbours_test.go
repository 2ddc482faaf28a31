//go:build cuda

package scan_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/rows"
)

// TestNeighbours: customers by their likeness to many seeds, all of which are vectors, have
// the scores and lists on the device that the engine gives them without one, to the bit.
func TestNeighbours(t *testing.T) {
	d, err := cuda.Open(0)
	if err != nil {
		t.Skipf("TestBest says why: %v", err)
	}
	const n, dim = 230, 24
	rng := rand.New(rand.NewPCG(41, 1))
	vector := func() []float32 {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rng.NormFloat64())
		}
		return v
	}
	all := make([]index.Row, n)
	for i := range all {
		all[i] = index.Row{ID: fmt.Sprintf("c%03d", i*77%n), Vector: vector()}
		if i%9 == 0 { // the same as another, and one that says nothing
			all[i].Vector = slices.Clone(all[i/2].Vector)
		} else if i%31 == 0 {
			all[i].Vector = nil
		}
	}
	var req index.BestRequest
	for i, set := range []index.HeadSet{{Reduce: index.TopMean, Top: 5}, {Reduce: index.Max}, {Reduce: index.TopMean, Top: 1}, {Reduce: index.TopMean, Top: 40}} {
		for range 9 + 40*i {
			h := index.Head{Vector: vector()}
			if i == 3 {
				h.Bias = float32(rng.NormFloat64())
			}
			set.Heads = append(set.Heads, h)
		}
		req.Sets, req.Size = append(req.Sets, set), append(req.Size, 50)
	}
	ask := func(opt rows.Options) (scores [][]float32, lists []index.Ranked) {
		store := memory.OpenWith(opt)
		e, err := store.Create(t.Context(), index.Spec{Name: "n", Dim: dim, Precision: index.Int8})
		must(t, err)
		must(t, e.Upsert(t.Context(), all))
		snap, err := e.Snapshot(t.Context())
		must(t, err)
		scores, err = snap.Scan(context.Background(), req.ScanRequest)
		must(t, err)
		lists, err = snap.Best(context.Background(), req)
		must(t, errors.Join(err, snap.Close(), store.Close()))
		return scores, lists
	}
	s := &tables{t: t, d: d}
	want, wantLists := ask(rows.Options{ChunkRows: 64})
	got, lists := ask(rows.Options{ChunkRows: 64, Device: s, DeviceRows: 1})
	for i := range want {
		for r := range want[i] {
			if math.Float32bits(got[i][r]) != math.Float32bits(want[i][r]) && (got[i][r] != 0 || want[i][r] != 0) {
				t.Fatalf("set %d: row %d scores %v on the device, %v without", i, r, got[i][r], want[i][r])
			}
		}
		if !slices.Equal(lists[i].Rows, wantLists[i].Rows) || !slices.Equal(lists[i].Scores, wantLists[i].Scores) {
			t.Errorf("set %d: another list on the device", i)
		}
	}
	must(t, d.Close())
	if s.lists.Load() < 2 {
		t.Error("the device was not asked")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
