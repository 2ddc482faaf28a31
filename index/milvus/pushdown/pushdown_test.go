package pushdown_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
	"github.com/kindred-search/kindred/index/rows"
)

// people writes n customers in clusters into a collection and into an exact engine.
func people(t testing.TB, c *client.Client, coll string, n, dim int) index.Snapshot {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Create(ctx, client.Schema{Name: coll, Shards: 2, Fields: []client.Field{
		{Name: "id", Type: client.VarChar, Primary: true, MaxLength: 256}, {Name: "hash", Type: client.Int64},
		{Name: "age", Type: client.Int64}, {Name: "vec", Type: client.FloatVector, Dim: dim},
	}}))
	t.Cleanup(func() { c.Drop(context.Background(), coll) })
	must(c.CreateIndex(ctx, coll, client.Index{Field: "vec", Type: "FLAT", Metric: client.IP}))
	store := memory.Open()
	t.Cleanup(func() { store.Close() })
	eng, err := store.Create(ctx, index.Spec{Name: "people", Dim: dim, Precision: index.Fp32, Columns: []index.Column{{Name: "age", Kind: index.Number}}})
	must(err)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	centres := make([]float32, 8*dim)
	for i := range centres {
		centres[i] = float32(r.NormFloat64())
	}
	const batch = 5000
	for at := 0; at < n; at += batch {
		m := min(batch, n-at)
		cols := []client.Column{
			{Name: "id", Type: client.VarChar, Strings: make([]string, m)}, {Name: "hash", Type: client.Int64, Ints: make([]int64, m)},
			{Name: "age", Type: client.Int64, Ints: make([]int64, m)}, {Name: "vec", Type: client.FloatVector, Vectors: make([]float32, 0, m*dim), Dim: dim},
		}
		batchRows := make([]index.Row, m)
		for i := range m {
			id := fmt.Sprintf("customer %06d \"'\\", at+i)
			v := make([]float32, dim)
			k := r.IntN(8)
			for d := range v {
				v[d] = centres[k*dim+d] + float32(r.NormFloat64())*1.5
			}
			if (at+i)%50 == 7 { // the same vector for many: ties are decided by id
				for d := range v {
					v[d] = centres[d]
				}
			}
			unit, _ := rows.Unit(v)
			cols[0].Strings[i], cols[1].Ints[i], cols[2].Ints[i] = id, pushdown.Hash(id), int64((at+i)%90)
			cols[3].Vectors = append(cols[3].Vectors, unit...)
			batchRows[i] = index.Row{ID: id, Vector: v, Values: map[string]index.Value{"age": {Kind: index.Number, Num: float64((at + i) % 90)}}}
		}
		_, err := c.Upsert(ctx, coll, cols)
		must(err)
		must(eng.Upsert(ctx, batchRows))
	}
	must(c.Flush(ctx, coll))
	must(c.WaitIndex(ctx, coll, "vec"))
	must(c.Load(ctx, coll))
	snap, err := eng.Snapshot(ctx)
	must(err)
	t.Cleanup(func() { snap.Close() })
	return snap
}

// same holds an answer to that of the exact engine.
func same(t *testing.T, snap index.Snapshot, req pushdown.Request, f *index.Filter, got pushdown.Result) {
	t.Helper()
	mask, err := snap.Match(f)
	if err != nil {
		t.Fatal(err)
	}
	want, err := snap.Best(context.Background(), index.BestRequest{
		ScanRequest: index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{req.Head}}}, Mask: mask}, Size: []int{req.Size},
	})
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]float32{}
	for i, row := range want[0].Rows {
		members[snap.ID(row)] = want[0].Scores[i]
	}
	if len(got.Hits) != len(members) {
		t.Fatalf("%d members, %d by the exact engine", len(got.Hits), len(members))
	}
	for i, h := range got.Hits {
		s, in := members[h.ID]
		if !in {
			t.Fatalf("member %d of %d, %q with %v, is not the exact engine's", i, len(got.Hits), h.ID, h.Score)
		}
		if d := s - h.Score; d > 1e-4 || d < -1e-4 {
			t.Fatalf("%q scores %v, and %v by the exact engine", h.ID, h.Score, s)
		}
		if i > 0 && (h.Score > got.Hits[i-1].Score || h.Score == got.Hits[i-1].Score && h.ID < got.Hits[i-1].ID) {
			t.Fatalf("member %d is out of order", i)
		}
	}
	if got.Matched != int64(mask.GetCardinality()) || !got.Exact || got.Changed {
		t.Fatalf("%+v", got)
	}
}

func head(dim int, seed uint64, bias float32) index.Head {
	r := rand.New(rand.NewPCG(seed, 3))
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return index.Head{Vector: v, Bias: bias}
}

func source(c *client.Client, coll string, dim int) pushdown.Source {
	return pushdown.Source{Client: c, Collection: coll, Key: "id", Vector: "vec", Hash: "hash", Dim: dim, Exact: true}
}

