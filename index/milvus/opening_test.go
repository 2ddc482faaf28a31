package milvus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

// quick is a client that gives up soon.
func quick(addr string) client.Config {
	return client.Config{
		Address: addr, ReadTimeout: 2 * time.Second,
		Retry: client.Retry{Attempts: 2, Base: time.Millisecond, Max: 2 * time.Millisecond, Budget: 1000}, Breaker: client.Breaker{Failures: -1},
	}
}

func openStore(t *testing.T, addr, prefix string, sweep time.Duration) *milvus.Store {
	t.Helper()
	s, err := milvus.Open(t.Context(), milvus.Options{Client: quick(addr), Prefix: prefix, Sweep: sweep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// filled makes a collection of n rows.
func filled(t *testing.T, s *milvus.Store, n int) index.Engine {
	t.Helper()
	e, err := s.Create(t.Context(), index.Spec{Name: "p", Dim: 2, Columns: []index.Column{{Name: "n", Kind: index.Number}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, e, 0, n, 0)
	return e
}

func write(t *testing.T, e index.Engine, from, to, n int) {
	t.Helper()
	batch := make([]index.Row, 0, to-from)
	for i := from; i < to; i++ {
		batch = append(batch, index.Row{ID: fmt.Sprintf("c%05d", i), Vector: []float32{1, float32(i)}, Values: map[string]index.Value{"n": {Kind: index.Number, Num: float64(n)}}})
	}
	for some := range slices.Chunk(batch, 2000) {
		if err := e.Upsert(t.Context(), some); err != nil {
			t.Fatal(err)
		}
	}
}

// pages calls do before each query for vectors; nth counts from 1.
func pages(do func(ctx context.Context, nth int64) error) fake.Fault {
	var n atomic.Int64
	return fake.Fault{Method: "Query", Do: func(ctx context.Context, req any, next func() (any, error)) (any, error) {
		if q, ok := req.(*milvuspb.QueryRequest); ok && slices.Contains(q.OutputFields, "vec") {
			if err := do(ctx, n.Add(1)); err != nil {
				return nil, err
			}
		}
		return next()
	}}
}

// TestOpenIsNobodys has callers that give up: reading goes on, once, and requests for
// other collections do not wait.
func TestOpenIsNobodys(t *testing.T) {
	srv := fakeServer(t)
	filled(t, openStore(t, srv.Addr(), "open", 0), 3000)
	s := openStore(t, srv.Addr(), "open", 0)
	if _, err := s.Create(t.Context(), index.Spec{Name: "other", Dim: 2}); err != nil {
		t.Fatal(err)
	}
	wait := make(chan struct{})
	var asked atomic.Int64
	srv.Fault(pages(func(ctx context.Context, _ int64) error {
		asked.Add(1)
		select {
		case <-wait:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		if _, err := s.Open(ctx, "p"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	if _, err := s.Open(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	var p *milvus.Copy
	for _, c := range s.Copies() {
		if c.Collection == "p" {
			p = &c
		}
	}
	if p == nil || p.Ready || p.Total != 3000 || p.Behind != 3000 {
		t.Fatalf("%+v", p)
	}
	close(wait)
	e, err := s.Open(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if n := live(t, e); n != 3000 {
		t.Errorf("%d rows", n)
	}
	if n := asked.Load(); n > 3 { // a page or two of what three callers asked for
		t.Errorf("%d pages were asked for", n)
	}
}

func live(t *testing.T, e index.Engine) int {
	t.Helper()
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	return int(snap.Live().GetCardinality())
}

// TestOpenGoesOn has Milvus fail in the middle: the next Open reads what is left, and has
// what was written and deleted in between.
func TestOpenGoesOn(t *testing.T) {
	srv := fakeServer(t)
	const n = 45_000 // five pages
	first := filled(t, openStore(t, srv.Addr(), "on", 0), n)
	s := openStore(t, srv.Addr(), "on", 0)
	var failed atomic.Int64
	srv.Fault(pages(func(_ context.Context, nth int64) error {
		if nth > 3 {
			failed.Add(1)
			return status.Error(codes.Unavailable, "gone")
		}
		return nil
	}))
	if _, err := s.Open(t.Context(), "p"); !client.Unavailable(err) {
		t.Fatal(err)
	}
	copies := s.Copies()
	if len(copies) != 1 || copies[0].Ready || copies[0].Rows < n/3 || copies[0].Rows >= n {
		t.Fatalf("%+v", copies)
	}
	had := copies[0].Rows
	srv.Heal()
	write(t, first, 0, 400, 7)
	if k, err := first.Delete(t.Context(), []string{"c00500", "c44999", "c20000"}); err != nil || k != 3 {
		t.Fatal(k, err)
	}
	var again atomic.Int64
	srv.Fault(pages(func(context.Context, int64) error { again.Add(1); return nil }))
	e, err := s.Open(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if k := live(t, e); k != n-3 {
		t.Errorf("%d rows", k)
	}
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	of7, err := snap.Match(&index.Filter{Field: "n", Eq: 7})
	if err != nil || of7.GetCardinality() != 400 {
		t.Errorf("%d rows of the second write, %v", of7.GetCardinality(), err)
	}
	if pages := again.Load(); pages > 5-had*5/n+2 { // those left, and one for what changed
		t.Errorf("%d pages were asked for, though %d rows were there", pages, had)
	}
}

// TestOpenEnds drops a collection that is being read, and closes a store that reads one.
func TestOpenEnds(t *testing.T) {
	srv := fakeServer(t)
	filled(t, openStore(t, srv.Addr(), "ends", 0), 100)
	for _, drop := range []bool{false, true} {
		s := openStore(t, srv.Addr(), "ends", 0)
		srv.Fault(pages(func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }))
		got := make(chan error, 1)
		go func() { _, err := s.Open(context.Background(), "p"); got <- err }()
		for len(s.Copies()) == 0 {
			time.Sleep(time.Millisecond)
		}
		want, err := index.ErrClosed, error(nil)
		if drop {
			want, err = index.ErrNotFound, s.Drop(t.Context(), "p")
		} else {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, want) {
			t.Errorf("drop %v: %v", drop, err)
		}
		if list := s.Copies(); drop && len(list) > 0 {
			t.Errorf("%+v", list)
		}
		srv.Heal()
		if _, err := s.Open(t.Context(), "p"); !errors.Is(err, want) {
			t.Errorf("drop %v, and then: %v", drop, err)
		}
	}
}
