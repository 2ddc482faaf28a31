// Package lbfgs minimises smooth functions of many numbers: the losses of
// regressions, mostly.
package lbfgs

import (
	"context"
	"math"
)

// Minimise is L-BFGS with a backtracking line search (Nocedal and Wright,
// algorithms 7.4 and 3.1). theta is the start and the result; loss returns its
// value at theta and writes the gradient into grad. Reaching the limit of steps is
// no error: a penalty keeps the point sensible. The only error is the context's.
func Minimise(ctx context.Context, theta []float64, loss func(theta, grad []float64) float64) error {
	const (
		memory = 8
		steps  = 60
		tol    = 1e-4
	)
	n := len(theta)
	grad, next, nextGrad, dir := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var ss, ys [][]float64
	var rho []float64
	f := loss(theta, grad)
	first := norm(grad)
	for range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if norm(grad) <= tol*first || first == 0 {
			return nil
		}
		copy(dir, grad)
		alpha := make([]float64, len(ss))
		for k := len(ss) - 1; k >= 0; k-- {
			alpha[k] = rho[k] * inner(ss[k], dir)
			axpy(-alpha[k], ys[k], dir)
		}
		if k := len(ss) - 1; k >= 0 {
			scale := 1 / (rho[k] * inner(ys[k], ys[k]))
			for j := range dir {
				dir[j] *= scale
			}
		} else {
			for j := range dir {
				dir[j] /= first
			}
		}
		for k := range ss {
			axpy(alpha[k]-rho[k]*inner(ys[k], dir), ss[k], dir)
		}
		slope := -inner(grad, dir)
		if slope >= 0 {
			return nil
		}
		step, better := 1.0, false
		var fNext float64
		for range 25 {
			copy(next, theta)
			axpy(-step, dir, next)
			fNext = loss(next, nextGrad)
			if fNext <= f+1e-4*step*slope {
				better = true
				break
			}
			step /= 2
		}
		if !better {
			return nil
		}
		s, y := make([]float64, n), make([]float64, n)
		for j := range s {
			s[j] = next[j] - theta[j]
			y[j] = nextGrad[j] - grad[j]
		}
		if sy := inner(s, y); sy > 1e-12 {
			ss, ys, rho = append(ss, s), append(ys, y), append(rho, 1/sy)
			if len(ss) > memory {
				ss, ys, rho = ss[1:], ys[1:], rho[1:]
			}
		}
		done := f-fNext <= 1e-7*math.Abs(f)
		copy(theta, next)
		copy(grad, nextGrad)
		f = fNext
		if done {
			return nil
		}
	}
	return nil
}

func inner(a, b []float64) float64 {
	s := 0.0
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func norm(a []float64) float64 { return math.Sqrt(inner(a, a)) }

func axpy(alpha float64, x, y []float64) {
	for i, v := range x {
		y[i] += alpha * v
	}
}
