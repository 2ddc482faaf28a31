package segment

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// Space is where customers are points whose distances count: Dim numbers of the
// text (the vector's deviation from everyone's mean, scaled to a variance of 1 in
// all), then some for each column. A number is its quantile; a value of a category
// has a number of its own; a set's are divided by the root of how many it has, as
// in a scan. A column has the variance of the text's first principal component,
// and all together no more than the text: one column of two values would else part
// everyone by itself. Without text each column has a variance of 1.
type Space struct {
	Dim    int          `json:"dim"`    // of the text part; 0: none
	Center []float32    `json:"center"` // of vectors, [Dim]
	Scale  float32      `json:"scale"`
	Bins   []index.Bins `json:"bins"`
	Parts  []Part       `json:"parts"`  // one per entry of Bins
	Width  int          `json:"width"`  // of a point
	Origin []float32    `json:"origin"` // everyone's mean point, of a sample, [Width]
	left   []string
}

// Part is a column's place in a point.
type Part struct {
	Of    []int     `json:"of"`    // by bin: the number of the point it adds to
	Value []float32 `json:"value"` // by bin: what it adds
}

// maxColumnWidth bounds the columns' part of a point, and with it the memory of
// a sample: 20,000 points of 1,024 numbers are 80 MB.
const maxColumnWidth = 1024

func newSpace(pop Population, req Params, traits *audience.Traits, rows []uint32) (*Space, []float32, error) {
	s := &Space{Bins: traits.Bins, left: traits.Left}
	if len(s.Bins) > maxColumnWidth/4 {
		return nil, nil, fmt.Errorf("features.columns: %d columns: at most %d, name those that matter: %w", len(s.Bins), maxColumnWidth/4, index.ErrInvalid)
	}
	var x []float32
	if dim := pop.Spec.Dim; dim > 0 && (req.Features.Text == nil || *req.Features.Text) {
		x = make([]float32, len(rows)*dim)
		if err := pop.Snap.Vectors(rows, x); err != nil {
			return nil, nil, err
		}
		if !s.text(x, dim) {
			x, s.left = nil, append(s.left, "text: the same for everyone, or nobody has any")
		}
	}
	if s.Dim == 0 && len(s.Bins) == 0 {
		return nil, nil, fmt.Errorf("no text and no column to go by%s: give the customers columns that differ, or allow some in features: %w", audience.LeftOut(s.left), index.ErrInvalid)
	}
	s.Width = s.Dim
	each := maxColumnWidth / max(1, len(s.Bins))
	for c, b := range s.Bins {
		s.Parts = append(s.Parts, s.part(b, traits.Shares[c], each))
	}
	z := make([]float32, len(rows)*s.Width)
	for i, row := range rows {
		s.place(z[i*s.Width:(i+1)*s.Width], vectorAt(x, i, s.Dim), func(c int) []uint16 { return traits.Of(c, row) })
	}
	s.weigh(z, len(rows))
	s.Origin = make([]float32, s.Width)
	for j, m := range means(z, len(rows), s.Width) {
		s.Origin[j] = float32(m)
	}
	return s, z, nil
}

func vectorAt(x []float32, i, dim int) []float32 {
	if dim == 0 {
		return nil
	}
	return x[i*dim : (i+1)*dim]
}

// text learns the centre and the scale from vectors; false when they do not vary.
func (s *Space) text(x []float32, dim int) bool {
	n := len(x) / dim
	mean := means(x, n, dim)
	variance := 0.0
	for i := range n {
		for j, a := range x[i*dim : (i+1)*dim] {
			d := float64(a) - mean[j]
			variance += d * d / float64(n)
		}
	}
	if variance < 1e-9 {
		return false
	}
	s.Dim, s.Scale, s.Center = dim, float32(1/math.Sqrt(variance)), make([]float32, dim)
	for j, m := range mean {
		s.Center[j] = float32(m)
	}
	return true
}

func means(x []float32, n, width int) []float64 {
	mean := make([]float64, width)
	for i := range n {
		for j, a := range x[i*width : (i+1)*width] {
			mean[j] += float64(a)
		}
	}
	for j := range mean {
		mean[j] /= float64(max(1, n))
	}
	return mean
}

// part lays a column out at the end of the point; values get their weight later.
func (s *Space) part(b index.Bins, share []float64, most int) Part {
	p := Part{Of: make([]int, b.Count()), Value: make([]float32, b.Count())}
	if b.Kind.Numeric() {
		below, present := 0.0, 1-share[0]
		for j := range p.Of {
			p.Of[j] = s.Width
			if j > 0 && present > 0 { // a missing number is in the middle
				p.Value[j] = float32((below+share[j]/2)/present - 0.5)
				below += share[j]
			}
		}
		s.Width++
		return p
	}
	// The rarest values share a number where there are too many.
	order := make([]int, b.Count())
	for j := range order {
		order[j] = j
	}
	slices.SortStableFunc(order, func(x, y int) int {
		switch {
		case share[x] > share[y]:
			return -1
		case share[x] < share[y]:
			return 1
		}
		return 0
	})
	own := min(len(order), max(2, most))
	for at, j := range order {
		p.Of[j], p.Value[j] = s.Width+min(at, own-1), 1
	}
	s.Width += own
	return p
}

