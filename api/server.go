// Package api is the HTTP face of a collection.Service: gin carries requests,
// huma types them and writes the OpenAPI document. A handler parses, calls and
// renders; what happens lives in package collection.
//
// Files: server.go (life of the server), security.go (keys, the loopback rule),
// problem.go (the one table of errors), collections.go, questions.go,
// audiences.go, segments.go, tags.go, jobs.go (our own routes), stream.go, upload.go, export.go (bodies
// too long to hold), openai.go and tei.go (other clients' conventions),
// idempotency.go, system.go (health, metrics, the console).
package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed/cache"
	"github.com/kindred-search/kindred/index"
)

// Options says how to serve. Service and Keys are required; other zero values
// take the defaults named.
type Options struct {
	Service *collection.Service
	Keys    *KeyStore
	KV      index.KV     // for Idempotency-Key; nil turns it off
	Cache   *cache.Cache // of vectors, for its metrics; nil: there is none
	// Collectors are further metrics to show.
	Collectors []prometheus.Collector
	// Readiness, where given, is asked by /readyz in place of the Service's store. It must
	// return within seconds.
	Readiness func(ctx context.Context) Readiness
	// Listen is the address the server will be bound to: with no key set, it
	// must be a loopback one.
	Listen string
	// AllowedHosts are further names for the Host header while no key is set.
	AllowedHosts []string
	// Models are the names that /v1/models lists and embedding routes open.
	Models []string
	// DefaultModel serves text-embeddings-inference routes; "": the first of Models.
	DefaultModel string
	MaxBody      int64         // bytes of a request body, decompressed; default 64 MiB
	MaxUpload    int64         // bytes of a body with a file to import; default 4 GiB
	UploadDir    string        // where such files wait for their job; "": none are taken
	MaxInputs    int           // texts of an embedding request; default 2,048
	Batch        int           // customers of a body that are stored at a time; default 1,000; at most the Service's MaxBatch
	HeaderTime   time.Duration // to send the headers; default 10 s
	BodyTime     time.Duration // to send the body; default 10 min
	StallTime    time.Duration // for a client to take what was written; default 1 min
	IdleTime     time.Duration // between requests; default 2 min
	Grace        time.Duration // for requests in flight at shutdown; default 20 s
	TLS          *tls.Config   // nil: plain HTTP
	Version      string
	Logger       *slog.Logger
}

// Server is the HTTP server. Make it with New.
type Server struct {
	opt     Options
	engine  *gin.Engine
	api     huma.API
	metrics *metrics
	closing chan struct{} // closed when the server begins to stop
	hosts   map[string]bool

	changing sync.Mutex // serialises requests with a precondition on a collection
	running  sync.Map   // Idempotency-Keys whose first request is being answered
}

// New checks the options and registers all routes.
func New(opt Options) (*Server, error) {
	if opt.Service == nil || opt.Keys == nil {
		return nil, errors.New("api: Service and Keys are required")
	}
	if opt.MaxBody <= 0 {
		opt.MaxBody = 64 << 20
	}
	if opt.MaxUpload <= 0 {
		opt.MaxUpload = 4 << 30
	}
	if opt.MaxInputs <= 0 {
		opt.MaxInputs = 2048
	}
	if opt.Batch <= 0 {
		opt.Batch = 1000
	}
	if opt.BodyTime <= 0 {
		opt.BodyTime = 10 * time.Minute
	}
	if opt.HeaderTime <= 0 {
		opt.HeaderTime = 10 * time.Second
	}
	if opt.StallTime <= 0 {
		opt.StallTime = time.Minute
	}
	if opt.IdleTime <= 0 {
		opt.IdleTime = 2 * time.Minute
	}
	if opt.Grace <= 0 {
		opt.Grace = 20 * time.Second
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.DefaultModel == "" && len(opt.Models) > 0 {
		opt.DefaultModel = opt.Models[0]
	}
	keys, err := opt.Keys.List()
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 && !isLoopback(opt.Listen) {
		return nil, fmt.Errorf("refusing to listen on %q without an API key: anyone could read the customers. Add a key with `kindred keys add`, or listen on 127.0.0.1", opt.Listen)
	}
	s := &Server{opt: opt, metrics: newMetrics(opt.Service, opt.Cache, opt.Collectors), closing: make(chan struct{}), hosts: map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}}
	for _, h := range opt.AllowedHosts {
		s.hosts[strings.ToLower(h)] = true
	}
	s.routes()
	return s, errors.Join(s.forgetAnswers(), s.forgetUploads())
}

