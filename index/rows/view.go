package rows

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// View is a Table at one version. It implements index.Snapshot.
type View struct {
	spec    index.Spec
	opt     Options // the table's
	core    *core
	chunks  []*chunk
	n       uint32
	live    *roaring.Bitmap
	names   [][]string // dictionaries, by column
	version uint64
}

var _ index.Snapshot = (*View)(nil)

func sortCodes(c []int32) { slices.Sort(c) }

// Spec is the collection's spec at this version.
func (v *View) Spec() index.Spec { return v.spec }

// Len is the number of rows, dead ones included.
func (v *View) Len() int { return int(v.n) }

// Live is the set of current rows. The caller must not change it.
func (v *View) Live() *roaring.Bitmap { return v.live }

// Version changes with every change of the table.
func (v *View) Version() uint64 { return v.version }

// Close does nothing: a view is memory, freed when nothing refers to it.
func (v *View) Close() error { return nil }

func (v *View) at(row uint32) (*chunk, int) {
	return v.chunks[row>>v.core.shift], int(row & (1<<v.core.shift - 1))
}

// ID returns the id of a row below Len, dead or live.
func (v *View) ID(row uint32) string {
	ch, i := v.at(row)
	return ch.ids[i]
}

// Find returns the row that was live under an id when the view was taken.
func (v *View) Find(id string) (uint32, bool) {
	c := v.core
	c.mu.RLock()
	defer c.mu.RUnlock()
	row, ok := c.newest(id)
	for ok && row >= v.n { // a later version; go back
		ch, i := c.at(row)
		ok, row = ch.prev[i] != 0, ch.prev[i]-1
	}
	if !ok || !v.live.Contains(row) {
		return 0, false
	}
	return row, true
}

// Vectors copies the stored vectors of rows into dst, [len(rows), dim].
func (v *View) Vectors(rows []uint32, dst []float32) error {
	dim := v.spec.Dim
	if len(dst) < len(rows)*dim {
		return fmt.Errorf("%w: vectors of %d rows of dim %d need %d numbers, dst has %d", index.ErrInvalid, len(rows), dim, len(rows)*dim, len(dst))
	}
	for j, row := range rows {
		if row >= v.n {
			return fmt.Errorf("%w: row %d of %d", index.ErrInvalid, row, v.n)
		}
		ch, i := v.at(row)
		vec := ch.vector(i, dim)
		vec.Decode(dst[j*dim : (j+1)*dim])
	}
	return nil
}

func (v *View) column(name string) (int, error) {
	for i, c := range v.spec.Columns {
		if c.Name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: column %q of collection %q", index.ErrNotFound, name, v.spec.Name)
}

// Column returns a copy of one column by row number.
func (v *View) Column(name string) (index.ColumnData, error) {
	k, err := v.column(name)
	if err != nil {
		return index.ColumnData{}, err
	}
	d := index.ColumnData{Kind: v.spec.Columns[k].Kind, Dict: slices.Clone(v.names[k])}
	size := 1 << v.core.shift
	left := int(v.n)
	if d.Kind == index.Set {
		d.Offsets = append(make([]uint32, 0, left+1), 0)
	}
	for _, ch := range v.chunks {
		m := min(left, size)
		left -= m
		col := &ch.cols[k]
		switch {
		case col.nums != nil:
			d.Numbers = append(d.Numbers, col.nums[:m]...)
		case col.codes != nil:
			d.Codes = append(d.Codes, col.codes[:m]...)
		default:
			for _, set := range col.sets[:m] {
				if len(d.Codes)+len(set) > math.MaxUint32 {
					return index.ColumnData{}, fmt.Errorf("%w: column %q has more than 2^32 elements", index.ErrInvalid, name)
				}
				d.Codes = append(d.Codes, set...)
				d.Offsets = append(d.Offsets, uint32(len(d.Codes)))
			}
		}
	}
	return d, nil
}

// Number is one row's value of a numeric column, given by its place in the spec; NaN
// where it is missing.
func (v *View) Number(column int, row uint32) float64 {
	ch, i := v.at(row)
	return ch.cols[column].nums[i]
}

// Row returns a copy of a row's vector and columns, without its record.
func (v *View) Row(row uint32) *index.Row {
	ch, i := v.at(row)
	r := &index.Row{ID: ch.ids[i]}
	r.Vector = v.vectorOf(ch, i)
	for k, val := range values(&v.spec, ch, i, v.names) {
		if val.Kind != "" {
			if r.Values == nil {
				r.Values = map[string]index.Value{}
			}
			r.Values[v.spec.Columns[k].Name] = val
		}
	}
	return r
}

// vectorOf decodes a vector, nil when the row has none.
func (v *View) vectorOf(ch *chunk, i int) []float32 {
	vec := ch.vector(i, v.spec.Dim)
	if vec.None() {
		return nil
	}
	out := make([]float32, v.spec.Dim)
	vec.Decode(out)
	for _, x := range out {
		if x != 0 {
			return out
		}
	}
	return nil
}

// Search answers a point look-up exactly. See index.Engine.
func (v *View) Search(ctx context.Context, q index.Query) ([]index.Hit, error) {
	if q.Limit < 0 || q.Offset < 0 {
		return nil, fmt.Errorf("%w: limit %d, offset %d: neither may be negative", index.ErrInvalid, q.Limit, q.Offset)
	}
	var head index.Head
	if q.Vector != nil {
		req := index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: q.Vector}}}}}
		if err := req.Validate(v.spec); err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		head.Vector, _ = Unit(q.Vector) // a zero vector scores 0 everywhere
	}
	mask, err := v.Match(q.Filter)
	if err != nil {
		return nil, err
	}
	for _, id := range q.Exclude {
		if row, ok := v.Find(id); ok {
			mask.Remove(row)
		}
	}
	if q.Limit == 0 || q.Offset >= int(mask.GetCardinality()) {
		q.Say(index.Found{Path: index.PathScan, Exact: true})
		return []index.Hit{}, nil
	}
	scores, err := v.Scan(ctx, index.ScanRequest{Mask: mask, Sets: []index.HeadSet{{Heads: []index.Head{head}}}})
	if err != nil {
		return nil, err
	}
	q.Say(index.Found{Path: index.PathScan, Exact: true})
	s := scores[0]
	for i, x := range s { // rounding may pass 1 by an ulp; -Inf stays
		if x > 1 {
			s[i] = 1
		} else if x < -1 && !math.IsInf(float64(x), -1) {
			s[i] = -1
		}
	}
	best := selection.Select(s, min(q.Limit, int(v.n))+min(q.Offset, int(v.n)), selection.Options{Tie: v.Tie})
	best = best[min(q.Offset, len(best)):]
	hits := make([]index.Hit, len(best))
	for i, row := range best {
		hits[i] = index.Hit{ID: v.ID(row), Score: s[row]}
	}
	return hits, nil
}

// Tie orders two rows by id, bytewise: the order of equal scores.
func (v *View) Tie(a, b uint32) int { return cmp.Compare(v.ID(a), v.ID(b)) }
