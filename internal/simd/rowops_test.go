package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var lengths = []int{0, 1, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 39, 40, 63, 64, 65, 383, 384, 385}

func TestDotAndAxpy(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 11)
		for _, n := range lengths {
			a, b := floats(r, n), floats(r, n)
			want, size := 0.0, 0.0
			for i := range a {
				v := float64(a[i]) * float64(b[i])
				want, size = want+v, size+math.Abs(v)
			}
			checkClose(t, fmt.Sprintf("Dot of %d", n), float64(Dot(a, b)), want, float64(n)*size*0x1p-23, 0)
			y := append([]float32(nil), b...)
			Axpy(0.75, a, y)
			for i := range y {
				checkClose(t, fmt.Sprintf("Axpy of %d at %d", n, i), float64(y[i]), 0.75*float64(a[i])+float64(b[i]), 1e-6, 0)
			}
		}
		if v := Dot([]float32{1, float32(math.NaN())}, []float32{1, 1}); v == v {
			t.Errorf("Dot with NaN = %g", v)
		}
	})
}

// TestGELU sweeps every 1/512 in -12..12 and checks the bound GELU states.
func TestGELU(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		var x []float32
		for i := -12 * 512; i <= 12*512; i++ {
			x = append(x, float32(i)/512)
		}
		got := append([]float32(nil), x...)
		GELU(got)
		worst := 0.0
		for i, v := range x {
			f := float64(v)
			want := 0.5 * f * math.Erfc(-f/math.Sqrt2)
			checkClose(t, fmt.Sprintf("GELU(%g)", v), float64(got[i]), want, 5e-7, 0x1p-23)
			worst = max(worst, math.Abs(float64(got[i])-want))
		}
		t.Logf("largest absolute error %.2g", worst)
		inf := float32(math.Inf(1))
		for _, n := range lengths[1:] { // every lane, body and tail
			for at := range n {
				for _, c := range []struct{ x, want float32 }{{inf, inf}, {-inf, 0}, {1e30, 1e30}, {-1e30, 0}} {
					x := make([]float32, n)
					x[at] = c.x
					GELU(x)
					if x[at] != c.want && !(math.Abs(float64(x[at]-c.want)) <= 5e-7) {
						t.Fatalf("GELU(%g) = %g at %d of %d", c.x, x[at], at, n)
					}
				}
				x := make([]float32, n)
				x[at] = float32(math.NaN())
				GELU(x)
				for i, v := range x {
					if (v != v) != (i == at) {
						t.Fatalf("NaN at %d of %d: element %d is %g", at, n, i, v)
					}
				}
			}
			// Bits do not depend on the place.
			x := make([]float32, n)
			for i := range x {
				x[i] = -0.7
			}
			GELU(x)
			for i := range x {
				equalBits(t, "GELU(-0.7)", x[i:i+1], x[:1])
			}
		}
	})
}

// TestGELUEverywhere takes every 4099th of all finite fp32 numbers.
func TestGELUEverywhere(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		const batch = 1 << 12
		x, got := make([]float32, 0, batch), make([]float32, batch)
		worst := 0.0
		for bits := uint64(0); bits < 1<<32; bits += 4099 {
			if v := math.Float32frombits(uint32(bits)); v-v == 0 {
				x = append(x, v)
			}
			if len(x) < batch && bits+4099 < 1<<32 {
				continue
			}
			GELU(got[:copy(got, x)])
			for i, v := range x {
				f := float64(v)
				want := 0.5 * f * math.Erfc(-f/math.Sqrt2)
				d := math.Abs(float64(got[i])-want) - 0x1p-23*math.Abs(want)
				worst = max(worst, d)
				if !(d <= 5e-7) {
					t.Fatalf("GELU(%g) = %g, want %g", v, got[i], want)
				}
			}
			x = x[:0]
		}
		t.Logf("largest absolute error beyond a rounding %.2g", worst)
	})
}

// TestLayerNormBound measures the error LayerNorm states, as a share of it.
func TestLayerNormBound(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 14)
		worst := 0.0
		for _, n := range []int{2, 8, 31, 384, 768, 1027, 4096} {
			for _, mean := range []float32{0, 1, -10, 1000} {
				for _, size := range []float32{1e-3, 1, 1e4} {
					x, gamma, beta := floats(r, n), floats(r, n), floats(r, n)
					var sum, sq float64
					for i := range x {
						x[i] = (x[i] + mean) * size
						sum += float64(x[i])
					}
					m := sum / float64(n)
					for _, v := range x {
						sq += (float64(v) - m) * (float64(v) - m)
					}
					sd := math.Sqrt(sq/float64(n) + 1e-12)
					dst := make([]float32, n)
					LayerNorm(dst, x, gamma, beta, 1e-12)
					for i, v := range x {
						z := (float64(v) - m) / sd
						want := z*float64(gamma[i]) + float64(beta[i])
						bound := (4+4*math.Abs(m)/sd)*0x1p-22*(1+math.Abs(z))*math.Abs(float64(gamma[i])) + 0x1p-23*(math.Abs(float64(beta[i]))+math.Abs(want))
						d := math.Abs(float64(dst[i]) - want)
						worst = max(worst, d/bound)
						if !(d <= bound) {
							t.Fatalf("%d elements, mean %g, deviation %g: element %d is %g, want %g within %g", n, m, sd, i, dst[i], want, bound)
						}
					}
				}
			}
		}
		t.Logf("largest share of the bound %.2g", worst)
	})
}

