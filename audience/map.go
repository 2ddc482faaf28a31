package audience

import (
	"cmp"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// Map is a picture of where seeds and members lie among everyone: customers' texts and
// columns seen along the two directions in which everyone differs most (principal
// components). It is drawn without a look at who is a seed, so seeds that stand together
// are alike; only the axes' ends are turned towards them. Each group is a random sample.
type Map struct {
	Axes       []Axis       `json:"axes"` // two; none where there is nothing to tell customers apart
	Population [][2]float32 `json:"population"`
	Audience   [][2]float32 `json:"audience"`
	Seeds      [][2]float32 `json:"seeds"`
}

// Axis is a direction of a Map.
type Axis struct {
	Share  float64  `json:"share"`  // of everyone's variance
	Toward []string `json:"toward"` // what customers at its right, or upper, end have, the clearest first
}

const (
	mapPopulation = 1000
	mapAudience   = 250
	mapSeeds      = 200
	// mapRounds of subspace iteration settle what an eye can see.
	mapRounds = 40
)

// draw fills the result's map.
func (b *build) draw(members []uint32) error {
	seeds := make([]uint32, len(b.r.seeds))
	for i, s := range b.r.seeds {
		seeds[i] = s.row
	}
	out := Map{Axes: []Axis{}, Population: [][2]float32{}, Audience: [][2]float32{}, Seeds: [][2]float32{}}
	defer func() { b.res.Map = out }()
	space, everyone := newSpace(b.f), draw(b.pop.Snap, b.r.everyone, mapPopulation, b.req.Seed+8)
	x, err := space.points(everyone)
	if err != nil || len(everyone) < 3 || space.width == 0 {
		return err
	}
	total := space.centre(x)
	axes, shares := principal(x, space.width, total)
	if axes == nil {
		return nil
	}
	groups := [][]uint32{everyone,
		draw(b.pop.Snap, roaring.BitmapOf(members...), mapAudience, b.req.Seed+9),
		draw(b.pop.Snap, roaring.BitmapOf(seeds...), mapSeeds, b.req.Seed+10)}
	placed := make([][][2]float64, len(groups))
	for g, rows := range groups {
		x, err := space.points(rows)
		if err != nil {
			return err
		}
		space.shift(x)
		placed[g] = project(x, space.width, axes)
	}
	turned := placed[2]
	if len(turned) == 0 {
		turned = placed[1]
	}
	var sign [2]float64
	for d := range sign {
		sum := 0.0
		for _, p := range turned {
			sum += p[d]
		}
		sign[d] = math.Copysign(1, sum)
	}
	for g, to := range []*[][2]float32{&out.Population, &out.Audience, &out.Seeds} {
		for i := range placed[g] {
			p := &placed[g][i]
			p[0], p[1] = p[0]*sign[0], p[1]*sign[1]
			*to = append(*to, [2]float32{float32(math.Round(p[0]*1000) / 1000), float32(math.Round(p[1]*1000) / 1000)})
		}
	}
	for d := range 2 {
		out.Axes = append(out.Axes, Axis{Share: shares[d], Toward: b.f.toward(everyone, placed[0], d)})
	}
	return nil
}

// space is what customers are placed in: their texts' deviations and their columns,
// the text of as much variance as all columns together.
type space struct {
	f      *features
	tables [][][]float64 // [column][bin]: its coordinates; nil for a column left out
	width  int
	mean   []float64
	text   float64 // what a text's deviation is multiplied with
}

func newSpace(f *features) *space {
	s := &space{f: f, width: f.dim}
	if f.dim > 0 {
		s.text = f.scale / math.Sqrt(float64(f.dim))
	}
	for c, b := range f.bins {
		each := 1 / math.Sqrt(float64(len(f.bins)))
		table := make([][]float64, b.Count())
		if b.Kind.Numeric() {
			for j, p := range places(f.share[c]) {
				table[j] = []float64{p * each}
			}
		} else {
			// Indicators of values over the root of their share, as correspondence analysis
			// has them, with so many values that they say something.
			const most = 12
			often := make([]int, len(table))
			for j := range often {
				often[j] = j
			}
			slices.SortStableFunc(often, func(x, y int) int { return cmp.Compare(f.share[c][y], f.share[c][x]) })
			often = often[:min(len(often), most)]
			for j := range table {
				table[j] = make([]float64, len(often))
				if at := slices.Index(often, j); at >= 0 {
					table[j][at] = each / math.Sqrt(f.share[c][j]*float64(len(often)))
				}
			}
		}
		s.width += len(table[0])
		s.tables = append(s.tables, table)
	}
	return s
}

// points are rows' places, [len(rows), width].
func (s *space) points(rows []uint32) ([]float64, error) {
	out := make([]float64, len(rows)*s.width)
	x, err := s.f.vectors(rows)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		at := out[i*s.width : (i+1)*s.width]
		for j := range s.f.dim {
			at[j] = s.text * float64(x[i*s.f.dim+j])
		}
		at = at[s.f.dim:]
		for c, table := range s.tables {
			codes := codesOf(s.f.codes[c], row)
			for _, code := range codes {
				for k, v := range table[code] {
					at[k] += v / math.Sqrt(float64(len(codes)))
				}
			}
			at = at[len(table[0]):]
		}
	}
	return out, nil
}

