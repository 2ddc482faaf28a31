package audience

import (
	"context"
	"math"

	"github.com/kindred-search/kindred/index"
)

// table of training: rows with their deviations, read once and shared by all
// fits. Rows [0, seeds) are seeds, then negatives, then background.
type material struct {
	f         *features
	rows      []uint32
	weight    []float64 // of seeds and negatives; 1 for background
	x         []float32 // [len(rows), dim]
	seeds     int
	negatives int
}

func (m *material) vec(i int) []float32 {
	if m.f.dim == 0 {
		return nil
	}
	return m.x[i*m.f.dim : (i+1)*m.f.dim]
}

// subset picks the rows of one fit, as positions in a material.
type subset struct {
	pos []int // seeds
	neg []int // background and negatives
}

// use says which features a head may have.
type use struct{ text, columns bool }

// evidencePrior is how many customers of everyone's distribution are mixed into
// the seeds' counts: few seeds shrink towards no evidence.
const evidencePrior = 8

// fitEvidence is naive Bayes: each bin's weight of evidence, the logarithm of
// its share among seeds over its share among everyone. Neighbouring bins of a
// number lend each other counts (a triangle two bins wide), for a cut between
// two quantiles is no boundary in the world.
func fitEvidence(m *material, s subset) []([]float32) {
	tables := make([][]float32, len(m.f.bins))
	for c, b := range m.f.bins {
		n := b.Count()
		count := make([]float64, n)
		total := 0.0
		for _, i := range s.pos {
			w := m.weight[i]
			total += w
			for _, code := range codesOf(m.f.codes[c], m.rows[i]) {
				count[code] += w
			}
		}
		share := m.f.share[c]
		if b.Kind.Numeric() {
			count, share = smooth(count), smooth(share)
		}
		table := make([]float32, n)
		for j := range table {
			p := (count[j] + evidencePrior*share[j]) / (total + evidencePrior)
			table[j] = float32(math.Log(p / share[j]))
		}
		tables[c] = table
	}
	return tables
}

// smooth spreads counts over neighbouring bins; bin 0 (missing) has none.
func smooth(v []float64) []float64 {
	out := append([]float64(nil), v...)
	kernel := []float64{1, 2, 3, 2, 1}
	for i := 1; i < len(v); i++ {
		sum, weight := 0.0, 0.0
		for k, w := range kernel {
			if j := i + k - 2; j >= 1 && j < len(v) {
				sum += w * v[j]
				weight += w
			}
		}
		out[i] = sum / weight
	}
	return out
}

// fitCentroid is the seeds' mean deviation, less that of negatives.
func fitCentroid(m *material, s subset, beta float64) []float32 {
	mean := meanOf(m, s.pos)
	if m.negatives > 0 {
		neg := meanOf(m, span(m.seeds, m.seeds+m.negatives))
		for j := range mean {
			mean[j] -= beta * neg[j]
		}
	}
	return normalised(mean)
}

func span(from, to int) []int {
	out := make([]int, to-from)
	for i := range out {
		out[i] = from + i
	}
	return out
}

func meanOf(m *material, which []int) []float64 {
	mean := make([]float64, m.f.dim)
	total := 0.0
	for _, i := range which {
		w := m.weight[i]
		total += w
		for j, x := range m.vec(i) {
			mean[j] += w * float64(x)
		}
	}
	if total > 0 {
		for j := range mean {
			mean[j] /= total
		}
	}
	return mean
}

func normalised(v []float64) []float32 {
	n := 0.0
	for _, x := range v {
		n += x * x
	}
	n = math.Sqrt(n)
	out := make([]float32, len(v))
	if n == 0 {
		return out
	}
	for j, x := range v {
		out[j] = float32(x / n)
	}
	return out
}

// whitener solves (C + ridge) w = mean for the background's covariance C: the
// linear discriminant. It is factored once and shared by all fits.
type whitener struct {
	dim int
	l   []float64 // Cholesky factor, lower, [dim, dim]
}

