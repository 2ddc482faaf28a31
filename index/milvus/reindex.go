package milvus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// check says what is wrong with an index that ParseIndex did not make.
func (x VectorIndex) check() error {
	if x.Type == "" {
		return nil
	}
	again, err := ParseIndex(x.String())
	if err == nil && !again.Same(x) {
		err = fmt.Errorf("%w: the index %s is not complete: make it by ParseIndex", index.ErrInvalid, x)
	}
	return err
}

// wire is the index as it is asked for.
func (x VectorIndex) wire() client.Index {
	if x.Type == "" {
		x.Type = "FLAT"
	}
	return client.Index{Field: fieldVector, Type: x.Type, Metric: client.IP, Params: x.Build}
}

// newIndex is what a new collection gets.
func (s *Store) newIndex(spec *index.Spec) VectorIndex {
	if s.opt.Index.Type == "" || spec.Dim == 0 { // nothing to find without vectors
		return VectorIndex{Type: "FLAT"}
	}
	return s.opt.Index
}

// supportPrefix begins the keys that say which types a version of Milvus was seen to build.
const supportPrefix = "\x00index/"

// buildTime is what a server gets to build the index of a few rows; less in tests.
var buildTime = 45 * time.Second

// Supports refuses a type of index that this Milvus does not build, or not for vectors of
// this dimension, as index.ErrInvalid that says what it needs. Servers take the
// definition of some types that were not compiled into them, try to build them without
// end, and never say so: one small collection is built, once for each type and version.
func (s *Store) Supports(ctx context.Context, ix VectorIndex, dim int) error {
	t := typeOf(ix.Type)
	if err := ix.fits(dim); err != nil || t == nil || t.name == "FLAT" {
		return err
	}
	server, err := s.c.Server(ctx)
	if err != nil {
		return err
	}
	key := supportPrefix + server.Version + "/" + t.name
	if _, err := s.kv.Get(key); !errors.Is(err, index.ErrNotFound) {
		return err
	}
	if s.opt.Logf != nil {
		s.opt.Logf("trying whether Milvus %s builds an index of type %s", server.Version, t.name)
	}
	if err := s.build(ctx, t); err != nil {
		if client.Unavailable(err) && !errors.Is(err, client.ErrTimeout) || ctx.Err() != nil {
			return err
		}
		needs, other := "", "HNSW"
		if t.needs != "" {
			needs = ": it needs " + t.needs
		}
		if errors.Is(err, client.ErrTimeout) { // index nodes build one at a time
			needs += "; where it is busy building others, ask again afterwards"
		}
		if t.name == other {
			other = "FLAT"
		}
		return fmt.Errorf("%w: Milvus %s at %s does not build an index of type %s%s; or choose another, such as %s: %w",
			index.ErrInvalid, server.Version, s.c.Address(), t.name, needs, other, err)
	}
	return s.kv.Put(ctx, map[string][]byte{key: []byte("built")})
}

func (s *Store) probePrefix() string { return s.opt.Prefix + "_try_" }

// build makes a small collection with an index of a type, asks it and drops it.
func (s *Store) build(ctx context.Context, t *indexType) (err error) {
	if err := s.dropProbes(ctx); err != nil {
		return err
	}
	const n, dim = 2000, 32 // fewer than 1,024 rows are not indexed
	small := map[string]string{"nlist": "16", "m": "8", "nbits": "8", "nprobe": "16"}
	given := map[string]string{}
	for _, p := range t.params {
		given[p.name] = small[p.name]
	}
	ix := t.with(given)
	name := fmt.Sprintf("%s%d_%x", s.probePrefix(), time.Now().Unix(), rand.Uint32())
	schema := client.Schema{Name: name, Description: marker + "a test of index types", Shards: 1, Fields: []client.Field{
		{Name: fieldID, Type: client.VarChar, Primary: true, MaxLength: 16}, {Name: fieldVector, Type: client.FloatVector, Dim: dim},
	}}
	if err := s.c.Create(ctx, schema); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.c.Drop(context.WithoutCancel(ctx), name))
	}()
	if err := s.c.CreateIndex(ctx, name, ix.wire()); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	ids := client.Column{Name: fieldID, Type: client.VarChar, Strings: make([]string, n)}
	vec := client.Column{Name: fieldVector, Type: client.FloatVector, Vectors: make([]float32, n*dim), Dim: dim}
	for i := range ids.Strings {
		ids.Strings[i] = strconv.Itoa(i)
	}
	for i := range vec.Vectors {
		vec.Vectors[i] = float32(r.NormFloat64())
	}
	if _, err := s.c.Upsert(ctx, name, []client.Column{ids, vec}); err != nil {
		return err
	}
	if err := s.c.Flush(ctx, name); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	if err := s.c.WaitIndex(wait, name, fieldVector); err != nil {
		return err
	}
	if err := s.c.Load(wait, name); err != nil {
		return err
	}
	_, err = s.c.Search(ctx, client.SearchRequest{
		Collection: name, Field: fieldVector, Vectors: vec.Vectors[:dim], Dim: dim, Metric: client.IP, Limit: 10, Params: ix.params(10, 0),
	})
	return err
}

