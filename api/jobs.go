package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

type atJob struct {
	Job string `path:"job" maxLength:"64"`
}

func (s *Server) jobRoutes() {
	svc := s.opt.Service
	type jobList struct {
		Jobs []collection.Job `json:"jobs"`
	}
	huma.Register(s.api, s.operation("list-jobs", http.MethodGet, "/v1/jobs", "All jobs, newest first", "jobs", RoleRead),
		func(ctx context.Context, _ *struct{}) (*body[jobList], error) {
			out := &body[jobList]{jobList{Jobs: []collection.Job{}}}
			for _, j := range svc.Jobs() {
				if visible(ctx, j.Collection) {
					out.Body.Jobs = append(out.Body.Jobs, j)
				}
			}
			return out, nil
		})
	one := func(ctx context.Context, id string) (collection.Job, error) {
		job, err := svc.Job(id)
		if err == nil && !visible(ctx, job.Collection) {
			// As if it were not there: that it is, is another's business.
			job, err = collection.Job{}, fmt.Errorf("job %q: %w", id, index.ErrNotFound)
		}
		return job, err
	}
	huma.Register(s.api, s.operation("get-job", http.MethodGet, "/v1/jobs/{job}", "One job", "jobs", RoleRead),
		func(ctx context.Context, in *atJob) (*body[collection.Job], error) {
			job, err := one(ctx, in.Job)
			return &body[collection.Job]{job}, problemOf(err)
		})
	huma.Register(s.api, s.operation("cancel-job", http.MethodDelete, "/v1/jobs/{job}", "Cancel a job at its next checkpoint", "jobs", RoleWrite),
		func(ctx context.Context, in *atJob) (*body[collection.Job], error) {
			if _, err := one(ctx, in.Job); err != nil {
				return nil, problemOf(err)
			}
			job, err := svc.Cancel(in.Job)
			return &body[collection.Job]{job}, problemOf(err)
		})
	events := s.operation("job-events", http.MethodGet, "/v1/jobs/{job}/events", "A job's states as server-sent events, until it ends", "jobs", RoleRead)
	streams(&events, "job")
	huma.Register(s.api, events, func(ctx context.Context, in *atJob) (*huma.StreamResponse, error) {
		if _, err := one(ctx, in.Job); err != nil {
			return nil, problemOf(err)
		}
		updates, err := svc.Watch(ctx, in.Job)
		if err != nil {
			return nil, problemOf(err)
		}
		return stream(s, "job", updates), nil
	})
}

// streams documents an answer of server-sent events of one name.
func streams(op *huma.Operation, name string) {
	event := &huma.Schema{Type: "object", Required: []string{"event", "data"}, Properties: map[string]*huma.Schema{
		"event": {Type: "string", Enum: []any{name}}, "data": {Type: "string", Description: "the " + name + " as JSON"},
	}}
	op.Responses = map[string]*huma.Response{"200": {Description: "events named " + name + ", each with the " + name + " as JSON", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: event}}}}
}

// stream answers with what a channel yields, until it closes, the client leaves
// or the server stops.
func stream[T any](s *Server, name string, updates <-chan T) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "text/event-stream")
		hc.SetHeader("Cache-Control", "no-store")
		hc.SetStatus(http.StatusOK)
		w := hc.BodyWriter()
		flusher, _ := w.(http.Flusher)
		if flusher != nil {
			flusher.Flush() // the client hears at once that it is heard
		}
		beat := time.NewTicker(15 * time.Second)
		defer beat.Stop()
		for {
			var err error
			select {
			case one, open := <-updates:
				if !open {
					return
				}
				raw, jerr := json.Marshal(one)
				if jerr != nil {
					return
				}
				_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, raw)
			case <-s.closing: // the client asks the next server
				return
			case <-beat.C: // keeps proxies from closing a quiet stream
				_, err = fmt.Fprint(w, ": waiting\n\n")
			}
			if err != nil {
				return
			}
			if flusher != nil {
				flusher.Flush()
			}
		}
	}}
}
