package rows

import (
	"slices"

	"github.com/kindred-search/kindred/index"
)

// treeColumn is a column that trees ask about, as bins of the request.
type treeColumn struct {
	column int
	kind   index.Kind
	bins   [][]uint16 // numbers: by chunk and row
	toBin  []uint16   // others: by 1 + code
}

// treePlan is one tree of a head.
type treePlan struct {
	splits []splitPlan
	leaves []float64
}

// splitPlan answers by bin: its bit of the leaf's number, or 0.
type splitPlan struct {
	column int // of plan.asked
	answer []uint8
}

// planTrees readies the trees of a head; columns[k] is the place among p.asked of
// the request's bins k, or -1 before it is first asked about.
func (p *plan) planTrees(req *index.ScanRequest, trees []index.Tree, columns []int) ([]treePlan, error) {
	out := make([]treePlan, len(trees))
	for i := range trees {
		t := &trees[i]
		for level, s := range t.Splits {
			if columns[s.Bins] < 0 {
				c, err := p.view.treeColumn(&req.Bins[s.Bins])
				if err != nil {
					return nil, err
				}
				columns[s.Bins] = len(p.asked)
				p.asked = append(p.asked, c)
			}
			answer := make([]uint8, req.Bins[s.Bins].Count())
			for b := range answer {
				answer[b] = s.Right[b>>3] >> (b & 7) & 1 << level
			}
			out[i].splits = append(out[i].splits, splitPlan{columns[s.Bins], answer})
		}
		for _, x := range t.Leaves {
			out[i].leaves = append(out[i].leaves, float64(x))
		}
	}
	return out, nil
}

func (v *View) treeColumn(b *index.Bins) (treeColumn, error) {
	k, err := v.column(b.Column)
	if err != nil {
		return treeColumn{}, err
	}
	c := treeColumn{column: k, kind: b.Kind}
	if b.Kind.Numeric() {
		c.bins = v.bins(k, b.Edges)
		return c, nil
	}
	c.toBin = make([]uint16, len(v.names[k])+1)
	for code, name := range v.names[k] {
		c.toBin[code+1] = 1
		if i, ok := slices.BinarySearch(b.Values, name); ok {
			c.toBin[code+1] = uint16(i + 2)
		}
	}
	return c, nil
}

// gathered is a block's bins in one column, row by row of the scored; a set's
// row j has bins[from[j]:from[j+1]].
type gathered struct {
	bins []uint16
	from []int
}

// gather collects the bins that trees ask about, once a block for all trees.
func (w *worker) gather(ch *chunk, first int) {
	for k := range w.asked {
		c := &w.asked[k]
		col := &ch.cols[c.column]
		g := &w.gathered[k]
		g.bins = g.bins[:0]
		switch {
		case c.bins != nil:
			bins := c.bins[first>>w.view.core.shift]
			for _, i := range w.idx {
				g.bins = append(g.bins, bins[i])
			}
		case c.kind == index.Set:
			g.from = g.from[:0]
			for _, i := range w.idx {
				g.from = append(g.from, len(g.bins))
				if len(col.sets[i]) == 0 {
					g.bins = append(g.bins, 0)
				}
				for _, code := range col.sets[i] {
					g.bins = append(g.bins, c.toBin[code+1])
				}
			}
			g.from = append(g.from, len(g.bins))
		default:
			for _, i := range w.idx {
				g.bins = append(g.bins, c.toBin[col.codes[i]+1])
			}
		}
	}
}

// trees adds the leaves that the block's rows fall into: a level at a time over
// the whole block, which keeps the loops free of branches.
func (w *worker) trees(h int) {
	acc := w.acc[h][:len(w.idx)]
	leaf := w.leaf[:len(w.idx)]
	for t := range w.heads[h].trees {
		tree := &w.heads[h].trees[t]
		clear(leaf)
		for _, s := range tree.splits {
			g := &w.gathered[s.column]
			if w.asked[s.column].kind == index.Set {
				for j := range leaf {
					bit := uint8(0)
					for _, b := range g.bins[g.from[j]:g.from[j+1]] {
						bit |= s.answer[b]
					}
					leaf[j] |= bit
				}
				continue
			}
			bins := g.bins[:len(leaf)]
			for j := range leaf {
				leaf[j] |= s.answer[bins[j]]
			}
		}
		for j := range acc {
			acc[j] += tree.leaves[leaf[j]]
		}
	}
}
