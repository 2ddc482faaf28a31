package audience

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// explainer divides scores of a head set among columns.
type explainer struct {
	f       *features // nil when it explains single customers
	set     index.HeadSet
	bins    []index.Bins
	heads   []*index.Head // the set's, and the common one last where there is one
	used    [][]bool      // [head][column]
	credits [][][]credit  // [head][tree]
	base    []float64     // [head], bias and the trees' means over everyone
}

// credit is a column's share of one tree's score, by leaf.
type credit struct {
	column int
	byLeaf []float64
}

func newExplainer(f *features, bins []index.Bins, set index.HeadSet) *explainer {
	e := &explainer{f: f, set: set, bins: bins}
	for i := range set.Heads {
		e.heads = append(e.heads, &set.Heads[i])
	}
	if set.Common != nil {
		e.heads = append(e.heads, set.Common)
	}
	for _, h := range e.heads {
		used := make([]bool, len(bins))
		for c, t := range h.Tables {
			used[c] = t != nil
		}
		base := float64(h.Bias)
		var credits [][]credit
		for t := range h.Trees {
			mean, shares := shapley(&h.Trees[t])
			base += mean
			for _, s := range shares {
				used[s.column] = true
			}
			credits = append(credits, shares)
		}
		e.used, e.credits, e.base = append(e.used, used), append(e.credits, credits), append(e.base, base)
	}
	return e
}

// addends is a score taken apart.
type addends struct {
	column    []float64
	used      []bool // columns that a head looks at
	text      float64
	hasText   bool
	intercept float64
}

// score is their sum.
func (a *addends) score() float64 {
	sum := a.text + a.intercept
	for _, v := range a.column {
		sum += v
	}
	return sum
}

// explain takes apart the score of a row of these bins whose text deviates from
// everyone's mean by x. Of a set's heads the highest, or the mean of the highest
// few, is what counts, and what is common to them.
func (e *explainer) explain(x, center []float32, codes func(column int) []uint16) addends {
	n := len(e.set.Heads)
	each := make([]addends, len(e.heads))
	totals := make([]float64, n)
	for i, h := range e.heads {
		a := &each[i]
		a.column, a.intercept = e.columns(i, codes)
		a.used = e.used[i]
		if a.hasText = h.Vector != nil; a.hasText {
			a.text = dot(h.Vector, x)
			a.intercept += dot(h.Vector, center)
		}
		if i < n {
			totals[i] = a.score()
		}
	}
	best := nearest(totals, tops(&e.set))
	out := addends{column: make([]float64, len(e.bins)), used: make([]bool, len(e.bins))}
	add := func(a *addends, share float64) {
		for c, v := range a.column {
			out.column[c] += share * v
			out.used[c] = out.used[c] || a.used[c]
		}
		out.text += share * a.text
		out.hasText = out.hasText || a.hasText
		out.intercept += share * a.intercept
	}
	for _, i := range best {
		add(&each[i], 1/float64(len(best)))
	}
	if e.set.Common != nil {
		add(&each[n], 1)
	}
	return out
}

// parts are the addends by name, the largest first and the intercept last.
func (e *explainer) parts(a addends) []Part {
	out := make([]Part, 0, len(a.column)+2)
	for c, v := range a.column {
		if a.used[c] {
			out = append(out, Part{Of: e.bins[c].Column, Value: float32(v)})
		}
	}
	if a.hasText {
		out = append(out, Part{Of: "text", Value: float32(a.text)})
	}
	slices.SortStableFunc(out, func(a, b Part) int {
		return cmp.Compare(math.Abs(float64(b.Value)), math.Abs(float64(a.Value)))
	})
	return append(out, Part{Of: "intercept", Value: float32(a.intercept)})
}

// columns returns each column's part of a head's score for a row of these bins,
// and what is left: the intercept, without the text's.
func (e *explainer) columns(head int, codes func(column int) []uint16) (parts []float64, intercept float64) {
	h := e.heads[head]
	parts = make([]float64, len(e.used[head]))
	for c, t := range h.Tables {
		if t != nil {
			parts[c] = tableScore(t, codes(c))
		}
	}
	for t := range h.Trees {
		leaf := leafOf(&h.Trees[t], codes)
		for _, s := range e.credits[head][t] {
			parts[s.column] += s.byLeaf[leaf]
		}
	}
	return parts, e.base[head]
}

// shapley divides a tree's score among its columns by their Shapley values
// (Lundberg and others, Nature Machine Intelligence 2020, interventional): the
// value of a set of columns is the mean leaf when their answers are the row's and
// the others are everyone's. A tree has few columns, so all sets are summed. For
// each leaf the shares add up to the leaf less the mean, which comes first.
func shapley(t *index.Tree) (mean float64, shares []credit) {
	leaves := len(t.Leaves)
	var masks []int // the bits of each column's splits
	for level, s := range t.Splits {
		at := -1
		for i := range shares {
			if shares[i].column == s.Bins {
				at = i
			}
		}
		if at < 0 {
			at = len(shares)
			shares = append(shares, credit{column: s.Bins, byLeaf: make([]float64, leaves)})
			masks = append(masks, 0)
		}
		masks[at] |= 1 << level
	}
	cover := make([]float64, leaves)
	for i := range cover {
		cover[i] = 1 / float64(leaves)
		if t.Cover != nil {
			cover[i] = float64(t.Cover[i])
		}
	}
	n := len(shares)
	known := make([]int, 1<<n) // the bits that a set of columns settles
	for set := range known {
		for i, m := range masks {
			if set>>i&1 == 1 {
				known[set] |= m
			}
		}
	}
	weight := make([]float64, n) // of a set of k other columns: k! (n-k-1)! / n!
	for k := range weight {
		weight[k] = 1 / float64(n)
		for j := range k {
			weight[k] *= float64(k-j) / float64(n-1-j)
		}
	}
	value := make([]float64, 1<<n)
	for leaf := range leaves {
		for set, bitsKnown := range known {
			value[set] = 0
			for other, q := range cover {
				value[set] += q * float64(t.Leaves[leaf&bitsKnown|other&^bitsKnown])
			}
		}
		mean = value[0]
		for i := range shares {
			for set := range value {
				if set>>i&1 == 0 {
					shares[i].byLeaf[leaf] += weight[bits.OnesCount(uint(set))] * (value[set|1<<i] - value[set])
				}
			}
		}
	}
	return mean, shares
}
