package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"maps"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

func mapsKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// Reader yields the records of a file. Not safe for concurrent use.
type Reader struct {
	ctx   context.Context
	plan  *Plan
	src   *opened
	id    int // column of the id or key, -1 for row numbers
	rows  int64
	seed  maphash.Seed
	seen  map[uint64]int32 // hash of an id -> line it was first on
	words []map[string]string
	skip  bool // the header is still ahead
	fold  *folder
}

// Open starts reading. Close the reader when done; cancelling ctx stops it.
func (p *Plan) Open(ctx context.Context) (*Reader, error) {
	names := make([]string, len(p.Columns))
	r := &Reader{ctx: ctx, plan: p, id: -1, skip: p.Header, words: make([]map[string]string, len(p.Columns))}
	for i, c := range p.Columns {
		names[i] = c.Name
		if c.Use == UseID || c.Use == UseKey {
			r.id = i
		}
		r.words[i] = map[string]string{}
	}
	src, err := p.source(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.Path, err)
	}
	r.src = src
	if p.GroupBy != "" {
		r.fold = newFolder(p)
	} else if r.id >= 0 {
		r.seed, r.seen = maphash.MakeSeed(), map[uint64]int32{}
	}
	return r, nil
}

// Close releases the file.
func (r *Reader) Close() error { return r.src.rows.Close() }

// Progress returns how many bytes of the file were read, and its size. For
// Parquet the unit is rows.
func (r *Reader) Progress() (read, total int64) { return r.src.progress() }

// Next returns the next record; io.EOF at the end. After a *RowError the
// reader goes on with the next row; any other error is final. The caller owns
// the record. With GroupBy the first call reads the whole file.
func (r *Reader) Next() (profile.Record, error) {
	if r.fold != nil {
		return r.nextFolded()
	}
	row, err := r.row()
	if err != nil {
		return profile.Record{}, err
	}
	id := strconv.FormatInt(r.rows, 10)
	if r.id >= 0 {
		id = idText(&row.cells[r.id])
		if err := r.checkID(id, row.line); err != nil {
			return profile.Record{}, err
		}
	}
	rec := profile.Record{ID: id, Fields: make(map[string]index.Value, len(r.plan.Columns)), Vector: row.vector}
	for i := range row.cells {
		c := &r.plan.Columns[i]
		switch c.Use {
		case UseField:
			v, reason := r.value(i, &row.cells[i])
			if reason != "" {
				return profile.Record{}, &RowError{Line: row.line, ID: id, Reason: reason}
			}
			if v.Kind != "" {
				rec.Fields[c.Name] = v
			}
			if events := eventsOf(&row.cells[i]); len(events) > 0 && v.Kind == index.Set {
				if rec.Events == nil {
					rec.Events = map[string][]profile.Event{}
				}
				rec.Events[c.Name] = events
			}
		case UseText:
			if odd := row.cells[i].odd; odd != "" {
				return profile.Record{}, &RowError{Line: row.line, ID: id, Reason: fmt.Sprintf("column %s, %s", c.Name, odd)}
			}
			rec.Texts = appendTexts(rec.Texts, c.Name, &row.cells[i])
		}
	}
	rec.Texts = append(rec.Texts, row.texts...)
	return rec, nil
}

// row is the next raw row, counted, with the header passed over.
func (r *Reader) row() (*row, error) {
	for {
		if r.rows&1023 == 0 {
			if err := r.ctx.Err(); err != nil {
				return nil, err
			}
		}
		row, err := r.src.rows.next()
		if r.skip {
			r.skip = false
			var bad *RowError
			if err == nil || errors.As(err, &bad) {
				continue
			}
		}
		if err != nil {
			var bad *RowError
			if errors.As(err, &bad) {
				r.rows++
				return nil, err
			}
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("read %s: %w", r.plan.Path, err)
		}
		r.rows++
		row.cells = row.cells[:min(len(row.cells), len(r.plan.Columns))]
		if r.id >= len(row.cells) {
			return nil, &RowError{Line: row.line, Reason: "no id"}
		}
		return row, nil
	}
}

