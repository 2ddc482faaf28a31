package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// converted is collection.Converted in the document.
type converted struct{}

// Schema says so in the document.
func (converted) Schema(huma.Registry) *huma.Schema {
	out := &huma.Schema{OneOf: []*huma.Schema{{Type: "integer", Enum: []any{0, 1}}, {Type: "boolean"}}, Description: "1: converted, 0: did not"}
	for _, s := range append(out.OneOf, out) {
		s.PrecomputeMessages()
	}
	return out
}

type liftInput struct {
	AtAudience
	Missing string `query:"missing" enum:"ignore,zero" default:"ignore" doc:"members without an outcome: left out, or counted as not converted, for files that list conversions only"`
}

// outcomeRoutes are those of the closed loop.
func (s *Server) outcomeRoutes(at string) {
	svc := s.opt.Service
	s.api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[collection.Converted](), reflect.TypeFor[converted]())
	path := at + "/outcomes"
	add := s.operation("add-outcomes", http.MethodPost, path, "What became of members: CSV, NDJSON or a JSON array", "audiences", RoleWrite)
	add.Description = "One outcome a customer, the last that was sent counts. Valid lines are stored, the others are named. A CSV has a header with id and outcome, and may have value, at (RFC 3339) and group."
	huma.Register(s.api, add, func(ctx context.Context, in *struct {
		AtAudience
		Stream
	}) (*body[collection.Outcome], error) {
		if _, err := s.finished(ctx, &in.AtAudience); err != nil {
			return nil, problemOf(err)
		}
		o := &outcomeReader{srv: s, coll: in.Collection, name: in.Audience}
		o.total.Refused = []collection.Verdict{}
		format := map[string]string{"application/json": "json", "": "json", "application/x-ndjson": "ndjson", "application/jsonl": "ndjson", "text/csv": "csv"}[in.contentType]
		if format == "" {
			return nil, unsupported(in.contentType, "application/json", "application/x-ndjson", "text/csv")
		}
		err := o.read(ctx, in.body, format)
		if err != nil {
			return nil, problemOf(err)
		}
		return &body[collection.Outcome]{o.total}, nil
	})
	one := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[collection.CustomerOutcome](), true, "CustomerOutcome")
	text := &huma.Schema{Type: "string"}
	s.takes(path, map[string]*huma.Schema{"application/json": {Type: "array", Items: one}, "application/x-ndjson": text, "text/csv": text})
	lift := s.operation("get-lift", http.MethodGet, at+"/lift", "What the campaign brought about, against the control group", "audiences", RoleRead)
	huma.Register(s.api, lift, func(ctx context.Context, in *liftInput) (*body[*audience.Lift], error) {
		if _, err := s.finished(ctx, &in.AtAudience); err != nil {
			return nil, problemOf(err)
		}
		got, err := svc.Lift(ctx, in.Collection, in.Audience, collection.LiftRequest{Missing: in.Missing})
		return &body[*audience.Lift]{got}, problemOf(err)
	})
	huma.Register(s.api, s.operation("recalibrate-audience", http.MethodPost, at+"/recalibrate", "Fit the probabilities to the outcomes of who was not held back", "audiences", RoleWrite),
		func(ctx context.Context, in *AtAudience) (*body[*audience.Observed], error) {
			if _, err := s.finished(ctx, in); err != nil {
				return nil, problemOf(err)
			}
			got, err := svc.Recalibrate(ctx, in.Collection, in.Audience)
			return &body[*audience.Observed]{got}, problemOf(err)
		})
}

// outcomeReader stores outcomes batch by batch and keeps count.
type outcomeReader struct {
	srv        *Server
	coll, name string
	batch      []collection.OutcomeInput
	total      collection.Outcome
}

func (o *outcomeReader) refuse(more ...collection.Verdict) {
	fit := min(len(more), maxVerdicts-len(o.total.Refused))
	o.total.Refused = append(o.total.Refused, more[:fit]...)
	o.total.Unnamed += len(more) - fit
}

func (o *outcomeReader) add(ctx context.Context, line int, got collection.CustomerOutcome, err error) error {
	if err != nil {
		o.refuse(collection.Verdict{Line: line, ID: got.ID, Reason: detailOf(faultsOf(err))})
		return nil
	}
	if o.batch = append(o.batch, collection.OutcomeInput{Line: line, Outcome: got}); len(o.batch) < o.srv.opt.Batch {
		return nil
	}
	return o.flush(ctx)
}

func (o *outcomeReader) flush(ctx context.Context) error {
	if len(o.batch) == 0 {
		return nil
	}
	out, err := o.srv.opt.Service.AddOutcomes(ctx, o.coll, o.name, o.batch)
	o.total.Accepted += out.Accepted
	o.refuse(out.Refused...)
	o.batch = o.batch[:0]
	return err
}

// fallible remembers why a body could not be read.
type fallible struct {
	io.Reader
	err error
}

func (f *fallible) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// read takes a whole body.
func (o *outcomeReader) read(ctx context.Context, from io.Reader, format string) error {
	in := &fallible{Reader: from}
	err := collection.ReadOutcomes(in, format, func(line int, got collection.CustomerOutcome, err error) error {
		return o.add(ctx, line, got, err)
	})
	if in.err != nil {
		err = bodyProblem(in.err)
	}
	return errors.Join(o.flush(ctx), err)
}
