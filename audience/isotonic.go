package audience

import (
	"cmp"
	"math"
	"slices"
)

// Knot is a point of a curve that rises from knot to knot along straight lines and is
// level beyond the first and the last.
type Knot struct {
	Evidence    float64 `json:"evidence"`
	Probability float64 `json:"probability"`
}

// HeldOut is the mean log-likelihood of an outcome by curves that were fitted without
// it, nearer to 0 the better.
type HeldOut struct {
	Logistic float64 `json:"logistic"`
	Isotonic float64 `json:"isotonic"`
}

// leastIsotonic is how many of either outcome it takes before a free curve is tried:
// with fewer it follows their luck.
const leastIsotonic = 100

// isotonicFolds are what the two forms are compared on.
const isotonicFolds = 5

// isotonic is the least-squares fit of hits on x that never falls, by pooling adjacent
// violators (Ayer and others, Annals of Mathematical Statistics 1955): of each pool its
// first and last x, ascending. Equal x are one.
func isotonic(x []float64, hit []bool) []Knot {
	order := span(0, len(x))
	slices.SortFunc(order, func(i, j int) int { return cmp.Or(cmp.Compare(x[i], x[j]), cmp.Compare(i, j)) })
	type pool struct{ low, high, hits, n float64 }
	var pools []pool
	for at := 0; at < len(order); {
		p := pool{low: x[order[at]], high: x[order[at]]}
		for ; at < len(order) && x[order[at]] == p.low; at++ {
			p.n++
			if hit[order[at]] {
				p.hits++
			}
		}
		// Shares as products, so that equal ones are equal.
		for k := len(pools) - 1; k >= 0 && pools[k].hits*p.n >= p.hits*pools[k].n; k-- {
			p = pool{pools[k].low, p.high, p.hits + pools[k].hits, p.n + pools[k].n}
			pools = pools[:k]
		}
		pools = append(pools, p)
	}
	var out []Knot
	for _, p := range pools {
		out = append(out, Knot{p.low, p.hits / p.n})
		if p.high > p.low {
			out = append(out, Knot{p.high, p.hits / p.n})
		}
	}
	return out
}

// alongKnots reads a curve.
func alongKnots(curve []Knot, x float64) float64 {
	i, _ := slices.BinarySearchFunc(curve, x, func(k Knot, x float64) int { return cmp.Compare(k.Evidence, x) })
	switch {
	case i == 0:
		return curve[0].Probability
	case i == len(curve):
		return curve[i-1].Probability
	}
	a, b := curve[i-1], curve[i]
	return a.Probability + (b.Probability-a.Probability)*(x-a.Evidence)/(b.Evidence-a.Evidence)
}

// within keeps a curve's probabilities away from 0 and 1 as far as Platt's targets are:
// of so many outcomes none is certain.
func within(curve []Knot, outcomes int) []Knot {
	least := 1 / float64(outcomes+2)
	for i := range curve {
		curve[i].Probability = math.Min(math.Max(curve[i].Probability, least), 1-least)
	}
	return curve
}

// better compares both forms on outcomes that they were fitted without, and says whether
// the isotonic one is ahead by more than the standard error of the difference.
func better(evidence []float64, converted []bool) (HeldOut, bool) {
	n := float64(len(evidence))
	var out HeldOut
	sum, square := 0.0, 0.0
	for fold := range isotonicFolds {
		var x []float64
		var hit []bool
		hits := 0
		for i := range evidence {
			if i%isotonicFolds != fold {
				x, hit = append(x, evidence[i]), append(hit, converted[i])
				if converted[i] {
					hits++
				}
			}
		}
		line, curve := logisticOf(x, hit, hits), within(isotonic(x, hit), len(x))
		for i := fold; i < len(evidence); i += isotonicFolds {
			l, c := likelihood(line.Probability(evidence[i]), converted[i]), likelihood(alongKnots(curve, evidence[i]), converted[i])
			out.Logistic, out.Isotonic = out.Logistic+l/n, out.Isotonic+c/n
			sum, square = sum+(c-l), square+(c-l)*(c-l)
		}
	}
	mean := sum / n
	return out, mean > math.Sqrt(math.Max(0, square/n-mean*mean)/n)
}

// likelihood is the logarithm of the probability of what came.
func likelihood(p float64, hit bool) float64 {
	if !hit {
		p = 1 - p
	}
	return math.Log(math.Max(p, 1e-300))
}
