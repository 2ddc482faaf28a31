package collection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Fault is one thing wrong with a request, and where.
type Fault struct {
	Location string `json:"location,omitempty"`
	Message  string `json:"message"`
}

// located is an error with its place in the request. It matches index.ErrInvalid.
type located struct {
	at  string
	msg string
}

func (e *located) Error() string { return e.at + ": " + e.msg }
func (e *located) Unwrap() error { return index.ErrInvalid }

func faultf(at, format string, args ...any) error {
	return &located{at: at, msg: fmt.Sprintf(format, args...)}
}

// Faults flattens joined errors into one entry each, in order.
func Faults(err error) []Fault {
	if err == nil {
		return nil
	}
	var loc *located
	var row *index.RowError
	switch joined := any(err).(type) {
	case interface{ Unwrap() []error }:
		var out []Fault
		for _, e := range joined.Unwrap() {
			out = append(out, Faults(e)...)
		}
		return out
	case *located:
		loc = joined
		return []Fault{{Location: loc.at, Message: loc.msg}}
	case *index.RowError:
		row = joined
		return []Fault{{Location: fmt.Sprintf("customers[%d]", row.Row), Message: row.Reason}}
	}
	// A joined error below a message keeps the message of each part.
	if inner := errors.Unwrap(err); inner != nil {
		if _, many := inner.(interface{ Unwrap() []error }); many {
			return Faults(inner)
		}
	}
	return []Fault{{Message: err.Error()}}
}

// rawRecord is a customer as JSON brings it.
type rawRecord struct {
	ID     json.RawMessage            `json:"id"`
	Fields map[string]json.RawMessage `json:"fields"`
	Texts  []json.RawMessage          `json:"texts"`
	Vector []float32                  `json:"vector"`
}

