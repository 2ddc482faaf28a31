package audience

import (
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
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
	best, sum, exp := math.Inf(-1), 0.0, 0.0
	var few [8]float64
	all := few[:0]
	for i := range m.Set.Heads {
		h := &m.Set.Heads[i]
		v := float64(h.Bias)
		if len(h.Vector) > 0 && len(vector) == len(h.Vector) {
			v += dot(h.Vector, vector)
		}
		for c, table := range h.Tables {
			if table != nil {
				v += tableScore(table, codes[c])
			}
		}
		for t := range h.Trees {
			v += float64(h.Trees[t].Leaves[leafOf(&h.Trees[t], of)])
		}
		all = append(all, v)
		best, sum = math.Max(best, v), sum+v
	}
	switch {
	case len(all) < 2:
	case m.Set.Reduce == index.Mean:
		return float32(sum / float64(len(all)))
	case m.Set.Reduce == index.LogSumExp:
		for _, v := range all {
			exp += math.Exp(v - best)
		}
		return float32(best + math.Log(exp))
	}
	return float32(best)
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
