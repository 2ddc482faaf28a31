package milvus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/rows"
)

// eventually waits until something that another store did shows.
func eventually(t *testing.T, what string, most time.Duration, is func() bool) {
	t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > most {
			t.Fatalf("%s: not within %v", what, most)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(start).Round(10*time.Millisecond))
}

// testShared has two stores on one Milvus, as two processes would.
func testShared(t *testing.T, addr string) {
	ctx := context.Background()
	const sweep = 300 * time.Millisecond
	first := open(t, addr, "") // for its clean-up
	opt := milvus.Options{Client: client.Config{Address: addr}, Prefix: prefixes[first], Rows: rows.Options{ChunkRows: 64}, Sweep: sweep}
	var s [2]*milvus.Store
	for i := range s {
		var err error
		if s[i], err = milvus.Open(ctx, opt); err != nil {
			t.Fatal(err)
		}
		defer s[i].Close()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := s[0].Create(ctx, index.Spec{Name: "p", Dim: 2, Columns: []index.Column{{Name: "n", Kind: index.Number}}})
	must(err)
	var b index.Engine
	eventually(t, "a new collection", 20*time.Second, func() bool { b, err = s[1].Open(ctx, "p"); return err == nil })
	row := func(i int, n float64) index.Row {
		return index.Row{ID: fmt.Sprintf("c%d", i), Vector: []float32{1, float32(i)}, Record: fmt.Appendf(nil, "%v", n), Values: map[string]index.Value{"n": {Kind: index.Number, Num: n}}}
	}
	has := func(e index.Engine, i int, n float64) bool {
		got, err := e.Get(ctx, []string{row(i, n).ID})
		must(err)
		return got[0] != nil && got[0].Values["n"].Num == n && string(got[0].Record) == fmt.Sprint(n)
	}
	var batch []index.Row
	for i := range 500 {
		batch = append(batch, row(i, 1))
	}
	must(a.Upsert(ctx, batch))
	eventually(t, "a write of the other", 20*time.Second, func() bool { return has(b, 499, 1) })
	must(b.Upsert(ctx, []index.Row{row(7, 2)}))
	eventually(t, "a change of the other", 20*time.Second, func() bool { return has(a, 7, 2) })
	_, err = a.Delete(ctx, []string{"c8", "c9"})
	must(err)
	eventually(t, "a delete of the other", 20*time.Second, func() bool { got, err := b.Get(ctx, []string{"c8"}); must(err); return got[0] == nil })

	// Both write every customer in turn, at once: both end with the same, and each row is
	// one that was written.
	done := make(chan error, 2)
	for w, e := range []index.Engine{a, b} {
		go func() {
			for k := range 10 {
				var batch []index.Row
				for i := range 200 {
					batch = append(batch, row(i, float64(1000*(w+1)+k)))
				}
				if err := e.Upsert(ctx, batch); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	must(<-done)
	must(<-done)
	same := func() bool {
		for i := range 200 {
			got := [2]float64{}
			for w, e := range []index.Engine{a, b} {
				rows, err := e.Get(ctx, []string{row(i, 0).ID})
				must(err)
				if rows[0] == nil {
					t.Fatalf("customer %d is gone", i)
				}
				got[w] = rows[0].Values["n"].Num
				if string(rows[0].Record) != fmt.Sprint(got[w]) {
					return false
				}
			}
			if got[0] != got[1] || got[0] != 1009 && got[0] != 2009 {
				return false
			}
		}
		return true
	}
	eventually(t, "the same in both", 30*time.Second, same)

	// Columns, keys and the end of a collection.
	must(s[0].Alter(ctx, "p", []index.Column{{Name: "city", Kind: index.Category}}))
	eventually(t, "a column of the other", 20*time.Second, func() bool { return len(b.Spec().Columns) == 2 })
	withCity := row(1, 5)
	withCity.Values["city"] = index.Value{Kind: index.Category, Str: "Pau"}
	must(a.Upsert(ctx, []index.Row{withCity}))
	eventually(t, "its values", 20*time.Second, func() bool {
		got, err := b.Get(ctx, []string{"c1"})
		must(err)
		return got[0].Values["city"].Str == "Pau"
	})
	must(s[0].KV().Put(ctx, map[string][]byte{"audience": make([]byte, 300_000)}))
	eventually(t, "a value of the other", 20*time.Second, func() bool {
		v, err := s[1].KV().Get("audience")
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			t.Fatal(err)
		}
		return len(v) == 300_000
	})
	must(s[0].Drop(ctx, "p"))
	eventually(t, "the end of it", 20*time.Second, func() bool {
		_, err := b.Search(ctx, index.Query{Vector: []float32{1, 0}, Limit: 1})
		return errors.Is(err, index.ErrNotFound)
	})
	if _, err := s[1].Open(ctx, "p"); !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestShared(t *testing.T)     { testShared(t, fakeServer(t).Addr()) }
func TestRealShared(t *testing.T) { testShared(t, milvustest.Address(t)) }
