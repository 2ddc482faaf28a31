package milvus

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// kv is an index.KV in one collection of one shard. A value lies in parts, because a
// string of Milvus ends at 65,535 bytes: part p of a key is the row hex(key).p, so that
// rows are in order of key, and no key has a sign that an expression knows. Each part
// carries how many there are and the version that wrote it.
type kv struct {
	c    *client.Client
	coll string
	tick func() int64
	mu   sync.RWMutex // a reader sees all parts of one version
	last *known

	fresh atomic.Int32 // readers to whom what was read last is of no use
}

const (
	kvPart  = "part"  // which, from 0
	kvParts = "parts" // how many
	kvSum   = "sum"   // CRC-32 of the whole value
	kvValue = "value"
	// partBytes is a part's share of a value, before base64.
	partBytes = maxRecord
	// maxValue keeps a Put in one message.
	maxValue = 32 << 20
)

// kvSchema is the collection of the key-value space.
func kvSchema(prefix string) client.Schema {
	return client.Schema{Name: prefix + "_kv", Description: marker + "key-value space", Shards: 1, Fields: []client.Field{
		{Name: fieldID, Type: client.VarChar, Primary: true, MaxLength: 2*index.MaxKey + 8},
		{Name: kvPart, Type: client.Int64}, {Name: kvParts, Type: client.Int64}, {Name: kvSum, Type: client.Int64}, {Name: fieldVersion, Type: client.Int64},
		{Name: kvValue, Type: client.VarChar, MaxLength: client.MaxVarChar},
		{Name: fieldVector, Type: client.FloatVector, Dim: 2},
	}}
}

func openKV(ctx context.Context, c *client.Client, prefix string, tick func() int64) (*kv, error) {
	s := kvSchema(prefix)
	return &kv{c: c, coll: s.Name, tick: tick, last: newKnown()}, ensure(ctx, c, s, client.Index{Field: fieldVector, Type: "FLAT", Metric: client.IP})
}

// ensure creates a collection, indexes and loads it where that was not done, and holds
// one that is there to the schema.
func ensure(ctx context.Context, c *client.Client, s client.Schema, ix client.Index) error {
	info, err := c.Describe(ctx, s.Name)
	if errors.Is(err, client.ErrGone) {
		if err = c.Create(ctx, s); err == nil {
			info, err = c.Describe(ctx, s.Name)
		}
	}
	if err != nil {
		return err
	}
	if err := c.Mismatch(s, info); err != nil {
		return err
	}
	if _, err := c.DescribeIndex(ctx, s.Name, ix.Field); errors.Is(err, client.ErrGone) {
		if err := c.CreateIndex(ctx, s.Name, ix); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if state, err := c.LoadState(ctx, s.Name); err != nil || state == client.Loaded {
		return err
	}
	return c.Load(ctx, s.Name)
}

func checkKey(key string) error {
	if key == "" || len(key) > index.MaxKey {
		return fmt.Errorf("%w: key of %d bytes: give 1 to %d", index.ErrInvalid, len(key), index.MaxKey)
	}
	return nil
}

func rowKey(key string, part int) string { return fmt.Sprintf("%x.%06d", key, part) }

// Get reads all parts of a value.
func (s *kv) Get(key string) ([]byte, error) {
	pairs, err := s.read(key, fmt.Sprintf(`%s > "%x." and %s < "%x/"`, fieldID, key, fieldID, key), 1) // '/' follows '.'
	if err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("key %q: %w", key, index.ErrNotFound)
	}
	return pairs[0].Value, nil
}

// List reads pairs in order of key.
func (s *kv) List(prefix string, limit int, after string) ([]index.Pair, error) {
	return s.read(prefix, s.within(prefix, after), limit)
}

// within selects the rows of keys that begin with prefix and are greater than after.
// '/' follows the point that ends a key; 'g' follows the digits of hex.
func (s *kv) within(prefix, after string) string {
	expr := fmt.Sprintf(`%s >= "%x" and %s < "%xg"`, fieldID, prefix, fieldID, prefix)
	if after != "" {
		expr += fmt.Sprintf(` and %s >= "%x/"`, fieldID, after)
	}
	return expr
}

// Fresh makes reads fail while Milvus is away, until it is called back: for who changes
// what it reads.
func (s *kv) Fresh() (done func()) {
	s.fresh.Add(1)
	return sync.OnceFunc(func() { s.fresh.Add(-1) })
}

// read reads pairs again where another process replaced a value between two pages: its
// parts are then of two writes, as those of a damaged one are.
// While Milvus is away, what was read last is given.
func (s *kv) read(prefix, expr string, limit int) ([]index.Pair, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	key := knownKey{prefix, expr, limit}
	for try := 1; ; try++ {
		out, err := s.readOnce(expr, limit)
		if err == nil {
			s.last.keep(key, out)
		} else if client.Unavailable(err) && s.fresh.Load() == 0 {
			if out, ok := s.last.last(key); ok {
				return out, nil
			}
		}
		if !errors.Is(err, index.ErrCorrupt) || try == 4 {
			return out, err
		}
		time.Sleep(time.Duration(try) * 150 * time.Millisecond)
	}
}

