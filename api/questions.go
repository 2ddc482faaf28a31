package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

func hitsOf(a collection.Answer, err error) (*body[collection.Answer], error) {
	if a.Hits == nil {
		a.Hits = []collection.Hit{}
	}
	return &body[collection.Answer]{a}, problemOf(err)
}

// exampleRef is an id, a vector, {"id", "weight"} or {"vector", "weight"}.
type exampleRef collection.Example

// UnmarshalJSON takes the four forms.
func (e *exampleRef) UnmarshalJSON(raw []byte) error {
	switch t := bytes.TrimSpace(raw); {
	case bytes.HasPrefix(t, []byte{'"'}):
		return json.Unmarshal(t, &e.ID)
	case bytes.HasPrefix(t, []byte{'['}):
		return json.Unmarshal(t, &e.Vector)
	}
	return json.Unmarshal(raw, (*collection.Example)(e))
}

// Schema says so in the document.
func (exampleRef) Schema(huma.Registry) *huma.Schema {
	number := &huma.Schema{Type: "number"}
	vector := &huma.Schema{Type: "array", Items: number}
	object := &huma.Schema{Type: "object", AdditionalProperties: false, Properties: map[string]*huma.Schema{
		"id": {Type: "string"}, "vector": vector, "weight": number,
	}}
	object.PrecomputeMessages()
	out := &huma.Schema{OneOf: []*huma.Schema{{Type: "string"}, vector, object}}
	out.PrecomputeMessages()
	return out
}

type similarBody struct {
	Positive []exampleRef  `json:"positive" minItems:"1" maxItems:"10000"`
	Negative []exampleRef  `json:"negative,omitempty" maxItems:"10000"`
	Strategy string        `json:"strategy,omitempty" enum:"average_vector,best_score"`
	Filter   *index.Filter `json:"filter,omitempty"`
	Limit    int           `json:"limit,omitempty" minimum:"0"`
	Offset   int           `json:"offset,omitempty" minimum:"0"`
	Fields   []string      `json:"fields,omitempty"`
	Exact    bool          `json:"exact,omitempty" doc:"score everyone where an index might miss some"`
}

func examplesOf(in []exampleRef) []collection.Example {
	out := make([]collection.Example, len(in))
	for i, e := range in {
		out[i] = collection.Example(e)
	}
	return out
}

func (s *Server) questionRoutes() {
	svc := s.opt.Service
	huma.Register(s.api, s.operation("search", http.MethodPost, collectionPath+"/search", "Customers nearest to a text, a vector or a customer", "questions", RoleRead),
		func(ctx context.Context, in *struct {
			InCollection
			Body collection.SearchRequest
		}) (*body[collection.Answer], error) {
			return hitsOf(svc.Search(ctx, in.Collection, in.Body))
		})
	huma.Register(s.api, s.operation("similar", http.MethodPost, collectionPath+"/similar", "Customers like some and unlike others", "questions", RoleRead),
		func(ctx context.Context, in *struct {
			InCollection
			Body similarBody
		}) (*body[collection.Answer], error) {
			b := in.Body
			return hitsOf(svc.Similar(ctx, in.Collection, collection.SimilarRequest{
				Positive: examplesOf(b.Positive), Negative: examplesOf(b.Negative), Strategy: b.Strategy,
				Filter: b.Filter, Limit: b.Limit, Offset: b.Offset, Fields: b.Fields, Exact: b.Exact,
			}))
		})
	type countBody struct {
		Count int `json:"count"`
	}
	huma.Register(s.api, s.operation("count", http.MethodPost, collectionPath+"/count", "Count customers exactly", "questions", RoleRead),
		func(ctx context.Context, in *struct {
			InCollection
			Body collection.CountRequest
		}) (*body[countBody], error) {
			n, err := svc.Count(ctx, in.Collection, in.Body)
			return &body[countBody]{countBody{n}}, problemOf(err)
		})
}
