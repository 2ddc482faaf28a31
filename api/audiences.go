package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// seedRef is audience.SeedRef in the document: an id or {"id", "weight"}.
type seedRef struct{}

// Schema says so in the document.
func (seedRef) Schema(huma.Registry) *huma.Schema {
	zero := 0.0
	object := &huma.Schema{Type: "object", AdditionalProperties: false, Required: []string{"id"}, Properties: map[string]*huma.Schema{
		"id": {Type: "string"}, "weight": {Type: "number", ExclusiveMinimum: &zero},
	}}
	object.PrecomputeMessages()
	out := &huma.Schema{OneOf: []*huma.Schema{{Type: "string"}, object}}
	out.PrecomputeMessages()
	return out
}

// AudienceBody is a request for an audience; exported for the framework to see.
type AudienceBody struct {
	Name string `json:"name" pattern:"^[a-z0-9_-]{1,64}$"`
	Seed uint64 `json:"seed,omitempty" maximum:"9007199254740991" doc:"of the random draws"`
	audience.Request
}

func (b *AudienceBody) request() audience.Request {
	b.Request.Name, b.Request.Seed = b.Name, b.Seed
	return b.Request
}

// AtAudience is the path of one audience; exported for the framework to see.
type AtAudience struct {
	InCollection
	Audience string `path:"audience" pattern:"^[a-z0-9_-]{1,64}$" example:"spring"`
}

// maxPage is the most members of one page.
const maxPage = 10_000

type membersInput struct {
	AtAudience
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	Cursor string `query:"cursor" maxLength:"64" doc:"next of the page before"`
	AtVersion
}

// AtVersion names a version of a list; exported for the framework to see.
type AtVersion struct {
	Version int `query:"version" minimum:"0" doc:"of the list; default: the one that counts"`
}

type membersBody struct {
	Members []audience.Member `json:"members"`
	Next    string            `json:"next,omitempty" doc:"cursor of the next page; absent on the last"`
}

// A cursor is the rank of the last member seen: a stored list does not change
// under the reader, and an erased member leaves its rank empty.
func cursorOf(rank int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("r" + strconv.Itoa(rank)))
}

func rankOf(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	digits, ok := bytes.CutPrefix(raw, []byte("r"))
	rank, aerr := strconv.Atoi(string(digits))
	if err != nil || aerr != nil || !ok || rank < 0 {
		return 0, badCursor()
	}
	return rank, nil
}

func badCursor() error {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "the cursor is not one of this server's")
	p.Errors = []Fault{{Location: "query.cursor", Message: "use next of the page before, unchanged"}}
	return p
}

// finished returns an audience whose list is there.
func (s *Server) finished(ctx context.Context, at *AtAudience) (*collection.AudienceInfo, error) {
	info, err := s.opt.Service.Audience(ctx, at.Collection, at.Audience)
	if err != nil {
		return nil, err
	}
	if info.State == collection.JobFailed || info.State == collection.JobCancelled {
		why := ""
		if info.Problem != "" {
			why = " (" + info.Problem + ")"
		}
		return nil, fmt.Errorf("audience %q is %s%s: %w", at.Audience, info.State, why, errNoList)
	}
	if info.State != collection.JobDone || info.Result == nil {
		return nil, fmt.Errorf("audience %q is %s: %w", at.Audience, info.State, errNotReady)
	}
	return info, nil
}

func (s *Server) audienceRoutes() {
	svc := s.opt.Service
	base := collectionPath + "/audiences"
	s.api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[audience.SeedRef](), reflect.TypeFor[seedRef]())
	s.api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[audience.Control](), reflect.TypeFor[control]())
	create := s.operation("create-audience", http.MethodPost, base, "Build an audience from seeds, as a job", "audiences", RoleWrite)
	create.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, create, func(ctx context.Context, in *struct {
		InCollection
		Body AudienceBody
	}) (*jobAnswer, error) {
		job, err := svc.CreateAudience(ctx, in.Collection, in.Body.request())
		return accepted(job), problemOf(err)
	})
	at := base + "/{audience}"
	s.showRoutes(base, at)
	huma.Register(s.api, s.operation("delete-audience", http.MethodDelete, at, "Delete an audience", "audiences", RoleWrite),
		func(ctx context.Context, in *AtAudience) (*struct{}, error) {
			return nil, problemOf(svc.DropAudience(ctx, in.Collection, in.Audience))
		})
	huma.Register(s.api, s.operation("list-members", http.MethodGet, at+"/members", "Members by rank, in pages", "audiences", RoleRead),
		func(ctx context.Context, in *membersInput) (*body[membersBody], error) {
			after, err := rankOf(in.Cursor)
			if err != nil {
				return nil, err
			}
			if _, err := s.finished(ctx, &in.AtAudience); err != nil {
				return nil, problemOf(err)
			}
			if err := svc.Releasable(ctx, in.Collection, in.Audience, in.Version); err != nil {
				return nil, problemOf(err)
			}
			members, err := svc.MembersAt(ctx, in.Collection, in.Audience, in.Version, after, in.Limit)
			if err != nil {
				return nil, problemOf(err)
			}
			out := &body[membersBody]{membersBody{Members: members}}
			if len(members) == in.Limit {
				out.Body.Next = cursorOf(members[len(members)-1].Rank)
			}
			return out, nil
		})
	s.curveRoute(at)
	type checks struct {
		Members []collection.Membership `json:"members"`
	}
	huma.Register(s.api, s.operation("check-members", http.MethodPost, at+"/members/check", "In or out, with the score", "audiences", RoleRead),
		func(ctx context.Context, in *struct {
			AtAudience
			Body struct {
				IDs []string `json:"ids" minItems:"1" maxItems:"10000"`
			}
		}) (*body[checks], error) {
			if _, err := s.finished(ctx, &in.AtAudience); err != nil {
				return nil, problemOf(err)
			}
			got, err := svc.Check(ctx, in.Collection, in.Audience, in.Body.IDs)
			if got == nil {
				got = []collection.Membership{}
			}
			return &body[checks]{checks{got}}, problemOf(err)
		})
	s.whyRoute(at)
	events := s.operation("audience-events", http.MethodGet, at+"/events", "Members entering and leaving, as server-sent events, from now on", "audiences", RoleRead)
	events.Description = "A customer enters or leaves when a write of it, or of a suppression list, does so. refreshed, refresh_failed, expired and deleted are of the audience itself. The stream ends with the audience, when its reader is 4,096 changes behind, or when the server stops: members/check says where things stand."
	streams(&events, "change")
	huma.Register(s.api, events, func(ctx context.Context, in *AtAudience) (*huma.StreamResponse, error) {
		if _, err := s.finished(ctx, in); err != nil {
			return nil, problemOf(err)
		}
		changes, err := svc.Changes(ctx, in.Collection, in.Audience)
		if err != nil {
			return nil, problemOf(err)
		}
		return stream(s, "change", changes), nil
	})
	s.lifecycleRoutes(at)
	s.exportRoutes(at)
}

// reasonsText is a member's parts as one cell.
func compact(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	return append(raw, '\n'), err
}
