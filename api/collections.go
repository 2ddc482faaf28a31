package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// InCollection is the path of everything below a collection.
type InCollection struct {
	Collection string `path:"collection" pattern:"^[a-z0-9_-]{1,64}$" example:"shop"`
}

// AtCustomer is the path of one customer; exported for the framework to see.
type AtCustomer struct {
	InCollection
	ID string `path:"id" minLength:"1" maxLength:"256" example:"c1"`
}

type body[T any] struct{ Body T }

type putCollection struct {
	InCollection
	Preconditions
	Body struct {
		Model     string          `json:"model,omitempty" doc:"encoder; empty for columns only or brought vectors" example:"all-MiniLM-L6-v2"`
		Dim       int             `json:"dim,omitempty" minimum:"0" maximum:"32768" doc:"of brought vectors"`
		Precision index.Precision `json:"precision,omitempty" enum:"int8,fp16,fp32,binary"`
		Fields    []fieldBody     `json:"fields,omitempty" maxItems:"1000"`
		Template  string          `json:"template,omitempty" doc:"such as {title}. {review}"`
	}
}

type fieldBody struct {
	Name      string  `json:"name" minLength:"1"`
	Type      string  `json:"type" enum:"number,category,set,text,bool,time"`
	Sensitive bool    `json:"sensitive,omitempty"`
	PII       bool    `json:"pii,omitempty"`
	Immutable bool    `json:"immutable,omitempty" doc:"never proposed as a change, such as a year of birth"`
	Weight    float64 `json:"weight,omitempty" minimum:"0"`

	Decay *profile.Decay `json:"decay,omitempty" doc:"of a text's or set's dated events: half of the weight goes every half_life_days before reference"`
}

type collectionAnswer struct {
	Status int
	ETag   string `header:"ETag" doc:"changes with the collection's settings, not with its customers"`
	Body   collection.Config
}

type listAnswer struct {
	Body struct {
		Collections []collection.Config `json:"collections"`
	}
}

// collectionPath is where everything of a collection lies.
const collectionPath = "/v1/collections/{collection}"

