//go:build cuda

package scan

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/index/selection"
)

// score is a set's score of a row in plain Go: the oracle.
func (b *base) plan(p *Plan, bins [][]uint16, s *Set, row int) float32 {
	head := func(h *SumHead) float64 {
		x := 0.0
		if h.Codes != nil {
			sum := 0
			for j, c := range h.Codes {
				sum += int(c) * int(b.codes[row*b.dim+j])
			}
			x = float64(float64(sum) * (float64(b.scales[row]) * h.Scale))
		}
		for _, t := range h.Tables {
			x += t.Values[bins[t.Column][row]]
		}
		for _, t := range h.Trees {
			leaf := byte(0)
			for _, s := range t.Splits {
				leaf |= s.Answer[bins[s.Column][row]]
			}
			x += t.Leaves[leaf]
		}
		return x + h.Bias
	}
	var all []float64
	for h := range s.Heads {
		all = append(all, head(&s.Heads[h]))
	}
	x := all[0]
	switch s.Reduce {
	case Max:
		x = slices.Max(all)
	case Mean:
		x = 0
		for _, y := range all {
			x += y
		}
		x /= float64(len(all))
	case TopMean:
		slices.Sort(all)
		slices.Reverse(all)
		x = 0
		for _, y := range all[:s.Top] {
			x += y
		}
		x /= float64(s.Top)
	}
	if s.Common != nil {
		x += head(s.Common)
	}
	return float32(max(-math.MaxFloat32, min(math.MaxFloat32, x)))
}

// planned are the scores of the first n rows under a set of a plan, and the candidates of
// the size best, sorted.
func (b *base) planned(p *Plan, bins [][]uint16, set, n int, mask []uint64, size int) (scores []float32, best []uint64) {
	for r := range n {
		x := float32(math.Inf(-1))
		if mask[r/64]>>(r%64)&1 != 0 {
			x = b.plan(p, bins, &p.Sets[set], r)
			best = append(best, selection.MakeEntry(x, uint32(r)))
		}
		scores = append(scores, x)
	}
	slices.Sort(best)
	end := min(size, len(best))
	for end > 0 && end < len(best) && best[end]>>32 == best[end-1]>>32 {
		end++
	}
	return scores, best[:end]
}

func randomPlan(rng *rand.Rand, n, dim, columns, sets, heads int) (*Plan, [][]uint16) {
	p := &Plan{}
	bins := make([][]uint16, columns)
	for c := range bins {
		count := 2 + rng.IntN(20)
		for range n {
			bins[c] = append(bins[c], uint16(rng.IntN(count)))
		}
		p.Columns = append(p.Columns, Column{Key: fmt.Sprintf("column %d, %d, %d", c, count, rng.Int()), Bins: count, Fill: func(from int, dst []uint16) { copy(dst, bins[c][from:]) }})
	}
	sum := func() SumHead {
		h := SumHead{Head: Head{Bias: float64(rng.IntN(2)) * rng.NormFloat64()}}
		if rng.IntN(4) > 0 {
			h.Head = randomHeads(rng, 1, dim)[0]
		}
		for c := range bins {
			if rng.IntN(2) == 0 {
				t := Table{Column: c}
				for range p.Columns[c].Bins {
					t.Values = append(t.Values, rng.NormFloat64())
				}
				h.Tables = append(h.Tables, t)
			}
		}
		for range rng.IntN(4) {
			t := Tree{}
			depth := rng.IntN(9)
			if columns == 0 {
				depth = 0
			}
			for level := range depth {
				c := rng.IntN(columns)
				s := Split{Column: c}
				for range p.Columns[c].Bins {
					s.Answer = append(s.Answer, byte(rng.IntN(2))<<level)
				}
				t.Splits = append(t.Splits, s)
			}
			for range 1 << depth {
				t.Leaves = append(t.Leaves, rng.NormFloat64())
			}
			h.Trees = append(h.Trees, t)
		}
		return h
	}
	for range sets {
		s := Set{Reduce: Reduce(rng.IntN(3))}
		for range 1 + rng.IntN(heads) {
			s.Heads = append(s.Heads, sum())
		}
		if s.Reduce == TopMean {
			s.Top = 1 + rng.IntN(min(len(s.Heads), TopMost))
		}
		if rng.IntN(2) == 0 {
			h := sum()
			s.Common = &h
		}
		p.Sets = append(p.Sets, s)
	}
	return p, bins
}

func checkPlan(t *testing.T, p population, b *base, n int, mask []uint64, plan *Plan, bins [][]uint16, size []int) {
	t.Helper()
	out := make([][]float32, len(plan.Sets))
	for s := range out {
		out[s] = make([]float32, n)
	}
	if err := p.Scores(t.Context(), n, mask, plan, out); err != nil {
		t.Fatal(err)
	}
	lists, err := p.BestOf(t.Context(), n, mask, plan, size)
	if err != nil {
		t.Fatal(err)
	}
	for s := range plan.Sets {
		scores, want := b.planned(plan, bins, s, n, mask, size[s])
		for r := range n {
			if out[s][r] != scores[r] {
				t.Fatalf("%d rows, set %d of %d (%d heads, reduction %d): row %d scores %v, want %v", n, s, len(plan.Sets), len(plan.Sets[s].Heads), plan.Sets[s].Reduce, r, out[s][r], scores[r])
			}
		}
		slices.Sort(lists[s])
		if !slices.Equal(candidates(lists[s], want), want) {
			t.Fatalf("%d rows, the best %d under set %d: %d candidates, want %d", n, size[s], s, len(lists[s]), len(want))
		}
	}
}

