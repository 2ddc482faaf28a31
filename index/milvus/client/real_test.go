package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

// realServer dials the Milvus that tests run against, or skips.
func realServer(t testing.TB) *client.Client {
	t.Helper()
	addr := milvustest.Address(t)
	c, err := client.Dial(context.Background(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func testSchema(name string, dim int) client.Schema {
	return client.Schema{
		Name: name, Description: `{"a":"ü"}`, Shards: 1, Dynamic: true,
		Fields: []client.Field{
			{Name: "id", Type: client.VarChar, Primary: true, MaxLength: 512},
			{Name: "n", Type: client.Int64},
			{Name: "x", Type: client.Double},
			{Name: "flag", Type: client.Bool},
			{Name: "attrs", Type: client.JSON},
			{Name: "vec", Type: client.FloatVector, Dim: dim},
		},
	}
}

func testColumns(ids []string, dim int, seed uint64) []client.Column {
	r := rand.New(rand.NewPCG(seed, 1))
	n := len(ids)
	out := []client.Column{
		{Name: "id", Type: client.VarChar, Strings: ids},
		{Name: "n", Type: client.Int64, Ints: make([]int64, n)},
		{Name: "x", Type: client.Double, Doubles: make([]float64, n)},
		{Name: "flag", Type: client.Bool, Bools: make([]bool, n)},
		{Name: "attrs", Type: client.JSON, JSON: make([][]byte, n)},
		{Name: "vec", Type: client.FloatVector, Vectors: make([]float32, n*dim), Dim: dim},
		{Dynamic: true, Type: client.JSON, JSON: make([][]byte, n)},
	}
	for i := range n {
		out[1].Ints[i] = int64(i)
		out[2].Doubles[i] = float64(i) / 3
		out[3].Bools[i] = i%2 == 0
		out[4].JSON[i] = fmt.Appendf(nil, `{"age":%d}`, i)
		out[6].JSON[i] = fmt.Appendf(nil, `{"dyn":%d}`, i)
		for d := range dim {
			out[5].Vectors[i*dim+d] = r.Float32() - 0.5
		}
	}
	return out
}

func TestRealServer(t *testing.T) {
	c := realServer(t)
	ctx := context.Background()
	s, err := c.Server(ctx)
	if err != nil || s.Major != 2 {
		t.Fatal(s, err)
	}
	if err := c.Health(ctx); err != nil {
		t.Fatal(err)
	}
	const dim, n = 8, 5000
	name := fmt.Sprintf("kindredtest_%d", time.Now().UnixNano())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := testSchema(name, dim)
	must(c.Create(ctx, want))
	must(c.Create(ctx, want)) // the same twice
	t.Cleanup(func() { c.Drop(ctx, name) })
	other := testSchema(name, dim+1)
	if err := c.Create(ctx, other); err == nil {
		t.Fatal("another schema under the same name was taken")
	} else {
		t.Log(err)
	}
	info, err := c.Describe(ctx, name)
	must(err)
	must(c.Mismatch(want, info))
	if err := c.Mismatch(other, info); !errors.Is(err, client.ErrSchema) {
		t.Fatal(err)
	}
	if info.Description != want.Description || info.Shards != 1 {
		t.Fatalf("%+v", info)
	}
	list, err := c.List(ctx)
	must(err)
	if !slices.Contains(list, name) {
		t.Fatal(list)
	}
	if _, err := c.Describe(ctx, name+"x"); !errors.Is(err, client.ErrGone) {
		t.Fatal(err)
	}
	must(c.CreateIndex(ctx, name, client.Index{Field: "vec", Type: "FLAT", Metric: client.IP}))
	if _, err := c.Query(ctx, client.QueryRequest{Collection: name, Expr: "n < 3", Fields: []string{"id"}}); !errors.Is(err, client.ErrNotLoaded) {
		t.Fatal(err)
	}
	must(c.Load(ctx, name))
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("c%05d", i)
	}
	ids[17] = `hostile " \ ' ü 漢 %_ \n or 1 == 1`
	cols := testColumns(ids, dim, 1)
	w, err := c.Upsert(ctx, name, cols)
	must(err)
	if w.Rows != n || w.Timestamp == 0 {
		t.Fatalf("%+v", w)
	}
	w, err = c.Upsert(ctx, name, cols) // twice is once
	must(err)
	count, err := c.Count(ctx, name, "", client.Strong)
	must(err)
	if count != n {
		t.Fatalf("%d rows", count)
	}
	// Everything comes back as it went.
	it, err := c.Iterate(client.IterateRequest{Collection: name, Key: "id", Fields: []string{"n", "x", "flag", "attrs", "vec", "$meta"}, Batch: 700})
	must(err)
	at := map[string]int{}
	for i, id := range ids {
		at[id] = i
	}
	got := 0
	for {
		b, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		must(err)
		for i, id := range b.Column("id").Strings {
			k, ok := at[id]
			if !ok || b.Column("n").Ints[i] != int64(k) || b.Column("x").Doubles[i] != float64(k)/3 || b.Column("flag").Bools[i] != (k%2 == 0) ||
				!slices.Equal(b.Column("vec").Vectors[i*dim:(i+1)*dim], cols[5].Vectors[k*dim:(k+1)*dim]) {
				t.Fatalf("row %q came back differently", id)
			}
			got++
		}
	}
	if got != n {
		t.Fatalf("%d of %d rows by the iterator", got, n)
	}
	for _, k := range []int{17, 4} {
		expr, err := client.InStrings("id", []string{ids[k]})
		must(err)
		b, err := c.Query(ctx, client.QueryRequest{Collection: name, Expr: expr, Fields: []string{"n"}})
		must(err)
		if b.Rows != 1 || b.Column("n").Ints[0] != int64(k) {
			t.Fatalf("by key: %+v", b)
		}
	}
	// Search against our own dot products.
	hits, err := c.Search(ctx, client.SearchRequest{
		Collection: name, Field: "vec", Vectors: cols[5].Vectors[:2*dim], Dim: dim, Metric: client.IP, Limit: 10,
		Expr: "n < 4000", Fields: []string{"n"}, Consistency: client.Session,
	})
	must(err)
	radius := 0.3
	rangeHits, err := c.Search(ctx, client.SearchRequest{
		Collection: name, Field: "vec", Vectors: cols[5].Vectors[:dim], Dim: dim, Metric: client.IP, Limit: client.MaxResults, Radius: &radius,
	})
	must(err)
	dot := func(a, b int) float32 {
		var s float32
		for d := range dim {
			s += cols[5].Vectors[a*dim+d] * cols[5].Vectors[b*dim+d]
		}
		return s
	}
	for q, h := range hits {
		if h.Len() != 10 || h.Columns[0].Len() != 10 {
			t.Fatalf("%+v", h)
		}
		better := 0
		for i := range 4000 {
			if dot(q, i) > h.Scores[9]+1e-6 {
				better++
			}
		}
		if better > 9 {
			t.Fatalf("query %d: %d rows are nearer than the tenth hit", q, better)
		}
	}
	within := 0
	for i := range n {
		if float64(dot(0, i)) > radius {
			within++
		}
	}
	if rangeHits[0].Len() != within {
		t.Fatalf("%d hits within the radius, %d by our own count", rangeHits[0].Len(), within)
	}
	if _, err := c.DeleteKeys(ctx, name, "id", []string{ids[17], ids[0], "not there"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a read of our own session sees our own delete, and so do those after it
		expr, err := client.InStrings("id", []string{ids[17], ids[0], ids[1]})
		must(err)
		b, err := c.Query(ctx, client.QueryRequest{Collection: name, Expr: expr, Fields: []string{"id"}, Consistency: client.Session})
		must(err)
		if b.Rows != 1 {
			t.Fatalf("%d rows of one that is left", b.Rows)
		}
	}
	if count, err = c.Count(ctx, name, "", client.Strong); err != nil || count != n-2 {
		t.Fatal(count, err)
	}
	if _, err := c.Query(ctx, client.QueryRequest{Collection: name, Expr: "n <<< 3", Fields: []string{"id"}}); !errors.Is(err, client.ErrInvalidRequest) {
		t.Fatal(err)
	}
	must(c.Flush(ctx, name))
	must(c.WaitIndex(ctx, name, "vec"))
	must(c.Alias(ctx, name+"_live", name))
	must(c.Alias(ctx, name+"_live", name))
	if info, err = c.Describe(ctx, name+"_live"); err != nil || info.Name != name || !slices.Contains(info.Aliases, name+"_live") {
		t.Fatal(info, err)
	}
	must(c.DropAlias(ctx, name+"_live"))
	must(c.Release(ctx, name))
	if s, err := c.LoadState(ctx, name); err != nil || s != client.NotLoaded {
		t.Fatal(s, err)
	}
	must(c.Drop(ctx, name))
	if s, err := c.LoadState(ctx, name); !errors.Is(err, client.ErrGone) {
		t.Fatal(s, err)
	}
	must(c.Drop(ctx, name))
}
