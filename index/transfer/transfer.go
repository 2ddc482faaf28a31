// Package transfer copies collections and the key-value space from one store to
// another, of whatever kind, and proves the copy.
//
// Copy goes by id in order and notes in the target how far it is, so that one that was
// broken off goes on. Verify compares both sides row by row and returns checksums. The
// source must not be written meanwhile: Copy says so where its content changed.
package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/index"
)

// Store is a store with its key-value space.
type Store interface {
	index.Store
	KV() index.KV
}

// Options adjusts a copy. The zero value works.
type Options struct {
	Batch int // rows at a time; 0 is 1,000
	// Progress, where given, hears rows done and in all, after each batch.
	Progress func(collection string, done, total int)
}

// Report is what Verify found.
type Report struct {
	Rows     int
	Checksum uint64 // of ids, columns and records of both sides, independent of order
}

// markPrefix begins the keys under which the target notes how far a copy is.
const markPrefix = "\x00transfer/"

type mark struct {
	After string `json:"after"` // last id that is written
	Rows  int    `json:"rows"`  // of the source when the copy began
	Sum   uint64 `json:"sum"`   // of the source's ids
}

// Collection copies one collection. It is made in the target where it is not there; one
// that is there must have the same spec, and is either a copy that was broken off or
// empty: ErrExists where it holds other rows.
func Collection(ctx context.Context, from, to Store, name string, opt Options) error {
	if opt.Batch <= 0 {
		opt.Batch = 1000
	}
	src, err := from.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	snap, err := src.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer func() { _ = snap.Close() }()
	ids := index.LiveIDs(snap)
	now := mark{Rows: len(ids), Sum: sumOf(ids)}
	dst, at, err := begin(ctx, to, src.Spec(), now)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	done, found := slices.BinarySearch(ids, at.After)
	if found {
		done++
	}
	for batch := range slices.Chunk(ids[done:], opt.Batch) {
		got, err := src.Get(ctx, batch)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		rows := make([]index.Row, len(got))
		for i, r := range got {
			if r == nil {
				return fmt.Errorf("%w: customer %q was deleted from the source during the copy; stop what writes there, and copy again", index.ErrInvalid, batch[i])
			}
			rows[i] = *r
		}
		if err := dst.Upsert(ctx, rows); err != nil {
			return fmt.Errorf("target: %w", err)
		}
		now.After = batch[len(batch)-1]
		if err := putMark(ctx, to, name, now); err != nil {
			return fmt.Errorf("target: %w", err)
		}
		if done += len(batch); opt.Progress != nil {
			opt.Progress(name, done, len(ids))
		}
	}
	after, err := src.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer func() { _ = after.Close() }()
	if after.Version() != snap.Version() {
		return fmt.Errorf("%w: the source was written during the copy of %q; stop what writes there, and copy again", index.ErrInvalid, name)
	}
	return nil
}

// Finish forgets how far a copy was; call it after Verify.
func Finish(ctx context.Context, to Store, name string) error {
	return to.KV().Delete(ctx, markPrefix+name)
}

func putMark(ctx context.Context, to Store, name string, m mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return to.KV().Put(ctx, map[string][]byte{markPrefix + name: raw})
}

// begin opens or makes the target, and says where to go on.
func begin(ctx context.Context, to Store, spec index.Spec, now mark) (index.Engine, mark, error) {
	var was mark
	raw, err := to.KV().Get(markPrefix + spec.Name)
	switch {
	case errors.Is(err, index.ErrNotFound):
	case err != nil:
		return nil, was, err
	default:
		if err := json.Unmarshal(raw, &was); err != nil {
			return nil, was, fmt.Errorf("%w: how far the copy of %q is: %w", index.ErrCorrupt, spec.Name, err)
		}
	}
	dst, err := to.Open(ctx, spec.Name)
	if errors.Is(err, index.ErrNotFound) {
		dst, err = to.Create(ctx, spec)
		was = mark{}
	}
	if err != nil {
		return nil, was, err
	}
	if err := sameSpec(spec, dst.Spec()); err != nil {
		return nil, was, err
	}
	if was.Rows != now.Rows || was.Sum != now.Sum {
		was.After = "" // another source, or one that changed: from the beginning
	}
	if was.After == "" {
		snap, err := dst.Snapshot(ctx)
		if err != nil {
			return nil, was, err
		}
		defer func() { _ = snap.Close() }()
		if n := snap.Live().GetCardinality(); n > 0 && len(raw) == 0 {
			return nil, was, fmt.Errorf("%w: collection %q has %d rows there that no copy wrote; drop it, or choose another target", index.ErrExists, spec.Name, n)
		}
	}
	return dst, was, nil
}