func (s *Server) collectionRoutes() {
	svc := s.opt.Service
	put := s.operation("put-collection", http.MethodPut, collectionPath, "Create a collection, or add fields to it", "collections", RoleAdmin)
	config := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[collection.Config](), true, "Config")
	put.Responses = map[string]*huma.Response{"201": {Description: "created", Content: map[string]*huma.MediaType{"application/json": {Schema: config}}}}
	put.Errors = append(put.Errors, http.StatusPreconditionFailed)
	huma.Register(s.api, put, func(ctx context.Context, in *putCollection) (*collectionAnswer, error) {
		cfg := collection.Config{Name: in.Collection, Model: in.Body.Model, Dim: in.Body.Dim, Precision: in.Body.Precision}
		cfg.Schema.Template = in.Body.Template
		for _, f := range in.Body.Fields {
			cfg.Schema.Fields = append(cfg.Schema.Fields, profile.Field{Name: f.Name, Type: profile.FieldType(f.Type), Sensitive: f.Sensitive, PII: f.PII, Immutable: f.Immutable, Weight: f.Weight, Decay: f.Decay})
		}
		var out *collectionAnswer
		err := s.unchanged(ctx, in.Collection, in.Preconditions, func(ctx context.Context) error {
			got, created, err := svc.Put(ctx, cfg)
			out = &collectionAnswer{Status: http.StatusOK, ETag: etag(got), Body: got}
			if created {
				out.Status = http.StatusCreated
			}
			return err
		})
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
	huma.Register(s.api, s.operation("list-collections", http.MethodGet, "/v1/collections", "All collections", "collections", RoleRead),
		func(ctx context.Context, _ *struct{}) (*listAnswer, error) {
			all, err := svc.List(ctx)
			if err != nil {
				return nil, problemOf(err)
			}
			out := &listAnswer{}
			out.Body.Collections = []collection.Config{}
			for _, c := range all {
				if visible(ctx, c.Name) {
					out.Body.Collections = append(out.Body.Collections, c)
				}
			}
			return out, nil
		})
	get := s.operation("get-collection", http.MethodGet, collectionPath, "One collection", "collections", RoleRead)
	get.Responses = map[string]*huma.Response{"304": {Description: "still the same"}}
	huma.Register(s.api, get, func(ctx context.Context, in *struct {
		InCollection
		IfNoneMatch string `header:"If-None-Match" doc:"an ETag seen before"`
	}) (*collectionAnswer, error) {
		cfg, err := svc.Collection(ctx, in.Collection)
		out := &collectionAnswer{Status: http.StatusOK, ETag: etag(cfg), Body: cfg}
		if err == nil && named(in.IfNoneMatch, out.ETag) {
			out.Status = http.StatusNotModified
		}
		return out, problemOf(err)
	})
	drop := s.operation("delete-collection", http.MethodDelete, collectionPath, "Delete a collection with all in it", "collections", RoleAdmin)
	drop.Errors = append(drop.Errors, http.StatusPreconditionFailed)
	huma.Register(s.api, drop, func(ctx context.Context, in *struct {
		InCollection
		Preconditions
	}) (*struct{}, error) {
		return nil, problemOf(s.unchanged(ctx, in.Collection, in.Preconditions, func(ctx context.Context) error { return svc.Drop(ctx, in.Collection) }))
	})
	s.customerRoutes()
	s.reembedRoutes()
}

// upsertInput keeps the body raw: it is an array or a stream of lines, and a
// broken line must not refuse the others.
type upsertInput struct {
	InCollection
	Stream
}

// textSchema is a text, or one with its field, time and weight.
func textSchema() *huma.Schema {
	zero := 0.0
	object := &huma.Schema{Type: "object", AdditionalProperties: false, Required: []string{"body"}, Properties: map[string]*huma.Schema{
		"field": {Type: "string"}, "body": {Type: "string"},
		"at":     {OneOf: []*huma.Schema{{Type: "string", Format: "date-time"}, {Type: "number"}}, Description: "when: text such as 2026-03-01T12:00:00Z, or seconds since 1970"},
		"weight": {Type: "number", ExclusiveMinimum: &zero},
	}}
	object.PrecomputeMessages()
	out := &huma.Schema{OneOf: []*huma.Schema{{Type: "string"}, object}}
	out.PrecomputeMessages()
	return out
}

type customerPatch struct {
	Fields map[string]any `json:"fields,omitempty" doc:"null removes a field"`
	Texts  []string       `json:"texts,omitempty" doc:"replaces the free texts"`
}

type deleteInput struct {
	AtCustomer
	Erase bool `query:"erase" doc:"also from stored audiences, with a receipt"`
}

type deleteAnswer struct {
	Status int
	Body   *collection.Receipt
}

type jobAnswer struct {
	Location string `header:"Location"`
	Body     collection.Job
}

func accepted(job collection.Job) *jobAnswer {
	return &jobAnswer{Location: "/v1/jobs/" + job.ID, Body: job}
}

func (s *Server) customerRoutes() {
	svc := s.opt.Service
	up := s.operation("upsert-customers", http.MethodPost, collectionPath+"/customers", "Take customers in: valid ones are kept, the others are named", "customers", RoleWrite)
	customer := &huma.Schema{Type: "object", Required: []string{"id"}, Properties: map[string]*huma.Schema{
		"id":     {Type: "string", Description: "1 to 256 bytes of UTF-8"},
		"fields": {Type: "object", AdditionalProperties: true, Description: "by the collection's schema; elements of a set may be {item, at, weight}, of a text {text, at, weight}"},
		"texts":  {Type: "array", Items: textSchema()},
		"vector": {Type: "array", Items: &huma.Schema{Type: "number"}},
	}}
	huma.Register(s.api, up, func(ctx context.Context, in *upsertInput) (*body[collection.Outcome], error) {
		cfg, err := svc.Collection(ctx, in.Collection)
		if err != nil {
			return nil, problemOf(err)
		}
		u := &upserter{srv: s, cfg: cfg, total: collection.Outcome{Refused: []collection.Verdict{}}}
		switch in.contentType {
		case "application/x-ndjson", "application/ndjson", "application/jsonl":
			err = u.takeLines(ctx, in.body)
		case "application/json":
			err = u.takeArray(ctx, in.body)
		default:
			return nil, unsupported(in.contentType, "application/json", "application/x-ndjson")
		}
		if err != nil {
			return nil, u.broken(err)
		}
		return &body[collection.Outcome]{u.result()}, nil
	})
	s.takes(up.Path, map[string]*huma.Schema{
		"application/json":     {Type: "array", Items: customer},
		"application/x-ndjson": {Type: "string", Description: "one customer a line"},
	})
	huma.Register(s.api, s.operation("get-customer", http.MethodGet, collectionPath+"/customers/{id}", "One customer", "customers", RoleRead),
		func(ctx context.Context, in *AtCustomer) (*body[*collection.Customer], error) {
			c, err := svc.Customer(ctx, in.Collection, in.ID)
			return &body[*collection.Customer]{c}, problemOf(err)
		})
	huma.Register(s.api, s.operation("patch-customer", http.MethodPatch, collectionPath+"/customers/{id}", "Change some fields of a customer", "customers", RoleWrite),
		func(ctx context.Context, in *struct {
			AtCustomer
			Body customerPatch
		}) (*body[*collection.Customer], error) {
			var texts []profile.Text
			if in.Body.Texts != nil {
				texts = []profile.Text{}
				for _, t := range in.Body.Texts {
					texts = append(texts, profile.Text{Body: t})
				}
			}
			c, err := svc.Patch(ctx, in.Collection, in.ID, in.Body.Fields, texts)
			return &body[*collection.Customer]{c}, problemOf(err)
		})
	del := s.operation("delete-customer", http.MethodDelete, collectionPath+"/customers/{id}", "Delete a customer, or erase with a receipt", "customers", RoleWrite)
	del.Responses = map[string]*huma.Response{"204": {Description: "deleted"}}
	huma.Register(s.api, del, func(ctx context.Context, in *deleteInput) (*deleteAnswer, error) {
		if !in.Erase {
			return &deleteAnswer{Status: http.StatusNoContent}, problemOf(svc.Delete(ctx, in.Collection, in.ID))
		}
		if _, err := svc.Collection(ctx, in.Collection); err != nil {
			return nil, problemOf(err)
		}
		receipt, err := svc.Erase(ctx, in.Collection, in.ID)
		return &deleteAnswer{Status: http.StatusOK, Body: &receipt}, problemOf(err)
	})
	huma.Register(s.api, s.operation("list-audiences-of-customer", http.MethodGet, collectionPath+"/customers/{id}/audiences", "The audiences a customer is in", "customers", RoleRead),
		func(ctx context.Context, in *AtCustomer) (*body[struct {
			Audiences []string `json:"audiences"`
		}], error) {
			names, err := svc.AudiencesOf(ctx, in.Collection, in.ID)
			out := &body[struct {
				Audiences []string `json:"audiences"`
			}]{}
			out.Body.Audiences = names
			return out, problemOf(err)
		})
	s.importRoute()
}

// Preconditions make a change happen only to what the caller has seen.
type Preconditions struct {
	IfMatch     string `header:"If-Match" doc:"the ETag it must have"`
	IfNoneMatch string `header:"If-None-Match" doc:"* to create only"`
}

// unchanged makes a change to a collection if it is as the preconditions say.
func (s *Server) unchanged(ctx context.Context, name string, pre Preconditions, change func(context.Context) error) error {
	if pre == (Preconditions{}) {
		return change(ctx)
	}
	return s.opt.Service.Exclusively(ctx, name, func(ctx context.Context) error {
		s.changing.Lock()
		defer s.changing.Unlock()
		if err := s.expected(ctx, name, pre); err != nil {
			return err
		}
		return change(ctx)
	})
}

// expected holds a collection's settings to a request's preconditions.
func (s *Server) expected(ctx context.Context, name string, pre Preconditions) error {
	tag := ""
	cfg, err := s.opt.Service.Collection(ctx, name)
	switch {
	case err == nil:
		tag = etag(cfg)
	case !errors.Is(err, index.ErrNotFound):
		return err
	}
	if pre.IfMatch != "" && !named(pre.IfMatch, tag) {
		return fmt.Errorf("collection %q has the ETag %s, If-Match asks for %s: %w", name, tag, pre.IfMatch, errChanged)
	}
	if pre.IfNoneMatch != "" && named(pre.IfNoneMatch, tag) {
		return fmt.Errorf("collection %q is there, with the ETag %s: %w", name, tag, errChanged)
	}
	return nil
}

// etag is of a collection's settings.
func etag(cfg collection.Config) string {
	cfg.Customers = 0
	raw, err := json.Marshal(cfg)
	if err != nil {
		return "" // settings came from JSON: they go back
	}
	sum := sha256.Sum256(raw)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

// named says whether a list of ETags has one (RFC 9110, 13.1); "" is nothing's.
func named(list, tag string) bool {
	if tag == "" {
		return false
	}
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || one == tag {
			return true
		}
	}
	return false
}

// hostname is for the console; a failure is no reason not to show it.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this machine"
	}
	return name
}
