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
	nearThreads = 256
	nearRows    = 128 // of a tile
	sumThreads  = 64
	// centresMost is the second dimension of a grid.
	centresMost = 65535
)

// KMeans is points on a device, and which centre each is assigned to. It is safe for
// concurrent use; calls take turns.
type KMeans struct {
	d            *cuda.Device
	n, dim, most int
	norms        []float64 // of points: squared lengths

	mu       sync.Mutex
	centres  int // of the last assignment; 0: none yet
	points   *cuda.Buffer
	of, high *cuda.Buffer
	order    *cuda.Buffer
	near     *cuda.Buffer // centres, then -|c|²/2
	counts   *cuda.Buffer // [most] and how many moved
	sums     *cuda.Buffer
}

// NewKMeans copies points [n, dim], finite, to a device, which stays the caller's, with
// memory for at most so many centres.
func NewKMeans(ctx context.Context, d *cuda.Device, points []float32, dim, most int) (*KMeans, error) {
	if dim < 1 || len(points) == 0 || len(points)%dim != 0 || len(points)/dim > math.MaxInt32 {
		return nil, fmt.Errorf("%d numbers of points of dimension %d: want whole points, 1 to %d", len(points), dim, math.MaxInt32)
	}
	if most < 1 || most > centresMost {
		return nil, fmt.Errorf("up to %d centres: want 1 to %d", most, centresMost)
	}
	k := &KMeans{d: d, n: len(points) / dim, dim: dim, most: most}
	var err error
	if k.norms, err = squares(points, dim, "point"); err != nil {
		return nil, err
	}
	n, m, w := int64(k.n), int64(most), int64(dim)
	err = d.AllocAll(
		cuda.Want{To: &k.points, Purpose: "points", Size: 4 * n * w},
		cuda.Want{To: &k.of, Purpose: "assignments", Size: 4 * n}, cuda.Want{To: &k.high, Purpose: "assignments", Size: 8 * n}, cuda.Want{To: &k.order, Purpose: "assignments", Size: 4 * n},
		cuda.Want{To: &k.near, Purpose: "centres", Size: 4 * m * (w + 1)}, cuda.Want{To: &k.counts, Purpose: "centres", Size: 4 * (m + 1)}, cuda.Want{To: &k.sums, Purpose: "centres", Size: 8 * m * w},
	)
	if err != nil {
		return nil, err
	}
	unassigned := make([]int32, k.n)
	for i := range unassigned {
		unassigned[i] = -1
	}
	err = d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(cuda.Upload(q, k.points, 0, points), cuda.Upload(q, k.of, 0, unassigned))
	})
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// squares are the squared lengths of rows, which must be finite.
func squares(rows []float32, dim int, what string) ([]float64, error) {
	out := make([]float64, len(rows)/dim)
	for i := range out {
		for _, x := range rows[i*dim : (i+1)*dim] {
			out[i] += float64(x) * float64(x)
		}
		if math.IsNaN(out[i]) || math.IsInf(out[i], 0) {
			return nil, fmt.Errorf("%s %d has a number that is not finite", what, i)
		}
	}
	return out, nil
}

// Close frees the device's copy. It may be called again.
func (k *KMeans) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.centres = 0
	var all []error
	for _, b := range []**cuda.Buffer{&k.points, &k.of, &k.high, &k.order, &k.near, &k.counts, &k.sums} {
		all = append(all, (*b).Free())
		*b = nil
	}
	return errors.Join(all...)
}

// Assignment says which centre each point is nearest to.
type Assignment struct {
	Of     []int32   // [n] the nearest centre, the first of equals
	Dist   []float64 // [n] squared distance to it, not below 0
	Next   []float64 // [n] to the next, not below Dist; infinite for a single centre
	Counts []uint32  // [centres] points of each
	Moved  int       // points that the assignment before gave to another, or none before
}

