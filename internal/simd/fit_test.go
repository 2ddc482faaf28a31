package simd

import (
	"math"
	"testing"
)

// TestRows64 holds every variant to the bits of the plain loops, rows given in any
// order and more than once.
func TestRows64(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 71)
		for _, dim := range append([]int{384, 385}, lengths...) {
			for _, n := range []int{0, 1, 3, 4, 5, 8, 11} {
				x, head := floats(r, 7*dim), floats(r, dim)
				rows, alpha := make([]int, n), make([]float64, n)
				for k := range rows {
					rows[k], alpha[k] = r.IntN(7), r.NormFloat64()
				}
				got, y, want := make([]float64, n), make([]float64, dim), make([]float64, dim)
				for j := range y {
					y[j] = r.NormFloat64()
				}
				copy(want, y)
				DotRows64(got, x, dim, rows, head)
				AddRows64(y, x, dim, rows, alpha)
				for k, row := range rows {
					v := x[row*dim : (row+1)*dim]
					if one := dot64Go(v, head); math.Float64bits(got[k]) != math.Float64bits(one) || math.Float64bits(Dot64(v, head)) != math.Float64bits(one) {
						t.Fatalf("dim %d, row %d of %d: %v, alone %v, want %v", dim, k, n, got[k], Dot64(v, head), one)
					}
					for j, a := range v {
						want[j] += float64(alpha[k] * float64(a))
					}
				}
				for j := range y {
					if math.Float64bits(y[j]) != math.Float64bits(want[j]) {
						t.Fatalf("dim %d, %d rows, element %d: %v, want %v", dim, n, j, y[j], want[j])
					}
				}
			}
		}
	})
}
