//go:build amd64 && !noasm

package simd

// dotRows64 is for dims that are a multiple of 4 above 0.
func dotRows64(dst []float64, x []float32, dim int, rows []int, head []float32) {
	if impl == variantGo {
		for k, r := range rows {
			dst[k] = dot64Go(x[r*dim:(r+1)*dim], head)
		}
		return
	}
	n := len(rows) &^ 3
	if n > 0 {
		dotRows64AVX2(&x[0], dim, &rows[0], n, &head[0], &dst[0])
	}
	if n < len(rows) {
		var idx [4]int
		var out [4]float64
		for i := range idx {
			idx[i] = rows[n]
		}
		copy(idx[:], rows[n:])
		dotRows64AVX2(&x[0], dim, &idx[0], 4, &head[0], &out[0])
		copy(dst[n:], out[:])
	}
}

// addRows64 adds the first rows, as many as it says; dim is a multiple of 4 above 0.
func addRows64(y []float64, x []float32, dim int, rows []int, alpha []float64) int {
	if impl == variantGo {
		return 0
	}
	n := 0
	for ; n+4 <= len(rows); n += 4 {
		addRows64AVX2(&y[0], &x[0], dim, &rows[n], &alpha[n])
	}
	return n
}
