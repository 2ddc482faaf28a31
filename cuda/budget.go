package cuda

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// idleAfter is for how long a holder that is not used keeps its share of the memory: long
// beside what it takes to copy the rows again, short beside a working day.
const idleAfter = 10 * time.Minute

// budget shares out a device's memory among those that hold some for long and give it up on
// demand, the rows of populations, and those that need some for a while, passes and models.
// The rules, which docs/adr/0018-device-memory.md argues for:
//
//   - What a pass needs is leased. Where it is not free beside the leases of others, it waits
//     for them, in the order of asking; where there are none, holders give way, least recently
//     used first; where even that is not enough, it is refused with the numbers.
//   - Rows are put on the device where the largest need of all holders stays free, or beside
//     it what is leased. For them holders give way that were not used for [idleAfter]; and
//     those that were, down to their share of what all rows may take, by size, for one that is
//     below its share. Nobody is taken below its share for another's rows, so that two
//     populations in use never take from each other in turn.
//   - An allocation that fails all the same has holders give way, those that are not at work.
type budget struct {
	d   *Device
	now func() time.Time

	turn    chan struct{} // full while somebody plans: all that follows is its
	holders []*Holder
	queue   []*asking // for leases, in order
	leased  int64
	working map[string]bool // purposes of what is allocated under leases
}

// asking is who waits for a lease.
type asking struct{ again chan struct{} }

// Holder is one that keeps memory of a device which it can give up: a population.
type Holder struct {
	b    *budget
	give func(least, most int64) int64
	held atomic.Int64

	// Of who plans.
	used       time.Time
	size, need int64
}

// Lease is memory that is kept free for a while.
type Lease struct {
	b     *budget
	bytes int64
}

func newBudget(d *Device) *budget {
	return &budget{d: d, now: time.Now, turn: make(chan struct{}, 1), working: map[string]bool{}}
}

// begin waits for the turn to plan.
func (b *budget) begin(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *budget) end() { <-b.turn }

// Hold makes a holder. Give frees at least so many bytes, or as many as there are where that is
// less, but no more than most, and says how many. It may be called whenever the holder
// asks for nothing of the device, by other goroutines; it waits for nothing, and gives
// nothing up while the memory is in use.
func (d *Device) Hold(give func(least, most int64) int64) *Holder {
	h := &Holder{b: d.budget, give: give}
	_ = h.b.begin(context.Background())
	defer h.b.end()
	h.used = h.b.now()
	h.b.holders = append(h.b.holders, h)
	return h
}

// Close ends the holder, which has freed what it held.
func (h *Holder) Close() {
	_ = h.b.begin(context.Background())
	defer h.b.end()
	h.b.holders = slices.DeleteFunc(h.b.holders, func(x *Holder) bool { return x == h })
	h.b.wake()
}

// Holds notes how many bytes it could give up.
func (h *Holder) Holds(bytes int64) { h.held.Store(bytes) }

// Use notes that the holder is in use: how many bytes it would hold if all fitted, and how
// many have to be free when it works.
func (h *Holder) Use(ctx context.Context, size, need int64) error {
	if err := h.b.begin(ctx); err != nil {
		return err
	}
	defer h.b.end()
	h.used, h.size, h.need = h.b.now(), size, need
	return nil
}

// Room says whether the holder may allocate so many bytes to hold, after others have given
// way where they have to.
func (h *Holder) Room(ctx context.Context, bytes int64) (bool, error) {
	b := h.b
	if err := b.begin(ctx); err != nil {
		return false, err
	}
	defer b.end()
	free, err := b.forRows()
	if err != nil {
		return false, err
	}
	oldest := b.now().Add(-idleAfter)
	for _, o := range b.byUse() {
		if free < bytes && o != h && o.used.Before(oldest) {
			free += o.give(bytes-free, o.held.Load())
		}
	}
	if free >= bytes {
		return true, nil
	}
	all, sizes := free, int64(0)
	for _, o := range b.holders {
		all += o.held.Load()
		if !o.used.Before(oldest) {
			sizes += o.size
		}
	}
	share := func(o *Holder) int64 { return int64(float64(max(all, 0)) * float64(o.size) / float64(max(sizes, 1))) }
	if h.held.Load()+bytes > share(h) {
		return false, nil
	}
	for _, o := range b.byUse() {
		if spare := o.held.Load() - share(o); free < bytes && o != h && spare > 0 {
			free += o.give(bytes-free, spare)
		}
	}
	return free >= bytes, nil
}

// byUse are the holders, the one that was used longest ago first.
func (b *budget) byUse() []*Holder {
	out := slices.Clone(b.holders)
	slices.SortStableFunc(out, func(x, y *Holder) int { return x.used.Compare(y.used) })
	return out
}

