package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/kindred-search/kindred/profile"
)

// jsonSource reads one object a line: flat, or in the shape of the API
// ({"id", "fields": {...}, "texts": [...], "vector": [...]}). Objects inside
// are flattened with dots, at most four deep.
type jsonSource struct {
	lines *csvSource // only its lines
	names map[string]int
	order []string
	grow  bool // new keys become columns; else they are passed over
	row   row
}

func newNDJSON(in io.Reader, closeIn func() error, names []string, opt Options) *jsonSource {
	s := &jsonSource{lines: newCSV(in, closeIn, ',', opt), names: map[string]int{}, grow: names == nil}
	for i, n := range names {
		s.names[n] = i
	}
	s.order = slices.Clone(names)
	return s
}

// Close releases the file.
func (s *jsonSource) Close() error { return s.lines.Close() }

func (s *jsonSource) next() (*row, error) {
	for {
		line, err := s.lines.physical()
		if err != nil {
			return nil, err
		}
		s.row.line, s.lines.row.line = s.lines.line, s.lines.line
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		bad := func(reason string) (*row, error) { return nil, &RowError{Line: s.row.line, Reason: reason} }
		if err := s.lines.valid(line); err != nil {
			return nil, err
		}
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber()
		var obj map[string]any
		if err := dec.Decode(&obj); err != nil {
			return bad(fmt.Sprintf("not a JSON object: %v", err))
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return bad("more than one JSON value on the line: write one object a line")
		}
		if obj == nil {
			return bad("null instead of an object")
		}
		for i := range s.row.cells {
			s.row.cells[i] = cell{}
		}
		s.row.texts, s.row.vector = nil, nil
		if reason := s.object(obj); reason != "" {
			return bad(reason)
		}
		for len(s.row.cells) < len(s.order) {
			s.row.cells = append(s.row.cells, cell{})
		}
		return &s.row, nil
	}
}

// object spreads an object over the row; a reason when it cannot.
func (s *jsonSource) object(obj map[string]any) string {
	if !apiShape(obj) {
		return s.flat("", obj, 0)
	}
	if id, ok := obj["id"]; ok {
		if reason := s.put("id", id, 0); reason != "" {
			return reason
		}
	}
	if fields, ok := obj["fields"].(map[string]any); ok {
		if reason := s.flat("", fields, 0); reason != "" {
			return reason
		}
	}
	texts, _ := obj["texts"].([]any)
	for _, t := range texts {
		switch t := t.(type) {
		case string:
			s.row.texts = append(s.row.texts, profile.Text{Body: t})
		case map[string]any:
			field, _ := t["field"].(string)
			delete(t, "field")
			if _, ok := t["body"]; !ok {
				return `texts: an entry without "body"`
			}
			said, err := profile.ParseEvent("body", t)
			if err != nil {
				return fmt.Sprintf("texts: %v", err)
			}
			s.row.texts = append(s.row.texts, profile.Text{Field: field, Body: said.Item, At: said.At, Weight: said.Weight})
		default:
			return `texts: want strings or {"field", "body"}`
		}
	}
	vector, _ := obj["vector"].([]any)
	for i, x := range vector {
		num, _ := x.(json.Number)
		f, err := strconv.ParseFloat(string(num), 32)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return fmt.Sprintf("vector: entry %d is not a finite number", i)
		}
		s.row.vector = append(s.row.vector, float32(f))
	}
	return ""
}

// apiShape says whether an object has the API's keys and no others.
func apiShape(obj map[string]any) bool {
	for key, v := range obj {
		switch key {
		case "id":
		case "fields":
			if _, ok := v.(map[string]any); !ok && v != nil {
				return false
			}
		case "texts", "vector":
			if _, ok := v.([]any); !ok && v != nil {
				return false
			}
		default:
			return false
		}
	}
	return len(obj) > 1 || obj["id"] == nil
}

func (s *jsonSource) flat(prefix string, obj map[string]any, depth int) string {
	for _, key := range slices.Sorted(maps.Keys(obj)) {
		if reason := s.put(prefix+key, obj[key], depth); reason != "" {
			return reason
		}
	}
	return ""
}

func (s *jsonSource) put(name string, v any, depth int) string {
	if inner, ok := v.(map[string]any); ok {
		if depth >= 4 {
			return fmt.Sprintf("%s: objects nested more than four deep", name)
		}
		return s.flat(name+".", inner, depth+1)
	}
	at, ok := s.names[name]
	if !ok {
		if !s.grow {
			return ""
		}
		if len(s.order) == maxColumns {
			return fmt.Sprintf("more than %d different keys", maxColumns)
		}
		at = len(s.order)
		s.names[name] = at
		s.order = append(s.order, name)
	}
	for len(s.row.cells) <= at {
		s.row.cells = append(s.row.cells, cell{})
	}
	c := &s.row.cells[at]
	*c = cell{}
	switch v := v.(type) {
	case string:
		c.kind, c.raw = cellText, []byte(v)
	case json.Number:
		c.kind, c.raw = cellNumber, []byte(v)
		f, ok := parseNumber(c.raw)
		if !ok {
			return fmt.Sprintf("%s: %s is out of range", name, v)
		}
		c.num = f
	case bool:
		c.kind, c.raw = cellBool, []byte(strconv.FormatBool(v))
		if v {
			c.num = 1
		}
	case []any:
		c.kind = cellList
		c.take(v)
	}
	return ""
}

// take reads the elements of a list: values, or events {"item" or "text", "at", "weight"}.
func (c *cell) take(list []any) {
	var events []profile.Event
	dated := false
	for i, e := range list {
		var event profile.Event
		switch e := e.(type) {
		case nil:
			continue
		case string:
			event.Item = e
		case json.Number:
			event.Item = string(e)
		case bool:
			event.Item = strconv.FormatBool(e)
		default:
			what := "item"
			if object, ok := e.(map[string]any); ok && object["text"] != nil {
				what = "text"
			}
			var err error
			if event, err = profile.ParseEvent(what, e); err != nil {
				if c.odd == "" {
					c.odd = fmt.Sprintf("element %d: %v", i, err)
				}
				continue
			}
			dated = dated || event.At != 0 || event.Weight != 0
		}
		c.list, events = append(c.list, event.Item), append(events, event)
	}
	if dated {
		c.events = events
	}
}
