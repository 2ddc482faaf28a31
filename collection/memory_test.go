package collection

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/hnsw"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/profile"
)

// TestMemoryIsBounded: customers are taken up to the bound, the batch above it
// is refused whole, rows written over do not count twice for ever, and a
// collection that does not fit is not opened.
func TestMemoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	open := func(most int64) (*Service, *flat.Store) {
		store, err := flat.Open(dir, flat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(t.Context(), Options{Store: store, KV: store.KV(), MaxMemory: most})
		if err != nil {
			t.Fatal(err)
		}
		return s, store
	}
	end := func(s *Service, store *flat.Store) {
		if err := errors.Join(s.Close(t.Context()), store.Close()); err != nil {
			t.Fatal(err)
		}
	}
	schema := profile.Schema{Fields: []profile.Field{{Name: "age", Type: profile.TypeNumber}}}
	batch := func(from, n int) (in []Input) {
		for i := range n {
			in = append(in, Input{Line: i + 1, Record: profile.Record{ID: fmt.Sprint("c", from+i), Fields: map[string]index.Value{"age": {Kind: index.Number, Num: 7}}}})
		}
		return in
	}
	each := rows.RowBytes(index.Spec{Columns: schema.Columns()})
	s, store := open(6000 * each)
	if _, _, err := s.Put(t.Context(), Config{Name: "c", Schema: schema}); err != nil {
		t.Fatal(err)
	}
	for range 10 { // ten times the same: 2,000 live rows
		if _, err := s.Upsert(t.Context(), "c", batch(0, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Upsert(t.Context(), "c", batch(2000, 5000))
	if !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "--memory") {
		t.Fatalf("5,000 more: %v", err)
	}
	cfg, err := s.Collection(t.Context(), "c")
	if err != nil || cfg.Customers != 2000 {
		t.Fatalf("%d customers after a refusal, %v", cfg.Customers, err)
	}
	end(s, store)

	s, store = open(1000 * each)
	if _, err := s.Collection(t.Context(), "c"); !errors.Is(err, ErrMemory) {
		t.Errorf("opening 2,000 customers where 1,000 fit: %v", err)
	}
	end(s, store)

	s, store = open(0)
	defer end(s, store)
	if _, err := s.Upsert(t.Context(), "c", batch(2000, 5000)); err != nil {
		t.Errorf("without a bound: %v", err)
	}
	if err := s.Drop(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.KV().Get(rowsPrefix + "c"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("a dropped collection's count: %v", err)
	}
}

// TestGraphsCountAsMemory: what fits as rows alone is refused where the store
// keeps a graph beside them, whether the store's default or the spec asks for it.
func TestGraphsCountAsMemory(t *testing.T) {
	spec := index.Spec{Name: "c", Dim: 16}
	for _, c := range []struct {
		kind index.EngineKind
		fits bool
	}{{index.EngineFlat, true}, {index.EngineHNSW, false}, {index.EngineAuto, false}} {
		base, err := flat.Open(t.TempDir(), flat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store, err := hnsw.Wrap(base, hnsw.Options{Default: c.kind})
		if err != nil {
			t.Fatal(err)
		}
		eng, err := newBounded(store, store.KV(), 2000*rows.RowBytes(spec)).Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		var batch []index.Row
		for i := range 1200 {
			batch = append(batch, index.Row{ID: fmt.Sprint(i), Vector: slices.Repeat([]float32{0.25}, 16)})
		}
		if err := eng.Upsert(t.Context(), batch); (err == nil) != c.fits || err != nil && !errors.Is(err, ErrMemory) {
			t.Errorf("engine %s: %v, fits: %v", c.kind, err, c.fits)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
