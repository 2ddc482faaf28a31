package audience

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// reasonsFor are the addends of a row's score, each from the heads and the customer's
// data alone. A column's is its table's entry and what trees owe to it (credit); the
// text's is the head's product with the deviation x from everyone's mean text; the
// intercept is what a customer without peculiarities would score. They add up to the
// score but for the rounding of float32, because heads are kept as they were scanned
// with (rows.AsScanned).
func (e *explainer) reasonsFor(row uint32, x []float32) []Part {
	return e.parts(e.explain(x, e.f.center, func(c int) []uint16 { return codesOf(e.f.codes[c], row) }))
}

// maxReasons is how many of an audience's values are named.
const maxReasons = 20

// reasons finds the values that members have more or less of than everyone, by
// the log-odds ratio with an informative Dirichlet prior (Monroe and others,
// Political Analysis 2008): rare values must earn their place.
func (f *features) reasons(members []uint32, everyone *roaring.Bitmap) []Reason {
	n, total := float64(len(members)), float64(everyone.GetCardinality())
	out := []Reason{}
	if n == 0 || n >= total {
		return out
	}
	for c, b := range f.bins {
		in := make([]float64, b.Count())
		for _, row := range members {
			for _, code := range codesOf(f.codes[c], row) {
				in[code]++
			}
		}
		bins := groups(b, f.share[c])
		for _, g := range bins {
			k, p := 0.0, 0.0
			for j := g.from; j <= g.to; j++ {
				k += in[j]
				p += f.share[c][j]
			}
			p = math.Min(p, 1)
			if p <= 0 || p >= 1 {
				continue
			}
			prior := 10.0
			a := (k + prior*p) / math.Max(n-k+prior*(1-p), 0.5)
			z := (math.Log(a) - math.Log(p/(1-p))) / math.Sqrt(1/(k+prior*p)+1/math.Max(n-k+prior*(1-p), 0.5))
			if math.Abs(z) >= 3 {
				out = append(out, Reason{Column: b.Column, Label: g.label, Audience: k / n, Population: p, Lift: k / n / p, Z: z})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Z), math.Abs(a.Z)), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Label, b.Label))
	})
	return out[:min(len(out), maxReasons)]
}

// group is a run of bins with a name that a person can read.
type group struct {
	from, to int
	label    string
}

// groups names the bins of a column. A number's bins are joined to about
// quarters of the population: thirty-two slices would be no reason.
func groups(b index.Bins, share []float64) []group {
	out := []group{{0, 0, "missing"}}
	if !b.Kind.Numeric() {
		out = append(out, group{1, 1, "any other"})
		for i, v := range b.Values {
			out = append(out, group{i + 2, i + 2, v})
		}
		return out
	}
	name := func(x float64) string {
		switch b.Kind {
		case index.Time:
			return time.Unix(int64(x), 0).UTC().Format(time.DateOnly)
		default:
			return strconv.FormatFloat(x, 'g', 6, 64)
		}
	}
	if b.Kind == index.Bool && len(b.Edges) == 1 {
		return append(out, group{1, 1, "no"}, group{2, 2, "yes"})
	}
	from, sum := 1, 0.0
	for j := 1; j < len(share); j++ {
		sum += share[j]
		if sum < 0.25 && j < len(share)-1 {
			continue
		}
		label := ""
		switch first, last := from == 1, j == len(share)-1; {
		case first && last:
			label = "any value"
		case first:
			label = "below " + name(b.Edges[j-1])
		case last:
			label = name(b.Edges[from-2]) + " and above"
		default:
			label = fmt.Sprintf("%s to below %s", name(b.Edges[from-2]), name(b.Edges[j-1]))
		}
		out = append(out, group{from, j, label})
		from, sum = j+1, 0
	}
	return out
}

// Score scores any customer with the model: vector nil or [dim], values by
// column. The parts add up to the score.
func (m *Model) Score(vector []float32, values map[string]index.Value) (float32, []Part) {
	e := newExplainer(nil, m.Bins, m.Set)
	codes := make([][]uint16, len(m.Bins))
	for c := range m.Bins {
		codes[c] = valueCodes(m.Bins[c], values[m.Bins[c].Column])
	}
	// Without a vector a customer is stored as zeros.
	x, center := make([]float32, m.dim()), make([]float32, m.dim())
	copy(center, m.Center)
	for j := range x {
		x[j] = -center[j]
		if len(vector) == len(x) {
			x[j] += vector[j]
		}
	}
	a := e.explain(x, center, func(c int) []uint16 { return codes[c] })
	return float32(a.score()), e.parts(a)
}

// dim is the length of the heads' vectors, 0 without.
func (m *Model) dim() int {
	for _, h := range m.Set.Heads {
		if h.Vector != nil {
			return len(h.Vector)
		}
	}
	if m.Set.Common != nil {
		return len(m.Set.Common.Vector)
	}
	return 0
}

// valueCodes bins one value, as profile.Codes does a column.
func valueCodes(b index.Bins, v index.Value) []uint16 {
	d := index.ColumnData{Kind: b.Kind}
	switch {
	case b.Kind.Numeric():
		d.Numbers = []float64{math.NaN()}
		if v.Kind != "" {
			d.Numbers[0] = v.Num
		}
	case b.Kind == index.Set:
		d.Dict = slices.Sorted(slices.Values(v.Set))
		d.Dict = slices.Compact(d.Dict)
		for i := range d.Dict {
			d.Codes = append(d.Codes, int32(i))
		}
		d.Offsets = []uint32{0, uint32(len(d.Dict))}
	default:
		d.Codes = []int32{-1}
		if v.Kind != "" {
			d.Dict, d.Codes[0] = []string{v.Str}, 0
		}
	}
	return codesOf(profile.Codes(b, d), 0)
}
