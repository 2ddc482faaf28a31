package rows

import (
	"encoding/binary"
	"math"

	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
)

// devicePlan is a plan as a device takes it, and false where it holds what only the CPU
// does: sets of values, the sum of exponentials (whose bits differ between
// libraries), long means.
func (v *View) devicePlan(p *plan, req *index.ScanRequest) (*scan.Plan, bool) {
	if !v.forDevice() {
		return nil, false
	}
	out := &scan.Plan{}
	columns := make([]int, len(req.Bins)) // places in out.Columns, or -1
	for k := range columns {
		columns[k] = -1
	}
	column := func(k int) (int, bool) {
		if columns[k] < 0 {
			c, ok := v.deviceColumn(&req.Bins[k])
			if !ok {
				return 0, false
			}
			columns[k] = len(out.Columns)
			out.Columns = append(out.Columns, c)
		}
		return columns[k], true
	}
	vector := map[int][]int16{}
	for k, h := range p.which {
		vector[h] = p.int8s[k]
	}
	head := func(number int, h *index.Head) (scan.SumHead, bool) {
		hp := &p.heads[number]
		sum := scan.SumHead{Head: scan.Head{Codes: vector[number], Scale: hp.scale, Bias: hp.bias}}
		for k, table := range h.Tables {
			if table == nil {
				continue
			}
			c, ok := column(k)
			if !ok {
				return sum, false
			}
			t := scan.Table{Column: c, Values: make([]float64, len(table))}
			for j, x := range table {
				t.Values[j] = float64(x)
			}
			sum.Tables = append(sum.Tables, t)
		}
		for i := range h.Trees {
			t := scan.Tree{Leaves: hp.trees[i].leaves}
			for level, s := range h.Trees[i].Splits {
				c, ok := column(s.Bins)
				if !ok {
					return sum, false
				}
				t.Splits = append(t.Splits, scan.Split{Column: c, Answer: hp.trees[i].splits[level].answer})
			}
			sum.Trees = append(sum.Trees, t)
		}
		return sum, true
	}
	for s, set := range req.Sets {
		sp := p.sets[s]
		to := scan.Set{Top: sp.top}
		switch set.Reduce {
		case "", index.Max:
		case index.Mean:
			to.Reduce = scan.Mean
		case index.TopMean:
			to.Reduce = scan.TopMean
		default:
			if sp.count > 1 || sp.common >= 0 {
				return nil, false
			}
		}
		if sp.count == 0 || sp.top > scan.TopMost {
			return nil, false
		}
		for i := range set.Heads {
			h, ok := head(sp.first+i, &set.Heads[i])
			if !ok {
				return nil, false
			}
			to.Heads = append(to.Heads, h)
		}
		if set.Common != nil {
			h, ok := head(sp.common, set.Common)
			if !ok {
				return nil, false
			}
			to.Common = &h
		}
		out.Sets = append(out.Sets, to)
	}
	return out, true
}

// deviceColumn is a column as bins, named by what they are.
func (v *View) deviceColumn(b *index.Bins) (scan.Column, bool) {
	if b.Kind == index.Set || b.Count() > math.MaxUint16+1 {
		return scan.Column{}, false
	}
	c, err := v.treeColumn(b)
	if err != nil {
		return scan.Column{}, false
	}
	key := binary.AppendUvarint(nil, uint64(c.column))
	for _, e := range b.Edges {
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(e))
	}
	for _, x := range b.Values {
		key = append(binary.AppendUvarint(key, uint64(len(x))), x...)
	}
	return scan.Column{Key: string(key), Bins: b.Count(), Fill: func(from int, dst []uint16) {
		for size := 1 << v.core.shift; len(dst) > 0; {
			ch, i := v.at(uint32(from))
			n := min(size-i, len(dst))
			if c.bins != nil {
				copy(dst[:n], c.bins[from>>v.core.shift][i:])
			} else {
				for j, code := range ch.cols[c.column].codes[i : i+n] {
					dst[j] = c.toBin[code+1]
				}
			}
			from, dst = from+n, dst[n:]
		}
	}}, true
}
