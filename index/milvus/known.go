package milvus

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
)

// known keeps what was last read of the key-value space, for while Milvus is away: who
// may ask and what a collection is are in there, and searches on the mirror need both.
// It is never looked at while Milvus answers. What this process writes takes out what it
// touches.
type known struct {
	mu    sync.Mutex
	bytes int
	list  map[knownKey]knownValue
	order []knownKey // oldest first
}

type knownKey struct {
	prefix string // of all keys in question, or the one key
	expr   string
	limit  int
}

type knownValue struct {
	pairs []index.Pair
	at    time.Time
	bytes int
}

const (
	knownBytes = 32 << 20
	knownOne   = 1 << 20 // a read of more is not kept
	knownFor   = time.Hour
)

func newKnown() *known { return &known{list: map[knownKey]knownValue{}} }

func (k *known) keep(key knownKey, pairs []index.Pair) {
	size := len(key.prefix) + 2*len(key.expr) + 200
	for _, p := range pairs {
		size += len(p.Key) + len(p.Value) + 100
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(key)
	if size > knownOne {
		return
	}
	k.list[key] = knownValue{copied(pairs), time.Now(), size}
	k.order = append(k.order, key)
	for k.bytes += size; k.bytes > knownBytes; {
		k.drop(k.order[0])
	}
}

// drop runs under the lock.
func (k *known) drop(key knownKey) {
	v, ok := k.list[key]
	if !ok {
		return
	}
	delete(k.list, key)
	k.bytes -= v.bytes
	at := slices.Index(k.order, key)
	k.order = slices.Delete(k.order, at, at+1)
}

// last is what was read last, if that is not too long ago. The caller owns it.
func (k *known) last(key knownKey) ([]index.Pair, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.list[key]
	if !ok || time.Since(v.at) > knownFor {
		return nil, false
	}
	return copied(v.pairs), true
}

func copied(pairs []index.Pair) []index.Pair {
	out := make([]index.Pair, len(pairs))
	for i, p := range pairs {
		out[i] = index.Pair{Key: p.Key, Value: append([]byte{}, p.Value...)}
	}
	return out
}

// forget takes out what may hold a key, or keys that begin with it.
func (k *known) forget(touched string, all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.list {
		if strings.HasPrefix(touched, key.prefix) || all && strings.HasPrefix(key.prefix, touched) {
			k.drop(key)
		}
	}
}