func TestSameAudienceAsExact(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	c, err := client.Dial(context.Background(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n, dim = 3000, 12
	snap := people(t, c, "people", n, dim)
	src := source(c, "people", dim)
	src.Limit, src.Sample = 64, 200 // as 16,384 is to a population
	splits, rescored := 0, 0
	for i, size := range []int{1, 2, 63, 64, 65, 500, 1499, 2998, 2999, 3000, 9000} {
		for _, adult := range []bool{false, true} {
			req := pushdown.Request{Head: head(dim, uint64(i), float32(i)-3), Size: size}
			var f *index.Filter
			if adult {
				req.Filter = "age >= 18"
				f = &index.Filter{Field: "age", Gte: 18.0}
			}
			got, err := pushdown.Best(context.Background(), src, req)
			if err != nil {
				t.Fatal(err)
			}
			same(t, snap, req, f, got)
			splits += got.Splits
			rescored += got.Rescored
		}
	}
	// Who may be on the list is said by id.
	for i, every := range []int{2, 7, 900} {
		keep := func(id string) bool {
			var n int
			fmt.Sscanf(id, "customer %d", &n)
			return n%every == 1
		}
		for _, size := range []int{1, 3, n / every / 2, n} {
			for _, eligible := range []int64{0, int64(n / every), n} { // a poor guess costs time alone
				req := pushdown.Request{Head: head(dim, uint64(100+i), 0), Size: size, Keep: keep, Eligible: eligible}
				got, err := pushdown.Best(context.Background(), src, req)
				if err != nil {
					t.Fatal(err)
				}
				mask := snap.Live().Clone()
				for it := snap.Live().Iterator(); it.HasNext(); {
					if row := it.Next(); !keep(snap.ID(row)) {
						mask.Remove(row)
					}
				}
				want, err := snap.Best(context.Background(), index.BestRequest{
					ScanRequest: index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{req.Head}}}, Mask: mask}, Size: []int{req.Size},
				})
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Hits) != len(want[0].Rows) {
					t.Fatalf("%d of every %dth: %d members, %d by the exact engine", size, every, len(got.Hits), len(want[0].Rows))
				}
				in := map[string]bool{}
				for _, row := range want[0].Rows {
					in[snap.ID(row)] = true
				}
				for _, h := range got.Hits {
					if !in[h.ID] {
						t.Fatalf("%d of every %dth: %q is not the exact engine's", size, every, h.ID)
					}
				}
			}
		}
	}
	// The head of a cluster's centre has hundreds of exactly equal scores at the top.
	tie := pushdown.Request{Head: index.Head{Vector: centre(snap, dim)}, Size: 2}
	got, err := pushdown.Best(context.Background(), src, tie)
	if err != nil {
		t.Fatal(err)
	}
	same(t, snap, tie, nil, got)
	if rescored == 0 && got.Rescored == 0 {
		t.Error("no border was ever looked at")
	}
	t.Logf("%d splits, %d rows rescored", splits, rescored)
}

// centre is the vector that many share.
func centre(snap index.Snapshot, dim int) []float32 {
	row, _ := snap.Find("customer 000007 \"'\\")
	v := make([]float32, dim)
	if err := snap.Vectors([]uint32{row}, v); err != nil {
		panic(err)
	}
	return v
}

func TestNoBucketIsCutOff(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	c, err := client.Dial(context.Background(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n, dim = 2000, 8
	snap := people(t, c, "people", n, dim)
	src := source(c, "people", dim)
	src.Limit = 10
	src.Sample = 4 // a poor guess: thresholds must be corrected and buckets split
	req := pushdown.Request{Head: head(dim, 5, 0), Size: 700}
	got, err := pushdown.Best(context.Background(), src, req)
	if err != nil {
		t.Fatal(err)
	}
	same(t, snap, req, nil, got)
	if got.Splits == 0 {
		t.Errorf("no bucket was split: %+v", got.Searches)
	}
	// All rows in one bucket: an error, not a shorter list.
	bad := src
	bad.Hash = "age"
	bad.Limit = 5
	if _, err := pushdown.Best(context.Background(), bad, req); !errors.Is(err, index.ErrInvalid) {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	for name, req := range map[string]pushdown.Request{
		"no size": {Head: index.Head{Vector: []float32{1}}},
		"tables":  {Head: index.Head{Vector: []float32{1}, Tables: [][]float32{{1}}}, Size: 1},
		"dim":     {Head: index.Head{Vector: []float32{1, 2}}, Size: 1},
	} {
		if _, err := pushdown.Best(context.Background(), pushdown.Source{Dim: 1, Key: "a", Vector: "b", Hash: "c"}, req); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHashIsEven(t *testing.T) {
	const n, b = 200_000, 64
	var got [b]int
	for i := range n {
		got[Bucket(fmt.Sprintf("c%d", i), b)]++
	}
	if lo, hi := slices.Min(got[:]), slices.Max(got[:]); lo < n/b*9/10 || hi > n/b*11/10 {
		t.Errorf("buckets of %d to %d rows, %d on average", lo, hi, n/b)
	}
}

func Bucket(id string, b int64) int64 { return pushdown.Hash(id) * b / pushdown.HashSpan }

// TestRealScan compares an audience of 60,000 of 200,000 in a real Milvus, and times it.
func TestRealScan(t *testing.T) {
	addr := milvustest.Address(t)
	n, size, dim := 40_000, 20_000, 64
	if s := os.Getenv("KINDRED_TEST_MILVUS_ROWS"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		n, size, dim = v, v*3/10, 384
	}
	c, err := client.Dial(context.Background(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	coll := fmt.Sprintf("kindredtest_scan_%d", time.Now().UnixNano())
	start := time.Now()
	snap := people(t, c, coll, n, dim)
	t.Logf("written, sealed and loaded in %v", time.Since(start).Round(time.Millisecond))
	for _, size := range []int{size, 16_384, 100, n} {
		req := pushdown.Request{Head: head(dim, uint64(size), 0.25), Size: size}
		start := time.Now()
		got, err := pushdown.Best(context.Background(), source(c, coll, dim), req)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		same(t, snap, req, nil, got)
		t.Logf("%d of %d: %v, %d searches, %d splits, %d rescored", size, n, took.Round(time.Millisecond), got.Searches, got.Splits, got.Rescored)
	}
}