// maxWhiten bounds the rows the covariance is taken from: beyond ten rows a
// dimension it moves little, and the work is rows x dim squared.
const maxWhiten = 4000

// newWhitener estimates the covariance with shrinkage towards a multiple of the
// identity: share rho of it, more the fewer rows there are per dimension.
func newWhitener(m *material) *whitener {
	d := m.f.dim
	first := m.seeds + m.negatives
	rows := min(len(m.rows)-first, maxWhiten)
	if d == 0 || rows < 2 {
		return nil
	}
	c := make([]float64, d*d)
	for i := first; i < first+rows; i++ {
		v := m.vec(i)
		for a := range d {
			va := float64(v[a])
			row := c[a*d : a*d+a+1]
			for b := range row {
				row[b] += va * float64(v[b])
			}
		}
	}
	trace := 0.0
	for a := range d {
		for b := 0; b <= a; b++ {
			c[a*d+b] /= float64(rows)
		}
		trace += c[a*d+a]
	}
	rho := math.Min(0.9, 0.1+float64(d)/float64(rows))
	for a := range d {
		for b := 0; b <= a; b++ {
			c[a*d+b] *= 1 - rho
		}
		c[a*d+a] += rho * trace / float64(d)
	}
	for a := range d {
		for b := 0; b <= a; b++ {
			s := c[a*d+b]
			for k := range b {
				s -= c[a*d+k] * c[b*d+k]
			}
			if a == b {
				if s <= 0 {
					return nil // all rows alike: nothing to whiten
				}
				c[a*d+a] = math.Sqrt(s)
			} else {
				c[a*d+b] = s / c[b*d+b]
			}
		}
	}
	return &whitener{dim: d, l: c}
}

func (w *whitener) solve(v []float64) []float64 {
	d := w.dim
	y := append([]float64(nil), v...)
	for a := range d {
		for k := range a {
			y[a] -= w.l[a*d+k] * y[k]
		}
		y[a] /= w.l[a*d+a]
	}
	for a := d - 1; a >= 0; a-- {
		for k := a + 1; k < d; k++ {
			y[a] -= w.l[k*d+a] * y[k]
		}
		y[a] /= w.l[a*d+a]
	}
	return y
}

// penalty is the weight of the squared parameters: of the vector's, which are for
// deviations of variance 1, and of the columns'.
type penalty struct{ text, columns float64 }

// logistic is positive-unlabelled regression: seeds against background, each
// side with the same total weight, L2 penalty. The parameters of a numeric
// column are steps from bin to bin, so the penalty asks for smooth tables; those
// of a category are deviations from zero.
type logistic struct {
	m      *material
	s      subset
	use    use
	lambda penalty
	offset []int     // of each column's parameters
	step   []float64 // of a column's steps: keeps a numeric column's prior as wide as a category's
	params int       // dim or 0, then columns, then the intercept
	wPos   float64
	wNeg   float64
}

func newLogistic(m *material, s subset, u use, lambda penalty) *logistic {
	l := &logistic{m: m, s: s, use: u, lambda: lambda}
	if u.text {
		l.params = m.f.dim
	}
	if u.columns {
		for _, b := range m.f.bins {
			l.offset = append(l.offset, l.params)
			l.step = append(l.step, 3/math.Sqrt(float64(b.Count())))
			l.params += b.Count()
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
			h.Tables[c] = l.table(theta, c)
		}
	}
	return h
}

