package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

// Stream is an input whose body the handler reads by itself: because it may be
// long, or because what is wrong with it must be said in another convention.
type Stream struct {
	body        io.Reader
	contentType string // without parameters, in lower case
	params      map[string]string
}

// Resolve takes the body before the framework would.
func (s *Stream) Resolve(ctx huma.Context) []error {
	s.body = ctx.BodyReader()
	if s.body == nil {
		s.body = http.NoBody
	}
	kind, params, err := mime.ParseMediaType(ctx.Header("Content-Type"))
	if err != nil {
		kind, _, _ = strings.Cut(ctx.Header("Content-Type"), ";")
	}
	s.contentType, s.params = strings.ToLower(strings.TrimSpace(kind)), params
	return nil
}

// takes documents the body of a POST whose handler reads it by itself. It comes
// after the registration: the framework would read a body it knows of.
func (s *Server) takes(path string, body map[string]*huma.Schema) {
	content := map[string]*huma.MediaType{}
	for kind, schema := range body {
		schema.PrecomputeMessages()
		content[kind] = &huma.MediaType{Schema: schema}
	}
	s.api.OpenAPI().Paths[path].Post.RequestBody = &huma.RequestBody{Required: true, Content: content}
}

// lines yields the lines of a body, without their ends and without holding
// more than one. What is above limit is passed over and comes as nil with long
// set.
type lines struct {
	r     *bufio.Reader
	limit int
	buf   []byte
}

// next returns the next line, io.EOF after the last. The slice is good until
// the next call.
func (l *lines) next() (line []byte, long bool, err error) {
	l.buf = l.buf[:0]
	some := false
	for {
		part, err := l.r.ReadSlice('\n')
		some = some || len(part) > 0
		if !long && len(l.buf)+len(part) > l.limit {
			long, l.buf = true, l.buf[:0]
		}
		if !long {
			l.buf = append(l.buf, part...)
		}
		switch {
		case err == nil, errors.Is(err, io.EOF) && some:
			if long {
				return nil, true, nil
			}
			return bytes.TrimSpace(l.buf), false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, err
		}
	}
}

// upserter stores a body's customers batch by batch and keeps count.
type upserter struct {
	srv   *Server
	cfg   collection.Config
	batch []collection.Input
	bytes int
	total collection.Outcome
}

// maxVerdicts is how many refused customers an answer names; the others are
// counted. A body of broken lines must not become an answer of hundreds of times
// its size.
const maxVerdicts = 10_000

// batchBytes is how much JSON a batch may come from: long records make short
// batches.
const batchBytes = 8 << 20

func (u *upserter) refuse(line int, id, why string) {
	u.name([]collection.Verdict{{Line: line, ID: id, Reason: why}})
}

// name adds verdicts to the answer, as long as it takes them.
func (u *upserter) name(more []collection.Verdict) {
	fit := min(len(more), maxVerdicts-len(u.total.Refused))
	u.total.Refused = append(u.total.Refused, more[:fit]...)
	u.total.Unnamed += len(more) - fit
}

// add takes one customer; line counts from 1.
func (u *upserter) add(ctx context.Context, line int, raw []byte) error {
	rec, err := u.srv.opt.Service.ParseRecord(u.cfg.Schema, raw)
	if err != nil {
		u.refuse(line, rec.ID, detailOf(faultsOf(err)))
		return nil
	}
	u.batch = append(u.batch, collection.Input{Line: line, Record: rec})
	if u.bytes += len(raw); len(u.batch) < u.srv.opt.Batch && u.bytes < batchBytes {
		return nil
	}
	return u.flush(ctx)
}

// result is the total with its verdicts in the order of lines.
func (u *upserter) result() collection.Outcome {
	slices.SortStableFunc(u.total.Refused, func(a, b collection.Verdict) int { return cmp.Compare(a.Line, b.Line) })
	return u.total
}

func (u *upserter) flush(ctx context.Context) error {
	if len(u.batch) == 0 {
		return nil
	}
	out, err := u.srv.opt.Service.Upsert(ctx, u.cfg.Name, u.batch)
	u.total.Accepted += out.Accepted
	u.name(out.Refused)
	u.batch, u.bytes = u.batch[:0], 0
	return err
}

// broken is the answer when a body ends badly: what was stored stays.
func (u *upserter) broken(err error) error {
	var p *Problem
	if !errors.As(problemOf(err), &p) {
		return err
	}
	said := *p
	said.Detail = fmt.Sprintf("%s (%d customers before that are stored)", p.Detail, u.total.Accepted)
	return &said
}

// takeLines stores a body of one customer a line as it comes in.
func (u *upserter) takeLines(ctx context.Context, body io.Reader) error {
	in := lines{r: bufio.NewReaderSize(body, 64<<10), limit: index.MaxRecord}
	for n := 1; ; n++ {
		line, long, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return u.flush(ctx)
		case err != nil:
			return errors.Join(u.flush(ctx), bodyProblem(err))
		case long:
			u.refuse(n, "", fmt.Sprintf("the line has more than %d bytes", index.MaxRecord))
		case len(line) > 0:
			if err := u.add(ctx, n, line); err != nil {
				return err
			}
		}
	}
}

// takeArray stores a JSON array of customers. It is read whole first, so that
// broken JSON stores nothing.
func (u *upserter) takeArray(ctx context.Context, body io.Reader) error {
	raw, err := readBody(body)
	if err != nil {
		return err
	}
	var list json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || list[0] != '[' {
		why := "it is something else"
		if err != nil {
			why = err.Error()
		}
		p := newProblem(http.StatusBadRequest, "bad_request", "the body is not a JSON array of customers: "+why)
		p.Fix = `send [{"id": ...}, ...], or one customer a line as application/x-ndjson`
		return p
	}
	n := 0
	for one := range elements(list) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := u.add(ctx, n, one); err != nil {
			return err
		}
	}
	return u.flush(ctx)
}

// bodyProblem is what is wrong when a body cannot be read.
func bodyProblem(err error) *Problem {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return tooLarge(large.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(http.StatusRequestTimeout, "body_timeout", "the body did not come in time")
	}
	return newProblem(http.StatusBadRequest, "bad_body", "the body could not be read: "+err.Error())
}

func unsupported(kind string, want ...string) *Problem {
	p := newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", fmt.Sprintf("content type %q is not taken here", kind))
	p.Fix = "send " + strings.Join(want, " or ")
	return p
}
