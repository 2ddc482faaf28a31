package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/kindred-search/kindred/cuda"
)

const (
	rowThreads = 256
	// gradientParts is into how many parts of rows a sum is cut at most, each of at least
	// partRows: more would be no faster.
	gradientParts = 64
	partRows      = 256
)

// Logistic is rows on a device, with labels. It is safe for concurrent use; calls take
// turns.
type Logistic struct {
	d      *cuda.Device
	n, dim int

	mu            sync.Mutex
	rows          *cuda.Buffer
	label, weight *cuda.Buffer
	vector, bias  *cuda.Buffer
	scores, rest  *cuda.Buffer
	terms         *cuda.Buffer // [2, n]
	parts, sum    *cuda.Buffer
}

// NewLogistic copies rows [n, dim] to a device, which stays the caller's, with whether each
// is of the class that is looked for, and its weight. All are finite.
func NewLogistic(ctx context.Context, d *cuda.Device, rows []float32, dim int, positive []bool, weight []float64) (*Logistic, error) {
	n := len(positive)
	if dim < 1 || n < 1 || len(rows)/dim != n || len(rows)%dim != 0 || len(weight) != n {
		return nil, fmt.Errorf("%d numbers of rows of dimension %d, %d labels and %d weights: want as many of each row, and at least one", len(rows), dim, n, len(weight))
	}
	if _, err := squares(rows, dim, "row"); err != nil {
		return nil, err
	}
	label := make([]float32, n)
	for i, is := range positive {
		if is {
			label[i] = 1
		}
		if math.IsNaN(weight[i]) || math.IsInf(weight[i], 0) || weight[i] < 0 {
			return nil, fmt.Errorf("row %d has weight %v: want a finite one, not below 0", i, weight[i])
		}
	}
	l := &Logistic{d: d, n: n, dim: dim}
	wants := []cuda.Want{
		{To: &l.rows, Purpose: "regression", Size: 4 * int64(len(rows))},
		{To: &l.label, Purpose: "regression", Size: 4 * int64(n)},
		{To: &l.weight, Purpose: "regression", Size: 8 * int64(n)},
		{To: &l.vector, Purpose: "regression", Size: 4 * int64(dim)},
		{To: &l.bias, Purpose: "regression", Size: 8},
		{To: &l.scores, Purpose: "regression", Size: 8 * int64(n)},
		{To: &l.rest, Purpose: "regression", Size: 8 * int64(n)},
		{To: &l.terms, Purpose: "regression", Size: 16 * int64(n)},
		{To: &l.parts, Purpose: "regression", Size: 8 * gradientParts * int64(dim+2)},
		{To: &l.sum, Purpose: "regression", Size: 8 * int64(dim+2)},
	}
	if err := d.AllocAll(wants...); err != nil {
		return nil, err
	}
	err := d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(cuda.Upload(q, l.rows, 0, rows), cuda.Upload(q, l.label, 0, label), cuda.Upload(q, l.weight, 0, weight))
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close frees what is held on the device. It may be called again.
func (l *Logistic) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []error
	for _, b := range []**cuda.Buffer{&l.rows, &l.label, &l.weight, &l.vector, &l.bias, &l.scores, &l.rest, &l.terms, &l.parts, &l.sum} {
		all = append(all, (*b).Free())
		*b = nil
	}
	return errors.Join(all...)
}

func (l *Logistic) ready(vector []float32) error {
	if l.rows == nil {
		return cuda.ErrClosed
	}
	if vector != nil && len(vector) != l.dim {
		return fmt.Errorf("a vector of %d numbers, rows have %d", len(vector), l.dim)
	}
	return nil
}

// Scores writes each row's product with vector [dim] to dst [n], with the bits of
// simd.DotRows64.
func (l *Logistic) Scores(ctx context.Context, dst []float64, vector []float32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(vector); err != nil {
		return err
	}
	if len(dst) != l.n || len(vector) != l.dim {
		return fmt.Errorf("%d scores under a vector of %d numbers, there are %d rows of %d", len(dst), len(vector), l.n, l.dim)
	}
	return l.d.Do(ctx, func(q *cuda.Queue) error {
		if err := l.score(q, vector); err != nil {
			return err
		}
		return cuda.Download(q, dst, l.scores, 0)
	})
}

