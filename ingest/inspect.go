package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/profile"
)

// Inspect reads the beginning of a file and plans how to read all of it. It
// fails when the file cannot be opened or is of no known format, or when
// options name columns that are not there.
func Inspect(ctx context.Context, path string, opt Options) (*Plan, error) {
	p := &Plan{Path: path, opt: opt, GroupBy: opt.GroupBy, Encoding: "utf-8"}
	fail := func(err error) (*Plan, error) { return nil, fmt.Errorf("inspect %s: %w", path, err) }
	s, err := openStream(path)
	if err != nil {
		return fail(err)
	}
	head, whole, err := s.head()
	if err == nil {
		p.Compression = s.compression
		err = p.sniff(bytes.Clone(head), whole)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return fail(err)
	}
	src, err := p.source(ctx, nil)
	if err != nil {
		return fail(err)
	}
	err = p.sample(ctx, src.rows)
	if err = errors.Join(err, src.rows.Close()); err != nil {
		return fail(err)
	}
	return p, nil
}

// sniff settles format, encoding and delimiter.
func (p *Plan) sniff(head []byte, whole bool) error {
	p.Format = strings.ToLower(p.opt.Format)
	if bytes.HasPrefix(head, []byte("PAR1")) && p.Format == "" {
		p.Format = FormatParquet
	}
	if p.Format == FormatParquet {
		if p.Compression != "" {
			return fmt.Errorf("a Parquet file inside %s: decompress it first", p.Compression)
		}
		return nil
	}
	for _, o := range other {
		if bytes.HasPrefix(head, []byte(o.magic)) {
			return fmt.Errorf("this is %s", o.what)
		}
	}
	if p.opt.Encoding != "" {
		p.Encoding = canonicalEncoding(p.opt.Encoding)
	} else {
		var note string
		if p.Encoding, note = sniffEncoding(head, whole); note != "" {
			p.Notes = append(p.Notes, note)
		}
	}
	dec, err := decoder(p.Encoding)
	if err != nil {
		return err
	}
	if dec != nil { // a character cut by the end of the sample does no harm
		if head, err = dec.NewDecoder().Bytes(head); err != nil {
			return fmt.Errorf("decode as %s: %w", p.Encoding, err)
		}
	}
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	if err := notText(head); err != nil {
		return err
	}
	line := bytes.TrimSpace(head)
	if len(line) == 0 && whole {
		return errors.New("the file is empty")
	}
	if jsonArray(line) {
		return errors.New("a JSON array: write one object a line, such as with jq -c '.[]'")
	}
	p.returns = bytes.IndexByte(head, '\n') < 0 && bytes.IndexByte(head, '\r') >= 0
	if p.Format == "" {
		p.Format = FormatCSV
		if len(line) > 0 && line[0] == '{' {
			p.Format = FormatNDJSON
		}
	}
	if p.returns {
		head = bytes.ReplaceAll(head, []byte{'\r'}, []byte{'\n'})
	}
	switch p.Format {
	case FormatCSV:
		p.Delimiter = p.opt.Delimiter
		if p.Delimiter == 0 {
			p.Delimiter = sniffDelimiter(head)
		}
		if p.Delimiter >= 0x80 || p.Delimiter == '"' || p.Delimiter == '\n' || p.Delimiter == '\r' || p.Delimiter < 0 {
			return fmt.Errorf("delimiter %q: use one ASCII character that is not a quote or a line end", p.Delimiter)
		}
	case FormatNDJSON:
	default:
		return fmt.Errorf("unknown format %q: use csv, ndjson or parquet", p.Format)
	}
	return nil
}

// other says what a file is, by its first bytes, that is often given for a
// table.
var other = []struct{ magic, what string }{
	{"PK\x03\x04", "a zip archive or an Excel workbook: save the sheet as CSV"},
	{"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV"},
	{"%PDF-", "a PDF: export the table as CSV"},
	{"\x89PNG", "a picture"},
	{"SQLite format 3\x00", "an SQLite database: export the table as CSV"},
	{"ARROW1\x00", "an Arrow file: write it as Parquet or CSV"},
	{"Obj\x01", "an Avro file: write it as Parquet or CSV"},
}

// notText refuses decoded text that consists of control characters to a good
// part. A stray one in a cell is not enough.
func notText(head []byte) error {
	if n := notPrintable(head); n*200 > len(head) && n > 2 {
		return fmt.Errorf("not text: %d of the first %d bytes are control characters: give CSV, NDJSON or Parquet, or set the encoding", n, len(head))
	}
	return nil
}

