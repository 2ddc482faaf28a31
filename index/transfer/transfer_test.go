package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/transfer"
)

func fill(t *testing.T, s transfer.Store, p index.Precision, n, dim int) index.Engine {
	t.Helper()
	ctx := context.Background()
	e, err := s.Create(ctx, index.Spec{Name: "people", Dim: dim, Precision: p, Stamp: "model-1", Columns: []index.Column{{Name: "age", Kind: index.Number}, {Name: "tags", Kind: index.Set}}})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 9))
	batch := make([]index.Row, n)
	for i := range batch {
		v := make([]float32, dim)
		for d := range v {
			v[d] = float32(r.NormFloat64())
		}
		batch[i] = index.Row{ID: fmt.Sprintf("c%05d \"'", i), Vector: v, Record: fmt.Appendf(nil, "record %d", i), Values: map[string]index.Value{
			"age": {Kind: index.Number, Num: r.Float64() * 90}, "tags": {Kind: index.Set, Set: []string{"b", "a"}},
		}}
		if i%7 == 0 {
			batch[i].Vector, batch[i].Values = nil, nil
		}
	}
	if err := e.Upsert(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if err := s.KV().Put(ctx, map[string][]byte{"audience/a": []byte("list"), "config": {0, 1, 2}}); err != nil {
		t.Fatal(err)
	}
	return e
}

func openFlat(t *testing.T) transfer.Store {
	t.Helper()
	s, err := flat.Open(t.TempDir(), flat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openMilvus(t *testing.T, addr string) *milvus.Store {
	t.Helper()
	s, err := milvus.Open(context.Background(), milvus.Options{Client: client.Config{Address: addr}, Prefix: fmt.Sprintf("kindredtest_t%d", rand.Uint32())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

// there copies from flat to Milvus and back to another flat, and proves each.
func thereAndBack(t *testing.T, addr string, p index.Precision, n int) {
	ctx := context.Background()
	from, there, back := openFlat(t), transfer.Store(openMilvus(t, addr)), openFlat(t)
	fill(t, from, p, n, 32)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(transfer.Collection(ctx, from, there, "people", transfer.Options{Batch: 300}))
	a, err := transfer.Verify(ctx, from, there, "people")
	must(err)
	must(transfer.Finish(ctx, there, "people"))
	if k, err := transfer.Space(ctx, from, there); err != nil || k != 2 {
		t.Fatal(k, err)
	}
	must(transfer.Collection(ctx, there, back, "people", transfer.Options{Batch: 300}))
	b, err := transfer.Verify(ctx, from, back, "people")
	must(err)
	must(transfer.Finish(ctx, back, "people"))
	if k, err := transfer.Space(ctx, there, back); err != nil || k != 2 {
		t.Fatal(k, err)
	}
	if a != b || a.Rows != n {
		t.Fatalf("%+v there, %+v back", a, b)
	}
	if v, err := back.KV().Get("audience/a"); err != nil || string(v) != "list" {
		t.Fatal(v, err)
	}
}

func TestThereAndBack(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, p := range []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary} {
		t.Run(string(p), func(t *testing.T) { thereAndBack(t, s.Addr(), p, 1100) })
	}
}

func TestRealThereAndBack(t *testing.T) { thereAndBack(t, milvustest.Address(t), index.Int8, 5000) }

// broken fails its n-th upsert.
type broken struct {
	transfer.Store
	left int
}

type brokenEngine struct {
	index.Engine
	s *broken
}

func (b *broken) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	e, err := b.Store.Create(ctx, spec)
	return brokenEngine{e, b}, err
}

func (b *broken) Open(ctx context.Context, name string) (index.Engine, error) {
	e, err := b.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return brokenEngine{e, b}, nil
}

var errPulled = errors.New("the plug was pulled")

func (e brokenEngine) Upsert(ctx context.Context, rows []index.Row) error {
	if e.s.left--; e.s.left < 0 {
		return errPulled
	}
	return e.Engine.Upsert(ctx, rows)
}

func TestResumes(t *testing.T) {
	ctx := context.Background()
	from, to := openFlat(t), openFlat(t)
	fill(t, from, index.Int8, 1000, 8)
	b := &broken{to, 6}
	if err := transfer.Collection(ctx, from, b, "people", transfer.Options{Batch: 100}); !errors.Is(err, errPulled) {
		t.Fatal(err)
	}
	if _, err := transfer.Verify(ctx, from, to, "people"); !errors.Is(err, index.ErrCorrupt) {
		t.Fatal("half a copy is taken for a whole one", err)
	}
	b.left = 1 << 30
	var heard []int
	if err := transfer.Collection(ctx, from, b, "people", transfer.Options{Batch: 100, Progress: func(_ string, done, _ int) { heard = append(heard, done) }}); err != nil {
		t.Fatal(err)
	}
	if len(heard) != 4 || heard[0] != 700 || heard[3] != 1000 {
		t.Fatalf("it went on with %v", heard)
	}
	if r, err := transfer.Verify(ctx, from, to, "people"); err != nil || r.Rows != 1000 {
		t.Fatal(r, err)
	}
}

func TestRefusals(t *testing.T) {
	ctx := context.Background()
	from, to := memory.Open(), memory.Open()
	fill(t, from, index.Int8, 50, 4)
	e := fill(t, to, index.Int8, 50, 4)
	if err := transfer.Collection(ctx, from, to, "people", transfer.Options{}); !errors.Is(err, index.ErrExists) {
		t.Fatal(err)
	}
	if _, err := transfer.Verify(ctx, from, to, "people"); err != nil {
		t.Fatal(err)
	}
	// One record, one column or one vector that differs is found.
	for name, r := range map[string]index.Row{
		"record": {ID: "c00007 \"'", Record: []byte("other")},
		"vector": {ID: "c00007 \"'", Record: []byte("record 7"), Vector: []float32{1, 0, 0, 0}},
		"column": {ID: "c00007 \"'", Record: []byte("record 7"), Values: map[string]index.Value{"age": {Kind: index.Number, Num: 1}}},
	} {
		if err := e.Upsert(ctx, []index.Row{r}); err != nil {
			t.Fatal(err)
		}
		if _, err := transfer.Verify(ctx, from, to, "people"); !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := transfer.Collection(ctx, from, to, "nobody", transfer.Options{}); !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
}