func (s *kv) readOnce(expr string, limit int) ([]index.Pair, error) {
	it, err := s.c.Iterate(client.IterateRequest{
		Collection: s.coll, Key: fieldID, Expr: expr, Fields: []string{kvPart, kvParts, kvSum, fieldVersion, kvValue},
		Batch: 256, Consistency: client.Session,
	})
	if err != nil {
		return nil, err
	}
	out := []index.Pair{}
	var key string
	var value []byte
	var next, parts, version int64
	for {
		page, err := it.Next(context.Background()) // the client has a deadline for each
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		col := func(name string) []int64 { return page.Column(name).Ints }
		for i, id := range page.Column(fieldID).Strings {
			raw, _, _ := strings.Cut(id, ".")
			k, err := hex.DecodeString(raw)
			if err != nil {
				return nil, fmt.Errorf("%w: %s has a row %.80q that is no key", index.ErrCorrupt, s.coll, id)
			}
			if p := col(kvPart)[i]; p == 0 {
				key, value, next, parts, version = string(k), nil, 0, col(kvParts)[i], col(fieldVersion)[i]
			} else if string(k) != key || p != next || col(fieldVersion)[i] != version {
				if p >= parts && string(k) == key {
					continue // a longer value that was replaced; its end is not yet deleted
				}
				return nil, fmt.Errorf("%w: part %d of the value of %q is missing or of another write", index.ErrCorrupt, next, k)
			}
			b, err := base64.StdEncoding.DecodeString(page.Column(kvValue).Strings[i])
			if err != nil {
				return nil, fmt.Errorf("%w: the value of %q: %w", index.ErrCorrupt, key, err)
			}
			value = append(value, b...)
			if next++; next < parts {
				continue
			}
			if int64(crc32.ChecksumIEEE(value)) != col(kvSum)[i] {
				return nil, fmt.Errorf("%w: the checksum of the value of %q does not match", index.ErrCorrupt, key)
			}
			if out = append(out, index.Pair{Key: key, Value: append([]byte{}, value...)}); limit > 0 && len(out) == limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// Put writes all pairs in one message to one shard, which Milvus takes whole or not.
func (s *kv) Put(ctx context.Context, pairs map[string][]byte) error {
	if len(pairs) == 0 {
		return ctx.Err()
	}
	id := client.Column{Name: fieldID, Type: client.VarChar}
	num := map[string]*client.Column{}
	for _, n := range []string{kvPart, kvParts, kvSum, fieldVersion} {
		num[n] = &client.Column{Name: n, Type: client.Int64}
	}
	value := client.Column{Name: kvValue, Type: client.VarChar}
	version, total := s.tick(), 0
	var tails []string
	for key, v := range pairs {
		if err := checkKey(key); err != nil {
			return err
		}
		if total += len(v); total > maxValue {
			return fmt.Errorf("%w: more than %d bytes in one write to the key-value space in Milvus", index.ErrInvalid, maxValue)
		}
		parts := max((len(v)+partBytes-1)/partBytes, 1)
		for p := range parts {
			id.Strings = append(id.Strings, rowKey(key, p))
			for n, x := range map[string]int64{kvPart: int64(p), kvParts: int64(parts), kvSum: int64(crc32.ChecksumIEEE(v)), fieldVersion: version} {
				num[n].Ints = append(num[n].Ints, x)
			}
			value.Strings = append(value.Strings, base64.StdEncoding.EncodeToString(v[p*partBytes:min((p+1)*partBytes, len(v))]))
		}
		tails = append(tails, fmt.Sprintf(`(%s >= "%s" and %s < "%x/")`, fieldID, rowKey(key, parts), fieldID, key))
	}
	vec := client.Column{Name: fieldVector, Type: client.FloatVector, Dim: 2, Vectors: make([]float32, 2*len(id.Strings))}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range pairs { // also where it fails: it may have happened
		s.last.forget(key, false)
	}
	if _, err := s.c.Upsert(ctx, s.coll, []client.Column{id, *num[kvPart], *num[kvParts], *num[kvSum], *num[fieldVersion], value, vec}); err != nil {
		return err
	}
	// Ends of longer values that these replace. Readers pass them over, so those that
	// this does not see yet may stay: to wait for the server's clock would cost every
	// Put a fifth of a second and more.
	for some := range slices.Chunk(tails, 100) {
		if err := s.drop(ctx, strings.Join(some, " or "), client.Eventually); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes the rows that an expression selects, by key: servers of 2.3 delete by
// nothing else.
func (s *kv) drop(ctx context.Context, expr string, k client.Consistency) error {
	const most = 1000
	for {
		page, err := s.c.Query(ctx, client.QueryRequest{Collection: s.coll, Expr: expr, Fields: []string{fieldID}, Limit: most, Consistency: k})
		if err != nil || page.Rows == 0 {
			return err
		}
		if _, err := s.c.DeleteKeys(ctx, s.coll, fieldID, page.Column(fieldID).Strings); err != nil || page.Rows < most {
			return err
		}
	}
}

// Delete removes keys, each whole; several in the order given.
func (s *kv) Delete(ctx context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for some := range slices.Chunk(keys, 100) {
		terms := make([]string, len(some))
		for i, k := range some {
			if err := checkKey(k); err != nil {
				return err
			}
			s.last.forget(k, false)
			terms[i] = fmt.Sprintf(`(%s > "%x." and %s < "%x/")`, fieldID, k, fieldID, k)
		}
		if err := s.drop(ctx, strings.Join(terms, " or "), client.Session); err != nil {
			return err
		}
	}
	return nil
}

// DeletePrefix removes every key that begins with prefix.
func (s *kv) DeletePrefix(ctx context.Context, prefix string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.forget(prefix, true)
	return s.drop(ctx, s.within(prefix, ""), client.Session)
}
