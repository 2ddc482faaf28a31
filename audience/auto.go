package audience

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/kindred-search/kindred/index"
)

// comparison is every base fitted on each fold and on all seeds, and how the
// bases did on what the folds held out.
type comparison struct {
	m       *material
	bases   []base
	folds   int
	fitted  [][]index.HeadSet // [fold, then all][base]
	spread  [][]float64       // of a base's scores on background, likewise
	z       [][][]float64     // [base][fold][held out]: seeds first, standardised
	heldPos []int             // held-out seeds in each fold
	auc     []float64         // [base]
	weights []float64         // [base], of the choice
	blend   float64           // AUC of the choice
}

// seedFold and backFold deal seeds and background out to folds. Both are in an
// order that is random but fixed (by id).
func (c *comparison) split(fold int) (train, held subset) {
	for i := range c.m.seeds {
		if i%c.folds == fold {
			held.pos = append(held.pos, i)
		} else {
			train.pos = append(train.pos, i)
		}
	}
	train.neg = span(c.m.seeds, c.m.seeds+c.m.negatives)
	for i := c.m.seeds + c.m.negatives; i < len(c.m.rows); i++ {
		if i%c.folds == fold {
			held.neg = append(held.neg, i)
		} else {
			train.neg = append(train.neg, i)
		}
	}
	return train, held
}

// compare fits and judges. Background rows are held out by fold like seeds: a
// model has never seen the customers that its held-out seeds are ranked among.
func compare(ctx context.Context, m *material, method string, folds int, progress func(done, total int)) (*comparison, error) {
	c := &comparison{m: m, folds: max(2, min(folds, m.seeds))}
	var w *whitener
	if method == Auto || method == Centroid {
		w = newWhitener(m)
	}
	var err error
	if c.bases, err = basesOf(method, m, w); err != nil {
		return nil, err
	}
	c.fitted = make([][]index.HeadSet, c.folds+1)
	c.spread = make([][]float64, c.folds+1)
	c.z = make([][][]float64, len(c.bases))
	for b := range c.bases {
		c.z[b] = make([][]float64, c.folds)
	}
	c.heldPos = make([]int, c.folds)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	finished := make(chan struct{}, (c.folds+1)*len(c.bases))
	for fold := range c.folds + 1 {
		train, held := subset{span(0, m.seeds), span(m.seeds, len(m.rows))}, subset{}
		if fold < c.folds {
			train, held = c.split(fold)
			c.heldPos[fold] = len(held.pos)
		} else {
			held.neg = span(m.seeds+m.negatives, len(m.rows))
		}
		c.fitted[fold] = make([]index.HeadSet, len(c.bases))
		c.spread[fold] = make([]float64, len(c.bases))
		for b := range c.bases {
			group.Go(func() error {
				set, err := c.bases[b].fit(gctx, m, train)
				if err != nil {
					return err
				}
				c.judge(fold, b, set, held)
				finished <- struct{}{}
				return nil
			})
		}
	}
	done := make(chan error, 1)
	go func() { done <- group.Wait(); close(finished) }()
	n := 0
	for range finished {
		n++
		if progress != nil {
			progress(n, cap(finished))
		}
	}
	if err := <-done; err != nil {
		return nil, err
	}
	c.auc = make([]float64, len(c.bases))
	for b := range c.bases {
		c.auc[b] = c.mix(single(len(c.bases), b))
	}
	c.choose()
	return c, nil
}

func single(n, at int) []float64 {
	w := make([]float64, n)
	w[at] = 1
	return w
}

// judge keeps a fit and its standardised scores on what was held out.
func (c *comparison) judge(fold, b int, set index.HeadSet, held subset) {
	raw := make([]float64, 0, len(held.pos)+len(held.neg))
	for _, list := range [][]int{held.pos, held.neg} {
		for _, i := range list {
			raw = append(raw, c.m.f.scoreSet(set, c.m.vec(i), c.m.rows[i]))
		}
	}
	mean, sd := moments(raw[len(held.pos):])
	if sd == 0 {
		sd = 1
	}
	for i := range raw {
		raw[i] = (raw[i] - mean) / sd
	}
	c.fitted[fold][b], c.spread[fold][b] = set, sd
	if fold < c.folds {
		c.z[b][fold] = raw
	}
}

func (f *features) scoreSet(set index.HeadSet, x []float32, row uint32) float64 {
	best := math.Inf(-1)
	for i := range set.Heads {
		best = math.Max(best, f.score(&set.Heads[i], x, row))
	}
	return best
}