// weigh gives columns their variance, in the points of the sample and in Parts.
func (s *Space) weigh(z []float32, n int) {
	if len(s.Parts) == 0 {
		return
	}
	variance := 1.0
	if s.Dim > 0 {
		variance = math.Min(s.leading(z, min(n, 5000)), 1/float64(len(s.Parts)))
	}
	mean := means(z, n, s.Width)
	spread := make([]float64, s.Width)
	for i := range n {
		for j, a := range z[i*s.Width : (i+1)*s.Width] {
			if j >= s.Dim {
				d := float64(a) - mean[j]
				spread[j] += d * d / float64(n)
			}
		}
	}
	scale := make([]float32, s.Width)
	for _, p := range s.Parts {
		sum, last := 0.0, -1
		for _, j := range slices.Sorted(slices.Values(p.Of)) {
			if j != last {
				sum += spread[j]
			}
			last = j
		}
		f := float32(0)
		if sum > 1e-12 {
			f = float32(math.Sqrt(variance / sum))
		}
		for bin, j := range p.Of {
			p.Value[bin] *= f
			scale[j] = f
		}
	}
	for i := range n {
		for j := s.Dim; j < s.Width; j++ {
			z[i*s.Width+j] *= scale[j]
		}
	}
}

// leading is the variance along the text's first principal component, by power
// iteration on the first n points.
func (s *Space) leading(z []float32, n int) float64 {
	v := make([]float32, s.Dim)
	for j := range v {
		v[j] = float32(1 / math.Sqrt(float64(s.Dim)))
	}
	length := 0.0
	for range 30 {
		next := make([]float32, s.Dim)
		for i := range n {
			row := z[i*s.Width : i*s.Width+s.Dim]
			simd.Axpy(simd.Dot(row, v), row, next)
		}
		length = math.Sqrt(float64(simd.Dot(next, next)))
		if length == 0 {
			return 0
		}
		for j := range v {
			v[j] = next[j] / float32(length)
		}
	}
	return length / float64(n)
}

// place writes a point.
func (s *Space) place(dst, vector []float32, codes func(c int) []uint16) {
	for j := range s.Dim {
		dst[j] = -s.Center[j] * s.Scale
		if vector != nil {
			dst[j] += vector[j] * s.Scale
		}
	}
	for c := range s.Parts {
		p := &s.Parts[c]
		bins := codes(c)
		f := float32(1 / math.Sqrt(float64(len(bins))))
		for _, b := range bins {
			dst[p.Of[b]] += p.Value[b] * f
		}
	}
}

// Place returns the point of a customer: vector nil or as long as the
// collection's, values by column.
func (s *Space) Place(vector []float32, values map[string]index.Value) []float32 {
	z := make([]float32, s.Width)
	if len(vector) != s.Dim {
		vector = nil
	}
	s.place(z, vector, func(c int) []uint16 { return audience.BinsOf(s.Bins[c], values[s.Bins[c].Column]) })
	return z
}

// head scores a row by c . z - |c|^2 / 2: half of how much nearer to c than to
// the point of zeros it is, so that the best head is of the nearest centre.
func (s *Space) head(c []float32) index.Head {
	bias := 0.0
	for _, x := range c {
		bias -= 0.5 * float64(x) * float64(x)
	}
	h := index.Head{}
	if s.Dim > 0 {
		h.Vector = make([]float32, s.Dim)
		for j := range h.Vector {
			h.Vector[j] = c[j] * s.Scale
			bias -= float64(h.Vector[j]) * float64(s.Center[j])
		}
	}
	for i := range s.Parts {
		p := &s.Parts[i]
		table := make([]float32, len(p.Of))
		for b, j := range p.Of {
			table[b] = p.Value[b] * c[j]
		}
		h.Tables = append(h.Tables, table)
	}
	h.Bias = float32(bias)
	return h
}

// texts fetches what rows wrote, in pages.
func texts(ctx context.Context, pop Population, rows []uint32, visit func(i int, texts []string)) error {
	const page = 500
	for from := 0; from < len(rows); from += page {
		part := rows[from:min(from+page, len(rows))]
		ids := make([]string, len(part))
		for i, row := range part {
			ids[i] = pop.Snap.ID(row)
		}
		got, err := pop.Texts(ctx, ids)
		if err != nil {
			return err
		}
		for i := range part {
			visit(from+i, got[i])
		}
	}
	return nil
}
