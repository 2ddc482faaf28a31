package collection

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// ErrMemory means that a collection does not fit into the memory that this
// process may use for customers.
var ErrMemory = errors.New("not enough memory")

const rowsPrefix = "rows/"

// bounded is a Store whose open collections together stay below a bound. It
// keeps beside each collection how many rows it has, so that one that will not
// fit is refused before it is read. limit 0 refuses nothing.
type bounded struct {
	index.Store
	kv    index.KV
	limit int64 // bytes

	mu   sync.Mutex
	held map[string]*held
}

// held is an open collection.
type held struct {
	rows     int64 // live, at most: one replaced counts twice until all are counted anew
	recorded int64 // as the key-value space has it
	each     int64 // bytes of a row
}

func newBounded(store index.Store, kv index.KV, limit int64) *bounded {
	return &bounded{Store: store, kv: kv, limit: limit, held: map[string]*held{}}
}

// sized is a Store that holds more beside a row than its table does.
type sized interface {
	// RowBytes is about what a row takes in memory.
	RowBytes(spec index.Spec) int64
}

func (b *bounded) rowBytes(spec index.Spec) int64 {
	if s, ok := b.Store.(sized); ok {
		return s.RowBytes(spec)
	}
	return rows.RowBytes(spec)
}

// bytes is what so many live rows take at most. Up to a third as many dead ones
// lie beside them before a table copies the live ones together.
func (h *held) bytes() int64 { return (h.rows + h.rows/3) * h.each }

// room says what stands against h under the name beside the other open
// collections. The caller holds mu.
func (b *bounded) room(name string, h held) error {
	if b.limit <= 0 {
		return nil
	}
	var others int64
	for other, o := range b.held {
		if other != name {
			others += o.bytes()
		}
	}
	if others+h.bytes() <= b.limit {
		return nil
	}
	return fmt.Errorf("collection %q: %w: %d customers take up to %d MB, the other open collections %d MB, and customers may take %d MB (half of --memory): start with a larger --memory, or drop what is not needed",
		name, ErrMemory, h.rows, megabytes(h.bytes()), megabytes(others), megabytes(b.limit))
}

func megabytes(n int64) int64 { return (n + 999_999) / 1_000_000 }

// Create implements index.Store.
func (b *bounded) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	eng, err := b.Store.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[spec.Name] = &held{each: b.rowBytes(eng.Spec())}
	return boundedEngine{eng, b, spec.Name}, nil
}

// Open implements index.Store. Room is taken by the number of rows that was
// recorded before they are read, and by what they are afterwards.
func (b *bounded) Open(ctx context.Context, name string) (index.Engine, error) {
	if known, err := b.reserve(ctx, name); err != nil {
		return nil, err
	} else if known {
		eng, err := b.Store.Open(ctx, name)
		return boundedEngine{eng, b, name}, err
	}
	eng, err := b.Store.Open(ctx, name)
	var n int64
	if err == nil {
		n, err = count(ctx, eng)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[name]
	if h == nil { // dropped meanwhile
		return boundedEngine{eng, b, name}, err
	}
	if err == nil {
		h.each = b.rowBytes(eng.Spec())
		if h.rows = n; h.recorded == 0 { // it was made without a record: too late to spare the memory
			err = b.room(name, *h)
		}
	}
	if err != nil {
		delete(b.held, name)
		return nil, err
	}
	return boundedEngine{eng, b, name}, nil
}

// reserve takes room for a collection that is about to be opened; known says
// that it is open, or being opened, already.
func (b *bounded) reserve(ctx context.Context, name string) (known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[name] != nil {
		return true, nil
	}
	h := held{}
	if h.recorded, err = b.recorded(name); err != nil {
		return false, err
	}
	if h.rows = h.recorded; b.limit > 0 && h.rows > 0 {
		specs, err := b.List(ctx)
		if err != nil {
			return false, err
		}
		for _, spec := range specs {
			if spec.Name == name {
				h.each = b.rowBytes(spec)
			}
		}
		if err := b.room(name, h); err != nil {
			return false, err
		}
	}
	b.held[name] = &h
	return false, nil
}

// Point implements index.Pointer.
func (b *bounded) Point(ctx context.Context, name, held string) error {
	if p, ok := b.Store.(index.Pointer); ok {
		return p.Point(ctx, name, held)
	}
	return nil
}

// Alter implements index.Store.
func (b *bounded) Alter(ctx context.Context, name string, add []index.Column) error {
	err := b.Store.Alter(ctx, name, add)
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.held[name]; h != nil && err == nil {
		h.each += rows.RowBytes(index.Spec{Columns: add}) - rows.RowBytes(index.Spec{})
	}
	return err
}

// Drop implements index.Store.
func (b *bounded) Drop(ctx context.Context, name string) error {
	if err := b.Store.Drop(ctx, name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.held, name)
	b.mu.Unlock()
	return b.kv.Delete(ctx, rowsPrefix+name)
}

func (b *bounded) recorded(name string) (int64, error) {
	raw, err := b.kv.Get(rowsPrefix + name)
	if errors.Is(err, index.ErrNotFound) {
		return 0, nil
	}
	n, _ := binary.Uvarint(raw)
	return int64(n), err
}

// count is how many live rows a collection has.
func count(ctx context.Context, eng index.Engine) (int64, error) {
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	return int64(snap.Live().GetCardinality()), snap.Close()
}

// boundedEngine is an engine that does not grow over the bound.
type boundedEngine struct {
	index.Engine
	b    *bounded
	name string
}

// Upsert implements index.Engine.
func (e boundedEngine) Upsert(ctx context.Context, rows []index.Row) error {
	if err := e.grow(ctx, int64(len(rows))); err != nil {
		return err
	}
	if err := e.Engine.Upsert(ctx, rows); err != nil {
		return err
	}
	return e.record(ctx)
}

// grow takes room for more rows.
func (e boundedEngine) grow(ctx context.Context, more int64) error {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	h := e.b.held[e.name]
	if h == nil { // dropped meanwhile: the engine will say so
		return nil
	}
	with := *h
	if with.rows += more; e.b.room(e.name, with) != nil {
		n, err := count(ctx, e.Engine)
		if err != nil {
			return err
		}
		h.rows = n
		with.rows = n + more
		if err := e.b.room(e.name, with); err != nil {
			return err
		}
	}
	h.rows += more
	return nil
}

// record keeps the number of rows whenever it has grown by a tenth.
func (e boundedEngine) record(ctx context.Context) error {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	h := e.b.held[e.name]
	if h == nil || h.rows <= h.recorded+h.recorded/10+1000 {
		return nil
	}
	n, err := count(ctx, e.Engine)
	if err != nil {
		return err
	}
	if h.rows = n; n <= h.recorded+h.recorded/10+1000 {
		return nil
	}
	h.recorded = n
	return e.b.kv.Put(context.WithoutCancel(ctx), map[string][]byte{rowsPrefix + e.name: binary.AppendUvarint(nil, uint64(n))})
}
