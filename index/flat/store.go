// Package flat is the default engine: in process, exact, durable.
//
// Every collection lives in one Pebble database in one data directory, and is
// held in memory for scanning (package rows). A write goes to the database
// first, synced, as one batch: rows, columns, records and the collection's
// version together; only then do readers see it. So what was acknowledged
// survives kill -9, and a batch is there whole or not at all. Concurrent writes
// share a sync. Opening a collection reads its rows back, decoding on all
// cores; vectors are stored as they are held, so that is mostly copying.
//
// Every value has a checksum of its own over key and value: a damaged row is
// reported as ErrCorrupt with its id, never served.
//
// # When the disk is full
//
// Writes are refused with ErrNoSpace while less than Options.MinFree is free,
// before anything fails. Should a write to disk fail all the same, the store
// stops writing, deletes no file any more, goes on answering reads, and every
// write reports why until the process is started again.
package flat

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// Options adjusts a Store. The zero value works.
type Options struct {
	// MinFree is how many bytes must be free on the disk for a write; 0 means
	// 64 MB: room for the database to finish what it has begun. On a file system
	// that does not tell what is free nothing is kept.
	MinFree uint64
	// Logf, where given, is told of errors of the database.
	Logf func(format string, args ...any)
	// Rows adjusts the tables in memory.
	Rows rows.Options
	// OnClose is called when the store has closed: what Rows uses can be given back.
	OnClose func() error

	fs vfs.FS // tests inject faults
}

const (
	memTable   = 32 << 20 // bytes: two or three batches of ten thousand rows
	blockCache = 16 << 20 // bytes: small, since rows are in memory anyway
	maxBatch   = 1 << 30  // bytes of one batch, well below the database's 4 GB
)

// Store is an index.Store in a data directory.
type Store struct {
	dir     string
	fs      vfs.FS
	opt     Options
	db      *pebble.DB
	cache   *pebble.Cache
	lock    *pebble.Lock
	failure atomic.Pointer[error] // the first failed write to disk

	ops    sync.RWMutex // held for reading by every operation, for writing by Close
	closed bool

	mu      sync.Mutex // guards engines and changes of the set of collections
	engines map[string]*engine
	wmu     sync.Mutex // one commit at a time enters the database; syncs are shared
}

var _ index.Store = (*Store)(nil)

// Open opens or makes the data directory dir. ErrLocked when another process
// has it open, ErrNoSpace when the disk is full, ErrCorrupt when the database
// is damaged.
func Open(dir string, opt Options) (*Store, error) {
	if opt.fs == nil {
		opt.fs = vfs.Default
	}
	if opt.MinFree == 0 {
		opt.MinFree = 64 << 20
	}
	s := &Store{dir: dir, fs: opt.fs, opt: opt, engines: map[string]*engine{}}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, s.wrap("make the data directory", err)
	}
	lock, err := pebble.LockDirectory(dir, s.fs)
	if err != nil {
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "held by current process") {
			return nil, fmt.Errorf("data directory %s: %w: another kindred process uses it; stop that one or choose another directory", dir, index.ErrLocked)
		}
		return nil, s.wrap("lock the data directory", err)
	}
	s.cache = pebble.NewCache(blockCache)
	s.lock = lock
	s.db, err = pebble.Open(dir, &pebble.Options{
		FS: guard{s.fs, s}, Lock: lock, Cache: s.cache, MemTableSize: memTable,
		FormatMajorVersion: pebble.FormatNewest, Logger: (*logger)(s),
		L0CompactionThreshold: 4, L0StopWritesThreshold: 24, MaxOpenFiles: 500,
		DisableTableStats: true,
	})
	if err != nil {
		s.cache.Unref()
		return nil, errors.Join(s.wrap("open the database", err), lock.Close())
	}
	return s, nil
}

// logger passes errors on. The database calls Fatalf where it cannot go on; the
// process lives, and the store refuses writes from then on.
type logger Store

func (l *logger) Infof(string, ...any) {}

func (l *logger) Errorf(format string, args ...any) {
	if l.opt.Logf != nil {
		l.opt.Logf("database in %s: %s", l.dir, fmt.Sprintf(format, args...))
	}
}

func (l *logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	err := error(nil)
	for _, a := range args {
		if e, ok := a.(error); ok {
			err = e
		}
	}
	if err == nil {
		err = fmt.Errorf(format, args...)
	}
	(*Store)(l).fail(err)
}

// guard is the file system as the database sees it. It deletes and recycles
// files, until something failed: what the database then believes may not be
// what is on disk.
type guard struct {
	vfs.FS
	s *Store
}

func (g guard) Remove(name string) error {
	if g.s.failure.Load() != nil {
		return nil
	}
	return g.FS.Remove(name)
}

func (g guard) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if g.s.failure.Load() != nil {
		return g.Create(to, c)
	}
	return g.FS.ReuseForWrite(from, to, c)
}

func (s *Store) fail(err error) {
	err = s.wrap("write", err)
	s.failure.CompareAndSwap(nil, &err)
}

