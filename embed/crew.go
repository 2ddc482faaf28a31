package embed

import (
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// crew is a few goroutines that share the work of one tile, for a short text
// whose answer is waited for. Handing work over by channels or a WaitGroup would
// cost as much as a phase of a short text takes (some microseconds), so helpers
// poll one word; they live only as long as the call. Nobody waits for a helper
// that the system has not scheduled: parts are claimed one by one, and the owner
// claims too.
type crew struct {
	// state is phase<<32 | parts<<16 | parts claimed. A claim is one addition,
	// and tells which phase it belongs to.
	state atomic.Uint64
	left  atomic.Int64 // parts of the phase not done yet
	work  func(part int)
	end   atomic.Bool
	wg    sync.WaitGroup
	phase uint64 // the owner's
}

// spins is how often a goroutine polls before it lets others run.
const spins = 256

// newCrew starts helpers goroutines; the owner must call stop.
func newCrew(helpers int) *crew {
	c := &crew{}
	for range helpers {
		c.wg.Go(c.help)
	}
	return c
}

// each calls work for 0..parts-1, any two of them possibly at the same time,
// and returns when all have ended. parts is below 2¹⁵. Only the owner calls it.
func (c *crew) each(parts int, work func(part int)) {
	if c == nil {
		for i := range parts {
			work(i)
		}
		return
	}
	c.work = work // helpers read it only after a claim in this phase
	c.left.Store(int64(parts))
	c.phase++
	c.state.Store(c.phase<<32 | uint64(parts)<<16)
	for c.claim() {
	}
	for n := 1; c.left.Load() > 0; n++ {
		if n%spins == 0 {
			runtime.Gosched()
		}
	}
}

// claim takes a part and does it; false when none is left.
func (c *crew) claim() bool {
	open := func(v uint64) bool { return v&0xffff < v>>16&0xffff }
	if !open(c.state.Load()) {
		return false
	}
	v := c.state.Add(1) - 1
	if !open(v) {
		return false
	}
	c.work(int(v & 0xffff))
	c.left.Add(-1)
	return true
}

func (c *crew) help() {
	for n := 1; !c.end.Load(); n++ {
		if c.claim() {
			n = 0
		} else if n%spins == 0 {
			runtime.Gosched()
		}
	}
}

// stop ends the helpers. It may be called on nil.
func (c *crew) stop() {
	if c != nil {
		c.end.Store(true)
		c.wg.Wait()
	}
}

// tempo decides whether a lone tile is shared by a crew. On idle cores a crew
// halves the time; where other processes want the cores too, its owner waits
// out their time slices and one goroutine is faster. Nothing tells the two
// apart but the clock, so tempo remembers what each way took lately for tiles of
// like size. It decides about time only: the bits are the same.
type tempo struct {
	mu    sync.Mutex
	sizes [32]struct {
		calls int
		ways  [2]lately // alone, together
	}
}

// lately holds what the newest calls took, in seconds a row.
type lately struct {
	took  [5]float64
	calls int
}

// retryEvery is the number of calls after which the way that was slower is tried
// again.
const retryEvery = 16

// together says whether the next tile of so many rows is for a crew. It compares
// medians, so that one call that the system interrupted changes nothing; and
// where the crew was found to be faster again, it doesn't wait for the median
// to follow.
func (t *tempo) together(rows int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.sizes[bits.Len32(uint32(rows))%len(t.sizes)]
	s.calls++
	alone, crew := &s.ways[0], &s.ways[1]
	if alone.calls == 0 || crew.calls == 0 {
		return crew.calls == 0
	}
	usual := alone.median()
	faster := crew.median() <= usual || crew.newest() <= usual
	return faster != (s.calls%retryEvery == 0)
}

// note records what a tile took.
func (t *tempo) note(rows int, together bool, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, way := &t.sizes[bits.Len32(uint32(rows))%len(t.sizes)], 0
	if together {
		way = 1
	}
	l := &s.ways[way]
	l.took[l.calls%len(l.took)] = took.Seconds() / float64(max(rows, 1))
	l.calls++
}

func (l *lately) newest() float64 { return l.took[(l.calls-1)%len(l.took)] }

func (l *lately) median() float64 {
	var sorted [len(l.took)]float64
	n := copy(sorted[:], l.took[:min(l.calls, len(l.took))])
	slices.Sort(sorted[:n])
	return sorted[n/2]
}
