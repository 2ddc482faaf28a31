package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

// testClaims has several connections to one Milvus count in its key-value space, by
// reading and writing: with claims none of the counts is lost.
func testClaims(t *testing.T, addr string, processes, each int) {
	t.Parallel() // it waits for the server's clock most of the time
	prefix := fmt.Sprintf("kindredtest_%x", time.Now().UnixNano())
	t.Cleanup(func() {
		store, err := settings(addr, prefix, scanMirror).openMilvus(context.Background(), nil)
		if err == nil {
			err = errors.Join(store.Destroy(context.Background()), store.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	kvs := make([]index.KV, processes)
	services := make([]*collection.Service, processes)
	for i := range services {
		a := settings(addr, prefix, scanMirror)
		services[i] = service(t, a, 8)
		kvs[i] = a.milvus.store.KV()
	}
	read := func(kv index.KV) int {
		raw, err := kv.Get("count")
		if errors.Is(err, index.ErrNotFound) {
			return 0
		}
		n, bad := strconv.Atoi(string(raw))
		if err = errors.Join(err, bad); err != nil {
			t.Error(err)
		}
		return n
	}
	var all sync.WaitGroup
	start := time.Now()
	for i, svc := range services {
		all.Go(func() {
			for range each {
				if err := svc.Exclusively(t.Context(), "thing", func(ctx context.Context) error {
					return kvs[i].Put(ctx, map[string][]byte{"count": []byte(strconv.Itoa(read(kvs[i]) + 1))})
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	var n int
	if err := services[0].Exclusively(t.Context(), "thing", func(context.Context) error { n = read(kvs[0]); return nil }); err != nil {
		t.Fatal(err)
	}
	if n != processes*each {
		t.Errorf("%d of %d counts are there", n, processes*each)
	}
	alone := time.Now()
	for range 5 {
		if err := services[0].Exclusively(t.Context(), "other", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d processes, %d changes in %v; a claim that nobody disputes takes %v", processes, n, took.Round(time.Millisecond), (time.Since(alone) / 5).Round(time.Millisecond))
}

func TestMilvusClaims(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	testClaims(t, s.Addr(), 3, 4)
}

func TestRealMilvusClaims(t *testing.T) { testClaims(t, milvustest.Address(t), 3, 4) }

// TestRealMilvusChangesOfTwo has two servers change one suppression list and one
// collection's fields at once: nothing of either is lost.
func TestRealMilvusChangesOfTwo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, milvustest.Address(t))
	servers := []*serving{h.serve(), h.serve()}
	if code, said, _ := servers[0].ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	if code, said, _ := servers[0].ask("PUT", "/collections/shop/suppressions/no", `{"ids":["first"]}`); code >= 300 {
		t.Fatal(code, said)
	}
	const each = 3
	var all sync.WaitGroup
	start := time.Now()
	for w, s := range servers {
		all.Go(func() {
			for i := range each {
				if code, said, _ := s.ask("POST", "/collections/shop/suppressions/no/ids", fmt.Sprintf(`{"add":["%d-%d"]}`, w, i)); code >= 300 {
					t.Errorf("%d %s", code, said)
				}
			}
		})
		all.Go(func() {
			for i := range each {
				if code, said, _ := s.ask("PUT", "/collections/shop", fmt.Sprintf(`{"dim":8,"fields":[{"name":"f%d_%d","type":"number"}]}`, w, i)); code != 200 {
					t.Errorf("%d %s", code, said)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d changes of each in %v", 2*each, time.Since(start).Round(time.Millisecond))
	for _, s := range servers {
		s.until("everyone who is suppressed", func() bool {
			_, said, _ := s.ask("GET", "/collections/shop/suppressions", "")
			return strings.Contains(said, fmt.Sprintf(`"ids":%d`, 2*each+1))
		})
		var said string
		s.until("all fields", func() bool {
			_, said, _ = s.ask("GET", "/collections/shop", "")
			return strings.Count(said, `"name":"f`) == 2*each
		})
	}
	// A precondition holds for what the other wrote: of two that want to be next, one is.
	_, _, header := servers[0].ask("GET", "/collections/shop", "")
	codes := make([]int, 2)
	for w, s := range servers {
		all.Go(func() {
			codes[w], _, _ = s.askIf(header.Get("ETag"), "PUT", "/collections/shop", fmt.Sprintf(`{"dim":8,"fields":[{"name":"next%d","type":"number"}]}`, w))
		})
	}
	all.Wait()
	if codes[0]+codes[1] != 200+412 {
		t.Errorf("of two changes of what both had seen: %v", codes)
	}
	for _, s := range servers {
		s.stop()
	}
}