func (r *Reader) checkID(id string, line int) error {
	switch {
	case id == "":
		return &RowError{Line: line, Reason: fmt.Sprintf("column %s, the id, is empty", r.plan.IDColumn)}
	case len(id) > maxIDBytes:
		return &RowError{Line: line, ID: id[:32], Reason: fmt.Sprintf("the id has %d bytes, at most %d are allowed", len(id), maxIDBytes)}
	case !utf8.ValidString(id):
		return &RowError{Line: line, Reason: "the id is not valid UTF-8"}
	}
	h := maphash.String(r.seed, id)
	if first, ok := r.seen[h]; ok {
		return &RowError{Line: line, ID: id, Reason: fmt.Sprintf("duplicate id, first on line %d: group by %s if rows are events", first, r.plan.IDColumn)}
	}
	r.seen[h] = int32(min(line, math.MaxInt32))
	return nil
}

func appendTexts(texts []profile.Text, field string, c *cell) []profile.Text {
	switch {
	case c.kind == cellList:
		for i, e := range c.list {
			if e == "" {
				continue
			}
			text := profile.Text{Field: field, Body: e}
			if c.events != nil {
				text.At, text.Weight = c.events[i].At, c.events[i].Weight
			}
			texts = append(texts, text)
		}
	case c.kind != cellAbsent && !missing(c.raw):
		texts = append(texts, profile.Text{Field: field, Body: string(c.raw)})
	}
	return texts
}

// word shares the strings of a category's values, which repeat.
func (r *Reader) word(column int, b []byte) string {
	m := r.words[column]
	if w, ok := m[string(b)]; ok {
		return w
	}
	w := string(b)
	if len(m) < 4096 && len(w) < 256 {
		m[w] = w
	}
	return w
}

// value types one cell; a reason when it cannot.
func (r *Reader) value(column int, c *cell) (index.Value, string) {
	plan := &r.plan.Columns[column]
	if c.kind == cellAbsent || c.kind == cellText && missing(c.raw) {
		return index.Value{}, ""
	}
	if c.odd != "" {
		return index.Value{}, fmt.Sprintf("column %s, %s", plan.Name, c.odd)
	}
	if c.kind == cellList && plan.Type != profile.TypeSet {
		return index.Value{}, fmt.Sprintf("column %s: a list where one %s is expected", plan.Name, plan.Type)
	}
	bad := func() (index.Value, string) {
		return index.Value{}, fmt.Sprintf("column %s: %q is not a %s: mend it or set the column's type", plan.Name, cut(string(c.raw), 40), plan.Type)
	}
	switch plan.Type {
	case profile.TypeNumber:
		n, ok := parseNumber(c.raw)
		if !ok && plan.Comma {
			n, ok = commaNumber(c.raw)
		}
		if c.kind == cellBool {
			n, ok = c.num, true
		}
		if !ok {
			return bad()
		}
		return index.Value{Kind: index.Number, Num: n}, ""
	case profile.TypeBool:
		n, _, ok := parseBool(c.raw)
		if !ok {
			if n, ok = parseNumber(c.raw); !ok || n != 0 && n != 1 { // 1.0
				return bad()
			}
		}
		return index.Value{Kind: index.Bool, Num: n}, ""
	case profile.TypeTime:
		t, ok := parseTime(plan.Layout, c.raw)
		if !ok {
			return bad()
		}
		return index.Value{Kind: index.Time, Num: t}, ""
	case profile.TypeCategory:
		return index.Value{Kind: index.Category, Str: r.word(column, c.raw)}, ""
	case profile.TypeSet:
		if set := splitSet(c, plan.Split); len(set) > 0 {
			return index.Value{Kind: index.Set, Set: set}, ""
		}
	}
	return index.Value{}, ""
}
