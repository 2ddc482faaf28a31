package milvus_test

import (
	"errors"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

// TestFreshReads fail while Milvus refuses them, where others get what was read last: what
// is changed must not rest on that.
func TestFreshReads(t *testing.T) {
	srv := fakeServer(t)
	s := openStore(t, srv.Addr(), "fresh", 0)
	if err := s.KV().Put(t.Context(), map[string][]byte{"settings": []byte("old")}); err != nil {
		t.Fatal(err)
	}
	read := func() (string, error) {
		raw, err := s.KV().Get("settings")
		return string(raw), err
	}
	if got, err := read(); got != "old" || err != nil {
		t.Fatal(got, err)
	}
	srv.Fault(fake.Fault{Method: "Query", Do: fake.Refuse(8, 0, "rate limit")})
	if got, err := read(); got != "old" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	kv, ok := s.KV().(interface{ Fresh() (done func()) })
	if !ok {
		t.Fatalf("%T has no Fresh, which package collection looks for", s.KV())
	}
	done, also := kv.Fresh(), kv.Fresh()
	for range 2 {
		if got, err := read(); !errors.Is(err, index.ErrUnavailable) {
			t.Errorf("%q %v", got, err)
		}
		also()
		also() // twice is once
	}
	done()
	if got, err := read(); got != "old" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}
