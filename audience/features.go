package audience

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
	"github.com/kindred-search/kindred/profile"
)

// features is what heads are fitted on: vectors and bins of the population's
// rows, and the population's statistics.
type features struct {
	dim    int // 0: no text
	bins   []index.Bins
	codes  []profile.BinCodes
	share  [][]float64 // [column][bin] of everyone, smoothed, adds up to 1
	center []float32   // mean vector of a sample of everyone, [dim]
	scale  float64     // of the vectors' deviations from center: makes them 1 on average
	left   []string    // columns left out, with the reason
	snap   index.Rows
}

// statSample is how many customers the mean vector is taken from.
const statSample = 20_000

// missed are the columns that were asked for by name and are left out, in words.
func (f *features) missed(asked []string) []string {
	var out []string
	for _, name := range asked {
		for _, left := range f.left {
			why, is := strings.CutPrefix(left, name+": ")
			if !is {
				continue
			}
			if why == "sensitive" {
				why = "sensitive, and features.allow_sensitive does not name it"
			}
			out = append(out, fmt.Sprintf("features.columns names %q, which is left out: %s", name, why))
		}
	}
	return out
}

func prepare(pop Population, req *Request, r *resolved) (*features, error) {
	f := &features{snap: pop.Snap}
	if err := f.columns(pop.Snap, pop.Spec, pop.Schema, req.Features, r); err != nil {
		return nil, err
	}
	if pop.Spec.Dim > 0 && (req.Features.Text == nil || *req.Features.Text) {
		if err := f.textStats(pop, r, req.Seed); err != nil {
			return nil, err
		}
	}
	if f.dim == 0 && len(f.bins) == 0 {
		return nil, fmt.Errorf("no text and no column to go by%s: give the customers columns that differ, or allow some in features: %w", LeftOut(f.left), index.ErrInvalid)
	}
	return f, nil
}

// LeftOut lists in brackets why columns are left out, the first few.
func LeftOut(left []string) string {
	const few = 5
	if len(left) == 0 {
		return ""
	}
	rest := ""
	if more := len(left) - few; more > 0 {
		rest = fmt.Sprintf("; and %d more", more)
	}
	return " (" + strings.Join(left[:min(few, len(left))], "; ") + rest + ")"
}

// columns picks the columns that may be used and bins them.
func (f *features) columns(snap index.Rows, spec index.Spec, schema profile.Schema, want Features, r *resolved) error {
	wanted := func(string) bool { return true }
	if want.Columns != nil {
		for _, name := range want.Columns {
			if field, ok := schema.Field(name); !ok || field.Type == profile.TypeText {
				return fmt.Errorf("features.columns: %q is not a column of the collection: %w", name, index.ErrInvalid)
			}
		}
		wanted = func(name string) bool { return slices.Contains(want.Columns, name) }
	}
	for _, name := range want.AllowSensitive {
		if _, ok := schema.Field(name); !ok {
			return fmt.Errorf("features.allow_sensitive: %q is not a field of the collection: %w", name, index.ErrInvalid)
		}
	}
	var asked []index.Column
	for _, col := range spec.Columns {
		if !wanted(col.Name) {
			continue
		}
		field, _ := schema.Field(col.Name)
		if field.Sensitive && !slices.Contains(want.AllowSensitive, col.Name) {
			f.left = append(f.left, col.Name+": sensitive")
			continue
		}
		if field.PII {
			f.left = append(f.left, col.Name+": personal data")
			continue
		}
		asked = append(asked, col)
	}
	return f.bin(snap, r, asked)
}

