package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// What a folded customer keeps of each column.
const (
	maxFoldedValues = 50   // of a category: the most frequent
	maxFoldedTexts  = 64   // of a text: the most frequent
	maxFoldedSeen   = 4096 // different values counted per customer and column
)

// foldedFields are the fields of records folded by GroupBy.
func foldedFields(p *Plan) []profile.Field {
	var out []profile.Field
	used := map[string]bool{"id": true}
	add := func(name string, typ profile.FieldType) {
		base := name
		for k := 2; used[name]; k++ {
			name = fmt.Sprintf("%s_%d", base, k)
		}
		used[name] = true
		out = append(out, profile.Field{Name: name, Type: typ})
	}
	add("lines", profile.TypeNumber)
	if p.Decay != nil {
		add("lines_decayed", profile.TypeNumber)
	}
	for _, c := range p.Columns {
		switch {
		case c.Use == UseCount:
			add(c.Name+"_distinct", profile.TypeNumber)
		case c.Use == UseText:
			add(c.Name, profile.TypeText)
		case c.Use != UseField:
		case c.Type == profile.TypeNumber:
			add(c.Name+"_sum", profile.TypeNumber)
			add(c.Name+"_mean", profile.TypeNumber)
			add(c.Name+"_max", profile.TypeNumber)
		case c.Type == profile.TypeBool:
			add(c.Name+"_share", profile.TypeNumber)
		case c.Type == profile.TypeTime:
			add(c.Name+"_first", profile.TypeTime)
			add(c.Name+"_last", profile.TypeTime)
			add(c.Name+"_days", profile.TypeNumber)
		default:
			add(c.Name, profile.TypeSet)
			add(c.Name+"_distinct", profile.TypeNumber)
		}
	}
	return out
}

// fold is one column of one customer.
type fold struct {
	n              int
	sum, low, high float64
	counts         map[string]float64 // how often each value, less what age took
}

type customer struct {
	id    string
	lines int
	aged  float64 // lines, less what age took
	cols  []fold
}

// folder holds all customers of a file, in order of appearance.
type folder struct {
	plan   *Plan
	byID   map[string]int
	people []customer
	bytes  int64 // about what it holds
	limit  int64
	errs   []error // bad rows, handed out before the records
	at     int
	later  int // rows after the time that ages are counted from
	read   bool
	names  []string
}

func newFolder(p *Plan) *folder {
	f := &folder{plan: p, byID: map[string]int{}, limit: p.opt.MaxGroupBytes}
	if f.limit <= 0 {
		f.limit = 4 << 30
	}
	for _, field := range foldedFields(p) {
		f.names = append(f.names, field.Name)
	}
	return f
}

// maxFoldErrors is how many bad rows are named one by one; the rest is counted.
const maxFoldErrors = 10000

func (r *Reader) nextFolded() (profile.Record, error) {
	f := r.fold
	if !f.read {
		if err := r.readAll(); err != nil {
			return profile.Record{}, err
		}
		f.read = true
	}
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return profile.Record{}, err
	}
	if f.at == len(f.people) {
		return profile.Record{}, io.EOF
	}
	rec := f.record(&f.people[f.at])
	f.people[f.at] = customer{}
	f.at++
	return rec, nil
}

func (r *Reader) readAll() error {
	f := r.fold
	empty, emptyLine, more := 0, 0, 0
	for {
		row, err := r.row()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *RowError
		if errors.As(err, &bad) {
			if len(f.errs) < maxFoldErrors {
				f.errs = append(f.errs, bad)
			} else {
				more++
			}
			continue
		}
		if err != nil {
			return err
		}
		key := &row.cells[r.id]
		id := idText(key)
		if id == "" || missing([]byte(id)) {
			if empty++; empty == 1 {
				emptyLine = row.line
			}
			continue
		}
		if len(id) > maxIDBytes {
			f.errs = append(f.errs, &RowError{Line: row.line, ID: id[:32], Reason: "the key is longer than 256 bytes"})
			continue
		}
		if reason := r.take(id, row); reason != "" {
			if len(f.errs) < maxFoldErrors {
				f.errs = append(f.errs, &RowError{Line: row.line, ID: id, Reason: reason})
			} else {
				more++
			}
			continue
		}
		if f.bytes > f.limit {
			return fmt.Errorf("fold %s by %s: more than %d MiB for %d customers after %d rows: ignore columns with many values, or sort out the file before", r.plan.Path, r.plan.GroupBy, f.limit>>20, len(f.people), r.rows)
		}
	}
	if empty > 0 {
		f.errs = append(f.errs, &RowError{Line: emptyLine, Reason: fmt.Sprintf("%s is empty in %d rows, from this line on: they belong to no customer and were passed over", r.plan.GroupBy, empty)})
	}
	if f.later > 0 {
		f.errs = append(f.errs, &RowError{Reason: fmt.Sprintf("%d rows are later than %s and were left out", f.later, r.plan.Decay.Reference.UTC().Format(time.RFC3339))})
	}
	if more > 0 {
		f.errs = append(f.errs, &RowError{Reason: fmt.Sprintf("%d more bad rows", more)})
	}
	return nil
}

