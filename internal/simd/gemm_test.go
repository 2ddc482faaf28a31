package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func newRand(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// floats returns n Gaussian values at an address that is 4 mod 32 or so: an
// odd start inside a larger array.
func floats(r *rand.Rand, n int) []float32 {
	x := make([]float32, n+1)[1:]
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// checkClose fails unless |got-want| <= abs + rel·|want|, in a form NaN fails.
func checkClose(t *testing.T, what string, got, want, abs, rel float64) {
	t.Helper()
	if !(math.Abs(got-want) <= abs+rel*math.Abs(want)) {
		t.Errorf("%s: got %g, want %g", what, got, want)
	}
}

func equalBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s[%d]: got %g (%08x), want %g (%08x)", what, i,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// canary is what memory outside C must still hold after a product.
var canary = math.Float32frombits(0x7fc0dead)

// guarded returns an [m, n] matrix in the middle of canaries, with a stride
// wider than its rows.
func guarded(m, n int) Matrix {
	stride := n + 3
	all := make([]float32, 5+m*stride+40)
	for i := range all {
		all[i] = canary
	}
	return Matrix{Data: all[5:], Rows: m, Cols: n, Stride: stride}
}

func checkGuards(t *testing.T, c Matrix) {
	t.Helper()
	for i, v := range c.Data {
		inside := i/c.Stride < c.Rows && i%c.Stride < c.Cols
		if !inside && math.Float32bits(v) != math.Float32bits(canary) {
			t.Fatalf("element %d outside C [%d, %d] was written: %g", i, c.Rows, c.Cols, v)
		}
	}
}

type gemmCase struct {
	m, k, n int
	bias    bool
	gelu    bool
	resid   bool
}

func (c gemmCase) String() string {
	return fmt.Sprintf("%dx%dx%d,bias=%v,gelu=%v,resid=%v", c.m, c.k, c.n, c.bias, c.gelu, c.resid)
}

func gemmCases() []gemmCase {
	var cases []gemmCase
	edges := []int{1, 5, 6, 7, 12, 15, 16, 17, 31, 32, 33}
	for i, m := range edges {
		for j, n := range edges {
			cases = append(cases, gemmCase{m: m, k: []int{0, 1, 3, 4, 5, 8}[(i+j)%6], n: n, bias: i%2 == 0, gelu: j%3 == 0, resid: (i+j)%2 == 0})
		}
	}
	for _, k := range []int{383, 384, 385, 769} {
		cases = append(cases, gemmCase{m: 7, k: k, n: 33, bias: true}, gemmCase{m: 13, k: k, n: 48, gelu: true, resid: true},
			gemmCase{m: 2, k: k, n: 16, resid: true})
	}
	return append(cases, gemmCase{m: 121, k: 9, n: 17, bias: true, resid: true}, gemmCase{m: 241, k: 2, n: 5})
}

func TestMatMul(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 1)
		for _, c := range gemmCases() {
			t.Run(c.String(), func(t *testing.T) { checkMatMul(t, r, c) })
		}
	})
}

