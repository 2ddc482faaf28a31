package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
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
	Type     string             `json:"type" doc:"a URI; about:blank when the title says it all"`
	Title    string             `json:"title"`
	Status   int                `json:"status"`
	Detail   string             `json:"detail,omitempty"`
	Instance string             `json:"instance,omitempty"`
	Code     string             `json:"code" doc:"stable, for programs"`
	Errors   []collection.Fault `json:"errors,omitempty"`
	Fix      string             `json:"fix,omitempty"`
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

// table is the one place where kinds of errors become answers; the first match
// counts.
var table = []struct {
	is     error
	status int
	code   string
	fix    string
}{
	{context.Canceled, 499, "cancelled", ""},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "timeout", "try again"},
	{collection.ErrBusy, http.StatusTooManyRequests, "jobs_full", "wait until a job has ended"},
	{embed.ErrBusy, http.StatusTooManyRequests, "encoder_busy", "try again after the time in Retry-After"},
	{embed.ErrClosed, http.StatusServiceUnavailable, "stopping", "try again"},
	{models.ErrUnknown, http.StatusUnprocessableEntity, "unknown_model", "GET /v1/models lists the names"},
	{models.ErrUnavailable, http.StatusServiceUnavailable, "model_unavailable", "run `kindred models pull` on the server"},
	{audience.ErrTooFewSeeds, http.StatusUnprocessableEntity, "too_few_seeds", ""},
	{embed.ErrInput, http.StatusUnprocessableEntity, "invalid", ""},
	{index.ErrNotFound, http.StatusNotFound, "not_found", ""},
	{index.ErrExists, http.StatusConflict, "conflict", ""},
	{index.ErrNoSpace, http.StatusInsufficientStorage, "disk_full", "free space on the data directory's disk"},
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
			p.Errors = collection.Faults(err)
		}
		return p
	}
	if errors.As(err, &row) {
		return newProblem(http.StatusUnprocessableEntity, "invalid", row.Error())
	}
	return newProblem(http.StatusInternalServerError, "internal", err.Error())
}

var problemsOnce sync.Once

// useProblems makes the framework's own refusals (a field of the wrong type, an
// unknown field) speak as the rest does. The hook is the framework's; it is set
// once for the process.
func useProblems() {
	problemsOnce.Do(func() {
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			code := map[int]string{400: "bad_request", 404: "not_found", 406: "not_acceptable", 413: "body_too_large", 415: "unsupported_media_type", 422: "invalid"}[status]
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
					p.Status, p.Code, p.Title = http.StatusRequestEntityTooLarge, "body_too_large", http.StatusText(http.StatusRequestEntityTooLarge)
				}
				fault := collection.Fault{Message: e.Error()}
				var d huma.ErrorDetailer
				if errors.As(e, &d) {
					detail := d.ErrorDetail()
					fault = collection.Fault{Location: detail.Location, Message: detail.Message}
				}
				p.Errors = append(p.Errors, fault)
			}
			return p
		}
	})
}

// writeProblem answers outside the framework and ends the request.
func (s *Server) writeProblem(c *gin.Context, p *Problem) {
	for k, v := range p.GetHeaders() {
		c.Header(k, v[0])
	}
	c.Header("Content-Type", p.ContentType(""))
	c.Status(p.Status)
	if err := json.NewEncoder(c.Writer).Encode(p); err != nil {
		s.opt.Logger.Debug("writing a problem", "error", err)
	}
	c.Abort()
}
