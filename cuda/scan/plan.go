package scan

import (
	"errors"
	"fmt"
	"slices"
)

// Reduce turns the scores of a set's heads into one.
type Reduce int32

// The reductions.
const (
	Max Reduce = iota
	Mean
	TopMean // the mean of the Top highest
)

// TopMost is the greatest Top.
const TopMost = 64

// Plan is what rows are scored with: sets of heads over a vector and bins of columns.
// The order of a head's sum is vector, tables, trees, bias, in fp64, rounded once to
// fp32 when the set has been reduced.
type Plan struct {
	Columns []Column
	Sets    []Set
	// Progress, where given, is told after each tile how many of all rows are done.
	Progress func(done, total int)
}

// Column is a column as bins, one a row, which never change for a row.
type Column struct {
	// Key names what the bins are: a population keeps those of columns asked for
	// before, and takes an equal key for equal bins.
	Key  string
	Bins int // how many there are: every bin is below
	// Fill writes the bins of rows from, from+1, ... to dst.
	Fill func(from int, dst []uint16)
}

// Set is heads that are reduced to one score; the score of Common, where given, is
// then added.
type Set struct {
	Heads  []SumHead
	Reduce Reduce
	Top    int // of TopMean, 1 to the number of heads and at most TopMost
	Common *SumHead
}

// SumHead is a head of a Plan. Codes is nil for none, and as in [Head] else.
type SumHead struct {
	Head
	Tables []Table
	Trees  []Tree
}

// Table adds Values[bin] of a column.
type Table struct {
	Column int
	Values []float64
}

// Tree adds the leaf whose number is all its splits' answers, ORed.
type Tree struct {
	Splits []Split
	Leaves []float64
}

// Split answers by bin with its bit of the leaf's number, or 0.
type Split struct {
	Column int
	Answer []byte
}

// packed is a plan as the kernel finish reads it.
type packed struct {
	ints    []int32
	values  []float64
	answers []byte
	vectors []Head
	most    int // greatest Top
}

