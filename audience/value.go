package audience

import (
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
	"github.com/kindred-search/kindred/profile"
)

// Value is the score that Score gives, without reasons: a few microseconds for
// additive heads, some more for trees. vector is nil or [dim], values by column.
// It is safe for concurrent use.
func (m *Model) Value(vector []float32, values map[string]index.Value) float32 {
	single, codes := make([]uint16, len(m.Bins)), make([][]uint16, len(m.Bins))
	for c := range m.Bins {
		if b := &m.Bins[c]; b.Kind == index.Set {
			codes[c] = valueCodes(*b, values[b.Column])
		} else {
			single[c] = profile.Bin(b, values[b.Column])
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
	return float32(common + combined(all, &m.Set))
}
