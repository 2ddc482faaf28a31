package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
)

// maxFields bounds a schema; maxName bounds a field's name, in bytes.
const (
	maxFields = 4096
	maxName   = 256
)

// Kind returns the kind of column that a field of this type becomes, and false
// for text (which becomes passages) and for an unknown type.
func (t FieldType) Kind() (index.Kind, bool) {
	switch t {
	case TypeNumber:
		return index.Number, true
	case TypeCategory:
		return index.Category, true
	case TypeSet:
		return index.Set, true
	case TypeBool:
		return index.Bool, true
	case TypeTime:
		return index.Time, true
	}
	return "", false
}

// Valid says whether t is one of the field types.
func (t FieldType) Valid() bool {
	_, ok := t.Kind()
	return ok || t == TypeText
}

// TypeOf returns the field type of a kind of column, "" for an unknown kind.
func TypeOf(k index.Kind) FieldType {
	switch k {
	case index.Number, index.Category, index.Set, index.Bool, index.Time:
		return FieldType(k)
	}
	return ""
}

// Validate reports all faults of a schema, joined. Each matches
// index.ErrInvalid.
func (s Schema) Validate() error {
	var faults []error
	fault := func(at, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s: %w", at, fmt.Sprintf(format, args...), index.ErrInvalid))
	}
	if len(s.Fields) > maxFields {
		fault("fields", "%d fields, at most %d are allowed: leave some out", len(s.Fields), maxFields)
	}
	seen := make(map[string]FieldType, len(s.Fields))
	for i, f := range s.Fields {
		at := fmt.Sprintf("fields[%d]", i)
		switch {
		case f.Name == "":
			fault(at, "the field has no name")
		case len(f.Name) > maxName:
			fault(at, "the name has %d bytes, at most %d are allowed", len(f.Name), maxName)
		case !utf8.ValidString(f.Name):
			fault(at, "the name is not valid UTF-8")
		case f.Name == "id":
			fault(at, "%q is the customer's own id: choose another name", f.Name)
		case seen[f.Name] != "":
			fault(at, "field %q is there twice: rename or drop one", f.Name)
		}
		if !f.Type.Valid() {
			fault(at, "field %q has the unknown type %q: use number, category, set, text, bool or time", f.Name, f.Type)
		}
		if math.IsNaN(f.Weight) || math.IsInf(f.Weight, 0) || f.Weight < 0 {
			fault(at, "field %q: weight %v must be a finite number from 0 (which means 1) upwards", f.Name, f.Weight)
		}
		if f.Weight != 0 && f.Type != TypeText {
			fault(at, "field %q: only text has a weight, this is %q: remove the weight", f.Name, f.Type)
		}
		if f.Decay != nil {
			if f.Type != TypeText && f.Type != TypeSet {
				fault(at, "field %q: only texts and sets decay, this is %q: remove the decay", f.Name, f.Type)
			}
			if err := f.Decay.validate(); err != nil {
				faults = append(faults, fmt.Errorf("%s: field %q: decay.%w", at, f.Name, err))
			}
		}
		seen[f.Name] = f.Type
	}
	parts, err := parseTemplate(s.Template)
	if err != nil {
		fault("template", "%v", err)
	}
	for _, p := range parts {
		if p.field != "" && seen[p.field] == "" {
			fault("template", "{%s} is not a field of the schema", p.field)
		}
	}
	return errors.Join(faults...)
}

// Columns returns the fields that become columns (all but text), in order.
func (s Schema) Columns() []index.Column {
	var cols []index.Column
	for _, f := range s.Fields {
		if kind, ok := f.Type.Kind(); ok {
			cols = append(cols, index.Column{Name: f.Name, Kind: kind})
		}
	}
	return cols
}

// Field returns the field of a name.
func (s Schema) Field(name string) (Field, bool) {
	i := slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return s.Fields[i], true
}

// CompositionStamp names the way a schema turns a record into passages: 12 hex
// digits. Vectors of two stamps must not be mixed. Fields that do not reach
// the text leave it as it is.
func CompositionStamp(s Schema) string {
	type textField struct {
		Name   string
		Weight float64
		Decay  *Decay `json:",omitempty"`
	}
	in := struct {
		Rule     int // raised when Compose changes what it makes
		Template string
		Texts    []textField
	}{Rule: 1, Template: s.Template}
	for _, f := range s.Fields {
		if f.Type == TypeText {
			in.Texts = append(in.Texts, textField{f.Name, weightOf(f), f.Decay})
		}
	}
	slices.SortFunc(in.Texts, func(a, b textField) int { return strings.Compare(a.Name, b.Name) })
	raw, err := json.Marshal(in)
	if err != nil { // only for a weight that Validate refuses
		raw = fmt.Appendf(nil, "%+v", in)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:6])
}

func weightOf(f Field) float64 {
	if f.Weight == 0 {
		return 1
	}
	return f.Weight
}
