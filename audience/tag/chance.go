package tag

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/kindred-search/kindred/internal/simd"
)

// permutations is how many times labels are shuffled; the least P is one in so
// many. maxPermuted bounds the examples they are shuffled on.
const (
	permutations = 1000
	maxPermuted  = 1500
)

// chance is the share of shuffled labels under which each example, held out, is as
// much nearer to the mean of its label than to that of the others as it is under
// the right ones. Unlike a count of right answers of cross-validation, whose folds
// share their mistakes, it is exact: of meaningless labels one list in twenty is
// below 0.05; and it sees signal in far fewer examples than the accuracy's
// interval does.
func chance(ctx context.Context, e *Examples, count []int) (float64, error) {
	most := max(LeastExamples, maxPermuted/len(count))
	var which, y []int
	took := make([]int, len(count))
	for i, c := range e.Y {
		if took[c] < most {
			took[c]++
			which, y = append(which, i), append(y, c)
		}
	}
	n, d := len(which), e.Dim
	// Of deviations from the mean: what all share would only add noise.
	mean := make([]float64, d)
	for _, i := range which {
		for j, x := range e.X[i*d : (i+1)*d] {
			mean[j] += float64(x) / float64(n)
		}
	}
	x := make([]float32, 0, n*d)
	for _, i := range which {
		for j, v := range e.X[i*d : (i+1)*d] {
			x = append(x, v-float32(mean[j]))
		}
	}
	norm := make([]float64, n)
	all := make([]float32, d)
	for i := range n {
		row := x[i*d : (i+1)*d]
		norm[i] = float64(simd.Dot(row, row))
		simd.Axpy(1, row, all)
	}
	total := make([]float64, n) // with all others
	for i := range n {
		total[i] = float64(simd.Dot(x[i*d:(i+1)*d], all)) - norm[i]
	}
	// Sums over a label's examples hold all that is needed of their products: the
	// products of all pairs add up to the sum's with itself, less each one's own.
	sums := make([]float32, len(count)*d)
	own, others := make([]float64, len(count)), make([]float64, len(count))
	holds := func() float64 {
		clear(sums)
		clear(own)
		clear(others)
		for i, c := range y {
			simd.Axpy(1, x[i*d:(i+1)*d], sums[c*d:(c+1)*d])
			own[c] += norm[i]
			others[c] += total[i]
		}
		value := 0.0
		for c := range count {
			sum := sums[c*d : (c+1)*d]
			same := float64(simd.Dot(sum, sum)) - own[c]
			value += same/float64(took[c]-1) - (others[c]-same)/float64(n-took[c])
		}
		return value
	}
	right := holds()
	// Equal ones are not the same to the last bit.
	slack := 1e-5*math.Abs(right) + 1e-9
	rng := rand.New(rand.NewPCG(uint64(n), uint64(d)))
	as := 1
	y = slices.Clone(y)
	for i := range permutations - 1 {
		if i%64 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		rng.Shuffle(n, func(i, j int) { y[i], y[j] = y[j], y[i] })
		if holds() >= right-slack {
			as++
		}
	}
	return float64(as) / permutations, nil
}
