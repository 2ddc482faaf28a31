package indextest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// sortedBest is the list that Best must return: a sort of all that Scan scored.
func sortedBest(snap index.Snapshot, scores []float32, allowed *roaring.Bitmap, k int) index.Ranked {
	var out index.Ranked
	for row, s := range scores {
		if !math.IsInf(float64(s), -1) && (allowed == nil || allowed.Contains(uint32(row))) {
			out.Rows = append(out.Rows, uint32(row))
		}
	}
	slices.SortFunc(out.Rows, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), strings.Compare(snap.ID(a), snap.ID(b)))
	})
	out.Rows = out.Rows[:min(k, len(out.Rows))]
	for _, row := range out.Rows {
		out.Scores = append(out.Scores, scores[row])
	}
	return out
}

// sameList compares rows, and scores as numbers: a zero may lose its sign.
func sameList(a, b index.Ranked) bool {
	return slices.Equal(a.Rows, b.Rows) && slices.Equal(a.Scores, b.Scores)
}

// testBest holds Best to a sort of Scan's scores: on random requests, and with sizes
// beyond who there is.
// plain leaves each set one vector and a bias, which engines may score by a way of
// its own.
func plain(rng *rand.Rand, req *index.ScanRequest) {
	req.Bins = nil
	for k := range req.Sets {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rng.NormFloat64())
		}
		req.Sets[k] = index.HeadSet{Heads: []index.Head{{Vector: v, Bias: float32(rng.IntN(2))}}}
	}
}

func testBest(t *testing.T, cfg Config, p index.Precision) {
	const seed = 37
	ctx := context.Background()
	s := cfg.Open(t)
	e, _ := grown(t, s, p, seed)
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	rng := rand.New(rand.NewPCG(seed, 3))
	for round := range 25 {
		req := index.BestRequest{ScanRequest: randomRequest(rng, snap.Live())}
		if round%3 == 0 {
			plain(rng, &req.ScanRequest)
		}
		for range req.Sets {
			req.Size = append(req.Size, []int{1, 7, 100, 100000}[rng.IntN(4)])
			var some *roaring.Bitmap
			if rng.IntN(2) == 0 {
				some = roaring.New()
				for row := range snap.Len() {
					if rng.IntN(3) > 0 {
						some.Add(uint32(row))
					}
				}
			}
			req.Allowed = append(req.Allowed, some)
		}
		scores := must[[][]float32](t)(snap.Scan(ctx, req.ScanRequest))
		got := must[[]index.Ranked](t)(snap.Best(ctx, req))
		for k := range req.Sets {
			if want := sortedBest(snap, scores[k], req.Allowed[k], req.Size[k]); !sameList(got[k], want) {
				t.Fatalf("seed %d round %d set %d of %d, size %d: %d rows, want %d, or another order", seed, round, k, len(req.Sets), req.Size[k], len(got[k].Rows), len(want.Rows))
			}
		}
	}
	one := index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Bias: 1}}}}}
	for name, bad := range map[string]index.BestRequest{
		"no size":     {ScanRequest: one},
		"size 0":      {ScanRequest: one, Size: []int{0}},
		"two sizes":   {ScanRequest: one, Size: []int{1, 2}},
		"two allowed": {ScanRequest: one, Size: []int{1}, Allowed: make([]*roaring.Bitmap, 2)},
		"no heads":    {ScanRequest: index.ScanRequest{Sets: []index.HeadSet{{}}}, Size: []int{1}},
	} {
		if _, err := snap.Best(ctx, bad); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if none := must[[]index.Ranked](t)(snap.Best(ctx, index.BestRequest{})); len(none) != 0 {
		t.Errorf("no sets: %d lists", len(none))
	}
	check(t, snap.Close())
	check(t, s.Close())
}

