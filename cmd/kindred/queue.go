package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/cache"
)

// cacheFlags size the server's cache of vectors.
type cacheFlags struct{ memory, disk string }

func (f *cacheFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.memory, "cache", "64MiB", "memory for vectors of texts seen before; 0 for none")
	flags.StringVar(&f.disk, "cache-disk", "0", "disk for such vectors, in the data directory; 0 for none")
}

// open makes the cache, nil where there is to be none.
func (f *cacheFlags) open(dir string) (*cache.Cache, error) {
	if *f == (cacheFlags{}) { // a server that a command starts for itself
		*f = cacheFlags{"64MiB", "0"}
	}
	memory, err := parseBytes(f.memory)
	if err != nil {
		return nil, usagef("--cache %q: %v", f.memory, err)
	}
	disk, err := parseBytes(f.disk)
	if err != nil {
		return nil, usagef("--cache-disk %q: %v", f.disk, err)
	}
	if memory == 0 {
		if disk > 0 {
			return nil, usagef("--cache-disk needs --cache: the disk stands behind the memory")
		}
		return nil, nil
	}
	opt := cache.Options{MaxBytes: memory}
	if disk > 0 {
		opt.Dir, opt.MaxDiskBytes = filepath.Join(dir, "vectors"), disk
	}
	c, err := cache.Open(opt)
	if err != nil {
		return nil, fmt.Errorf("cache of vectors: %w", err)
	}
	return c, nil
}

// queued is a model behind a queue and, where there is one, a cache.
type queued struct {
	*cache.Encoder
	queue *embed.Queue
}

// Close ends the queue. The cache is the server's.
func (q *queued) Close() error { return q.queue.Close() }

// openQueue opens a model of the cache behind a queue, which joins the texts
// of concurrent requests and refuses what it cannot take.
func (a *app) openQueue(vectors *cache.Cache) func(context.Context, string) (collection.Encoder, error) {
	return func(_ context.Context, name string) (collection.Encoder, error) {
		m, err := a.openCached(name)
		if err != nil {
			return nil, err
		}
		q := embed.NewQueue(m, embed.QueueOptions{})
		if vectors == nil {
			return q, nil
		}
		return &queued{cache.NewEncoder(q, vectors), q}, nil
	}
}
