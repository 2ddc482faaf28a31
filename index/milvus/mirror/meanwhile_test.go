package mirror_test

import (
	"context"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/mirror"
)

// TestOthersWriteMeanwhile has another process replace everyone while the mirror is being
// filled: what was read before is brought up to date by the next sweep, though rows with
// greater versions have been seen since.
func TestOthersWriteMeanwhile(t *testing.T) {
	w, srv := fakeTown(t, index.Int8)
	w.write(span(0, 900))
	src := w.source()
	src.Page = 100
	src.Now = func() int64 { return w.now }
	m, err := mirror.New(src)
	w.must(err)
	n := 0 // of the goroutine that reads ahead
	srv.Fault(fake.Fault{Method: "Query", Do: func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		if n++; n == 5 {
			w.write(span(0, 900))
		}
		return next()
	}})
	w.must(m.Hydrate(t.Context(), nil))
	if n < 8 {
		t.Fatalf("%d queries: nothing was read before the write", n)
	}
	if rep, err := m.Check(t.Context()); err != nil || rep.Equal() {
		t.Fatalf("%+v %v: the test tests nothing", rep, err)
	}
	if agrees, err := m.Sweep(t.Context()); err != nil || !agrees {
		t.Fatal(agrees, err)
	}
	if rep, err := m.Check(t.Context()); err != nil || !rep.Equal() {
		t.Fatalf("%+v %v", rep, err)
	}
	w.same(m, 200)
}