func sameSpec(a, b index.Spec) error {
	if a.Dim != b.Dim || a.Precision != b.Precision || a.Stamp != b.Stamp || !slices.Equal(a.Columns, b.Columns) {
		return fmt.Errorf("%w: collection %q is there with another schema, precision or model", index.ErrExists, a.Name)
	}
	return nil
}

func sumOf(ids []string) uint64 {
	h := fnv.New64a()
	for _, id := range ids {
		_, _ = io.WriteString(h, id) // never fails
		_, _ = h.Write([]byte{0xff})
	}
	return h.Sum64()
}

// near is how far two stores' copies of a vector's number may be apart: each makes it
// unit length once more.
const near = 2e-6

// Verify compares a collection of both stores row by row: the same ids, columns and
// records, and vectors within rounding. ErrCorrupt says which row differs first.
func Verify(ctx context.Context, from, to Store, name string) (Report, error) {
	var out Report
	a, err := from.Open(ctx, name)
	if err != nil {
		return out, fmt.Errorf("source: %w", err)
	}
	b, err := to.Open(ctx, name)
	if err != nil {
		return out, fmt.Errorf("target: %w", err)
	}
	sa, err := a.Snapshot(ctx)
	if err != nil {
		return out, err
	}
	defer func() { _ = sa.Close() }()
	sb, err := b.Snapshot(ctx)
	if err != nil {
		return out, err
	}
	defer func() { _ = sb.Close() }()
	if err := sameSpec(a.Spec(), b.Spec()); err != nil {
		return out, err
	}
	ids := index.LiveIDs(sa)
	if others := index.LiveIDs(sb); !slices.Equal(ids, others) {
		return out, fmt.Errorf("%w: collection %q has %d rows in the source and %d in the target, or others", index.ErrCorrupt, name, len(ids), len(others))
	}
	for batch := range slices.Chunk(ids, 1000) {
		ra, err := a.Get(ctx, batch)
		if err != nil {
			return out, fmt.Errorf("source: %w", err)
		}
		rb, err := b.Get(ctx, batch)
		if err != nil {
			return out, fmt.Errorf("target: %w", err)
		}
		for i := range batch {
			if ra[i] == nil || rb[i] == nil {
				return out, fmt.Errorf("%w: customer %q was deleted during the comparison", index.ErrInvalid, batch[i])
			}
			x, y := digest(ra[i]), digest(rb[i])
			if x != y || !bytes.Equal(ra[i].Record, rb[i].Record) || !close(ra[i].Vector, rb[i].Vector) {
				return out, fmt.Errorf("%w: customer %q of collection %q differs between source and target", index.ErrCorrupt, batch[i], name)
			}
			out.Rows++
			out.Checksum += x
		}
	}
	return out, nil
}

// digest is of id, columns in order of name, and record.
func digest(r *index.Row) uint64 {
	h := fnv.New64a()
	names := make([]string, 0, len(r.Values))
	for n := range r.Values {
		names = append(names, n)
	}
	slices.Sort(names)
	fmt.Fprintf(h, "%q", r.ID)
	for _, n := range names {
		v := r.Values[n]
		fmt.Fprintf(h, "%q %s %x %q %q", n, v.Kind, math.Float64bits(v.Num), v.Str, slices.Sorted(slices.Values(v.Set)))
	}
	_, _ = h.Write(r.Record)
	return h.Sum64()
}

func close(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if d := a[i] - b[i]; d > near || d < -near {
			return false
		}
	}
	return true
}

// Space copies the key-value space: configurations, audiences, jobs. Keys of the stores'
// own, which begin with a NUL, stay behind. Pairs that are there are replaced.
func Space(ctx context.Context, from, to Store) (int, error) {
	after, n := "", 0
	for {
		pairs, err := from.KV().List("", 256, after)
		if err != nil {
			return n, fmt.Errorf("source: %w", err)
		}
		if len(pairs) == 0 {
			return n, nil
		}
		batch, size := map[string][]byte{}, 0
		flush := func() error {
			err := to.KV().Put(ctx, batch)
			n += len(batch)
			clear(batch)
			size = 0
			return err
		}
		for _, p := range pairs {
			if after = p.Key; strings.HasPrefix(p.Key, "\x00") {
				continue
			}
			batch[p.Key] = p.Value
			if size += len(p.Value); size > 4<<20 {
				if err := flush(); err != nil {
					return n, fmt.Errorf("target: %w", err)
				}
			}
		}
		if len(batch) > 0 {
			if err := flush(); err != nil {
				return n, fmt.Errorf("target: %w", err)
			}
		}
	}
}
