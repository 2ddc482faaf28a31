package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// milvusMetrics counts what the client of a Milvus does, and shows it with the state of
// the connection and of the copies in memory.
type milvusMetrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	retries *prometheus.CounterVec
	changes *prometheus.CounterVec
	store   *milvus.Store // nil until it is open
}

var (
	_ client.Metrics       = (*milvusMetrics)(nil)
	_ prometheus.Collector = (*milvusMetrics)(nil)
)

const milvusName = "kindred_milvus_"

func newMilvusMetrics() *milvusMetrics {
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: milvusName + name, Help: help}, labels)
	}
	return &milvusMetrics{
		calls: count("calls_total", "Calls to Milvus with all their tries, by call and outcome: ok, or the kind of the error.", "call", "outcome"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: milvusName + "call_seconds", Help: "Time of calls to Milvus with all their tries, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 13),
		}, []string{"call"}),
		retries: count("retries_total", "Tries after the first.", "call"),
		changes: count("breaker_changes_total", "Changes of the circuit breaker, by the state that it came into.", "state"),
	}
}

// Call implements client.Metrics.
func (m *milvusMetrics) Call(op, outcome string, took time.Duration) {
	m.calls.WithLabelValues(op, outcome).Inc()
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
}

// Retry implements client.Metrics.
func (m *milvusMetrics) Retry(op string) { m.retries.WithLabelValues(op).Inc() }

// Breaker implements client.Metrics.
func (m *milvusMetrics) Breaker(s client.State) { m.changes.WithLabelValues(s.String()).Inc() }

func milvusDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(milvusName+name, help, labels, nil)
}

var milvusBreaker = milvusDesc("breaker", "1 for the state that the circuit breaker is in: closed lets all calls through, open none, half-open one.", "state")

// copyMetrics are of each collection's copy in memory.
var copyMetrics = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(c *milvus.Copy, now time.Time) float64
}{
	{copyDesc("rows", "Customers in the copy."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return float64(c.Rows) }},
	{copyDesc("bytes", "Memory that the copy takes, about."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return float64(c.Bytes) }},
	{copyDesc("behind_rows", "Customers that the copy has too few or too many: still to be read at first, then by the last sweep's count."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return float64(c.Behind) }},
	{copyDesc("behind_bytes", "The same in memory of the copy, about."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return float64(c.Behind * c.RowBytes) }},
	{copyDesc("ready", "1 once the copy has been filled."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return truth(c.Ready) }},
	{copyDesc("failing", "1 while the last sweep failed: what other processes wrote since may be missing."), prometheus.GaugeValue, func(c *milvus.Copy, _ time.Time) float64 { return truth(c.Err != nil) }},
	{copyDesc("swept_age_seconds", "Time since the copy was last brought up to date; of one that is being filled, 0."), prometheus.GaugeValue, func(c *milvus.Copy, now time.Time) float64 {
		if c.Swept.IsZero() {
			return 0
		}
		return max(now.Sub(c.Swept).Seconds(), 0)
	}},
	{copyDesc("mended_rows_total", "Customers that differed from Milvus's when all were compared, and were mended."), prometheus.CounterValue, func(c *milvus.Copy, _ time.Time) float64 { return float64(c.Mended) }},
}

func copyDesc(name, help string) *prometheus.Desc {
	return milvusDesc("mirror_"+name, help, "collection")
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (m *milvusMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.calls.Describe(ch)
	m.seconds.Describe(ch)
	m.retries.Describe(ch)
	m.changes.Describe(ch)
	ch <- milvusBreaker
	for _, c := range copyMetrics {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector. It asks nothing of Milvus.
func (m *milvusMetrics) Collect(ch chan<- prometheus.Metric) {
	m.calls.Collect(ch)
	m.seconds.Collect(ch)
	m.retries.Collect(ch)
	m.changes.Collect(ch)
	if m.store == nil {
		return
	}
	now, is := time.Now(), m.store.Client().Breaker()
	for _, s := range []client.State{client.Closed, client.HalfOpen, client.Open} {
		ch <- prometheus.MustNewConstMetric(milvusBreaker, prometheus.GaugeValue, truth(s == is), s.String())
	}
	for _, c := range m.store.Copies() {
		for _, d := range copyMetrics {
			ch <- prometheus.MustNewConstMetric(d.desc, d.kind, d.of(&c, now), c.Collection)
		}
	}
}
