package milvus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
)

// engine is one open collection.
type engine struct {
	s    *Store
	coll string
	m    *mirror.Mirror
	stop context.CancelFunc
	done sync.WaitGroup

	// write orders writes, and holds readers of records off while rows go to Milvus and
	// into the mirror: what Get gives is of one state.
	write sync.RWMutex
	mu    sync.RWMutex
	spec  index.Spec
	index VectorIndex // in Milvus, as last seen
	ended error
}

var _ index.Engine = (*engine)(nil)

// engine reads a collection into memory.
func (s *Store) engine(ctx context.Context, spec index.Spec) (*engine, error) {
	e := s.copies.half(&spec)
	resumed := e != nil
	if !resumed {
		e = &engine{s: s, coll: collectionName(s.opt.Prefix, spec.Name), spec: spec}
		if err := e.mirrored(); err != nil {
			return nil, err
		}
		s.copies.add(e)
	}
	var progress func(done, total int64)
	if s.opt.Progress != nil {
		progress = func(done, total int64) { s.opt.Progress(spec.Name, done, total) }
	}
	if err := e.lookAtIndex(ctx, s.opt.Index); err != nil {
		return nil, err
	}
	if err := e.m.Hydrate(ctx, progress); err != nil {
		return nil, err
	}
	if resumed { // others may have written meanwhile what was read before
		if _, err := e.m.Reconcile(ctx); err != nil {
			return nil, err
		}
	}
	run, stop := context.WithCancel(context.Background())
	e.stop = stop
	if s.opt.Sweep > 0 {
		e.done.Go(func() { e.m.Run(run, s.opt.Sweep) })
		e.done.Go(func() { e.follow(run, s.opt.Sweep) })
	}
	return e, nil
}

// mirrored gives an engine its copy, empty.
func (e *engine) mirrored() (err error) {
	s, spec := e.s, e.spec
	e.m, err = mirror.New(mirror.Source{
		Client: s.c, Collection: e.coll, Key: fieldID, Version: fieldVersion, Hash: fieldHash,
		Fields: []string{fieldCols, fieldVector}, Spec: spec,
		Decode: func(page *client.Batch, i int) (index.Row, error) {
			now := e.Spec()
			return decode(&now, page, i)
		},
		Rows:    s.opt.Rows,
		Overlap: 10_000_000, // microseconds: other processes' clocks and commits
		Now:     func() int64 { return time.Now().UnixMicro() },
	})
	return err
}

// follow looks for what other processes did to the collection as a whole: columns that
// they added are added here, and one that they dropped is closed.
func (e *engine) follow(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = e.lookAtIndex(ctx, e.vectorIndex()) // while Milvus is away it is as it was
		have := e.Spec()
		now, err := e.s.spec(have.Name) // without the lock: Milvus may be away
		if ctx.Err() != nil || !e.s.mu.TryLock() {
			continue // it is being changed from here; who holds the lock may wait for us
		}
		gone := len(e.Spec().Columns) == len(have.Columns) && e.followTo(&have, &now, err)
		e.s.mu.Unlock()
		if gone {
			return
		}
	}
}

// followTo runs under the store's lock. gone: the engine is closed. While Milvus is
// away nothing is known, and nothing is done.
func (e *engine) followTo(have, now *index.Spec, err error) (gone bool) {
	switch {
	case errors.Is(err, index.ErrNotFound):
	case err != nil:
		return false
	case now.Dim != have.Dim || now.Precision != have.Precision || now.Stamp != have.Stamp || len(now.Columns) < len(have.Columns):
	case len(now.Columns) == len(have.Columns):
		return false
	default:
		err = e.alter(*now, now.Columns[len(have.Columns):])
		if err == nil {
			return false
		}
	}
	e.mu.Lock()
	e.ended = fmt.Errorf("collection %q was dropped by another process: %w", have.Name, index.ErrNotFound)
	e.mu.Unlock()
	if e.s.engines[have.Name] == e {
		delete(e.s.engines, have.Name)
	}
	e.s.copies.forget(have.Name, e)
	e.stop()
	e.m.Close()
	return true
}

func (e *engine) end(err error) {
	e.mu.Lock()
	e.ended = err
	e.mu.Unlock()
	e.stop()
	e.done.Wait()
	e.m.Close()
}

func (e *engine) check(ctx context.Context) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.ended != nil {
		return e.ended
	}
	return ctx.Err()
}

func (e *engine) alter(spec index.Spec, add []index.Column) error {
	e.write.Lock()
	defer e.write.Unlock()
	if err := e.m.Alter(add); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.spec = spec
	return nil
}

// Spec describes the collection.
func (e *engine) Spec() index.Spec {
	e.mu.RLock()
	defer e.mu.RUnlock()
	spec := e.spec
	spec.Columns = slices.Clone(spec.Columns)
	return spec
}

// partOfMessage is how much of a message's limit a part of a batch fills.
const partOfMessage = 16 << 20

// Upsert writes rows to Milvus and, when it has them, into the mirror.
func (e *engine) Upsert(ctx context.Context, batch []index.Row) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	spec := e.Spec()
	if err := spec.CheckRows(batch); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	e.write.Lock()
	defer e.write.Unlock()
	if err := e.check(ctx); err != nil {
		return err
	}
	seen := e.m.High()
	enc, err := encode(&spec, batch, func() int64 { return e.s.tickAfter(seen) })
	if err != nil {
		return err
	}
	total := 0
	for i := range enc.cols {
		total += enc.cols[i].Bytes()
	}
	step := max(len(batch)*partOfMessage/max(total, 1), 1)
	for from := 0; from < len(batch); from += step {
		if _, err := e.s.c.Upsert(ctx, e.coll, part(enc.cols, from, min(from+step, len(batch)))); err != nil {
			if from > 0 { // Milvus has these, and so must the mirror
				if err := e.m.Apply(enc.mirror[:from]); err != nil {
					return err
				}
				return fmt.Errorf("the first %d of %d rows are written; the same call again completes it: %w", from, len(batch), err)
			}
			return err
		}
	}
	return e.m.Apply(enc.mirror)
}

