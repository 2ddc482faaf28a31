// Package memory is an engine that keeps everything in memory and nothing on
// disk: for tests, and for trying things out. It scans and searches with the
// same table as the durable engine (package rows), so it gives the same answers.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// Store is an index.Store without durability.
type Store struct {
	mu      sync.RWMutex
	opt     rows.Options
	engines map[string]*engine
	kv      *KV
	closed  bool
}

// Open returns an empty store.
func Open() *Store { return OpenWith(rows.Options{}) }

// OpenWith returns an empty store whose tables are made with opt.
func OpenWith(opt rows.Options) *Store {
	return &Store{opt: opt, engines: map[string]*engine{}, kv: NewKV()}
}

// KV returns the store's key-value space.
func (s *Store) KV() index.KV { return s.kv }

func (s *Store) check(ctx context.Context) error {
	if s.closed {
		return fmt.Errorf("memory store: %w", index.ErrClosed)
	}
	return ctx.Err()
}

// Create makes an empty collection.
func (s *Store) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if s.engines[spec.Name] != nil {
		return nil, fmt.Errorf("collection %q: %w", spec.Name, index.ErrExists)
	}
	spec.Columns = slices.Clone(spec.Columns)
	e := &engine{table: rows.New(spec, s.opt), records: map[string][]byte{}}
	s.engines[spec.Name] = e
	return e, nil
}

func (s *Store) find(ctx context.Context, name string) (*engine, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	e := s.engines[name]
	if e == nil {
		return nil, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
	}
	return e, nil
}

// Open returns an existing collection.
func (s *Store) Open(ctx context.Context, name string) (index.Engine, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Alter adds columns.
func (s *Store) Alter(ctx context.Context, name string, add []index.Column) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	if err := e.table.Spec().ValidateAlter(add); err != nil {
		return fmt.Errorf("collection %q: %w", name, err)
	}
	e.table.Alter(add, 0)
	return nil
}

// Drop deletes a collection.
func (s *Store) Drop(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	e.end(fmt.Errorf("collection %q: %w", name, index.ErrNotFound))
	e.table.Release()
	delete(s.engines, name)
	return nil
}

// List returns the specs in order of name.
func (s *Store) List(ctx context.Context) ([]index.Spec, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	var out []index.Spec
	for _, name := range slices.Sorted(maps.Keys(s.engines)) {
		out = append(out, s.engines[name].Spec())
	}
	return out, nil
}

// Close forgets everything.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, e := range s.engines {
		e.end(fmt.Errorf("memory store: %w", index.ErrClosed))
		e.table.Close()
	}
	return nil
}

type engine struct {
	mu      sync.RWMutex
	table   *rows.Table
	records map[string][]byte
	ended   error
}

func (e *engine) end(err error) {
	e.mu.Lock()
	e.ended = err
	e.mu.Unlock()
}

func (e *engine) check(ctx context.Context) error {
	if e.ended != nil {
		return e.ended
	}
	return ctx.Err()
}

func (e *engine) Spec() index.Spec {
	spec := e.table.Spec()
	spec.Columns = slices.Clone(spec.Columns)
	return spec
}

func (e *engine) Upsert(ctx context.Context, batch []index.Row) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return err
	}
	spec := e.table.Spec()
	if err := spec.CheckRows(batch); err != nil {
		return err
	}
	prepared := make([]rows.Prepared, len(batch))
	for i := range batch {
		prepared[i] = rows.Prepare(&spec, &batch[i])
	}
	if err := e.table.Apply(prepared, 0); err != nil {
		return err
	}
	for i := range batch {
		delete(e.records, batch[i].ID)
		if len(batch[i].Record) > 0 {
			e.records[batch[i].ID] = bytes.Clone(batch[i].Record)
		}
	}
	return nil
}

func (e *engine) Delete(ctx context.Context, ids []string) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	for _, id := range ids {
		delete(e.records, id)
	}
	return e.table.Remove(ids, 0), nil
}

func (e *engine) Get(ctx context.Context, ids []string) ([]*index.Row, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	v := e.table.Snapshot()
	out := make([]*index.Row, len(ids))
	for i, id := range ids {
		if row, ok := v.Find(id); ok {
			out[i] = v.Row(row)
			out[i].Record = bytes.Clone(e.records[id])
		}
	}
	return out, nil
}

func (e *engine) view(ctx context.Context) (*rows.View, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	return e.table.Snapshot(), nil
}

func (e *engine) Search(ctx context.Context, q index.Query) ([]index.Hit, error) {
	v, err := e.view(ctx)
	if err != nil {
		return nil, err
	}
	return v.Search(ctx, q)
}

func (e *engine) Snapshot(ctx context.Context) (index.Snapshot, error) {
	v, err := e.view(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}
