package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/api"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// warmth is how far a server over a Milvus is with reading customers into memory, which it
// does before it says that it is ready.
type warmth struct {
	store *milvus.Store
	log   *slog.Logger

	mu     sync.Mutex
	done   bool
	failed map[string]error // collections that cannot be opened, for a reason of their own
}

const warmAgain = 2 * time.Second

// keep opens all collections; those that fail because Milvus is away until they are open.
func (w *warmth) keep(ctx context.Context, svc *collection.Service) {
	start := time.Now()
	for said := ""; ctx.Err() == nil; {
		failed, err := svc.Warm(ctx)
		again := err
		for name, err := range failed {
			if client.Unavailable(err) {
				again = err
			}
			if line := fmt.Sprint(name, err); line != said && ctx.Err() == nil {
				said = line
				w.log.Warn("a collection cannot be read into memory", "collection", name, "error", err)
			}
		}
		if again == nil {
			w.mu.Lock()
			w.done, w.failed = true, failed
			w.mu.Unlock()
			w.log.Info("customers are in memory", "collections", len(w.store.Copies()), "failed", len(failed), "took", time.Since(start).Round(time.Millisecond))
			return
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			w.log.Warn("collections cannot be listed", "error", err)
		}
		timer := time.NewTimer(warmAgain)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// late is how old a copy may be before that is said.
func late(sweep time.Duration) time.Duration { return max(12*sweep, time.Minute) }

// readiness answers /readyz. Anyone may ask that, so names of collections and addresses
// are left to the log and to /metrics.
func (w *warmth) readiness(ctx context.Context) api.Readiness {
	w.mu.Lock()
	done, failed := w.done, len(w.failed)
	w.mu.Unlock()
	return assess(w.store.Health(ctx), w.store.Copies(), done, failed, time.Now())
}

// assess is readiness of what was found. A server whose copies are whole has an answer to
// searches while Milvus is away, as long as keys and settings that were last read count.
func assess(h milvus.Health, copies []milvus.Copy, warm bool, failed int, now time.Time) api.Readiness {
	var out api.Readiness
	degraded := func(format string, a ...any) { out.Degraded = append(out.Degraded, fmt.Sprintf(format, a...)) }
	var filling, old int
	var rows, total int64
	oldest, why := now, error(nil)
	for _, c := range copies {
		switch {
		case !c.Ready:
			filling++
			rows, total = rows+c.Rows, total+max(c.Total, c.Rows)
			continue
		case c.Swept.Before(oldest):
			oldest = c.Swept
		}
		if c.Err != nil || h.Sweep > 0 && now.Sub(c.Swept) > late(h.Sweep) {
			old++
			if c.Err != nil {
				why = c.Err
			}
		}
	}
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case !warm:
		out.Missing = append(out.Missing, fmt.Sprintf("customers are being read into memory from Milvus: %d of %d in %d collections, %d collections are done", rows, total, filling, len(copies)-filling))
	case filling > 0:
		degraded("%d collections are being read into memory, %d of %d customers: requests for them wait", filling, rows, total)
	}
	if failed > 0 {
		degraded("%d collections cannot be opened: the log says why", failed)
	}
	switch away := now.Sub(h.Since); {
	case h.Err == nil:
		if old > 0 {
			degraded("what other processes wrote since %s may be missing from %d collections%s", stamp(oldest), old, because(why))
		}
	case away > milvus.LastRead:
		out.ReadOnly = true
		out.Missing = append(out.Missing, fmt.Sprintf("%s since %s: keys and settings that were read before no longer count", kindOf(h.Err), stamp(h.Since)))
	default:
		out.ReadOnly = true
		degraded("%s since %s: writes, records, jobs and stored lists are refused; searches and counts are answered from memory, as of %s for what other processes wrote", kindOf(h.Err), stamp(h.Since), stamp(oldest))
	}
	for _, q := range h.Quotas {
		out.ReadOnly = out.ReadOnly || strings.Contains(q, "refused")
		degraded("Milvus says that %s: look at its memory and disk, and at quotaAndLimits in milvus.yaml", q)
	}
	return out
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + kindOf(err)
}

// kindOf is an error of Milvus without addresses, names and what the server said.
func kindOf(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Kind.Error()
	}
	return "Milvus failed"
}
