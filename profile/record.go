// Package profile holds what a customer is before and after anything is
// computed: the record as it came in, the schema that types its fields, the
// passages that its texts become, and the bins that its columns are cut into.
//
// Flow: package ingest (or the API) makes a Record; Schema.Compose turns its
// texts into passages; an encoder turns those into vectors; Pool makes one
// vector of them. The other fields become columns (Schema.Columns), which
// FitBins and Codes turn into the small integers that heads add up.
package profile

import "github.com/kindred-search/kindred/index"

// Record is one customer as it came in, before anything is computed from it.
type Record struct {
	ID     string                 // any valid UTF-8, 1 to 256 bytes
	Fields map[string]index.Value // structured columns; absent means missing
	Texts  []Text                 // in order
	// Events are the elements of sets that have a time or a weight, by field, for who knows
	// how the field decays; Fields has them as if age did not matter.
	Events map[string][]Event
	Vector []float32 // nil unless the caller brings its own
}

// Text is one passage source: a review, a note, an order line.
type Text struct {
	Field  string  `json:"field,omitempty"` // the column it came from, if any
	Body   string  `json:"body"`
	At     float64 `json:"at,omitempty"`     // when, in seconds since 1970, for Field.Decay; 0: not dated
	Weight float64 `json:"weight,omitempty"` // in the mean of the customer's passages, times the field's; 0 means 1
}

// FieldType is the type of a field of a schema.
type FieldType string

// The field types. Text goes to the encoder; the others become columns.
const (
	TypeNumber   FieldType = "number"
	TypeCategory FieldType = "category"
	TypeSet      FieldType = "set"
	TypeText     FieldType = "text"
	TypeBool     FieldType = "bool"
	TypeTime     FieldType = "time"
)

// Field is one attribute of the customers of a collection.
type Field struct {
	Name      string    `json:"name"`
	Type      FieldType `json:"type"`
	Sensitive bool      `json:"sensitive,omitempty"` // never in a head unless allowed in writing
	PII       bool      `json:"pii,omitempty"`       // never in a report or a reason
	Immutable bool      `json:"immutable,omitempty"` // never proposed as a change, such as a year of birth
	Weight    float64   `json:"weight,omitempty"`    // of a text field's passages in the mean; 0 means 1
	Decay     *Decay    `json:"decay,omitempty"`     // of a text's or set's dated events; nil: age does not matter
}

// Schema is the fields of a collection and how its text is composed.
type Schema struct {
	Fields   []Field `json:"fields"`
	Template string  `json:"template,omitempty"` // see Compose
}
