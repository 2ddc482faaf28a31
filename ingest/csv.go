package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/kindred-search/kindred/profile"
)

// cellKind says how a cell is held.
type cellKind uint8

const (
	cellAbsent cellKind = iota // no such key, or JSON null
	cellText                   // raw
	cellNumber                 // num
	cellBool                   // num, 0 or 1
	cellList                   // list
)

// cell is one value before it is typed. raw and list are valid until the next
// row.
type cell struct {
	kind cellKind
	raw  []byte
	num  float64
	list []string
	// Of a list of NDJSON: its elements as events, where one has a time or a weight of its
	// own, and what is wrong with the first element that is none.
	events []profile.Event
	odd    string
}

// row is one row of any format. It is reused by the next call.
type row struct {
	line   int // where it begins, from 1
	cells  []cell
	texts  []profile.Text // NDJSON in the shape of the API
	vector []float32
}

// rowSource yields rows; io.EOF at the end; *RowError for a bad row.
type rowSource interface {
	next() (*row, error)
	io.Closer
}

// csvSource cuts delimited text into rows. Quotes follow RFC 4180: a field in
// quotes may hold delimiters, line ends and doubled quotes; a quote inside a
// bare field stands for itself. Blank lines are skipped.
type csvSource struct {
	in      *bufio.Reader
	close   func() error
	delim   byte
	max     int
	columns int  // 0: any number
	mended  bool // U+FFFD marks broken input

	line    int    // lines taken so far
	pending []byte // text to read again after a quote that never closed
	buf     []byte // a line longer than in's buffer, or a row of several lines
	fields  []byte // unescaped quoted fields
	span    int    // how far a quote may reach for its end
	row     row
}

func newCSV(in io.Reader, closeIn func() error, delim byte, opt Options) *csvSource {
	limit := opt.MaxLine
	if limit <= 0 {
		limit = defaultLine
	}
	return &csvSource{in: bufio.NewReaderSize(in, 64<<10), close: closeIn, delim: delim, max: limit, span: limit}
}

// Close releases the file.
func (s *csvSource) Close() error { return s.close() }

// physical returns the next line with its end. The bytes are good until the
// next call. A line longer than the limit is skipped and reported.
func (s *csvSource) physical() ([]byte, error) {
	if len(s.pending) > 0 {
		n := bytes.IndexByte(s.pending, '\n') + 1
		if n == 0 {
			n = len(s.pending)
		}
		line := s.pending[:n]
		s.pending = s.pending[n:]
		s.line++
		return line, nil
	}
	line, err := s.in.ReadSlice('\n')
	if err == nil {
		s.line++
		return line, nil
	}
	var long []byte
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) <= s.max {
			long = append(long, line...)
		}
		line, err = s.in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(long) == 0 && len(line) == 0 {
		return nil, io.EOF
	}
	s.line++
	if len(long)+len(line) > s.max {
		return nil, &RowError{Line: s.line, Reason: fmt.Sprintf("longer than %d bytes: is the file of another format?", s.max)}
	}
	if len(long) > 0 {
		line = append(long, line...)
	}
	return line, nil
}

// next returns the next row. Its cells are good until the next call.
func (s *csvSource) next() (*row, error) {
	for {
		line, err := s.physical()
		if err != nil {
			return nil, err
		}
		if len(trimEnd(line)) == 0 {
			continue
		}
		s.row.line = s.line
		if err := s.split(line); err != nil {
			return nil, err
		}
		if s.columns > 0 && len(s.row.cells) != s.columns {
			return nil, &RowError{Line: s.row.line, Reason: fmt.Sprintf("%d fields, want %d: is a delimiter inside an unquoted field?", len(s.row.cells), s.columns)}
		}
		return &s.row, nil
	}
}

func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for n := len(b); n > 0 && (b[n-1] == ' ' || b[n-1] == '\t' || b[n-1] == '\r'); n = len(b) {
		b = b[:n-1]
	}
	return b
}

func (s *csvSource) valid(text []byte) error {
	if !utf8.Valid(text) {
		return &RowError{Line: s.row.line, Reason: "not valid UTF-8: save the file as UTF-8 or set the encoding"}
	}
	if s.mended && bytes.Contains(text, []byte("\uFFFD")) {
		return &RowError{Line: s.row.line, Reason: "bytes that do not belong to the encoding: set the right one"}
	}
	return nil
}

// split cuts a line into cells, taking more lines while a quote is open.
func (s *csvSource) split(line []byte) error {
	s.row.cells = s.row.cells[:0]
	if bytes.IndexByte(line, '"') < 0 {
		if err := s.valid(line); err != nil {
			return err
		}
		return s.bare(trimEnd(line))
	}
	return s.quoted(line)
}