// pack checks a plan and lays it out, for rows of dim codes.
func (p *Plan) pack(dim int) (*packed, error) {
	k := &packed{most: 1}
	var sets, heads, tables, trees, splits []int32
	column := func(c, bins int, what string) error {
		if c < 0 || c >= len(p.Columns) {
			return fmt.Errorf("%s of column %d: there are %d", what, c, len(p.Columns))
		}
		if bins != p.Columns[c].Bins {
			return fmt.Errorf("%s of %d bins, column %d has %d", what, bins, c, p.Columns[c].Bins)
		}
		return nil
	}
	add := func(h *SumHead) error {
		r := [7]int32{-1, int32(len(k.values)), int32(len(k.values)) + 1, int32(len(tables) / 2), 0, int32(len(trees) / 3), 0}
		k.values = append(k.values, h.Scale, h.Bias)
		if h.Codes != nil {
			if len(h.Codes) != dim {
				return fmt.Errorf("a head has %d codes, rows have %d", len(h.Codes), dim)
			}
			r[0] = int32(len(k.vectors))
			k.vectors = append(k.vectors, h.Head)
		}
		for _, t := range h.Tables {
			if err := column(t.Column, len(t.Values), "a table"); err != nil {
				return err
			}
			tables = append(tables, int32(t.Column), int32(len(k.values)))
			k.values = append(k.values, t.Values...)
		}
		for _, t := range h.Trees {
			if len(t.Splits) > 8 || len(t.Leaves) != 1<<len(t.Splits) {
				return fmt.Errorf("a tree of %d splits with %d leaves", len(t.Splits), len(t.Leaves))
			}
			first := int32(len(splits) / 2)
			for _, s := range t.Splits {
				if err := column(s.Column, len(s.Answer), "a split"); err != nil {
					return err
				}
				for _, a := range s.Answer {
					if int(a) >= len(t.Leaves) {
						return fmt.Errorf("a split's answer is %d, of a tree of %d leaves", a, len(t.Leaves))
					}
				}
				splits = append(splits, int32(s.Column), int32(len(k.answers)))
				k.answers = append(k.answers, s.Answer...)
			}
			trees = append(trees, first, int32(len(splits)/2), int32(len(k.values)))
			k.values = append(k.values, t.Leaves...)
		}
		r[4], r[6] = int32(len(tables)/2), int32(len(trees)/3)
		heads = append(heads, r[:]...)
		return nil
	}
	for i, s := range p.Sets {
		switch {
		case len(s.Heads) == 0:
			return nil, fmt.Errorf("set %d has no heads", i)
		case s.Reduce < Max || s.Reduce > TopMean:
			return nil, fmt.Errorf("set %d: no reduction %d", i, s.Reduce)
		case s.Reduce == TopMean && (s.Top < 1 || s.Top > min(len(s.Heads), TopMost)):
			return nil, fmt.Errorf("set %d: the mean of the top %d of %d heads: want 1 to %d", i, s.Top, len(s.Heads), min(len(s.Heads), TopMost))
		}
		r := []int32{int32(len(heads) / 7), int32(len(s.Heads)), -1, int32(s.Reduce), int32(s.Top)}
		for h := range s.Heads {
			if err := add(&s.Heads[h]); err != nil {
				return nil, fmt.Errorf("set %d, head %d: %w", i, h, err)
			}
		}
		if s.Common != nil {
			r[2] = int32(len(heads) / 7)
			if err := add(s.Common); err != nil {
				return nil, fmt.Errorf("set %d, common head: %w", i, err)
			}
		}
		if s.Reduce == TopMean {
			k.most = max(k.most, s.Top)
		}
		sets = append(sets, r...)
	}
	k.ints = make([]int32, 6)
	k.ints[0] = int32(len(p.Sets))
	for i, part := range [][]int32{sets, heads, tables, trees, splits} {
		k.ints[i+1] = int32(len(k.ints))
		k.ints = append(k.ints, part...)
	}
	// A place is an int.
	const most = 1 << 30
	if len(k.ints) > most || len(k.values) > most || len(k.answers) > most {
		return nil, errors.New("the heads of a plan are too many for one pass")
	}
	return k, nil
}

// vectorsAlone says whether every set is one vector and nothing else, so that its scores are the
// vectors'.
func (p *Plan) vectorsAlone() bool {
	return !slices.ContainsFunc(p.Sets, func(s Set) bool {
		return len(s.Heads) != 1 || s.Common != nil || s.Reduce == TopMean || s.Heads[0].Codes == nil || len(s.Heads[0].Tables)+len(s.Heads[0].Trees) > 0
	})
}

// group says how many sets from the first on have together at most so many vectors,
// at least one.
func group(sets []Set, vectors int) int {
	n, sum := 0, 0
	for _, s := range sets {
		for h := range s.Heads {
			if s.Heads[h].Codes != nil {
				sum++
			}
		}
		if s.Common != nil && s.Common.Codes != nil {
			sum++
		}
		if n > 0 && sum > vectors {
			break
		}
		n++
	}
	return n
}

// column is the bins of one column on the device, by segment.
type column struct {
	key      string
	segments []*binned
}

// keepColumns is how many columns a population keeps that the last plan did not ask
// for.
const keepColumns = 64

// oldest drops the columns beyond those that are kept, the ones asked for longest ago
// first; used holds the keys that must stay.
func (p *Population) oldest(used []Column) error {
	var all []error
	for i := 0; len(p.columns) > keepColumns && i < len(p.columns); {
		c := p.columns[i]
		if slices.ContainsFunc(used, func(u Column) bool { return u.Key == c.key }) {
			i++
			continue
		}
		all = append(all, c.free())
		p.columns = slices.Delete(p.columns, i, i+1)
	}
	return errors.Join(all...)
}