// Delete removes ids and returns how many the mirror had.
func (e *engine) Delete(ctx context.Context, ids []string) (int, error) {
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	e.write.Lock()
	defer e.write.Unlock()
	n := e.m.Count(ids)
	for some := range slices.Chunk(ids, 5000) {
		if _, err := e.s.c.DeleteKeys(ctx, e.coll, fieldID, some); err != nil {
			return 0, err
		}
	}
	e.m.Remove(ids, e.s.tick())
	return n, nil
}

// Get reads rows: vectors and columns as scans see them, the record from Milvus.
func (e *engine) Get(ctx context.Context, ids []string) ([]*index.Row, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	e.write.RLock()
	defer e.write.RUnlock()
	view := e.m.Snapshot()
	out := make([]*index.Row, len(ids))
	at := map[string][]int{}
	var ask []string
	for i, id := range ids {
		row, ok := view.Find(id)
		if !ok {
			continue
		}
		if at[id] == nil {
			ask = append(ask, id)
		}
		at[id] = append(at[id], i)
		out[i] = view.Row(row)
		delete(out[i].Values, mirror.VersionColumn)
	}
	for some := range slices.Chunk(ask, 1000) {
		records, err := e.records(ctx, some, client.Session)
		if err != nil {
			return nil, err
		}
		missing := slices.DeleteFunc(slices.Clone(some), func(id string) bool { _, there := records[id]; return there })
		if len(missing) > 0 { // the copy has seen what a session has not, or not yet what another process deleted
			late, err := e.records(ctx, missing, client.Strong)
			if err != nil {
				return nil, err
			}
			maps.Copy(records, late)
		}
		for _, id := range some {
			raw, there := records[id]
			for _, i := range at[id] {
				switch {
				case !there:
					out[i] = nil
				case len(raw) > 0:
					out[i].Record = slices.Clone(raw)
				}
			}
		}
	}
	return out, nil
}

// records reads the records of those of the ids that Milvus has.
func (e *engine) records(ctx context.Context, ids []string, level client.Consistency) (map[string][]byte, error) {
	expr, err := client.InStrings(fieldID, ids)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", index.ErrInvalid, err)
	}
	b, err := e.s.c.Query(ctx, client.QueryRequest{Collection: e.coll, Expr: expr, Fields: []string{fieldID, fieldRecord}, Consistency: level})
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, b.Rows)
	if b.Rows == 0 {
		return out, nil
	}
	for j, id := range b.Column(fieldID).Strings {
		if out[id], err = base64.StdEncoding.DecodeString(b.Column(fieldRecord).Strings[j]); err != nil {
			return nil, fmt.Errorf("%w: the record of %q: %w", index.ErrCorrupt, id, err)
		}
	}
	return out, nil
}

// Snapshot is the mirror as it is now: a view of package rows, which packages that build
// on it (hnsw) count on.
func (e *engine) Snapshot(ctx context.Context) (index.Snapshot, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	return e.m.Snapshot(), nil
}

// Scanning is how a scan inside or outside Milvus came about.
type Scanning struct {
	Path  string // mirror.Path or pushdown.Path
	Exact bool
	pushdown.Result
}

// PushDown finds the best n of everyone inside Milvus, without the mirror. filter is an
// expression of Milvus. ErrNotFound where the collection is not open.
func (s *Store) PushDown(ctx context.Context, name string, req pushdown.Request) (Scanning, error) {
	s.mu.Lock()
	e := s.engines[name]
	s.mu.Unlock()
	if e == nil {
		return Scanning{}, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
	}
	if dim := vectorDim(e.Spec().Dim); len(req.Head.Vector) > 0 && len(req.Head.Vector) < dim { // Milvus has no fewer
		req.Head.Vector = append(slices.Clone(req.Head.Vector), make([]float32, dim-len(req.Head.Vector))...)
	}
	ix := e.vectorIndex()
	if t := typeOf(ix.Type); t != nil && t.points {
		return Scanning{}, fmt.Errorf("%w: an index of type %s knows no ranges, which push-down asks for: use the mirror (--milvus-scan mirror), or another index", index.ErrInvalid, ix.Type)
	}
	res, err := pushdown.Best(ctx, pushdown.Source{
		Client: s.c, Collection: e.coll, Key: fieldID, Vector: fieldVector, Hash: fieldHash,
		Dim: vectorDim(e.Spec().Dim), Exact: ix.Exact(), Params: ix.params(client.MaxResults, 0),
	}, req)
	return Scanning{Path: pushdown.Path, Exact: res.Exact, Result: res}, err
}

// Filter is Expr on the columns of an open collection.
func (s *Store) Filter(name string, f *index.Filter) (string, error) {
	s.mu.Lock()
	e := s.engines[name]
	s.mu.Unlock()
	if e == nil {
		return "", fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
	}
	return Expr(f, e.Spec().Columns)
}

// Mirror says how the copy of a collection in memory stands.
func (s *Store) Mirror(name string) (mirror.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.engines[name]; e != nil {
		return e.m.State(), nil
	}
	return mirror.State{}, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
}
