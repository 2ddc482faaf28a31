package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 256 << 20

// remote is the backend of a running server.
type remote struct {
	base, key string
	client    *http.Client
}

func newRemote(base, key string) *remote {
	return &remote{base: strings.TrimRight(base, "/"), key: key, client: &http.Client{Timeout: 5 * time.Minute}}
}

// call sends in (nil: nothing) and reads the answer into out: not at all into
// nil, as it is into a *[]byte, as JSON into anything else.
func (r *remote) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	kind := ""
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, kind = bytes.NewReader(raw), "application/json"
	}
	raw, err := r.do(ctx, method, path, kind, body)
	if err != nil || out == nil {
		return err
	}
	if plain, ok := out.(*[]byte); ok {
		*plain = raw
		return nil
	}
	return r.read(raw, out)
}

// read reads an answer as JSON.
func (r *remote) read(raw []byte, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("the answer of %s is not what a Kindred server says: %w", r.base, err)
	}
	return nil
}

// do sends a body of a media type and returns the answer's.
func (r *remote) do(ctx context.Context, method, path, kind string, body io.Reader) (raw []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if r.key != "" {
		req.Header.Set("Authorization", "Bearer "+r.key)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", r.base, err)
	}
	defer func() {
		if cerr := res.Body.Close(); err == nil {
			err = cerr
		}
	}()
	raw, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", r.base, err)
	}
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("the answer of %s is larger than %d bytes: ask for less", r.base, maxAnswer)
	}
	if res.StatusCode/100 != 2 {
		return nil, problem(res.Status, raw)
	}
	return raw, nil
}

// problem renders an RFC 9457 answer.
func problem(status string, raw []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Fix    string `json:"fix"`
		Errors []struct {
			Location string `json:"location"`
			Message  string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &p) != nil || p.Detail == "" && len(p.Errors) == 0 {
		return fmt.Errorf("the server says %s", status)
	}
	text := status + ": " + p.Detail
	for _, e := range p.Errors {
		text += "\n  " + e.Location + ": " + e.Message
	}
	if p.Fix != "" {
		text += "\n  " + p.Fix
	}
	return fmt.Errorf("the server says %s", text)
}

func collectionPath(coll string) string { return "/v1/collections/" + url.PathEscape(coll) }

// Collection asks GET /v1/collections/{c}.
func (r *remote) Collection(ctx context.Context, coll string) (collection.Config, error) {
	var out collection.Config
	err := r.call(ctx, http.MethodGet, collectionPath(coll), nil, &out)
	return out, err
}

// Search asks POST /v1/collections/{c}/search.
func (r *remote) Search(ctx context.Context, coll string, q collection.SearchRequest) (collection.Answer, error) {
	var out collection.Answer
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/search", q, &out)
	return out, err
}

// Similar asks POST /v1/collections/{c}/similar.
func (r *remote) Similar(ctx context.Context, coll string, q collection.SimilarRequest) (collection.Answer, error) {
	var out collection.Answer
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/similar", q, &out)
	return out, err
}

// Audiences asks GET /v1/collections/{c}/audiences.
func (r *remote) Audiences(ctx context.Context, coll string) ([]collection.AudienceInfo, error) {
	var out struct {
		Audiences []collection.AudienceInfo `json:"audiences"`
	}
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/audiences", nil, &out)
	return out.Audiences, err
}

// Audience asks GET /v1/collections/{c}/audiences/{a}.
func (r *remote) Audience(ctx context.Context, coll, name string) (*collection.AudienceInfo, error) {
	var out collection.AudienceInfo
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/audiences/"+url.PathEscape(name), nil, &out)
	return &out, err
}

// Members asks GET .../export?format=ndjson, which streams the whole list; the
// part asked for is cut out of it.
func (r *remote) Members(ctx context.Context, coll, name string, after, limit int) ([]audience.Member, error) {
	var raw []byte
	if err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/audiences/"+url.PathEscape(name)+"/export?format=ndjson&reasons=true", nil, &raw); err != nil {
		return nil, err
	}
	var out []audience.Member
	for line := range bytes.Lines(raw) {
		var m audience.Member
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("a line of the answer of %s is no member: %w", r.base, err)
		}
		if m.Rank > after && len(out) < limit {
			out = append(out, m)
		}
	}
	return out, nil
}

// Jobs asks GET /v1/jobs.
func (r *remote) Jobs(ctx context.Context) ([]collection.Job, error) {
	var out struct {
		Jobs []collection.Job `json:"jobs"`
	}
	err := r.call(ctx, http.MethodGet, "/v1/jobs", nil, &out)
	return out.Jobs, err
}

// CreateAudience asks POST /v1/collections/{c}/audiences.
func (r *remote) CreateAudience(ctx context.Context, coll string, req audience.Request) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/audiences", req, &out)
	return out, err
}

// DropAudience asks DELETE /v1/collections/{c}/audiences/{a}.
func (r *remote) DropAudience(ctx context.Context, coll, name string) error {
	return r.call(ctx, http.MethodDelete, collectionPath(coll)+"/audiences/"+url.PathEscape(name), nil, nil)
}

// Job asks GET /v1/jobs/{id}.
func (r *remote) Job(ctx context.Context, id string) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodGet, "/v1/jobs/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Cancel asks DELETE /v1/jobs/{id}.
func (r *remote) Cancel(ctx context.Context, id string) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodDelete, "/v1/jobs/"+url.PathEscape(id), nil, &out)
	return out, err
}