// Assign assigns every point to the nearest of centres, [up to most][dim]. A distance is
// |x|² - 2 (x·c - |c|²/2); the product is formed in fp32, fused, in the order of the
// numbers, which is off by at most (dim+2) 2^-24 Σ|x_j c_j| + 2^-24 |c|², and so is the
// choice among centres that are as near as that.
func (k *KMeans) Assign(ctx context.Context, centres [][]float32) (*Assignment, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	count := len(centres)
	switch {
	case k.points == nil:
		return nil, cuda.ErrClosed
	case count < 1 || count > k.most:
		return nil, fmt.Errorf("%d centres: want 1 to %d", count, k.most)
	}
	near := make([]float32, 0, count*k.dim)
	for c, v := range centres {
		if len(v) != k.dim {
			return nil, fmt.Errorf("centre %d has %d numbers, points have %d", c, len(v), k.dim)
		}
		near = append(near, v...)
	}
	lengths, err := squares(near, k.dim, "centre")
	if err != nil {
		return nil, err
	}
	for _, l := range lengths {
		near = append(near, float32(-l/2))
	}
	a := &Assignment{Of: make([]int32, k.n), Dist: make([]float64, k.n), Next: make([]float64, k.n)}
	high, counts := make([]float32, 2*k.n), make([]uint32, count+1)
	err = k.d.Do(ctx, func(q *cuda.Queue) error {
		if err := errors.Join(cuda.Upload(q, k.near, 0, near), q.Zero(k.counts, 0, 4*int64(count+1))); err != nil {
			return err
		}
		err := q.Launch("nearest", cuda.Launch{Grid: k.d.Blocks(int64(k.n), nearRows), Block: [3]int{nearThreads}},
			cuda.At(k.points, 0), cuda.At(k.near, 0), cuda.At(k.near, 4*int64(count)*int64(k.dim)), cuda.At(k.of, 0), cuda.At(k.high, 0),
			cuda.At(k.counts, 0), cuda.At(k.counts, 4*int64(count)), cuda.I64(int64(k.n)), cuda.I32(k.dim), cuda.I32(count))
		if err != nil {
			return err
		}
		return errors.Join(cuda.Download(q, a.Of, k.of, 0), cuda.Download(q, high, k.high, 0), cuda.Download(q, counts, k.counts, 0))
	})
	if err != nil {
		k.centres = 0
		return nil, err
	}
	k.centres = count
	a.Counts, a.Moved = counts[:count], int(counts[count])
	for i := range a.Of {
		a.Dist[i] = math.Max(0, k.norms[i]-2*float64(high[2*i]))
		a.Next[i] = math.Max(a.Dist[i], k.norms[i]-2*float64(high[2*i+1]))
	}
	return a, nil
}

// Sums returns the sums [centres, dim] of the points that the last assignment gave each
// centre, in fp64, added in the order of the points.
func (k *KMeans) Sums(ctx context.Context) ([]float64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.points == nil {
		return nil, cuda.ErrClosed
	}
	if k.centres == 0 {
		return nil, errors.New("sums of points that are not assigned: Assign comes first")
	}
	sums := make([]float64, k.centres*k.dim)
	err := k.d.Do(ctx, func(q *cuda.Queue) error {
		err := q.Launch("arrange", cuda.Launch{Grid: [3]int{k.centres}, Block: [3]int{32}},
			cuda.At(k.of, 0), cuda.At(k.counts, 0), cuda.At(k.order, 0), cuda.I64(int64(k.n)))
		if err != nil {
			return err
		}
		err = q.Launch("cluster_sums", cuda.Launch{Grid: [3]int{(k.dim + sumThreads - 1) / sumThreads, k.centres}, Block: [3]int{sumThreads}},
			cuda.At(k.points, 0), cuda.At(k.order, 0), cuda.At(k.counts, 0), cuda.At(k.sums, 0), cuda.I32(k.dim))
		if err != nil {
			return err
		}
		return cuda.Download(q, sums, k.sums, 0)
	})
	return sums, err
}
