package selftest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
)

// town is a population in plain Go.
type town struct {
	n, dim int
	codes  []int8
	scales []float32
	bins   [][]uint16 // of columns
	mask   []uint64
}

// columnBins is how many bins a column of a town has.
const columnBins = 7

// newTown makes rows of few codes, so that many score alike.
func newTown(rng *rand.Rand, n, dim, spread, columns int) *town {
	t := &town{n: n, dim: dim, mask: make([]uint64, (n+63)/64), bins: make([][]uint16, columns)}
	for range n * dim {
		t.codes = append(t.codes, int8(rng.IntN(2*spread+1)-spread))
	}
	for r := range n {
		t.scales = append(t.scales, float32(1+rng.IntN(3))/64)
		if rng.IntN(10) > 0 {
			t.mask[r/64] |= 1 << (r % 64)
		}
		for c := range t.bins {
			t.bins[c] = append(t.bins[c], uint16(rng.IntN(columnBins)))
		}
	}
	return t
}

func (t *town) head(rng *rand.Rand) scan.Head {
	h := scan.Head{Scale: 1 / 1024.0, Bias: rng.NormFloat64(), Codes: make([]int16, t.dim)}
	for j := range h.Codes {
		h.Codes[j] = int16(rng.IntN(2001) - 1000)
	}
	return h
}

// score is a head's of a row, in fp64.
func (t *town) score(h *scan.SumHead, row int) float64 {
	x := 0.0
	if h.Codes != nil {
		sum := 0
		for j, c := range h.Codes {
			sum += int(c) * int(t.codes[row*t.dim+j])
		}
		x = float64(float64(sum) * (float64(t.scales[row]) * h.Scale))
	}
	for _, table := range h.Tables {
		x += table.Values[t.bins[table.Column][row]]
	}
	for _, tree := range h.Trees {
		leaf := byte(0)
		for _, s := range tree.Splits {
			leaf |= s.Answer[t.bins[s.Column][row]]
		}
		x += tree.Leaves[leaf]
	}
	return x + h.Bias
}

// under is a set's score of every row.
func (t *town) under(s *scan.Set) []float32 {
	out := make([]float32, t.n)
	all := make([]float64, len(s.Heads))
	for r := range out {
		if t.mask[r/64]>>(r%64)&1 == 0 {
			out[r] = float32(math.Inf(-1))
			continue
		}
		for h := range s.Heads {
			all[h] = t.score(&s.Heads[h], r)
		}
		x := all[0]
		switch s.Reduce {
		case scan.Max:
			x = slices.Max(all)
		case scan.Mean, scan.TopMean:
			n := len(all)
			if s.Reduce == scan.TopMean {
				n = s.Top
				slices.SortFunc(all, func(a, b float64) int { return int(math.Copysign(1, b-a)) })
			}
			x = 0
			for _, y := range all[:n] {
				x += y
			}
			x /= float64(n)
		}
		if s.Common != nil {
			x += t.score(s.Common, r)
		}
		out[r] = float32(x)
	}
	return out
}

// image orders scores as unsigned numbers.
func image(x float32) uint32 {
	b := math.Float32bits(x + 0)
	if b>>31 != 0 {
		return ^b
	}
	return b | 1<<31
}

// best are the candidates of the k best by these scores, as [scan.Population.Best] gives them,
// sorted.
func (t *town) best(scores []float32, k int) []uint64 {
	var all []uint64
	for r, x := range scores {
		if t.mask[r/64]>>(r%64)&1 != 0 {
			all = append(all, uint64(^image(x))<<32|uint64(r))
		}
	}
	slices.Sort(all)
	end := min(k, len(all))
	for end > 0 && end < len(all) && all[end]>>32 == all[end-1]>>32 {
		end++
	}
	return all[:end]
}

// lists compares candidates with those of scores. Some that are worse may follow the best.
func (t *town) lists(got [][]uint64, scores [][]float32, size []int) error {
	if len(got) != len(scores) {
		return fmt.Errorf("%d lists, want %d", len(got), len(scores))
	}
	for h := range scores {
		want, all := t.best(scores[h], size[h]), t.best(scores[h], t.n)
		slices.Sort(got[h])
		if n := len(got[h]); n < len(want) || n > len(all) || !slices.Equal(got[h], all[:n]) {
			return fmt.Errorf("list %d of the best %d has %d candidates, want %d, or others", h, size[h], n, len(want))
		}
	}
	return nil
}

// on gives f the town's population on the device.
func (t *town) on(ctx context.Context, d *cuda.Device, f func(p *scan.Population) error) (err error) {
	p, err := scan.New(d, t.dim)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Append(ctx, t.codes, t.scales); err != nil {
		return err
	}
	return f(p)
}

// planned compares scores and lists of a plan.
func (t *town) planned(ctx context.Context, p *scan.Population, plan *scan.Plan, size []int) error {
	out, want := make([][]float32, len(plan.Sets)), make([][]float32, len(plan.Sets))
	for s := range out {
		out[s], want[s] = make([]float32, t.n), t.under(&plan.Sets[s])
	}
	if err := p.Scores(ctx, t.n, t.mask, plan, out); err != nil {
		return err
	}
	for s := range out {
		for r, x := range out[s] {
			if x != want[s][r] {
				return fmt.Errorf("set %d scores row %d %g, want %g", s, r, x, want[s][r])
			}
		}
	}
	got, err := p.BestOf(ctx, t.n, t.mask, plan, size)
	if err != nil {
		return err
	}
	return t.lists(got, want, size)
}

