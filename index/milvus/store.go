package milvus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/rows"
)

// Options says where Milvus is and how collections are made.
type Options struct {
	Client client.Config
	// Prefix begins the names of everything in Milvus; stores of other prefixes do not
	// see each other. "" is kindred.
	Prefix string
	// Index is the vector index that new collections get in Milvus; collections that are
	// there keep theirs until Reindex. The zero value is FLAT for new ones.
	Index  VectorIndex
	Search Searching // where searches of vectors run; "" is SearchAuto
	Shards int       // of new collections; 0 is one
	// Sweep is how often other processes' writes are looked for; 0 is never.
	Sweep time.Duration
	Rows  rows.Options // of the copies in memory
	// Progress, where given, hears of collections that are being read into memory.
	Progress func(collection string, done, total int64)
	// Logf, where given, is told what takes long.
	Logf func(format string, args ...any)
	// OnClose, where given, is called once by Close, after everything has ended.
	OnClose func() error
}

// specPrefix begins the keys of specs; a NUL keeps them apart from the service's own.
const specPrefix = "\x00spec/"

// Store is an index.Store in Milvus.
type Store struct {
	opt Options
	c   *client.Client
	kv  *kv

	clockMu sync.Mutex
	last    int64

	mu      sync.Mutex
	engines map[string]*engine
	opening map[string]*opening
	closed  bool
	copies  copies
	health  health
}

var (
	_ index.Store   = (*Store)(nil)
	_ index.Pointer = (*Store)(nil)
)

var prefixRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// Open connects, checks version and credentials, and makes what the store needs in
// Milvus. Errors say what is wrong with the server or the configuration.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if opt.Prefix == "" {
		opt.Prefix = "kindred"
	}
	if !prefixRule.MatchString(opt.Prefix) {
		return nil, fmt.Errorf("%w: the prefix %q for Milvus must be 1 to 32 of a-z, 0-9 and _, and begin with a letter", index.ErrInvalid, opt.Prefix)
	}
	if opt.Search == "" {
		opt.Search = SearchAuto
	}
	if err := opt.Index.check(); err != nil {
		return nil, err
	}
	if opt.Shards == 0 {
		opt.Shards = 1
	}
	c, err := client.Dial(ctx, opt.Client)
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, c: c, engines: map[string]*engine{}, opening: map[string]*opening{}, copies: copies{list: map[string]*engine{}}}
	if s.kv, err = openKV(ctx, c, opt.Prefix, s.tick); err != nil {
		_ = c.Close() // the first error says why
		return nil, err
	}
	return s, nil
}

// KV is the store's key-value space, in Milvus too.
func (s *Store) KV() index.KV { return s.kv }

// Client is the connection, for health and metrics.
func (s *Store) Client() *client.Client { return s.c }

// tick is the version of a write: microseconds since 1970, never twice and never back
// within a process.
func (s *Store) tick() int64 { return s.tickAfter(0) }

// tickAfter is a tick that is greater than a version that was seen: clocks of other
// processes may be ahead.
func (s *Store) tickAfter(seen int64) int64 {
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	s.last = min(max(s.last+1, seen+1, time.Now().UnixMicro()), mirror.MaxVersion)
	return s.last
}

func (s *Store) check(ctx context.Context) error {
	if s.closed {
		return fmt.Errorf("milvus store: %w", index.ErrClosed)
	}
	return ctx.Err()
}

func (s *Store) specs(name string) ([]index.Spec, error) {
	pairs, err := s.kv.List(specPrefix+name, 0, "")
	if err != nil {
		return nil, err
	}
	var out []index.Spec
	for _, p := range pairs {
		var spec index.Spec
		if err := json.Unmarshal(p.Value, &spec); err != nil {
			return nil, fmt.Errorf("%w: the spec of %q: %w", index.ErrCorrupt, strings.TrimPrefix(p.Key, specPrefix), err)
		}
		out = append(out, spec)
	}
	return out, nil
}

func (s *Store) spec(name string) (index.Spec, error) {
	list, err := s.specs(name)
	if err != nil {
		return index.Spec{}, err
	}
	for _, spec := range list {
		if spec.Name == name {
			return spec, nil
		}
	}
	return index.Spec{}, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
}

func (s *Store) putSpec(ctx context.Context, spec index.Spec) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return s.kv.Put(ctx, map[string][]byte{specPrefix + spec.Name: raw})
}

