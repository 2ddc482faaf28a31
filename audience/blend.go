package audience

import (
	"cmp"
	"math"
	"slices"
)

// outcomes are the bases' scores on what each fold held out, by models that had
// not seen it.
type outcomes struct {
	bases []base
	z     [][][]float64 // [base][fold][held out]: seeds first, standardised
	seeds []int         // held out in each fold
}

func newOutcomes(bases []base, folds int) *outcomes {
	o := &outcomes{bases: bases, z: make([][][]float64, len(bases)), seeds: make([]int, folds)}
	for b := range bases {
		o.z[b] = make([][]float64, folds)
	}
	return o
}

// held is a weighted sum of the bases' scores on what a fold held out, seeds first.
func (o *outcomes) held(w []float64, fold int) []float64 {
	var sum []float64
	for b := range o.bases {
		if w[b] == 0 {
			continue
		}
		if sum == nil {
			sum = make([]float64, len(o.z[b][fold]))
		}
		for i, z := range o.z[b][fold] {
			sum[i] += w[b] * z
		}
	}
	return sum
}

// heldOut is how many seeds some folds held out.
func (o *outcomes) heldOut(folds []int) int {
	n := 0
	for _, fold := range folds {
		n += o.seeds[fold]
	}
	return n
}

// mix is the AUC of a weighted sum of bases, the mean over folds weighted by
// held-out seeds.
func (o *outcomes) mix(w []float64, folds []int) float64 {
	total, n := 0.0, 0.0
	for _, fold := range folds {
		sum := o.held(w, fold)
		k := o.seeds[fold]
		if k == 0 || k == len(sum) {
			continue
		}
		total += float64(k) * aucOf(sum[:k], sum[k:])
		n += float64(k)
	}
	if n == 0 {
		return 0.5
	}
	return total / n
}

// aucOf is the share of pairs in which the positive is ahead, ties half.
func aucOf(pos, neg []float64) float64 {
	sorted := slices.Clone(neg)
	slices.Sort(sorted)
	sum := 0.0
	for _, p := range pos {
		lo, _ := slices.BinarySearch(sorted, p)
		hi, _ := slices.BinarySearchFunc(sorted, p, func(e, t float64) int {
			if e <= t {
				return -1
			}
			return 1
		})
		sum += float64(lo) + float64(hi-lo)/2
	}
	return sum / (float64(len(pos)) * float64(len(neg)))
}

// choose returns the weights of a blend and its AUC, both by what some folds held
// out. Half of a base's weight comes from its own AUC, half from whether it adds
// to the others. A description has its least share whatever hold-out says.
func (o *outcomes) choose(folds []int) ([]float64, float64) {
	weights := o.bySkill(folds)
	for b, w := range o.byGain(folds) {
		weights[b] = (weights[b] + w) / 2
	}
	o.shrink(weights, folds)
	for b := range o.bases {
		if short := leastDescription - weights[b]; o.bases[b].name == description && short > 0 {
			rest := (1 - leastDescription) / (1 - weights[b])
			for i := range weights {
				weights[i] *= rest
			}
			weights[b] = leastDescription
		}
	}
	return weights, o.mix(weights, folds)
}

// shrinkage is how many held-out seeds it takes until what they say of a blend counts
// as much as the plain centroid of text. An AUC of 40 seeds errs by 0.02, more than most
// bases differ by, and what wins by luck is what fits closest; a mean cannot fit
// closely. Columns have no such base: of those tried none was first at few seeds, so
// where there are columns nothing is shrunk.
const shrinkage = 50

// shrink moves weight to the plain base, the more the fewer seeds were held out, where
// there is nothing but text.
func (o *outcomes) shrink(weights []float64, folds []int) {
	plain := slices.IndexFunc(o.bases, func(b base) bool { return b.plain })
	if plain < 0 || slices.ContainsFunc(o.bases, func(b base) bool { return b.use.columns }) {
		return
	}
	prior := shrinkage / float64(shrinkage+o.heldOut(folds))
	for b := range weights {
		weights[b] *= 1 - prior
	}
	weights[plain] += prior
}

// bySkill weighs each base by exp(AUC / noise): an AUC of n held-out seeds errs
// by about 0.14 over their root compared with another's, so a base which is
// behind by much more than that is out, and which is behind by less is as good.
func (o *outcomes) bySkill(folds []int) []float64 {
	n, seeds, top := len(o.bases), o.heldOut(folds), 0.0
	weights := make([]float64, n)
	for b := range weights {
		weights[b] = o.mix(single(n, b), folds)
		top = math.Max(top, weights[b])
	}
	for b, auc := range weights {
		weights[b] = math.Exp((auc - top) * math.Sqrt(float64(seeds)) / 0.14)
		if weights[b] < 0.01 {
			weights[b] = 0
		}
	}
	return share(weights)
}

// byGain is forward selection with replacement (Caruana and others, ICML 2004).
// It begins with several of the best, the more of them the fewer seeds there
// are, because the single best of a few held-out seeds is best by luck.
func (o *outcomes) byGain(folds []int) []float64 {
	n := len(o.bases)
	skill := make([]float64, n)
	for b := range n {
		skill[b] = o.mix(single(n, b), folds)
	}
	order := span(0, n)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(skill[b], skill[a]) })
	start, total := 1, o.heldOut(folds)
	switch {
	case total < 80:
		start = 3
	case total < 320:
		start = 2
	}
	weights := make([]float64, n)
	for _, b := range order[:min(start, n)] {
		weights[b]++
	}
	blend := o.mix(weights, folds)
	for range 12 {
		best, bestAUC := -1, blend+2e-4
		for b := range n {
			weights[b]++
			if auc := o.mix(weights, folds); auc > bestAUC {
				best, bestAUC = b, auc
			}
			weights[b]--
		}
		if best < 0 {
			break
		}
		weights[best]++
		blend = bestAUC
	}
	return share(weights)
}

// share divides weights by their sum.
func share(weights []float64) []float64 {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	for b := range weights {
		weights[b] /= total
	}
	return weights
}

func single(n, at int) []float64 {
	w := make([]float64, n)
	w[at] = 1
	return w
}

// auc is that of one base alone, over all folds.
func (o *outcomes) auc(b int) float64 {
	return o.mix(single(len(o.bases), b), span(0, len(o.seeds)))
}