func notPrintable(head []byte) (n int) {
	for _, c := range head {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
			n++
		}
	}
	return n
}

// jsonArray says whether text begins as a list of JSON objects.
func jsonArray(text []byte) bool {
	return len(text) > 0 && text[0] == '[' && bytes.HasPrefix(bytes.TrimSpace(text[1:]), []byte{'{'})
}

// opened is a row source and how far it is.
type opened struct {
	rows     rowSource
	progress func() (read, total int64)
}

// source opens the file's rows. names are the columns, nil to find them.
func (p *Plan) source(ctx context.Context, names []string) (*opened, error) {
	if p.Format == FormatParquet {
		return openParquet(ctx, p.Path, names, p.opt)
	}
	s, err := openStream(p.Path)
	if err != nil {
		return nil, err
	}
	in, err := s.text(p.Encoding)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if p.returns {
		in = &returnsToLines{in}
	}
	out := &opened{progress: func() (int64, int64) { return s.read.Load(), s.total }}
	if p.Format == FormatNDJSON {
		src := newNDJSON(in, s.Close, names, p.opt)
		src.lines.mended = p.Encoding != "utf-8"
		out.rows = src
		return out, nil
	}
	src := newCSV(in, s.Close, byte(p.Delimiter), p.opt)
	src.mended = p.Encoding != "utf-8"
	src.columns = len(names)
	out.rows = src
	return out, nil
}

