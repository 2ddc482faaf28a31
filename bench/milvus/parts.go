//go:build unix

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	sdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
)

const (
	batch = 5000
)

func unit(vectors [][]float32) {
	for _, v := range vectors {
		sum := 0.0
		for _, x := range v {
			sum += float64(x) * float64(x)
		}
		for d := range v {
			v[d] = float32(float64(v[d]) / math.Sqrt(sum))
		}
	}
}

func (b *bench) coll(name string) string { return b.prefix + "_c_" + name }

// table is a batch as the library takes it, ready made: what our engine writes.
type table struct {
	ids, records   []string
	hashes, stamps []int64
	cols           [][]byte
	vectors        [][]float32
}

func (b *bench) batch(prefix string, i int) (ours []index.Row, t table) {
	r := rand.New(rand.NewPCG(uint64(i), 5))
	record := make([]byte, 200)
	for k, v := range b.vectors[i*batch : (i+1)*batch] {
		id, age, city := fmt.Sprintf("%s%08d", prefix, i*batch+k), float64(18+r.IntN(70)), fmt.Sprintf("town-%03d", r.IntN(400))
		for j := range record {
			record[j] = byte(r.Uint32())
		}
		ours = append(ours, index.Row{ID: id, Vector: v, Record: slices.Clone(record), Values: map[string]index.Value{
			"age": {Kind: index.Number, Num: age}, "city": {Kind: index.Category, Str: city},
		}})
		t.ids, t.hashes, t.stamps = append(t.ids, id), append(t.hashes, pushdown.Hash(id)), append(t.stamps, int64(i*batch+k+1))
		t.cols = append(t.cols, fmt.Appendf(nil, `{"age":%g,"city":%q}`, age, city))
		t.records, t.vectors = append(t.records, base64.StdEncoding.EncodeToString(record)), append(t.vectors, v)
	}
	return ours, t
}

func (t *table) bare(dim int) []entity.Column {
	return []entity.Column{
		entity.NewColumnVarChar("id", t.ids), entity.NewColumnInt64("hash", t.hashes), entity.NewColumnInt64("version", t.stamps),
		entity.NewColumnJSONBytes("cols", t.cols), entity.NewColumnVarChar("record", t.records), entity.NewColumnFloatVector("vec", dim, t.vectors),
	}
}

func (t *table) fenced(dim int) []client.Column {
	return []client.Column{
		{Name: "id", Type: client.VarChar, Strings: t.ids}, {Name: "hash", Type: client.Int64, Ints: t.hashes}, {Name: "version", Type: client.Int64, Ints: t.stamps},
		{Name: "cols", Type: client.JSON, JSON: t.cols}, {Name: "record", Type: client.VarChar, Strings: t.records},
		{Name: "vec", Type: client.FloatVector, Vectors: slices.Concat(t.vectors...), Dim: dim},
	}
}

// twin makes a collection as the engine's, for the library.
func (b *bench) twin(ctx context.Context) (string, error) {
	c, name := b.store.Client(), b.coll("bare")
	return name, errors.Join(c.Create(ctx, client.Schema{Name: name, Shards: 1, Fields: []client.Field{
		{Name: "id", Type: client.VarChar, Primary: true, MaxLength: index.MaxID}, {Name: "hash", Type: client.Int64}, {Name: "version", Type: client.Int64},
		{Name: "cols", Type: client.JSON}, {Name: "record", Type: client.VarChar, MaxLength: client.MaxVarChar}, {Name: "vec", Type: client.FloatVector, Dim: b.spec.Dim},
	}}), c.CreateIndex(ctx, name, client.Index{Field: "vec", Type: "FLAT", Metric: client.IP}), c.Load(ctx, name))
}

