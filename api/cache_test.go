package api

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/embed/cache"
)

// TestCacheMetrics: what the cache counted is what a scrape shows.
func TestCacheMetrics(t *testing.T) {
	c, err := cache.Open(cache.Options{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	c.Get(cache.Key{1})
	c.Put(cache.Key{1}, cache.Entry{Vector: []float32{1, 2}, Tokens: 3})
	for range 2 {
		if _, ok := c.Get(cache.Key{1}); !ok {
			t.Fatal("not kept")
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&cacheCollector{c})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	for name, want := range map[string]float64{"hits_total": 2, "misses_total": 1, "entries": 1, "disk_hits_total": 0, "evictions_total": 0} {
		if x, ok := got["kindred_vector_cache_"+name]; !ok || x != want {
			t.Errorf("%s is %v (shown: %v), want %v", name, x, ok, want)
		}
	}
	if len(got) != len(cacheMetrics) {
		t.Errorf("%d figures shown, %d known", len(got), len(cacheMetrics))
	}
}