func (l *logistic) table(theta []float64, c int) []float32 {
	b := &l.m.f.bins[c]
	p := theta[l.offset[c] : l.offset[c]+b.Count()]
	out := make([]float32, len(p))
	if !b.Kind.Numeric() {
		for j := range p {
			out[j] = float32(p[j])
		}
		return out
	}
	out[0] = float32(p[0])
	sum := 0.0
	for j := 1; j < len(p); j++ {
		sum += l.step[c] * p[j]
		out[j] = float32(sum)
	}
	return out
}

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
	row := func(i int, label, weight float64) {
		z := f.score(&h, m.vec(i), m.rows[i])
		// log(1 + exp(-yz)), without overflow on either side.
		if label > 0 {
			total += weight * softplus(-z)
		} else {
			total += weight * softplus(z)
		}
		p := 1 / (1 + math.Exp(-z))
		g := weight * (p - label)
		if l.use.text {
			g2 := g * f.scale
			for j, x := range m.vec(i) {
				grad[j] += g2 * float64(x)
			}
		}
		for c := range gTables {
			codes := codesOf(f.codes[c], m.rows[i])
			each := g / math.Sqrt(float64(len(codes)))
			for _, code := range codes {
				gTables[c][code] += each
			}
		}
		grad[l.params-1] += g
	}
	for _, i := range l.s.pos {
		row(i, 1, l.wPos*m.weight[i])
	}
	for _, i := range l.s.neg {
		row(i, 0, l.wNeg*m.weight[i])
	}
	for c, g := range gTables {
		out := grad[l.offset[c] : l.offset[c]+len(g)]
		if !f.bins[c].Kind.Numeric() {
			copy(out, g)
			continue
		}
		out[0] = g[0]
		sum := 0.0
		for j := len(g) - 1; j >= 1; j-- {
			sum += g[j]
			out[j] = l.step[c] * sum
		}
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
	err := minimise(ctx, theta, l.loss)
	return l.head(theta), err
}

// minimise is L-BFGS with a backtracking line search (Nocedal and Wright,
// algorithms 7.4 and 3.1). theta is the start and the result. Reaching the
// limit of steps is no error: the penalty keeps the point sensible.
func minimise(ctx context.Context, theta []float64, loss func(theta, grad []float64) float64) error {
	const (
		memory = 8
		steps  = 60
		tol    = 1e-4
	)
	n := len(theta)
	grad, next, nextGrad, dir := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var ss, ys [][]float64
	var rho []float64
	f := loss(theta, grad)
	first := norm(grad)
	for range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if norm(grad) <= tol*first || first == 0 {
			return nil
		}
		copy(dir, grad)
		alpha := make([]float64, len(ss))
		for k := len(ss) - 1; k >= 0; k-- {
			alpha[k] = rho[k] * inner(ss[k], dir)
			axpy(-alpha[k], ys[k], dir)
		}
		if k := len(ss) - 1; k >= 0 {
			scale := 1 / (rho[k] * inner(ys[k], ys[k]))
			for j := range dir {
				dir[j] *= scale
			}
		} else {
			for j := range dir {
				dir[j] /= first
			}
		}
		for k := range ss {
			axpy(alpha[k]-rho[k]*inner(ys[k], dir), ss[k], dir)
		}
		slope := -inner(grad, dir)
		if slope >= 0 {
			return nil
		}
		step, better := 1.0, false
		var fNext float64
		for range 25 {
			copy(next, theta)
			axpy(-step, dir, next)
			fNext = loss(next, nextGrad)
			if fNext <= f+1e-4*step*slope {
				better = true
				break
			}
			step /= 2
		}
		if !better {
			return nil
		}
		s, y := make([]float64, n), make([]float64, n)
		for j := range s {
			s[j] = next[j] - theta[j]
			y[j] = nextGrad[j] - grad[j]
		}
		if sy := inner(s, y); sy > 1e-12 {
			ss, ys, rho = append(ss, s), append(ys, y), append(rho, 1/sy)
			if len(ss) > memory {
				ss, ys, rho = ss[1:], ys[1:], rho[1:]
			}
		}
		done := f-fNext <= 1e-7*math.Abs(f)
		copy(theta, next)
		copy(grad, nextGrad)
		f = fNext
		if done {
			return nil
		}
	}
	return nil
}

func inner(a, b []float64) float64 {
	s := 0.0
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func norm(a []float64) float64 { return math.Sqrt(inner(a, a)) }

func axpy(alpha float64, x, y []float64) {
	for i, v := range x {
		y[i] += alpha * v
	}
}
