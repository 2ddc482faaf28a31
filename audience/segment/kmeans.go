package segment

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/kindred-search/kindred/internal/simd"
)

// matrix is points, row by row.
type matrix struct {
	data       []float32
	rows, cols int
}

func (m *matrix) row(i int) []float32 { return m.data[i*m.cols : (i+1)*m.cols] }

// head is the first n points; part the points from a to b.
func (m *matrix) head(n int) *matrix { return m.part(0, min(n, m.rows)) }

func (m *matrix) part(a, b int) *matrix {
	return &matrix{m.data[a*m.cols : b*m.cols], b - a, m.cols}
}

// center is the mean of the points.
func (m *matrix) center() []float32 {
	out := make([]float32, m.cols)
	for j, x := range means(m.data, m.rows, m.cols) {
		out[j] = float32(x)
	}
	return out
}

// fit is k-means. Each start is greedy k-means++ (Arthur and Vassilvitskii, SODA
// 2007), from which centres move until hardly anything is gained (Lloyd, 1982). The
// best (the least sum of squared distances, the first of equals) is mended of what
// such a descent leaves: two centres in one group and one for two groups. When ctx
// ends the centres are worthless.
func fit(ctx context.Context, m *matrix, k int, seed uint64, starts, steps int) [][]float32 {
	norms := m.norms()
	var centers [][]float32
	loss := math.Inf(1)
	for start := range starts {
		if ctx.Err() != nil && centers != nil {
			break
		}
		try := spread(m, k, norms, rngOf(seed, uint64(k), uint64(start)))
		if l := descend(ctx, m, try, norms, steps); l < loss {
			centers, loss = try, l
		}
	}
	for range mends {
		if ctx.Err() != nil {
			break
		}
		try := mend(m, centers, norms)
		if try == nil {
			break
		}
		l := descend(ctx, m, try, norms, mendSteps)
		if l >= loss*(1-1e-5) {
			break
		}
		centers, loss = try, l
	}
	return centers
}

// each runs do for 0..n-1 on all cores.
func each(n int, do func(int)) {
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	wg.Wait()
}

// descend moves centres in place until hardly anything is gained. An empty cluster
// takes the point that is farthest from its centre.
func descend(ctx context.Context, m *matrix, centers [][]float32, norms []float64, steps int) float64 {
	last := math.Inf(1)
	for range steps {
		if ctx.Err() != nil {
			break
		}
		of, dist, _ := assign(m, centers, norms)
		loss := 0.0
		for _, d := range dist {
			loss += d
		}
		if last-loss <= 1e-5*loss {
			return loss
		}
		last = loss
		move(m, centers, of, dist)
	}
	_, dist, _ := assign(m, centers, norms)
	loss := 0.0
	for _, d := range dist {
		loss += d
	}
	return loss
}

func move(m *matrix, centers [][]float32, of []int, dist []float64) {
	k := len(centers)
	sums, count := make([]float64, k*m.cols), make([]int, k)
	for i, c := range of {
		count[c]++
		sum := sums[c*m.cols : (c+1)*m.cols]
		for j, x := range m.row(i) {
			sum[j] += float64(x)
		}
	}
	for c := range centers {
		if count[c] == 0 {
			far := 0
			for i := range dist {
				if dist[i] > dist[far] {
					far = i
				}
			}
			dist[far] = 0
			centers[c] = slices.Clone(m.row(far))
			continue
		}
		for j := range centers[c] {
			centers[c][j] = float32(sums[c*m.cols+j] / float64(count[c]))
		}
	}
}

// norms returns the points' squared lengths.
func (m *matrix) norms() []float64 {
	out := make([]float64, m.rows)
	for i := range out {
		out[i] = float64(simd.Dot(m.row(i), m.row(i)))
	}
	return out
}

// assign returns each point's nearest centre, the first of equals, its squared
// distance and that to the next (infinite for a single centre).
func assign(m *matrix, centers [][]float32, norms []float64) (of []int, dist, next []float64) {
	k := len(centers)
	flat, half := make([]float32, 0, k*m.cols), make([]float32, k)
	for c, v := range centers {
		flat = append(flat, v...)
		half[c] = -0.5 * simd.Dot(v, v)
	}
	b := simd.PackB(flat, m.cols, k, true)
	const block = 1024
	out := make([]float32, min(block, m.rows)*k)
	of, dist, next = make([]int, m.rows), make([]float64, m.rows), make([]float64, m.rows)
	for from := 0; from < m.rows; from += block {
		to := min(from+block, m.rows)
		simd.MatMul(simd.Dense(out, to-from, k), simd.Dense(m.data[from*m.cols:to*m.cols], to-from, m.cols), b, simd.Epilogue{Bias: half})
		for i := from; i < to; i++ {
			best, second := 0, math.Inf(-1)
			row := out[(i-from)*k : (i-from+1)*k]
			for c, s := range row[1:] {
				if s > row[best] {
					best, second = c+1, float64(row[best])
				} else {
					second = math.Max(second, float64(s))
				}
			}
			of[i] = best
			dist[i] = math.Max(0, norms[i]-2*float64(row[best]))
			next[i] = math.Max(dist[i], norms[i]-2*second)
		}
	}
	return of, dist, next
}

// spread draws k starting centres one after the other. Each is the best of a few
// points drawn with a chance in proportion to their squared distance from the
// centres before: that which leaves the least of it (greedy k-means++).
func spread(m *matrix, k int, norms []float64, rng *rand.Rand) [][]float32 {
	trials := 2 + int(math.Log(float64(k)))
	far, least, tried := make([]float64, m.rows), make([]float64, m.rows), make([]float64, m.rows)
	for i := range far {
		far[i] = math.Inf(1)
	}
	// near fills dst with how far each point is from point at or from the centres,
	// and returns the sum.
	near := func(dst []float64, at int) float64 {
		v, sum := m.row(at), 0.0
		for i := range dst {
			d := math.Max(0, norms[i]+norms[at]-2*float64(simd.Dot(m.row(i), v)))
			dst[i] = math.Min(far[i], d)
			sum += dst[i]
		}
		return sum
	}
	at := rng.IntN(m.rows)
	total := near(least, at)
	centers := make([][]float32, 0, k)
	for {
		centers = append(centers, slices.Clone(m.row(at)))
		if len(centers) == k {
			return centers
		}
		far, least = least, far
		from, best := total, math.Inf(1)
		for range trials {
			try := drawn(far, rng.Float64()*from)
			if sum := near(tried, try); sum < best {
				at, best = try, sum
				least, tried = tried, least
			}
		}
		total = best
	}
}

// drawn returns the point at which the distances add up to more than a number.
func drawn(far []float64, left float64) int {
	for i, d := range far {
		if left -= d; left < 0 {
			return i
		}
	}
	return len(far) - 1
}
