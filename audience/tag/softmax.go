package tag

import (
	"context"
	"math"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/lbfgs"
	"github.com/kindred-search/kindred/internal/simd"
)

// regression is a softmax regression on deviations from mean.
type regression struct {
	labels, dim int
	mean        []float32
	theta       []float64 // weights [labels, dim], then biases
}

// train minimises the sum of -log p(label) over the examples named, and half the
// penalty times the squared weights; biases are free.
func train(ctx context.Context, e *Examples, which []int, penalty float64) (*regression, error) {
	k, d, n := len(e.Labels), e.Dim, len(which)
	r := &regression{labels: k, dim: d, mean: make([]float32, d), theta: make([]float64, k*d+k)}
	sum := make([]float64, d)
	for _, i := range which {
		for j, x := range e.X[i*d : (i+1)*d] {
			sum[j] += float64(x)
		}
	}
	for j := range sum {
		r.mean[j] = float32(sum[j] / float64(n))
	}
	x, xT := make([]float32, n*d), make([]float32, d*n)
	for at, i := range which {
		for j, v := range e.X[i*d : (i+1)*d] {
			v -= r.mean[j]
			x[at*d+j], xT[j*n+at] = v, v
		}
	}
	w, bias := make([]float32, k*d), make([]float32, k)
	p, g := make([]float32, n*k), make([]float32, d*k)
	transposed := simd.Dense(xT, d, n)
	loss := func(theta, grad []float64) float64 {
		for j := range w {
			w[j] = float32(theta[j])
		}
		for c := range bias {
			bias[c] = float32(theta[k*d+c])
		}
		simd.MatMul(simd.Dense(p, n, k), simd.Dense(x, n, d), simd.PackB(w, d, k, true), simd.Epilogue{Bias: bias})
		total := 0.0
		for j := range grad {
			grad[j] = 0
		}
		for at, i := range which {
			row, y := p[at*k:(at+1)*k], e.Y[i]
			lse := logSumExp(row)
			total += lse - float64(row[y])
			for c, s := range row {
				q := math.Exp(float64(s) - lse)
				if c == y {
					q--
				}
				row[c] = float32(q)
				grad[k*d+c] += q
			}
		}
		simd.MatMul(simd.Dense(g, d, k), transposed, simd.PackB(p, n, k, false), simd.Epilogue{})
		for c := range k {
			for j := range d {
				at := c*d + j
				grad[at] = float64(g[j*k+c]) + penalty*theta[at]
				total += 0.5 * penalty * theta[at] * theta[at]
			}
		}
		return total
	}
	return r, lbfgs.Minimise(ctx, r.theta, loss)
}

func logSumExp(row []float32) float64 {
	top := math.Inf(-1)
	for _, s := range row {
		top = math.Max(top, float64(s))
	}
	sum := 0.0
	for _, s := range row {
		sum += math.Exp(float64(s) - top)
	}
	return top + math.Log(sum)
}

// scores writes the logits of a vector into dst, [labels].
func (r *regression) scores(x []float32, dst []float32) {
	for c := range dst {
		s := r.theta[r.labels*r.dim+c]
		for j, w := range r.theta[c*r.dim : (c+1)*r.dim] {
			s += w * float64(x[j]-r.mean[j])
		}
		dst[c] = float32(s)
	}
}

// heads are the logits over a temperature, on vectors as they are stored.
func (r *regression) heads(temperature float64) []index.Head {
	out := make([]index.Head, r.labels)
	for c := range out {
		bias := r.theta[r.labels*r.dim+c]
		h := index.Head{Vector: make([]float32, r.dim)}
		for j, w := range r.theta[c*r.dim : (c+1)*r.dim] {
			h.Vector[j] = float32(w / temperature)
			bias -= w * float64(r.mean[j])
		}
		h.Bias = float32(bias / temperature)
		out[c] = h
	}
	return out
}