// bin cuts the columns into bins, on all cores, and keeps them in their order.
func (f *features) bin(snap index.Rows, r *resolved, columns []index.Column) error {
	type binned struct {
		bins     index.Bins
		codes    profile.BinCodes
		share    []float64
		constant bool
	}
	out := make([]binned, len(columns))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, col := range columns {
		group.Go(func() error {
			data, err := snap.Column(col.Name)
			if err != nil {
				return err
			}
			b := &out[i]
			b.bins = profile.FitBins(col, data, r.everyone, profile.BinOptions{})
			b.codes = profile.Codes(b.bins, data)
			b.share, b.constant = f.shares(b.bins, b.codes, r)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, col := range columns {
		if out[i].constant {
			f.left = append(f.left, col.Name+": the same for everyone")
			continue
		}
		f.bins = append(f.bins, out[i].bins)
		f.codes = append(f.codes, out[i].codes)
		f.share = append(f.share, out[i].share)
	}
	return nil
}

// shares counts the bins of everyone. A set's share is of customers that have
// the element.
func (f *features) shares(b index.Bins, codes profile.BinCodes, r *resolved) ([]float64, bool) {
	count := make([]float64, b.Count())
	n := 0.0
	for it := r.everyone.Iterator(); it.HasNext(); {
		row := it.Next()
		n++
		for _, c := range codesOf(codes, row) {
			count[c]++
		}
	}
	top := slices.Max(count)
	for i := range count {
		count[i] = (count[i] + 0.5) / (n + 0.5*float64(len(count)))
	}
	return count, top == n && codes.Offsets == nil
}

// codesOf returns a row's bins in one column: one, or a set's several.
func codesOf(c profile.BinCodes, row uint32) []uint16 {
	if c.Offsets == nil {
		return c.Codes[row : row+1]
	}
	return c.Codes[c.Offsets[row]:c.Offsets[row+1]]
}

func (f *features) textStats(pop Population, r *resolved, seed uint64) error {
	dim := pop.Spec.Dim
	rows := draw(pop.Snap, r.everyone, statSample, seed)
	x := make([]float32, len(rows)*dim)
	if err := pop.Snap.Vectors(rows, x); err != nil {
		return err
	}
	mean := make([]float64, dim)
	warm := 0.0
	for i := range rows {
		v := x[i*dim : (i+1)*dim]
		if !blank(v) {
			warm++
			for j, a := range v {
				mean[j] += float64(a)
			}
		}
	}
	if warm == 0 {
		f.left = append(f.left, "text: nobody has any")
		return nil
	}
	variance := 0.0
	for j := range mean {
		mean[j] /= warm
	}
	for i := range rows {
		v := x[i*dim : (i+1)*dim]
		if blank(v) {
			continue
		}
		for j, a := range v {
			d := float64(a) - mean[j]
			variance += d * d
		}
	}
	variance /= warm * float64(dim)
	if variance < 1e-12 {
		f.left = append(f.left, "text: the same for everyone")
		return nil
	}
	f.dim = dim
	f.scale = 1 / math.Sqrt(variance)
	f.center = make([]float32, dim)
	for j, m := range mean {
		f.center[j] = float32(m)
	}
	return nil
}

func blank(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return x != 0 })
}

// vectors returns rows' deviations from the mean, [len(rows), dim]. A row without
// text is stored as zeros and deviates by -center, as the scan will see it.
func (f *features) vectors(rows []uint32) ([]float32, error) {
	if f.dim == 0 {
		return nil, nil
	}
	x := make([]float32, len(rows)*f.dim)
	if err := f.snap.Vectors(rows, x); err != nil {
		return nil, err
	}
	for i := range rows {
		for j := range f.dim {
			x[i*f.dim+j] -= f.center[j]
		}
	}
	return x, nil
}

// score is a head's value for a row, in float64 sums: for comparing methods on
// samples, where a scan of everyone would be waste. x is the row's deviation.
func (f *features) score(h *index.Head, x []float32, row uint32) float64 {
	s := float64(h.Bias)
	if h.Vector != nil {
		s += dot(h.Vector, x)
	}
	for i, table := range h.Tables {
		if table != nil {
			s += tableScore(table, codesOf(f.codes[i], row))
		}
	}
	for i := range h.Trees {
		s += float64(h.Trees[i].Leaves[leafOf(&h.Trees[i], func(c int) []uint16 { return codesOf(f.codes[c], row) })])
	}
	return s
}

// tableScore adds a row's entries; a set's are divided by the root of their number.
func tableScore(table []float32, codes []uint16) float64 {
	if len(codes) == 1 {
		return float64(table[codes[0]])
	}
	s := 0.0
	for _, c := range codes {
		s += float64(table[c])
	}
	return s / math.Sqrt(float64(len(codes)))
}

func dot(a, b []float32) float64 { return simd.Dot64(a, b) }
