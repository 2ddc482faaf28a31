package simd

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

type packInts func(b []float32, k, n, stride int) (*PackedInt, error)

var intPacks = map[string]packInts{"int16": PackInt16, "int8": PackInt8}

func intSizes() []gemmCase {
	var out []gemmCase
	for _, m := range []int{1, 5, 6, 7, 11, 12, 13, 15, 16, 17, 25, 33} {
		for _, n := range []int{1, 15, 16, 17, 31, 32, 33, 70} {
			out = append(out, gemmCase{m: m, k: 16, n: n, bias: n%2 == 0, resid: m%2 == 0})
		}
	}
	for _, k := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 31, 33, 63, 64, 65, 127, 128, 129, 192, 383, 384, 385, 512, 768, 769, 1153} {
		out = append(out, gemmCase{m: 3, k: k, n: 34, bias: true, resid: k%2 == 0, gelu: k%3 == 0})
	}
	return append(out, gemmCase{m: 121, k: 24, n: 17, bias: true, resid: true}, gemmCase{m: 241, k: 400, n: 33},
		gemmCase{m: 18, k: 130, n: 97, bias: true, resid: true}, gemmCase{m: 257, k: 70, n: 64, bias: true})
}

// intOperands makes the operands of one case: odd starts, rows wider than K.
func intOperands(r *rand.Rand, c gemmCase) (a Matrix, b []float32, stride int, epi Epilogue) {
	stride = c.k + 3
	a = Matrix{Data: floats(r, c.m*(c.k+1)), Rows: c.m, Cols: c.k, Stride: c.k + 1}
	b = floats(r, c.n*stride)
	if c.bias {
		epi.Bias = floats(r, c.n)
	}
	if c.resid {
		epi.Residual = Matrix{Data: floats(r, c.m*(c.n+2)), Rows: c.m, Cols: c.n, Stride: c.n + 2}
	}
	epi.GELU = c.gelu
	return a, b, stride, epi
}

// TestMatMulIntBits holds every variant to one reference that is written here
// from the definition alone: integers in int64, then one rounding a step.
func TestMatMulIntBits(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for name, pack := range intPacks {
			r := newRand(t, 31)
			for _, c := range intSizes() {
				c.gelu = false // GELU is an approximation of its own
				a, b, stride, epi := intOperands(r, c)
				p, err := pack(b, c.k, c.n, stride)
				if err != nil {
					t.Fatal(err)
				}
				var q Quantised
				q.From(a, p)
				dst := guarded(c.m, c.n)
				MatMulInt(dst, &q, p, epi)
				checkGuards(t, dst)
				for i := range c.m {
					for j := range c.n {
						want := intElement(p, a.Row(i), b[j*stride:], epi, i, j, name)
						equalBits(t, fmt.Sprintf("%s %v C[%d,%d]", name, c, i, j), dst.Row(i)[j:j+1], []float32{want})
					}
				}
				parts := guarded(c.m, c.n)
				for at := range p.Panels() {
					MatMulIntColumns(parts, &q, p, at, at+1, epi)
				}
				equalBits(t, "panel by panel", parts.Data, dst.Data)
				if c.resid {
					in := epi
					in.Residual = guarded(c.m, c.n)
					for i := range c.m {
						copy(in.Residual.Row(i), epi.Residual.Row(i))
					}
					MatMulInt(in.Residual, &q, p, in)
					equalBits(t, "in place", in.Residual.Data, dst.Data)
				}
			}
		}
	})
}

