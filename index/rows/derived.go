package rows

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// derived holds what is computed from rows and kept: rows never change, so an
// entry is only ever extended to rows that came later.
type derived struct {
	mu    sync.Mutex
	posts map[postKey]posting
	order []postKey // oldest first
	bins  map[string]*binned
	names []string // keys of bins, oldest first
}

// At most this many are kept of each; the oldest goes first. A posting of one
// million rows takes at most 128 KB, a binned column 2 MB.
const (
	maxPostings = 1024
	maxBinned   = 64
)

type postKey struct {
	column int
	code   int32
}

// posting is the rows below upto that hold one value, live or dead.
type posting struct {
	upto uint32
	rows *roaring.Bitmap // never changed once it is here
}

// post returns the rows of a view that hold a code: of a category or set, or a
// bool's 0 or 1. The result may reach beyond the view and must not be changed.
func (v *View) post(column int, code int32) *roaring.Bitmap {
	d := &v.core.derive
	key := postKey{column, code}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.posts[key]
	if ok && p.upto >= v.n {
		return p.rows
	}
	rows := roaring.New()
	if ok {
		rows = p.rows.Clone()
	}
	size := uint32(1) << v.core.shift
	var found []uint32
	for row := p.upto; row < v.n; {
		ch, i := v.at(row)
		m := int(min(size-uint32(i), v.n-row))
		col := &ch.cols[column]
		for j := i; j < i+m; j++ {
			var is bool
			switch {
			case col.nums != nil:
				is = col.nums[j] == float64(code)
			case col.codes != nil:
				is = col.codes[j] == code
			default:
				_, is = slices.BinarySearch(col.sets[j], code)
			}
			if is {
				found = append(found, row+uint32(j-i))
			}
		}
		row += uint32(m)
	}
	rows.AddMany(found)
	rows.RunOptimize()
	if d.posts == nil {
		d.posts = map[postKey]posting{}
	}
	if !ok {
		if len(d.order) >= maxPostings {
			delete(d.posts, d.order[0])
			d.order = d.order[1:]
		}
		d.order = append(d.order, key)
	}
	d.posts[key] = posting{v.n, rows}
	return rows
}

// binned is a numeric column as bin numbers, by chunk.
type binned struct {
	upto   uint32
	chunks [][]uint16
}

// bins returns the bin numbers of a numeric column, by chunk, for every row of
// the view. The result must not be changed.
func (v *View) bins(column int, edges []float64) [][]uint16 {
	key := binary.AppendVarint(nil, int64(column))
	for _, e := range edges {
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(e))
	}
	d := &v.core.derive
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.bins[string(key)]
	if !ok {
		b = &binned{}
		if d.bins == nil {
			d.bins = map[string]*binned{}
		}
		if len(d.names) >= maxBinned {
			delete(d.bins, d.names[0])
			d.names = d.names[1:]
		}
		d.bins[string(key)] = b
		d.names = append(d.names, string(key))
	}
	size := uint32(1) << v.core.shift
	for b.upto < v.n {
		if int(b.upto>>v.core.shift) == len(b.chunks) {
			b.chunks = append(b.chunks, make([]uint16, size))
		}
		ch, i := v.at(b.upto)
		m := int(min(size-uint32(i), v.n-b.upto))
		out := b.chunks[b.upto>>v.core.shift]
		for j, x := range ch.cols[column].nums[i : i+m] {
			out[i+j] = binOf(x, edges)
		}
		b.upto += uint32(m)
	}
	return b.chunks
}

// binOf is 0 for a missing number, else 1 + the number of edges <= x.
func binOf(x float64, edges []float64) uint16 {
	if x != x {
		return 0
	}
	lo, n := 0, len(edges)
	for n > 0 {
		half := (n + 1) / 2
		if edges[lo+half-1] <= x {
			lo += half
			n -= half
		} else {
			n = half - 1
		}
	}
	return uint16(lo + 1)
}

// codeTable turns a table over bins of a category or set column into one over
// dictionary codes: entry 1+code, entry 0 for missing.
func codeTable(names []string, b *index.Bins, table []float32) []float64 {
	out := make([]float64, len(names)+1)
	out[0] = float64(table[0])
	for code, name := range names {
		bin := 1
		if i, ok := slices.BinarySearch(b.Values, name); ok {
			bin = i + 2
		}
		out[code+1] = float64(table[bin])
	}
	return out
}
