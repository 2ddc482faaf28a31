package audience

import (
	"cmp"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// Scorer is a Model made ready to score customers one by one, without reasons:
// a few microseconds for additive heads, some more for trees. It is safe for
// concurrent use and keeps the model.
type Scorer struct{ model *Model }

// Scorer returns the model's scorer.
func (m *Model) Scorer() *Scorer { return &Scorer{m} }

// Score is the score that Model.Score gives: vector nil or [dim], values by
// column.
func (s *Scorer) Score(vector []float32, values map[string]index.Value) float32 {
	m := s.model
	single, codes := make([]uint16, len(m.Bins)), make([][]uint16, len(m.Bins))
	for c := range m.Bins {
		if b := &m.Bins[c]; b.Kind == index.Set {
			codes[c] = valueCodes(*b, values[b.Column])
		} else {
			single[c] = binOf(b, values[b.Column])
			codes[c] = single[c : c+1]
		}
	}
	of := func(c int) []uint16 { return codes[c] }
	one := func(h *index.Head) float64 {
		v := float64(h.Bias)
		if len(h.Vector) > 0 && len(vector) == len(h.Vector) {
			v += float64(simd.Dot(h.Vector, vector))
		}
		for c, table := range h.Tables {
			if table != nil {
				v += tableScore(table, codes[c])
			}
		}
		for t := range h.Trees {
			v += float64(h.Trees[t].Leaves[leafOf(&h.Trees[t], of)])
		}
		return v
	}
	common := 0.0
	if m.Set.Common != nil {
		common = one(m.Set.Common)
	}
	if len(m.Set.Heads) == 1 {
		return float32(common + one(&m.Set.Heads[0]))
	}
	all := make([]float64, len(m.Set.Heads))
	for i := range m.Set.Heads {
		all[i] = one(&m.Set.Heads[i])
	}
	return float32(common + reduce(all, &m.Set))
}

// reduce turns the scores of a set's heads into one. It may reorder them.
func reduce(all []float64, set *index.HeadSet) float64 {
	if len(all) == 0 {
		return 0
	}
	top, sum := slices.Max(all), 0.0
	switch set.Reduce {
	case index.LogSumExp:
		for _, v := range all {
			sum += math.Exp(v - top)
		}
		return top + math.Log(sum)
	case index.Mean, index.TopMean:
		if set.Reduce == index.TopMean {
			slices.SortFunc(all, func(a, b float64) int { return cmp.Compare(b, a) })
			all = all[:min(max(set.Top, 1), len(all))]
		}
		for _, v := range all {
			sum += v
		}
		return sum / float64(len(all))
	}
	return top
}

// binOf is the bin of one value of a column that is no Set.
func binOf(b *index.Bins, v index.Value) uint16 {
	if v.Kind == "" {
		return 0
	}
	if b.Kind.Numeric() {
		at, found := slices.BinarySearch(b.Edges, v.Num)
		if found {
			at++ // an edge belongs to the bin above it
		}
		return uint16(1 + at)
	}
	if at, found := slices.BinarySearch(b.Values, v.Str); found {
		return uint16(2 + at)
	}
	return 1
}
