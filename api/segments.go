package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/collection"
)

// AtSegment is the path of one segment; exported for the framework to see.
type AtSegment struct {
	InCollection
	Segment int `path:"segment" minimum:"1" example:"3"`
}

type listInput struct {
	AtSegment
	Body collection.ListRequest
}

func (s *Server) segmentRoutes() {
	svc := s.opt.Service
	base := collectionPath + "/segments"
	create := s.operation("discover-segments", http.MethodPost, base, "Find the groups that customers fall into, as a job", "segments", RoleWrite)
	create.Description = "Customers are placed by their text and columns and grouped; how many groups there are is chosen by how well two halves of the customers agree on them. Sensitive columns are left out unless features.allow_sensitive names them. A later run replaces the segments and keeps their numbers where they hold the same customers."
	create.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, create, func(ctx context.Context, in *struct {
		InCollection
		Body segment.Params
	}) (*jobAnswer, error) {
		job, err := svc.DiscoverSegments(ctx, in.Collection, in.Body)
		return accepted(job), problemOf(err)
	})
	s.example(base, map[string]any{"max_k": 12, "features": map[string]any{"columns": []string{"age", "region"}}})
	huma.Register(s.api, s.operation("list-segments", http.MethodGet, base, "A collection's segments with labels, sizes and typical customers", "segments", RoleRead),
		func(ctx context.Context, in *InCollection) (*body[*collection.SegmentSet], error) {
			set, err := svc.Segments(ctx, in.Collection)
			return &body[*collection.SegmentSet]{set}, problemOf(err)
		})
	huma.Register(s.api, s.operation("delete-segments", http.MethodDelete, base, "Delete a collection's segments", "segments", RoleWrite),
		func(ctx context.Context, in *InCollection) (*struct{}, error) {
			return nil, problemOf(svc.DropSegments(ctx, in.Collection))
		})
	type near struct {
		Segments []collection.NearSegment `json:"segments"`
	}
	similar := s.operation("similar-segments", http.MethodPost, base+"/similar", "Segments nearest to a segment, a customer, a text or an audience", "segments", RoleRead)
	huma.Register(s.api, similar, func(ctx context.Context, in *struct {
		InCollection
		Body collection.SimilarSegmentsRequest
	}) (*body[near], error) {
		got, err := svc.SimilarSegments(ctx, in.Collection, in.Body)
		if got == nil {
			got = []collection.NearSegment{}
		}
		return &body[near]{near{got}}, problemOf(err)
	})
	s.example(base+"/similar", map[string]any{"text": "sails every weekend", "limit": 3})
	list := s.operation("list-segment-customers", http.MethodPost, base+"/{segment}/customers", "A segment's customers, those most clearly in it first, and their number", "segments", RoleRead)
	huma.Register(s.api, list, func(ctx context.Context, in *listInput) (*body[*collection.Listed], error) {
		got, err := svc.SegmentCustomers(ctx, in.Collection, in.Segment, in.Body)
		return &body[*collection.Listed]{got}, problemOf(err)
	})
	s.example(list.Path, map[string]any{"filter": map[string]any{"field": "age", "gte": 40}, "limit": 20, "fields": []string{"age"}})
	huma.Register(s.api, s.operation("get-customer-segment", http.MethodGet, collectionPath+"/customers/{id}/segment", "The segment of a customer as the customer is now", "segments", RoleRead),
		func(ctx context.Context, in *AtCustomer) (*body[*collection.CustomerSegment], error) {
			got, err := svc.SegmentOf(ctx, in.Collection, in.ID)
			return &body[*collection.CustomerSegment]{got}, problemOf(err)
		})
}

// example shows a body in the document of a path's POST.
func (s *Server) example(path string, body any) {
	s.api.OpenAPI().Paths[path].Post.RequestBody.Content["application/json"].Example = body
}
