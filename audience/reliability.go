package audience

import (
	"math"
	"slices"
)

// Reliability sets the estimated probabilities against held-out seeds: a probability
// is reliable where as many of the seeds' kind are found as it says. Each fold's
// seeds and background get probabilities from a calibration on the other folds.
//
// Whether somebody who is no seed is of the kind is not known, so the observed share
// is the held-out seeds' density over everyone's, times Prevalence. Bins, Brier and
// Error therefore test the probabilities' shape; their level stands and falls with
// Prevalence.
type Reliability struct {
	Bins  []ReliabilityBin `json:"bins"` // ascending
	Brier float64          `json:"brier"`
	// Climate is the Brier score of giving everyone the prevalence.
	Climate float64 `json:"brier_of_prevalence"`
	// Error is the expected calibration error: the distance of observed from predicted,
	// averaged over customers.
	Error      float64 `json:"expected_calibration_error"`
	Prevalence float64 `json:"prevalence"` // share of everyone who is of the kind
	Known      bool    `json:"prevalence_known"`
}

// ReliabilityBin is the customers with a probability from Low up to High.
type ReliabilityBin struct {
	Low       float64  `json:"low"`
	High      float64  `json:"high"`
	Predicted float64  `json:"predicted"` // mean probability
	Observed  Interval `json:"observed"`
	Customers int      `json:"customers"` // of the background
	Seeds     int      `json:"seeds"`     // held out
}

const mostReliabilityBins = 10

// reliability predicts each fold from the others and compares.
func (h *heldScores) reliability() Reliability {
	var pos, neg []float64
	for fold := range h.pos {
		others := func(of [][]float64) []float64 {
			return slices.Concat(slices.Concat(of[:fold]...), slices.Concat(of[fold+1:]...))
		}
		r := h.fit(ones(others(h.pos)), grouped(others(h.neg)))
		for _, z := range h.pos[fold] {
			pos = append(pos, r.probability(z))
		}
		for _, z := range h.neg[fold] {
			neg = append(neg, r.probability(z))
		}
	}
	return reliabilityOf(pos, neg, h.prevalence)
}

// reliabilityOf bins the probabilities of held-out seeds and of everyone. The bins
// hold about equal shares of an even mixture of both, and at least ten seeds on
// average.
func reliabilityOf(pos, neg []float64, known float64) Reliability {
	slices.Sort(pos)
	slices.Sort(neg)
	out := Reliability{Prevalence: known, Known: known > 0, Bins: []ReliabilityBin{}}
	var square, ofSeeds float64
	mean := 0.0
	for _, p := range neg {
		mean += p / float64(len(neg))
		square += p * p / float64(len(neg))
	}
	for _, p := range pos {
		ofSeeds += p / float64(len(pos))
	}
	if !out.Known {
		out.Prevalence = mean
	}
	pi := out.Prevalence
	// E (p-y)^2 over everyone, of which only the seeds' y is known (du Plessis and
	// others, NeurIPS 2014): E p^2 - 2 pi E[p | kind] + pi.
	out.Brier = square - 2*pi*ofSeeds + pi
	out.Climate = pi * (1 - pi)
	n := min(mostReliabilityBins, max(2, len(pos)/10))
	mixture := make([]weighted, 0, len(pos)+len(neg))
	for _, p := range pos {
		mixture = append(mixture, weighted{p, 0.5 / float64(len(pos))})
	}
	for _, p := range neg {
		mixture = append(mixture, weighted{p, 0.5 / float64(len(neg))})
	}
	slices.SortFunc(mixture, func(a, b weighted) int {
		switch {
		case a.z < b.z:
			return -1
		case a.z > b.z:
			return 1
		}
		return 0
	})
	edges, sum := []float64{0}, 0.0
	for _, w := range mixture {
		sum += w.n
		if sum >= float64(len(edges))/float64(n) && len(edges) < n && w.z > edges[len(edges)-1] {
			edges = append(edges, w.z)
		}
	}
	edges = append(edges, math.Nextafter(1, 2))
	below := func(of []float64, p float64) int {
		i, _ := slices.BinarySearch(of, p)
		return i
	}
	for i := 1; i < len(edges); i++ {
		from, to := below(neg, edges[i-1]), below(neg, edges[i])
		k := below(pos, edges[i]) - below(pos, edges[i-1])
		if to == from {
			continue // nobody to compare with
		}
		b := ReliabilityBin{Low: edges[i-1], High: math.Min(edges[i], 1), Customers: to - from, Seeds: k}
		for _, p := range neg[from:to] {
			b.Predicted += p / float64(to-from)
		}
		share := wilson(float64(k), len(pos), otherSeedsShare(float64(k)/float64(len(pos))))
		scale := pi * float64(len(neg)) / float64(to-from)
		b.Observed = Interval{Value: math.Min(1, scale*share.Value), Low: math.Min(1, scale*share.Low), High: math.Min(1, scale*share.High)}
		out.Error += math.Abs(scale*share.Value-b.Predicted) * float64(to-from) / float64(len(neg))
		out.Bins = append(out.Bins, b)
	}
	return out
}