// sample reads the first rows and guesses the columns.
func (p *Plan) sample(ctx context.Context, rows rowSource) error {
	limit := p.opt.SampleRows
	if limit <= 0 {
		limit = defaultSample
	}
	var cols []*stats
	var pre [][]string // CSV rows before the header is settled
	var names []string
	size, widths := 0, map[int]int{}
	var first error // what is wrong with the first bad row
	see := func(cells []cell) {
		for len(cols) < len(cells) {
			cols = append(cols, newStats())
		}
		for i := range cells {
			size += len(cells[i].raw)
			cols[i].see(&cells[i])
		}
		p.Sampled++
	}
	width := 0
	settle := func() {
		if len(pre) == 0 || names != nil {
			return
		}
		for _, r := range pre {
			widths[len(r)]++
		}
		for w, n := range widths {
			if n > widths[width] || n == widths[width] && w > width {
				width = w
			}
		}
		if len(pre[0]) == width || p.opt.Header != nil {
			p.Header = sniffHeader(pre[0], pre[1:])
		}
		if p.opt.Header != nil {
			p.Header = *p.opt.Header
		}
		first := pre[0]
		if p.Header {
			width, pre = len(first), pre[1:]
		}
		names = columnNames(first, p.Header, width)
		for _, r := range pre {
			if len(r) != width {
				p.Refused++
				continue
			}
			cells := make([]cell, len(r))
			for i, v := range r {
				cells[i] = cell{kind: cellText, raw: []byte(v)}
			}
			see(cells)
		}
	}
	p.Whole = true
	for {
		if p.Sampled+p.Refused >= limit || size > sampleBytes {
			p.Whole = false
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *RowError
		if errors.As(err, &bad) {
			p.Refused++
			if first == nil {
				first = bad
			}
			continue
		}
		if err != nil {
			return err
		}
		if p.Format != FormatCSV {
			for _, t := range r.texts {
				p.Chinese = p.Chinese || profile.IsChinese(t.Body)
			}
			see(r.cells)
			continue
		}
		if names != nil {
			if len(r.cells) != width {
				p.Refused++
				continue
			}
			see(r.cells)
			continue
		}
		copied := make([]string, len(r.cells))
		for i, c := range r.cells {
			copied[i] = string(c.raw)
		}
		if pre = append(pre, copied); len(pre) == min(200, limit+1) {
			settle()
		}
	}
	settle()
	if src, ok := rows.(interface{ columnNames() []string }); ok {
		names = src.columnNames()
	}
	if len(names) == 0 && first != nil {
		return fmt.Errorf("no rows that can be read: is it CSV, NDJSON with one object a line, or Parquet? %w", first)
	}
	if len(names) == 0 {
		return errors.New("no rows that can be read: is it CSV, NDJSON or Parquet?")
	}
	for len(cols) < len(names) {
		cols = append(cols, newStats())
	}
	p.Columns = make([]ColumnPlan, len(names))
	for i, name := range names {
		p.Columns[i].Name = name
		guessColumn(&p.Columns[i], cols[i], p.Sampled, p.Whole, p.GroupBy != "")
	}
	return p.settle(cols)
}

func (s *jsonSource) columnNames() []string { return s.order }

// columnNames cleans a header: no empty, long or repeated names, and none that
// is "id" unless it is the first of that name.
func columnNames(first []string, header bool, width int) []string {
	names := make([]string, width)
	seen := map[string]bool{}
	for i := range names {
		name := fmt.Sprintf("c%d", i+1)
		if header && i < len(first) {
			if v := strings.Trim(first[i], "\ufeff \t"); v != "" {
				name = strings.ToValidUTF8(v[:min(len(v), maxIDBytes)], "")
			}
		}
		base := name
		for k := 2; seen[name]; k++ {
			name = fmt.Sprintf("%s_%d", base, k)
		}
		seen[name] = true
		names[i] = name
	}
	return names
}

// settle chooses the id and applies what the options say.
func (p *Plan) settle(cols []*stats) error {
	var faults []error
	need := func(name, what string) *ColumnPlan {
		c := p.Column(name)
		if c == nil {
			known := make([]string, 0, 20)
			for _, c := range p.Columns[:min(20, len(p.Columns))] {
				known = append(known, c.Name)
			}
			faults = append(faults, fmt.Errorf("%s: there is no column %q; the file has %s", what, name, strings.Join(known, ", ")))
		}
		return c
	}
	for _, name := range slices.Sorted(mapsKeys(p.opt.Types)) {
		typ := p.opt.Types[name]
		if !typ.Valid() {
			faults = append(faults, fmt.Errorf("type of %q: unknown type %q", name, typ))
		} else if c := need(name, "types"); c != nil {
			c.Use, c.Type, c.Why = UseField, typ, "as asked"
			if typ == profile.TypeText {
				c.Use = UseText
			}
			if typ == profile.TypeTime && c.Layout == "" {
				c.Layout = layoutUnix
			}
		}
	}
	for _, name := range p.opt.TextColumns {
		if c := need(name, "text columns"); c != nil {
			c.Use, c.Type, c.Why = UseText, profile.TypeText, "as asked"
		}
	}
	for _, name := range p.opt.Ignore {
		if c := need(name, "ignore"); c != nil {
			c.Use, c.Type, c.Why = UseIgnore, "", "as asked"
		}
	}
	switch {
	case p.opt.GroupBy != "":
		if c := need(p.opt.GroupBy, "group by"); c != nil {
			c.Use, c.Type, c.Why = UseKey, "", "rows are folded by it"
		}
	case p.opt.IDColumn != "":
		if c := need(p.opt.IDColumn, "id column"); c != nil {
			c.Use, c.Type, c.Why, p.IDColumn = UseID, "", "as asked", c.Name
		}
	default:
		p.guessID(cols)
	}
	for i := range p.Columns {
		if c := &p.Columns[i]; c.Use == UseText {
			p.Chinese = p.Chinese || profile.IsChinese(strings.Join(c.Samples, " "))
		}
		if c := &p.Columns[i]; c.Name == "id" && (c.Use == UseField || c.Use == UseText) {
			c.Use, c.Type, c.Why = UseIgnore, "", "a field cannot be called id: rename the column to use it"
		}
	}
	return errors.Join(append(faults, p.decays())...)
}

// guessID takes the most id-like column that has a different value in every
// sampled row.
func (p *Plan) guessID(cols []*stats) {
	best, score := -1, 0
	for i, c := range p.Columns {
		s := cols[i]
		asked := c.Why == "as asked"
		sc := idScore(c.Name)
		if sc == 0 && c.Name == "c1" && i == 0 && p.Header && s.sequence && s.numbers == s.present {
			sc = 1 // an unnamed column that counts rows, as data frames write
		}
		if asked || sc == 0 || s.lists > 0 || s.ints != s.numbers {
			continue
		}
		different := s.unique() && s.present == p.Sampled
		if sc == 3 { // a few faults in a column named id are faults of rows
			different = s.present*50 >= p.Sampled*49 && len(s.distinct)*10 >= s.present*9 && len(s.distinct) > 1
		}
		if !different {
			if sc == 3 && s.present > 0 && len(s.distinct) < s.present {
				p.Notes = append(p.Notes, fmt.Sprintf("%s repeats: if rows are events of customers, group by it", c.Name))
			}
			continue
		}
		if sc > score {
			best, score = i, sc
		}
	}
	if best >= 0 {
		c := &p.Columns[best]
		c.Use, c.Type, c.Why, p.IDColumn = UseID, "", "nearly every row has another", c.Name
		if cols[best].unique() {
			c.Why = "different in every row"
		}
	}
}
