package milvus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
)

func parseIndex(t testing.TB, text string) milvus.VectorIndex {
	t.Helper()
	x, err := milvus.ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// openAs opens a store beside another, on the same collections, with other settings.
func openAs(t testing.TB, addr, prefix, ix string, mode milvus.Searching) *milvus.Store {
	t.Helper()
	s, err := milvus.Open(context.Background(), milvus.Options{Client: client.Config{Address: addr}, Prefix: prefix, Index: parseIndex(t, ix), Search: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// crowd is vectors around centres, as texts of some topics are.
func crowd(r *rand.Rand, n, dim int) [][]float32 {
	centres := make([][]float32, 40)
	for i := range centres {
		centres[i] = make([]float32, dim)
		for d := range centres[i] {
			centres[i][d] = float32(r.NormFloat64())
		}
	}
	out := make([][]float32, n)
	for i := range out {
		c := centres[r.IntN(len(centres))]
		out[i] = make([]float32, dim)
		for d := range out[i] {
			out[i][d] = c[d] + float32(r.NormFloat64())
		}
	}
	return out
}

// testIndexed searches through an index of Milvus, and compares with the mirror.
func testIndexed(t *testing.T, addr, text string, n, dim int, least float64) *milvus.Store {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	prefix := prefixes[open(t, addr, "")] // for its clean-up
	s := openAs(t, addr, prefix, text, milvus.SearchAuto)
	e, err := s.Create(ctx, index.Spec{Name: "p", Dim: dim, Columns: []index.Column{{Name: "n", Kind: index.Number}, {Name: "tags", Kind: index.Set}}})
	must(err)
	r := rand.New(rand.NewPCG(7, 7))
	var batch []index.Row
	for i, v := range crowd(r, n, dim) {
		batch = append(batch, index.Row{ID: fmt.Sprintf("c%06d", i), Vector: v, Values: map[string]index.Value{
			"n": {Kind: index.Number, Num: float64(i % 100)}, "tags": {Kind: index.Set, Set: []string{fmt.Sprint("t", i%3)}},
		}})
	}
	for some := range slices.Chunk(batch, 5000) {
		must(e.Upsert(ctx, some))
	}
	var last [2]int64
	must(s.Reindex(ctx, "p", parseIndex(t, text), func(done, total int64) { last = [2]int64{done, total} })) // the same: sealed and built
	if last[1] < int64(n) || last[0] < last[1] {
		t.Errorf("the last progress was %v of %d rows", last, n)
	}
	search := func(e index.Engine, q index.Query) ([]index.Hit, index.Found) {
		t.Helper()
		var how index.Found
		q.Found = &how
		hits, err := e.Search(ctx, q)
		must(err)
		return hits, how
	}
	want := parseIndex(t, text)
	found, all := 0, 0
	for i := range 40 {
		q := index.Query{Vector: batch[r.IntN(n)].Vector, Limit: 10, Offset: i % 3}
		if i%4 == 3 {
			q.Filter = &index.Filter{Field: "n", Lt: 40}
		}
		got, how := search(e, q)
		if how.Path != index.PathMilvusIndex || how.Exact || how.Index != want.String() || len(got) != 10 {
			t.Fatalf("%d hits, %+v", len(got), how)
		}
		q.Exact = true
		right, how := search(e, q)
		if how.Path != index.PathMirror || !how.Exact || how.Note != "" {
			t.Fatalf("%+v", how)
		}
		for _, h := range got {
			all++
			if slices.Contains(right, h) { // the same bits, too
				found++
			}
		}
	}
	recall := float64(found) / float64(all)
	t.Logf("%s: recall@10 %.3f", want, recall)
	if recall < least {
		t.Errorf("recall@10 is %.3f", recall)
	}
	// Own writes are seen, and what is excluded is not.
	self := index.Row{ID: "me", Vector: batch[0].Vector}
	must(e.Upsert(ctx, []index.Row{self}))
	near := func() (ids []string) {
		hits, how := search(e, index.Query{Vector: self.Vector, Limit: 3, Exclude: []string{batch[0].ID}})
		if how.Path != index.PathMilvusIndex {
			t.Fatalf("%+v", how)
		}
		for _, h := range hits {
			ids = append(ids, h.ID)
		}
		return ids
	}
	if got := near(); got[0] != "me" || slices.Contains(got, batch[0].ID) {
		t.Errorf("near me are %v", got)
	}
	_, err = e.Delete(ctx, []string{"me"})
	must(err)
	if got := near(); slices.Contains(got, "me") || len(got) != 3 {
		t.Errorf("near whom I was are %v", got)
	}
	// What Milvus is not asked.
	prefixed := "t1"
	for what, q := range map[string]index.Query{
		"filter": {Vector: self.Vector, Limit: 3, Filter: &index.Filter{Field: "tags", Prefix: &prefixed}},
		"many":   {Vector: self.Vector, Limit: client.MaxResults + 1},
	} {
		if _, how := search(e, q); how.Path != index.PathMirror || !how.Exact || how.Note == "" {
			t.Errorf("%s: %+v", what, how)
		}
	}
	for _, c := range []struct {
		ix, path, note string
		mode           milvus.Searching
	}{
		{text, index.PathMirror, "", milvus.SearchMirror}, {"", index.PathMirror, "", milvus.SearchAuto}, {"flat", index.PathMirror, "", milvus.SearchAuto},
		{"", index.PathMilvusIndex, "", milvus.SearchIndex}, {"ivf_pq:m=4", index.PathMirror, "kindred engine index", milvus.SearchAuto},
	} {
		other, err := openAs(t, addr, prefix, c.ix, c.mode).Open(ctx, "p")
		must(err)
		hits, how := search(other, index.Query{Vector: self.Vector, Limit: 10})
		if how.Path != c.path || how.Exact == (c.path == index.PathMilvusIndex) || !strings.Contains(how.Note, c.note) || (c.note == "") != (how.Note == "") || len(hits) != 10 {
			t.Errorf("%q, %s: %+v", c.ix, c.mode, how)
		}
	}
	return s
}

func TestIndexed(t *testing.T) {
	srv := fakeServer(t)
	ctx := context.Background()
	s := testIndexed(t, srv.Addr(), "hnsw:M=8,efConstruction=64", 3000, 16, 0.999)
	e, err := s.Open(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	// While Milvus is away the mirror answers, and says so.
	srv.Fault(fake.Fault{Do: fake.Refuse(1, 0, "going down")})
	var how index.Found
	_, err = e.Search(ctx, index.Query{Vector: make([]float32, 15), Limit: 3, Found: &how})
	if err == nil {
		t.Error("a vector of another dimension was taken")
	}
	v := make([]float32, 16)
	v[0] = 1
	if hits, err := e.Search(ctx, index.Query{Vector: v, Limit: 3, Found: &how}); err != nil || len(hits) != 3 || how.Path != index.PathMirror || !how.Exact || !strings.Contains(how.Note, "away") {
		t.Errorf("%v %+v %v", hits, how, err)
	}
	srv.Heal()
	time.Sleep(1100 * time.Millisecond) // the breaker's pause
	if _, err = e.Search(ctx, index.Query{Vector: v, Limit: 3, Found: &how}); err != nil || how.Path != index.PathMilvusIndex {
		t.Errorf("%+v %v", how, err)
	}
	// A parameter that the server refuses is an error, and no answer by another path.
	srv.Fault(fake.Fault{Method: "Search", Do: fake.Refuse(1100, 0, "param ef out of range")})
	if _, err = e.Search(ctx, index.Query{Vector: v, Limit: 3, Found: &how}); !errors.Is(err, client.ErrInvalidRequest) {
		t.Errorf("%+v %v", how, err)
	}
}

// TestFlatInside: FLAT in Milvus is exact where its order is the collection's, and says
// when it cannot know.
func TestFlatInside(t *testing.T) {
	ctx := context.Background()
	srv := fakeServer(t)
	prefix := prefixes[open(t, srv.Addr(), "")]
	s := openAs(t, srv.Addr(), prefix, "flat", milvus.SearchIndex)
	for _, c := range []struct {
		name      string
		precision index.Precision
		equal     int // rows of the same vector
		exact     bool
	}{{"clear", index.Fp32, 1, true}, {"tied", index.Fp32, 60, false}, {"codes", index.Int8, 1, false}} {
		e, err := s.Create(ctx, index.Spec{Name: c.name, Dim: 8, Precision: c.precision})
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 9))
		var batch []index.Row
		for i, v := range crowd(r, 300, 8) {
			if i < c.equal {
				v = []float32{1, 0, 0, 0, 0, 0, 0, 0}
			}
			batch = append(batch, index.Row{ID: fmt.Sprintf("c%d", i), Vector: v})
		}
		if err := e.Upsert(ctx, batch); err != nil {
			t.Fatal(err)
		}
		var how index.Found
		hits, err := e.Search(ctx, index.Query{Vector: []float32{1, 0, 0, 0, 0, 0, 0, 0}, Limit: 10, Found: &how})
		if err != nil || how.Path != index.PathMilvusIndex || how.Exact != c.exact || (how.Note == "") != c.exact {
			t.Errorf("%s: %+v %v", c.name, how, err)
		}
		right, err := e.Search(ctx, index.Query{Vector: []float32{1, 0, 0, 0, 0, 0, 0, 0}, Limit: 10, Exact: true})
		if err != nil || c.exact && !slices.Equal(hits, right) {
			t.Errorf("%s: %v, exact are %v (%v)", c.name, hits, right, err)
		}
	}
}

// testLacking: a type that the server does not have is refused with what it needs, and
// leaves nothing behind, in Create and in Reindex.
func testLacking(t *testing.T, addr string, within time.Duration) {
	ctx := context.Background()
	defer milvus.SetBuildTime(within)()
	first := open(t, addr, "")
	prefix := prefixes[first]
	if _, err := first.Create(ctx, index.Spec{Name: "there", Dim: 32}); err != nil {
		t.Fatal(err)
	}
	for text, words := range map[string]string{"gpu_cagra": "GPU", "diskann": "enableDisk"} {
		s := openAs(t, addr, prefix, text, milvus.SearchAuto)
		start := time.Now()
		_, err := s.Create(ctx, index.Spec{Name: "new", Dim: 32})
		if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "does not build an index of type") {
			t.Errorf("%s: %v", text, err)
		}
		t.Logf("%s: refused after %v", text, time.Since(start).Round(time.Millisecond))
		if text == "gpu_cagra" {
			if err := s.Reindex(ctx, "there", parseIndex(t, text), nil); !errors.Is(err, index.ErrInvalid) {
				t.Errorf("%s: %v", text, err)
			}
		}
		if _, err := s.Create(ctx, index.Spec{Name: "new", Dim: 31}); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s of 31: %v", text, err)
		}
	}
	names, err := first.Client().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) && n != prefix+"_kv" && n != prefix+"_c_there" {
			t.Errorf("%s stayed behind", n)
		}
	}
	if err := first.Reindex(ctx, "none", parseIndex(t, "hnsw"), nil); !errors.Is(err, index.ErrNotFound) {
		t.Error(err)
	}
	if err := first.Reindex(ctx, "there", milvus.VectorIndex{Type: "HNSW"}, nil); !errors.Is(err, index.ErrInvalid) {
		t.Error(err)
	}
}

