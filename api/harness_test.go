package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/goleak"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fakeModel = "words"
	fakeDim   = 32
	fakeMax   = 16 // tokens of a text
	// tinyModel is a real encoder with random weights, as the server runs one:
	// behind a queue, with its tokenizer.
	tinyModel = "tiny"
)

// fakeEncoder is an encoder whose vectors are sums of one fixed vector a word,
// so that texts that share words are near. A word is a token; a text gets two
// more. The text "busy" is refused as an overloaded encoder would, and "wait"
// blocks until hold is closed or the caller leaves.
type fakeEncoder struct {
	entered chan struct{} // receives when a "wait" has begun
	hold    chan struct{}
}

func (f *fakeEncoder) Info() embed.Info {
	return embed.Info{Name: fakeModel, Dim: fakeDim, MaxTokens: fakeMax, Pooling: "mean", Stamp: "words@1"}
}

func (f *fakeEncoder) Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error) {
	res := &embed.Result{}
	for _, text := range texts {
		switch text {
		case "busy":
			return nil, fmt.Errorf("%w: 9 tokens wait", embed.ErrBusy)
		case "full":
			return nil, fmt.Errorf("writing: %w", index.ErrNoSpace)
		case "panic":
			panic("the encoder broke")
		case "wait":
			f.entered <- struct{}{}
			select {
			case <-f.hold:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		words := strings.Fields(strings.ToLower(opt.Prompt + text))
		tokens := len(words) + 2
		res.Truncated = append(res.Truncated, tokens > fakeMax)
		res.Tokens = append(res.Tokens, min(tokens, fakeMax))
		sum := make([]float64, fakeDim)
		for _, w := range words {
			h := fnv.New64a()
			if _, err := io.WriteString(h, w); err != nil {
				return nil, err
			}
			x := h.Sum64()
			for i := range sum {
				x = x*6364136223846793005 + 1442695040888963407
				sum[i] += float64(int8(x>>56)) / 128
			}
		}
		sum[0] += 1e-3
		norm := 0.0
		for _, v := range sum {
			norm += v * v
		}
		for _, v := range sum {
			res.Vectors = append(res.Vectors, float32(v/math.Sqrt(norm)))
		}
	}
	return res, nil
}

// fixture is a server over a memory store with a fake encoder.
type fixture struct {
	t     *testing.T
	srv   *Server
	http  *httptest.Server
	svc   *collection.Service
	keys  *KeyStore
	kv    index.KV
	enc   *fakeEncoder
	token string
}

type setup struct {
	opt        Options
	limits     collection.Limits
	importRoot string
	before     func(*KeyStore) // adds keys before the server starts
}

func newService(t testing.TB, enc *fakeEncoder, set setup) (*collection.Service, index.KV) {
	t.Helper()
	store := memory.Open()
	if set.limits.MinSeeds == 0 {
		set.limits.MinSeeds = 5
	}
	svc, err := collection.New(context.Background(), collection.Options{
		Store: store, KV: store.KV(), ImportRoot: set.importRoot, Limits: set.limits,
		OpenModel: func(_ context.Context, name string) (collection.Encoder, error) {
			switch name {
			case fakeModel:
				return enc, nil
			case tinyModel:
				m, err := embed.Open("../embed/testdata/tiny", embed.Options{})
				if err != nil {
					return nil, err
				}
				return embed.NewQueue(m, embed.QueueOptions{}), nil
			}
			return nil, fmt.Errorf("model %q: %w", name, models.ErrUnknown)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := svc.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return svc, store.KV()
}

func start(t *testing.T, set setup) *fixture {
	t.Helper()
	f := &fixture{t: t, enc: &fakeEncoder{entered: make(chan struct{}, 16), hold: make(chan struct{})}}
	f.svc, f.kv = newService(t, f.enc, set)
	f.keys = NewKeyStore(f.kv)
	if set.before != nil {
		set.before(f.keys)
	}
	set.opt.Service, set.opt.Keys, set.opt.KV = f.svc, f.keys, f.kv
	if set.opt.Listen == "" {
		set.opt.Listen = "127.0.0.1:0"
	}
	if set.opt.Models == nil {
		set.opt.Models = []string{fakeModel}
	}
	set.opt.Version = "v9.9.9"
	var err error
	if f.srv, err = New(set.opt); err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewServer(f.srv.Handler())
	t.Cleanup(f.http.Close)
	t.Cleanup(f.http.Client().CloseIdleConnections)
	return f
}

// answer is one response, read whole.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

type header map[string]string

// do sends one request; body may be nil, a string, []byte, or a value for JSON.
func (f *fixture) do(method, path string, body any, headers ...header) *answer {
	f.t.Helper()
	var r io.Reader
	kind := ""
	switch b := body.(type) {
	case nil:
	case string:
		r, kind = strings.NewReader(b), "application/json"
	case []byte:
		r, kind = bytes.NewReader(b), "application/json"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			f.t.Fatal(err)
		}
		r, kind = bytes.NewReader(raw), "application/json"
	}
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.http.URL+path, r)
	if err != nil {
		f.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if f.token != "" {
		req.Header.Set("Authorization", "Bearer "+f.token)
	}
	for _, h := range headers {
		for k, v := range h {
			if k == "Host" {
				req.Host = v
			}
			req.Header.Set(k, v)
		}
	}
	res, err := f.http.Client().Do(req)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatalf("%s %s: reading the answer: %v", method, path, err)
	}
	a := &answer{t: f.t, what: method + " " + path, status: res.StatusCode, header: res.Header, body: raw}
	f.documented(a, method, req.URL)
	return a
}

// documented checks that the OpenAPI document names the answer's status and
// type. Each request of each test passes here.
func (f *fixture) documented(a *answer, method string, u *url.URL) {
	f.t.Helper()
	op := f.operationOf(method, u.EscapedPath())
	if op == nil || a.status == http.StatusUnauthorized && op.Security == nil {
		return
	}
	res := op.Responses[strconv.Itoa(a.status)]
	if res == nil {
		f.t.Errorf("%s: the document does not know of status %d: %.200s", a.what, a.status, a.body)
		return
	}
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if len(a.body) > 0 && (err != nil || res.Content[kind] == nil) {
		f.t.Errorf("%s: the document does not know of %q with status %d", a.what, a.header.Get("Content-Type"), a.status)
	}
}

// operationOf finds the operation of a path as sent; nil when there is none.
func (f *fixture) operationOf(method, path string) *huma.Operation {
	sent := strings.Split(path, "/")
	for template, item := range f.srv.Document().Paths {
		parts := strings.Split(template, "/")
		if len(parts) != len(sent) {
			continue
		}
		same := true
		for i, p := range parts {
			same = same && (p == sent[i] || strings.HasPrefix(p, "{") && sent[i] != "")
		}
		if same {
			return operations(item)[method]
		}
	}
	return nil
}

// operations are a path's by method.
func operations(item *huma.PathItem) map[string]*huma.Operation {
	out := map[string]*huma.Operation{}
	for method, op := range map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete} {
		if op != nil {
			out[method] = op
		}
	}
	return out
}

// want checks the status and, for our own errors, their shape.
func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %.2000s", a.what, a.status, status, a.body)
	}
	return a
}