func checkMatMul(t *testing.T, r *rand.Rand, c gemmCase) {
	a := Matrix{Data: floats(r, c.m*(c.k+1)), Rows: c.m, Cols: c.k, Stride: c.k + 1}
	b := floats(r, c.k*c.n)
	var epi Epilogue
	if c.bias {
		epi.Bias = floats(r, c.n)
	}
	if c.resid {
		epi.Residual = Matrix{Data: floats(r, c.m*(c.n+2)), Rows: c.m, Cols: c.n, Stride: c.n + 2}
	}
	epi.GELU = c.gelu
	transposed := make([]float32, len(b))
	for i := range c.k {
		for j := range c.n {
			transposed[j*c.k+i] = b[i*c.n+j]
		}
	}
	dst, dst2 := guarded(c.m, c.n), guarded(c.m, c.n)
	MatMul(dst, a, PackB(b, c.k, c.n, false), epi)
	MatMul(dst2, a, PackB(transposed, c.k, c.n, true), epi)
	checkGuards(t, dst)
	equalBits(t, "packed from transposed", dst2.Data, dst.Data)
	for i := range c.m {
		for j := range c.n {
			want, size := 0.0, 0.0
			add := func(v float64) { want += v; size += math.Abs(v) }
			if c.bias {
				add(float64(epi.Bias[j]))
			}
			for l := range c.k {
				add(float64(a.Row(i)[l]) * float64(b[l*c.n+j]))
			}
			if c.gelu {
				want = 0.5 * want * math.Erfc(-want/math.Sqrt2)
				size += 10
			}
			if c.resid {
				add(float64(epi.Residual.Row(i)[j]))
			}
			tol := (float64(c.k) + 4) * size * 0x1p-23
			checkClose(t, fmt.Sprintf("C[%d,%d]", i, j), float64(dst.Row(i)[j]), want, tol, 0)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	if c.resid && !c.gelu { // the residual may be C itself
		inPlace := epi
		inPlace.Residual = guarded(c.m, c.n)
		for i := range c.m {
			copy(inPlace.Residual.Row(i), epi.Residual.Row(i))
		}
		MatMul(inPlace.Residual, a, PackB(b, c.k, c.n, false), inPlace)
		equalBits(t, "in place", inPlace.Residual.Data, dst.Data)
	}
}

// TestRowsAreIndependent computes a block of rows, then every row alone and
// every block split in two, and wants the same bits.
func TestRowsAreIndependent(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 2)
		const m, k, n = 131, 400, 50
		a := Dense(floats(r, m*k), m, k)
		b := PackB(floats(r, k*n), k, n, false)
		epi := Epilogue{Bias: floats(r, n), GELU: true}
		whole := Dense(make([]float32, m*n), m, n)
		MatMul(whole, a, b, epi)
		alone := make([]float32, n)
		for i := range m {
			MatMul(Dense(alone, 1, n), a.Slice(i, i+1), b, epi)
			equalBits(t, fmt.Sprintf("row %d alone", i), alone, whole.Row(i))
		}
		for cut := 1; cut < 14; cut++ {
			part := Dense(make([]float32, (m-cut)*n), m-cut, n)
			MatMul(part, a.Slice(cut, m), b, epi)
			equalBits(t, fmt.Sprintf("rows from %d", cut), part.Data, whole.Data[cut*n:])
		}
	})
}

func TestSmallProducts(t *testing.T) {
	sizes := []struct{ m, n, k int }{
		{1, 1, 1}, {1, 16, 8}, {5, 17, 7}, {6, 15, 16}, {7, 33, 32}, {13, 32, 64}, {128, 128, 32},
		{16, 31, 127}, {3, 16, 128}, {4, 18, 129}, {2, 5, 300}, {3, 4, 0},
	}
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 3)
		for _, s := range sizes {
			a := Matrix{Data: floats(r, s.m*(s.k+5)), Rows: s.m, Cols: s.k, Stride: s.k + 5}
			nt := Matrix{Data: floats(r, s.n*(s.k+2)), Rows: s.n, Cols: s.k, Stride: s.k + 2}
			nn := Matrix{Data: make([]float32, s.k*(s.n+1)), Rows: s.k, Cols: s.n, Stride: s.n + 1}
			for l := range s.k {
				for j := range s.n {
					nn.Row(l)[j] = nt.Row(j)[l]
				}
			}
			c, d := guarded(s.m, s.n), guarded(s.m, s.n)
			MatMulNT(c, a, nt)
			MatMulNN(d, a, nn)
			checkGuards(t, c)
			equalBits(t, fmt.Sprintf("%v NN against NT", s), d.Data, c.Data)
			for i := range s.m {
				for j := range s.n {
					want, size := 0.0, 0.0
					for l := range s.k {
						v := float64(a.Row(i)[l]) * float64(nt.Row(j)[l])
						want, size = want+v, size+math.Abs(v)
					}
					checkClose(t, fmt.Sprintf("%v C[%d,%d]", s, i, j), float64(c.Row(i)[j]), want, float64(s.k)*size*0x1p-23, 0)
				}
			}
		}
	})
}