func randomMask(rng *rand.Rand, n, percent int) []uint64 {
	mask := make([]uint64, (n+63)/64)
	for r := range n {
		if rng.IntN(100) < percent {
			mask[r/64] |= 1 << (r % 64)
		}
	}
	return mask
}

// TestPlan holds sets of heads with tables and trees to the oracle, over sizes that
// straddle warps, blocks, tiles, words of the mask and segments.
func TestPlan(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(11, 12))
	for _, c := range []struct{ n, dim, columns, sets, heads, spread int }{
		{1, 1, 0, 1, 1, 127}, {63, 16, 1, 2, 3, 1}, {64, 17, 3, 3, 9, 127}, {129, 24, 2, 9, 2, 127}, {500, 100, 5, 4, 12, 2}, {1100, 8, 3, 2, 70, 1},
		// Many heads: panels of 64 that are full and not, rows that end within a warp's.
		{17, 16, 0, 64, 1, 127}, {700, 48, 1, 3, 64, 127}, {65, 100, 0, 9, 20, 127}, {70, 64, 0, 9, 20, 127}, {130, 200, 0, 70, 1, 1}, {33, 384, 1, 1, 150, 127},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b := random(rng, c.n, c.dim, c.spread)
			p, err := New(d, c.dim)
			if err != nil {
				t.Fatal(err)
			}
			p.perSegment, p.tileBytes = 512, 4096
			defer p.Close()
			plan, bins := randomPlan(rng, c.n, c.dim, c.columns, c.sets, c.heads)
			for lo := 0; lo < c.n; {
				hi := min(c.n, lo+1+rng.IntN(400))
				if err := p.Append(t.Context(), b.codes[lo*c.dim:hi*c.dim], b.scales[lo:hi]); err != nil {
					t.Fatal(err)
				}
				// Columns grow with the rows.
				size := make([]int, c.sets)
				for s := range size {
					size[s] = []int{0, 1, 1 + rng.IntN(hi), hi, hi + 5}[rng.IntN(5)]
				}
				checkPlan(t, p, b, hi, randomMask(rng, hi, []int{100, 50, 0}[rng.IntN(3)]), plan, bins, size)
				lo = hi
			}
		})
	}
}

// TestPlanEveryAllocationFails: an error that says so, nothing left behind, and the
// same scores the next time.
func TestPlanEveryAllocationFails(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	rng := rand.New(rand.NewPCG(13, 14))
	b := random(rng, 200, 16, 127)
	plan, bins := randomPlan(rng, 200, 16, 2, 2, 3)
	mask := randomMask(rng, 200, 80)
	for n := 1; ; n++ {
		t.Setenv("KINDRED_SIM_FAIL_ALLOC", strconv.Itoa(n))
		d, err := cuda.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(d, 16)
		if err != nil {
			t.Fatal(err)
		}
		p.perSegment = 128
		if err = p.Append(t.Context(), b.codes, b.scales); err == nil {
			_, err = p.BestOf(t.Context(), 200, mask, plan, []int{5, 150})
		} else if e := p.Append(t.Context(), b.codes, b.scales); e != nil {
			t.Fatal(e)
		}
		if err != nil && !errors.Is(err, cuda.ErrOutOfMemory) {
			t.Fatalf("allocation %d failed: %v", n, err)
		}
		if err != nil {
			checkPlan(t, p, b, 200, mask, plan, bins, []int{5, 150})
		}
		if e := errors.Join(p.Close(), d.Close()); e != nil {
			t.Fatalf("allocation %d failed: %v", n, e)
		}
		if err == nil {
			if n < 15 {
				t.Fatalf("%d allocations only were seen to fail", n-1)
			}
			return
		}
	}
}

