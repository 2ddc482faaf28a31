package api

import (
	"context"
	_ "embed" // for the console's page
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed/cache"
)

func itoa(n int) string { return strconv.Itoa(n) }

// metrics are what /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	tokens   *prometheus.CounterVec
}

func newMetrics(svc *collection.Service, vectors *cache.Cache, more []prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kindred_http_requests_total", Help: "Requests answered, by route, method and status."}, []string{"route", "method", "status"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kindred_http_request_seconds", Help: "Time to answer, by route.", Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12)}, []string{"route"}),
		tokens:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kindred_encoded_tokens_total", Help: "Tokens encoded for the embedding routes, by model."}, []string{"model"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.tokens,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&serviceCollector{svc})
	if vectors != nil {
		m.registry.MustRegister(&cacheCollector{vectors})
	}
	m.registry.MustRegister(more...)
	return m
}

func (m *metrics) observe(c *gin.Context) {
	start := time.Now()
	c.Next()
	route := c.FullPath()
	if route == "" {
		route = "none" // not the path: anyone could grow the metrics with it
	}
	m.requests.WithLabelValues(route, c.Request.Method, itoa(c.Writer.Status())).Inc()
	m.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
}

// serviceCollector reads the service when scraped.
type serviceCollector struct{ svc *collection.Service }

var (
	customersDesc = prometheus.NewDesc("kindred_customers", "Customers by collection.", []string{"collection"}, nil)
	refreshesDesc = prometheus.NewDesc("kindred_audience_refreshes_total", "Refreshes of audiences that ended, by outcome.", []string{"outcome"}, nil)
	expiredDesc   = prometheus.NewDesc("kindred_audiences_expired_total", "Audiences deleted because their time was up.", nil, nil)
	jobsDesc      = prometheus.NewDesc("kindred_jobs", "Jobs by state.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (s *serviceCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- customersDesc
	ch <- jobsDesc
	ch <- refreshesDesc
	ch <- expiredDesc
}

// Collect implements prometheus.Collector.
func (s *serviceCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := s.svc.List(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(customersDesc, err)
	}
	for _, c := range all {
		ch <- prometheus.MustNewConstMetric(customersDesc, prometheus.GaugeValue, float64(c.Customers), c.Name)
	}
	life := s.svc.Lifecycle()
	ch <- prometheus.MustNewConstMetric(refreshesDesc, prometheus.CounterValue, float64(life.Refreshed), "done")
	ch <- prometheus.MustNewConstMetric(refreshesDesc, prometheus.CounterValue, float64(life.Failed), "failed")
	ch <- prometheus.MustNewConstMetric(expiredDesc, prometheus.CounterValue, float64(life.Expired))
	count := map[collection.JobState]int{collection.JobQueued: 0, collection.JobRunning: 0, collection.JobDone: 0, collection.JobFailed: 0, collection.JobCancelled: 0}
	for _, j := range s.svc.Jobs() {
		count[j.State]++
	}
	for state, n := range count {
		ch <- prometheus.MustNewConstMetric(jobsDesc, prometheus.GaugeValue, float64(n), string(state))
	}
}

//go:embed console.html
var consolePage string

func (s *Server) systemRoutes() {
	alive := func(context.Context, *struct{}) (*body[health], error) {
		return &body[health]{health{Status: statusOK}}, nil
	}
	plain := func(id, path, summary string) huma.Operation {
		op := s.operation(id, http.MethodGet, path, summary, "system", "")
		op.Errors, op.Security = []int{403}, nil
		return op
	}
	huma.Register(s.api, plain("healthz", "/healthz", "The process is alive"), alive)
	huma.Register(s.api, plain("tei-health", "/health", "The process is alive, as text-embeddings-inference says it"), alive)
	s.ready(plain("readyz", "/readyz", "Requests can be served, or what is missing"))
	s.page("metrics", "/metrics", "Prometheus metrics", "text/plain")
	s.engine.GET("/metrics", gin.WrapH(promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))
	s.page("console", "/", "A page about this server", "text/html")
	page := template.Must(template.New("console").Parse(consolePage))
	s.engine.GET("/", func(c *gin.Context) {
		all, err := s.opt.Service.List(c.Request.Context())
		if err != nil {
			s.writeProblem(c, newProblem(http.StatusServiceUnavailable, "store", err.Error()))
			return
		}
		seen := all[:0]
		for _, col := range all {
			if visible(c.Request.Context(), col.Name) {
				seen = append(seen, col)
			}
		}
		c.Header("Content-Type", "text/html; charset=utf-8")
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		if err := page.Execute(c.Writer, map[string]any{"Version": s.opt.Version, "Host": hostname(), "Collections": seen, "Models": s.opt.Models}); err != nil {
			s.opt.Logger.Debug("writing the console", "error", err)
		}
	})
}

// page documents a GET that the framework does not carry.
func (s *Server) page(id, path, summary, kind string) {
	op := s.operation(id, http.MethodGet, path, summary, "system", RoleRead)
	fault := &huma.Schema{Ref: "#/components/schemas/Problem"}
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{kind: {Schema: &huma.Schema{Type: "string"}}}}}
	for _, status := range []int{401, 403, 500, 503} {
		op.Responses[itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/problem+json": {Schema: fault}}}
	}
	s.api.OpenAPI().AddOperation(&op)
}
