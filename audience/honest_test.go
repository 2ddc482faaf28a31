package audience

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Of many random seed lists, no more are called a signal than intervals of 95 % allow;
// and of as many lists of the kind, nearly all are.
func TestVerdictOverManyLists(t *testing.T) {
	if testing.Short() {
		t.Skip("two hundred audiences")
	}
	w := newWorld(t, worldOptions{n: 1500, dim: 8, columns: true})
	const lists, seeds = 100, 60
	for _, method := range []string{Centroid, Auto} {
		n := lists
		if method == Auto {
			n = 5 // each fits fifteen models for every pair of folds
		}
		random, real := 0, 0
		for d := range n {
			rng := rand.New(rand.NewPCG(uint64(d), 77))
			var chance, kind []string
			for _, i := range rng.Perm(1500)[:seeds] {
				chance = append(chance, idOf(i))
			}
			for _, i := range rng.Perm(len(w.kind))[:seeds] {
				kind = append(kind, w.kind[i])
			}
			for list, count1 := range map[*[]string]*int{&chance: &random, &kind: &real} {
				res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(*list)}, Size: count(100), Method: method, Seed: uint64(d)})
				if res.Quality.Verdict == Signal {
					*count1++
				}
			}
		}
		t.Logf("%s: a signal in %d of %d random lists, in %d of %d of the kind", method, random, n, real, n)
		if limit := 0.025*float64(n) + 3*math.Sqrt(0.025*float64(n)); float64(random) > limit {
			t.Errorf("%s: %d of %d random lists are called a signal, want at most %.0f", method, random, n, limit)
		}
		if real < n*9/10 {
			t.Errorf("%s: %d of %d lists of the kind are called a signal", method, real, n)
		}
	}
}

// The sheet's AUC, which only seeds tell, against the AUC of the finished model on the
// rest of the kind, which the test knows: over many lists they agree on average. The
// sheet's models have learned from four fifths of the seeds, so it may be a little low.
func TestSheetAgreesWithTheTruth(t *testing.T) {
	if testing.Short() {
		t.Skip("sixteen audiences, each compared by auto")
	}
	w := newWorld(t, worldOptions{n: 1500, dim: 8, columns: true})
	for _, seeds := range []int{40, 120} {
		const lists = 8
		sum, square := 0.0, 0.0
		for d := range lists {
			rng := rand.New(rand.NewPCG(uint64(d), uint64(seeds)))
			var list []string
			for _, i := range rng.Perm(len(w.kind))[:seeds] {
				list = append(list, w.kind[i])
			}
			res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(list)}, Size: count(100), Seed: uint64(d)})
			// auc is of the kind less the seeds against all others; against everyone but
			// the seeds, as the sheet has it, the kind against itself is a half.
			left := float64(len(w.kind)-seeds) / float64(1500-seeds)
			everyone := (1-left)*w.auc(t, res, list) + left/2
			off := res.Quality.Measure.AUC.Value - everyone
			sum += off / lists
			square += off * off / lists
		}
		sd := math.Sqrt(square - sum*sum)
		t.Logf("%d seeds: the sheet is off by %+.4f on average, %.4f from list to list", seeds, sum, sd)
		if math.Abs(sum) > 0.01+2*sd/math.Sqrt(lists) {
			t.Errorf("%d seeds: the sheet's AUC is off by %+.4f on average (%.4f from list to list)", seeds, sum, sd)
		}
	}
}

// A handful of seeds, where the least number is lowered so far, must not be called a
// signal by luck: their places are too few for a bootstrap to know how far they spread.
func TestVerdictOfAHandful(t *testing.T) {
	w := newWorld(t, worldOptions{n: 300, dim: 8, columns: true})
	w.pop.Limits.MinSeeds = 1
	const lists = 20
	for _, seeds := range []int{1, 2, 6} {
		signals := 0
		for d := range lists {
			rng := rand.New(rand.NewPCG(uint64(d), 78))
			var list []string
			for _, i := range rng.Perm(300)[:seeds] {
				list = append(list, idOf(i))
			}
			res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(list)}, Size: count(30), Method: Centroid, Seed: uint64(d)})
			if res.Quality.Verdict == Signal {
				signals++
			}
			if a := res.Quality.Measure.AUC; a.Low > a.Value || a.High < a.Value || a.High-a.Low < 0.2 {
				t.Errorf("%d seeds: AUC %+v, which so few do not tell", seeds, a)
			}
		}
		t.Logf("%d seeds: a signal in %d of %d random lists", seeds, signals, lists)
		if limit := 0.025*lists + 2*math.Sqrt(0.025*lists); float64(signals) > limit {
			t.Errorf("%d seeds: %d of %d random lists are called a signal, want at most %.0f", seeds, signals, lists, limit)
		}
	}
}
