// Package ingest reads customers from files: CSV and its relatives, NDJSON and
// Parquet, plain or compressed, in the encodings that files come in.
//
// Flow: Inspect looks at the beginning of a file and returns a Plan, which says
// what every column was taken for and why. Every guess can be overruled by
// Options. Plan.Open returns a Reader that yields one profile.Record per row,
// or, with GroupBy, one per customer folded from many rows. A bad row is a
// *RowError and reading goes on after it.
//
// Memory is bounded by the longest line, except for GroupBy, which holds all
// customers and says so when they do not fit. Parquet is decoded in a child
// process with a memory limit (see RunParquetChild), for a damaged file can
// make a decoder ask for any amount.
package ingest

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// The formats.
const (
	FormatCSV     = "csv"
	FormatNDJSON  = "ndjson"
	FormatParquet = "parquet"
)

// Options overrules what Inspect would guess. The zero value guesses all.
type Options struct {
	Format      string                       `json:"format,omitempty"`       // csv, ndjson or parquet; "" looks
	Delimiter   rune                         `json:"delimiter,omitempty"`    // 0 looks for , ; tab |
	Encoding    string                       `json:"encoding,omitempty"`     // utf-8, gb18030, utf-16le, utf-16be or windows-1252; "" looks
	Header      *bool                        `json:"header,omitempty"`       // nil looks; without one columns are c1, c2, ...
	Types       map[string]profile.FieldType `json:"types,omitempty"`        // by column
	IDColumn    string                       `json:"id_column,omitempty"`    // "" looks; rows are numbered from 1 when there is none
	TextColumns []string                     `json:"text_columns,omitempty"` // columns that go to the encoder
	Ignore      []string                     `json:"ignore,omitempty"`       // columns to leave out
	GroupBy     string                       `json:"group_by,omitempty"`     // fold rows with the same value here into one customer
	// With GroupBy: rows lose half of their weight every HalfLife days before AsOf, by
	// TimeColumn ("": the only time), and rows after AsOf are left out. Without it, of
	// NDJSON whose lists have events {"item" or "text", "at", "weight"}: those do.
	// HalfLife and AsOf go together, or neither is set.
	HalfLife   float64   `json:"half_life_days,omitempty"`
	AsOf       time.Time `json:"as_of,omitzero"`
	TimeColumn string    `json:"time_column,omitempty"`
	SampleRows int       `json:"sample_rows,omitempty"` // rows that guesses are made from; 0 means 100000
	// MaxLine is the longest row in bytes; 0 means 16 MiB.
	MaxLine int `json:"max_line,omitempty"`
	// MaxGroupBytes bounds about what GroupBy may hold; 0 means 4 GiB.
	MaxGroupBytes int64 `json:"max_group_bytes,omitempty"`
}

const (
	defaultSample = 100_000
	sampleBytes   = 64 << 20 // of decoded text, so that long texts do not pile up
	defaultLine   = 16 << 20
	maxColumns    = 4096
	maxIDBytes    = 256
)

// RowError is one row that cannot be used. The Reader goes on after it. It
// matches index.ErrInvalid.
type RowError struct {
	Line   int    // line of the file on which the row begins, from 1; a row number in Parquet
	ID     string // as far as known
	Reason string // what is wrong and how to mend it
}

