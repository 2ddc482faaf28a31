package index

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what a collection takes. They bound what one request can allocate.
const (
	MaxDim      = 32768    // dimensions of a vector
	MaxColumns  = 1024     // columns of a collection
	MaxID       = 256      // bytes of an id
	MaxName     = 64       // bytes of a collection's name
	MaxColName  = 256      // bytes of a column's name
	MaxString   = 64 << 10 // bytes of a category
	MaxElements = 65536    // elements of a set
	MaxRecord   = 16 << 20 // bytes of a record
	MaxBatch    = 100_000  // rows of an upsert
)

// ValidName says whether a collection may be called name: [a-z0-9_-]{1,64}, and behind
// that, where its owner keeps several generations of one, ~ and a number.
func ValidName(name string) bool {
	name, generation, several := strings.Cut(name, "~")
	if n, err := strconv.ParseUint(generation, 10, 31); several && (err != nil || strconv.FormatUint(n, 10) != generation) {
		return false
	}
	if len(name) == 0 || len(name) > MaxName {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Errorf(format, args...))
}

// Validate reports every fault of the spec, joined; each matches ErrInvalid.
// An empty Precision is allowed and means Int8.
func (s Spec) Validate() error {
	var errs []error
	if !ValidName(s.Name) {
		errs = append(errs, invalidf("collection name %q: use 1 to %d of a-z, 0-9, _ and -", s.Name, MaxName))
	}
	if s.Dim < 0 || s.Dim > MaxDim {
		errs = append(errs, invalidf("collection %q: dim %d: must be 0 (no vectors) to %d", s.Name, s.Dim, MaxDim))
	}
	switch s.Precision {
	case "", Int8, Fp16, Fp32, Binary:
	default:
		errs = append(errs, invalidf("collection %q: precision %q: use int8, fp16, fp32 or binary", s.Name, s.Precision))
	}
	switch s.Engine {
	case "", EngineFlat, EngineHNSW, EngineAuto:
	default:
		errs = append(errs, invalidf("collection %q: engine %q: use flat, hnsw or auto", s.Name, s.Engine))
	}
	return errors.Join(append(errs, checkColumns(s.Columns, nil)...)...)
}

// ValidateAlter reports every fault of adding columns to the spec, joined.
func (s Spec) ValidateAlter(add []Column) error {
	return errors.Join(checkColumns(add, s.Columns)...)
}

func checkColumns(cols, have []Column) []error {
	var errs []error
	seen := make(map[string]bool, len(cols)+len(have))
	for _, c := range have {
		seen[c.Name] = true
	}
	if len(cols)+len(have) > MaxColumns {
		errs = append(errs, invalidf("%d columns: at most %d", len(cols)+len(have), MaxColumns))
	}
	for i, c := range cols {
		switch {
		case c.Name == "" || len(c.Name) > MaxColName || !utf8.ValidString(c.Name):
			errs = append(errs, invalidf("column %d: name %q must be 1 to %d bytes of UTF-8", i, c.Name, MaxColName))
		case c.Name == IDField:
			errs = append(errs, invalidf("column %d: the name %q is taken by the customer's id; choose another", i, c.Name))
		case seen[c.Name]:
			errs = append(errs, invalidf("column %d: name %q is used twice", i, c.Name))
		}
		seen[c.Name] = true
		switch c.Kind {
		case Number, Category, Set, Bool, Time:
		default:
			errs = append(errs, invalidf("column %q: kind %q: use number, category, set, bool or time", c.Name, c.Kind))
		}
	}
	return errs
}

// CheckIDs reports every id that no row could have, joined.
func CheckIDs(ids []string) error {
	var errs []error
	for i, id := range ids {
		if r := idFault(id); r != "" {
			errs = append(errs, &RowError{Row: i, ID: id, Reason: r})
		}
	}
	return errors.Join(errs...)
}

func idFault(id string) string {
	switch {
	case id == "":
		return "the id is empty; give 1 to 256 bytes"
	case len(id) > MaxID:
		return fmt.Sprintf("the id has %d bytes; at most %d", len(id), MaxID)
	case !utf8.ValidString(id):
		return "the id is not valid UTF-8"
	}
	return ""
}