// intElement is one element of the product from the definition.
func intElement(p *PackedInt, x, w []float32, epi Epilogue, i, j int, kind string) float32 {
	top, limit := int32(8191), int32(32767)
	if kind == "int8" {
		top, limit = 127, 127
	}
	var c float32
	if epi.Bias != nil {
		c = epi.Bias[j]
	}
	if epi.Residual.Data != nil {
		c += epi.Residual.Row(i)[j]
	}
	for _, s := range p.slices {
		var largest float32
		for _, v := range x[s.from:s.to] {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		col := make([]int32, s.to-s.from)
		sw, err := quantiseColumn(col, w[s.from:s.to], top, limit)
		if err != nil {
			return float32(math.NaN())
		}
		var sum int64
		for l, v := range x[s.from:s.to] {
			if largest > 0 {
				sum += int64(math.RoundToEven(float64(v*(float32(top)/largest)))) * int64(col[l])
			}
		}
		if sum != int64(int32(sum)) {
			return float32(math.NaN())
		}
		v := float32(int32(sum)) * sw
		v = float32(v * (largest / float32(top)))
		c = float32(c + v)
	}
	return c
}

// TestMatMulIntClose compares with the exact product: rounding errors of both
// operands add up like independent noise.
func TestMatMulIntClose(t *testing.T) {
	steps := map[string]float64{"int16": 1.0 / 8191, "int8": 1.0 / 127}
	forEachVariant(t, func(t *testing.T) {
		for name, pack := range intPacks {
			r := newRand(t, 32)
			for _, c := range intSizes() {
				a, b, stride, epi := intOperands(r, c)
				p, err := pack(b, c.k, c.n, stride)
				if err != nil {
					t.Fatal(err)
				}
				var q Quantised
				q.From(a, p)
				dst := Dense(make([]float32, c.m*c.n), c.m, c.n)
				MatMulInt(dst, &q, p, epi)
				for i := range c.m {
					for j := range c.n {
						var want, sum, largestA, largestB float64
						if c.bias {
							want = float64(epi.Bias[j])
						}
						for l, v := range a.Row(i) {
							u, w := float64(v), float64(b[j*stride+l])
							want += u * w
							sum += math.Abs(u) + math.Abs(w)
							largestA, largestB = max(largestA, math.Abs(u)), max(largestB, math.Abs(w))
						}
						if c.gelu {
							want = 0.5 * want * math.Erfc(-want/math.Sqrt2)
						}
						if c.resid {
							want += float64(epi.Residual.Row(i)[j])
						}
						// Half a step of each operand times the other, all of one sign.
						tol := steps[name]*max(largestA, largestB)*sum*1.2 + 1e-4
						checkClose(t, fmt.Sprintf("%s %v C[%d,%d]", name, c, i, j), float64(dst.Row(i)[j]), want, tol, 1e-5)
					}
				}
				if t.Failed() {
					t.FailNow()
				}
			}
		}
	})
}

// TestIntSaturated drives the sums to the edge of the proof: every activation
// at the top of its range and every weight of the same magnitude.
func TestIntSaturated(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for name, pack := range intPacks {
			for _, k := range []int{1, 2, 15, 16, 383, 384, 768} {
				for _, sign := range []float32{1, -1} {
					const m, n = 13, 33
					a, b := Dense(make([]float32, m*k), m, k), make([]float32, n*k)
					for i := range a.Data {
						a.Data[i] = 3
					}
					for i := range b {
						b[i] = sign * 5
					}
					p, err := pack(b, k, n, k)
					if err != nil {
						t.Fatal(err)
					}
					var q Quantised
					q.From(a, p)
					c := Dense(make([]float32, m*n), m, n)
					MatMulInt(c, &q, p, Epilogue{})
					for i, v := range c.Data {
						checkClose(t, fmt.Sprintf("%s k %d C[%d]", name, k, i), float64(v), float64(sign)*15*float64(k), 0, 8e-4) // half of one of 682 steps
					}
				}
			}
		}
	})
}

// TestIntProof recomputes the bound from the packed integers.
func TestIntProof(t *testing.T) {
	r := newRand(t, 33)
	for _, k := range []int{1, 7, 384, 800} {
		for kind := range 4 {
			col, q := make([]float32, k), make([]int32, k)
			for i := range col {
				switch kind {
				case 0:
					col[i] = float32(r.NormFloat64())
				case 1:
					col[i] = 1
				case 2:
					col[i] = float32(math.Exp(8 * r.NormFloat64()))
				case 3:
					col[i] = float32(r.NormFloat64()) * 1e37
				}
			}
			for _, s := range cutDepth(k, formatInt16) {
				part := q[s.from:s.to]
				if _, err := quantiseColumn(part, col[s.from:s.to], int16Activation, int16Weight); err != nil {
					t.Fatal(err)
				}
				var sum int64
				largest := int32(0)
				for _, v := range part {
					sum += int64(max(v, -v))
					largest = max(largest, v, -v)
				}
				if sum*int16Activation > math.MaxInt32 || largest > int16Weight {
					t.Errorf("k %d kind %d: sum of magnitudes %d, largest %d", k, kind, sum, largest)
				}
				if largest < 600 {
					t.Errorf("k %d kind %d: only %d steps", k, kind, largest)
				}
			}
		}
	}
}