// free is what would be free if nothing were leased, and of all.
func (b *budget) free() (free, total int64, err error) {
	free, total, err = b.d.Memory()
	if err != nil {
		return 0, 0, err
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	for x := range b.d.held {
		if b.working[x.purpose] {
			free += x.size
		}
	}
	return free, total, nil
}

// forRows is what rows may take of what is free.
func (b *budget) forRows() (int64, error) {
	free, _, err := b.free()
	need := b.leased
	for _, h := range b.holders {
		need = max(need, h.need)
	}
	return free - need, err
}

// Ask is for a lease.
type Ask struct {
	// What names it in errors, and Purposes are those of the buffers that are allocated under
	// such leases and freed before they end, if any.
	What     string
	Purposes []string
	// Least is how many bytes there must be, and Most how many are of use. It gets no more
	// than half of what is free, or Least.
	Least, Most int64
}

// Lease waits until memory is free, and keeps it free of others' leases, and of rows, until
// [Lease.End]. An error is that of ctx, of the device, or an [*OutOfMemoryError]. Who
// has a lease must not ask for another.
func (d *Device) Lease(ctx context.Context, ask Ask) (*Lease, error) {
	b := d.budget
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	for _, p := range ask.Purposes {
		b.working[p] = true
	}
	w := &asking{again: make(chan struct{}, 1)}
	b.queue = append(b.queue, w)
	for {
		if b.queue[0] == w {
			l, err := b.grant(&ask)
			if l != nil || err != nil {
				b.leave(w)
				b.end()
				return l, err
			}
		}
		b.end()
		select {
		case <-w.again:
		case <-ctx.Done():
		}
		_ = b.begin(context.Background()) // who plans waits for no pass
		if err := ctx.Err(); err != nil {
			b.leave(w)
			b.end()
			return nil, err
		}
	}
}

// grant gives the lease, or neither that nor an error where it has to wait for others to end.
func (b *budget) grant(ask *Ask) (*Lease, error) {
	free, total, err := b.free()
	free -= b.leased
	if err == nil && free < ask.Least && b.leased == 0 {
		for _, h := range b.byUse() {
			if free < ask.Least {
				free += h.give(ask.Least-free, h.held.Load())
			}
		}
	}
	switch {
	case err != nil:
		return nil, err
	case free >= ask.Least:
		l := &Lease{b, min(max(ask.Least, free/2), max(ask.Least, ask.Most))}
		b.leased += l.bytes
		return l, nil
	case b.leased > 0:
		return nil, nil
	}
	return nil, b.d.full(ask.What, ask.Least, free, total)
}

// leave takes one out of the queue and wakes the next.
func (b *budget) leave(w *asking) {
	b.queue = slices.DeleteFunc(b.queue, func(x *asking) bool { return x == w })
	b.wake()
}

// wake has the first in the queue look again.
func (b *budget) wake() {
	if len(b.queue) > 0 {
		select {
		case b.queue[0].again <- struct{}{}:
		default:
		}
	}
}

// Bytes is how many the lease is of.
func (l *Lease) Bytes() int64 { return l.bytes }

// End gives the lease back. It may be called on nil, and again.
func (l *Lease) End() {
	if l == nil {
		return
	}
	_ = l.b.begin(context.Background())
	defer l.b.end()
	l.b.leased -= l.bytes
	l.bytes = 0
	l.b.wake()
}

// reclaim has holders that are not at work give up what an allocation lacks, and reports
// whether any did.
func (b *budget) reclaim(bytes int64) bool {
	_ = b.begin(context.Background())
	defer b.end()
	free, _, err := b.d.Memory()
	if err != nil {
		return false
	}
	// Where there is enough in all, it lies in pieces: some more may join them.
	lacks, freed := max(bytes-free, 1), int64(0)
	for _, h := range b.byUse() {
		if freed < lacks {
			freed += h.give(lacks-freed, h.held.Load())
		}
	}
	return freed > 0
}

// full is the error of memory that is not there.
func (d *Device) full(what string, asked, free, total int64) error {
	return &OutOfMemoryError{Device: d.info.Ordinal, Purpose: what, Asked: asked, Free: max(free, 0), Total: total, Held: d.Metrics().Held}
}

// String says what is planned, for tests.
func (b *budget) String() string {
	s := fmt.Sprintf("%d leased, %d wait", b.leased, len(b.queue))
	for _, h := range b.byUse() {
		s += fmt.Sprintf(", %d of %d held", h.held.Load(), h.size)
	}
	return s
}