// wrap turns an error of the database or the disk into ours.
func (s *Store) wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: data directory %s: %w: free some and start again (%v)", doing, s.dir, index.ErrNoSpace, err)
	case errors.Is(err, pebble.ErrCorruption):
		return fmt.Errorf("%s: data directory %s: %w: restore it from a backup (%v)", doing, s.dir, index.ErrCorrupt, err)
	}
	return fmt.Errorf("%s: data directory %s: %w", doing, s.dir, err)
}

// begin starts an operation; the caller calls s.ops.RUnlock when it is nil.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.ops.RLock()
	if s.closed {
		s.ops.RUnlock()
		return fmt.Errorf("store %s: %w", s.dir, index.ErrClosed)
	}
	return nil
}

func (s *Store) writable() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	use, err := s.fs.GetDiskUsage(s.dir)
	if err == nil && use.AvailBytes < s.opt.MinFree {
		return fmt.Errorf("data directory %s: %w: %d MB free, %d MB are kept; free some", s.dir, index.ErrNoSpace, use.AvailBytes>>20, s.opt.MinFree>>20)
	}
	return nil
}

// enter hands a batch to the database. Its order is that of the calls. The
// caller waits with synced. Of a batch that was begun readers of the database
// may see something, whatever the error.
func (s *Store) enter(b *pebble.Batch) (begun bool, err error) {
	if err := s.writable(); err != nil {
		return false, err
	}
	if b.Len() > maxBatch {
		return false, fmt.Errorf("%w: the batch takes %d MB; at most %d; split it", index.ErrInvalid, b.Len()>>20, maxBatch>>20)
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if f := s.failure.Load(); f != nil {
		return false, *f
	}
	defer func() { // the database panics when its log cannot be written
		if r := recover(); r != nil {
			e, ok := r.(error)
			if !ok {
				e = fmt.Errorf("%v", r)
			}
			s.fail(e)
			err = *s.failure.Load()
		}
	}()
	begun = true
	if err := s.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return begun, s.wrap("write", err)
	}
	if f := s.failure.Load(); f != nil {
		return begun, *f
	}
	return begun, nil
}

// synced waits until a batch that entered is on disk.
func (s *Store) synced(b *pebble.Batch) error {
	if err := b.SyncWait(); err != nil {
		s.fail(err)
		return *s.failure.Load()
	}
	return nil
}

func (s *Store) commit(b *pebble.Batch) error {
	if _, err := s.enter(b); err != nil {
		return err
	}
	return s.synced(b)
}

// get reads one sealed value. ErrNotFound, ErrCorrupt.
func (s *Store) get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, index.ErrNotFound
	}
	if err != nil {
		return nil, s.wrap("read", err)
	}
	body, err := unseal(key, v)
	body = append([]byte{}, body...)
	if cerr := closer.Close(); err == nil && cerr != nil {
		err = s.wrap("read", cerr)
	}
	return body, err
}

// stored is the value of a collection's key.
type stored struct {
	Number uint32     `json:"number"`
	Spec   index.Spec `json:"spec"`
}

func setJSON(b *pebble.Batch, key []byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Set(key, seal(key, append(make([]byte, 4), body...)), nil)
}

func (s *Store) stored(name string) (stored, error) {
	var c stored
	body, err := s.get(s.db, nameKey(tagCollection, name))
	if err == nil {
		if json.Unmarshal(body, &c) != nil {
			err = index.ErrCorrupt
		}
	}
	if err != nil {
		return c, fmt.Errorf("collection %q: %w", name, err)
	}
	return c, nil
}

// Create makes an empty collection.
func (s *Store) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.Precision == "" {
		spec.Precision = index.Int8
	}
	spec.Columns = slices.Clone(spec.Columns)
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.ops.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.stored(spec.Name); err == nil {
		return nil, fmt.Errorf("collection %q: %w", spec.Name, index.ErrExists)
	} else if !errors.Is(err, index.ErrNotFound) {
		return nil, err
	}
	number, err := s.number([]byte{tagNext})
	if err != nil {
		return nil, fmt.Errorf("collection %q: %w", spec.Name, err)
	}
	b := s.db.NewBatch()
	defer closeQuietly(b)
	c := stored{Number: uint32(number), Spec: spec}
	err = errors.Join(setJSON(b, nameKey(tagCollection, spec.Name), c), setNumber(b, []byte{tagNext}, number+1))
	if err != nil {
		return nil, err
	}
	if err := s.commit(b); err != nil {
		return nil, fmt.Errorf("create collection %q: %w", spec.Name, err)
	}
	e := newEngine(s, c, 0)
	s.engines[spec.Name] = e
	return e, nil
}

func setNumber(b *pebble.Batch, key []byte, n uint64) error {
	return b.Set(key, seal(key, binary.LittleEndian.AppendUint64(make([]byte, 4), n)), nil)
}

