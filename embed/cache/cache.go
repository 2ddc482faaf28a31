// Package cache keeps vectors by the content of their texts, so that a text seen before costs a look-up
// instead of a run of the model.
//
// [Cache] maps a [Key] to an [Entry], bounded in bytes in memory (the least recently used goes first) and, if
// a folder is given, on disk. [Encoder] puts a Cache in front of a model or queue with the same methods: the
// answers are those of the encoder, bit for bit, as a text's vector depends on the model and the text alone.
// The key is the SHA-256 of everything that decides a vector: the model's stamp, precision, pooling and
// token limit, the prompt, and the text or its token ids.
//
// On disk a record carries its key and a checksum. A record that is torn or damaged is counted and never
// served. Records are not synced: what a crash takes is encoded again. A folder belongs to one Cache at a
// time, and to one kind of machine: another CPU may round the last bit of an fp32 sum differently.
package cache

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Key names one text for one model.
type Key [32]byte

// Entry is what an encoder says of one text. A vector given to or got from a Cache is copied.
type Entry struct {
	Vector    []float32
	Tokens    int // tokens used, specials included
	Truncated bool
}

// Options size a Cache.
type Options struct {
	// MaxBytes bounds what is kept in memory, the cache's own book-keeping included; at least 1.
	MaxBytes int64
	// Dir is the folder for the part on disk; "" keeps none.
	Dir string
	// MaxDiskBytes bounds the files in Dir; at least 1 where Dir is given.
	MaxDiskBytes int64
}

// Stats counts since the start, but for the last three, which are the state now.
type Stats struct {
	Hits      int64 // answered, from memory or disk
	DiskHits  int64 // those of them from disk
	Misses    int64
	Evictions int64 // entries dropped from memory for room
	Damaged   int64 // records on disk that were torn or damaged
	DiskFails int64 // writes to disk that failed; the cache went on without them
	Entries   int64 // in memory
	Bytes     int64 // in memory
	DiskBytes int64
}

// overhead is about what one entry costs beyond its vector: key, list element and map slot.
const overhead = 256

type item struct {
	key   Key
	entry Entry
}

func (it *item) size() int64 { return overhead + 4*int64(len(it.entry.Vector)) }

// Cache is safe for concurrent use. Close it to let go of its files.
type Cache struct {
	mu    sync.Mutex
	most  int64
	items map[Key]*list.Element // of *item
	order *list.List            // most recently used first
	disk  *disk                 // nil: none
	stats Stats
}

// Open makes a cache and reads what its folder holds.
func Open(opt Options) (*Cache, error) {
	if opt.MaxBytes < 1 {
		return nil, fmt.Errorf("cache: MaxBytes is %d, wanted at least 1", opt.MaxBytes)
	}
	c := &Cache{most: opt.MaxBytes, items: map[Key]*list.Element{}, order: list.New()}
	if opt.Dir == "" {
		return c, nil
	}
	if opt.MaxDiskBytes < 1 {
		return nil, fmt.Errorf("cache: MaxDiskBytes is %d with the folder %s, wanted at least 1", opt.MaxDiskBytes, opt.Dir)
	}
	d, damaged, err := openDisk(opt.Dir, opt.MaxDiskBytes)
	if err != nil {
		return nil, err
	}
	c.disk, c.stats.Damaged = d, damaged
	return c, nil
}

// Close lets go of the files. The cache must not be used after it.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.disk == nil {
		return nil
	}
	d := c.disk
	c.disk = nil
	return d.close()
}

// Stats is a snapshot.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Entries = int64(len(c.items))
	if c.disk != nil {
		s.DiskBytes = c.disk.bytes()
	}
	return s
}

// Get looks k up; the vector belongs to the caller.
func (c *Cache) Get(k Key) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.order.MoveToFront(e)
		c.stats.Hits++
		found := e.Value.(*item).entry
		found.Vector = slices.Clone(found.Vector)
		return found, true
	}
	if c.disk != nil {
		found, err := c.disk.get(k)
		if err == nil {
			c.stats.Hits++
			c.stats.DiskHits++
			c.keep(k, found)
			return found, true
		}
		if errors.Is(err, errDamaged) {
			c.stats.Damaged++
		}
	}
	c.stats.Misses++
	return Entry{}, false
}

// Put keeps a copy of e. A failing disk does not fail it: see Stats.DiskFails.
func (c *Cache) Put(k Key, e Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[k]; ok {
		return // the same content: the same entry
	}
	c.keep(k, e)
	if c.disk != nil && c.disk.put(k, e) != nil {
		c.stats.DiskFails++
	}
}

// keep puts a copy of e into memory and drops the oldest until it fits.
func (c *Cache) keep(k Key, e Entry) {
	e.Vector = slices.Clone(e.Vector)
	it := &item{k, e}
	if it.size() > c.most {
		return
	}
	c.items[k] = c.order.PushFront(it)
	c.stats.Bytes += it.size()
	for c.stats.Bytes > c.most {
		old := c.order.Remove(c.order.Back()).(*item)
		delete(c.items, old.key)
		c.stats.Bytes -= old.size()
		c.stats.Evictions++
	}
}
