//go:build !amd64 || noasm

package simd

func dotRows64(dst []float64, x []float32, dim int, rows []int, head []float32) {
	for k, r := range rows {
		dst[k] = dot64Go(x[r*dim:(r+1)*dim], head)
	}
}

func addRows64([]float64, []float32, int, []int, []float64) int { return 0 }