// Handler is the server's handler, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.engine }

// Document is the OpenAPI document as served.
func (s *Server) Document() *huma.OpenAPI { return s.api.OpenAPI() }

func (s *Server) routes() {
	gin.SetMode(gin.ReleaseMode)
	s.engine = gin.New()
	s.engine.HandleMethodNotAllowed = true
	s.engine.RedirectTrailingSlash = false
	s.engine.UseRawPath, s.engine.UnescapePathValues = true, true
	s.engine.Use(s.metrics.observe, s.recoverPanic, s.timeAnswer, s.timeBody, s.checkHost, s.checkOrigin, s.limitBody, s.authenticate, s.idempotent)
	s.engine.NoRoute(func(c *gin.Context) {
		s.writeProblem(c, newProblem(http.StatusNotFound, "route_not_found", "there is no such route: see /openapi.json"))
	})
	s.engine.NoMethod(func(c *gin.Context) {
		s.writeProblem(c, newProblem(http.StatusMethodNotAllowed, "method_not_allowed", c.Request.Method+" is not for this route: see /openapi.json"))
	})
	useProblems()
	cfg := huma.DefaultConfig("Kindred", s.opt.Version)
	cfg.Info.Description = "Customers' search, similarity and lookalike audiences, and text embeddings."
	cfg.DocsPath, cfg.SchemasPath = "", ""
	cfg.CreateHooks = nil
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	cfg.Formats = map[string]huma.Format{"application/json": format, "json": format}
	cfg.Transformers = []huma.Transformer{s.setInstance}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {Type: "http", Scheme: "bearer"}}
	s.api = humagin.New(s.engine, cfg)
	s.api.UseMiddleware(s.fullQuery)
	s.collectionRoutes()
	s.questionRoutes()
	s.audienceRoutes()
	s.segmentRoutes()
	s.tagRoutes()
	s.draftRoutes()
	s.suppressionRoutes()
	s.jobRoutes()
	s.openaiRoutes()
	s.teiRoutes()
	s.systemRoutes()
	s.nullable()
}

// nullable writes into the document what the framework and the decoder do: null
// for an optional field of a request means that the field is absent.
func (s *Server) nullable() {
	seen := map[*huma.Schema]bool{}
	var mark func(*huma.Schema)
	mark = func(at *huma.Schema) {
		if at == nil || seen[at] {
			return
		}
		seen[at] = true
		if at.Ref != "" {
			mark(s.api.OpenAPI().Components.Schemas.SchemaFromRef(at.Ref))
		}
		mark(at.Items)
		for _, one := range at.OneOf {
			mark(one)
		}
		for name, field := range at.Properties {
			mark(field)
			if field.Ref != "" { // a reference cannot be nullable: what it names stands here
				field = s.api.OpenAPI().Components.Schemas.SchemaFromRef(field.Ref)
			}
			if slices.Contains(at.Required, name) || field.Type == "" || field.Nullable {
				continue
			}
			own := *field // one schema may serve several places
			if own.Nullable = true; own.Enum != nil {
				own.Enum = append(slices.Clone(own.Enum), nil)
			}
			at.Properties[name] = &own
		}
	}
	for _, path := range s.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{path.Put, path.Post, path.Patch} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, body := range op.RequestBody.Content {
				mark(body.Schema)
			}
		}
	}
}

// operation fills in what all of our routes share.
func (s *Server) operation(id, method, path, summary, tag, role string) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		Errors:   []int{400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, 507},
		Security: []map[string][]string{{"key": {}}, {}},
		Metadata: map[string]any{"role": role},
		// A middleware limits the body, after decompression, in bytes and time.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
	}
	return op
}

// Serve answers on a listener until ctx ends, then stops taking requests,
// gives those in flight the grace period, and returns. Nil means a clean end. A
// Server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler: s.engine, ReadHeaderTimeout: s.opt.HeaderTime, IdleTimeout: s.opt.IdleTime,
		MaxHeaderBytes: 64 << 10, TLSConfig: s.opt.TLS,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelDebug),
	}
	forgetting := make(chan struct{})
	go func() {
		defer close(forgetting)
		s.forgetInTime(base)
	}()
	defer func() { cancel(); <-forgetting }()
	failed := make(chan error, 1)
	go func() {
		if s.opt.TLS != nil {
			failed <- srv.ServeTLS(l, "", "")
			return
		}
		failed <- srv.Serve(l)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	close(s.closing) // ends the streams of events, which would hold the shutdown up
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Grace)
	defer done()
	if err := srv.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("requests in flight did not end within %v", s.opt.Grace), srv.Close())
	}
	return nil
}