func TestPlanRefused(t *testing.T) {
	d := cudatest.Open(t)
	p, err := New(d, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), make([]int8, 8), make([]float32, 2)); err != nil {
		t.Fatal(err)
	}
	column := Column{Key: "c", Bins: 2, Fill: func(_ int, dst []uint16) { clear(dst) }}
	beyond := Column{Key: "d", Bins: 2, Fill: func(_ int, dst []uint16) { dst[0] = 2 }}
	for what, plan := range map[string]Plan{
		"a set of no heads":       {Sets: []Set{{}}},
		"a short vector":          {Sets: []Set{{Heads: []SumHead{{Head: Head{Codes: make([]int16, 3)}}}}}},
		"the top of none":         {Sets: []Set{{Heads: make([]SumHead, 1), Reduce: TopMean}}},
		"the top of too many":     {Sets: []Set{{Heads: make([]SumHead, 1), Reduce: TopMean, Top: 2}}},
		"an unknown reduction":    {Sets: []Set{{Heads: make([]SumHead, 1), Reduce: 9}}},
		"a column that is not":    {Sets: []Set{{Heads: []SumHead{{Tables: []Table{{Values: make([]float64, 2)}}}}}}},
		"a short table":           {Columns: []Column{column}, Sets: []Set{{Heads: []SumHead{{Tables: []Table{{Values: make([]float64, 1)}}}}}}},
		"a tree without a leaf":   {Sets: []Set{{Heads: []SumHead{{Trees: []Tree{{}}}}}}},
		"an answer beyond":        {Columns: []Column{column}, Sets: []Set{{Heads: []SumHead{{Trees: []Tree{{Splits: []Split{{Answer: []byte{0, 2}}}, Leaves: make([]float64, 2)}}}}}}},
		"a bin that there is not": {Columns: []Column{beyond}, Sets: []Set{{Heads: make([]SumHead, 1)}}},
	} {
		if err := p.Scores(t.Context(), 2, []uint64{3}, &plan, [][]float32{make([]float32, 2)}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// TestManyCodes: heads at both ends of what a short holds, and where the lower byte's upper
// bit is set.
func TestManyCodes(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(15, 16))
	b := random(rng, 70, 3, 127)
	p, err := New(d, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	for _, top := range []int16{127, 128, 32639, 32640, math.MaxInt16} {
		plan := &Plan{}
		var size []int
		for k := range 12 {
			h := Head{Codes: []int16{top, -math.MaxInt16, int16(k - 200)}, Scale: 1}
			plan.Sets, size = append(plan.Sets, Set{Heads: []SumHead{{Head: h}}}), append(size, k)
		}
		checkPlan(t, p, b, 70, randomMask(rng, 70, 90), plan, nil, size)
	}
}

// TestSeeds: sets of many vectors alone, of which the highest count, between others, over
// segments and tiles, with ties and with codes at both ends of a short.
func TestSeeds(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(17, 18))
	for _, spread := range []int{1, 127} {
		b := random(rng, 200, 20, spread)
		p, err := New(d, 20)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.perSegment = 128
		if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
			t.Fatal(err)
		}
		plan, bins := randomPlan(rng, 200, 20, 2, 6, 3)
		for i, s := range []Set{{Reduce: Max}, {Reduce: TopMean, Top: 5}, {Reduce: Mean}, {Reduce: TopMean, Top: 1}} {
			for k := range 9 + 20*i {
				h := randomHeads(rng, 1, 20)[0]
				h.Codes[k%20] = math.MaxInt16 - int16(k)
				s.Heads = append(s.Heads, SumHead{Head: h})
			}
			plan.Sets = slices.Insert(plan.Sets, 2*i, s)
			if p.bySeeds(&s) != (s.Reduce != Mean) {
				t.Errorf("reduction %d of %d vectors: by package seeds: %v", s.Reduce, len(s.Heads), p.bySeeds(&s))
			}
			if s.Common = &s.Heads[0]; p.bySeeds(&s) {
				t.Error("a set with a common head is given to package seeds, which doesn't add it")
			}
		}
		done := 0
		plan.Progress = func(now, total int) {
			if now < done || now > total || total != 200 {
				t.Errorf("%d of %d done after %d", now, total, done)
			}
			done = now
		}
		size := slices.Repeat([]int{20}, len(plan.Sets))
		out := slices.Repeat([][]float32{nil}, len(plan.Sets))
		for s := range out {
			out[s] = make([]float32, 200)
		}
		if err := p.Scores(t.Context(), 200, randomMask(rng, 200, 100), plan, out); err != nil || done != 200 {
			t.Fatalf("%d done: %v", done, err)
		}
		plan.Progress = nil
		checkPlan(t, p, b, 200, randomMask(rng, 200, 70), plan, bins, size)
		if held := d.Metrics().Held["seeds"]; held != 0 {
			t.Errorf("%d bytes for seeds are left", held)
		}
	}
}

// TestPanels: as many vectors at once as one launch takes, some more and some fewer, of which the
// last launch has any number.
func TestPanels(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(69, 70))
	const n, dim = 40, 24
	b := random(rng, n, dim, 127)
	p, err := New(d, dim)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{7, 8, 9, 63, 64, 65, 71, 72, 73, 129} {
		plan, mask := &Plan{Sets: []Set{{Reduce: Mean}}}, randomMask(rng, n, 80)
		for _, h := range randomHeads(rng, count, dim) {
			plan.Sets[0].Heads = append(plan.Sets[0].Heads, SumHead{Head: h})
		}
		checkPlan(t, p, b, n, mask, plan, nil, []int{n / 3})
		heads := randomHeads(rng, count, dim)
		check(t, p, b, n, mask, heads, slices.Repeat([]int{n / 3}, count))
	}
}
