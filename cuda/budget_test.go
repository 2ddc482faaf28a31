package cuda

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memoryOnly is a backend that has nothing but memory.
type memoryOnly struct {
	backend
	mu         sync.Mutex
	left, size int64
	next       uint64
	all        map[uint64]int64
}

func (m *memoryOnly) alloc(n int64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.left {
		return 0, ErrOutOfMemory
	}
	m.left -= n
	m.next++
	m.all[m.next] = n
	return m.next, nil
}

func (m *memoryOnly) free(at uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += m.all[at]
	delete(m.all, at)
	return nil
}

func (m *memoryOnly) memory() (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left, m.size, nil
}

func (m *memoryOnly) close() error { return nil }

// withMemory is a device of so many bytes, and its clock.
func withMemory(t *testing.T, bytes int64) (*Device, *atomic.Int64) {
	t.Helper()
	d, err := start(func() (backend, Info, error) {
		return &memoryOnly{left: bytes, size: bytes, all: map[uint64]int64{}}, Info{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := &atomic.Int64{}
	d.budget.now = func() time.Time { return time.Unix(clock.Load(), 0) }
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, clock
}

// crowd is a population in miniature: pieces of 10 bytes.
type crowd struct {
	t      *testing.T
	d      *Device
	h      *Holder
	size   int64
	mu     sync.Mutex
	pieces []*Buffer
	moved  int // pieces that were put on the device
}

const pieceBytes = 10

func newCrowd(t *testing.T, d *Device, size int64) *crowd {
	c := &crowd{t: t, d: d, size: size}
	c.h = d.Hold(c.give)
	t.Cleanup(c.close)
	return c
}

func (c *crowd) close() {
	c.give(1<<40, 1<<40)
	c.h.Close()
}

func (c *crowd) give(least, most int64) (freed int64) {
	if !c.mu.TryLock() {
		return 0
	}
	defer c.mu.Unlock()
	for freed < least && freed+pieceBytes <= most && len(c.pieces) > 0 {
		if err := c.pieces[len(c.pieces)-1].Free(); err != nil {
			c.t.Error(err)
		}
		c.pieces = c.pieces[:len(c.pieces)-1]
		freed += pieceBytes
	}
	c.h.Holds(int64(len(c.pieces)) * pieceBytes)
	return freed
}

// pass puts as many pieces on the device as there is room for, and says how many it has.
func (c *crowd) pass() int {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.h.Use(c.t.Context(), c.size, 0); err != nil {
		c.t.Fatal(err)
	}
	for int64(len(c.pieces)) < c.size/pieceBytes {
		ok, err := c.h.Room(c.t.Context(), pieceBytes)
		if err != nil {
			c.t.Fatal(err)
		}
		if !ok {
			break
		}
		b, err := c.d.Alloc("rows", pieceBytes)
		if err != nil {
			c.t.Fatal(err)
		}
		c.pieces = append(c.pieces, b)
		c.moved++
		c.h.Holds(int64(len(c.pieces)) * pieceBytes)
	}
	return len(c.pieces)
}

func (c *crowd) has() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pieces)
}

// TestShares: populations in use have memory by their sizes, whoever came first, and what is
// not used for long gives way.
func TestShares(t *testing.T) {
	d, clock := withMemory(t, 1000)
	first := newCrowd(t, d, 2000)
	if n := first.pass(); n != 100 {
		t.Fatalf("alone: %d pieces", n)
	}
	second := newCrowd(t, d, 500)
	// A fifth of all that is in use is its.
	if a, b := second.pass(), first.has(); a != 20 || b != 80 {
		t.Fatalf("two: %d and %d pieces", b, a)
	}
	for range 10 {
		clock.Add(30)
		first.pass()
		second.pass()
	}
	if first.moved != 100 || second.moved != 20 {
		t.Errorf("in turns, pieces were moved %d and %d times: they take from each other", first.moved, second.moved)
	}
	// The first is left alone for long.
	clock.Add(int64(idleAfter/time.Second) + 1)
	if a, b := second.pass(), first.has(); a != 50 || b != 50 {
		t.Errorf("after long: %d and %d pieces: %v", b, a, d.budget)
	}
	// It comes back, and has its share.
	if a, b := first.pass(), second.has(); a != 80 || b != 20 {
		t.Errorf("back again: %d and %d pieces: %v", a, b, d.budget)
	}
	second.close()
	if a := first.pass(); a != 100 {
		t.Errorf("alone again: %d pieces", a)
	}
}

// TestNothingThrashes: whatever the sizes, populations that are used in any order stop
// to move pieces once each has had a turn or two.
func TestNothingThrashes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		d, clock := withMemory(t, 300+rng.Int64N(1000))
		var all []*crowd
		for range 2 + rng.IntN(4) {
			all = append(all, newCrowd(t, d, pieceBytes*(1+rng.Int64N(150))))
		}
		moved := func() (n int) {
			for _, c := range all {
				n += c.moved
			}
			return n
		}
		for range 2 {
			for _, c := range all {
				c.pass()
			}
		}
		settled := moved()
		for range 30 {
			clock.Add(rng.Int64N(15))
			all[rng.IntN(len(all))].pass()
		}
		// What is left over where shares are rounded to pieces may still go to some of them.
		if more := moved() - settled; more > len(all)*len(all) {
			t.Errorf("%d pieces were moved after all had settled with %d: %v", more, settled, d.budget)
		}
	}
}

