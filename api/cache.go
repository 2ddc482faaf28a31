package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/embed/cache"
)

// cacheCollector reads the cache of vectors when scraped.
type cacheCollector struct{ cache *cache.Cache }

// cacheMetrics are the figures of a cache, each with how to take it from Stats.
var cacheMetrics = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(cache.Stats) int64
}{
	{cacheDesc("hits_total", "Texts whose vector was known, from memory or disk."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.Hits }},
	{cacheDesc("disk_hits_total", "Texts whose vector was known from disk."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.DiskHits }},
	{cacheDesc("misses_total", "Texts that had to be encoded."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.Misses }},
	{cacheDesc("evictions_total", "Vectors dropped from memory for room."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.Evictions }},
	{cacheDesc("damaged_total", "Records on disk that were damaged, and not served."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.Damaged }},
	{cacheDesc("disk_failures_total", "Writes to disk that failed; the cache went on without."), prometheus.CounterValue, func(s cache.Stats) int64 { return s.DiskFails }},
	{cacheDesc("entries", "Vectors in memory."), prometheus.GaugeValue, func(s cache.Stats) int64 { return s.Entries }},
	{cacheDesc("bytes", "Bytes in memory."), prometheus.GaugeValue, func(s cache.Stats) int64 { return s.Bytes }},
	{cacheDesc("disk_bytes", "Bytes on disk."), prometheus.GaugeValue, func(s cache.Stats) int64 { return s.DiskBytes }},
}

func cacheDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("kindred_vector_cache_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (c *cacheCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range cacheMetrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *cacheCollector) Collect(ch chan<- prometheus.Metric) {
	stats := c.cache.Stats()
	for _, m := range cacheMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.of(stats)))
	}
}