// CheckRows reports every fault of a batch, as *RowError values joined in order
// of row: id, vector, columns, record, and ids that occur twice.
func (s Spec) CheckRows(rows []Row) error {
	if len(rows) > MaxBatch {
		return invalidf("%d rows in one batch: at most %d; split it", len(rows), MaxBatch)
	}
	kinds := make(map[string]Kind, len(s.Columns))
	for _, c := range s.Columns {
		kinds[c.Name] = c.Kind
	}
	var errs []error
	first := make(map[string]int, len(rows))
	for i := range rows {
		r := &rows[i]
		fault := func(format string, args ...any) {
			errs = append(errs, &RowError{Row: i, ID: r.ID, Reason: fmt.Sprintf(format, args...)})
		}
		if f := idFault(r.ID); f != "" {
			fault("%s", f)
		} else if j, ok := first[r.ID]; ok {
			fault("the same id is in row %d; send each id once a batch", j)
		} else {
			first[r.ID] = i
		}
		s.checkVector(r.Vector, fault)
		if !sound(kinds, r.Values) {
			s.valueFaults(kinds, r.Values, fault)
		}
		if len(r.Record) > MaxRecord {
			fault("the record has %d bytes; at most %d", len(r.Record), MaxRecord)
		}
	}
	return errors.Join(errs...)
}

// sound says whether valueFaults would find nothing. Nearly every row is sound,
// and to say so takes no memory and no order.
func sound(kinds map[string]Kind, values map[string]Value) bool {
	ok := true
	bad := func(string, ...any) { ok = false }
	for n, v := range values {
		kind, is := kinds[n]
		if !is {
			return false
		}
		if checkValue(n, kind, v, bad); !ok {
			return false
		}
	}
	return true
}

// valueFaults reports every fault of a row's columns in order of name.
func (s Spec) valueFaults(kinds map[string]Kind, values map[string]Value, fault func(string, ...any)) {
	for _, n := range slices.Sorted(maps.Keys(values)) {
		kind, ok := kinds[n]
		if !ok {
			fault("column %q is not in collection %q; add it first or leave it out", n, s.Name)
			continue
		}
		checkValue(n, kind, values[n], fault)
	}
}

func (s Spec) checkVector(v []float32, fault func(string, ...any)) {
	if v == nil {
		return
	}
	if s.Dim == 0 {
		fault("collection %q holds no vectors; leave the vector out", s.Name)
		return
	}
	if len(v) != s.Dim {
		fault("the vector has %d numbers; collection %q takes %d", len(v), s.Name, s.Dim)
		return
	}
	if j := notFinite(v); j >= 0 {
		fault("vector[%d] is %v; numbers must be finite", j, v[j])
	}
}

// notFinite returns the position of the first NaN or infinity, or -1.
func notFinite(v []float32) int {
	for j, x := range v {
		if math.Float32bits(x)&0x7f800000 == 0x7f800000 {
			return j
		}
	}
	return -1
}

func checkValue(name string, kind Kind, v Value, fault func(string, ...any)) {
	if v.Kind == "" {
		return // missing
	}
	if v.Kind != kind {
		fault("column %q is a %s; got a %s", name, kind, v.Kind)
		return
	}
	switch {
	case kind.Numeric():
		if math.IsNaN(v.Num) || math.IsInf(v.Num, 0) {
			fault("column %q is %v; numbers must be finite (leave a missing value out)", name, v.Num)
		} else if kind == Bool && v.Num != 0 && v.Num != 1 {
			fault("column %q is %v; a bool is 0 or 1", name, v.Num)
		}
	case kind == Category:
		checkString(name, v.Str, fault)
	case kind == Set:
		if len(v.Set) > MaxElements {
			fault("column %q has %d elements; at most %d", name, len(v.Set), MaxElements)
			return
		}
		for _, e := range v.Set {
			checkString(name, e, fault)
		}
	}
}

func checkString(name, s string, fault func(string, ...any)) {
	if len(s) > MaxString {
		fault("column %q holds a text of %d bytes; at most %d", name, len(s), MaxString)
	} else if !utf8.ValidString(s) {
		fault("column %q is not valid UTF-8", name)
	}
}

// Validate reports every fault of the request against the collection, joined.
func (r ScanRequest) Validate(s Spec) error {
	var errs []error
	kinds := make(map[string]Kind, len(s.Columns))
	for _, c := range s.Columns {
		kinds[c.Name] = c.Kind
	}
	for i, b := range r.Bins {
		kind, ok := kinds[b.Column]
		if !ok {
			errs = append(errs, invalidf("bins %d: column %q is not in collection %q", i, b.Column, s.Name))
		} else if kind != b.Kind {
			errs = append(errs, invalidf("bins %d: column %q is a %s, not a %q", i, b.Column, kind, b.Kind))
		}
		if len(b.Edges) > 65000 || len(b.Values) > 1<<24 {
			errs = append(errs, invalidf("bins %d of column %q: %d edges, %d values: too many", i, b.Column, len(b.Edges), len(b.Values)))
		}
		for j, e := range b.Edges {
			if math.IsNaN(e) || j > 0 && b.Edges[j-1] >= e {
				errs = append(errs, invalidf("bins %d of column %q: edges must ascend strictly (position %d)", i, b.Column, j))
				break
			}
		}
		for j := 1; j < len(b.Values); j++ {
			if b.Values[j-1] >= b.Values[j] {
				errs = append(errs, invalidf("bins %d of column %q: values must ascend strictly (position %d)", i, b.Column, j))
				break
			}
		}
	}
	for i, set := range r.Sets {
		switch set.Reduce {
		case "", Max, Mean, LogSumExp:
		case TopMean:
			if set.Top < 1 {
				errs = append(errs, invalidf("head set %d: top %d: topmean takes the mean of 1 or more", i, set.Top))
			}
		default:
			errs = append(errs, invalidf("head set %d: reduce %q: use max, mean, logsumexp or topmean", i, set.Reduce))
		}
		if len(set.Heads) == 0 {
			errs = append(errs, invalidf("head set %d has no heads", i))
		}
		for j := range set.Heads {
			errs = append(errs, set.Heads[j].faults(s, r.Bins, fmt.Sprintf("head %d of set %d", j, i))...)
		}
		if set.Common != nil {
			errs = append(errs, set.Common.faults(s, r.Bins, fmt.Sprintf("common head of set %d", i))...)
		}
	}
	return errors.Join(errs...)
}