func (e *RowError) Error() string {
	if e.ID != "" {
		return fmt.Sprintf("line %d (id %q): %s", e.Line, e.ID, e.Reason)
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// Unwrap makes errors.Is(err, index.ErrInvalid) true.
func (e *RowError) Unwrap() error { return index.ErrInvalid }

// Use is what becomes of a column.
type Use string

// The uses.
const (
	UseID     Use = "id"      // the customer's id
	UseKey    Use = "key"     // rows are folded by it
	UseField  Use = "field"   // a column, or, when folding, several
	UseCount  Use = "count"   // when folding: only how many distinct values
	UseText   Use = "text"    // goes to the encoder
	UseIgnore Use = "ignored" // left out
)

// ColumnPlan is what one column of the file was taken for.
type ColumnPlan struct {
	Name    string            `json:"name"`
	Use     Use               `json:"use"`
	Type    profile.FieldType `json:"type,omitempty"`
	Why     string            `json:"why"`
	Layout  string            `json:"layout,omitempty"`    // of a time, as in package time; "unix" for seconds
	Split   string            `json:"separator,omitempty"` // of a set's elements
	Comma   bool              `json:"comma,omitempty"`     // numbers are written 3,14
	Dated   bool              `json:"dated,omitempty"`     // elements of lists have times or weights
	Missing float64           `json:"missing"`             // share of the sampled rows
	Samples []string          `json:"samples,omitempty"`   // up to three different values
}

// Plan is how a file will be read. Print it with String.
type Plan struct {
	Path        string `json:"path"`
	Format      string `json:"format"`
	Compression string `json:"compression,omitempty"` // gzip or zstd
	Encoding    string `json:"encoding"`
	Delimiter   rune   `json:"delimiter,omitempty"`
	Header      bool   `json:"header"`
	IDColumn    string `json:"id_column,omitempty"` // "": rows are numbered from 1
	GroupBy     string `json:"group_by,omitempty"`
	// When rows, or elements of lists, are events that lose weight: how, and rows by
	// which column.
	Decay      *profile.Decay `json:"decay,omitempty"`
	TimeColumn string         `json:"time_column,omitempty"`
	Columns    []ColumnPlan   `json:"columns"`
	Sampled    int            `json:"sampled"` // rows looked at
	Refused    int            `json:"refused"` // bad rows among them
	Whole      bool           `json:"whole"`   // the sample was the whole file
	Chinese    bool           `json:"chinese"` // most of its text is Chinese
	Notes      []string       `json:"notes,omitempty"`

	opt     Options
	returns bool // lines end with a carriage return alone
}

// Column returns the plan of a column, nil when there is none.
func (p *Plan) Column(name string) *ColumnPlan {
	for i := range p.Columns {
		if p.Columns[i].Name == name {
			return &p.Columns[i]
		}
	}
	return nil
}

// Schema returns the fields that the Reader's records will have.
func (p *Plan) Schema() profile.Schema {
	var s profile.Schema
	if p.GroupBy != "" {
		s.Fields = foldedFields(p)
		return s
	}
	for _, c := range p.Columns {
		if c.Use == UseField || c.Use == UseText {
			f := profile.Field{Name: c.Name, Type: c.Type}
			if p.decaying(&c) {
				f.Decay = p.Decay
			}
			s.Fields = append(s.Fields, f)
		}
	}
	return s
}

// String is the plan as a table for people.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s", p.Path, p.Format, p.Encoding)
	if p.Compression != "" {
		fmt.Fprintf(&b, ", %s", p.Compression)
	}
	if p.Format == FormatCSV {
		fmt.Fprintf(&b, ", delimiter %q", p.Delimiter)
		if p.Header {
			b.WriteString(", header")
		} else {
			b.WriteString(", no header")
		}
	}
	of := "the first "
	if p.Whole {
		of = "all "
	}
	fmt.Fprintf(&b, "; looked at %s%d rows", of, p.Sampled+p.Refused)
	if p.Refused > 0 {
		fmt.Fprintf(&b, ", %d of them bad", p.Refused)
	}
	switch {
	case p.GroupBy != "":
		fmt.Fprintf(&b, "\none customer per %s\n", p.GroupBy)
		if p.Decay != nil {
			fmt.Fprintf(&b, "half of a row's weight goes every %g days before %s, by %s; later rows are left out\n", p.Decay.HalfLife, p.Decay.Reference.UTC().Format(time.RFC3339), p.TimeColumn)
		}
	case p.IDColumn != "":
		fmt.Fprintf(&b, "\nid: %s\n", p.IDColumn)
	default:
		b.WriteString("\nid: the row number, from 1\n")
	}
	for _, c := range p.Columns {
		if p.GroupBy == "" && p.decaying(&c) {
			fmt.Fprintf(&b, "half of the weight of what is dated in %s goes every %g days before %s\n", printable(c.Name), p.Decay.HalfLife, p.Decay.Reference.UTC().Format(time.RFC3339))
		}
	}
	table := [][]string{{"COLUMN", "TYPE", "MISSING", "WHY", "SAMPLES"}}
	for _, c := range p.Columns {
		kind := string(c.Type)
		if c.Use != UseField && c.Use != UseText {
			kind = string(c.Use)
		}
		samples := make([]string, len(c.Samples))
		for i, s := range c.Samples {
			samples[i] = cut(s, 24)
		}
		table = append(table, []string{printable(c.Name), kind, fmt.Sprintf("%.1f%%", 100*c.Missing), c.Why, strings.Join(samples, " / ")})
	}
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], cells(cell))
		}
	}
	for _, row := range table {
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(cell)
				break
			}
			b.WriteString(cell + strings.Repeat(" ", widths[i]-cells(cell)+2))
		}
		b.WriteByte('\n')
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", printable(n))
	}
	return b.String()
}

// cells is how wide text stands on a terminal: Chinese characters take two.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
			n++
		}
	}
	return n
}

// cut shortens a sample to n characters on one line, without what would steer
// a terminal.
func cut(s string, n int) string {
	s = printable(strings.Join(strings.Fields(s), " "))
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// printable replaces control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\ufffd'
		}
		return r
	}, s)
}
