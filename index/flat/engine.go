package flat

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

type engine struct {
	store   *Store
	number  uint32
	name    string
	table   *rows.Table
	dropped atomic.Bool

	mu      sync.Mutex // order of batches: of the database and of versions
	version uint64     // of the last batch that entered

	turn    sync.Mutex // batches reach the table in order of version
	next    *sync.Cond
	applied uint64
	doubt   map[string]bool // rows of batches that failed on their way to disk
}

func newEngine(s *Store, c stored, version uint64) *engine {
	e := &engine{store: s, number: c.Number, name: c.Spec.Name, table: rows.New(c.Spec, s.opt.Rows), version: version, applied: version}
	e.next = sync.NewCond(&e.turn)
	return e
}

func (e *engine) begin(ctx context.Context) error {
	if err := e.store.begin(ctx); err != nil {
		return err
	}
	if e.dropped.Load() {
		e.store.ops.RUnlock()
		return e.gone()
	}
	return nil
}

func (e *engine) gone() error { return fmt.Errorf("collection %q: %w", e.name, index.ErrNotFound) }

func (e *engine) Spec() index.Spec {
	spec := e.table.Spec()
	spec.Columns = slices.Clone(spec.Columns)
	return spec
}

// write commits one batch with the next version, and applies it to the table
// once it is on disk. Batches wait for their sync together but are applied in
// the order in which they entered. ids are the rows it changes.
func (e *engine) write(ids []string, build func(b *pebble.Batch) error, apply func(version uint64) error) error {
	b := e.store.db.NewBatch()
	if err := build(b); err != nil {
		closeQuietly(b)
		return err
	}
	e.mu.Lock()
	if e.dropped.Load() {
		e.mu.Unlock()
		closeQuietly(b)
		return e.gone()
	}
	version := e.version + 1
	begun, err := false, setNumber(b, collKey(tagVersion, e.number, ""), version)
	if err == nil {
		begun, err = e.store.enter(b)
	}
	if err != nil {
		if begun {
			e.turn.Lock()
			e.distrust(ids)
			e.turn.Unlock()
		}
		e.mu.Unlock()
		return fmt.Errorf("collection %q: %w", e.name, err)
	}
	e.version = version
	e.mu.Unlock()

	err = e.store.synced(b)
	closeQuietly(b)
	e.turn.Lock()
	defer e.turn.Unlock()
	for e.applied != version-1 {
		e.next.Wait()
	}
	if err == nil {
		err = apply(version)
	} else {
		e.distrust(ids)
	}
	e.applied = version
	e.next.Broadcast()
	if err != nil {
		return fmt.Errorf("collection %q: %w", e.name, err)
	}
	return nil
}

// distrust remembers rows whose batch failed on its way to disk. It runs under
// e.turn.
func (e *engine) distrust(ids []string) {
	if e.doubt == nil {
		e.doubt = map[string]bool{}
	}
	for _, id := range ids {
		e.doubt[id] = true
	}
}

func (e *engine) Upsert(ctx context.Context, batch []index.Row) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.store.ops.RUnlock()
	spec := e.table.Spec()
	if err := spec.CheckRows(batch); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	prepared, ids := make([]rows.Prepared, len(batch)), make([]string, len(batch))
	for i := range batch {
		prepared[i], ids[i] = rows.Prepare(&spec, &batch[i]), batch[i].ID
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return e.write(ids, func(b *pebble.Batch) error {
		for i := range prepared {
			key := collKey(tagRow, e.number, batch[i].ID)
			if err := b.Set(key, encodeRow(key, &prepared[i]), nil); err != nil {
				return err
			}
			key = collKey(tagRecord, e.number, batch[i].ID)
			var err error
			if record := batch[i].Record; len(record) > 0 {
				err = b.Set(key, seal(key, append(make([]byte, 4, 4+len(record)), record...)), nil)
			} else {
				err = b.Delete(key, nil)
			}
			if err != nil {
				return err
			}
			if b.Len() > maxBatch {
				return fmt.Errorf("%w: the batch takes more than %d MB; split it", index.ErrInvalid, maxBatch>>20)
			}
		}
		return nil
	}, func(version uint64) error { return e.table.Apply(prepared, version) })
}

func (e *engine) Delete(ctx context.Context, ids []string) (int, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.store.ops.RUnlock()
	if len(ids) == 0 {
		return 0, nil
	}
	deleted := 0
	err := e.write(ids, func(b *pebble.Batch) error {
		for _, id := range ids {
			err := errors.Join(
				b.Delete(collKey(tagRow, e.number, id), nil),
				b.Delete(collKey(tagRecord, e.number, id), nil))
			if err != nil {
				return err
			}
		}
		return nil
	}, func(version uint64) error {
		deleted = e.table.Remove(ids, version)
		return nil
	})
	return deleted, err
}