// limitBody bounds the body in bytes, as sent and decompressed.
func (s *Server) limitBody(c *gin.Context) {
	if c.Request.Body == nil || c.Request.Body == http.NoBody {
		c.Next()
		return
	}
	limit := s.opt.MaxBody
	if strings.HasSuffix(c.FullPath(), "/imports") && c.GetHeader("Idempotency-Key") == "" && strings.HasPrefix(c.ContentType(), "multipart/") {
		limit = s.opt.MaxUpload // it goes to disk as it comes in
	}
	if c.Request.ContentLength > limit {
		s.writeProblem(c, tooLarge(limit))
		return
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, limit)
	if err := decompress(c.Request); err != nil {
		s.writeProblem(c, err)
		return
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, limit)
	c.Next()
}

// timeBody bounds the time in which the body must be there. It stands before
// all that may refuse a request: net/http reads what is left of a small body
// after the answer, and would wait for it for ever.
func (s *Server) timeBody(c *gin.Context) {
	if c.Request.Body == nil || c.Request.Body == http.NoBody {
		c.Next()
		return
	}
	body := &timedBody{ReadCloser: c.Request.Body, conn: http.NewResponseController(c.Writer), header: c.Writer.Header(), until: time.Now().Add(s.opt.BodyTime)}
	c.Request.Body = body
	c.Next()
	if !body.whole {
		body.deadline(time.Now().Add(min(time.Until(body.until), s.opt.HeaderTime)))
	}
}

// timedBody is a body that must be there by a time. The deadline is lifted at
// its end: while a handler works, the connection is read for the client's
// leaving, and a deadline would look like that.
type timedBody struct {
	io.ReadCloser
	conn   *http.ResponseController
	header http.Header // of the answer
	until  time.Time
	begun  bool
	whole  bool // read to its end
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.deadline(b.until)
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF) && !b.whole:
		b.whole = true
		b.deadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.header.Set("Connection", "close")
	}
	return n, err
}

// deadline sets the connection's. A ResponseWriter of a test has none, and on a
// connection that is gone there is nothing to wait for.
func (b *timedBody) deadline(t time.Time) { _ = b.conn.SetReadDeadline(t) }

// timeAnswer bounds the time in which a client must take each piece of its
// answer: one that stops reading would hold a connection, and what is behind
// the answer, for ever. An answer that is read slowly but steadily goes on.
func (s *Server) timeAnswer(c *gin.Context) {
	w := &timedWriter{ResponseWriter: c.Writer, conn: http.NewResponseController(c.Writer), stall: s.opt.StallTime}
	_ = w.conn.SetWriteDeadline(time.Time{}) // left by the connection's request before; see timedBody.deadline
	c.Writer = w
	c.Next()
	w.extend() // what is buffered goes out after this
}

// timedWriter sets a deadline before each write.
type timedWriter struct {
	gin.ResponseWriter
	conn  *http.ResponseController
	stall time.Duration
}

func (w *timedWriter) extend() { _ = w.conn.SetWriteDeadline(time.Now().Add(w.stall)) }

// Unwrap is for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write writes a piece of the answer.
func (w *timedWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// WriteString writes a piece of the answer.
func (w *timedWriter) WriteString(p string) (int, error) {
	w.extend()
	return w.ResponseWriter.WriteString(p)
}

// Flush sends what is buffered.
func (w *timedWriter) Flush() {
	w.extend()
	w.ResponseWriter.Flush()
}

func (s *Server) recoverPanic(c *gin.Context) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel by contract
				panic(p)
			}
			s.opt.Logger.Error("a handler panicked", "path", c.FullPath(), "panic", p)
			if !c.Writer.Written() {
				s.writeProblem(c, newProblem(http.StatusInternalServerError, "internal", "an internal fault; the log says more"))
			}
		}
	}()
	c.Next()
}

// unmarshal is json.Unmarshal that takes only UTF-8 and says what is wrong
// without the names of Go types. The decoder would put U+FFFD in place of broken
// bytes, and the answer would be to another question.
func unmarshal(raw []byte, into any) error {
	if !utf8.Valid(raw) {
		return errors.New("not valid UTF-8")
	}
	err := json.Unmarshal(raw, into)
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return fmt.Errorf("%s: %s does not fit here", typ.Field, typ.Value)
	}
	return err
}

// readBody reads a whole limited body; too large a one is a problem.
func readBody(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, bodyProblem(err)
	}
	return raw, nil
}
