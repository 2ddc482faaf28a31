package audience

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// boost is gradient boosting of symmetric trees over bins (the trees of
// Prokhorenkova and others, NeurIPS 2018): every node of a level asks the same
// question, so a tree of depth d has d questions and 2^d leaves. It is
// positive-unlabelled like logistic: seeds against background, each side with the
// same total weight, logistic loss.
type boost struct {
	trees  int
	depth  int
	rate   float64 // of learning
	lambda float64 // how many seeds' worth of doubt is added to each leaf
	share  float64 // of the columns that each level may ask about
}

// grower is the state of one fit.
type grower struct {
	boost
	columns []growColumn
	target  []float64 // 1 seed, 0 background
	weight  []float64
	score   []float64
	grad    []float64
	hess    []float64
	leaf    []uint8
	rng     *rand.Rand
}

// growColumn is a column as training sees it. order lists the bins that a
// question cuts in two: a number's from low to high, a category's from the least
// to the most evidence; missing (bin 0) of a number stands apart and goes to the
// side where it helps. A set's questions are of one element each.
type growColumn struct {
	bins  int
	kind  index.Kind
	codes []uint16 // by row of training; nil for a set
	sets  [][]uint16
	order []int
}

// question is a split with what it gains.
type question struct {
	column int
	right  []byte // bitset over bins
	gain   float64
}

func (b boost) fit(ctx context.Context, m *material, s subset) (index.Head, error) {
	g := &grower{boost: b, rng: rand.New(rand.NewPCG(uint64(len(s.pos)), 0x7472656573))}
	rows := slices.Concat(s.pos, s.neg)
	pos, neg := 0.0, 0.0
	for _, i := range s.pos {
		pos += m.weight[i]
	}
	for _, i := range s.neg {
		neg += m.weight[i]
	}
	n := len(rows)
	g.target, g.weight = make([]float64, n), make([]float64, n)
	for k, i := range rows {
		if k < len(s.pos) {
			g.target[k], g.weight[k] = 1, m.weight[i]*float64(len(s.pos))/pos
		} else {
			g.weight[k] = m.weight[i] * float64(len(s.pos)) / neg
		}
	}
	evidence := fitEvidence(m, s)
	for c := range m.f.bins {
		g.columns = append(g.columns, newGrowColumn(m, c, rows, evidence[c]))
	}
	g.score, g.grad, g.hess, g.leaf = make([]float64, n), make([]float64, n), make([]float64, n), make([]uint8, n)
	h := index.Head{}
	for range b.trees {
		if err := ctx.Err(); err != nil {
			return h, err
		}
		tree, ok := g.grow(len(s.pos))
		if !ok {
			break
		}
		h.Trees = append(h.Trees, tree)
	}
	return h, nil
}

func newGrowColumn(m *material, c int, rows []int, evidence []float32) growColumn {
	b := &m.f.bins[c]
	out := growColumn{bins: b.Count(), kind: b.Kind}
	if b.Kind == index.Set {
		out.sets = make([][]uint16, len(rows))
		for k, i := range rows {
			out.sets[k] = codesOf(m.f.codes[c], m.rows[i])
		}
		return out
	}
	out.codes = make([]uint16, len(rows))
	for k, i := range rows {
		out.codes[k] = m.f.codes[c].Codes[m.rows[i]]
	}
	if b.Kind.Numeric() {
		out.order = span(1, out.bins)
		return out
	}
	out.order = span(0, out.bins)
	slices.SortStableFunc(out.order, func(x, y int) int { return cmp.Compare(evidence[x], evidence[y]) })
	return out
}

// grow adds one tree and moves the scores by it. It reports false when no
// question gains anything.
func (g *grower) grow(seeds int) (index.Tree, bool) {
	for k, z := range g.score {
		p := 1 / (1 + math.Exp(-z))
		g.grad[k] = g.weight[k] * (p - g.target[k])
		g.hess[k] = g.weight[k] * math.Max(p*(1-p), 1e-6)
		g.leaf[k] = 0
	}
	var t index.Tree
	for level := range g.depth {
		best := question{gain: 1e-6}
		all := g.totals(1 << level)
		for _, c := range g.drawn() {
			if q := g.ask(c, all); q.gain > best.gain {
				best = q
			}
		}
		if best.right == nil {
			break
		}
		t.Splits = append(t.Splits, index.Split{Bins: best.column, Right: best.right})
		g.divide(best, level)
	}
	if len(t.Splits) == 0 {
		return t, false
	}
	leaves := 1 << len(t.Splits)
	sumG, sumH, cover := make([]float64, leaves), make([]float64, leaves), make([]float64, leaves)
	for k, leaf := range g.leaf {
		sumG[leaf] += g.grad[k]
		sumH[leaf] += g.hess[k]
		if k >= seeds {
			cover[leaf]++
		}
	}
	t.Leaves, t.Cover = make([]float32, leaves), make([]float32, leaves)
	for i := range t.Leaves {
		t.Leaves[i] = float32(-g.rate * sumG[i] / (sumH[i] + g.lambda))
		t.Cover[i] = float32(cover[i] / float64(len(g.leaf)-seeds))
	}
	for k, leaf := range g.leaf {
		g.score[k] += float64(t.Leaves[leaf])
	}
	return t, true
}