func TestPackIntRefuses(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e-40} {
		for name, pack := range intPacks {
			w := make([]float32, 20)
			w[13] = bad
			if p, err := pack(w, 5, 4, 5); !errors.Is(err, ErrRange) {
				t.Errorf("%s of %g: %v, %v", name, bad, p, err)
			}
		}
	}
}

// TestIntOddRows: a NaN or an infinity makes its own row NaN and no other; rows
// of zeros and of tiny numbers give the bias.
func TestIntOddRows(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for name, pack := range intPacks {
			for _, k := range []int{5, 16, 37, 390} {
				for _, at := range []int{0, k / 2, k - 1} {
					r := newRand(t, 34)
					const m, n = 14, 33
					a, bias := Dense(floats(r, m*k), m, k), floats(r, n)
					a.Row(3)[at] = float32(math.NaN())
					a.Row(9)[at] = float32(math.Inf(-1))
					clear(a.Row(5))
					clear(a.Row(6))
					a.Row(6)[at] = 1e-35
					p, err := pack(floats(r, n*k), k, n, k)
					if err != nil {
						t.Fatal(err)
					}
					var q Quantised
					q.From(a, p)
					c := Dense(make([]float32, m*n), m, n)
					MatMulInt(c, &q, p, Epilogue{Bias: bias})
					for i := range m {
						for j, v := range c.Row(i) {
							switch {
							case i == 3 || i == 9:
								if v == v {
									t.Fatalf("%s k %d: C[%d,%d] = %g, want NaN", name, k, i, j, v)
								}
							case v != v:
								t.Fatalf("%s k %d: C[%d,%d] is NaN", name, k, i, j)
							case (i == 5 || i == 6) && v != bias[j]:
								t.Fatalf("%s k %d: C[%d,%d] = %g, want %g", name, k, i, j, v, bias[j])
							}
						}
					}
				}
			}
		}
	})
}

func TestIntRowsAreIndependent(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for name, pack := range intPacks {
			r := newRand(t, 35)
			const m, k, n = 131, 400, 50
			a := Dense(floats(r, m*k), m, k)
			p, err := pack(floats(r, n*k), k, n, k)
			if err != nil {
				t.Fatal(err)
			}
			epi := Epilogue{Bias: floats(r, n), GELU: true}
			var q Quantised
			q.From(a, p)
			whole, alone := Dense(make([]float32, m*n), m, n), make([]float32, n)
			MatMulInt(whole, &q, p, epi)
			for i := range m {
				q.From(a.Slice(i, i+1), p)
				MatMulInt(Dense(alone, 1, n), &q, p, epi)
				equalBits(t, fmt.Sprintf("%s row %d alone", name, i), alone, whole.Row(i))
			}
		}
	})
}

func BenchmarkMatMulInt(b *testing.B) {
	for name, pack := range intPacks {
		for _, s := range []gemmCase{{m: 16, k: 384, n: 384}, {m: 120, k: 384, n: 1536}, {m: 120, k: 384, n: 384, gelu: true}} {
			b.Run(name+"/"+s.String(), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 1))
				a := Dense(floats(r, s.m*s.k), s.m, s.k)
				p, err := pack(floats(r, s.k*s.n), s.k, s.n, s.k)
				if err != nil {
					b.Fatal(err)
				}
				c := Dense(make([]float32, s.m*s.n), s.m, s.n)
				var q Quantised
				q.From(a, p)
				epi := Epilogue{Bias: floats(r, s.n), GELU: s.gelu}
				for b.Loop() {
					MatMulInt(c, &q, p, epi)
				}
				gflops(b, float64(s.m*s.k*s.n))
			})
		}
		b.Run(name+"/quantise 120x384", func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			a := Dense(floats(r, 120*384), 120, 384)
			p, err := pack(floats(r, 384*32), 384, 32, 384)
			if err != nil {
				b.Fatal(err)
			}
			var q Quantised
			for b.Loop() {
				q.From(a, p)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(a.Data)), "ns/element")
		})
	}
}
