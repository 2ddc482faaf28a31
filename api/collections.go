package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// InCollection is the path of everything below a collection.
type InCollection struct {
	Collection string `path:"collection" pattern:"^[a-z0-9_-]{1,64}$" example:"shop"`
}

// AtCustomer is the path of one customer; exported for the framework to see.
type AtCustomer struct {
	InCollection
	ID string `path:"id" minLength:"1" maxLength:"256"`
}

type body[T any] struct{ Body T }

type putCollection struct {
	InCollection
	Body struct {
		Model     string          `json:"model,omitempty" doc:"encoder; empty for columns only or brought vectors" example:"all-MiniLM-L6-v2"`
		Dim       int             `json:"dim,omitempty" minimum:"0" maximum:"32768" doc:"of brought vectors"`
		Precision index.Precision `json:"precision,omitempty" enum:"int8,fp16,fp32"`
		Fields    []fieldBody     `json:"fields,omitempty" maxItems:"1000"`
		Template  string          `json:"template,omitempty" doc:"such as {title}. {review}"`
	}
}

type fieldBody struct {
	Name      string  `json:"name" minLength:"1"`
	Type      string  `json:"type" enum:"number,category,set,text,bool,time"`
	Sensitive bool    `json:"sensitive,omitempty"`
	PII       bool    `json:"pii,omitempty"`
	Weight    float64 `json:"weight,omitempty" minimum:"0"`
}