func moments(v []float64) (mean, sd float64) {
	if len(v) == 0 {
		return 0, 0
	}
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	for _, x := range v {
		sd += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(sd / float64(len(v)))
}

// mix is the AUC of a weighted sum of bases, the mean over folds weighted by
// held-out seeds.
func (c *comparison) mix(w []float64) float64 {
	total, n := 0.0, 0.0
	for fold := range c.folds {
		var sum []float64
		for b := range c.bases {
			if w[b] == 0 {
				continue
			}
			if sum == nil {
				sum = make([]float64, len(c.z[b][fold]))
			}
			for i, z := range c.z[b][fold] {
				sum[i] += w[b] * z
			}
		}
		k := c.heldPos[fold]
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

// choose blends by forward selection with replacement (Caruana and others, ICML
// 2004) on the held-out scores. It begins with several of the best, the more of
// them the fewer seeds there are, because the single best of a few held-out
// seeds is best by luck. A set of several heads cannot be added to another: it
// wins alone, and only when clearly ahead.
func (c *comparison) choose() {
	n := len(c.bases)
	var sums []int
	for b := range n {
		if len(c.fitted[c.folds][b].Heads) == 1 {
			sums = append(sums, b)
		}
	}
	bySkill := slices.Clone(sums)
	slices.SortStableFunc(bySkill, func(a, b int) int { return cmp.Compare(c.auc[b], c.auc[a]) })
	c.weights = make([]float64, n)
	start := 1
	switch {
	case c.m.seeds < 100:
		start = 3
	case c.m.seeds < 400:
		start = 2
	}
	for _, b := range bySkill[:min(start, len(bySkill))] {
		c.weights[b]++
	}
	if len(bySkill) > 0 {
		c.blend = c.mix(c.weights)
		for range 12 {
			best, bestAUC := -1, c.blend+2e-4
			for _, b := range sums {
				c.weights[b]++
				if auc := c.mix(c.weights); auc > bestAUC {
					best, bestAUC = b, auc
				}
				c.weights[b]--
			}
			if best < 0 {
				break
			}
			c.weights[best]++
			c.blend = bestAUC
		}
	}
	const clearly = 0.005
	for b := range n {
		if len(c.fitted[c.folds][b].Heads) > 1 && (len(sums) == 0 || c.auc[b] > c.blend+clearly) {
			c.weights, c.blend = single(n, b), c.auc[b]
		}
	}
	if len(sums) == 0 && c.blend == 0 { // a clusters fit that found one cluster
		c.weights, c.blend = single(n, 0), c.auc[0]
	}
	total := 0.0
	for _, w := range c.weights {
		total += w
	}
	for b := range c.weights {
		c.weights[b] /= total
	}
}

// set is a weighted sum of bases as fitted on a fold, or on all seeds for fold
// c.folds, ready to scan: on vectors as stored, not on deviations.
func (c *comparison) set(fold int, weights []float64) index.HeadSet {
	f := c.m.f
	for b, w := range weights {
		if w == 1 && len(c.fitted[fold][b].Heads) > 1 {
			out := index.HeadSet{Reduce: index.Max}
			for _, h := range c.fitted[fold][b].Heads {
				h.Bias -= float32(dot(h.Vector, f.center))
				out.Heads = append(out.Heads, h)
			}
			return out
		}
	}
	sum := index.Head{}
	bias := 0.0
	for b, w := range weights {
		if w == 0 {
			continue
		}
		h := c.fitted[fold][b].Heads[0]
		scale := w / c.spread[fold][b]
		bias += scale * float64(h.Bias)
		if h.Vector != nil {
			if sum.Vector == nil {
				sum.Vector = make([]float32, f.dim)
			}
			for j, x := range h.Vector {
				sum.Vector[j] += float32(scale * float64(x))
			}
		}
		if h.Tables != nil {
			if sum.Tables == nil {
				sum.Tables = make([][]float32, len(f.bins))
				for i := range f.bins {
					sum.Tables[i] = make([]float32, f.bins[i].Count())
				}
			}
			for i, t := range h.Tables {
				for j, x := range t {
					sum.Tables[i][j] += float32(scale * float64(x))
				}
			}
		}
	}
	// Each table's mean over everyone moves into the intercept, so that a
	// column's part of a score says how the customer differs from the average.
	for i, t := range sum.Tables {
		if f.bins[i].Kind == index.Set {
			continue
		}
		mean := 0.0
		for j, x := range t {
			mean += f.share[i][j] * float64(x)
		}
		for j := range t {
			t[j] -= float32(mean)
		}
		bias += mean
	}
	if sum.Vector != nil {
		bias -= dot(sum.Vector, f.center)
	}
	sum.Bias = float32(bias)
	return index.HeadSet{Heads: []index.Head{sum}}
}

// candidates is the table that the result reports.
func (c *comparison) candidates() []Candidate {
	out := make([]Candidate, len(c.bases))
	chosen := 0
	for b := range c.bases {
		out[b] = Candidate{Name: c.bases[b].name, AUC: c.auc[b], Weight: c.weights[b]}
		if c.weights[b] > 0 {
			chosen++
		}
	}
	if chosen == 1 {
		for b := range out {
			out[b].Chosen = out[b].Weight > 0
		}
		return out
	}
	return append(out, Candidate{Name: "blend", AUC: c.blend, Weight: 1, Chosen: true})
}

// words names the choice.
func (c *comparison) words() string {
	list := c.candidates()
	if last := list[len(list)-1]; last.Chosen && last.Name == "blend" {
		text := "blend of"
		for b, w := range c.weights {
			if w > 0 {
				if text != "blend of" {
					text += ","
				}
				text += fmt.Sprintf(" %s (%.0f %%)", c.bases[b].name, 100*w)
			}
		}
		return text
	}
	for _, cand := range list {
		if cand.Chosen {
			return cand.Name
		}
	}
	return ""
}

// only returns the weights of the best single base that uses just these
// features, and false when there is none.
func (c *comparison) only(u use) ([]float64, bool) {
	best := -1
	for b := range c.bases {
		if c.bases[b].use == u && (best < 0 || c.auc[b] > c.auc[best]) {
			best = b
		}
	}
	if best < 0 {
		return nil, false
	}
	return single(len(c.bases), best), true
}

// plain is the centroid as anyone would build it: the seeds' mean and the
// weights of evidence, equally.
func (c *comparison) plain() ([]float64, bool) {
	w := make([]float64, len(c.bases))
	n := 0.0
	for b := range c.bases {
		if c.bases[b].name == "centroid of text" || c.bases[b].name == "evidence of columns" {
			w[b] = 1
			n++
		}
	}
	for b := range w {
		w[b] /= math.Max(n, 1)
	}
	return w, n > 0
}
