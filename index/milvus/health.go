package milvus

import (
	"context"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/rows"
)

// LastRead is how long what was last read of the key-value space is given while Milvus is
// away: keys, settings of collections.
const LastRead = knownFor

// Health is how a store's connection stands.
type Health struct {
	Err     error         // why Milvus cannot be asked, or cannot work; nil where it can
	Since   time.Time     // since when that is so; zero where Err is nil
	Quotas  []string      // what Milvus limits or refuses at the moment
	Breaker client.State  // of the client's circuit breaker
	Took    time.Duration // of asking
	Sweep   time.Duration // how often copies look for others' writes; 0 is never
}

// Copy is how one collection's copy in memory stands.
type Copy struct {
	Collection string
	mirror.State
	RowBytes int64 // about what one row takes in memory
}

// Copies are the copies that are there or being filled, in order of collection. It does
// not wait for Milvus.
func (s *Store) Copies() []Copy {
	out := []Copy{}
	for _, e := range s.copies.all() {
		spec := e.Spec()
		out = append(out, Copy{Collection: spec.Name, State: e.m.State(), RowBytes: rows.RowBytes(spec) + 8})
	}
	return out
}

// asking bounds how long Health waits for Milvus, and is how long an answer counts.
const (
	asking   = 2 * time.Second
	askEvery = time.Second
)

// health is what Milvus said last.
type health struct {
	mu    sync.Mutex
	last  Health
	asked time.Time
}

// Health asks Milvus how it is, within two seconds. Callers within a second of each other
// share an answer.
func (s *Store) Health(ctx context.Context) Health {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.asked) < askEvery {
		return h.last
	}
	// Not the caller's context: others share the answer.
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), asking)
	defer cancel()
	start := time.Now()
	report, err := s.c.Report(ask)
	if err == nil && !report.Healthy {
		err = s.c.Unwell(report)
	}
	now := Health{Err: err, Quotas: report.Quotas, Breaker: s.c.Breaker(), Took: time.Since(start), Sweep: s.opt.Sweep}
	if err != nil {
		if now.Since = h.last.Since; now.Since.IsZero() {
			now.Since = start
		}
	}
	h.last, h.asked = now, time.Now()
	return now
}
