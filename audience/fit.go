package audience

import (
	"math"
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
	columns   []trainColumn // of f.bins
}

// trainColumn is a column of the rows of training, row by row: fits look at them many
// times over, and among everyone's they lie far apart.
type trainColumn struct {
	codes []uint16   // nil for a set
	sets  [][]uint16 // of a set
	root  []float64  // of a set: the root of how many elements
}

// gather reads the columns of training.
func (m *material) gather() {
	m.columns = make([]trainColumn, len(m.f.bins))
	for c, codes := range m.f.codes {
		col := &m.columns[c]
		if codes.Offsets == nil {
			col.codes = make([]uint16, len(m.rows))
			for i, row := range m.rows {
				col.codes[i] = codes.Codes[row]
			}
			continue
		}
		col.sets, col.root = make([][]uint16, len(m.rows)), make([]float64, len(m.rows))
		for i, row := range m.rows {
			col.sets[i] = codesOf(codes, row)
			col.root[i] = math.Sqrt(float64(len(col.sets[i])))
		}
	}
}

// tableScore is a column's part of the score of row i of training.
func (m *material) tableScore(table []float32, c, i int) float64 {
	col := &m.columns[c]
	if col.codes != nil {
		return float64(table[col.codes[i]])
	}
	return tableScore(table, col.sets[i])
}

// addCodes adds a row's gradient to those of its bins in one column.
func (m *material) addCodes(grad []float64, c, i int, g float64) {
	col := &m.columns[c]
	if col.codes != nil {
		grad[col.codes[i]] += g
		return
	}
	each := g / col.root[i]
	for _, code := range col.sets[i] {
		grad[code] += each
	}
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

// fitMeans is the centroid of columns: how the seeds' mean differs from everyone's,
// a number by its place among everyone (places), a category by each value's share, a
// set by its elements as a unit vector. Nothing is divided by a variance that few
// seeds tell badly.
func fitMeans(m *material, s subset) [][]float32 {
	tables := make([][]float32, len(m.f.bins))
	for c := range m.f.bins {
		b := &m.f.bins[c]
		at := func(i int) []uint16 { return codesOf(m.f.codes[c], m.rows[i]) }
		diff := make([]float64, b.Count())
		add := func(which []int, sign float64) {
			total := 0.0
			for _, i := range which {
				total += m.weight[i]
			}
			for _, i := range which {
				codes := at(i)
				for _, code := range codes {
					diff[code] += sign * m.weight[i] / total / math.Sqrt(float64(len(codes)))
				}
			}
		}
		add(s.pos, 1)
		add(s.neg, -1)
		tables[c] = make([]float32, b.Count())
		if !b.Kind.Numeric() {
			for j, d := range diff {
				tables[c][j] = float32(d)
			}
			continue
		}
		place, slope := places(m.f.share[c]), 0.0
		for j := 1; j < len(diff); j++ {
			slope += diff[j] * place[j]
		}
		tables[c][0] = float32(diff[0])
		for j := 1; j < len(diff); j++ {
			tables[c][j] = float32(slope * place[j])
		}
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
