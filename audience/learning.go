package audience

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// Learning is how the order of everyone gets better with more seeds: measured on
// parts of the list, and what more seeds would add, extrapolated.
type Learning struct {
	Points []LearningPoint `json:"points"`
	More   int             `json:"more"` // seeds beyond those given
	Gain   Interval        `json:"gain"` // of AUC that so many more would add
	Words  string          `json:"words"`
}

// LearningPoint is the held-out AUC of models that learned from so many seeds.
type LearningPoint struct {
	Seeds int      `json:"seeds"`
	AUC   Interval `json:"auc"`
}

const (
	leastLearning  = 40   // seeds, below which a quarter of them is nothing to learn from
	mostLearning   = 5000 // seeds, beyond which nothing more is learned
	learningOthers = 4000 // customers of everyone
	moreSeeds      = 500
)

// parts are the shares of the training seeds that a curve is made of, each with the
// places, in units of itself, at which it begins: small parts differ by luck, so two
// of them are taken.
var parts = []struct {
	share float64
	from  []float64
}{{0.25, []float64{0, 1}}, {0.5, []float64{0, 1}}, {0.75, []float64{0}}, {1, []float64{0}}}

// learn measures a few quick bases, weighed equally, on parts of each fold's training
// seeds, always by the same held-out seeds. Nil for a list too short.
//
// What more would add is extrapolated by two laws, AUC = a - b/n and a - b/sqrt(n):
// models approach their limit by the one when little is left to learn and by the other
// when much is. The value is their mean, the interval reaches from the lower end of
// one to the upper end of the other. It goes to three times the seeds at most.
func learn(ctx context.Context, m *material, folds int, progress func(done, total int)) (*Learning, error) {
	if m.seeds < leastLearning {
		return nil, nil
	}
	small := m.head(mostLearning, learningOthers)
	c := &comparison{m: small, folds: folds}
	bases := learners(small)
	type cell struct{ ranks []float64 } // of the fold's held-out seeds
	cells := make([][]cell, len(parts))
	var jobs []func(context.Context) error
	for p := range parts {
		cells[p] = make([]cell, c.folds)
		for fold := range c.folds {
			jobs = append(jobs, func(ctx context.Context) error {
				train, held := c.split(fold)
				ranks := make([]float64, len(held.pos))
				n := int(math.Round(parts[p].share * float64(len(train.pos))))
				for _, from := range parts[p].from {
					at := min(int(from)*n, len(train.pos)-n)
					sum := make([]float64, len(held.pos)+len(held.neg))
					for _, b := range bases {
						set, err := b.fit(ctx, small, subset{train.pos[at : at+n], train.neg})
						if err != nil {
							return err
						}
						z, _ := c.standardised(set, held)
						for i := range z {
							sum[i] += z[i]
						}
					}
					others := slices.Clone(sum[len(held.pos):])
					slices.Sort(others)
					for i := range held.pos {
						ranks[i] += rankAmong(others, sum[i]) / float64(len(parts[p].from))
					}
				}
				cells[p][fold].ranks = ranks
				return nil
			})
		}
	}
	if err := parallel(ctx, jobs, progress); err != nil {
		return nil, err
	}
	by := make([][]float64, len(parts)) // [part][held-out seed]
	var fold []int                      // of each held-out seed
	for p := range parts {
		for at := range c.folds {
			by[p] = append(by[p], cells[p][at].ranks...)
			if p == 0 {
				fold = append(fold, slices.Repeat([]int{at}, len(cells[p][at].ranks))...)
			}
		}
	}
	out := &Learning{More: min(moreSeeds, 2*m.seeds)}
	sizes := make([]float64, len(parts))
	for p := range parts {
		sizes[p] = parts[p].share * float64(small.seeds) * float64(c.folds-1) / float64(c.folds)
		out.Points = append(out.Points, LearningPoint{Seeds: int(math.Round(sizes[p])), AUC: meanInterval(by[p], fold)})
	}
	out.extrapolate(by, fold, sizes, float64(m.seeds))
	return out, nil
}