func TestLacking(t *testing.T) { testLacking(t, fakeServer(t).Addr(), 200*time.Millisecond) }

// TestRealIndexed has HNSW and, with KINDRED_TEST_MILVUS_FULL, IVF_SQ8 on the same rows
// by Reindex.
func TestRealIndexed(t *testing.T) {
	addr := milvustest.Address(t)
	start := time.Now()
	s := testIndexed(t, addr, "hnsw:M=16,efConstruction=100,ef=96", 12_000, 32, 0.95)
	t.Logf("HNSW after %v", time.Since(start).Round(time.Millisecond))
	testLacking(t, addr, 4*time.Second)
	if os.Getenv("KINDRED_TEST_MILVUS_FULL") == "" {
		return
	}
	ctx := context.Background()
	ix := parseIndex(t, "ivf_sq8:nlist=64,nprobe=16")
	start = time.Now()
	if err := s.Reindex(ctx, "p", ix, func(done, total int64) { t.Logf("%d of %d", done, total) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("IVF_SQ8 after %v", time.Since(start).Round(time.Millisecond))
	e, err := s.Open(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	var how index.Found
	v := make([]float32, 32)
	v[3] = 1
	if hits, err := e.Search(ctx, index.Query{Vector: v, Limit: 3, Found: &how}); err != nil || len(hits) != 3 || !strings.Contains(how.Note, "kindred engine index") {
		t.Errorf("%v %+v %v", hits, how, err)
	}
	if got, err := e.Get(ctx, []string{"c000001"}); err != nil || got[0] == nil {
		t.Errorf("%v %v", got, err)
	}
	if _, err := s.PushDown(ctx, "p", pushed(v)); err != nil {
		t.Error(err)
	}
}

func pushed(v []float32) pushdown.Request {
	return pushdown.Request{Head: index.Head{Vector: v}, Size: 500}
}
