package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Readiness is how what the customers lie in stands, where that is another server's.
type Readiness struct {
	// Missing says why requests cannot be served: the answer of /readyz is then 503.
	Missing []string
	// Degraded says what is refused, or may be old, while other requests are served.
	Degraded []string
	// ReadOnly says that of the two, writes are refused.
	ReadOnly bool
}

// The words for the status of a server.
const (
	statusOK       = "ok"
	statusDegraded = "degraded"
	statusNotReady = "not ready"
)

type health struct {
	Status   string   `json:"status" enum:"ok,degraded,not ready"`
	Missing  []string `json:"missing,omitempty" doc:"why requests cannot be served"`
	Degraded []string `json:"degraded,omitempty" doc:"what is refused or may be old, while other requests are served"`
}

// ready describes and answers /readyz.
func (s *Server) ready(op huma.Operation) {
	op.Errors = []int{http.StatusUnprocessableEntity}
	op.Description = "200 with status ok, or with status degraded where some requests are refused or answered from what was read last, " +
		"such as while a Milvus behind this server is away: searches and lists go on then, and writes are refused. " +
		"503 with status not ready where nothing can be served: while customers are first read into memory, and while the server stops. " +
		"A server that is degraded keeps its traffic, because the others on the same store are no better; what sends only writes asks with writes=true."
	state := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[health](), true, "Health")
	op.Responses = map[string]*huma.Response{"503": {Description: "not ready, and why", Content: map[string]*huma.MediaType{"application/json": {Schema: state}}}}
	type answer struct {
		Status int
		Body   health
	}
	huma.Register(s.api, op, func(ctx context.Context, in *struct {
		Writes bool `query:"writes" doc:"503 also where only writes are refused"`
	}) (*answer, error) {
		out := &answer{Status: http.StatusOK, Body: health{Status: statusOK}}
		select {
		case <-s.closing:
			out.Body.Missing = append(out.Body.Missing, "the server is shutting down")
		default:
		}
		readOnly := false
		if s.opt.Readiness != nil {
			r := s.opt.Readiness(ctx)
			out.Body.Missing = append(out.Body.Missing, r.Missing...)
			out.Body.Degraded, readOnly = r.Degraded, r.ReadOnly
		} else if _, err := s.opt.Service.List(ctx); err != nil {
			out.Body.Missing = append(out.Body.Missing, "the store: "+err.Error())
		}
		if readOnly && in.Writes {
			out.Body.Missing = append(out.Body.Missing, "writes are refused")
		}
		switch {
		case len(out.Body.Missing) > 0:
			out.Status, out.Body.Status = http.StatusServiceUnavailable, statusNotReady
		case len(out.Body.Degraded) > 0:
			out.Body.Status = statusDegraded
		}
		return out, nil
	})
}
