package audience

import (
	"context"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/lbfgs"
	"github.com/kindred-search/kindred/internal/simd"
)

// penalty is the weight of the squared parameters: of the vector's, which are for
// deviations of variance 1, and of the columns'.
type penalty struct{ text, columns float64 }

// logistic is positive-unlabelled regression: seeds against background, each
// side with the same total weight, L2 penalty. A column's parameters become its
// table by a basis.
type logistic struct {
	m      *material
	s      subset
	use    use
	lambda penalty
	basis  []basis
	offset []int // of each column's parameters
	params int   // dim or 0, then columns, then the intercept
	wPos   float64
	wNeg   float64
}

// newLogistic takes straight lines for numeric columns when lines is set, and
// smooth curves otherwise.
func newLogistic(m *material, s subset, u use, lambda penalty, lines bool) *logistic {
	l := &logistic{m: m, s: s, use: u, lambda: lambda}
	if u.text {
		l.params = m.f.dim
	}
	if u.columns {
		for c := range m.f.bins {
			b := newBasis(&m.f.bins[c], m.f.share[c], lines)
			l.basis = append(l.basis, b)
			l.offset = append(l.offset, l.params)
			l.params += b.params()
		}
	}
	l.params++
	pos, neg := 0.0, 0.0
	for _, i := range s.pos {
		pos += m.weight[i]
	}
	for _, i := range s.neg {
		neg += m.weight[i]
	}
	// The seeds count as they are; the background counts as much in all.
	l.wPos, l.wNeg = float64(len(s.pos))/pos, float64(len(s.pos))/neg
	return l
}

// head turns parameters into a head on deviations.
func (l *logistic) head(theta []float64) index.Head {
	f := l.m.f
	h := index.Head{Bias: float32(theta[l.params-1])}
	if l.use.text {
		h.Vector = make([]float32, f.dim)
		for j := range h.Vector {
			h.Vector[j] = float32(theta[j] * f.scale)
		}
	}
	if l.use.columns {
		h.Tables = make([][]float32, len(f.bins))
		for c := range f.bins {
			h.Tables[c] = make([]float32, f.bins[c].Count())
			l.basis[c].table(theta[l.offset[c]:], h.Tables[c])
		}
	}
	return h
}

// lossBlock is how many rows loss looks at before it adds up their gradients.
const lossBlock = 64

// loss returns the penalised loss and its gradient.
func (l *logistic) loss(theta, grad []float64) float64 {
	m, f := l.m, l.m.f
	h := l.head(theta)
	for j := range grad {
		grad[j] = 0
	}
	var gTables [][]float64
	if l.use.columns {
		gTables = make([][]float64, len(f.bins))
		for c := range f.bins {
			gTables[c] = make([]float64, f.bins[c].Count())
		}
	}
	total := 0.0
	// A block of rows at a time, so that four sums of the text run at once. The order
	// in which anything is added up is that of the rows.
	var z, g [lossBlock]float64
	block := func(rows []int, label, side float64) {
		if l.use.text {
			simd.DotRows64(z[:len(rows)], m.x, f.dim, rows, h.Vector)
		} else {
			clear(z[:])
		}
		for k, i := range rows {
			z := float64(h.Bias) + z[k]
			for c, table := range h.Tables {
				z += m.tableScore(table, c, i)
			}
			weight := side * m.weight[i]
			// log(1 + exp(-yz)), without overflow on either side.
			if label > 0 {
				total += weight * softplus(-z)
			} else {
				total += weight * softplus(z)
			}
			p := 1 / (1 + math.Exp(-z))
			d := weight * (p - label)
			g[k] = d * f.scale
			for c := range gTables {
				m.addCodes(gTables[c], c, i, d)
			}
			grad[l.params-1] += d
		}
		if l.use.text {
			simd.AddRows64(grad[:f.dim], m.x, f.dim, rows, g[:len(rows)])
		}
	}
	for part := range slices.Chunk(l.s.pos, lossBlock) {
		block(part, 1, l.wPos)
	}
	for part := range slices.Chunk(l.s.neg, lossBlock) {
		block(part, 0, l.wNeg)
	}
	for c, g := range gTables {
		l.basis[c].gradient(g, grad[l.offset[c]:])
	}
	for j := range l.params - 1 {
		lambda := l.lambda.columns
		if l.use.text && j < f.dim {
			lambda = l.lambda.text
		}
		total += 0.5 * lambda * theta[j] * theta[j]
		grad[j] += lambda * theta[j]
	}
	return total
}

func softplus(z float64) float64 {
	return math.Max(z, 0) + math.Log1p(math.Exp(-math.Abs(z)))
}

// fit minimises the loss.
func (l *logistic) fit(ctx context.Context) (index.Head, error) {
	theta := make([]float64, l.params)
	err := lbfgs.Minimise(ctx, theta, l.loss)
	return l.head(theta), err
}
