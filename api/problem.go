package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
)

// Problem is an error answer (RFC 9457) with a stable code and all faults found.
type Problem struct {
	Type     string  `json:"type" doc:"a URI; about:blank when the title says it all"`
	Title    string  `json:"title" doc:"the status in words" example:"Not Found"`
	Status   int     `json:"status" doc:"the HTTP status" example:"404"`
	Detail   string  `json:"detail,omitempty" doc:"what is wrong, for people"`
	Instance string  `json:"instance,omitempty" doc:"the path asked for"`
	Code     string  `json:"code" doc:"stable, for programs" example:"not_found"`
	Errors   []Fault `json:"errors,omitempty" doc:"all faults found"`
	Fix      string  `json:"fix,omitempty" doc:"how to mend it"`
}

// Fault is one thing wrong with a request.
type Fault struct {
	Location string `json:"location,omitempty" doc:"such as body.fields[2].name"`
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty" doc:"what was sent, where it is short"`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is problem+json whatever was asked for.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders adds Retry-After where trying again helps.
func (p *Problem) GetHeaders() http.Header {
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {"1"}}
	}
	return nil
}

func newProblem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// Errors of this package that the table knows.
var (
	errNotReady = errors.New("not finished")
	errNoList   = errors.New("there is no list")
	errChanged  = errors.New("not as the request expects")
)

// table is the one place where kinds of errors become answers; the first match
// counts.
var table = []struct {
	is     error
	status int
	code   string
	fix    string
}{
	{context.Canceled, 499, "cancelled", ""},
	{index.ErrUnavailable, http.StatusServiceUnavailable, "store_unavailable", "try again after the time in Retry-After"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "timeout", "try again"},
	{collection.ErrBusy, http.StatusTooManyRequests, "jobs_full", "wait until a job has ended"},
	{embed.ErrBusy, http.StatusTooManyRequests, "encoder_busy", "try again after the time in Retry-After"},
	{embed.ErrClosed, http.StatusServiceUnavailable, "stopping", "try again"},
	{models.ErrUnknown, http.StatusUnprocessableEntity, "unknown_model", "GET /v1/models lists the names"},
	{models.ErrUnavailable, http.StatusServiceUnavailable, "model_unavailable", "run `kindred models pull` on the server"},
	{audience.ErrTooFewSeeds, http.StatusUnprocessableEntity, "too_few_seeds", ""},
	{embed.ErrInput, http.StatusUnprocessableEntity, "invalid", ""},
	{errNotReady, http.StatusConflict, "not_ready", "wait for its job: GET /v1/jobs/{job}/events says when"},
	{errNoList, http.StatusConflict, "no_list", "delete the audience and build it anew"},
	{collection.ErrTooSmall, http.StatusConflict, "audience_too_small", "a list that short can single people out: build a larger one, or start the server with a smaller --min-audience"},
	{errChanged, http.StatusPreconditionFailed, "changed", "read it again and decide anew"},
	{collection.ErrOtherModel, http.StatusConflict, "other_model", "learn it again: refresh the audience, discover the segments, or make the tag anew"},
	{index.ErrNotFound, http.StatusNotFound, "not_found", ""},
	{index.ErrExists, http.StatusConflict, "conflict", ""},
	{index.ErrNoSpace, http.StatusInsufficientStorage, "disk_full", "free space on the disk of the data directory, or of Milvus where the customers lie there"},
	{collection.ErrMemory, http.StatusInsufficientStorage, "memory_full", "start the server with a larger --memory, or drop what is not needed"},
	{index.ErrCorrupt, http.StatusInternalServerError, "corrupt", "restore from a backup"},
	{index.ErrClosed, http.StatusServiceUnavailable, "stopping", "try again"},
	{index.ErrInvalid, http.StatusUnprocessableEntity, "invalid", ""},
}

// problemOf turns an error of the parts below into an answer.
func problemOf(err error) error {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var row *ingest.RowError
	for _, t := range table {
		if !errors.Is(err, t.is) {
			continue
		}
		p = newProblem(t.status, t.code, err.Error())
		if t.status == 499 {
			p.Title = "Client Closed Request"
		}
		p.Fix = t.fix
		if t.status == http.StatusUnprocessableEntity || t.status == http.StatusConflict {
			p.Errors = faultsOf(err)
			p.Detail = detailOf(p.Errors)
		}
		return p
	}
	if errors.As(err, &row) {
		return newProblem(http.StatusUnprocessableEntity, "invalid", row.Error())
	}
	return newProblem(http.StatusInternalServerError, "internal", err.Error())
}

// placed is a message that begins with its place, as parts without a typed
// place of their own write it: "seeds.ids[3]: the id is empty", "size.count 0:
// want 1 or more".
var placed = regexp.MustCompile(`^((?:[a-z_]+(?:\.[a-z_]+|\[[0-9]+\])+(?: \([^)]*\)\S*| \S+)?)|[a-z_]+(?: \([^)]*\)\S*)?): (.+)$`)

