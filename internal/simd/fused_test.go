package simd

import (
	"fmt"
	"math/big"
	"testing"
)

// TestFused: every variant with assembly gives the same bits on every processor,
// those of a chain of fused multiply-adds over k in order. The reference adds
// exactly and rounds once a step.
func TestFused(t *testing.T) {
	r := newRand(t, 6)
	const m, k, n = 8, 23, 35
	a, w, bias := Dense(floats(r, m*k), m, k), floats(r, k*n), floats(r, n)
	want := Dense(make([]float32, m*n), m, n)
	for i := range m {
		for j := range n {
			s := bias[j]
			for l := range k {
				s = fma32(a.Row(i)[l], w[l*n+j], s)
			}
			want.Row(i)[j] = s
		}
	}
	forEachVariant(t, func(t *testing.T) {
		if Features() == "go" {
			t.Skip("the twin may round each product")
		}
		got := Dense(make([]float32, m*n), m, n)
		MatMul(got, a, PackB(w, k, n, false), Epilogue{Bias: bias})
		for i := range m {
			equalBits(t, fmt.Sprintf("C[%d]", i), got.Row(i), want.Row(i))
		}
	})
}

// fma32 is x·y + z rounded once.
func fma32(x, y, z float32) float32 {
	exact := new(big.Float).SetPrec(600)
	exact.Mul(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
	exact.Add(exact, big.NewFloat(float64(z)))
	out, _ := exact.Float32()
	return out
}
