package index

import "context"

// Pair is one entry of a KV.
type Pair struct {
	Key   string
	Value []byte
}

// KV is a small ordered key-value store for what belongs beside the customers:
// schemas, audiences, jobs. It shares the durability of the Store it comes
// from. Keys are 1 to 1024 bytes and ordered bytewise. Methods are safe for
// concurrent use. The caller owns every returned slice, and the store keeps
// none that it is given.
type KV interface {
	// Get returns the value of a key. ErrNotFound when there is none,
	// ErrCorrupt when its checksum does not match.
	Get(key string) ([]byte, error)
	// Put writes all pairs or none. When it returns nil they survive kill -9.
	Put(ctx context.Context, pairs map[string][]byte) error
	// Delete removes keys, all or none. Absent keys are no error.
	Delete(ctx context.Context, keys ...string) error
	// DeletePrefix removes every key that begins with prefix.
	DeletePrefix(ctx context.Context, prefix string) error
	// List returns up to limit pairs (all when limit <= 0) whose keys begin
	// with prefix and are greater than after, in order of key.
	List(prefix string, limit int, after string) ([]Pair, error)
}

// MaxKey is the longest key of a KV, in bytes.
const MaxKey = 1024