// take adds a row to its customer; a reason when the row is refused whole.
func (r *Reader) take(id string, row *row) string {
	f := r.fold
	values := make([]index.Value, len(row.cells))
	for i := range row.cells {
		if r.plan.Columns[i].Use != UseField {
			continue
		}
		v, reason := r.value(i, &row.cells[i])
		if reason != "" {
			return reason
		}
		values[i] = v
	}
	weight, counts := r.plan.aged(values)
	if !counts {
		f.later++
		return ""
	}
	at, ok := f.byID[id]
	if !ok {
		at = len(f.people)
		f.byID[id] = at
		f.people = append(f.people, customer{id: id, cols: make([]fold, len(r.plan.Columns))})
		f.bytes += int64(2*len(id) + 96 + 48*len(r.plan.Columns))
	}
	p := &f.people[at]
	p.lines++
	p.aged += weight
	for i := range row.cells {
		c := &row.cells[i]
		d := &p.cols[i]
		switch r.plan.Columns[i].Use {
		case UseCount, UseText:
			if c.kind == cellList {
				for k, e := range c.list {
					f.count(d, e, f.weightOf(c.events, k, weight))
				}
			} else if c.kind != cellAbsent && !missing(c.raw) {
				f.count(d, r.word(i, c.raw), weight)
			}
		case UseField:
			switch v := values[i]; v.Kind {
			case index.Category:
				f.count(d, v.Str, weight)
			case index.Set:
				if events := eventsOf(c); events != nil {
					for k, e := range events {
						f.count(d, e.Item, f.weightOf(events, k, weight))
					}
					break
				}
				for _, e := range v.Set {
					f.count(d, e, weight)
				}
			case index.Number, index.Bool, index.Time:
				if d.n == 0 {
					d.low, d.high = v.Num, v.Num
				}
				d.n++
				d.sum += v.Num
				d.low, d.high = min(d.low, v.Num), max(d.high, v.Num)
			}
		}
	}
	return ""
}

// weightOf is the weight of element k of a list in a row of this weight: an event with a
// time of its own goes by that.
func (f *folder) weightOf(events []profile.Event, k int, row float64) float64 {
	if events == nil {
		return row
	}
	e := events[k]
	if e.At != 0 {
		row = f.plan.Decay.Weight(e.At)
	}
	if e.Weight != 0 {
		row *= e.Weight
	}
	return row
}

func (f *folder) count(d *fold, value string, weight float64) {
	if d.counts == nil {
		d.counts = map[string]float64{}
		f.bytes += 256
	}
	if _, ok := d.counts[value]; !ok {
		if len(d.counts) >= maxFoldedSeen {
			return
		}
		f.bytes += int64(len(value) + 48)
	}
	d.counts[value] += weight
}

// frequent are the n most frequent values (by weight), ties by value.
func frequent(counts map[string]float64, n int) []string {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return keys[:min(n, len(keys))]
}

func (f *folder) record(p *customer) profile.Record {
	rec := profile.Record{ID: p.id, Fields: make(map[string]index.Value, len(f.names))}
	next := 0
	// put walks the names in the order of foldedFields.
	put := func(v index.Value, ok bool) {
		if ok {
			rec.Fields[f.names[next]] = v
		}
		next++
	}
	number := func(x float64) index.Value { return index.Value{Kind: index.Number, Num: x} }
	put(number(float64(p.lines)), true)
	if f.plan.Decay != nil {
		put(number(p.aged), true)
	}
	for i, c := range f.plan.Columns {
		d := &p.cols[i]
		switch {
		case c.Use == UseCount:
			put(number(float64(len(d.counts))), true)
		case c.Use == UseText:
			for _, t := range frequent(d.counts, maxFoldedTexts) {
				text := profile.Text{Field: c.Name, Body: t}
				if f.plan.Decay != nil {
					text.Weight = min(1, d.counts[t]) // said twice is not more, as without a decay
				}
				rec.Texts = append(rec.Texts, text)
			}
			next++
		case c.Use != UseField:
		case c.Type == profile.TypeNumber:
			put(number(d.sum), d.n > 0)
			put(number(d.sum/float64(max(1, d.n))), d.n > 0)
			put(number(d.high), d.n > 0)
		case c.Type == profile.TypeBool:
			put(number(d.sum/float64(max(1, d.n))), d.n > 0)
		case c.Type == profile.TypeTime:
			put(index.Value{Kind: index.Time, Num: d.low}, d.n > 0)
			put(index.Value{Kind: index.Time, Num: d.high}, d.n > 0)
			put(number((d.high-d.low)/86400), d.n > 0)
		default:
			set := frequent(d.counts, maxFoldedValues)
			if f.plan.Decay != nil {
				kept := make(map[string]float64, len(set))
				for _, e := range set {
					kept[e] = d.counts[e]
				}
				set = f.plan.Decay.Marked(kept)
			}
			slices.Sort(set)
			put(index.Value{Kind: index.Set, Set: set}, len(set) > 0)
			put(number(float64(len(d.counts))), true)
		}
	}
	return rec
}