var withColumn = regexp.MustCompile(`^(\S+) \((.*)\)(\S*)$`)

// faultsOf lists all faults of an error, without the words that only serve
// errors.Is.
func faultsOf(err error) []Fault {
	var out []Fault
	for _, f := range collection.Faults(err) {
		msg := strings.TrimPrefix(f.Message, "query: ")
		if m := placed.FindStringSubmatch(msg); m != nil && f.Location == "" {
			f.Location, msg = m[1], m[2]
			if place, value, has := strings.Cut(m[1], " "); has && value[0] != '(' { // not a column's name
				f.Location, msg = place, value+": "+msg
			}
		}
		// "filter.must[1] (age).eq" names the column for people.
		if m := withColumn.FindStringSubmatch(f.Location); m != nil {
			f.Location, msg = m[1]+m[3], m[2]+": "+msg
		}
		out = append(out, Fault{Location: f.Location, Message: msg})
	}
	return out
}

// detailOf says the faults in one line.
func detailOf(faults []Fault) string {
	var b strings.Builder
	for i, f := range faults {
		if i > 0 {
			b.WriteString("; ")
		}
		if f.Location != "" {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}

// short is a value worth repeating, nil for others.
func short(v any) any {
	switch x := v.(type) {
	case bool, float64, int, int64, json.Number:
		return x
	case string:
		if len(x) <= 80 {
			return x
		}
	}
	return nil
}

// setInstance tells a problem the path it is about; it is a huma.Transformer.
func (s *Server) setInstance(ctx huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*Problem); ok && p.Instance == "" {
		u := ctx.URL()
		p.Instance = u.EscapedPath()
		s.placeInBody(ctx.Operation(), p)
	}
	return v, nil
}

// placeInBody gives places in the body, which the parts below know without their
// beginning, the form of the framework's: "limit" is "body.limit".
func (s *Server) placeInBody(op *huma.Operation, p *Problem) {
	if op == nil || op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return
	}
	schema := op.RequestBody.Content["application/json"].Schema
	if schema.Ref != "" {
		schema = s.api.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
	}
	wanted(s.api.OpenAPI().Components.Schemas, schema, p)
	for i, f := range p.Errors {
		name := f.Location[:len(f.Location)-len(strings.TrimLeft(f.Location, "abcdefghijklmnopqrstuvwxyz_"))]
		if _, is := schema.Properties[name]; is {
			p.Errors[i].Location = "body." + f.Location
		}
	}
}

var problemsOnce sync.Once

// useProblems makes the framework's own refusals (a field of the wrong type, an
// unknown field) speak as the rest does. The hook is the framework's; it is set
// once for the process.
func useProblems() {
	problemsOnce.Do(func() {
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			code := map[int]string{400: "bad_request", 404: "not_found", 406: "not_acceptable", 408: "body_timeout", 413: "body_too_large", 415: "unsupported_media_type", 422: "invalid"}[status]
			if code == "" {
				code = "error_" + strconv.Itoa(status)
			}
			p := newProblem(status, code, msg)
			for _, e := range errs {
				if e == nil {
					continue
				}
				var large *http.MaxBytesError
				if errors.As(e, &large) {
					return tooLarge(large.Limit)
				}
				fault := Fault{Message: e.Error()}
				var d huma.ErrorDetailer
				if errors.As(e, &d) {
					detail := d.ErrorDetail()
					fault = Fault{Location: detail.Location, Message: detail.Message, Value: short(detail.Value)}
				}
				p.Errors = append(p.Errors, fault)
			}
			return p
		}
	})
}

func tooLarge(limit int64) *Problem {
	p := newProblem(http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body is above %d bytes", limit))
	p.Fix = "send it in parts"
	return p
}

// writeProblem answers outside the framework, in the shape that clients of the
// route expect, and ends the request.
func (s *Server) writeProblem(c *gin.Context, p *Problem) {
	defer c.Abort()
	for k, v := range p.GetHeaders() {
		c.Header(k, v[0])
	}
	var answer *rawAnswer
	switch route := c.FullPath(); {
	case route == "/v1/embeddings" || strings.HasPrefix(route, "/v1/models"):
		answer = openaiProblem(p)
	case slices.Contains(teiPaths, route):
		answer = teiError(p)
	default:
		p.Instance = c.Request.URL.EscapedPath()
		raw, err := json.Marshal(p)
		if err != nil { // a value that JSON cannot hold
			p.Errors = nil
			raw, err = json.Marshal(p)
		}
		if err != nil {
			s.opt.Logger.Error("writing a problem", "error", err)
		}
		answer = &rawAnswer{ContentType: p.ContentType(""), Status: p.Status, Body: raw}
	}
	c.Data(answer.Status, answer.ContentType, answer.Body)
}
