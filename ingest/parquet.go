package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// childEnv marks a process that decodes one Parquet file and ends.
const childEnv = "KINDRED_PARQUET_CHILD"

// What a child may take. The address space has room for the runtime's
// reservations; a row group larger than this is refused.
const (
	childAddressSpace = 4 << 30
	childHeap         = 2 << 30
	childSilence      = 60 * time.Second // without a row while one is waited for
)

// RunParquetChild decodes a Parquet file for a parent process, when this
// process was started to do that, and ends it. Otherwise it does nothing and
// returns false. Call it first in main and in TestMain: ingest starts the
// running program again to read Parquet, so that a damaged file can exhaust
// only a child with limits.
func RunParquetChild() bool {
	if os.Getenv(childEnv) != "1" || len(os.Args) != 2 {
		return false
	}
	debug.SetMemoryLimit(childHeap)
	err := limitAddressSpace(childAddressSpace)
	if err == nil {
		out := bufio.NewWriterSize(os.Stdout, 64<<10)
		err = writeRows(os.Args[1], out)
		err = errors.Join(err, out.Flush())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

// childNote is a line of the child that is not a row.
type childNote struct {
	Total *int64 `json:"kindred_rows,omitempty"` // first
	End   *int64 `json:"kindred_end,omitempty"`  // last: rows written
}

// leaf is one column of values.
type leaf struct {
	name string
	list bool
	kind *parquet.Column
}

// writeRows writes a file's rows as NDJSON between two notes.
func writeRows(path string, out io.Writer) (err error) {
	defer func() { // the decoder panics on some damage
		if p := recover(); p != nil {
			err = fmt.Errorf("the decoder gave up: %v", p)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	file, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	var leaves []leaf
	var walk func(c *parquet.Column, list bool)
	walk = func(c *parquet.Column, list bool) {
		list = list || c.Repeated()
		if c.Leaf() {
			name := strings.Join(c.Path(), ".")
			if list {
				name = c.Path()[0]
			}
			leaves = append(leaves, leaf{name, list, c})
			return
		}
		for _, child := range c.Columns() {
			walk(child, list)
		}
	}
	walk(file.Root(), false)
	if len(leaves) > maxColumns {
		return fmt.Errorf("%d columns, at most %d are allowed", len(leaves), maxColumns)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	total := file.NumRows()
	if err := enc.Encode(childNote{Total: &total}); err != nil {
		return err
	}
	var n int64
	batch := make([]parquet.Row, 64)
	for _, g := range file.RowGroups() {
		rows := g.Rows()
		for {
			k, readErr := rows.ReadRows(batch)
			for _, r := range batch[:k] {
				obj := make(map[string]any, len(leaves))
				for _, v := range r {
					if at := v.Column(); at >= 0 && at < len(leaves) {
						setValue(obj, leaves[at], v)
					}
				}
				if err := enc.Encode(obj); err != nil {
					return errors.Join(err, rows.Close())
				}
				n++
			}
			if errors.Is(readErr, io.EOF) {
				break
			}
			if readErr != nil {
				return errors.Join(readErr, rows.Close())
			}
			if k == 0 {
				return errors.Join(io.ErrNoProgress, rows.Close())
			}
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return enc.Encode(childNote{End: &n})
}

func setValue(obj map[string]any, l leaf, v parquet.Value) {
	x := plain(l.kind, v)
	if !l.list {
		obj[l.name] = x
		return
	}
	list, _ := obj[l.name].([]any)
	if x != nil {
		list = append(list, x)
	}
	obj[l.name] = list
}

// plain is a value as JSON knows it; nil for null and for what has no plain
// form (bytes that are not text, numbers that are not finite).
func plain(c *parquet.Column, v parquet.Value) any {
	if v.IsNull() {
		return nil
	}
	lt := c.Type().LogicalType()
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean()
	case parquet.Int32, parquet.Int64:
		n := v.Int64()
		if v.Kind() == parquet.Int32 {
			n = int64(v.Int32())
		}
		if lt == nil {
			return n
		}
		switch kind := lt.Value.(type) {
		case *format.DateType:
			return time.Unix(n*86400, 0).UTC().Format(time.DateOnly)
		case *format.TimestampType:
			if kind.Unit.Value == nil {
				return nil
			}
			per := int64(time.Second / max(1, kind.Unit.Value.Duration()))
			return time.Unix(n/per, n%per*int64(time.Second)/per).UTC().Format(time.RFC3339)
		case *format.DecimalType:
			return float64(n) / math.Pow10(int(kind.Scale))
		}
		return n
	case parquet.Float, parquet.Double:
		f := v.Double()
		if v.Kind() == parquet.Float {
			f = float64(v.Float())
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
		return f
	case parquet.ByteArray:
		if b := v.ByteArray(); utf8.Valid(b) {
			return string(b)
		}
	}
	return nil
}

// parquetSource reads the rows of a child.
type parquetSource struct {
	*jsonSource
	path   string
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stderr *tail
	watch  *time.Timer
	total  int64
	read   int64
	ended  bool
	waited bool
}

// tail keeps the first bytes that a child says.
type tail struct{ bytes.Buffer }

// Write never fails, so the child is never blocked.
func (t *tail) Write(p []byte) (int, error) {
	if room := 2048 - t.Len(); room > 0 {
		t.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func openParquet(ctx context.Context, path string, names []string, opt Options) (*opened, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to read Parquet: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, path)
	cmd.Env = []string{childEnv + "=1", "GOMAXPROCS=2", "GOTRACEBACK=none"}
	cmd.WaitDelay = 5 * time.Second
	s := &parquetSource{path: path, cmd: cmd, cancel: cancel, stderr: &tail{}}
	cmd.Stderr = s.stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start a process to read %s: %w", path, err)
	}
	s.watch = time.AfterFunc(childSilence, cancel)
	s.jsonSource = newNDJSON(out, func() error { return nil }, names, opt)
	return &opened{rows: s, progress: func() (int64, int64) { return s.read, s.total }}, nil
}

// next is the next row. The child ends with a note, so that one that was killed
// is never taken for the end of the file.
func (s *parquetSource) next() (*row, error) {
	if s.ended {
		return nil, io.EOF
	}
	s.watch.Reset(childSilence)
	defer s.watch.Stop()
	for {
		line, err := s.lines.physical()
		if err != nil {
			var bad *RowError
			if errors.As(err, &bad) {
				return nil, bad
			}
			return nil, s.failure(err)
		}
		if bytes.HasPrefix(line, []byte(`{"kindred_`)) {
			var note childNote
			if json.Unmarshal(line, &note) == nil && note.Total != nil {
				s.total = *note.Total
				continue
			}
			if note.End != nil {
				s.ended = true
				if *note.End != s.read {
					return nil, fmt.Errorf("read %s: %d rows arrived of %d", s.path, s.read, *note.End)
				}
				return nil, io.EOF
			}
		}
		s.read++
		s.lines.pending = append(s.lines.pending[:0:0], line...)
		s.lines.line = int(s.read) - 1
		return s.jsonSource.next()
	}
}

// failure says how the child ended.
func (s *parquetSource) failure(err error) error {
	s.waited = true
	waitErr := s.cmd.Wait()
	said := strings.TrimSpace(s.stderr.String())
	if at := strings.IndexByte(said, '\n'); at > 0 {
		said = said[:at]
	}
	if said == "" {
		said = "it was stopped for taking too long or too much memory"
	}
	if errors.Is(err, io.EOF) {
		err = waitErr
	}
	return fmt.Errorf("read %s: the file is damaged or not Parquet, after %d rows: %s (%v)", s.path, s.read, said, err)
}

// Close ends the child.
func (s *parquetSource) Close() error {
	s.watch.Stop()
	s.cancel()
	if !s.waited {
		s.waited = true
		var exit *exec.ExitError
		if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}