// TestNaNReachesOnlyItsRow puts NaN and Inf into single rows of A.
func TestNaNReachesOnlyItsRow(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 4)
		const m, k, n = 20, 40, 33
		a := Dense(floats(r, m*k), m, k)
		a.Row(3)[7] = float32(math.NaN())
		a.Row(9)[0] = float32(math.Inf(1))
		c := Dense(make([]float32, m*n), m, n)
		MatMul(c, a, PackB(floats(r, k*n), k, n, false), Epilogue{})
		for i := range m {
			for j, v := range c.Row(i) {
				f := float64(v)
				ok := !math.IsNaN(f) && !math.IsInf(f, 0)
				switch i {
				case 3:
					ok = math.IsNaN(f)
				case 9:
					ok = math.IsInf(f, 0)
				}
				if !ok {
					t.Fatalf("C[%d,%d] = %g", i, j, v)
				}
			}
		}
	})
}

func TestMisuseStopsBeforeAnyWrite(t *testing.T) {
	b := PackB(make([]float32, 12), 3, 4, false)
	for name, f := range map[string]func(){
		"short C": func() { MatMul(Matrix{make([]float32, 7), 2, 4, 4}, Dense(make([]float32, 6), 2, 3), b, Epilogue{}) },
		"wrong K": func() { MatMul(Dense(make([]float32, 8), 2, 4), Dense(make([]float32, 8), 2, 4), b, Epilogue{}) },
		"short bias": func() {
			MatMul(Dense(make([]float32, 8), 2, 4), Dense(make([]float32, 6), 2, 3), b, Epilogue{Bias: make([]float32, 3)})
		},
		"short B": func() { PackB(make([]float32, 11), 3, 4, false) },
		"scan":    func() { DotInt8(make([]int8, 15), 8, make([]int16, 8), make([]int32, 2)) },
		"lengths": func() { Dot(make([]float32, 2), make([]float32, 3)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func gflops(b *testing.B, products float64) {
	b.ReportMetric(2*products*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func BenchmarkMatMul(b *testing.B) {
	for _, s := range []gemmCase{
		{m: 16, k: 384, n: 384}, {m: 120, k: 384, n: 384}, {m: 120, k: 384, n: 1536}, {m: 120, k: 384, n: 1536, gelu: true},
		{m: 120, k: 1536, n: 384}, {m: 4096, k: 384, n: 384}, {m: 4096, k: 384, n: 1536}, {m: 4096, k: 1536, n: 384},
	} {
		b.Run(s.String(), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			a, w := Dense(floats(r, s.m*s.k), s.m, s.k), PackB(floats(r, s.k*s.n), s.k, s.n, false)
			c := Dense(make([]float32, s.m*s.n), s.m, s.n)
			epi := Epilogue{Bias: floats(r, s.n), GELU: s.gelu}
			for b.Loop() {
				MatMul(c, a, w, epi)
			}
			gflops(b, float64(s.m*s.k*s.n))
		})
	}
}

// BenchmarkAttention is one head of one text: scores, softmax, weighted sum.
func BenchmarkAttention(b *testing.B) {
	for _, n := range []int{16, 128} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			const dim, head = 384, 32
			q := Matrix{Data: floats(r, n*dim), Rows: n, Cols: head, Stride: dim}
			scratch := make([]float32, AttentionScratch(n))
			c := Dense(make([]float32, n*head), n, head)
			for b.Loop() {
				Attention(c, q, q, q, 0.2, scratch)
			}
			gflops(b, float64(2*n*n*head))
		})
	}
}
