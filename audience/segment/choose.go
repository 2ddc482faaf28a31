package segment

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/kindred-search/kindred/index"
)

// steady is the least agreement of two halves for a number of segments to be
// thought of: below it they share more by chance than by what is there.
const steady = 0.5

// candidates are the numbers tried: all small ones, then fewer and fewer. Those
// between are tried next to the best.
var candidates = []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128}

// near is what part of the best number's score is as good as it: of such numbers
// the smallest is taken, for fewer segments are easier to work with.
const near = 0.99

// choose compares numbers of segments. The customers are halved, each half is
// segmented, and both ways of assigning are compared on the half that each has not
// seen: how well they agree (Tibshirani and Walther 2005; Lange and others 2004),
// and how much of that half's spread the segments explain. More segments than there
// are explain little more and agree less, fewer explain less; so the product has
// its peak at their number. The silhouette would prefer one odd group against all
// others. Where the halves agree on no number, there are no segments.
func choose(ctx context.Context, m *matrix, req Params, set *Set, progress func(string, int, int)) (int, error) {
	ks := []int{req.K}
	most := req.MaxK
	if most == 0 {
		most = defaultMaxK
	}
	if req.K == 0 {
		ks = nil
		for _, k := range candidates {
			if k <= most && m.rows >= 2*leastPerSegment*k {
				ks = append(ks, k)
			}
		}
		if len(ks) == 0 {
			ks = []int{2}
		}
	}
	half := m.rows / 2
	a, b := m.part(0, half), m.part(half, m.rows)
	choices := compareAll(ctx, a, b, ks, req.Seed, progress)
	if at := pick(choices, false); req.K == 0 && at >= 0 {
		choices = append(choices, compareAll(ctx, a, b, between(ks, at), req.Seed, progress)...)
		slices.SortFunc(choices, func(x, y Choice) int { return cmp.Compare(x.K, y.K) })
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	set.Choices = choices
	best := pick(choices, req.K != 0)
	if best < 0 {
		top := slices.MaxFunc(choices, func(a, b Choice) int { return cmp.Compare(a.Stability, b.Stability) })
		return 0, fmt.Errorf("no segments: two halves of the customers fall into different groups whatever their number (best agreement %.2f of 1, with %d; %.1f is needed): there is one crowd here; look at other columns or texts, or ask for a number with k: %w",
			top.Stability, top.K, steady, index.ErrInvalid)
	}
	choices[best].Chosen = true
	if c := choices[best]; c.Stability < steady {
		set.Warnings = append(set.Warnings, fmt.Sprintf("%d segments as asked, but two halves of the customers agree on them by %.2f of 1 only: other customers would fall into other groups", c.K, c.Stability))
	}
	return choices[best].K, nil
}

// between are numbers next to ks[at] that were not tried: all, or some where there
// are many.
func between(ks []int, at int) (out []int) {
	from, to := ks[max(0, at-1)], ks[min(at+1, len(ks)-1)]
	step := 1 + (to-from)/8
	for k := from + step; k < to; k += step {
		if !slices.Contains(ks, k) {
			out = append(out, k)
		}
	}
	return out
}

// compareAll compares numbers on all cores; the result is worthless when ctx ends.
func compareAll(ctx context.Context, a, b *matrix, ks []int, seed uint64, progress func(string, int, int)) []Choice {
	out := make([]Choice, len(ks))
	var one sync.Mutex // progress is heard from one goroutine at a time
	done := 0
	each(len(ks), func(i int) {
		if ctx.Err() == nil {
			out[i] = compare(ctx, a, b, ks[i], seed)
		}
		one.Lock()
		defer one.Unlock()
		done++
		progress("choosing how many", done, len(ks))
	})
	return out
}

// pick returns the place of the number to take, -1 for none.
func pick(choices []Choice, asked bool) int {
	if asked {
		return 0
	}
	score := func(c Choice) float64 {
		if c.Stability < steady {
			return 0
		}
		return c.Stability * c.Explained
	}
	best := 0.0
	for _, c := range choices {
		best = math.Max(best, score(c))
	}
	if best == 0 {
		return -1
	}
	return slices.IndexFunc(choices, func(c Choice) bool { return score(c) >= near*best })
}

// compare segments both halves and each by the other's centres.
func compare(ctx context.Context, a, b *matrix, k int, seed uint64) Choice {
	c := Choice{K: k}
	models := [2][][]float32{}
	halves := [2]*matrix{a, b}
	var left, whole float64
	for h, m := range halves {
		models[h] = fit(ctx, m, k, seed^uint64(h+1)<<32, 3, 25)
	}
	for h, m := range halves {
		norms := m.norms()
		own, _, _ := assign(m, models[h], norms)
		other, dist, next := assign(m, models[1-h], norms)
		for i, d := range dist {
			c.Silhouette += clearness(d, next[i]) / float64(2*m.rows)
			left += d
		}
		c.Stability += agreement(own, other, k) / 2
		_, all, _ := assign(m, [][]float32{halves[1-h].center()}, norms)
		for _, d := range all {
			whole += d
		}
	}
	if whole > 0 {
		c.Explained = math.Max(0, 1-left/whole)
	}
	return c
}

// agreement is the adjusted Rand index of two assignments (Hubert and Arabie,
// 1985).
func agreement(a, b []int, k int) float64 {
	table := make([]float64, k*k)
	rows, cols := make([]float64, k), make([]float64, k)
	for i := range a {
		table[a[i]*k+b[i]]++
		rows[a[i]]++
		cols[b[i]]++
	}
	pairs := func(counts []float64) float64 {
		sum := 0.0
		for _, n := range counts {
			sum += n * (n - 1) / 2
		}
		return sum
	}
	n := float64(len(a))
	both, x, y, all := pairs(table), pairs(rows), pairs(cols), n*(n-1)/2
	if all == 0 {
		return 0
	}
	chance := x * y / all
	if top := (x + y) / 2; top != chance {
		return (both - chance) / (top - chance)
	}
	return 0
}
