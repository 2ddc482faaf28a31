package simd

import (
	"fmt"
	"math"
)

func sameLen(name string, a, b int) {
	if a != b {
		panic(fmt.Sprintf("simd: %s: operands hold %d and %d elements", name, a, b))
	}
}

// Dot returns Σ a[i]·b[i] in fp32, in a lane order fixed by the length.
func Dot(a, b []float32) float32 {
	sameLen("Dot", len(a), len(b))
	n := len(a) &^ 7
	s := dotBody(a[:n], b[:n])
	for i := n; i < len(a); i++ {
		s += a[i] * b[i]
	}
	return s
}

// Axpy adds alpha·x to y, element by element.
func Axpy(alpha float32, x, y []float32) {
	sameLen("Axpy", len(x), len(y))
	axpy(alpha, x, y)
}

// GELU replaces every element x by x·Φ(x), the exact (erf) GELU, with an
// absolute error of at most 5e-7 plus one rounding of x, for every fp32 x. NaN stays NaN, +Inf
// stays +Inf and -Inf becomes a value within the error of zero.
func GELU(x []float32) { gelu(x) }

// Softmax replaces x by exp(scale·x - max)/Σ in place. Relative error of each
// exponential is at most 4e-7 for results above 1e-38; below it is flushed to
// zero, so -Inf (a masked position) yields exactly 0. Any NaN, or a row of only
// -Inf, yields NaN throughout.
func Softmax(x []float32, scale float32) {
	if len(x) > 0 {
		softmax(x, scale)
	}
}

// SoftmaxRows applies [Softmax] to every row of m.
func SoftmaxRows(m Matrix, scale float32) {
	m.check("SoftmaxRows")
	for i := range m.Rows {
		Softmax(m.Row(i), scale)
	}
}

// LayerNorm writes (x-mean)/sqrt(var+eps)·gamma+beta to dst for one row; the
// variance is the population's. All four slices have the same length; dst may
// be x. Two passes, so no cancellation when the mean is large. With z the
// normalised value and σ the deviation, the error of an element of a row of up
// to 4096 is at most (4 + 4·|mean|/σ)·2⁻²²·(1+|z|)·|gamma| plus a rounding of
// beta and of the result; 1/σ itself is computed in fp64.
func LayerNorm(dst, x, gamma, beta []float32, eps float32) {
	sameLen("LayerNorm dst", len(dst), len(x))
	sameLen("LayerNorm gamma", len(gamma), len(x))
	sameLen("LayerNorm beta", len(beta), len(x))
	if len(x) == 0 {
		return
	}
	n := len(x) &^ 7
	sum := sumBody(x[:n])
	for _, v := range x[n:] {
		sum += v
	}
	mean := sum / float32(len(x))
	sq := sumSqBody(x[:n], mean)
	for _, v := range x[n:] {
		d := v - mean
		sq += d * d
	}
	inv := float32(1 / math.Sqrt(float64(sq/float32(len(x)))+float64(eps)))
	normBody(&normArgs{dst: dst[:n], x: x[:n], gamma: gamma[:n], beta: beta[:n], mean: mean, inv: inv})
	for i := n; i < len(x); i++ {
		dst[i] = (x[i]-mean)*inv*gamma[i] + beta[i]
	}
}

// normArgs is the argument block of the normalising pass; gen/rowops.go reads
// it by offset.
type normArgs struct {
	dst   []float32 // offset 0
	x     []float32 // 24
	gamma []float32 // 48
	beta  []float32 // 72
	mean  float32   // 96
	inv   float32   // 100
}
