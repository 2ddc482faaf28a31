package tag

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// penalties are tried on unit vectors; scikit-learn's C is one over them.
var penalties = []float64{1, 0.3, 0.1, 0.03}

// splits says which examples are held out together: folds of each repeat have
// every label in proportion.
type splits struct {
	e       *Examples
	folds   int
	repeats int
	fold    [][]int // [repeat][example]
}

func newSplits(e *Examples, count []int, seed uint64) *splits {
	s := &splits{e: e, folds: min(5, slices.Min(count)), repeats: 1}
	if len(e.Y) < 400 { // one way of halving few says little
		s.repeats = 4
	}
	for r := range s.repeats {
		rng := rand.New(rand.NewPCG(seed, uint64(r)))
		fold := make([]int, len(e.Y))
		next := make([]int, len(count))
		for c := range next {
			next[c] = rng.IntN(s.folds)
		}
		for _, i := range rng.Perm(len(e.Y)) {
			fold[i] = next[e.Y[i]] % s.folds
			next[e.Y[i]]++
		}
		s.fold = append(s.fold, fold)
	}
	return s
}

// validation holds the held-out logits of the chosen penalty.
type validation struct {
	*splits
	penalty     float64
	temperature float64
	logits      [][]float32 // [repeat][example * labels]
}