// TestLease: leases wait for memory in the order of asking, can be given up meanwhile, and
// are refused, with the numbers, where there will never be enough.
func TestLease(t *testing.T) {
	d, _ := withMemory(t, 1000)
	ctx := t.Context()
	a, err := d.Lease(ctx, Ask{Least: 600, Most: 2000})
	if err != nil || a.Bytes() != 600 {
		t.Fatalf("%v, %v", a, err)
	}
	half, err := d.Lease(ctx, Ask{Least: 10, Most: 2000})
	if err != nil || half.Bytes() != 200 {
		t.Fatalf("half of what is free: %v, %v", half, err)
	}
	half.End()
	order := make(chan int, 3)
	var leases [3]*Lease
	var wg sync.WaitGroup
	for i, least := range []int64{900, 100, 700} {
		wg.Go(func() {
			l, err := d.Lease(ctx, Ask{Least: least, Most: least})
			if err != nil {
				t.Error(err)
			}
			leases[i] = l
			order <- i
		})
		waiting(t, d, i+1)
	}
	// One that gives up meanwhile.
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := d.Lease(short, Ask{Least: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	a.End()
	for i := range 3 {
		if got := <-order; got != i {
			t.Errorf("lease %d was given as number %d", got, i)
		}
		if i != 1 { // the third has room beside the second
			leases[i].End()
			leases[i].End()
		}
	}
	wg.Wait()
	leases[1].End()
	var full *OutOfMemoryError
	if _, err := d.Lease(ctx, Ask{What: "a pass", Least: 1001}); !errors.As(err, &full) || full.Asked != 1001 || full.Free != 1000 || full.Total != 1000 || full.Purpose != "a pass" {
		t.Errorf("too much: %v", err)
	}
	if s := d.budget.String(); !strings.HasPrefix(s, "0 leased, 0 wait") {
		t.Error(s)
	}
}

// waiting waits until so many leases are asked for.
func waiting(t *testing.T, d *Device, n int) {
	t.Helper()
	for range 1000 {
		d.budget.turn <- struct{}{}
		have := len(d.budget.queue)
		<-d.budget.turn
		if have == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d leases never wait", n)
}

// TestLeasedOnce: memory that is allocated under a lease is not taken off twice.
func TestLeasedOnce(t *testing.T) {
	d, _ := withMemory(t, 1000)
	ask := Ask{Purposes: []string{"scores"}, Least: 400, Most: 400}
	a, err := d.Lease(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Alloc("scores", 400)
	if err != nil {
		t.Fatal(err)
	}
	ask.Least, ask.Most = 600, 600
	c, err := d.Lease(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
	a.End()
	c.End()
}

// TestGivesWay: who needs memory has it of those that used it longest ago; a lease of all,
// an allocation of those that are not at work.
func TestGivesWay(t *testing.T) {
	d, clock := withMemory(t, 1000)
	var all []*crowd
	for range 3 {
		c := newCrowd(t, d, 300)
		c.pass()
		clock.Add(1)
		all = append(all, c)
	}
	all[0].pass() // the second is now the oldest
	has := func() (n []int) {
		for _, c := range all {
			n = append(n, c.has())
		}
		return n
	}
	l, err := d.Lease(t.Context(), Ask{Least: 450, Most: 450})
	if err != nil {
		t.Fatal(err)
	}
	if n := has(); !slices.Equal(n, []int{30, 0, 25}) {
		t.Errorf("after a lease of 450 they have %d pieces", n)
	}
	l.End()
	all[2].mu.Lock() // at work
	b, err := d.Alloc("weights", 500)
	all[2].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if n := has(); !slices.Equal(n, []int{25, 0, 25}) {
		t.Errorf("after an allocation of 500 they have %d pieces", n)
	}
	var full *OutOfMemoryError
	if _, err := d.Alloc("weights", 501); !errors.As(err, &full) || full.Free != 500 || full.Held["weights"] != 500 || !strings.Contains(err.Error(), "held here: 500 for weights") {
		t.Errorf("more than there is beside the weights: %v", err)
	}
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
	// Rows leave free what the holders need for their work.
	if err := all[1].h.Use(t.Context(), 300, 600); err != nil {
		t.Fatal(err)
	}
	for i, c := range all {
		if i != 1 {
			c.pass()
		}
	}
	if free, _, err := d.Memory(); err != nil || free < 600 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
}

// TestManyHolders: leases, rows and allocations of many goroutines at once.
func TestManyHolders(t *testing.T) {
	d, _ := withMemory(t, 1000)
	var wg sync.WaitGroup
	for i := range 4 {
		c := newCrowd(t, d, 100*int64(i+2))
		wg.Go(func() {
			for range 50 {
				l, err := d.Lease(t.Context(), Ask{What: fmt.Sprint(i), Purposes: []string{"scores"}, Least: 300, Most: 300})
				if err != nil {
					t.Error(err)
					return
				}
				b, err := d.Alloc("scores", 200)
				if err != nil {
					t.Error(err)
				}
				if err := b.Free(); err != nil {
					t.Error(err)
				}
				l.End()
				c.mu.Lock()
				err = c.h.Use(t.Context(), c.size, 300)
				if ok, e := c.h.Room(t.Context(), pieceBytes); ok && e == nil {
					if b, e := d.Alloc("rows", pieceBytes); e == nil {
						c.pieces = append(c.pieces, b)
						c.h.Holds(int64(len(c.pieces)) * pieceBytes)
					}
				} else if e != nil {
					err = e
				}
				c.mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := d.budget.String(); !strings.HasPrefix(s, "0 leased, 0 wait") {
		t.Error(s)
	}
}
