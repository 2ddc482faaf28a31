package audience

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/kindred-search/kindred/index"
)

// shares are the sizes of the sheet besides the asked one.
var shares = []float64{0.01, 0.02, 0.05, 0.10, 0.20}

// draws is the number of bootstrap samples.
const draws = 1000

// ranked is one way of ranking: weights over bases for each fold, by name.
type ranked struct {
	name    string
	weights [][]float64
}

// alike is the same weights for each fold.
func (c *comparison) alike(w []float64) [][]float64 { return slices.Repeat([][]float64{w}, c.folds) }

// standing is where a held-out seed stands among the population, in shares of it.
type standing struct {
	ahead float64 // who score more
	tied  float64 // who score the same
}

// below is the chance that the seed is ahead of a random customer, ties half.
func (p standing) below() float64 { return 1 - p.ahead - p.tied/2 }

// within is the share of this seed that a list of the best q of the population holds.
// Of those who tie with its last member so many are on it as there is room for, and a
// seed among them is no likelier to be than another.
func (p standing) within(q float64) float64 {
	switch room := q - p.ahead; {
	case room <= 0:
		return 0
	case room >= p.tied:
		return 1
	default:
		return room / p.tied
	}
}

// measure ranks each fold's held-out seeds among the population, in one scan of
// it, and returns for each way the place of each held-out seed. Of the population, seeds are left out, and so is the
// background that a fold's model was trained on, where enough others are left.
func (c *comparison) measure(ctx context.Context, snap index.Snapshot, everyone *roaring.Bitmap, ways []ranked) ([][]standing, error) {
	mask := everyone.Clone()
	f := c.m.f
	for i := range c.m.seeds + c.m.negatives {
		mask.Remove(c.m.rows[i])
	}
	// The scan needs the held-out seeds' scores as well: they are in it, and are
	// taken out of the population below.
	all := mask.Clone()
	for i := range c.m.seeds {
		all.Add(c.m.rows[i])
	}
	got := make([][][]standing, c.folds) // [fold][way]
	// As many folds share a scan as memory allows: a row is read once for all of them.
	together := max(1, min(c.folds, scoreRoom/(len(ways)*(snap.Len()+1))))
	for first := 0; first < c.folds; first += together {
		last := min(first+together, c.folds)
		req := index.ScanRequest{Bins: f.bins, Mask: all}
		for fold := first; fold < last; fold++ {
			for _, w := range ways {
				req.Sets = append(req.Sets, c.set(fold, w.weights[fold]))
			}
		}
		scores, err := snap.Scan(ctx, req)
		if err != nil {
			return nil, err
		}
		for fold := first; fold < last; fold++ {
			got[fold] = c.rank(fold, scores[(fold-first)*len(ways):][:len(ways)], mask)
		}
	}
	out := make([][]standing, len(ways))
	for _, fold := range got {
		for w := range ways {
			out[w] = append(out[w], fold[w]...)
		}
	}
	return out, nil
}

// scoreRoom is how many scores are held at once for judging: 256 MB.
const scoreRoom = 64 << 20

// rank returns for each way the places of a fold's held-out seeds among its population.
func (c *comparison) rank(fold int, scores [][]float32, mask *roaring.Bitmap) [][]standing {
	negFrom := c.m.seeds + c.m.negatives
	train, held := c.split(fold)
	others := mask.Clone()
	if background := len(c.m.rows) - negFrom; int(mask.GetCardinality())-background*(c.folds-1)/c.folds >= 1000 || background == int(mask.GetCardinality()) {
		for _, i := range train.neg {
			others.Remove(c.m.rows[i])
		}
	}
	if others.IsEmpty() {
		others = mask
	}
	rows := others.ToArray()
	out := make([][]standing, len(scores))
	for w := range scores {
		seeds := make([]float32, len(held.pos))
		for k, i := range held.pos {
			seeds[k] = scores[w][c.m.rows[i]]
		}
		out[w] = stand(seeds, scores[w], rows)
	}
	return out
}

