//go:build cuda

package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/internal/lbfgs"
	"github.com/kindred-search/kindred/internal/simd"
)

func examples(rng *rand.Rand, n, dim int) (rows []float32, positive []bool, weight []float64) {
	rows, positive, weight = normal(rng, n*dim), make([]bool, n), make([]float64, n)
	for i := range n {
		positive[i], weight[i] = rng.IntN(3) == 0, 3*rng.Float64()
	}
	return rows, positive, weight
}

func every(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func bits(t *testing.T, what string, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s %d: %v, want %v", what, i, got[i], want[i])
		}
	}
}

// TestLikeSIMD: scores and weighted sums have the bits of the CPU's kernels, and the loss is
// that of math's functions, added exactly, to the bounds that are given.
func TestLikeSIMD(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(32, 1))
	for _, c := range []struct{ n, dim int }{{1, 1}, {7, 3}, {9, 4}, {63, 6}, {65, 384}, {300, 31}, {700, 32}, {1100, 8}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			rows, positive, weight := examples(rng, c.n, c.dim)
			vector, rest := normal(rng, c.dim), make([]float64, c.n)
			for i := range rest {
				rest[i] = 20 * rng.NormFloat64()
			}
			if c.n > 5 {
				rest[3], rest[4] = 800, -800 // beyond what exp can say
			}
			l, err := NewLogistic(t.Context(), d, rows, c.dim, positive, weight)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			z, want := make([]float64, c.n), make([]float64, c.n)
			if err := l.Scores(t.Context(), z, vector); err != nil {
				t.Fatal(err)
			}
			simd.DotRows64(want, rows, c.dim, every(c.n), vector)
			bits(t, "score", z, want)
			sum, added := make([]float64, c.dim), make([]float64, c.dim)
			if err := l.Weighted(t.Context(), sum, rest); err != nil {
				t.Fatal(err)
			}
			simd.AddRows64(added, rows, c.dim, every(c.n), rest)
			bits(t, "sum", sum, added)
			for _, rest := range [][]float64{rest, nil} {
				loss(t, l, rows, positive, weight, vector, rest, z)
			}
		})
	}
}

// exact is a sum without rounding, and that of the absolute values.
type exact struct {
	sum  big.Float
	size float64
}

func (e *exact) add(x float64) {
	e.sum.SetPrec(2100) // of all that fp64 holds
	e.sum.Add(&e.sum, big.NewFloat(x))
	e.size += math.Abs(x)
}

func (e *exact) near(got float64, n int) bool {
	want, _ := e.sum.Float64()
	return math.Abs(got-want) <= (float64(n+64)+16)*0x1p-53*e.size
}

func loss(t *testing.T, l *Logistic, rows []float32, positive []bool, weight []float64, vector []float32, rest, z []float64) {
	t.Helper()
	const bias = -0.7
	grad, slopes := make([]float64, l.dim+1), make([]float64, l.n)
	got, err := l.Loss(t.Context(), vector, bias, rest, grad, slopes)
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]exact, l.dim+2)
	for i := range l.n {
		z := bias + z[i]
		if rest != nil {
			z += rest[i]
		}
		label, y := 0.0, z
		if positive[i] {
			label, y = 1, -z
		}
		slope := weight[i] * (1/(1+math.Exp(-z)) - label)
		if !(math.Abs(slopes[i]-slope) <= 8*0x1p-53*weight[i]) {
			t.Fatalf("row %d: derivative %v, want %v", i, slopes[i], slope)
		}
		for j, x := range rows[i*l.dim : (i+1)*l.dim] {
			sums[j].add(slopes[i] * float64(x))
		}
		sums[l.dim].add(slopes[i])
		sums[l.dim+1].add(weight[i] * (math.Max(y, 0) + math.Log1p(math.Exp(-math.Abs(y)))))
	}
	for j, g := range append(grad, got) {
		if !sums[j].near(g, l.n) {
			t.Fatalf("sum %d of %d: %v, want %v of %v", j, len(sums), g, &sums[j].sum, sums[j].size)
		}
	}
}