type putAnswer struct {
	Status int
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
	put := operation("put-collection", http.MethodPut, collectionPath, "Create a collection, or add fields to it", "collections", RoleAdmin)
	put.Responses = map[string]*huma.Response{"201": {Description: "created"}}
	huma.Register(s.api, put, func(ctx context.Context, in *putCollection) (*putAnswer, error) {
		cfg := collection.Config{Name: in.Collection, Model: in.Body.Model, Dim: in.Body.Dim, Precision: in.Body.Precision}
		cfg.Schema.Template = in.Body.Template
		for _, f := range in.Body.Fields {
			cfg.Schema.Fields = append(cfg.Schema.Fields, profile.Field{Name: f.Name, Type: profile.FieldType(f.Type), Sensitive: f.Sensitive, PII: f.PII, Weight: f.Weight})
		}
		got, created, err := svc.Put(ctx, cfg)
		if err != nil {
			return nil, problemOf(err)
		}
		out := &putAnswer{Status: http.StatusOK, Body: got}
		if created {
			out.Status = http.StatusCreated
		}
		return out, nil
	})
	huma.Register(s.api, operation("list-collections", http.MethodGet, "/v1/collections", "All collections", "collections", RoleRead),
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
	huma.Register(s.api, operation("get-collection", http.MethodGet, collectionPath, "One collection", "collections", RoleRead),
		func(ctx context.Context, in *InCollection) (*body[collection.Config], error) {
			cfg, err := svc.Collection(ctx, in.Collection)
			return &body[collection.Config]{cfg}, problemOf(err)
		})
	huma.Register(s.api, operation("delete-collection", http.MethodDelete, collectionPath, "Delete a collection with all in it", "collections", RoleAdmin),
		func(ctx context.Context, in *InCollection) (*struct{}, error) {
			return nil, problemOf(svc.Drop(ctx, in.Collection))
		})
	s.customerRoutes()
}

// upsertInput keeps the body raw: it is an array or a stream of lines, and a
// broken line must not refuse the others.
type upsertInput struct {
	InCollection
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte
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

type importInput struct {
	InCollection
	Body struct {
		Path    string         `json:"path" minLength:"1" doc:"below the server's import root"`
		Options ingest.Options `json:"options,omitempty"`
	}
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
	up := operation("upsert-customers", http.MethodPost, collectionPath+"/customers", "Take customers in: valid ones are kept, the others are named", "customers", RoleWrite)
	customer := &huma.Schema{Type: "object", Required: []string{"id"}, Properties: map[string]*huma.Schema{
		"id":     {Type: "string", Description: "1 to 256 bytes of UTF-8"},
		"fields": {Type: "object", AdditionalProperties: true, Description: "by the collection's schema"},
		"texts":  {Type: "array", Items: &huma.Schema{Type: "string"}},
		"vector": {Type: "array", Items: &huma.Schema{Type: "number"}},
	}}
	up.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json":     {Schema: &huma.Schema{Type: "array", Items: customer}},
		"application/x-ndjson": {Schema: &huma.Schema{Type: "string", Description: "one customer a line"}},
	}}
	up.SkipValidateBody = true // a broken line must not refuse the others
	huma.Register(s.api, up, func(ctx context.Context, in *upsertInput) (*body[collection.Outcome], error) {
		cfg, err := svc.Collection(ctx, in.Collection)
		if err != nil {
			return nil, problemOf(err)
		}
		lines, err := splitCustomers(in.RawBody, in.ContentType)
		if err != nil {
			return nil, err
		}
		out, err := s.upsert(ctx, cfg, lines)
		return &body[collection.Outcome]{out}, problemOf(err)
	})
	huma.Register(s.api, operation("get-customer", http.MethodGet, collectionPath+"/customers/{id}", "One customer", "customers", RoleRead),
		func(ctx context.Context, in *AtCustomer) (*body[*collection.Customer], error) {
			c, err := svc.Customer(ctx, in.Collection, in.ID)
			return &body[*collection.Customer]{c}, problemOf(err)
		})
	huma.Register(s.api, operation("patch-customer", http.MethodPatch, collectionPath+"/customers/{id}", "Change some fields of a customer", "customers", RoleWrite),
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
	del := operation("delete-customer", http.MethodDelete, collectionPath+"/customers/{id}", "Delete a customer, or erase with a receipt", "customers", RoleWrite)
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
	huma.Register(s.api, operation("list-audiences-of-customer", http.MethodGet, collectionPath+"/customers/{id}/audiences", "The audiences a customer is in", "customers", RoleRead),
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
	imp := operation("import-customers", http.MethodPost, collectionPath+"/imports", "Read a file into the collection, as a job", "customers", RoleWrite)
	imp.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, imp, func(ctx context.Context, in *importInput) (*jobAnswer, error) {
		job, err := svc.StartImport(ctx, in.Collection, collection.ImportRequest{Path: in.Body.Path, Options: in.Body.Options})
		return accepted(job), problemOf(err)
	})
}

// splitCustomers cuts a body into customers, by its type: a JSON array or lines.
func splitCustomers(raw []byte, contentType string) ([]json.RawMessage, error) {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.TrimSpace(strings.ToLower(kind)) {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		var out []json.RawMessage
		for line := range bytes.Lines(raw) {
			out = append(out, json.RawMessage(bytes.TrimSpace(line)))
		}
		return out, nil
	case "application/json", "":
		var out []json.RawMessage
		dec := json.NewDecoder(bytes.NewReader(raw))
		if err := dec.Decode(&out); err != nil || out == nil {
			return nil, newProblem(http.StatusBadRequest, "bad_json", "the body is not a JSON array of customers: send [{\"id\": ...}, ...], or lines as application/x-ndjson")
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, newProblem(http.StatusBadRequest, "bad_json", "there is more after the JSON array")
		}
		return out, nil
	}
	return nil, newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", fmt.Sprintf("content type %q: send application/json or application/x-ndjson", contentType))
}

// upsertBatch is how many customers of a body are stored at a time.
const upsertBatch = 1000

func (s *Server) upsert(ctx context.Context, cfg collection.Config, lines []json.RawMessage) (collection.Outcome, error) {
	total := collection.Outcome{Refused: []collection.Verdict{}}
	var batch []collection.Input
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		out, err := s.opt.Service.Upsert(ctx, cfg.Name, batch)
		total.Accepted += out.Accepted
		total.Refused = append(total.Refused, out.Refused...)
		batch = batch[:0]
		return err
	}
	for i, raw := range lines {
		if len(raw) == 0 {
			continue
		}
		rec, err := s.opt.Service.ParseRecord(cfg.Schema, raw)
		if err != nil {
			var why []string
			for _, f := range collection.Faults(err) {
				why = append(why, strings.TrimPrefix(f.Location+": "+f.Message, ": "))
			}
			total.Refused = append(total.Refused, collection.Verdict{Line: i + 1, ID: rec.ID, Reason: strings.Join(why, "; ")})
			continue
		}
		batch = append(batch, collection.Input{Line: i + 1, Record: rec})
		if len(batch) == upsertBatch {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	return total, flush()
}

// hostname is for the console; a failure is no reason not to show it.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this machine"
	}
	return name
}