// stand returns where each of seeds stands among rows. The seeds are sorted, not the population: a row is counted between the two seeds' scores that
// its own lies between.
func stand(seeds, scores []float32, rows []uint32) []standing {
	sorted := slices.Clone(seeds)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	// Of the rows of each core: cell 2i+1 counts those at sorted[i], 2i those below it
	// and above the one before.
	counts := make([][]int, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for p := range counts {
		wg.Go(func() {
			count := make([]int, 2*len(sorted)+1)
			for _, row := range rows[len(rows)*p/len(counts) : len(rows)*(p+1)/len(counts)] {
				s, lo, n := scores[row], 0, len(sorted)
				for n > 0 { // how many are below s
					half := (n + 1) / 2
					if sorted[lo+half-1] < s {
						lo += half
						n -= half
					} else {
						n = half - 1
					}
				}
				cell := 2 * lo
				if lo < len(sorted) && sorted[lo] == s {
					cell++
				}
				count[cell]++
			}
			counts[p] = count
		})
	}
	wg.Wait()
	above, at := make([]int, len(sorted)), make([]int, len(sorted))
	sum := 0
	for i := len(sorted) - 1; i >= 0; i-- {
		for _, count := range counts {
			sum += count[2*i+2]
			at[i] += count[2*i+1]
		}
		above[i] = sum
		sum += at[i]
	}
	out := make([]standing, len(seeds))
	for k, s := range seeds {
		i, _ := slices.BinarySearch(sorted, s)
		out[k] = standing{ahead: float64(above[i]) / float64(len(rows)), tied: float64(at[i]) / float64(len(rows))}
	}
	return out
}

// Intervals are wider than held-out seeds alone would have them. A bootstrap and a
// binomial know how this model does on other seeds, not how the model would differ had
// it learned from others. That moves the order of everyone, and so an AUC, and hardly
// who comes first or last; of a share it matters the most in the middle and above. The
// numbers are from simulated lists whose truth is known; docs/quality.md has how often
// the intervals then hold it on lists that had no say in them.
const otherSeeds = 1.25 // of an AUC and of an expected precision

// otherSeedsShare is the same of a share of held-out seeds that are reached.
func otherSeedsShare(share float64) float64 {
	return 1.03 + 1.1*share*share*math.Sqrt(math.Max(0, 1-share))
}

// sheet turns the places of held-out seeds into a measure with 95 % intervals: of the
// AUC by bootstrap over those seeds, of recall and lift by Wilson's score interval,
// which holds where few seeds are caught or nearly all.
func sheet(name string, held []standing, asked float64, seed uint64) Measure {
	m := Measure{Name: name, Sizes: []AtSize{}}
	rng := rand.New(rand.NewPCG(seed, 0x6b696e64726564))
	n := len(held)
	drawn := make([]float64, draws)
	for d := range drawn {
		for range n {
			drawn[d] += held[rng.IntN(n)].below() / float64(n)
		}
	}
	mean := 0.0
	for _, p := range held {
		mean += p.below() / float64(n)
	}
	m.AUC = bootstrapped(mean, drawn, n)
	if n < handful {
		few := wilson(mean*float64(n), n, otherSeeds*math.Sqrt(1./3)*distuv.StudentsT{Sigma: 1, Nu: math.Max(float64(n-1), 1)}.Quantile(0.975)/z975)
		m.AUC.Low, m.AUC.High = math.Min(m.AUC.Low, few.Low), math.Max(m.AUC.High, few.High)
	}
	for _, q := range append([]float64{asked}, shares...) {
		hit, square := 0.0, 0.0
		for _, p := range held {
			in := p.within(q)
			hit, square = hit+in, square+in*in
		}
		r := wilson(hit, n, otherSeedsShare(hit/float64(n))*partly(hit, square, n))
		m.Sizes = append(m.Sizes, AtSize{Share: q, Recall: r, Lift: Interval{r.Value / q, r.Low / q, r.High / q}})
	}
	return m
}

// handful is the number of held-out seeds below which their places do not tell how far
// such places spread: one has no spread at all. The interval of an AUC is then at least
// that of places that spread evenly, a third of a share's variance, with Student's t.
const handful = 10

// bootstrapped is the percentile interval of draws from n, which it sorts, widened in
// log-odds, so that it stays between 0 and 1. A bootstrap of few is too narrow by what
// Student's t has over the normal, and by the root of n/(n-1).
func bootstrapped(value float64, drawn []float64, n int) Interval {
	slices.Sort(drawn)
	df := math.Max(float64(n-1), 1)
	wider := otherSeeds * math.Sqrt((df+1)/df) * (1 + 2.37/1.96/df) // Cornish and Fisher's t
	wide := func(q float64) float64 {
		x := drawn[int(math.Round(q*float64(len(drawn)-1)))]
		if value <= 0 || value >= 1 || x <= 0 || x >= 1 {
			return x
		}
		at := logit(value) + wider*(logit(x)-logit(value))
		return 1 / (1 + math.Exp(-at))
	}
	return Interval{Value: value, Low: wide(0.025), High: wide(0.975)}
}

func logit(p float64) float64 { return math.Log(p / (1 - p)) }

// partly is how much less a sum of n shares varies than one of as many that are 0 or 1,
// by deviations: seeds that tie with a list's end are on it in part, and part of a seed
// is known better than whether it is there. Half of the gain is given up: with other
// seeds others would tie.
func partly(sum, square float64, n int) float64 {
	p := sum / float64(n)
	if p <= 0 || p >= 1 {
		return 1
	}
	own := (square/float64(n) - p*p) / (p * (1 - p))
	return math.Sqrt((1 + math.Max(0, math.Min(1, own))) / 2)
}

// wilson is the score interval of a share (Wilson, JASA 1927).
func wilson(hits float64, n int, wider float64) Interval {
	z := 1.96 * wider
	p, m := hits/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{Value: p, Low: math.Max(0, mid-half), High: math.Min(1, mid+half)}
}

// judge fills the sheet of a finished comparison.
func judge(ctx context.Context, pop Population, req *Request, r *resolved, c *comparison, null *comparison, asked float64) (Quality, error) {
	q := Quality{Baselines: []Measure{}}
	ways := []ranked{{"this audience", c.nested}}
	if w, ok := c.only(use{text: true}); ok {
		ways = append(ways, ranked{"text only", c.alike(w)})
	}
	if w, ok := c.only(use{columns: true}); ok {
		ways = append(ways, ranked{"columns only", c.alike(w)})
	}
	if w, ok := c.plain(); ok {
		ways = append(ways, ranked{"plain centroid", c.alike(w)})
	}
	others := r.everyone.Clone() // seeds that nothing was learned from are no others either
	for _, s := range r.seeds {
		others.Remove(s.row)
	}
	got, err := c.measure(ctx, pop.Snap, others, ways)
	if err != nil {
		return q, err
	}
	q.HeldOut = len(got[0])
	q.Measure = sheet(ways[0].name, got[0], asked, req.Seed)
	rng := rand.New(rand.NewPCG(req.Seed, 1))
	chance := make([]standing, q.HeldOut)
	for i := range chance {
		chance[i].ahead = rng.Float64()
	}
	q.Baselines = append(q.Baselines, sheet("random", chance, asked, req.Seed))
	for i := 1; i < len(ways); i++ {
		q.Baselines = append(q.Baselines, sheet(ways[i].name, got[i], asked, req.Seed))
	}
	noise, err := null.measure(ctx, pop.Snap, r.everyone, []ranked{{"null", null.nested}})
	if err != nil {
		return q, err
	}
	q.Null = sheet("the same with random seeds", noise[0], asked, req.Seed)
	q.Verdict = Signal
	// One random list stands for all. One that by luck ranks worse than chance says as much
	// of how far another goes to the other side.
	reach := math.Max(q.Null.AUC.High, 1-q.Null.AUC.Low)
	if q.Measure.AUC.Low <= reach {
		q.Verdict = NoSignal
		q.Words = fmt.Sprintf("No signal: held-out seeds do not surely rank better than random customers would (AUC %.3f, 95 %% from %.3f to %.3f; random seeds reach up to %.3f). ",
			q.Measure.AUC.Value, q.Measure.AUC.Low, q.Measure.AUC.High, reach)
		if q.Measure.AUC.Low > 0.5 {
			q.Words += "They may have a little in common: more seeds would tell."
		} else {
			q.Words += "The list is close to a random one."
		}
		return q, nil
	}
	top := q.Measure.Sizes[0]
	q.Words = fmt.Sprintf("A list of this size catches %.0f %% of held-out seeds, %.1f times as many as a random list of the size (95 %% from %.1f to %.1f). AUC %.3f.",
		100*top.Recall.Value, top.Lift.Value, top.Lift.Low, top.Lift.High, q.Measure.AUC.Value)
	return q, nil
}
