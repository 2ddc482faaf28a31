package audience

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

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
	out     *outcomes
	weights []float64   // [base], of the choice; they add up to 1
	nested  [][]float64 // [fold][base], as chosen without that fold's seeds
	blend   float64     // AUC of the choice, on the seeds that it was chosen on
}

// honestBelow is the number of seeds below which a fold's weights are chosen on
// models that have not seen that fold either. With the models at hand, its seeds
// would have a say in their own weights; of random lists of 40 seeds that makes
// an AUC of 0.53. It takes ten fits more to five, so it is left where there are
// so many seeds that it makes no difference.
const honestBelow = 500

// split deals seeds and background out to folds and holds some of them out. Both
// are in an order that is random but fixed (by id).
func (c *comparison) split(holdOut ...int) (train, held subset) {
	for i := range c.m.seeds {
		if slices.Contains(holdOut, i%c.folds) {
			held.pos = append(held.pos, i)
		} else {
			train.pos = append(train.pos, i)
		}
	}
	train.neg = span(c.m.seeds, c.m.seeds+c.m.negatives)
	for i := c.m.seeds + c.m.negatives; i < len(c.m.rows); i++ {
		if slices.Contains(holdOut, i%c.folds) {
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
	n := len(c.bases)
	c.fitted = make([][]index.HeadSet, c.folds+1)
	c.spread = make([][]float64, c.folds+1)
	c.out = newOutcomes(c.bases, c.folds)
	for fold := range c.folds + 1 {
		c.fitted[fold], c.spread[fold] = make([]index.HeadSet, n), make([]float64, n)
	}
	for fold := range c.folds {
		_, held := c.split(fold)
		c.out.seeds[fold] = len(held.pos)
	}
	inner := make([]*outcomes, c.folds) // by the fold that they know nothing of
	for fold := range inner {
		inner[fold] = c.out
		if m.seeds < honestBelow && c.folds > 2 {
			inner[fold] = newOutcomes(c.bases, c.folds)
		}
	}
	var jobs []func(context.Context) error
	for b := range c.bases {
		for fold := range c.folds {
			jobs = append(jobs, func(ctx context.Context) error {
				train, held := c.split(fold)
				set, err := c.bases[b].fit(ctx, m, train)
				if err != nil {
					return err
				}
				c.fitted[fold][b] = set
				c.out.z[b][fold], c.spread[fold][b] = c.standardised(set, held)
				return nil
			})
			for other := fold + 1; other < c.folds && inner[fold] != c.out; other++ {
				jobs = append(jobs, func(ctx context.Context) error {
					train, _ := c.split(fold, other)
					set, err := c.bases[b].fit(ctx, m, train)
					if err != nil {
						return err
					}
					for _, pair := range [][2]int{{fold, other}, {other, fold}} {
						_, held := c.split(pair[1])
						inner[pair[0]].z[b][pair[1]], _ = c.standardised(set, held)
					}
					return nil
				})
			}
		}
		jobs = append(jobs, func(ctx context.Context) error {
			set, err := c.bases[b].fit(ctx, m, subset{span(0, m.seeds), span(m.seeds, len(m.rows))})
			if err != nil {
				return err
			}
			c.fitted[c.folds][b] = set
			_, c.spread[c.folds][b] = c.standardised(set, subset{neg: span(m.seeds+m.negatives, len(m.rows))})
			return nil
		})
	}
	if err := parallel(ctx, jobs, progress); err != nil {
		return nil, err
	}
	every := span(0, c.folds)
	c.weights, c.blend = c.out.choose(every)
	for fold := range c.folds {
		inner[fold].seeds = c.out.seeds
		others := slices.DeleteFunc(slices.Clone(every), func(f int) bool { return f == fold })
		w, _ := inner[fold].choose(others)
		c.nested = append(c.nested, w)
	}
	return c, nil
}

// parallel runs the jobs on all cores and tells how many are done, from one
// goroutine at a time.
func parallel(ctx context.Context, jobs []func(context.Context) error, progress func(done, total int)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	done := 0
	for _, job := range jobs {
		group.Go(func() error {
			if err := job(ctx); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			if progress != nil {
				progress(done, len(jobs))
			}
			return nil
		})
	}
	return group.Wait()
}

// standardised are a fit's scores on what was held out, seeds first, with mean 0
// and deviation 1 over the background; and that deviation before.
func (c *comparison) standardised(set index.HeadSet, held subset) ([]float64, float64) {
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
	return raw, sd
}

// scoreSet is a base's value on a deviation; a base has no common head.
func (f *features) scoreSet(set index.HeadSet, x []float32, row uint32) float64 {
	if len(set.Heads) == 1 {
		return f.score(&set.Heads[0], x, row)
	}
	all := make([]float64, len(set.Heads))
	for i := range set.Heads {
		all[i] = f.score(&set.Heads[i], x, row)
	}
	return combined(all, &set)
}

// combined is what a set makes of its heads' scores, without what is common to them.
func combined(scores []float64, set *index.HeadSet) float64 {
	sum := 0.0
	best := nearest(scores, tops(set))
	for _, i := range best {
		sum += scores[i]
	}
	return sum / float64(len(best))
}

// tops is how many heads a set's score is the mean of.
func tops(set *index.HeadSet) int {
	if set.Reduce == index.TopMean {
		return min(set.Top, len(set.Heads))
	}
	return 1
}

// nearest are the places of the n highest, ties by place, in order of place.
func nearest(scores []float64, n int) []int {
	var best []int // from high to low
	for i, s := range scores {
		if len(best) == n && s <= scores[best[n-1]] {
			continue
		}
		if len(best) < n {
			best = append(best, 0)
		}
		k := len(best) - 1
		for ; k > 0 && scores[best[k-1]] < s; k-- {
			best[k] = best[k-1]
		}
		best[k] = i
	}
	slices.Sort(best)
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

// set is a weighted sum of bases as fitted on a fold, or on all seeds for fold
// c.folds, ready to scan: on vectors as stored, not on deviations. A base of several
// heads keeps them, and the sum of the others is common to them; there is at most one
// such base.
func (c *comparison) set(fold int, weights []float64) index.HeadSet {
	one := newSum(c.m.f)
	var several *index.HeadSet
	scale, others := 0.0, 0
	for b, w := range weights {
		if w == 0 {
			continue
		}
		fitted, times := &c.fitted[fold][b], w/c.spread[fold][b]
		if len(fitted.Heads) > 1 {
			several, scale = fitted, times
			continue
		}
		others++
		one.add(&fitted.Heads[0], times)
	}
	if several == nil {
		return index.HeadSet{Heads: []index.Head{one.head()}}
	}
	out := index.HeadSet{Reduce: several.Reduce, Top: several.Top}
	for i := range several.Heads {
		s := newSum(c.m.f)
		s.add(&several.Heads[i], scale)
		out.Heads = append(out.Heads, s.head())
	}
	if others > 0 {
		common := one.head()
		out.Common = &common
	}
	return out
}

// sum is a weighted sum of heads on deviations.
type sum struct {
	f      *features
	bias   float64
	vector []float32
	tables [][]float32
	trees  []index.Tree
}

func newSum(f *features) *sum { return &sum{f: f} }

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
	for _, t := range h.Trees {
		t.Leaves = slices.Clone(t.Leaves)
		for i, x := range t.Leaves {
			t.Leaves[i] = float32(scale * float64(x))
		}
		s.trees = append(s.trees, t)
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
	return index.Head{Vector: s.vector, Tables: s.tables, Trees: s.trees, Bias: float32(bias)}
}

// candidates is the table that the result reports.
func (c *comparison) candidates() []Candidate {
	out := make([]Candidate, len(c.bases))
	chosen := 0
	for b := range c.bases {
		out[b] = Candidate{Name: c.bases[b].name, AUC: c.out.auc(b), Weight: c.weights[b]}
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
		if c.bases[b].use == u && (best < 0 || c.out.auc(b) > c.out.auc(best)) {
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
