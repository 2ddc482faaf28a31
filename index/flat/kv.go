package flat

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kindred-search/kindred/index"
)

type kv struct{ s *Store }

// KV returns the store's key-value space. It shares the store's database, its
// durability and its life.
func (s *Store) KV() index.KV { return kv{s} }

func (k kv) Get(key string) ([]byte, error) {
	if err := k.s.begin(context.Background()); err != nil {
		return nil, err
	}
	defer k.s.ops.RUnlock()
	v, err := k.s.get(k.s.db, nameKey(tagKV, key))
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", key, err)
	}
	return v, nil
}

func (k kv) Put(ctx context.Context, pairs map[string][]byte) error {
	return k.change(ctx, func(b *pebble.Batch) error {
		for _, name := range slices.Sorted(maps.Keys(pairs)) {
			if name == "" || len(name) > index.MaxKey {
				return fmt.Errorf("%w: key of %d bytes: give 1 to %d", index.ErrInvalid, len(name), index.MaxKey)
			}
			key, v := nameKey(tagKV, name), pairs[name]
			if b.Len()+len(v) > maxBatch {
				return fmt.Errorf("%w: more than %d MB in one put; split it", index.ErrInvalid, maxBatch>>20)
			}
			if err := b.Set(key, seal(key, append(make([]byte, 4, 4+len(v)), v...)), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (k kv) Delete(ctx context.Context, keys ...string) error {
	return k.change(ctx, func(b *pebble.Batch) error {
		for _, name := range keys {
			if err := b.Delete(nameKey(tagKV, name), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (k kv) DeletePrefix(ctx context.Context, prefix string) error {
	return k.change(ctx, func(b *pebble.Batch) error {
		lo := nameKey(tagKV, prefix)
		return b.DeleteRange(lo, prefixEnd(lo), nil)
	})
}

func (k kv) change(ctx context.Context, build func(b *pebble.Batch) error) error {
	if err := k.s.begin(ctx); err != nil {
		return err
	}
	defer k.s.ops.RUnlock()
	b := k.s.db.NewBatch()
	if err := build(b); err != nil {
		closeQuietly(b)
		return err
	}
	if b.Empty() {
		closeQuietly(b)
		return nil
	}
	if err := k.s.commit(b); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	closeQuietly(b)
	return nil
}

func (k kv) List(prefix string, limit int, after string) ([]index.Pair, error) {
	if err := k.s.begin(context.Background()); err != nil {
		return nil, err
	}
	defer k.s.ops.RUnlock()
	var out []index.Pair
	err := k.s.scan(nameKey(tagKV, prefix), nameKey(tagKV, after), func(key, body []byte) (bool, error) {
		out = append(out, index.Pair{Key: string(key[1:]), Value: append([]byte{}, body...)})
		return limit <= 0 || len(out) < limit, nil
	})
	return out, err
}