// validate fits each fold with each penalty; the least log loss of held-out
// examples wins, each penalty at its best temperature: the stronger penalty's
// doubt is mended by it.
func (s *splits) validate(ctx context.Context, progress func(done, total int)) (*validation, error) {
	k := len(s.e.Labels)
	logits := make([][][]float32, len(penalties))
	for p := range logits {
		logits[p] = make([][]float32, s.repeats)
		for r := range logits[p] {
			logits[p][r] = make([]float32, len(s.e.Y)*k)
		}
	}
	total := len(penalties) * s.repeats * s.folds
	var next, done atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range min(total, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				task := int(next.Add(1)) - 1
				if task >= total || ctx.Err() != nil {
					return
				}
				p, r, f := task%len(penalties), task/len(penalties)/s.folds, task/len(penalties)%s.folds
				err := s.holdOut(ctx, r, f, penalties[p], logits[p][r])
				mu.Lock()
				failed = cmp.Or(failed, err)
				progress(int(done.Add(1)), total)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := cmp.Or(failed, ctx.Err()); err != nil {
		return nil, err
	}
	v := &validation{splits: s}
	best := math.Inf(1)
	for p := range penalties {
		t := s.temper(logits[p], -1)
		if l := s.loss(logits[p], t, -1); l < best {
			best, v.penalty, v.temperature, v.logits = l, penalties[p], t, logits[p]
		}
	}
	return v, nil
}

// holdOut fits on all folds but f and writes the logits of f's examples.
func (s *splits) holdOut(ctx context.Context, r, f int, penalty float64, out []float32) error {
	var rest []int
	for i, at := range s.fold[r] {
		if at != f {
			rest = append(rest, i)
		}
	}
	m, err := train(ctx, s.e, rest, penalty)
	if err != nil {
		return err
	}
	k, d := len(s.e.Labels), s.e.Dim
	for i, at := range s.fold[r] {
		if at == f {
			m.scores(s.e.X[i*d:(i+1)*d], out[i*k:(i+1)*k])
		}
	}
	return nil
}

// loss is the mean -log p of the right labels at a temperature, without the
// examples of one fold (-1: with all).
func (s *splits) loss(logits [][]float32, temperature float64, without int) float64 {
	k, sum, n := len(s.e.Labels), 0.0, 0
	row := make([]float32, k)
	for r := range logits {
		for i, y := range s.e.Y {
			if s.fold[r][i] == without {
				continue
			}
			for c := range row {
				row[c] = float32(float64(logits[r][i*k+c]) / temperature)
			}
			sum += logSumExp(row) - float64(row[y])
			n++
		}
	}
	return sum / float64(max(1, n))
}

// temper finds the temperature of the least loss by golden section on its
// logarithm; the loss is convex in one over it.
func (s *splits) temper(logits [][]float32, without int) float64 {
	const ratio = 0.6180339887498949
	lo, hi := math.Log(0.02), math.Log(50)
	at := func(x float64) float64 { return s.loss(logits, math.Exp(x), without) }
	a, b := hi-ratio*(hi-lo), lo+ratio*(hi-lo)
	fa, fb := at(a), at(b)
	for range 30 {
		if fa <= fb {
			hi, b, fb = b, a, fa
			a = hi - ratio*(hi-lo)
			fa = at(a)
		} else {
			lo, a, fa = a, b, fb
			b = lo + ratio*(hi-lo)
			fb = at(b)
		}
	}
	return math.Exp((lo + hi) / 2)
}

// quality judges held-out examples. The confidence of a fold's is at the
// temperature of the other folds.
func (v *validation) quality(ctx context.Context, e *Examples, count []int) (*Sheet, error) {
	k := len(e.Labels)
	q := &Sheet{Examples: len(e.Y), Folds: v.folds, Repeats: v.repeats, Penalty: v.penalty}
	confusion := make([]float64, k*k)
	type judged struct {
		confidence float64
		right      bool
	}
	var all []judged
	temperature := make([]float64, v.folds)
	for f := range temperature {
		temperature[f] = v.temper(v.logits, f)
	}
	for r := range v.logits {
		for i, y := range e.Y {
			t := temperature[v.fold[r][i]]
			row := make([]float32, k)
			top := 0
			for c := range row {
				row[c] = float32(float64(v.logits[r][i*k+c]) / t)
				if row[c] > row[top] {
					top = c
				}
			}
			lse := logSumExp(row)
			q.LogLoss += (lse - float64(row[y])) / float64(len(e.Y)*v.repeats)
			confusion[y*k+top]++
			all = append(all, judged{math.Exp(float64(row[top]) - lse), top == y})
		}
	}
	right := 0.0
	for c := range k {
		given, have := 0.0, 0.0
		for o := range k {
			given += confusion[o*k+c]
			have += confusion[c*k+o]
		}
		hit := confusion[c*k+c]
		right += hit
		l := Label{Label: e.Labels[c], Examples: count[c], Recall: hit / have}
		if given > 0 {
			l.Precision = hit / given
		}
		if hit > 0 {
			l.F1 = 2 * hit / (given + have)
		}
		q.MacroF1 += l.F1 / float64(k)
		q.Labels = append(q.Labels, l)
	}
	n := float64(len(e.Y))
	q.Accuracy = right / (n * float64(v.repeats))
	q.Low, q.High = wilson(q.Accuracy, n)
	q.Chance = float64(slices.Max(count)) / n
	slices.SortStableFunc(all, func(a, b judged) int { return cmp.Compare(a.confidence, b.confidence) })
	const groups = 10
	for g := range groups {
		gap := 0.0
		part := all[len(all)*g/groups : len(all)*(g+1)/groups]
		for _, j := range part {
			gap += j.confidence
			if j.right {
				gap--
			}
		}
		q.ECE += math.Abs(gap) / float64(len(all))
	}
	var err error
	if q.P, err = chance(ctx, e, count); err != nil {
		return nil, err
	}
	q.Words = fmt.Sprintf("Of held-out examples %.1f %% get their label (95 %% from %.1f to %.1f; always naming the commonest gets %.1f %%).", 100*q.Accuracy, 100*q.Low, 100*q.High, 100*q.Chance)
	if q.Low <= q.Chance {
		q.Words += " They are better than chance, but so few that nobody can say by how much: give more."
	}
	for c, m := range count {
		if m < few {
			q.Words += fmt.Sprintf(" Label %q has only %d examples: %d and more are better.", e.Labels[c], m, few)
			break
		}
	}
	return q, nil
}

// wilson is the 95 % score interval of a share (Wilson, JASA 1927).
func wilson(p, n float64) (low, high float64) {
	const z = 1.96
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return math.Max(0, mid-half), math.Min(1, mid+half)
}
