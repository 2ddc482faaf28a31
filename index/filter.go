package index

// Filter is a tree over columns. A node is either a condition on one Field or
// a group; a group holds when every Must holds, at least one Should holds (if
// there are any) and no MustNot holds. Values stay typed from the request to
// the engine: they are never pasted into an expression.
type Filter struct {
	Must    []Filter `json:"must,omitempty"`
	Should  []Filter `json:"should,omitempty"`
	MustNot []Filter `json:"must_not,omitempty"`

	Field  string  `json:"field,omitempty" doc:"column, or \"id\" for the customer's id"`
	Eq     any     `json:"eq,omitempty"`
	In     []any   `json:"in,omitempty"`
	Gt     any     `json:"gt,omitempty"`
	Gte    any     `json:"gte,omitempty"`
	Lt     any     `json:"lt,omitempty"`
	Lte    any     `json:"lte,omitempty"`
	Exists *bool   `json:"exists,omitempty"`
	Prefix *string `json:"prefix,omitempty"`
}