// centre subtracts everyone's mean, and returns the variance that is left.
func (s *space) centre(x []float64) float64 {
	n := len(x) / s.width
	s.mean = make([]float64, s.width)
	for i := range x {
		s.mean[i%s.width] += x[i] / float64(n)
	}
	s.shift(x)
	total := 0.0
	for _, v := range x {
		total += v * v
	}
	return total
}

func (s *space) shift(x []float64) {
	for i := range x {
		x[i] -= s.mean[i%s.width]
	}
}

// principal are the two directions of most variance and their shares of the total,
// by subspace iteration from a fixed start; nil where there is no variance.
func principal(x []float64, width int, total float64) (axes [][]float64, shares [2]float64) {
	if width < 2 || total < 1e-12 {
		return nil, shares
	}
	axes = [][]float64{make([]float64, width), make([]float64, width)}
	for j := range width { // any start that is nobody's eigenvector
		axes[0][j] = math.Sin(float64(j)*1.7 + 1)
		axes[1][j] = math.Cos(float64(j)*2.3 + 2)
	}
	norm := func(v []float64) float64 {
		sum := 0.0
		for _, a := range v {
			sum += a * a
		}
		return math.Sqrt(sum)
	}
	for range mapRounds {
		next := [2][]float64{make([]float64, width), make([]float64, width)}
		for at := 0; at < len(x); at += width {
			row := x[at : at+width]
			for d := range next {
				y := 0.0
				for j, a := range row {
					y += a * axes[d][j]
				}
				for j, a := range row {
					next[d][j] += y * a
				}
			}
		}
		for d := range next {
			if d == 1 {
				y := 0.0
				for j := range width {
					y += next[0][j] * next[1][j]
				}
				for j := range width {
					next[1][j] -= y * next[0][j]
				}
			}
			n := norm(next[d])
			if n < 1e-12*total {
				return nil, shares
			}
			shares[d] = n / total
			for j := range next[d] {
				next[d][j] /= n
			}
			axes[d] = next[d]
		}
	}
	return axes, shares
}

func project(x []float64, width int, axes [][]float64) [][2]float64 {
	out := make([][2]float64, len(x)/width)
	for i := range out {
		for d := range axes {
			for j, a := range x[i*width : (i+1)*width] {
				out[i][d] += a * axes[d][j]
			}
		}
	}
	return out
}

// toward names up to three columns, each with the value or direction, that go with an
// axis: those whose correlation with it is 0.3 or more.
func (f *features) toward(rows []uint32, placed [][2]float64, d int) []string {
	type named struct {
		name string
		r    float64
	}
	var found []named
	correlation := func(of func(row uint32) float64) float64 {
		var n, sx, sy, sxx, sxy, syy float64
		for i, row := range rows {
			x, y := of(row), placed[i][d]
			n, sx, sy, sxx, sxy, syy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
		}
		v := (sxx - sx*sx/n) * (syy - sy*sy/n)
		if v <= 0 {
			return 0
		}
		return (sxy - sx*sy/n) / math.Sqrt(v)
	}
	for c, b := range f.bins {
		best := named{}
		if b.Kind.Numeric() && b.Kind != index.Bool {
			place := places(f.share[c])
			best.r = correlation(func(row uint32) float64 { return place[f.codes[c].Codes[row]] })
			best.name = "higher " + b.Column
			if best.r < 0 {
				best = named{"lower " + b.Column, -best.r}
			}
		} else {
			for _, g := range groups(b, f.share[c]) {
				r := correlation(func(row uint32) float64 {
					if slices.ContainsFunc(codesOf(f.codes[c], row), func(code uint16) bool { return int(code) >= g.from && int(code) <= g.to }) {
						return 1
					}
					return 0
				})
				if r > best.r {
					best = named{b.Column + " " + g.label, r}
				}
			}
		}
		if best.r >= 0.3 {
			found = append(found, best)
		}
	}
	slices.SortStableFunc(found, func(a, b named) int { return cmp.Compare(b.r, a.r) })
	out := []string{}
	for _, n := range found[:min(len(found), 3)] {
		out = append(out, n.name)
	}
	return out
}
