package profile

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// BinOptions says how finely columns are cut. Zero values take the defaults.
type BinOptions struct {
	// Bins is how many equal shares of the population a numeric column is cut
	// into. 0 means 32. A value held by a whole share gets a bin of its own,
	// so there can be up to twice as many.
	Bins int
	// MaxValues is how many values of a category or set get a bin of their
	// own. 0 means 254 of a category, which with missing and other makes 256, and
	// 1022 of a set: what customers bought or saw is told by many values, each rare.
	MaxValues int
	// MinCount and MinShare are how many rows a value needs for a bin of its
	// own: the larger of the two counts. 0 means 10 rows and 0.0005 of them:
	// below that a weight is noise and may point to one person.
	MinCount int
	MinShare float64
}

// maxFitValues is how many numbers the quantiles are taken from; beyond, every
// k-th row. At two million the error of a 1/32 quantile is below 0.0002.
const maxFitValues = 2 << 20

// FitBins learns the bins of a column from its live rows (nil: all). The same
// data gives the same bins.
func FitBins(col index.Column, data index.ColumnData, live *roaring.Bitmap, opt BinOptions) index.Bins {
	if opt.Bins <= 0 {
		opt.Bins = 32
	}
	opt.Bins = min(opt.Bins, 1<<14)
	if opt.MaxValues <= 0 {
		opt.MaxValues = 254
		if col.Kind == index.Set {
			opt.MaxValues = 1022
		}
	}
	opt.MaxValues = min(opt.MaxValues, math.MaxUint16-2)
	if opt.MinCount <= 0 {
		opt.MinCount = 10
	}
	if !(opt.MinShare > 0) {
		opt.MinShare = 0.0005
	}
	b := index.Bins{Column: col.Name, Kind: col.Kind}
	if col.Kind.Numeric() {
		b.Edges = fitEdges(data.Numbers, live, opt.Bins)
	} else {
		b.Values = fitValues(data, live, opt)
	}
	return b
}

// eachLive calls do for every live row below n, ascending, and returns nothing;
// rows of live beyond the column are skipped.
func eachLive(n int, live *roaring.Bitmap, do func(row int)) {
	if live == nil {
		for row := range n {
			do(row)
		}
		return
	}
	it := live.Iterator()
	for it.HasNext() {
		row := int(it.Next())
		if row >= n {
			return
		}
		do(row)
	}
}

func fitEdges(numbers []float64, live *roaring.Bitmap, bins int) []float64 {
	total := len(numbers)
	if live != nil {
		total = int(live.GetCardinality())
	}
	step := max(1, (total+maxFitValues-1)/maxFitValues)
	values := make([]float64, 0, min(total, maxFitValues))
	i := 0
	eachLive(len(numbers), live, func(row int) {
		if v := numbers[row]; i%step == 0 && !math.IsNaN(v) && !math.IsInf(v, 0) {
			values = append(values, v)
		}
		i++
	})
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	distinct := 1
	for i := 1; i < len(values) && distinct <= bins; i++ {
		if values[i] != values[i-1] {
			distinct++
		}
	}
	var edges []float64
	if distinct <= bins {
		for i := 1; i < len(values); i++ {
			if values[i] != values[i-1] {
				edges = append(edges, values[i])
			}
		}
		return edges
	}
	for q := 1; q < bins; q++ {
		edges = append(edges, values[len(values)*q/bins])
	}
	// A value that fills a share stands alone: an edge at it and one after.
	share := max(2, len(values)/bins)
	for from := 0; from < len(values); {
		to := from + 1
		for to < len(values) && values[to] == values[from] {
			to++
		}
		if to-from >= share {
			edges = append(edges, values[from])
			if to < len(values) {
				edges = append(edges, values[to])
			}
		}
		from = to
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	if edges[0] == values[0] { // nothing lies below it
		edges = edges[1:]
	}
	return edges
}

func fitValues(data index.ColumnData, live *roaring.Bitmap, opt BinOptions) []string {
	counts := make([]int, len(data.Dict))
	rows := len(data.Codes)
	if data.Kind == index.Set {
		rows = max(0, len(data.Offsets)-1)
	}
	n := 0
	count := func(code int32) {
		if code >= 0 && int(code) < len(counts) {
			counts[code]++
		}
	}
	eachLive(rows, live, func(row int) {
		n++
		if data.Kind != index.Set {
			count(data.Codes[row])
			return
		}
		for _, code := range data.Codes[data.Offsets[row]:data.Offsets[row+1]] {
			count(code)
		}
	})
	least := max(opt.MinCount, int(math.Ceil(opt.MinShare*float64(n))))
	type entry struct {
		value string
		count int
	}
	var often []entry
	for code, c := range counts {
		if c >= least {
			often = append(often, entry{data.Dict[code], c})
		}
	}
	slices.SortFunc(often, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.value, b.value))
	})
	if len(often) > opt.MaxValues {
		often = often[:opt.MaxValues]
	}
	var values []string
	for _, e := range often {
		values = append(values, e.value)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// BinCodes is a column as bins. For a Set, row r has Codes[Offsets[r]:
// Offsets[r+1]], ascending, and an empty set has the single code 0. For the
// other kinds Offsets is nil and Codes has one entry per row.
type BinCodes struct {
	Codes   []uint16
	Offsets []uint32
}

// Codes puts every row of a column into its bin, dead rows included.
func Codes(b index.Bins, d index.ColumnData) BinCodes {
	if b.Kind.Numeric() {
		out := make([]uint16, len(d.Numbers))
		for row, v := range d.Numbers {
			out[row] = numberBin(b.Edges, v)
		}
		return BinCodes{Codes: out}
	}
	byCode := make([]uint16, len(d.Dict))
	for code, v := range d.Dict {
		byCode[code] = valueBin(b.Values, v)
	}
	bin := func(code int32) uint16 {
		if code < 0 || int(code) >= len(byCode) {
			return 0
		}
		return byCode[code]
	}
	if b.Kind != index.Set {
		out := make([]uint16, len(d.Codes))
		for row, code := range d.Codes {
			out[row] = bin(code)
		}
		return BinCodes{Codes: out}
	}
	rows := max(0, len(d.Offsets)-1)
	out := BinCodes{Codes: make([]uint16, 0, len(d.Codes)+rows/8), Offsets: make([]uint32, 1, rows+1)}
	for row := range rows {
		from := len(out.Codes)
		for _, code := range d.Codes[d.Offsets[row]:d.Offsets[row+1]] {
			out.Codes = append(out.Codes, bin(code))
		}
		if len(out.Codes) == from {
			out.Codes = append(out.Codes, 0)
		}
		slices.Sort(out.Codes[from:])
		out.Offsets = append(out.Offsets, uint32(len(out.Codes)))
	}
	return out
}

// Bin is the bin of one value of a column that is no Set, as Codes has it; a Value
// without a Kind is missing.
func Bin(b *index.Bins, v index.Value) uint16 {
	switch {
	case v.Kind == "":
		return 0
	case b.Kind.Numeric():
		return numberBin(b.Edges, v.Num)
	}
	return valueBin(b.Values, v.Str)
}

// valueBin is 1 for a value that has no bin of its own, else two more than its
// place.
func valueBin(values []string, v string) uint16 {
	if i, ok := slices.BinarySearch(values, v); ok {
		return uint16(i + 2)
	}
	return 1
}

// numberBin is 0 for a missing value, else one more than the edges <= v.
func numberBin(edges []float64, v float64) uint16 {
	if math.IsNaN(v) {
		return 0
	}
	return uint16(1 + sort.Search(len(edges), func(i int) bool { return edges[i] > v }))
}