// dropProbes takes out what a process left that was killed in build.
func (s *Store) dropProbes(ctx context.Context) error {
	names, err := s.c.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		rest, is := strings.CutPrefix(n, s.probePrefix())
		if !is {
			continue
		}
		at, _, _ := strings.Cut(rest, "_")
		if made, err := strconv.ParseInt(at, 10, 64); err != nil || time.Since(time.Unix(made, 0)) < 10*time.Minute {
			continue // another process's, at work
		}
		if err := s.c.Drop(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// Reindex gives a collection the index ix in Milvus, and waits until it is built and
// loaded; one that it has already is not built again, and is searched as ix says in this
// process. Meanwhile searches and scans run on the
// mirror, writes are taken, and records cannot be read. progress, where given, hears rows
// in the index and rows in all. After an error the collection has the index it had, or,
// where this process was killed, gets its configured one when it is opened next.
func (s *Store) Reindex(ctx context.Context, name string, ix VectorIndex, progress func(done, total int64)) (err error) {
	if err := errors.Join(ix.check(), ctx.Err()); err != nil {
		return err
	}
	if ix.Type == "" {
		return fmt.Errorf("%w: no type of index is given: there are %s", index.ErrInvalid, strings.Join(IndexTypes(), ", "))
	}
	spec, err := s.spec(name)
	if err != nil {
		return err
	}
	if spec.Dim == 0 {
		return fmt.Errorf("%w: collection %q has no vectors", index.ErrInvalid, name)
	}
	coll := collectionName(s.opt.Prefix, name)
	state, err := s.c.DescribeIndex(ctx, coll, fieldVector)
	if err != nil {
		return err
	}
	was := described(state.Type, state.Params, ix)
	if !was.Same(ix) {
		if err := s.Supports(ctx, ix, spec.Dim); err != nil {
			return err
		}
		if err := s.exchange(ctx, coll, state, ix); err != nil {
			return err
		}
	}
	if err := s.built(ctx, coll, ix.Type == "FLAT", progress); err != nil {
		return err
	}
	s.mu.Lock()
	e := s.engines[name]
	s.mu.Unlock()
	if e != nil {
		return e.lookAtIndex(ctx, ix)
	}
	return nil
}

// exchange drops the index that a collection has and makes another; whatever goes wrong
// on the way, it has one again and is loaded.
func (s *Store) exchange(ctx context.Context, coll string, was client.IndexState, ix VectorIndex) (err error) {
	if err := s.c.Release(ctx, coll); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.c.Load(context.WithoutCancel(ctx), coll))
	}()
	if err := s.c.DropIndex(ctx, coll, fieldVector, was.Name); err != nil {
		return err
	}
	err = s.c.CreateIndex(ctx, coll, ix.wire())
	if err != nil {
		old := client.Index{Field: fieldVector, Type: was.Type, Metric: was.Metric, Params: was.Params}
		err = errors.Join(err, s.c.CreateIndex(context.WithoutCancel(ctx), coll, old))
	}
	return err
}

// built seals what was written and waits until the index has it and is what searches go
// through, as long as that goes on.
func (s *Store) built(ctx context.Context, coll string, flat bool, progress func(done, total int64)) error {
	if err := s.c.Flush(ctx, coll); err != nil {
		return err
	}
	const most = 10 * time.Minute
	last, since := int64(-1), time.Now()
	for {
		state, err := s.c.DescribeIndex(ctx, coll, fieldVector)
		if err != nil {
			return err
		}
		done, total := state.Rows, max(state.Total, state.Rows)
		if state.Ready && state.Pending == 0 {
			serving, sealed, err := s.c.Serving(ctx, coll, flat)
			if err != nil {
				return err
			}
			done, total = serving, sealed
		} else {
			done = min(done, total-1) // built is not yet searched
		}
		if progress != nil && total > 0 {
			progress(max(done, 0), total)
		}
		if state.Ready && state.Pending == 0 && done >= total {
			return nil
		}
		if done != last {
			last, since = done, time.Now()
		}
		if time.Since(since) > most {
			return fmt.Errorf("%w: the index of %s has had %d of %d rows for %v; look into the log of Milvus, and call again to go on waiting", client.ErrTimeout, coll, done, total, most)
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
