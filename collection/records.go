package collection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
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

// Faults flattens joined errors into one entry each, in order, without the
// words that only serve errors.Is.
func Faults(err error) []Fault {
	switch e := any(err).(type) {
	case nil:
		return nil
	case *located:
		return []Fault{{Location: e.at, Message: e.msg}}
	case *index.RowError:
		return []Fault{{Location: fmt.Sprintf("customers[%d]", e.Row), Message: e.Reason}}
	}
	parts := joined(err)
	if parts == nil { // a message above a join: the parts say more
		parts = joined(errors.Unwrap(err))
	}
	if parts == nil {
		msg := err.Error()
		for _, kind := range []error{index.ErrInvalid, index.ErrExists} {
			msg = strings.TrimPrefix(strings.TrimSuffix(msg, ": "+kind.Error()), kind.Error()+": ")
		}
		return []Fault{{Message: msg}}
	}
	var out []Fault
	for _, e := range parts {
		out = append(out, Faults(e)...)
	}
	return out
}

// joined returns the parts of an errors.Join. A sentence of fmt.Errorf with
// several %w unwraps to a list as well, but is one fault.
func joined(err error) []error {
	many, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // this very error
	if !ok {
		return nil
	}
	lines := make([]string, len(many.Unwrap()))
	for i, e := range many.Unwrap() {
		lines[i] = e.Error()
	}
	if strings.Join(lines, "\n") != err.Error() {
		return nil
	}
	return many.Unwrap()
}

// rawRecord is a customer as JSON brings it.
type rawRecord struct {
	ID     json.RawMessage            `json:"id"`
	Fields map[string]json.RawMessage `json:"fields"`
	Texts  []json.RawMessage          `json:"texts"`
	Vector []*float32                 `json:"vector"`
}

// ParseRecord reads one customer `{"id", "fields", "texts", "vector"}` against
// a schema. A field of type text joins the texts. All faults come joined; the
// record's id is there with them, where it could be read.
func (s *Service) ParseRecord(schema profile.Schema, raw []byte) (profile.Record, error) {
	if !utf8.Valid(raw) {
		return profile.Record{}, faultf("body", "not valid UTF-8: send JSON as UTF-8")
	}
	if loneSurrogate(raw) {
		return profile.Record{}, faultf("body", "a \\u escape is half of a surrogate pair: such text is not Unicode")
	}
	var in rawRecord
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		var known struct{ ID string }
		if json.Unmarshal(raw, &known) != nil {
			known.ID = ""
		}
		return profile.Record{ID: known.ID}, faultf("body", "%s", jsonProblem(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return profile.Record{}, faultf("body", "more than one JSON value: send one customer a line")
	}
	var rec profile.Record
	var faults []error
	for i, x := range in.Vector {
		if x == nil {
			faults = append(faults, faultf(fmt.Sprintf("vector[%d]", i), "null: want a number"))
			continue
		}
		rec.Vector = append(rec.Vector, *x)
	}
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
		if err := json.Unmarshal(t, &text.Body); err != nil || string(t) == "null" {
			var err error
			if text, err = parseText(t); err != nil {
				faults = append(faults, faultf(fmt.Sprintf("texts[%d]", i), "%v", err))
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
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		at := "the customer"
		if typ.Field != "" {
			at = typ.Field
		}
		return fmt.Sprintf("%s: have %s, want %s", at, typ.Value, wanted(typ.Type))
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// wanted names a Go type as JSON's users know it.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.String:
		return "a string"
	case reflect.Float32:
		return "a finite 32-bit number"
	}
	return "a number"
}

// loneSurrogate says whether JSON has a \u escape of half a surrogate pair. The
// decoder would replace it, and different ids would become one.
func loneSurrogate(raw []byte) bool {
	unit := func(at int) (uint64, bool) { // the escape at a place, if there is one
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16)
		return u, err == nil
	}
	for at := bytes.IndexByte(raw, '\\'); at >= 0 && at < len(raw); {
		step := 2
		if u, ok := unit(at); ok {
			step = 6
			if utf16.IsSurrogate(rune(u)) {
				low, _ := unit(at + 6)
				if utf16.DecodeRune(rune(u), rune(low)) == utf8.RuneError {
					return true
				}
				step = 12
			}
		}
		next := -1
		if at+step < len(raw) {
			next = bytes.IndexByte(raw[at+step:], '\\')
		}
		if next < 0 {
			break
		}
		at += step + next
	}
	return false
}

// DecodeFields types the values of a JSON object by a schema, in order of name.
// null means missing. Text fields come back as texts, in the schema's order.
func DecodeFields(schema profile.Schema, fields map[string]any) (map[string]index.Value, []profile.Text, error) {
	types := make(map[string]profile.Field, len(schema.Fields))
	for _, f := range schema.Fields {
		types[f.Name] = f
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
		field, known := types[name]
		typ := field.Type
		switch {
		case !known:
			faults = append(faults, faultf("fields."+name, "not in the collection's schema: add the field to it or leave it out"))
		case v == nil, typ == profile.TypeText:
		case typ == profile.TypeSet:
			val, errs := decodeSet(field, v)
			faults = append(faults, errs...)
			values[name] = val
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
				said, err := profile.ParseEvent("text", e)
				if err != nil {
					faults = append(faults, faultf(fmt.Sprintf("fields.%s[%d]", f.Name, i), "%v", err))
					continue
				}
				texts = append(texts, profile.Text{Field: f.Name, Body: said.Item, At: said.At, Weight: said.Weight})
			}
		default:
			faults = append(faults, faultf("fields."+f.Name, "want a string or a list of strings, have %s", profile.JSONType(v)))
		}
	}
	return values, texts, errors.Join(faults...)
}

func decodeValue(typ profile.FieldType, v any) (index.Value, error) {
	switch typ {
	case profile.TypeNumber:
		n, ok := profile.JSONNumber(v)
		if !ok {
			return index.Value{}, fmt.Errorf("want a finite number, have %s", profile.JSONType(v))
		}
		return index.Value{Kind: index.Number, Num: n}, nil
	case profile.TypeCategory:
		switch c := v.(type) {
		case string:
			return index.Value{Kind: index.Category, Str: c}, nil
		case json.Number:
			return index.Value{Kind: index.Category, Str: c.String()}, nil
		}
		return index.Value{}, fmt.Errorf("want a string, have %s", profile.JSONType(v))
	case profile.TypeBool:
		b, ok := v.(bool)
		if !ok {
			return index.Value{}, fmt.Errorf("want true or false, have %s", profile.JSONType(v))
		}
		val := index.Value{Kind: index.Bool}
		if b {
			val.Num = 1
		}
		return val, nil
	case profile.TypeTime:
		at, err := profile.ParseTime(v)
		return index.Value{Kind: index.Time, Num: at}, err
	}
	return index.Value{}, fmt.Errorf("the field has the unknown type %q", typ)
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
