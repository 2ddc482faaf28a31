package segment

import (
	"math"
	"slices"

	"github.com/kindred-search/kindred/internal/simd"
)

// mends bounds how often fit mends, mendSteps how long centres move after each.
const (
	mends     = 16
	mendSteps = 5
)

// mend splits the cluster that gains most by it and merges the two that lose
// least (Ueda and others, Neural Computation 2000), and returns the new centres,
// as many as before; nil where nothing is to be gained.
func mend(m *matrix, centers [][]float32, norms []float64) [][]float32 {
	k := len(centers)
	of, _, _ := assign(m, centers, norms)
	members := make([][]int, k)
	for i, c := range of {
		members[c] = append(members[c], i)
	}
	best, gain := -1, 0.0
	var halves [2][]float32
	for c := range centers {
		if a, b, g := m.split(members[c], centers[c]); g > gain {
			best, gain, halves = c, g, [2][]float32{a, b}
		}
	}
	if best < 0 {
		return nil
	}
	one, two, loss := -1, -1, math.Inf(1)
	for a := range centers {
		for b := range a {
			if a == best || b == best {
				continue
			}
			x, y := float64(len(members[a])), float64(len(members[b]))
			if x+y == 0 {
				continue
			}
			if l := x * y / (x + y) * squared(centers[a], centers[b]); l < loss {
				one, two, loss = a, b, l
			}
		}
	}
	if one < 0 || loss >= gain {
		return nil
	}
	out := make([][]float32, k)
	for c := range out {
		out[c] = slices.Clone(centers[c])
	}
	x, y := float64(len(members[one])), float64(len(members[two]))
	for j := range out[one] {
		out[one][j] = float32((x*float64(centers[one][j]) + y*float64(centers[two][j])) / (x + y))
	}
	out[best], out[two] = halves[0], halves[1]
	return out
}

// split cuts points across their longest axis, lets both halves settle, and
// returns their centres and by how much the sum of squared distances falls.
func (m *matrix) split(points []int, center []float32) (a, b []float32, gain float64) {
	if len(points) < 4 {
		return nil, nil, 0
	}
	// The longest axis by power iteration, from the point farthest from the centre.
	d := make([]float32, m.cols)
	off := func(i int) []float32 {
		for j, x := range m.row(i) {
			d[j] = x - center[j]
		}
		return d
	}
	axis, far := make([]float32, m.cols), float32(0)
	for _, i := range points {
		if n := simd.Dot(off(i), d); n > far {
			far = n
			copy(axis, d)
		}
	}
	if far == 0 {
		return nil, nil, 0
	}
	for range 6 {
		next := make([]float32, m.cols)
		for _, i := range points {
			simd.Axpy(simd.Dot(off(i), axis), d, next)
		}
		scale := 1 / float32(math.Sqrt(float64(simd.Dot(next, next))))
		if math.IsInf(float64(scale), 0) || math.IsNaN(float64(scale)) {
			return nil, nil, 0
		}
		for j := range axis {
			axis[j] = next[j] * scale
		}
	}
	// Halves by the sign along the axis, then by the nearer centre.
	cut := float32(0)
	for range 4 {
		var count [2]float64
		sums := [2][]float64{make([]float64, m.cols), make([]float64, m.cols)}
		for _, i := range points {
			side := 0
			if simd.Dot(off(i), axis) > cut {
				side = 1
			}
			count[side]++
			for j, x := range d {
				sums[side][j] += float64(x)
			}
		}
		if count[0] == 0 || count[1] == 0 {
			return nil, nil, 0
		}
		a, b, gain = make([]float32, m.cols), make([]float32, m.cols), 0
		for j := range center {
			x, y := sums[0][j]/count[0], sums[1][j]/count[1]
			a[j], b[j] = float32(x), float32(y)
			axis[j] = float32(y - x)
			gain += count[0]*x*x + count[1]*y*y
		}
		cut = (simd.Dot(b, b) - simd.Dot(a, a)) / 2
	}
	for j, c := range center {
		a[j] += c
		b[j] += c
	}
	return a, b, gain
}

func squared(a, b []float32) float64 {
	s := simd.Dot(a, a) - 2*simd.Dot(a, b) + simd.Dot(b, b)
	return math.Max(0, float64(s))
}
