package audience

import (
	"math"

	"github.com/kindred-search/kindred/index"
)

// basis says how a column's parameters become its table.
type basis struct {
	kind  basisKind
	bins  int
	width float64   // of steps and sets: keeps their priors as wide as a category's
	place []float64 // of lines: each bin's place, mean 0 and variance 1 over everyone
}

type basisKind int

const (
	// each bin has its own parameter: categories and sets.
	each basisKind = iota
	// steps from bin to bin, so that a penalty asks for smooth curves; bin 0
	// (missing) has its own.
	steps
	// line is one slope over the bins' places, and a parameter for missing.
	line
)

func newBasis(b *index.Bins, share []float64, lines bool) basis {
	out := basis{kind: each, bins: b.Count(), width: 1}
	switch {
	case b.Kind == index.Set:
		// An element of a set of n counts one over the root of n. A customer with as
		// many as most have is to be told by an element as by a category.
		out.width = math.Sqrt(math.Max(1, setSize(share)))
	case !b.Kind.Numeric():
	case lines:
		out.kind, out.place = line, places(share)
	default:
		out.kind, out.width = steps, 3/math.Sqrt(float64(out.bins))
	}
	return out
}

// setSize is the mean number of elements, from the share of customers with each.
func setSize(share []float64) float64 {
	sum := 0.0
	for _, p := range share[1:] {
		sum += p
	}
	return sum
}

// places are normal scores: the standard normal's quantile at the middle of each
// bin's share. Money and counts are skewed; their ranks are not.
func places(share []float64) []float64 {
	out := make([]float64, len(share))
	total := 0.0
	for _, p := range share[1:] {
		total += p
	}
	below, mean, square := 0.0, 0.0, 0.0
	for j := 1; j < len(share); j++ {
		out[j] = math.Sqrt2 * math.Erfinv(2*(below+share[j]/2)/total-1)
		below += share[j]
		mean += share[j] / total * out[j]
		square += share[j] / total * out[j] * out[j]
	}
	sd := math.Sqrt(math.Max(square-mean*mean, 1e-12))
	for j := 1; j < len(out); j++ {
		out[j] = (out[j] - mean) / sd
	}
	return out
}

func (b *basis) params() int {
	if b.kind == line {
		return 2
	}
	return b.bins
}

// table fills the column's table from its parameters.
func (b *basis) table(theta []float64, out []float32) {
	switch b.kind {
	case steps:
		out[0] = float32(theta[0])
		sum := 0.0
		for j := 1; j < b.bins; j++ {
			sum += b.width * theta[j]
			out[j] = float32(sum)
		}
	case line:
		out[0] = float32(theta[0])
		for j := 1; j < b.bins; j++ {
			out[j] = float32(theta[1] * b.place[j])
		}
	default:
		for j := range out {
			out[j] = float32(b.width * theta[j])
		}
	}
}

// gradient turns the gradient by bin into that by parameter.
func (b *basis) gradient(byBin, out []float64) {
	switch b.kind {
	case steps:
		out[0] = byBin[0]
		sum := 0.0
		for j := b.bins - 1; j >= 1; j-- {
			sum += byBin[j]
			out[j] = b.width * sum
		}
	case line:
		out[0], out[1] = byBin[0], 0
		for j := 1; j < b.bins; j++ {
			out[1] += byBin[j] * b.place[j]
		}
	default:
		for j := range byBin {
			out[j] = b.width * byBin[j]
		}
	}
}
