package simd

import "fmt"

//go:generate go run ./gen/fit -out fit_amd64.s -stubs fit_amd64.go -pkg simd

// Dot64 is the product of a and b in fp64: four sums, of every fourth element, added
// up in order. It is for fitting and comparing models; every variant gives the same bits.
func Dot64(a, b []float32) float64 {
	sameLen("Dot64", len(b), len(a))
	if len(a)&3 != 0 || len(a) == 0 {
		return dot64Go(a, b)
	}
	var out [1]float64
	dotRows64(out[:], a, len(a), []int{0}, b)
	return out[0]
}

// DotRows64 sets dst[k] to [Dot64] of row rows[k] of x, dim elements each, with head.
func DotRows64(dst []float64, x []float32, dim int, rows []int, head []float32) {
	sameLen("DotRows64", len(dst), len(rows))
	sameLen("DotRows64 head", len(head), dim)
	checkRows("DotRows64", x, dim, rows)
	if dim&3 != 0 || dim == 0 {
		for k, r := range rows {
			dst[k] = dot64Go(x[r*dim:(r+1)*dim], head)
		}
		return
	}
	dotRows64(dst, x, dim, rows, head)
}

// AddRows64 adds alpha[k] times row rows[k] of x to y, of dim elements, row by row.
func AddRows64(y []float64, x []float32, dim int, rows []int, alpha []float64) {
	sameLen("AddRows64", len(alpha), len(rows))
	sameLen("AddRows64 y", len(y), dim)
	checkRows("AddRows64", x, dim, rows)
	if dim&3 == 0 && dim > 0 {
		n := addRows64(y, x, dim, rows, alpha)
		rows, alpha = rows[n:], alpha[n:]
	}
	for k, r := range rows {
		a := alpha[k]
		for j, v := range x[r*dim : (r+1)*dim] {
			y[j] += float64(a * float64(v)) // the conversion forbids a fused addition
		}
	}
}

func checkRows(name string, x []float32, dim int, rows []int) {
	for _, r := range rows {
		if r < 0 || dim < 0 || (r+1)*dim > len(x) {
			panic(fmt.Sprintf("simd: %s: row %d of dim %d in %d elements", name, r, dim, len(x)))
		}
	}
}

func dot64Go(a, b []float32) float64 {
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return s0 + s1 + s2 + s3
}