// extrapolate is linear in the AUCs under either law, so each held-out seed has its
// own share of the gain, and their spread is the gain's error.
func (l *Learning) extrapolate(by [][]float64, fold []int, sizes []float64, now float64) {
	l.Gain = Interval{Low: math.Inf(1), High: math.Inf(-1)}
	for _, power := range []float64{0.5, 1} {
		x := make([]float64, len(sizes))
		mean := 0.0
		for p, n := range sizes {
			x[p] = math.Pow(n, -power)
			mean += x[p] / float64(len(sizes))
		}
		square := 0.0
		for p := range x {
			x[p] -= mean
			square += x[p] * x[p]
		}
		step := math.Pow(now, -power) - math.Pow(now+float64(l.More), -power)
		gains := make([]float64, len(by[0]))
		for i := range gains {
			for p := range x {
				gains[i] -= step * x[p] / square * by[p][i]
			}
		}
		g := meanInterval(gains, fold)
		l.Gain.Value += g.Value / 2
		l.Gain.Low, l.Gain.High = math.Min(l.Gain.Low, g.Low), math.Max(l.Gain.High, g.High)
	}
	if l.Gain.Low <= 0 {
		l.Words = fmt.Sprintf("What %d more seeds would add cannot be told from nothing (AUC %+.3f, 95 %% from %+.3f to %+.3f).", l.More, l.Gain.Value, l.Gain.Low, l.Gain.High)
		return
	}
	l.Words = fmt.Sprintf("%d more seeds of this kind would add about %.3f to the AUC (95 %% from %.3f to %.3f).", l.More, l.Gain.Value, l.Gain.Low, l.Gain.High)
}

// meanInterval is a mean over held-out seeds with a 95 % interval, from the larger of
// two errors: that of the seeds, widened as an AUC's is, and that of the folds, which
// differ in what was learned from too.
func meanInterval(v []float64, fold []int) Interval {
	mean, sd := moments(v)
	half := 1.96 * otherSeeds * sd / math.Sqrt(float64(max(len(v)-1, 1)))
	folds := slices.Max(fold) + 1
	sums, counts := make([]float64, folds), make([]float64, folds)
	for i, x := range v {
		sums[fold[i]] += x
		counts[fold[i]]++
	}
	for f := range sums {
		sums[f] /= math.Max(counts[f], 1)
	}
	if folds > 1 {
		_, between := moments(sums)
		free := min(folds-1, len(student))
		half = math.Max(half, student[free-1]*between/math.Sqrt(float64(folds-1)))
	}
	return Interval{Value: mean, Low: mean - half, High: mean + half}
}

// student is the 97.5 % quantile of Student's t, by degrees of freedom from 1.
var student = []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228}

// rankAmong is the share of sorted below s, ties half.
func rankAmong(sorted []float64, s float64) float64 {
	lo, _ := slices.BinarySearch(sorted, s)
	hi := lo
	for hi < len(sorted) && sorted[hi] == s {
		hi++
	}
	return (float64(lo) + float64(hi-lo)/2) / float64(max(len(sorted), 1))
}

// learners are a simple and a supple base for each kind of feature.
func learners(m *material) []base {
	var out []base
	one := func(fit func(ctx context.Context, m *material, s subset) (index.Head, error)) {
		out = append(out, base{fit: func(ctx context.Context, m *material, s subset) (index.HeadSet, error) {
			h, err := fit(ctx, m, s)
			return index.HeadSet{Heads: []index.Head{h}}, err
		}})
	}
	logit := func(u use, p penalty) {
		one(func(ctx context.Context, m *material, s subset) (index.Head, error) {
			return newLogistic(m, s, u, p, false).fit(ctx)
		})
	}
	if m.f.dim > 0 {
		one(func(_ context.Context, m *material, s subset) (index.Head, error) {
			return index.Head{Vector: fitCentroid(m, s, negativeWeight)}, nil
		})
		logit(use{text: true}, penalty{text: 100})
	}
	if len(m.f.bins) > 0 {
		one(func(_ context.Context, m *material, s subset) (index.Head, error) {
			return index.Head{Tables: fitEvidence(m, s)}, nil
		})
		logit(use{columns: true}, penalty{columns: 20})
	}
	return out
}

// head is the material with at most so many seeds and customers of everyone.
func (m *material) head(seeds, others int) *material {
	out := &material{f: m.f, seeds: min(m.seeds, seeds), negatives: m.negatives}
	take := func(from, to int) {
		out.rows = append(out.rows, m.rows[from:to]...)
		out.weight = append(out.weight, m.weight[from:to]...)
		out.x = append(out.x, m.x[from*m.f.dim:to*m.f.dim]...)
	}
	first := m.seeds + m.negatives
	take(0, out.seeds)
	take(m.seeds, first)
	take(first, min(len(m.rows), first+others))
	out.gather()
	return out
}