// TestSamePath: a regression with the CPU's exponentials over the device's scores and sums
// ends in the very vector that the CPU ends in; over the device's losses, close to it.
func TestSamePath(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(32, 2))
	const n, dim = 120, 12
	rows, positive, weight := examples(rng, n, dim)
	l, err := NewLogistic(t.Context(), d, rows, dim, positive, weight)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fit := func(scores func(z []float64, v []float32), add func(grad, alpha []float64), whole func(v []float32, bias float64, grad []float64) float64) []float64 {
		theta := make([]float64, dim+1)
		err := lbfgs.Minimise(t.Context(), theta, func(theta, grad []float64) float64 {
			v, total := make([]float32, dim), 0.0
			for j := range v {
				v[j] = float32(theta[j])
				total += 0.5 * theta[j] * theta[j]
			}
			if whole != nil {
				total += whole(v, theta[dim], grad)
			} else {
				z, alpha := make([]float64, n), make([]float64, n)
				scores(z, v)
				clear(grad)
				for i := range z {
					z, label := theta[dim]+z[i], 0.0
					y := z
					if positive[i] {
						label, y = 1, -z
					}
					total += weight[i] * (math.Max(y, 0) + math.Log1p(math.Exp(-math.Abs(y))))
					alpha[i] = weight[i] * (1/(1+math.Exp(-z)) - label)
					grad[dim] += alpha[i]
				}
				add(grad[:dim], alpha)
			}
			for j := range v {
				grad[j] += theta[j]
			}
			return total
		})
		if err != nil {
			t.Fatal(err)
		}
		return theta
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := fit(func(z []float64, v []float32) { simd.DotRows64(z, rows, dim, every(n), v) },
		func(grad, alpha []float64) { simd.AddRows64(grad, rows, dim, every(n), alpha) }, nil)
	bits(t, "parameter", fit(func(z []float64, v []float32) { must(l.Scores(t.Context(), z, v)) },
		func(grad, alpha []float64) { must(l.Weighted(t.Context(), grad, alpha)) }, nil), want)
	length := 0.0
	for j, x := range fit(nil, nil, func(v []float32, bias float64, grad []float64) float64 {
		loss, err := l.Loss(t.Context(), v, bias, nil, grad, nil)
		must(err)
		return loss
	}) {
		length += want[j] * want[j]
		if math.Abs(x-want[j]) > 1e-3 {
			t.Errorf("parameter %d: %v, want about %v", j, x, want[j])
		}
	}
	if length < 0.01 {
		t.Errorf("the regression went nowhere: %v", want)
	}
}

func TestLogisticRefused(t *testing.T) {
	d := cudatest.Open(t)
	ended, end := context.WithCancel(t.Context())
	end()
	make1 := func(ctx context.Context, rows []float32, dim int, positive []bool, weight []float64) error {
		_, err := NewLogistic(ctx, d, rows, dim, positive, weight)
		return err
	}
	l, err := NewLogistic(t.Context(), d, make([]float32, 6), 2, make([]bool, 3), make([]float64, 3))
	if err != nil {
		t.Fatal(err)
	}
	loss := func(v []float32, rest, grad, slopes []float64) error {
		_, err := l.Loss(t.Context(), v, 0, rest, grad, slopes)
		return err
	}
	two, three := make([]float32, 2), make([]float64, 3)
	for what, err := range map[string]error{
		"no rows":            make1(t.Context(), nil, 2, nil, nil),
		"no dimension":       make1(t.Context(), nil, 0, make([]bool, 1), make([]float64, 1)),
		"a row too few":      make1(t.Context(), make([]float32, 4), 2, make([]bool, 3), three),
		"half a row":         make1(t.Context(), make([]float32, 7), 2, make([]bool, 3), three),
		"a weight too few":   make1(t.Context(), make([]float32, 6), 2, make([]bool, 3), three[:2]),
		"a weight below 0":   make1(t.Context(), make([]float32, 6), 2, make([]bool, 3), []float64{1, 1, -1}),
		"a weight of NaN":    make1(t.Context(), make([]float32, 6), 2, make([]bool, 3), []float64{1, math.NaN(), 1}),
		"an infinite number": make1(t.Context(), []float32{1, float32(math.Inf(1))}, 2, make([]bool, 1), three[:1]),
		"cancelled":          make1(ended, make([]float32, 6), 2, make([]bool, 3), three),
		"a short vector":     loss(two[:1], nil, three, nil),
		"no vector":          loss(nil, nil, three, nil),
		"a short rest":       loss(two, three[:2], three, nil),
		"a short gradient":   loss(two, nil, three[:2], nil),
		"short slopes":       loss(two, nil, three, three[:2]),
		"few scores":         l.Scores(t.Context(), three[:2], two),
		"scores of none":     l.Scores(t.Context(), three, nil),
		"few weights":        l.Weighted(t.Context(), three[:2], three[:2]),
		"a long sum":         l.Weighted(t.Context(), three, three),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{loss(two, nil, three, nil), l.Scores(t.Context(), three, two), l.Weighted(t.Context(), three[:2], three)} {
		if !errors.Is(err, cuda.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if n := d.Metrics().Allocated; n != 0 {
		t.Errorf("%d bytes are left on the device", n)
	}
}
