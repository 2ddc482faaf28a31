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
	weights []float64         // [base], of the choice; they add up to 1
	nested  [][]float64       // [fold][base], as chosen without that fold's seeds
	blend   float64           // AUC of the choice, on the seeds that it was chosen on
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
//
// text is a description to go by beside the seeds, or nil.
func compare(ctx context.Context, m *material, method string, text []float32, folds int, progress func(done, total int)) (*comparison, error) {
	c := &comparison{m: m, folds: max(2, min(folds, m.seeds))}
	var w *whitener
	if method == Auto || method == Centroid {
		w = newWhitener(m)
	}
	var err error
	if c.bases, err = basesOf(method, m, w, text); err != nil {
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
	every := span(0, c.folds)
	c.auc = make([]float64, len(c.bases))
	for b := range c.bases {
		c.auc[b] = c.mix(single(len(c.bases), b), every)
	}
	c.weights, c.blend = c.choose(every)
	c.nested = make([][]float64, c.folds)
	for fold := range c.folds {
		others := slices.DeleteFunc(slices.Clone(every), func(f int) bool { return f == fold })
		c.nested[fold], _ = c.choose(others)
	}
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

// held is a weighted sum of the bases' scores on what a fold held out, seeds first.
func (c *comparison) held(w []float64, fold int) []float64 {
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
	return sum
}

// mix is the AUC of a weighted sum of bases, the mean over folds weighted by
// held-out seeds.
func (c *comparison) mix(w []float64, folds []int) float64 {
	total, n := 0.0, 0.0
	for _, fold := range folds {
		sum := c.held(w, fold)
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
// 2004) on the scores that some folds held out, and returns the weights and
// their AUC there. It begins with several of the best, the more of them the
// fewer seeds there are, because the single best of a few held-out seeds is best
// by luck. A description has its least share whatever hold-out says.
func (c *comparison) choose(folds []int) ([]float64, float64) {
	n := len(c.bases)
	skill := make([]float64, n)
	for b := range n {
		skill[b] = c.mix(single(n, b), folds)
	}
	bySkill := span(0, n)
	slices.SortStableFunc(bySkill, func(a, b int) int { return cmp.Compare(skill[b], skill[a]) })
	start := 1
	switch {
	case c.m.seeds < 100:
		start = 3
	case c.m.seeds < 400:
		start = 2
	}
	weights := make([]float64, n)
	for _, b := range bySkill[:min(start, n)] {
		weights[b]++
	}
	blend := c.mix(weights, folds)
	for range 12 {
		best, bestAUC := -1, blend+2e-4
		for b := range n {
			weights[b]++
			if auc := c.mix(weights, folds); auc > bestAUC {
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
	total := 0.0
	for _, w := range weights {
		total += w
	}
	for b := range weights {
		weights[b] /= total
	}
	for b := range c.bases {
		if short := leastDescription - weights[b]; c.bases[b].name == description && short > 0 {
			rest := (1 - leastDescription) / (1 - weights[b])
			for i := range weights {
				weights[i] *= rest
			}
			weights[b] = leastDescription
			blend = c.mix(weights, folds)
		}
	}
	return weights, blend
}

// set is a weighted sum of bases as fitted on a fold, or on all seeds for fold
// c.folds, ready to scan: on vectors as stored, not on deviations. A base of
// several heads of which the best counts gets the sum of the others added to
// each of its heads, which is the same; there is at most one such base.
func (c *comparison) set(fold int, weights []float64) index.HeadSet {
	one := newSum(c.m.f)
	var several []index.Head
	scale := 0.0
	for b, w := range weights {
		if w == 0 {
			continue
		}
		heads, times := c.fitted[fold][b].Heads, w/c.spread[fold][b]
		if len(heads) > 1 {
			several, scale = heads, times
			continue
		}
		one.add(&heads[0], times)
	}
	if several == nil {
		return index.HeadSet{Heads: []index.Head{one.head()}}
	}
	out := index.HeadSet{Reduce: index.Max}
	for i := range several {
		s := one.clone()
		s.add(&several[i], scale)
		out.Heads = append(out.Heads, s.head())
	}
	return out
}

// sum is a weighted sum of heads on deviations.
type sum struct {
	f      *features
	bias   float64
	vector []float32
	tables [][]float32
}

func newSum(f *features) *sum { return &sum{f: f} }

func (s *sum) clone() *sum {
	out := &sum{f: s.f, bias: s.bias, vector: slices.Clone(s.vector)}
	for _, t := range s.tables {
		out.tables = append(out.tables, slices.Clone(t))
	}
	return out
}

func (s *sum) add(h *index.Head, scale float64) {
	s.bias += scale * float64(h.Bias)
	if h.Vector != nil && s.vector == nil {
		s.vector = make([]float32, s.f.dim)
	}
	for j, x := range h.Vector {
		s.vector[j] += float32(scale * float64(x))
	}
	if h.Tables != nil && s.tables == nil {
		s.tables = make([][]float32, len(s.f.bins))
		for i := range s.f.bins {
			s.tables[i] = make([]float32, s.f.bins[i].Count())
		}
	}
	for i, t := range h.Tables {
		for j, x := range t {
			s.tables[i][j] += float32(scale * float64(x))
		}
	}
}

// head is the sum on vectors as stored. Each table's mean over everyone moves
// into the intercept, so that a column's part of a score says how the customer
// differs from the average.
func (s *sum) head() index.Head {
	bias := s.bias
	for i, t := range s.tables {
		if s.f.bins[i].Kind == index.Set {
			continue
		}
		mean := 0.0
		for j, x := range t {
			mean += s.f.share[i][j] * float64(x)
		}
		for j := range t {
			t[j] -= float32(mean)
		}
		bias += mean
	}
	if s.vector != nil {
		bias -= dot(s.vector, s.f.center)
	}
	return index.Head{Vector: s.vector, Tables: s.tables, Bias: float32(bias)}
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