// Crowd fills an engine, which takes vectors of CrowdDim, with enough rows that Best
// goes by a sample, many of them equal, and holds it to a sort for one and for many
// lists, of heads that are all vectors and of heads that are not, under masks, for
// sizes on both sides of what a sample is good for, and where its guess must fail.
func Crowd(t *testing.T, e index.Engine) {
	t.Helper()
	ctx := context.Background()
	const n, batch = 300_000, 20_000
	rng := rand.New(rand.NewPCG(5, 5))
	kinds := make([][]float32, 5000) // so that ties are long
	for i := range kinds {
		kinds[i] = make([]float32, CrowdDim)
		for j := range kinds[i] {
			kinds[i][j] = float32(rng.NormFloat64())
		}
	}
	for lo := 0; lo < n; lo += batch {
		rows := make([]index.Row, batch)
		for i := range rows {
			rows[i] = index.Row{ID: fmt.Sprintf("c%06d", (lo+i)*7919%n), Vector: kinds[rng.IntN(len(kinds))], Values: map[string]index.Value{
				"age": {Kind: index.Number, Num: float64(rng.IntN(90))},
			}}
		}
		check(t, e.Upsert(ctx, rows))
	}
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	half := roaring.New()
	for row := range snap.Len() {
		if rng.IntN(2) == 0 {
			half.Add(uint32(row))
		}
	}
	head := func() index.Head {
		v := make([]float32, CrowdDim)
		for j := range v {
			v[j] = float32(rng.NormFloat64())
		}
		return index.Head{Vector: v, Bias: float32(rng.IntN(3)) / 4}
	}
	bins := []index.Bins{{Column: "age", Kind: index.Number, Edges: []float64{20, 40, 60}}}
	for _, c := range []struct {
		name   string
		sets   int
		tables bool
		flat   bool // every row scores the same: no sample tells them apart
		mask   *roaring.Bitmap
		sizes  []int
	}{
		{name: "one", sets: 1, sizes: []int{1, 3000, 30000, 200000}},
		{name: "few", sets: 3, sizes: []int{1, 3000, 30000}},
		{name: "many", sets: 70, sizes: []int{5, 3000, 30000, 200000}},
		{name: "many of half", sets: 33, mask: half, sizes: []int{1000}},
		{name: "many of few", sets: 20, mask: roaring.BitmapOf(1, 2, 70, 5000, 299_999), sizes: []int{3, 1000}},
		{name: "tables", sets: 20, tables: true, sizes: []int{1000}},
		{name: "all alike", sets: 2, flat: true, sizes: []int{1000}},
	} {
		req := index.BestRequest{ScanRequest: index.ScanRequest{Mask: c.mask}}
		if c.tables {
			req.Bins = bins
		}
		for s := range c.sets {
			h := head()
			if c.flat {
				h.Vector = nil
			}
			if c.tables {
				h.Tables = [][]float32{{1, 0, float32(s) / 8, 0.5, 0}}
			}
			req.Sets = append(req.Sets, index.HeadSet{Heads: []index.Head{h}})
			req.Size = append(req.Size, c.sizes[s%len(c.sizes)])
			if s%3 == 2 {
				req.Allowed = append(req.Allowed, half)
			} else {
				req.Allowed = append(req.Allowed, nil)
			}
		}
		told := 0
		req.Progress = func(done, total int) {
			if done < told || total != snap.Len() {
				t.Errorf("%s: progress %d of %d after %d", c.name, done, total, told)
			}
			told = done
		}
		got := must[[]index.Ranked](t)(snap.Best(ctx, req))
		was := runtime.GOMAXPROCS(1)
		told = 0
		again := must[[]index.Ranked](t)(snap.Best(ctx, req))
		runtime.GOMAXPROCS(was)
		req.Progress = nil
		all := must[[][]float32](t)(snap.Scan(ctx, req.ScanRequest))
		for s := 0; s < c.sets; s += 1 + c.sets/12 {
			alone := req.ScanRequest
			alone.Sets = req.Sets[s : s+1]
			if !sameBits(must[[][]float32](t)(snap.Scan(ctx, alone))[0], all[s]) {
				t.Fatalf("%s: set %d of %d scores other bytes alone", c.name, s, c.sets)
			}
			want := sortedBest(snap, all[s], req.Allowed[s], req.Size[s])
			if !sameList(got[s], want) || !sameList(again[s], want) {
				t.Fatalf("%s: set %d, size %d: %d and, on one core, %d rows; want %d, or another order", c.name, s, req.Size[s], len(got[s].Rows), len(again[s].Rows), len(want.Rows))
			}
		}
	}
	stop, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := snap.Best(stop, index.BestRequest{ScanRequest: index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{head()}}}}, Size: []int{10}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	check(t, snap.Close())
}

// CrowdDim is the dimension that Crowd needs.
const CrowdDim = 20
