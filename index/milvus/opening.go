package milvus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/kindred-search/kindred/index"
)

// opening is a collection that is being read into memory. It belongs to no caller: who
// gives up leaves it to those who ask next, and the store's lock is free meanwhile.
type opening struct {
	stop context.CancelFunc
	done chan struct{}
	e    *engine // with err, after done
	err  error
}

// Open returns a collection, and reads it into memory where that was not done. When ctx
// ends first, reading goes on; after an error the next Open goes on where it stood.
func (s *Store) Open(ctx context.Context, name string) (index.Engine, error) {
	s.mu.Lock()
	if err := s.check(ctx); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if e := s.engines[name]; e != nil {
		s.mu.Unlock()
		return e, nil
	}
	o := s.opening[name]
	if o == nil {
		o = s.beginOpening(name)
	}
	s.mu.Unlock()
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if o.err != nil {
		return nil, o.err
	}
	return o.e, nil
}

// beginOpening runs under the store's lock.
func (s *Store) beginOpening(name string) *opening {
	ctx, stop := context.WithCancel(context.Background())
	o := &opening{stop: stop, done: make(chan struct{})}
	s.opening[name] = o
	go func() {
		defer close(o.done)
		defer stop()
		e, err := s.open(ctx, name)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.opening, name)
		switch {
		case err != nil:
			o.err = err
			if errors.Is(err, index.ErrNotFound) {
				s.copies.forget(name, nil)
			}
			if ctx.Err() != nil { // by Drop or Close
				why := index.ErrNotFound
				if s.closed {
					why = index.ErrClosed
				}
				o.err = fmt.Errorf("collection %q, while it was being read: %w", name, why)
			}
		default:
			o.e, s.engines[name] = e, e
		}
	}()
	return o
}

// lockFor takes the store's lock when the named collection is not being opened. drop ends
// an opening instead of waiting for it.
func (s *Store) lockFor(ctx context.Context, name string, drop bool) error {
	for {
		s.mu.Lock()
		o := s.opening[name]
		if o == nil {
			return nil
		}
		s.mu.Unlock()
		if drop {
			o.stop()
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endOpenings stops what is being opened and waits for it; the store is closed by then.
func (s *Store) endOpenings() {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.opening))
	s.mu.Unlock()
	for _, o := range list {
		o.stop()
		<-o.done
	}
}

// copies are the engines whose copies in memory are there or are being filled, for
// Health, and for a hydration that failed to go on where it stood.
type copies struct {
	mu   sync.Mutex
	list map[string]*engine
}

// half takes a copy whose hydration did not end, where it is one of the same spec.
func (c *copies) half(spec *index.Spec) *engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.list[spec.Name]
	if e == nil || !e.m.State().Hydrated.IsZero() {
		return nil
	}
	if have := e.Spec(); !reflect.DeepEqual(&have, spec) {
		return nil
	}
	return e
}

func (c *copies) add(e *engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list[e.Spec().Name] = e
}

// forget forgets a collection's copy; where one is given, only that.
func (c *copies) forget(name string, only *engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if only == nil || c.list[name] == only {
		delete(c.list, name)
	}
}

func (c *copies) all() []*engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*engine, 0, len(c.list))
	for _, name := range slices.Sorted(maps.Keys(c.list)) {
		out = append(out, c.list[name])
	}
	return out
}