// writing fills the engine's collection by turns with the library's, and compares the
// fence (package client) with the library in the latter.
func (b *bench) writing(ctx context.Context) ([]ratio, error) {
	e, err := b.store.Create(ctx, b.spec)
	if err != nil {
		return nil, err
	}
	name, err := b.twin(ctx)
	if err != nil {
		return nil, err
	}
	n := len(b.vectors) / batch
	var rates []ratio
	// The engine writes by id, over what is there: the library's like is its upsert; its
	// insert, which would make a repeated call's rows double, is asked besides.
	var upsert, insert, ours side
	for i := range n {
		rows, t := b.batch("c", i)
		_, more := b.batch("d", i)
		steps := []func() error{
			func() error { return ours.time(func() error { return e.Upsert(ctx, rows) }) },
			func() error {
				return upsert.time(func() error { _, err := b.bare.Upsert(ctx, name, "", t.bare(b.spec.Dim)...); return err })
			},
			func() error {
				return insert.time(func() error { _, err := b.bare.Insert(ctx, name, "", more.bare(b.spec.Dim)...); return err })
			},
		}
		if i%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
	}
	rates = append(rates,
		compare("write 5,000 rows: the engine, the copy included, against the library's upsert", "rows/s", "rate", batch, 0.85, ours, upsert),
		compare("write 5,000 rows: the engine, the copy included, against the library's insert", "rows/s", "rate", batch, 0, ours, insert))
	c := b.store.Client()
	fenced, bare, err := turns(min(n, 16), func(i int) error {
		_, t := b.batch("e", i)
		_, err := c.Insert(ctx, name, t.fenced(b.spec.Dim))
		return err
	}, func(i int) error {
		_, t := b.batch("f", i)
		_, err := b.bare.Insert(ctx, name, "", t.bare(b.spec.Dim)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	rates = append(rates, compare("insert 5,000 rows: the client that fences the library off, against the library", "rows/s", "rate", batch, 0.85, fenced, bare))
	return rates, c.Drop(ctx, name)
}

// The nearest of a question, by both.
func (b *bench) searching(ctx context.Context) ([]ratio, error) {
	flat, err := milvus.ParseIndex("flat")
	if err != nil {
		return nil, err
	}
	if err := b.store.Reindex(ctx, b.spec.Name, flat, nil); err != nil { // sealed, and searched as it stays
		return nil, err
	}
	e, err := b.store.Open(ctx, b.spec.Name)
	if err != nil {
		return nil, err
	}
	sp, err := entity.NewIndexFlatSearchParam()
	if err != nil {
		return nil, err
	}
	const k = 10
	ask := func(i, k int) ([]sdk.SearchResult, error) {
		return b.bare.Search(ctx, b.coll(b.spec.Name), nil, "", nil, []entity.Vector{entity.FloatVector(b.queries[i])}, "vec", entity.IP, k, sp, sdk.WithSearchQueryConsistencyLevel(entity.ClEventually))
	}
	find := func(i int) ([]index.Hit, error) {
		how := &index.Found{}
		hits, err := e.Search(ctx, index.Query{Vector: b.queries[i], Limit: k, Found: how})
		if err == nil && how.Path != index.PathMilvusIndex {
			err = fmt.Errorf("a search was answered by the %s: %s", how.Path, how.Note)
		}
		return hits, err
	}
	for i := range 20 { // whom the copy in int8 puts first is among the nearest in fp32
		hits, err := find(i)
		if err != nil {
			return nil, err
		}
		res, err := ask(i, 2*k)
		if err != nil {
			return nil, err
		}
		near := res[0].IDs.(*entity.ColumnVarChar).Data()
		for _, h := range hits {
			if len(hits) != k || !slices.Contains(near, h.ID) {
				return nil, fmt.Errorf("question %d: %d hits, and %s is not among the library's %d", i, len(hits), h.ID, len(near))
			}
		}
	}
	ours, theirs, err := turns(len(b.queries), func(i int) error { _, err := find(i); return err }, func(i int) error { _, err := ask(i, k); return err })
	if err != nil {
		return nil, err
	}
	return []ratio{compare("nearest 10 through FLAT in Milvus: what a search takes more than the library's", "ms", "more_ms", 1, 0.3, ours, theirs)}, nil
}

// hydrating fills the copy, as a process does that starts, against the library's iterator
// at the better of two sizes of page.
func (b *bench) hydrating(ctx context.Context) ([]ratio, error) {
	pages := func(size int) error {
		it, err := b.bare.QueryIterator(ctx, sdk.NewQueryIteratorOption(b.coll(b.spec.Name)).WithOutputFields("id", "version", "cols", "vec").WithBatchSize(size).WithExpr(""))
		if err != nil {
			return err
		}
		got := 0
		for {
			rs, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			got += rs.Len()
		}
		if got != len(b.vectors) {
			return fmt.Errorf("the iterator gave %d of %d rows", got, len(b.vectors))
		}
		return nil
	}
	fill := func(int) error {
		store, err := b.open(ctx)
		if err != nil {
			return err
		}
		old := b.store
		b.store = store
		if err := old.Close(); err != nil {
			return err
		}
		if _, err := store.Open(ctx, b.spec.Name); err != nil {
			return err
		}
		if m, err := store.Mirror(b.spec.Name); err != nil || m.Rows != int64(len(b.vectors)) {
			return fmt.Errorf("the copy has %d of %d rows: %w", m.Rows, len(b.vectors), err)
		}
		return nil
	}
	var best []ratio
	for _, size := range []int{2000, 9000} {
		ours, theirs, err := turns(b.pairs, fill, func(int) error { return pages(size) })
		if err != nil {
			return nil, err
		}
		best = append(best, compare(fmt.Sprintf("everyone with vectors: a process that starts, its copy in int8, against the library's iterator, pages of %d", size), "rows/s", "rate", float64(len(b.vectors)), 0.7, ours, theirs))
	}
	return best, nil
}

// pushing finds a list inside Milvus, against the cheapest loop of the library's searches
// that does: the threshold known beforehand, as few ranges of the hash as hold all, two or
// four at once, no order, nobody's score made exact.
func (b *bench) pushing(ctx context.Context) ([]ratio, error) {
	size := 3 * len(b.vectors) / 10
	req := pushdown.Request{Head: index.Head{Vector: b.queries[0]}, Size: size}
	first, err := b.store.PushDown(ctx, b.spec.Name, req)
	if err != nil {
		return nil, err
	}
	if len(first.Hits) != size || !first.Exact {
		return nil, fmt.Errorf("push-down found %d of %d, exact: %v", len(first.Hits), size, first.Exact)
	}
	buckets := int64(size/13_000 + 1) // of at most 16,384
	part := func(i int64, level entity.ConsistencyLevel) ([]string, error) {
		p, err := entity.NewIndexFlatSearchParam()
		if err != nil {
			return nil, err
		}
		p.AddRadius(float64(first.Hits[size-1].Score) - 1e-6)
		expr := fmt.Sprintf("hash >= %d and hash < %d", i*pushdown.HashSpan/buckets, (i+1)*pushdown.HashSpan/buckets)
		r, err := b.bare.Search(ctx, b.coll(b.spec.Name), nil, expr, nil, []entity.Vector{entity.FloatVector(b.queries[0])}, "vec", entity.IP, client.MaxResults, p, sdk.WithSearchQueryConsistencyLevel(level))
		if err != nil {
			return nil, err
		}
		ids := r[0].IDs.(*entity.ColumnVarChar).Data()
		if len(ids) >= client.MaxResults {
			err = fmt.Errorf("a range of the hash has %d members or more", len(ids))
		}
		return ids, err
	}
	loop := func(atOnce int, level entity.ConsistencyLevel) (found []string, err error) {
		type answer struct {
			ids []string
			err error
		}
		answers, slots := make(chan answer, buckets), make(chan struct{}, atOnce)
		for i := range buckets {
			go func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				ids, err := part(i, level)
				answers <- answer{ids, err}
			}()
		}
		for range buckets {
			a := <-answers
			found, err = append(found, a.ids...), errors.Join(err, a.err)
		}
		return found, err
	}
	// The loop's list is ours, and whoever is within its rounding of the threshold.
	bare, err := loop(2, entity.ClStrong)
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, id := range bare {
		has[id] = true
	}
	for _, h := range first.Hits {
		if !has[h.ID] {
			return nil, fmt.Errorf("push-down has %s, which the loop of %d has not", h.ID, len(bare))
		}
	}
	if len(bare) > size+size/1000+1 {
		return nil, fmt.Errorf("push-down has %d, the loop %d", size, len(bare))
	}
	// The engine's lists have everyone's writes in sight, for which a server waits for its
	// clock; the loop is asked likewise, and both without.
	src := pushdown.Source{
		Client: b.store.Client(), Collection: b.coll(b.spec.Name), Key: "id", Vector: "vec", Hash: "hash", Dim: b.spec.Dim, Exact: true, Consistency: client.Session,
	}
	engine := func() (pushdown.Result, error) {
		got, err := b.store.PushDown(ctx, b.spec.Name, req)
		return got.Result, err
	}
	own := func() (pushdown.Result, error) { return pushdown.Best(ctx, src, req) }
	var out []ratio
	for _, c := range []struct {
		what  string
		push  func() (pushdown.Result, error)
		level entity.ConsistencyLevel
	}{{"everyone's writes in sight", engine, entity.ClStrong}, {"own writes in sight, the library's none", own, entity.ClEventually}} {
		for _, atOnce := range []int{2, 4} {
			ours, theirs, err := turns(2*b.pairs, func(int) error {
				got, err := c.push()
				if err == nil && len(got.Hits) != size {
					err = fmt.Errorf("push-down found %d of %d", len(got.Hits), size)
				}
				return err
			}, func(int) error { _, err := loop(atOnce, c.level); return err })
			if err != nil {
				return nil, err
			}
			out = append(out, compare(fmt.Sprintf("a list of %d in Milvus, %s: push-down against the library's loop, %d searches at once", size, c.what, atOnce), "ms", "time", 1, 3, ours, theirs))
		}
	}
	return out, nil
}