func TestSoftmax(t *testing.T) {
	inf := float32(math.Inf(1))
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 12)
		for _, n := range lengths {
			for _, spread := range []float32{0.01, 1, 30, 300} {
				x := floats(r, n)
				for i := range x {
					x[i] *= spread
				}
				if n > 2 {
					x[n/2] = -inf
				}
				got := append([]float32(nil), x...)
				Softmax(got, 0.25)
				top, sum := math.Inf(-1), 0.0
				for _, v := range x {
					top = max(top, float64(v*0.25))
				}
				for _, v := range x {
					sum += math.Exp(float64(v*0.25) - top)
				}
				for i, v := range x {
					// fp32 rounds v-top: its relative effect grows with the distance.
					d := float64(v*0.25) - top
					rel := 2e-6 + math.Min(200, math.Abs(d))*0x1p-23
					checkClose(t, fmt.Sprintf("Softmax of %d, spread %g, at %d", n, spread, i), float64(got[i]), math.Exp(d)/sum, 2e-38, rel)
				}
				if n > 2 && got[n/2] != 0 {
					t.Errorf("masked position of %d got %g", n, got[n/2])
				}
			}
		}
		for _, n := range lengths[1:] {
			for at := range n {
				x := make([]float32, n)
				x[at] = float32(math.NaN())
				Softmax(x, 1)
				for i, v := range x {
					if v == v {
						t.Fatalf("NaN at %d of %d: element %d is %g", at, n, i, v)
					}
				}
			}
			x := make([]float32, n)
			for i := range x {
				x[i] = -inf
			}
			Softmax(x, 1)
			if x[n-1] == x[n-1] {
				t.Fatalf("all masked: %g, want NaN", x[n-1])
			}
		}
	})
}

// TestExpBound checks the relative error Softmax states for one exponential,
// as the ratio to a neighbour that holds the maximum.
func TestExpBound(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		worst := 0.0
		for i := range 87 * 64 {
			v := -float32(i) / 64
			x := []float32{0, v, v, v, v, v, v, v, v}
			Softmax(x, 1)
			got := float64(x[3]) / float64(x[0])
			want := math.Exp(float64(v))
			worst = max(worst, math.Abs(got/want-1))
			checkClose(t, fmt.Sprintf("exp(%g)", v), got, want, 2e-38, 4e-7)
		}
		t.Logf("largest relative error %.2g", worst)
	})
}

func TestLayerNorm(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 13)
		for _, n := range lengths {
			x, gamma, beta := floats(r, n), floats(r, n), floats(r, n)
			for i := range x {
				x[i] += 100 // a mean that one-pass formulas lose digits to
			}
			dst := make([]float32, n)
			LayerNorm(dst, x, gamma, beta, 1e-12)
			mean, sq := 0.0, 0.0
			for _, v := range x {
				mean += float64(v) / float64(n)
			}
			for _, v := range x {
				sq += (float64(v) - mean) * (float64(v) - mean) / float64(n)
			}
			for i := range x {
				if n == 1 {
					checkClose(t, "LayerNorm of 1", float64(dst[i]), float64(beta[i]), 1e-6, 0)
					continue
				}
				want := (float64(x[i])-mean)/math.Sqrt(sq+1e-12)*float64(gamma[i]) + float64(beta[i])
				// The mean is rounded at 100·2⁻²⁴ or so, in units of the deviation.
				tol := 3e-5 / min(1, math.Sqrt(sq)) * (1 + math.Abs(float64(gamma[i])))
				checkClose(t, fmt.Sprintf("LayerNorm of %d at %d", n, i), float64(dst[i]), want, tol, 1e-5)
			}
			LayerNorm(x, x, gamma, beta, 1e-12)
			equalBits(t, "in place", x, dst)
		}
		x := []float32{1, 2, float32(math.NaN()), 4, 5, 6, 7, 8, 9}
		LayerNorm(x, x, x, x, 1e-5)
		if x[0] == x[0] {
			t.Errorf("LayerNorm passed over NaN: %g", x[0])
		}
	})
}

func BenchmarkRowOps(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	const n = 384
	x, y, z := floats(r, n), floats(r, n), floats(r, n)
	perElement := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
	}
	b.Run("gelu", func(b *testing.B) {
		for b.Loop() {
			GELU(x)
		}
		perElement(b)
	})
	b.Run("softmax", func(b *testing.B) {
		for b.Loop() {
			Softmax(x, 1)
		}
		perElement(b)
	})
	b.Run("layernorm", func(b *testing.B) {
		for b.Loop() {
			LayerNorm(x, x, y, z, 1e-12)
		}
		perElement(b)
	})
}