// drawn are the columns that a level may ask about. When none was drawn, which of few
// columns is often, it may ask about all: a tree without a question would end the fit.
func (g *grower) drawn() []int {
	var out []int
	for c := range g.columns {
		if g.rng.Float64() < g.share {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return span(0, len(g.columns))
	}
	return out
}

func (g *grower) divide(q question, level int) {
	col := &g.columns[q.column]
	for k := range g.leaf {
		if col.sets != nil {
			if slices.ContainsFunc(col.sets[k], func(c uint16) bool { return has(q.right, c) }) {
				g.leaf[k] |= 1 << level
			}
		} else if has(q.right, col.codes[k]) {
			g.leaf[k] |= 1 << level
		}
	}
}

func has(set []byte, bin uint16) bool { return set[bin>>3]>>(bin&7)&1 == 1 }

// moment is the sum of gradients and of hessians.
type moment struct{ g, h float64 }

func (m moment) gain(lambda float64) float64 { return m.g * m.g / (m.h + lambda) }

// totals are the moments of each leaf.
func (g *grower) totals(leaves int) []moment {
	out := make([]moment, leaves)
	for k, leaf := range g.leaf {
		out[leaf].g += g.grad[k]
		out[leaf].h += g.hess[k]
	}
	return out
}

// histogram fills hist, [leaf][bin].
func (g *grower) histogram(col *growColumn, hist []moment) {
	if col.sets == nil {
		for k, code := range col.codes {
			m := &hist[int(g.leaf[k])*col.bins+int(code)]
			m.g += g.grad[k]
			m.h += g.hess[k]
		}
		return
	}
	for k, set := range col.sets {
		for _, code := range set {
			m := &hist[int(g.leaf[k])*col.bins+int(code)]
			m.g += g.grad[k]
			m.h += g.hess[k]
		}
	}
}

// ask finds the column's best question over leaves of these moments.
func (g *grower) ask(c int, all []moment) question {
	col := &g.columns[c]
	leaves := len(all)
	hist := make([]moment, leaves*col.bins)
	g.histogram(col, hist)
	before := 0.0
	for _, m := range all {
		before += m.gain(g.lambda)
	}
	right := make([]moment, leaves)
	best := question{column: c}
	// gain is of the question that sends right what the moments of right hold.
	gain := func() float64 {
		sum := -before
		for l, r := range right {
			sum += r.gain(g.lambda) + moment{all[l].g - r.g, all[l].h - r.h}.gain(g.lambda)
		}
		return sum
	}
	add := func(bin int) {
		for l := range right {
			right[l].g += hist[l*col.bins+bin].g
			right[l].h += hist[l*col.bins+bin].h
		}
	}
	if col.sets != nil {
		for bin := range col.bins {
			clear(right)
			add(bin)
			if v := gain(); v > best.gain {
				best.gain, best.right = v, bitset(col.bins, []int{bin})
			}
		}
		return best
	}
	sides := 1
	if col.kind.Numeric() {
		sides = 2 // missing with the low side, then with the high
	}
	for side := range sides {
		clear(right)
		var with []int
		if side == 1 {
			add(0)
			with = []int{0}
		}
		for cut := len(col.order) - 1; cut >= 0; cut-- {
			add(col.order[cut])
			if v := gain(); v > best.gain {
				best.gain, best.right = v, bitset(col.bins, append(slices.Clone(with), col.order[cut:]...))
			}
		}
	}
	return best
}

func bitset(bins int, members []int) []byte {
	out := make([]byte, (bins+7)/8)
	for _, b := range members {
		out[b>>3] |= 1 << (b & 7)
	}
	return out
}

// leafOf is the leaf of a tree that a row's bins lead to.
func leafOf(t *index.Tree, codes func(column int) []uint16) int {
	leaf := 0
	for level, s := range t.Splits {
		for _, c := range codes(s.Bins) {
			if has(s.Right, c) {
				leaf |= 1 << level
				break
			}
		}
	}
	return leaf
}
