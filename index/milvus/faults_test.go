package milvus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/rows"
)

// TestFaultsThroughTheStore has writes, deletes and reads of a store meet a broken
// server: each ends in a typed error within the deadline or in what was asked, nothing
// acknowledged is lost, and afterwards the copy is what Milvus has.
func TestFaultsThroughTheStore(t *testing.T) {
	srv := fakeServer(t)
	ctx := context.Background()
	cfg := client.Config{
		Address: srv.Addr(), DialTimeout: time.Second, ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond, SlowTimeout: time.Second,
		Retry: client.Retry{Attempts: 3, Base: 5 * time.Millisecond, Max: 20 * time.Millisecond, Budget: 1000}, Breaker: client.Breaker{Failures: 3, Cooldown: 20 * time.Millisecond, Max: 50 * time.Millisecond},
	}
	s, err := milvus.Open(ctx, milvus.Options{Client: cfg, Prefix: "faults", Sweep: 30 * time.Millisecond, Rows: rows.Options{ChunkRows: 64}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e, err := s.Create(ctx, index.Spec{Name: "p", Dim: 2, Columns: []index.Column{{Name: "n", Kind: index.Number}}})
	if err != nil {
		t.Fatal(err)
	}
	const people = 60
	batch := func(n int) []index.Row {
		out := make([]index.Row, people)
		for i := range out {
			out[i] = index.Row{ID: fmt.Sprintf("c%02d", i), Vector: []float32{1, float32(i)}, Values: map[string]index.Value{"n": {Kind: index.Number, Num: float64(n)}}, Record: fmt.Append(nil, n)}
		}
		return out
	}
	unavailable := status.Error(codes.Unavailable, "the node goes away")
	acked, tried := 1, 0
	if err := e.Upsert(ctx, batch(1)); err != nil {
		t.Fatal(err)
	}
	for i, f := range []struct {
		name string
		f    fake.Fault
	}{
		{"stalled", fake.Fault{Method: "Upsert", Do: fake.Stall()}},
		{"written and the acknowledgement lost", fake.Fault{Method: "Upsert", Do: fake.Lose()}},
		{"written and not said", fake.Fault{Method: "Upsert", Do: fake.DoThenFail(unavailable)}},
		{"unavailable", fake.Fault{Do: fake.Fail(unavailable)}},
		{"unavailable twice", fake.Fault{Method: "Upsert", Times: 2, Do: fake.Fail(unavailable)}},
		{"rate limited", fake.Fault{Method: "Upsert", Do: fake.Refuse(8, 0, "rate limit")}},
		{"disk full", fake.Fault{Method: "Upsert", Do: fake.Refuse(7, 0, "disk quota exceeded")}},
		{"memory full", fake.Fault{Method: "Upsert", Do: fake.Refuse(3, 0, "memory quota exceeded")}},
		{"not permitted", fake.Fault{Method: "Upsert", Do: fake.Refuse(1401, 0, "permission deny")}},
		{"half acknowledged", fake.Fault{Method: "Upsert", Do: fake.Twist(func(a *milvuspb.MutationResult) { a.UpsertCnt /= 2 })}},
		{"rows refused beside a success", fake.Fault{Method: "Upsert", Do: fake.Twist(func(a *milvuspb.MutationResult) { a.ErrIndex = []uint32{3} })}},
		{"no status", fake.Fault{Method: "Upsert", Do: fake.Twist(func(a *milvuspb.MutationResult) { a.Status = nil })}},
		{"starting", fake.Fault{Do: fake.Refuse(1, 0, "not ready")}},
		{"panic in the server", fake.Fault{Method: "Upsert", Do: fake.Fail(status.Error(codes.Internal, "panic"))}},
		{"too large", fake.Fault{Method: "Upsert", Do: fake.Fail(status.Error(codes.ResourceExhausted, "message larger than max"))}},
	} {
		for _, what := range []string{"upsert", "delete", "get", "key"} {
			f.f.Method = map[string]string{"upsert": "Upsert", "delete": "Delete", "get": "Query", "key": "Upsert"}[what]
			if what == "delete" || what == "get" {
				switch f.name {
				case "half acknowledged", "rows refused beside a success", "no status": // of upserts
					continue
				}
			}
			tried++
			srv.Fault(f.f)
			start := time.Now()
			var err error
			switch what {
			case "upsert":
				if err = e.Upsert(ctx, batch(i+2)); err == nil {
					acked = i + 2
				}
			case "delete":
				_, err = e.Delete(ctx, []string{"nobody"})
			case "get":
				var got []*index.Row
				if got, err = e.Get(ctx, []string{"c00"}); err == nil && got[0] == nil {
					t.Errorf("%s, get: %v", f.name, got)
				}
			case "key":
				err = s.KV().Put(ctx, map[string][]byte{"k": []byte("v")})
			}
			if took := time.Since(start); took > 1500*time.Millisecond {
				t.Errorf("%s, %s: took %v", f.name, what, took)
			}
			var typed *client.Error
			if err != nil && !errors.As(err, &typed) {
				t.Errorf("%s, %s: %T: %v", f.name, what, err, err)
			}
			if err == nil && f.f.Times == 0 {
				t.Errorf("%s, %s: no error", f.name, what)
			}
			srv.Heal()
		}
		// Nothing acknowledged is lost, and each row is whole: of that write or of a later one
		// whose end was not heard.
		until := time.Now().Add(5 * time.Second)
		for {
			if err = e.Upsert(ctx, []index.Row{{ID: "probe"}}); err == nil {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("%s: no recovery: %v", f.name, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		for {
			got, err := e.Get(ctx, slices.Collect(func(yield func(string) bool) {
				for k := range people {
					yield(fmt.Sprintf("c%02d", k))
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			behind := false
			for _, r := range got {
				switch {
				case r == nil:
					t.Fatalf("%s: LOST", f.name)
				case int(r.Values["n"].Num) < acked:
					t.Fatalf("%s: LOST: %v of %d", f.name, r.Values["n"].Num, acked)
				case string(r.Record) != fmt.Sprint(r.Values["n"].Num):
					behind = true // what was written and not heard of shows after a sweep
				}
			}
			if !behind {
				break
			}
			if time.Now().After(until.Add(5 * time.Second)) {
				t.Fatalf("%s: the copy is not what Milvus has", f.name)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	t.Logf("%d faults", tried)
}
