package simd

import (
	"fmt"
	"math"
	"testing"
)

// attention64 is one row of one head in fp64.
func attention64(q []float32, k, v Matrix, scale float64) []float64 {
	w, out := make([]float64, k.Rows), make([]float64, v.Cols)
	top, sum := math.Inf(-1), 0.0
	for i := range w {
		for l, x := range q {
			w[i] += float64(x) * float64(k.Row(i)[l])
		}
		w[i] *= scale
		top = max(top, w[i])
	}
	for i := range w {
		w[i] = math.Exp(w[i] - top)
		sum += w[i]
	}
	for i := range w {
		for j := range out {
			out[j] += w[i] / sum * float64(v.Row(i)[j])
		}
	}
	return out
}

func TestAttention(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 41)
		for _, n := range []int{0, 1, 2, 11, 15, 16, 17, 31, 32, 33, 48, 100, 128, 131, 260} {
			for _, size := range []int{8, 32, 33, 64} {
				whole := Matrix{Data: floats(r, n*3*size+1), Rows: n, Cols: 3 * size, Stride: 3 * size}
				part := func(at int) Matrix {
					if n == 0 {
						return Matrix{Cols: size, Stride: size}
					}
					return Matrix{Data: whole.Data[at:], Rows: n, Cols: size, Stride: whole.Stride}
				}
				q, k, v := part(0), part(size), part(2*size)
				c := guarded(n, size)
				scratch := make([]float32, AttentionScratch(n)+1)
				scratch[len(scratch)-1] = canary
				Attention(c, q, k, v, 0.3, scratch[:len(scratch)-1])
				checkGuards(t, c)
				if math.Float32bits(scratch[len(scratch)-1]) != math.Float32bits(canary) {
					t.Fatal("wrote past the scratch")
				}
				for i := range n {
					for j, want := range attention64(q.Row(i), k, v, 0.3) {
						checkClose(t, fmt.Sprintf("%d tokens of %d: C[%d,%d]", n, size, i, j), float64(c.Row(i)[j]), want, 2e-5, 0)
					}
				}
				if t.Failed() {
					t.FailNow()
				}
			}
		}
	})
}

// TestAttentionExp checks the relative error of one weight over the whole range
// that is not flushed to zero, and that what is below it is zero: keys of one
// element are the exponents, values pick one weight each.
func TestAttentionExp(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		const n = 33
		worst := 0.0
		scratch := make([]float32, AttentionScratch(n))
		for at := range 1000 {
			k, v := Dense(make([]float32, n), n, 1), Dense(make([]float32, n*n), n, n)
			for i := range n {
				k.Data[i] = -float32(at)*0.1 - float32(i)*0.003
				v.Row(i)[i] = 1
			}
			k.Data[n/2] = 0
			q := Dense(make([]float32, n), n, 1)
			for i := range q.Data {
				q.Data[i] = 1
			}
			c := Dense(make([]float32, n*n), n, n)
			Attention(c, q, k, v, 1, scratch)
			for i, w := range c.Row(n - 1) {
				e := float64(k.Data[i])
				got, want := float64(w)/float64(c.Row(n - 1)[n/2]), math.Exp(e)
				if e < -87.4 {
					if w != 0 {
						t.Fatalf("exp(%g) gave %g, want 0", e, w)
					}
					continue
				}
				if e < -87.2 { // may be either
					continue
				}
				worst = max(worst, math.Abs(got/want-1))
			}
		}
		t.Logf("largest relative error %.2g", worst)
		if !(worst <= 5e-7) {
			t.Errorf("largest relative error %g", worst)
		}
	})
}

func TestAttentionNaN(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for _, n := range []int{1, 15, 16, 17, 40} {
			for _, at := range []int{0, n / 2, n - 1} {
				r := newRand(t, 42)
				q, k, v := Dense(floats(r, n*8), n, 8), Dense(floats(r, n*8), n, 8), Dense(floats(r, n*8), n, 8)
				q.Row(at)[3] = float32(math.NaN())
				c := Dense(make([]float32, n*8), n, 8)
				Attention(c, q, k, v, 1, make([]float32, AttentionScratch(n)))
				for i := range n {
					for j, x := range c.Row(i) {
						if (x != x) != (i == at) {
							t.Fatalf("%d tokens, NaN in row %d: C[%d,%d] = %g", n, at, i, j, x)
						}
					}
				}
			}
		}
	})
}
