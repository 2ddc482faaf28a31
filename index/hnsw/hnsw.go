// Package hnsw answers point look-ups from a graph instead of a scan: search
// and similar of the best few of many rows. It is a companion of a durable
// engine, not an engine of its own. The other store keeps the rows and stays
// the system of record: get, snapshot, scan, filter and the key-value space are
// its own, so audiences are scored exactly whatever a collection's engine is.
//
// # How a search is answered
//
// The graph (Malkov and Yashunin's hierarchical navigable small world) has the
// rows of one generation of the table as nodes. A goroutine of the collection
// inserts rows as they arrive, on all cores; rows that it has not reached are
// scored one by one, so that a search sees every row that was acknowledged. A
// walk compares int8 codes with an int8 query; what it finds is scored again
// from the vectors as stored, with the same bits as the exact search gives.
// Where the walk cannot be trusted or does not pay, the exact search answers:
// few rows, a narrow filter, a deep page, a graph that is not ready, a walk
// that does not get anywhere under its filter. Query.Exact asks for that.
//
// # Deletes and changes
//
// A row that died is walked through and not reported. When the table renumbers
// its rows, the graph is transplanted: links to dead rows are replaced by the
// best of the rows that they led to. Rows of equal codes share one node.
//
// # On disk
//
// One file a collection, replaced as a whole now and then and at Close. It
// names rows by a hash of id and vector; a row whose hash is not in it is
// inserted anew. So a file that is old, damaged or of another collection costs
// time and never gives a wrong answer, and rows are safe without it.
//
// Main types: [Store], made by [Wrap], and [Stats].
package hnsw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// Base is the store that keeps the rows. Its snapshots are views of package
// rows.
type Base interface {
	index.Store
	KV() index.KV
}

// Options adjusts a Store. The zero value works.
type Options struct {
	// Dir is where graphs are kept; "" keeps them in memory only, and a graph is
	// built anew after each start.
	Dir string
	// Default is the engine of collections whose spec names none; "" is flat.
	Default index.EngineKind
	// M is how many links a new node chooses; 0 means 16. Level 0 keeps twice as
	// many. More find more, take longer and 8 bytes a row each.
	M int
	// Build is how many candidates are kept while a node is inserted; 0 means 200.
	Build int
	// Effort is a Query's Effort where it says 0; 0 means 96.
	Effort int
	// AutoRows is from how many rows on a collection of EngineAuto has a graph;
	// 0 means 100,000: below, a scan takes a few milliseconds.
	AutoRows int
	// MinRows is the same for EngineHNSW; 0 means 2,000.
	MinRows int
	// Workers is how many goroutines insert rows; 0 means all cores.
	Workers int
	// SaveEvery is the least time between two saves of a graph; 0 means a minute.
	SaveEvery time.Duration
	// Logf, where given, is told of graphs that could not be read or kept.
	Logf func(format string, args ...any)

	always bool // tests: walk even where a scan is cheaper
}

func (o Options) filled() Options {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&o.M, 16)
	set(&o.Build, 200)
	set(&o.Effort, 96)
	set(&o.AutoRows, 100_000)
	set(&o.MinRows, 2_000)
	set(&o.Workers, runtime.GOMAXPROCS(0))
	o.M = min(max(o.M, 2), 512)
	if o.SaveEvery <= 0 {
		o.SaveEvery = time.Minute
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// Store is an index.Store whose collections of EngineHNSW and EngineAuto have a
// graph. It owns the store that it was made of. Safe for concurrent use.
type Store struct {
	base Base
	opt  Options

	mu      sync.Mutex
	engines map[string]*Engine
	closed  bool
}

var (
	_ index.Store   = (*Store)(nil)
	_ index.Pointer = (*Store)(nil)
)

// Point implements index.Pointer, where the store below does.
func (s *Store) Point(ctx context.Context, name, held string) error {
	if p, ok := s.base.(index.Pointer); ok {
		return p.Point(ctx, name, held)
	}
	return nil
}

// suffix ends the name of a graph's file.
const suffix = ".graph"

// Wrap returns a store that answers searches of base's collections by graph
// where their spec says so. Close closes base too.
func Wrap(base Base, opt Options) (*Store, error) {
	s := &Store{base: base, opt: opt.filled(), engines: map[string]*Engine{}}
	if s.opt.Dir != "" {
		if err := os.MkdirAll(s.opt.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("folder of graphs: %w", err)
		}
		// What a killed process was writing. The data directory is ours alone.
		old, err := filepath.Glob(filepath.Join(s.opt.Dir, "*"+suffix+".*.tmp"))
		for _, path := range old {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			return nil, fmt.Errorf("folder of graphs: %w", err)
		}
	}
	return s, nil
}

// KV is the base store's.
func (s *Store) KV() index.KV { return s.base.KV() }

// Create makes an empty collection.
func (s *Store) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.base.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return s.engine(spec.Name, e), nil
}

// Open returns an existing collection. Its graph is read or built meanwhile.
func (s *Store) Open(ctx context.Context, name string) (index.Engine, error) {
	// Without the lock first: to read a collection may take long.
	if _, err := s.base.Open(ctx, name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.base.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.engine(name, e), nil
}

// least is from how many rows on a collection has a graph, 0 for never.
func (s *Store) least(spec *index.Spec) int {
	kind := spec.Engine
	if kind == "" {
		kind = s.opt.Default
	}
	switch {
	case spec.Dim == 0:
	case kind == index.EngineHNSW:
		return s.opt.MinRows
	case kind == index.EngineAuto:
		return s.opt.AutoRows
	}
	return 0
}

// RowBytes is about how many bytes of memory a row takes, in its table and in
// the graph that its collection has or may come to have.
func (s *Store) RowBytes(spec index.Spec) int64 {
	n := rows.RowBytes(spec)
	if s.least(&spec) == 0 {
		return n
	}
	// Links of both graphs while one is transplanted, scale, twin, upper levels.
	n += int64(2*(4*2*s.opt.M) + 64)
	if spec.Precision != "" && spec.Precision != index.Int8 {
		n += int64(spec.Dim) // the walk's own codes
	}
	return n
}

// engine runs under s.mu.
func (s *Store) engine(name string, base index.Engine) index.Engine {
	spec := base.Spec()
	least := s.least(&spec)
	if least == 0 || s.closed {
		return base
	}
	if e := s.engines[name]; e != nil && e.Engine == base {
		return e
	}
	path := ""
	if s.opt.Dir != "" {
		path = filepath.Join(s.opt.Dir, name+suffix)
	}
	e := newEngine(base, &s.opt, least, path)
	s.engines[name] = e
	return e
}

// Alter adds columns.
func (s *Store) Alter(ctx context.Context, name string, add []index.Column) error {
	return s.base.Alter(ctx, name, add)
}

// Drop deletes a collection and its graph.
func (s *Store) Drop(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.base.Drop(ctx, name); err != nil {
		return err
	}
	if e := s.engines[name]; e != nil {
		e.stop()
		delete(s.engines, name)
	}
	if s.opt.Dir == "" {
		return nil
	}
	// A file that stays matches no row of a later collection of the name.
	if err := os.Remove(filepath.Join(s.opt.Dir, name+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.opt.Logf("collection %q: its graph stays: %v", name, err)
	}
	return nil
}

// List returns the specs in order of name.
func (s *Store) List(ctx context.Context) ([]index.Spec, error) { return s.base.List(ctx) }

// Close keeps the graphs and closes the base store. Safe to call twice.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		for _, e := range s.engines {
			e.stop()
			e.keep()
		}
	}
	return s.base.Close()
}
