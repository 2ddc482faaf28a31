package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kindred-search/kindred/index"
)

// KV is an index.KV in memory.
type KV struct {
	mu sync.RWMutex
	m  map[string][]byte
}

// NewKV returns an empty KV.
func NewKV() *KV { return &KV{m: map[string][]byte{}} }

// Get returns a copy of a value.
func (kv *KV) Get(key string) ([]byte, error) {
	kv.mu.RLock()
	defer kv.mu.RUnlock()
	v, ok := kv.m[key]
	if !ok {
		return nil, fmt.Errorf("key %q: %w", key, index.ErrNotFound)
	}
	return append([]byte{}, v...), nil
}

// Put stores all pairs or none.
func (kv *KV) Put(ctx context.Context, pairs map[string][]byte) error {
	for key := range pairs {
		if key == "" || len(key) > index.MaxKey {
			return fmt.Errorf("%w: key of %d bytes: give 1 to %d", index.ErrInvalid, len(key), index.MaxKey)
		}
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for key, v := range pairs {
		kv.m[key] = bytes.Clone(v)
	}
	return nil
}

// Delete removes keys.
func (kv *KV) Delete(ctx context.Context, keys ...string) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, key := range keys {
		delete(kv.m, key)
	}
	return nil
}

// DeletePrefix removes every key that begins with prefix.
func (kv *KV) DeletePrefix(ctx context.Context, prefix string) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	maps.DeleteFunc(kv.m, func(k string, _ []byte) bool { return strings.HasPrefix(k, prefix) })
	return nil
}

// List returns pairs in order of key.
func (kv *KV) List(prefix string, limit int, after string) ([]index.Pair, error) {
	kv.mu.RLock()
	defer kv.mu.RUnlock()
	var keys []string
	for k := range kv.m {
		if strings.HasPrefix(k, prefix) && k > after {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if limit > 0 {
		keys = keys[:min(limit, len(keys))]
	}
	var out []index.Pair
	for _, k := range keys {
		out = append(out, index.Pair{Key: k, Value: append([]byte{}, kv.m[k]...)})
	}
	return out, nil
}
