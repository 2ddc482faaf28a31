package api

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
)

// control is audience.Control in the document: a share or an object.
type control struct{}

// Schema says so in the document.
func (control) Schema(huma.Registry) *huma.Schema {
	zero, one, count := 0.0, 1.0, 1.0
	share := func() *huma.Schema {
		return &huma.Schema{Type: "number", ExclusiveMinimum: &zero, ExclusiveMaximum: &one}
	}
	object := &huma.Schema{Type: "object", AdditionalProperties: false, Properties: map[string]*huma.Schema{
		"share": share(), "count": {Type: "integer", Minimum: &count}, "seed": {Type: "integer", Minimum: &zero},
	}}
	out := &huma.Schema{OneOf: []*huma.Schema{share(), object}, Description: "a share, or how many"}
	for _, s := range append(out.OneOf, out) {
		s.PrecomputeMessages()
	}
	return out
}

// CombineBody is a request to combine audiences; exported for the framework to see.
type CombineBody struct{ collection.CombineRequest }

type diffInput struct {
	AtAudience
	Version     int    `query:"version" minimum:"0" doc:"of this audience; default: the list that counts"`
	With        string `query:"with" pattern:"^[a-z0-9_-]{0,64}$" doc:"the audience it is compared with; default: the same"`
	WithVersion int    `query:"with_version" minimum:"0" doc:"of that audience; default: of the same the version before, of another the list that counts"`
	Show        string `query:"show" enum:"none,entered,left,kept" default:"none" doc:"whose ids to list"`
	Limit       int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	Cursor      string `query:"cursor" maxLength:"512" doc:"next of the page before"`
}

// lifecycleRoutes are what happens to an audience after it was built.
func (s *Server) lifecycleRoutes(at string) {
	svc := s.opt.Service
	refresh := s.operation("refresh-audience", http.MethodPost, at+"/refresh", "Build the list anew on today's customers, as a job", "audiences", RoleWrite)
	refresh.Description = "The list before counts until the new one is whole, and is kept as an earlier version after that. With churn, at most that share of the members is replaced: those who would leave stay, best first, once the budget is spent."
	refresh.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, refresh, func(ctx context.Context, in *struct {
		AtAudience
		Body *collection.RefreshRequest `required:"false"`
	}) (*jobAnswer, error) {
		var req collection.RefreshRequest
		if in.Body != nil {
			req = *in.Body
		}
		if _, err := s.finished(ctx, &in.AtAudience); err != nil {
			return nil, problemOf(err)
		}
		job, err := svc.Refresh(ctx, in.Collection, in.Audience, req)
		return accepted(job), problemOf(err)
	})
	huma.Register(s.api, s.operation("change-audience", http.MethodPatch, at, "Change an audience's schedule, end or control group", "audiences", RoleWrite),
		func(ctx context.Context, in *struct {
			AtAudience
			Body collection.AudienceChange
		}) (*body[*collection.AudienceInfo], error) {
			info, err := svc.ChangeAudience(ctx, in.Collection, in.Audience, in.Body)
			if err != nil {
				return nil, problemOf(err)
			}
			shown := info.Shown()
			return &body[*collection.AudienceInfo]{&shown}, nil
		})
	diff := s.operation("diff-audience", http.MethodGet, at+"/diff", "How a list differs from another version or audience", "audiences", RoleRead)
	diff.Description = "entered are on this list and not on the other, left on the other and not on this one. Ids come in order of id, of lists that may be exported, without who is suppressed."
	huma.Register(s.api, diff, func(ctx context.Context, in *diffInput) (*body[*collection.Diff], error) {
		after, err := base64.RawURLEncoding.DecodeString(in.Cursor)
		if err != nil {
			return nil, badCursor()
		}
		if _, err := s.finished(ctx, &in.AtAudience); err != nil {
			return nil, problemOf(err)
		}
		req := collection.DiffRequest{
			From: collection.ListRef{Audience: in.With, Version: in.WithVersion}, To: collection.ListRef{Audience: in.Audience, Version: in.Version},
			Show: in.Show, After: string(after), Limit: in.Limit,
		}
		if req.From.Audience == "" {
			req.From.Audience = in.Audience
		}
		if in.Show == "none" {
			req.Show = ""
		}
		got, err := svc.Diff(ctx, in.Collection, req)
		if err == nil && req.Show != "" {
			// Whose ids are shown must be as large as what may be exported.
			of := got.To
			if req.Show == collection.ShowLeft {
				of = got.From
			}
			err = svc.Releasable(ctx, in.Collection, of.Audience, of.Version)
		}
		if err != nil {
			return nil, problemOf(err)
		}
		if got.Next != "" {
			got.Next = base64.RawURLEncoding.EncodeToString([]byte(got.Next))
		}
		return &body[*collection.Diff]{got}, nil
	})
	huma.Register(s.api, s.operation("overlap-audiences", http.MethodPost, collectionPath+"/overlap", "What the lists of several audiences have in common", "audiences", RoleRead),
		func(ctx context.Context, in *struct {
			InCollection
			Body struct {
				Audiences []string `json:"audiences" minItems:"2" maxItems:"64"`
			}
		}) (*body[*collection.Overlap], error) {
			got, err := svc.Overlap(ctx, in.Collection, in.Body.Audiences)
			return &body[*collection.Overlap]{got}, problemOf(err)
		})
	combine := s.operation("combine-audiences", http.MethodPost, collectionPath+"/combine", "Make an audience of the lists of others, as a job", "audiences", RoleWrite)
	combine.Description = "union, intersection, or difference (of the first list, those on none of the others). The score is a member's standing on those lists, 1 at the head and 0 at the end: the best in a union, the worst in an intersection, the first list's in a difference. Who is held back from a parent's exports is held back from this one's."
	combine.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, combine, func(ctx context.Context, in *struct {
		InCollection
		Body CombineBody
	}) (*jobAnswer, error) {
		job, err := svc.Combine(ctx, in.Collection, in.Body.CombineRequest)
		return accepted(job), problemOf(err)
	})
	s.outcomeRoutes(at)
}