func (s *csvSource) add(raw []byte) error {
	if len(s.row.cells) == maxColumns {
		return &RowError{Line: s.row.line, Reason: fmt.Sprintf("more than %d columns", maxColumns)}
	}
	s.row.cells = append(s.row.cells, cell{kind: cellText, raw: raw})
	return nil
}

func (s *csvSource) bare(line []byte) error {
	for {
		i := bytes.IndexByte(line, s.delim)
		if i < 0 {
			return s.add(trim(line))
		}
		if err := s.add(trim(line[:i])); err != nil {
			return err
		}
		line = line[i+1:]
	}
}

// quoted cuts a line that has quotes. On a fault it goes back to the line after
// the first, so one stray quote costs one row, not the rest of the file.
func (s *csvSource) quoted(line []byte) error {
	first := len(line)
	s.buf = append(s.buf[:0], line...)
	s.fields = s.fields[:0]
	type slice struct{ from, to int } // in buf, or in fields
	var cells []slice
	var escaped []bool
	fault := func(reason string) error {
		s.line = s.row.line
		if len(s.buf) > first {
			s.pending = append(bytes.Clone(s.buf[first:]), s.pending...)
		}
		return &RowError{Line: s.row.line, Reason: reason}
	}
	put := func(c slice, esc bool) error {
		if len(cells) == maxColumns {
			return fault(fmt.Sprintf("more than %d columns", maxColumns))
		}
		cells, escaped = append(cells, c), append(escaped, esc)
		return nil
	}
	at, end := 0, len(trimEnd(s.buf))
	for {
		for at < end && s.buf[at] == ' ' {
			at++
		}
		if at >= end || s.buf[at] != '"' {
			n := bytes.IndexByte(s.buf[at:end], s.delim)
			stop := at + n
			if n < 0 {
				stop = end
			}
			if err := put(slice{at, stop}, false); err != nil {
				return err
			}
			if n < 0 {
				break
			}
			at = stop + 1
			continue
		}
		at++
		from := len(s.fields)
		for {
			n := bytes.IndexByte(s.buf[at:], '"')
			if n < 0 {
				s.fields = append(s.fields, s.buf[at:]...)
				at = len(s.buf)
				if len(s.buf) > s.span {
					s.span = 64 << 10 // so that many stray quotes stay cheap
					return fault("a quote opens here and never closes: double the quotes inside the field")
				}
				more, err := s.physical()
				var bad *RowError
				if errors.Is(err, io.EOF) || errors.As(err, &bad) {
					s.span = 64 << 10
					return fault("a quote opens here and never closes: double the quotes inside the field")
				}
				if err != nil {
					return err
				}
				s.buf = append(s.buf, more...)
				end = len(trimEnd(s.buf))
				continue
			}
			s.fields = append(s.fields, s.buf[at:at+n]...)
			at += n + 1
			if at < len(s.buf) && s.buf[at] == '"' {
				s.fields = append(s.fields, '"')
				at++
				continue
			}
			break
		}
		if err := put(slice{from, len(s.fields)}, true); err != nil {
			return err
		}
		for at < end && s.buf[at] == ' ' {
			at++
		}
		if at >= end {
			break
		}
		if s.buf[at] != s.delim {
			return fault("text after a closing quote: double the quotes inside the field")
		}
		at++
	}
	if err := s.valid(s.buf); err != nil {
		return err
	}
	for i, c := range cells {
		raw := s.buf
		if escaped[i] {
			raw = s.fields
		}
		s.row.cells = append(s.row.cells, cell{kind: cellText, raw: trim(raw[c.from:c.to])})
	}
	return nil
}

// sniffDelimiter picks the delimiter under which the most rows of the sample
// have the same number of fields, more than one.
func sniffDelimiter(sample []byte) rune {
	best, bestShare, bestFields := ',', 0.0, 1
	for _, d := range []byte{',', ';', '\t', '|'} {
		src := newCSV(bytes.NewReader(sample), func() error { return nil }, d, Options{})
		counts := map[int]int{}
		rows := 0
		for rows < 200 {
			r, err := src.next()
			if errors.Is(err, io.EOF) {
				break
			}
			rows++
			if err == nil {
				counts[len(r.cells)]++
			}
		}
		fields, n := 0, 0
		for f, c := range counts {
			if c > n || c == n && f > fields {
				fields, n = f, c
			}
		}
		if fields < 2 {
			continue
		}
		share := float64(n) / float64(rows)
		if share > bestShare+0.02 || share > bestShare-0.02 && fields > bestFields {
			best, bestShare, bestFields = rune(d), share, fields
		}
	}
	return best
}