// into reads the answer as JSON.
func (a *answer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v: %.500s", a.what, err, a.body)
	}
}

// problem checks that the answer is a whole RFC 9457 problem with this status
// and code, and returns it.
func (a *answer) problem(status int, code string) Problem {
	a.t.Helper()
	a.want(status)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("%s: content type %q, want application/problem+json", a.what, got)
	}
	var p Problem
	a.into(&p)
	if p.Type == "" || p.Title == "" || p.Status != status || p.Detail == "" || p.Instance == "" {
		a.t.Errorf("%s: incomplete problem %s", a.what, a.body)
	}
	if p.Code != code {
		a.t.Errorf("%s: code %q, want %q: %s", a.what, p.Code, code, a.body)
	}
	if (status == 429 || status == 503) && a.header.Get("Retry-After") == "" {
		a.t.Errorf("%s: %d without Retry-After", a.what, status)
	}
	return p
}

// faultAt says whether the problem names a place.
func (p *Problem) faultAt(location string) bool {
	for _, e := range p.Errors {
		if e.Location == location && e.Message != "" {
			return true
		}
	}
	return false
}

const shopBody = `{"model":"words","fields":[{"name":"age","type":"number"},{"name":"region","type":"category"},{"name":"note","type":"text"}]}`

// shop makes the collection "shop" with n customers, every fourth of them a
// sailor over 50, and returns the sailors' ids.
func (f *fixture) shop(n int) (sailors []string) {
	f.t.Helper()
	f.do("PUT", "/v1/collections/shop", shopBody).want(201)
	var lines strings.Builder
	for i := range n {
		note, age := fmt.Sprintf("likes cooking garden book%d", i%17), 20+i%30
		if i%4 == 0 {
			note, age = fmt.Sprintf("likes sailing boats sea book%d", i%17), 50+i%20
			sailors = append(sailors, fmt.Sprintf("c%04d", i))
		}
		fmt.Fprintf(&lines, `{"id":"c%04d","fields":{"age":%d,"region":"r%d","note":%q}}`+"\n", i, age, i%3, note)
	}
	if n == 0 {
		return nil
	}
	var out collection.Outcome
	f.do("POST", "/v1/collections/shop/customers", lines.String(), header{"Content-Type": "application/x-ndjson"}).want(200).into(&out)
	if out.Accepted != n {
		f.t.Fatalf("accepted %d of %d: %+v", out.Accepted, n, out.Refused)
	}
	return sailors
}

// watch opens a stream of events and returns its lines, until ctx or the test ends.
func (f *fixture) watch(ctx context.Context, path string) *bufio.Scanner {
	f.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.http.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := f.http.Client().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { res.Body.Close() })
	return bufio.NewScanner(res.Body)
}

// finish waits for a job's final state.
func (f *fixture) finish(id string) collection.Job {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	updates, err := f.svc.Watch(ctx, id)
	if err != nil {
		f.t.Fatal(err)
	}
	var last collection.Job
	for job := range updates {
		last = job
	}
	if !last.State.Final() {
		f.t.Fatalf("job %s is %s after 30 s", id, last.State)
	}
	return last
}
