package milvus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/indextest"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/rows"
)

var number atomic.Int64

func open(t testing.TB, addr, prefix string) *milvus.Store {
	t.Helper()
	if prefix == "" {
		prefix = fmt.Sprintf("kindredtest_%x_%d", time.Now().UnixMilli(), number.Add(1))
	}
	opt := milvus.Options{Client: client.Config{Address: addr}, Prefix: prefix, Rows: rows.Options{ChunkRows: 64, MinDead: 50}}
	s, err := milvus.Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	prefixes[s] = prefix
	t.Cleanup(func() {
		s.Close()
		s, err := milvus.Open(context.Background(), opt)
		if err == nil {
			err = s.Destroy(context.Background())
			s.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	return s
}

// prefixes is by which prefix a store was opened, for those opened again.
var prefixes = map[*milvus.Store]string{}

func conformance(t *testing.T, addr string, p ...index.Precision) {
	indextest.Run(t, indextest.Config{
		Precisions: p,
		Open:       func(t *testing.T) index.Store { return open(t, addr, "") },
		Reopen: func(t *testing.T, old index.Store) index.Store {
			s := old.(*milvus.Store)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, addr, prefixes[s])
		},
	})
}

func fakeServer(t testing.TB) *fake.Server {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func TestConformance(t *testing.T) { conformance(t, fakeServer(t).Addr()) }

// TestRealConformance takes a minute and a half a precision: creating and dropping
// collections is slow. KINDRED_TEST_MILVUS_FULL runs all.
func TestRealConformance(t *testing.T) {
	addr := milvustest.Address(t)
	if os.Getenv("KINDRED_TEST_MILVUS_FULL") != "" {
		conformance(t, addr)
		return
	}
	conformance(t, addr, index.Int8)
}

func testKV(t *testing.T, addr string) {
	ctx := context.Background()
	s := open(t, addr, "")
	kv := s.KV()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	big := make([]byte, 200_000)
	for i := range big {
		big[i] = byte(r.Uint32())
	}
	must(kv.Put(ctx, map[string][]byte{"a": nil, "a/1": []byte("one"), "a/10": big, "a/2": []byte("\x00\xff"), "b\x00\"'\\": []byte("odd"), "\xff": {1}}))
	for k, want := range map[string][]byte{"a": {}, "a/10": big, "a/2": []byte("\x00\xff"), "b\x00\"'\\": []byte("odd"), "\xff": {1}} {
		got, err := kv.Get(k)
		must(err)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q holds %d bytes, not %d", k, len(got), len(want))
		}
	}
	if _, err := kv.Get("a/"); !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
	keys := func(prefix string, limit int, after string) string {
		t.Helper()
		pairs, err := kv.List(prefix, limit, after)
		must(err)
		var out []string
		for _, p := range pairs {
			out = append(out, fmt.Sprintf("%q", p.Key))
		}
		return strings.Join(out, " ")
	}
	for got, want := range map[string]string{
		keys("a", 0, ""): `"a" "a/1" "a/10" "a/2"`, keys("a/", 2, ""): `"a/1" "a/10"`, keys("a/", 0, "a/1"): `"a/10" "a/2"`, keys("c", 0, ""): "",
	} {
		if got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	must(kv.Put(ctx, map[string][]byte{"a/10": []byte("short")})) // its tail goes
	if got, err := kv.Get("a/10"); err != nil || string(got) != "short" {
		t.Fatal(got, err)
	}
	must(kv.Delete(ctx, "a/1", "never"))
	must(kv.DeletePrefix(ctx, "b"))
	if got := keys("", 0, ""); got != `"a" "a/10" "a/2" "\xff"` {
		t.Fatal(got)
	}
	// Another process with the same Milvus.
	s.Close()
	again := open(t, addr, prefixes[s])
	if got, err := again.KV().Get("a/10"); err != nil || string(got) != "short" {
		t.Fatal(got, err)
	}
}

func TestKV(t *testing.T)     { testKV(t, fakeServer(t).Addr()) }
func TestRealKV(t *testing.T) { testKV(t, milvustest.Address(t)) }

func TestRefusedBeforeSending(t *testing.T) {
	srv := fakeServer(t)
	s := open(t, srv.Addr(), "")
	e, err := s.Create(context.Background(), index.Spec{Name: "x-y", Dim: 2, Columns: []index.Column{{Name: "c", Kind: index.Category}}})
	if err != nil {
		t.Fatal(err)
	}
	before := srv.Calls("Upsert")
	for name, r := range map[string]index.Row{
		"record":  {ID: "a", Record: make([]byte, 50_000)},
		"columns": {ID: "a", Values: map[string]index.Value{"c": {Kind: index.Category, Str: strings.Repeat("\x01", 20_000)}}},
		"nul":     {ID: "a\x00b"},
	} {
		err := e.Upsert(context.Background(), []index.Row{r, {ID: "fine"}})
		var fault *index.RowError
		if !errors.As(err, &fault) || fault.Row != 0 || !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if srv.Calls("Upsert") != before {
		t.Error("a refused batch was sent")
	}
}

// TestAway sees that scans go on while Milvus is away, and writes afterwards.
func TestAway(t *testing.T) {
	srv := fakeServer(t)
	s := open(t, srv.Addr(), "")
	ctx := context.Background()
	e, err := s.Create(ctx, index.Spec{Name: "p", Dim: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Upsert(ctx, []index.Row{{ID: "a", Vector: []float32{1, 0}}, {ID: "b", Vector: []float32{0, 1}}}); err != nil {
		t.Fatal(err)
	}
	kv := s.KV()
	for _, k := range []string{"keys/a", "keys/b", "config/p"} {
		if err := kv.Put(ctx, map[string][]byte{k: []byte("of " + k)}); err != nil {
			t.Fatal(err)
		}
	}
	settings := func() string {
		t.Helper()
		pairs, err := kv.List("keys/", 0, "")
		if err != nil {
			t.Fatal(err)
		}
		one, err := kv.Get("config/p")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Get("config/none"); !errors.Is(err, index.ErrNotFound) {
			t.Fatal(err)
		}
		return fmt.Sprintf("%q %q", pairs, one)
	}
	before := settings()
	srv.Fault(fake.Fault{Do: fake.Refuse(1, 0, "going down")})
	if now := settings(); now != before { // who may ask, and what a collection is
		t.Fatal(now)
	}
	if _, err := kv.Get("never read"); !client.Unavailable(err) || !errors.Is(err, index.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "keys/a"); !client.Unavailable(err) {
		t.Fatal(err)
	}
	if _, err := kv.List("keys/", 0, ""); !client.Unavailable(err) { // a key that may be gone is not good
		t.Fatal(err)
	}
	if err := e.Upsert(ctx, []index.Row{{ID: "c"}}); !client.Unavailable(err) {
		t.Fatal(err)
	}
	hits, err := e.Search(ctx, index.Query{Vector: []float32{1, 0}, Limit: 5})
	if err != nil || len(hits) != 2 || hits[0].ID != "a" {
		t.Fatal(hits, err)
	}
	srv.Heal()
	if err := e.Upsert(ctx, []index.Row{{ID: "c"}}); err != nil {
		t.Fatal(err)
	}
	// One that someone else dropped is not made again in silence.
	if err := s.Client().Drop(ctx, prefixes[s]+"_c_p"); err != nil {
		t.Fatal(err)
	}
	if err := e.Upsert(ctx, []index.Row{{ID: "d"}}); !errors.Is(err, client.ErrGone) || !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
}
