package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	sdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
	"github.com/kindred-search/kindred/index/rows"
)

// TestRatios measures what the fence costs beside the library alone, on the same server
// in the same run, by turns. It needs KINDRED_TEST_MILVUS_RATIOS besides.
func TestRatios(t *testing.T) {
	addr := milvustest.Address(t)
	if os.Getenv("KINDRED_TEST_MILVUS_RATIOS") == "" {
		t.Skip("KINDRED_TEST_MILVUS_RATIOS is not set: this measures for minutes")
	}
	const dim, batch, turns, n = 384, 5000, 20, 200_000
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.Dial(ctx, client.Config{Address: addr})
	must(err)
	defer c.Close()
	bare, err := sdk.NewClient(ctx, sdk.Config{Address: addr})
	must(err)
	defer bare.Close()
	w := newTown(t, c, fmt.Sprintf("kindredtest_ratios_%d", time.Now().UnixNano()), dim, index.Int8)

	// Inserts, by turns into one collection.
	var ours, theirs time.Duration
	var query []float32
	for turn := range 2 * turns {
		ids, versions, ages, hashes := make([]string, batch), make([]int64, batch), make([]float64, batch), make([]int64, batch)
		flat := make([]float32, 0, batch*dim)
		for i := range ids {
			ids[i] = fmt.Sprintf("c%07d", turn*batch+i) // harmless: the library's iterator escapes nothing
			versions[i], ages[i], hashes[i] = int64(turn*batch+i+1), float64(i%90), pushdown.Hash(ids[i])
			v := make([]float32, dim)
			for d := range v {
				v[d] = float32(w.r.NormFloat64())
			}
			unit, _ := rows.Unit(v)
			flat = append(flat, unit...)
		}
		query = flat[:dim]
		start := time.Now()
		if turn%2 == 0 {
			_, err := c.Insert(ctx, w.coll, []client.Column{
				{Name: "id", Type: client.VarChar, Strings: ids}, {Name: "version", Type: client.Int64, Ints: versions},
				{Name: "age", Type: client.Double, Doubles: ages}, {Name: "hash", Type: client.Int64, Ints: hashes},
				{Name: "vec", Type: client.FloatVector, Vectors: flat, Dim: dim},
			})
			must(err)
			ours += time.Since(start)
			continue
		}
		vecs := slices.Collect(slices.Chunk(flat, dim))
		_, err := bare.Insert(ctx, w.coll, "", entity.NewColumnVarChar("id", ids), entity.NewColumnInt64("version", versions),
			entity.NewColumnDouble("age", ages), entity.NewColumnInt64("hash", hashes), entity.NewColumnFloatVector("vec", dim, vecs))
		must(err)
		theirs += time.Since(start)
	}
	t.Logf("insert: %.0f rows/s, %.0f by the library alone: %.2f", turns*batch/ours.Seconds(), turns*batch/theirs.Seconds(), theirs.Seconds()/ours.Seconds())
	must(c.Flush(ctx, w.coll))
	must(c.WaitIndex(ctx, w.coll, "vec"))

	// Searches for 10, by turns.
	sp, err := entity.NewIndexFlatSearchParam()
	must(err)
	var a, b []time.Duration
	for i := range 300 {
		start := time.Now()
		if i%2 == 0 {
			_, err := c.Search(ctx, client.SearchRequest{Collection: w.coll, Field: "vec", Vectors: query, Dim: dim, Metric: client.IP, Limit: 10, Expr: "age < 2", Consistency: client.Eventually})
			must(err)
			a = append(a, time.Since(start))
			continue
		}
		_, err := bare.Search(ctx, w.coll, nil, "age < 2", nil, []entity.Vector{entity.FloatVector(query)}, "vec", entity.IP, 10, sp, sdk.WithSearchQueryConsistencyLevel(entity.ClEventually))
		must(err)
		b = append(b, time.Since(start))
	}
	slices.Sort(a)
	slices.Sort(b)
	t.Logf("search: p50 %v, %v by the library alone: %v more", a[75], b[75], a[75]-b[75])

	// Everything with vectors: the library's iterator, then a mirror.
	for _, page := range []int{2000, 9000} {
		start, got := time.Now(), 0
		it, err := bare.QueryIterator(ctx, sdk.NewQueryIteratorOption(w.coll).WithOutputFields("id", "version", "age", "vec").WithBatchSize(page).WithExpr(""))
		must(err)
		for {
			rs, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			must(err)
			got += rs.Len()
		}
		t.Logf("the library's iterator, pages of %d: %d rows, %.0f rows/s", page, got, float64(got)/time.Since(start).Seconds())
	}
	start := time.Now()
	m, err := mirror.New(w.source())
	must(err)
	must(m.Hydrate(ctx, nil))
	took := time.Since(start)
	t.Logf("hydration, encoded as int8: %d rows, %.0f rows/s", m.State().Rows, float64(m.State().Rows)/took.Seconds())
	if m.State().Rows != n {
		t.Errorf("%d rows", m.State().Rows)
	}

	// An audience of 60,000, and the least that a loop of searches could do for it: the
	// threshold known beforehand, four at once.
	src := pushdown.Source{Client: c, Collection: w.coll, Key: "id", Vector: "vec", Hash: "hash", Dim: dim, Exact: true}
	for _, k := range []client.Consistency{client.Strong, client.Session, client.Strong, client.Session, client.Strong, client.Session} {
		src.Consistency = k
		start = time.Now()
		got, err := pushdown.Best(ctx, src, pushdown.Request{Head: index.Head{Vector: query}, Size: 60_000})
		must(err)
		pushed := time.Since(start)
		start = time.Now()
		const buckets = 8
		errs, found := make(chan error, buckets), make(chan int, buckets)
		slots := make(chan struct{}, 4)
		for i := range int64(buckets) {
			go func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				p, _ := entity.NewIndexFlatSearchParam()
				p.AddRadius(float64(got.Threshold))
				expr := fmt.Sprintf("hash >= %d and hash < %d", i*pushdown.HashSpan/buckets, (i+1)*pushdown.HashSpan/buckets)
				r, err := bare.Search(ctx, w.coll, nil, expr, nil, []entity.Vector{entity.FloatVector(query)}, "vec", entity.IP, client.MaxResults, p, sdk.WithSearchQueryConsistencyLevel(entity.ClEventually))
				errs <- err
				if err == nil {
					found <- r[0].ResultCount
				}
			}()
		}
		sum := 0
		for range buckets {
			must(<-errs)
			sum += <-found
		}
		loop := time.Since(start)
		if sum < 60_000 {
			t.Errorf("the loop found %d", sum)
		}
		t.Logf("60,000 of %d (consistency %d): %v in %d searches, %v by the bare loop: %.2f", n, k, pushed.Round(time.Millisecond), got.Searches, loop.Round(time.Millisecond), pushed.Seconds()/loop.Seconds())
	}
}