func (l *Logistic) score(q *cuda.Queue, vector []float32) error {
	if err := cuda.Upload(q, l.vector, 0, vector); err != nil {
		return err
	}
	return q.Launch("row_scores", cuda.Launch{Grid: l.d.Blocks(int64(l.n), rowThreads/4), Block: [3]int{rowThreads}},
		cuda.At(l.rows, 0), cuda.At(l.vector, 0), cuda.At(l.scores, 0), cuda.I64(int64(l.n)), cuda.I32(l.dim))
}

// Weighted writes the sum of the rows, each times its alpha [n], to dst [dim], with the
// bits of simd.AddRows64 on zeros: row by row.
func (l *Logistic) Weighted(ctx context.Context, dst []float64, alpha []float64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(nil); err != nil {
		return err
	}
	if len(dst) != l.dim || len(alpha) != l.n {
		return fmt.Errorf("the sum to %d numbers by %d weights, there are %d rows of %d", len(dst), len(alpha), l.n, l.dim)
	}
	return l.d.Do(ctx, func(q *cuda.Queue) error {
		if err := cuda.Upload(q, l.terms, 0, alpha); err != nil {
			return err
		}
		// Blocks of one warp: each has a processor's bandwidth for its numbers.
		if err := l.add(q, 1, 32, false); err != nil {
			return err
		}
		return cuda.Download(q, dst, l.sum, 0)
	})
}

// add orders the sums of terms times rows.
func (l *Logistic) add(q *cuda.Queue, parts, threads int, losses bool) error {
	has := 0
	if losses {
		has = 1
	}
	err := q.Launch("logistic_gradient", cuda.Launch{Grid: [3]int{(l.dim + 2 + threads - 1) / threads, parts}, Block: [3]int{threads}},
		cuda.At(l.rows, 0), cuda.At(l.terms, 0), cuda.At(l.parts, 0), cuda.I64(int64(l.n)), cuda.I32(l.dim), cuda.I32(has))
	if err != nil {
		return err
	}
	return q.Launch("add_parts", cuda.Launch{Grid: [3]int{(l.dim + 2 + rowThreads - 1) / rowThreads}, Block: [3]int{rowThreads}},
		cuda.At(l.parts, 0), cuda.At(l.sum, 0), cuda.I32(parts), cuda.I32(l.dim+2))
}

// Loss returns the sum of the rows' weighted logistic losses under vector [dim], and
// writes its gradient, by the vector's numbers and by bias, to grad [dim+1]. A row's score is
// bias + row·vector + rest of it, [n] or nil for none. Each row's derivative by its score
// is written to slopes, [n] or nil.
//
// Scores are as of [Logistic.Scores]. A derivative and a loss are off by at most 4 units in
// the last place of fp64 beside what exp and log1p are; a sum of terms t by (n+64) 2^-53 Σ|t|.
func (l *Logistic) Loss(ctx context.Context, vector []float32, bias float64, rest, grad, slopes []float64) (float64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(vector); err != nil {
		return 0, err
	}
	if len(vector) != l.dim || rest != nil && len(rest) != l.n || len(grad) != l.dim+1 || slopes != nil && len(slopes) != l.n {
		return 0, fmt.Errorf("loss under a vector of %d numbers with %d rests to a gradient of %d and %d slopes: there are %d rows of %d", len(vector), len(rest), len(grad), len(slopes), l.n, l.dim)
	}
	sum := make([]float64, l.dim+2)
	err := l.d.Do(ctx, func(q *cuda.Queue) error {
		if err := errors.Join(l.score(q, vector), cuda.Upload(q, l.bias, 0, []float64{bias}), cuda.Upload(q, l.rest, 0, rest)); err != nil {
			return err
		}
		restAt := cuda.Null()
		if rest != nil {
			restAt = cuda.At(l.rest, 0)
		}
		err := q.Launch("logistic_rows", cuda.Launch{Grid: l.d.Blocks(int64(l.n), rowThreads), Block: [3]int{rowThreads}},
			cuda.At(l.scores, 0), cuda.At(l.bias, 0), restAt, cuda.At(l.label, 0), cuda.At(l.weight, 0), cuda.At(l.terms, 0), cuda.I64(int64(l.n)))
		if err != nil {
			return err
		}
		parts := max(1, min(gradientParts, l.n/partRows))
		if err := l.add(q, parts, 128, true); err != nil {
			return err
		}
		return errors.Join(cuda.Download(q, sum, l.sum, 0), cuda.Download(q, slopes, l.terms, 0))
	})
	if err != nil {
		return 0, err
	}
	copy(grad, sum[:l.dim+1])
	return sum[l.dim+1], nil
}