// Get reads rows and records from one state of the database, one that is on
// disk and in the table. A batch that is being written is waited for: the
// database would show it before it is safe.
func (e *engine) Get(ctx context.Context, ids []string) ([]*index.Row, error) {
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	defer e.store.ops.RUnlock()
	e.mu.Lock()
	if e.dropped.Load() {
		e.mu.Unlock()
		return nil, e.gone()
	}
	snap, version := e.store.db.NewSnapshot(), e.version
	e.mu.Unlock()
	e.turn.Lock()
	for e.applied < version {
		e.next.Wait()
	}
	var errs []error
	for _, id := range ids {
		if e.doubt[id] {
			errs = append(errs, fmt.Errorf("collection %q: row %q: its last write failed and may or may not be on disk; start the process again", e.name, id))
		}
	}
	e.turn.Unlock()
	out := make([]*index.Row, len(ids))
	for i, id := range ids {
		row, err := e.get(snap, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("collection %q: row %q: %w", e.name, id, err))
		}
		out[i] = row
	}
	if err := errors.Join(append(errs, snap.Close())...); err != nil {
		return nil, err
	}
	return out, nil
}

func (e *engine) get(snap *pebble.Snapshot, id string) (*index.Row, error) {
	body, err := e.store.get(snap, collKey(tagRow, e.number, id))
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Columns are only ever added, and to the table after the database: a row
	// of a newer spec waits until the table has it.
	spec := e.table.Spec()
	p, err := decodeRow(&spec, id, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", index.ErrCorrupt, err)
	}
	row := &index.Row{ID: id}
	if !p.Vec.None() {
		row.Vector = make([]float32, spec.Dim)
		p.Vec.Decode(row.Vector)
	}
	for i, v := range p.Values {
		if v.Kind != "" {
			if row.Values == nil {
				row.Values = map[string]index.Value{}
			}
			row.Values[spec.Columns[i].Name] = v
		}
	}
	row.Record, err = e.store.get(snap, collKey(tagRecord, e.number, id))
	if errors.Is(err, index.ErrNotFound) {
		row.Record, err = nil, nil
	}
	return row, err
}

func (e *engine) Search(ctx context.Context, q index.Query) ([]index.Hit, error) {
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	defer e.store.ops.RUnlock()
	return e.table.Snapshot().Search(ctx, q)
}

func (e *engine) Snapshot(ctx context.Context) (index.Snapshot, error) {
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	defer e.store.ops.RUnlock()
	return e.table.Snapshot(), nil
}

// loadRows is how many rows are decoded and applied together.
const loadRows = 2048

// A page is some rows as read, in one allocation, and what they decode to.
type page struct {
	data []byte
	ends []int // of key and value, in turn
	rows []rows.Prepared
	err  error
	done chan struct{}
}

// load reads the collection from the database: one goroutine reads, all cores
// check and decode, and pages are applied in order.
func (e *engine) load(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := e.table.Spec()
	workers := runtime.GOMAXPROCS(0)
	todo, order := make(chan *page, workers), make(chan *page, 2*workers)
	var readErr error
	go func() {
		readErr = e.read(ctx, todo, order)
		close(todo)
		close(order)
	}()
	for range workers {
		go func() {
			for p := range todo {
				p.decode(&spec)
				close(p.done)
			}
		}()
	}
	var first error
	for p := range order {
		<-p.done
		if first == nil && p.err != nil {
			first = p.err
			cancel()
		}
		if first == nil {
			first = e.table.Apply(p.rows, e.version)
		}
	}
	if first != nil {
		return first
	}
	return readErr
}

func (e *engine) read(ctx context.Context, todo, order chan<- *page) (err error) {
	prefix := collKey(tagRow, e.number, "")
	it, err := e.store.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return e.store.wrap("read", err)
	}
	defer func() {
		if cerr := it.Close(); cerr != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = e.store.wrap("read", cerr)
		}
	}()
	p := &page{done: make(chan struct{})}
	send := func() {
		next := &page{done: make(chan struct{}), data: make([]byte, 0, len(p.data)+len(p.data)/16)}
		todo <- p // from here on it is the decoder's
		order <- p
		p = next
	}
	for it.First(); it.Valid(); it.Next() {
		p.data = append(p.data, it.Key()...)
		p.ends = append(p.ends, len(p.data))
		p.data = append(p.data, it.Value()...)
		p.ends = append(p.ends, len(p.data))
		if len(p.ends) == 2*loadRows {
			if err := ctx.Err(); err != nil {
				return err
			}
			send()
		}
	}
	if len(p.ends) > 0 {
		send()
	}
	return nil
}

func (p *page) decode(spec *index.Spec) {
	p.rows = make([]rows.Prepared, 0, len(p.ends)/2)
	at := 0
	for i := 0; i < len(p.ends); i += 2 {
		key, value := p.data[at:p.ends[i]], p.data[p.ends[i]:p.ends[i+1]]
		at = p.ends[i+1]
		id := string(key[5:])
		body, err := unseal(key, value)
		if err == nil {
			var row rows.Prepared
			if row, err = decodeRow(spec, id, body); err == nil {
				p.rows = append(p.rows, row)
				continue
			}
			err = fmt.Errorf("%w: %v", index.ErrCorrupt, err)
		}
		p.err = errors.Join(p.err, fmt.Errorf("row %q: %w: restore the data directory from a backup", id, err))
	}
	p.data = nil
}