// ParseRecord reads one customer `{"id", "fields", "texts", "vector"}` against
// a schema. A field of type text joins the texts. All faults come joined.
func (s *Service) ParseRecord(schema profile.Schema, raw []byte) (profile.Record, error) {
	if !utf8.Valid(raw) {
		return profile.Record{}, faultf("body", "not valid UTF-8: send JSON as UTF-8")
	}
	var in rawRecord
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return profile.Record{}, faultf("body", "%s", jsonProblem(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return profile.Record{}, faultf("body", "more than one JSON value: send one customer a line")
	}
	rec := profile.Record{Vector: in.Vector}
	var faults []error
	if err := json.Unmarshal(in.ID, &rec.ID); err != nil {
		// Numbers are common as ids in exports; their text is the id.
		var n json.Number
		if json.Unmarshal(in.ID, &n) != nil {
			faults = append(faults, faultf("id", "missing: give a string of 1 to 256 bytes"))
		}
		rec.ID = n.String()
	}
	fields := make(map[string]any, len(in.Fields))
	for name, v := range in.Fields {
		d := json.NewDecoder(bytes.NewReader(v))
		d.UseNumber()
		var val any
		if err := d.Decode(&val); err != nil {
			faults = append(faults, faultf("fields."+name, "%s", jsonProblem(err)))
			continue
		}
		fields[name] = val
	}
	values, texts, err := DecodeFields(schema, fields)
	if err != nil {
		faults = append(faults, err)
	}
	rec.Fields = values
	rec.Texts = texts
	for i, t := range in.Texts {
		var text profile.Text
		if err := json.Unmarshal(t, &text.Body); err != nil {
			if err := json.Unmarshal(t, &text); err != nil {
				faults = append(faults, faultf(fmt.Sprintf("texts[%d]", i), "neither a string nor {\"field\", \"body\"}"))
				continue
			}
		}
		rec.Texts = append(rec.Texts, text)
	}
	return rec, errors.Join(faults...)
}

func jsonProblem(err error) string {
	var syn *json.SyntaxError
	if errors.As(err, &syn) {
		return fmt.Sprintf("not JSON at byte %d: %v", syn.Offset, err)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// DecodeFields types the values of a JSON object by a schema, in order of name.
// null means missing. Text fields come back as texts, in the schema's order.
func DecodeFields(schema profile.Schema, fields map[string]any) (map[string]index.Value, []profile.Text, error) {
	types := make(map[string]profile.FieldType, len(schema.Fields))
	for _, f := range schema.Fields {
		types[f.Name] = f.Type
	}
	var faults []error
	values := map[string]index.Value{}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v := fields[name]
		typ, known := types[name]
		switch {
		case !known:
			faults = append(faults, faultf("fields."+name, "not in the collection's schema: add the field to it or leave it out"))
		case v == nil, typ == profile.TypeText:
		default:
			val, err := decodeValue(typ, v)
			if err != nil {
				faults = append(faults, faultf("fields."+name, "%v", err))
				continue
			}
			values[name] = val
		}
	}
	var texts []profile.Text
	for _, f := range schema.Fields {
		v, ok := fields[f.Name]
		if f.Type != profile.TypeText || !ok || v == nil {
			continue
		}
		switch t := v.(type) {
		case string:
			texts = append(texts, profile.Text{Field: f.Name, Body: t})
		case []any:
			for i, e := range t {
				body, ok := e.(string)
				if !ok {
					faults = append(faults, faultf(fmt.Sprintf("fields.%s[%d]", f.Name, i), "want a string, have %s", jsonType(e)))
					continue
				}
				texts = append(texts, profile.Text{Field: f.Name, Body: body})
			}
		default:
			faults = append(faults, faultf("fields."+f.Name, "want a string or a list of strings, have %s", jsonType(v)))
		}
	}
	return values, texts, errors.Join(faults...)
}

func decodeValue(typ profile.FieldType, v any) (index.Value, error) {
	switch typ {
	case profile.TypeNumber:
		n, ok := asNumber(v)
		if !ok {
			return index.Value{}, fmt.Errorf("want a finite number, have %s", jsonType(v))
		}
		return index.Value{Kind: index.Number, Num: n}, nil
	case profile.TypeCategory:
		switch c := v.(type) {
		case string:
			return index.Value{Kind: index.Category, Str: c}, nil
		case json.Number:
			return index.Value{Kind: index.Category, Str: c.String()}, nil
		}
		return index.Value{}, fmt.Errorf("want a string, have %s", jsonType(v))
	case profile.TypeBool:
		b, ok := v.(bool)
		if !ok {
			return index.Value{}, fmt.Errorf("want true or false, have %s", jsonType(v))
		}
		val := index.Value{Kind: index.Bool}
		if b {
			val.Num = 1
		}
		return val, nil
	case profile.TypeTime:
		if n, ok := asNumber(v); ok {
			return index.Value{Kind: index.Time, Num: n}, nil
		}
		str, _ := v.(string)
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", time.DateOnly} {
			if t, err := time.Parse(layout, str); err == nil {
				return index.Value{Kind: index.Time, Num: float64(t.UnixNano()) / 1e9}, nil
			}
		}
		return index.Value{}, fmt.Errorf("want a time such as 2026-03-01T12:00:00Z or seconds since 1970, have %s", jsonType(v))
	case profile.TypeSet:
		list, ok := v.([]any)
		if !ok {
			return index.Value{}, fmt.Errorf("want a list of strings, have %s", jsonType(v))
		}
		set := make([]string, 0, len(list))
		for _, e := range list {
			str, ok := e.(string)
			if !ok {
				return index.Value{}, fmt.Errorf("want a list of strings, have %s in it", jsonType(e))
			}
			set = append(set, str)
		}
		slices.Sort(set)
		return index.Value{Kind: index.Set, Set: slices.Compact(set)}, nil
	}
	return index.Value{}, fmt.Errorf("the field has the unknown type %q", typ)
}

func asNumber(v any) (float64, bool) {
	var n float64
	switch x := v.(type) {
	case float64:
		n = x
	case int:
		n = float64(x)
	case int64:
		n = float64(x)
	case json.Number:
		f, err := x.Float64()
		if err != nil {
			return 0, false
		}
		n = f
	default:
		return 0, false
	}
	return n, !math.IsNaN(n) && !math.IsInf(n, 0)
}

func jsonType(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		if len(x) > 40 {
			x = strings.ToValidUTF8(x[:40], "") + "…"
		}
		return fmt.Sprintf("the string %q", x)
	case bool:
		return fmt.Sprintf("the boolean %v", x)
	case float64, json.Number, int, int64:
		return fmt.Sprintf("the number %v", x)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}

// encodeField is the inverse of decodeValue, for answers.
func encodeField(v index.Value) any {
	switch v.Kind {
	case index.Number:
		return v.Num
	case index.Bool:
		return v.Num != 0
	case index.Time:
		sec, frac := math.Modf(v.Num)
		return time.Unix(int64(sec), int64(frac*1e9)).UTC().Format(time.RFC3339Nano)
	case index.Set:
		return v.Set
	case index.Category:
		return v.Str
	}
	return nil
}
