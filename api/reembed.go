package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
)

// reembedRoutes make the vectors of a collection anew.
func (s *Server) reembedRoutes() {
	svc, at := s.opt.Service, collectionPath+"/reembed"
	start := s.operation("reembed", http.MethodPost, at, "Embed the customers anew by another model, precision or template, as a job", "collections", RoleAdmin)
	start.Description = "The vectors are made beside those that answer, and compared with them. With switch, the collection moves over if the comparison is passed, or with force in any case; asked again, the job goes on, and does only what was written since. The vectors of before are kept until the switch is confirmed. Afterwards audiences, segments and tags are learned again, unless relearn is false; until then an audience is its list."
	start.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, start, func(ctx context.Context, in *struct {
		InCollection
		Body *collection.ReembedRequest `required:"false"`
	}) (*jobAnswer, error) {
		var req collection.ReembedRequest
		if in.Body != nil {
			req = *in.Body
		}
		job, err := svc.Reembed(ctx, in.Collection, req)
		return accepted(job), problemOf(err)
	})
	huma.Register(s.api, s.operation("get-reembedding", http.MethodGet, at, "How far embedding anew is, and the comparison", "collections", RoleRead),
		func(ctx context.Context, in *InCollection) (*body[*collection.Reembedding], error) {
			got, err := svc.Reembedding(ctx, in.Collection)
			return &body[*collection.Reembedding]{got}, problemOf(err)
		})
	huma.Register(s.api, s.operation("abort-reembedding", http.MethodDelete, at, "Drop what was made, before a switch", "collections", RoleAdmin),
		func(ctx context.Context, in *InCollection) (*struct{}, error) {
			return nil, problemOf(svc.Abort(ctx, in.Collection))
		})
	huma.Register(s.api, s.operation("confirm-reembedding", http.MethodPost, at+"/confirm", "Drop the vectors of before a switch", "collections", RoleAdmin),
		func(ctx context.Context, in *InCollection) (*struct{}, error) {
			return nil, problemOf(svc.Confirm(ctx, in.Collection))
		})
	back := s.operation("rollback-reembedding", http.MethodPost, at+"/rollback", "Move the collection back to the vectors of before a switch, as a job", "collections", RoleAdmin)
	back.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, back, func(ctx context.Context, in *InCollection) (*jobAnswer, error) {
		job, err := svc.Rollback(ctx, in.Collection)
		return accepted(job), problemOf(err)
	})
}