// Validate reports every fault of the request against the collection, joined.
func (r BestRequest) Validate(s Spec) error {
	errs := []error{r.ScanRequest.Validate(s)}
	if len(r.Size) != len(r.Sets) {
		errs = append(errs, invalidf("%d sizes for %d head sets", len(r.Size), len(r.Sets)))
	}
	for i, k := range r.Size {
		if k < 1 {
			errs = append(errs, invalidf("head set %d: size %d: want 1 or more", i, k))
		}
	}
	if r.Allowed != nil && len(r.Allowed) != len(r.Sets) {
		errs = append(errs, invalidf("%d sets of allowed rows for %d head sets", len(r.Allowed), len(r.Sets)))
	}
	return errors.Join(errs...)
}

func (h *Head) faults(s Spec, bins []Bins, where string) []error {
	var errs []error
	if h.Vector != nil && len(h.Vector) != s.Dim {
		errs = append(errs, invalidf("%s: vector has %d numbers; collection %q takes %d", where, len(h.Vector), s.Name, s.Dim))
	}
	if k := notFinite(h.Vector); k >= 0 {
		errs = append(errs, invalidf("%s: vector[%d] is %v", where, k, h.Vector[k]))
	}
	if notFinite([]float32{h.Bias}) >= 0 {
		errs = append(errs, invalidf("%s: bias is %v", where, h.Bias))
	}
	if h.Tables != nil && len(h.Tables) != len(bins) {
		return append(errs, invalidf("%s: %d tables for %d bins", where, len(h.Tables), len(bins)))
	}
	for k, t := range h.Tables {
		if t != nil && len(t) != bins[k].Count() {
			errs = append(errs, invalidf("%s: table %d has %d entries; column %q has %d bins", where, k, len(t), bins[k].Column, bins[k].Count()))
		}
		if m := notFinite(t); m >= 0 {
			errs = append(errs, invalidf("%s: table %d: entry %d is %v", where, k, m, t[m]))
		}
	}
	if len(h.Trees) > MaxTrees {
		return append(errs, invalidf("%s: %d trees: at most %d", where, len(h.Trees), MaxTrees))
	}
	for k := range h.Trees {
		if err := h.Trees[k].fault(bins); err != nil {
			errs = append(errs, invalidf("%s: tree %d: %w", where, k, err))
		}
	}
	return errs
}

func (t *Tree) fault(bins []Bins) error {
	if len(t.Splits) < 1 || len(t.Splits) > MaxSplits {
		return fmt.Errorf("%d splits: want 1 to %d", len(t.Splits), MaxSplits)
	}
	for i, s := range t.Splits {
		if s.Bins < 0 || s.Bins >= len(bins) {
			return fmt.Errorf("split %d: bins %d of %d", i, s.Bins, len(bins))
		}
		count := bins[s.Bins].Count()
		if count > 1<<16 {
			return fmt.Errorf("split %d: column %q has %d bins: trees take up to 65536", i, bins[s.Bins].Column, count)
		}
		if len(s.Right) != (count+7)/8 {
			return fmt.Errorf("split %d: %d bytes of answers; column %q has %d bins, which take %d", i, len(s.Right), bins[s.Bins].Column, count, (count+7)/8)
		}
	}
	if len(t.Leaves) != 1<<len(t.Splits) {
		return fmt.Errorf("%d leaves for %d splits: want %d", len(t.Leaves), len(t.Splits), 1<<len(t.Splits))
	}
	if k := notFinite(t.Leaves); k >= 0 {
		return fmt.Errorf("leaf %d is %v", k, t.Leaves[k])
	}
	if t.Cover != nil && (len(t.Cover) != len(t.Leaves) || notFinite(t.Cover) >= 0) {
		return fmt.Errorf("cover: want %d finite shares", len(t.Leaves))
	}
	return nil
}