// scans tests lists and scores: of plain heads, of heads with tables and trees, of a few at
// once and of more than the tensor cores begin with.
func scans(ctx context.Context, d *cuda.Device) (what string, err error) {
	rng := rand.New(rand.NewPCG(2, 2))
	// Rows of 64 bytes, all of a chunk of the tensor cores, and of 80, one and a bit.
	for _, t := range []*town{newTown(rng, 1500, 63, 3, 2), newTown(rng, 300, 77, 3, 2)} {
		err = t.on(ctx, d, func(p *scan.Population) error {
			for _, count := range []int{1, 8, 20} {
				what = fmt.Sprintf("lists of %d plain heads", count)
				if err := t.plain(ctx, p, rng, count); err != nil {
					return err
				}
			}
			for _, sets := range []int{2, 11} {
				what = fmt.Sprintf("%d sets of heads with columns", sets)
				plan, size := t.plan(rng, sets), []int{}
				for s := range sets {
					size = append(size, 1+s*97)
				}
				if err := t.planned(ctx, p, plan, size); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return what, err
		}
	}
	if d.Info().Simulated { // which would take a second
		return what, nil
	}
	return scansLong(ctx, d)
}

// scansLong tests a list of so many candidates that they are narrowed on the device.
func scansLong(ctx context.Context, d *cuda.Device) (what string, err error) {
	rng := rand.New(rand.NewPCG(6, 6))
	t := newTown(rng, 250_000, 15, 1, 0)
	return "a long list", t.on(ctx, d, func(p *scan.Population) error { return t.plain(ctx, p, rng, 2) })
}

// plain compares lists of so many plain heads.
func (t *town) plain(ctx context.Context, p *scan.Population, rng *rand.Rand, count int) error {
	heads, size, scores := []scan.Head{}, []int{}, [][]float32{}
	for h := range count {
		heads, size = append(heads, t.head(rng)), append(size, []int{1, 10, t.n / 2, 5000}[(h+count)%4])
		scores = append(scores, t.under(&scan.Set{Heads: []scan.SumHead{{Head: heads[h]}}}))
	}
	got, err := p.Best(ctx, t.n, t.mask, heads, size)
	if err != nil {
		return err
	}
	return t.lists(got, scores, size)
}

// plan is one of heads with tables and trees of two columns, and of each reduction.
func (t *town) plan(rng *rand.Rand, sets int) *scan.Plan {
	plan := &scan.Plan{}
	for c := range t.bins {
		plan.Columns = append(plan.Columns, scan.Column{Key: fmt.Sprint(c), Bins: columnBins, Fill: func(from int, dst []uint16) { copy(dst, t.bins[c][from:]) }})
	}
	sum := func() scan.SumHead {
		h := scan.SumHead{Head: t.head(rng), Tables: []scan.Table{{Column: rng.IntN(2)}}}
		for range columnBins {
			h.Tables[0].Values = append(h.Tables[0].Values, rng.NormFloat64())
		}
		tree := scan.Tree{Splits: []scan.Split{{Column: 0}, {Column: 1}, {Column: 0}}}
		for s := range tree.Splits {
			for range columnBins {
				tree.Splits[s].Answer = append(tree.Splits[s].Answer, byte(rng.IntN(2))<<s)
			}
		}
		for range 8 {
			tree.Leaves = append(tree.Leaves, rng.NormFloat64())
		}
		h.Trees = append(h.Trees, tree)
		return h
	}
	for s := range sets {
		set := scan.Set{Heads: []scan.SumHead{sum(), sum(), sum()}, Reduce: []scan.Reduce{scan.Max, scan.Mean, scan.TopMean}[s%3]}
		if set.Reduce == scan.TopMean {
			set.Top = 2
		}
		if s%2 == 1 {
			common := sum()
			set.Common = &common
		}
		plan.Sets = append(plan.Sets, set)
	}
	return plan
}

// likenesses tests scores by many vectors, of which the highest count.
func likenesses(ctx context.Context, d *cuda.Device) (what string, err error) {
	rng := rand.New(rand.NewPCG(3, 3))
	t := newTown(rng, 300, 41, 127, 0)
	err = t.on(ctx, d, func(p *scan.Population) error {
		for _, top := range []int{1, 5} {
			what = fmt.Sprintf("the mean of the highest %d of 70", top)
			set := scan.Set{Reduce: scan.TopMean, Top: top}
			if top == 1 {
				set.Reduce = scan.Max
			}
			for range 70 {
				set.Heads = append(set.Heads, scan.SumHead{Head: t.head(rng)})
			}
			if err := t.planned(ctx, p, &scan.Plan{Sets: []scan.Set{set}}, []int{33}); err != nil {
				return err
			}
		}
		return nil
	})
	return what, err
}