// number reads a counter, 0 when it is not there yet.
func (s *Store) number(key []byte) (uint64, error) {
	body, err := s.get(s.db, key)
	switch {
	case errors.Is(err, index.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(body) != 8:
		return 0, index.ErrCorrupt
	}
	return binary.LittleEndian.Uint64(body), nil
}

// Open returns an existing collection, reading it into memory the first time.
func (s *Store) Open(ctx context.Context, name string) (index.Engine, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.ops.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// open runs under s.mu.
func (s *Store) open(ctx context.Context, name string) (*engine, error) {
	if e := s.engines[name]; e != nil {
		return e, nil
	}
	c, err := s.stored(name)
	if err != nil {
		return nil, err
	}
	version, err := s.number(collKey(tagVersion, c.Number, ""))
	if err != nil {
		return nil, fmt.Errorf("collection %q: version: %w", name, err)
	}
	e := newEngine(s, c, version)
	if err := e.load(ctx); err != nil {
		return nil, fmt.Errorf("collection %q: %w", name, err)
	}
	s.engines[name] = e
	return e, nil
}

// Alter adds columns.
func (s *Store) Alter(ctx context.Context, name string, add []index.Column) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.ops.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.open(ctx, name)
	if err != nil {
		return err
	}
	spec := e.table.Spec()
	if err := spec.ValidateAlter(add); err != nil {
		return fmt.Errorf("collection %q: %w", name, err)
	}
	add = slices.Clone(add)
	spec.Columns = append(slices.Clone(spec.Columns), add...)
	return e.write(nil, func(b *pebble.Batch) error {
		return setJSON(b, nameKey(tagCollection, name), stored{e.number, spec})
	}, func(version uint64) error {
		e.table.Alter(add, version)
		return nil
	})
}

// Drop deletes a collection.
func (s *Store) Drop(ctx context.Context, name string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.ops.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.stored(name)
	if err != nil {
		return err
	}
	if e := s.engines[name]; e != nil { // no write enters behind the drop
		e.mu.Lock()
		defer e.mu.Unlock()
	}
	b := s.db.NewBatch()
	defer closeQuietly(b)
	errs := []error{b.Delete(nameKey(tagCollection, name), nil), b.Delete(collKey(tagVersion, c.Number, ""), nil)}
	for _, tag := range []byte{tagRow, tagRecord} {
		lo := collKey(tag, c.Number, "")
		errs = append(errs, b.DeleteRange(lo, prefixEnd(lo), nil))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := s.commit(b); err != nil {
		return fmt.Errorf("drop collection %q: %w", name, err)
	}
	if e := s.engines[name]; e != nil {
		e.dropped.Store(true)
		e.table.Release()
		delete(s.engines, name)
	}
	return nil
}

// List returns the specs in order of name.
func (s *Store) List(ctx context.Context) ([]index.Spec, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.ops.RUnlock()
	var out []index.Spec
	err := s.scan([]byte{tagCollection}, nil, func(key, body []byte) (bool, error) {
		var c stored
		if err := json.Unmarshal(body, &c); err != nil {
			return false, fmt.Errorf("collection %q: %w", key[1:], index.ErrCorrupt)
		}
		out = append(out, c.Spec)
		return true, nil
	})
	return out, err
}

// scan calls fn for the sealed values whose keys begin with prefix and are
// above after, in order, until it returns false. The slices are fn's only
// during the call.
func (s *Store) scan(prefix, after []byte, fn func(key, body []byte) (bool, error)) (err error) {
	lo := prefix
	if string(after) >= string(prefix) {
		lo = append(slices.Clone(after), 0)
	}
	end := prefixEnd(prefix)
	if end != nil && string(lo) >= string(end) {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: end})
	if err != nil {
		return s.wrap("read", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = s.wrap("read", cerr)
		}
	}()
	for it.First(); it.Valid(); it.Next() {
		body, err := unseal(it.Key(), it.Value())
		if err != nil {
			return fmt.Errorf("key %q: %w", it.Key(), err)
		}
		more, err := fn(it.Key(), body)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Close flushes and releases the directory. It waits for operations under way.
// Safe to call twice.
func (s *Store) Close() error {
	s.ops.Lock()
	defer s.ops.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, e := range s.engines {
		e.table.Close()
	}
	closed := make(chan error, 1)
	go func() {
		defer func() { // a database that failed may not close cleanly
			if r := recover(); r != nil {
				closed <- fmt.Errorf("%v", r)
			}
		}()
		closed <- s.db.Close()
	}()
	var err error
	if s.failure.Load() == nil {
		err = <-closed
	} else {
		select {
		case err = <-closed:
		case <-time.After(5 * time.Second):
			err = errors.New("the database does not stop after the failed write; end the process")
		}
	}
	s.cache.Unref()
	err = errors.Join(s.wrap("close", err), s.lock.Close())
	if s.opt.OnClose != nil {
		err = errors.Join(err, s.opt.OnClose())
	}
	return err
}

// closeQuietly releases a batch's memory; that cannot fail in a way that
// matters, since its contents are committed or given up.
func closeQuietly(b *pebble.Batch) { _ = b.Close() }