// Create makes an empty collection. See index.Store.
func (s *Store) Create(ctx context.Context, spec index.Spec) (index.Engine, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	ix := s.newIndex(&spec)
	if err := s.Supports(ctx, ix, vectorDim(spec.Dim)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if spec.Precision == "" {
		spec.Precision = index.Int8
	}
	spec.Columns = slices.Clone(spec.Columns)
	if _, err := s.spec(spec.Name); err == nil {
		return nil, fmt.Errorf("collection %q: %w", spec.Name, index.ErrExists)
	} else if !errors.Is(err, index.ErrNotFound) {
		return nil, err
	}
	want := schemaOf(s.opt.Prefix, spec, s.opt.Shards)
	// One without a spec is what a Create or Drop left that did not finish.
	switch info, err := s.c.Describe(ctx, want.Name); {
	case errors.Is(err, client.ErrGone):
	case err != nil:
		return nil, err
	case info.Description != want.Description:
		return nil, fmt.Errorf("%w: %s is in Milvus and not of this store; choose another prefix, or drop it", client.ErrSchema, want.Name)
	default:
		if err := s.c.Drop(ctx, want.Name); err != nil {
			return nil, err
		}
	}
	if err := ensure(ctx, s.c, want, ix.wire()); err != nil {
		if errors.Is(err, client.ErrInvalidRequest) || errors.Is(err, client.ErrServer) { // the index was refused: nothing stays behind
			err = errors.Join(err, s.c.Drop(context.WithoutCancel(ctx), want.Name))
		}
		return nil, err
	}
	e, err := s.engine(ctx, spec)
	if err != nil {
		s.copies.forget(spec.Name, nil)
		return nil, err
	}
	if err := s.putSpec(ctx, spec); err != nil {
		e.end(err)
		s.copies.forget(spec.Name, nil)
		return nil, err
	}
	s.engines[spec.Name] = e
	return e, nil
}

// open reads a collection into memory. It runs without the store's lock.
func (s *Store) open(ctx context.Context, name string) (*engine, error) {
	spec, err := s.spec(name)
	if err != nil {
		return nil, err
	}
	if err := ensureThere(ctx, s.c, schemaOf(s.opt.Prefix, spec, s.opt.Shards), s.newIndex(&spec).wire()); err != nil {
		return nil, err
	}
	return s.engine(ctx, spec)
}

// ensureThere is ensure of a collection that must be there: one that someone dropped is
// not made again as an empty one.
func ensureThere(ctx context.Context, c *client.Client, s client.Schema, ix client.Index) error {
	if _, err := c.Describe(ctx, s.Name); err != nil {
		return err
	}
	return ensure(ctx, c, s, ix)
}

// Alter adds columns. See index.Store.
func (s *Store) Alter(ctx context.Context, name string, add []index.Column) error {
	if err := s.lockFor(ctx, name, false); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	spec, err := s.spec(name)
	if err != nil {
		return err
	}
	if err := spec.ValidateAlter(add); err != nil {
		return err
	}
	spec.Columns = append(spec.Columns, add...)
	if err := s.putSpec(ctx, spec); err != nil {
		return err
	}
	if e := s.engines[name]; e != nil {
		return e.alter(spec, add)
	}
	return nil
}

// Drop deletes a collection. See index.Store.
func (s *Store) Drop(ctx context.Context, name string) error {
	if err := s.lockFor(ctx, name, true); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	if _, err := s.spec(name); err != nil {
		return err
	}
	if err := s.kv.Delete(ctx, specPrefix+name); err != nil {
		return err
	}
	if e := s.engines[name]; e != nil {
		e.end(fmt.Errorf("collection %q: %w", name, index.ErrNotFound))
		delete(s.engines, name)
	}
	s.copies.forget(name, nil)
	return s.dropHeld(ctx, collectionName(s.opt.Prefix, name))
}

// dropHeld drops a collection of Milvus with the aliases that point at it: Milvus does not
// let go of one that is pointed at.
func (s *Store) dropHeld(ctx context.Context, coll string) error {
	info, err := s.c.Describe(ctx, coll)
	if errors.Is(err, client.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, alias := range info.Aliases {
		if err := s.c.DropAlias(ctx, alias); err != nil {
			return err
		}
	}
	return s.c.Drop(ctx, coll)
}

// aliasName is what other readers of Milvus find the customers of a collection under,
// whatever generation of them counts.
func aliasName(prefix, name string) string { return prefix + "_live_" + collectionNames.Replace(name) }

// Point implements index.Pointer with an alias of Milvus.
func (s *Store) Point(ctx context.Context, name, held string) error {
	return s.c.Alias(ctx, aliasName(s.opt.Prefix, name), collectionName(s.opt.Prefix, held))
}

// List returns the specs in order of name.
func (s *Store) List(ctx context.Context) ([]index.Spec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return s.specs("")
}

// Close ends the sweeps and the connection.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.endOpenings()
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range maps.Values(s.engines) {
		e.end(fmt.Errorf("milvus store: %w", index.ErrClosed))
	}
	err := s.c.Close()
	if s.opt.OnClose != nil {
		err = errors.Join(err, s.opt.OnClose())
	}
	return err
}

// Destroy drops everything of this store in Milvus: for tests, and for who moves away.
func (s *Store) Destroy(ctx context.Context) error {
	names, err := s.c.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == s.kv.coll || strings.HasPrefix(n, collectionName(s.opt.Prefix, "")) || strings.HasPrefix(n, s.probePrefix()) {
			if err := s.dropHeld(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}
