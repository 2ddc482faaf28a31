package audience

import (
	"context"
	"math"

	"github.com/kindred-search/kindred/index"
)

const (
	// nearestSeeds is how many of the seeds a score is the mean similarity to.
	nearestSeeds = 5
	// mostNeighbours bounds the seeds that everyone is compared with: a scan costs
	// a product of vectors for each, and the list is kept with the audience. Of more
	// seeds, the first by the hash of their id stand for all.
	mostNeighbours = 512
)

// fitNeighbours is a head for each seed, of which the mean of the highest few
// counts: the similarity of deviations of text, and of columns the mean of a normal
// kernel on a number's places, of equality of categories, and of a set's share of the
// seed's elements.
func fitNeighbours(ctx context.Context, m *material, s subset) (index.HeadSet, error) {
	pos := s.pos[:min(len(s.pos), mostNeighbours)]
	set := index.HeadSet{Reduce: index.TopMean, Top: min(nearestSeeds, len(pos))}
	kernels := make([][][]float32, len(m.f.bins)) // of numbers, [column][bin][bin]
	for c := range m.f.bins {
		if m.f.bins[c].Kind.Numeric() {
			kernels[c] = kernel(m.f.share[c], 1/float64(len(m.f.bins)))
		}
	}
	for _, i := range pos {
		if err := ctx.Err(); err != nil {
			return set, err
		}
		h := index.Head{}
		if m.f.dim > 0 {
			v := make([]float64, m.f.dim)
			for j, x := range m.vec(i) {
				v[j] = float64(x)
			}
			h.Vector = normalised(v)
		}
		for c := range m.f.bins {
			codes := codesOf(m.f.codes[c], m.rows[i])
			if kernels[c] != nil {
				h.Tables = append(h.Tables, kernels[c][codes[0]])
				continue
			}
			table := make([]float32, m.f.bins[c].Count())
			for _, code := range codes {
				table[code] = float32(1 / math.Sqrt(float64(len(codes))) / float64(len(m.f.bins)))
			}
			h.Tables = append(h.Tables, table)
		}
		set.Heads = append(set.Heads, h)
	}
	return set, nil
}

// kernel is how alike two bins of a number are, at most top; missing is like missing
// alone.
func kernel(share []float64, top float64) [][]float32 {
	place := places(share)
	out := make([][]float32, len(share))
	for i := range out {
		out[i] = make([]float32, len(share))
		for j := range out[i] {
			switch {
			case i == j:
				out[i][j] = float32(top)
			case i > 0 && j > 0:
				d := place[i] - place[j]
				out[i][j] = float32(top * math.Exp(-d*d/2))
			}
		}
	}
	return out
}
