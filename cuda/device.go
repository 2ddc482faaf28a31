package cuda

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Info describes a device.
type Info struct {
	Ordinal    int
	Name       string
	Major      int // compute capability
	Minor      int
	Memory     int64 // bytes
	Processors int   // streaming multiprocessors
	// SharedPerBlock is the most dynamic shared memory that a block can have, bytes.
	SharedPerBlock int
	// Simulated devices compute on the CPU, slowly, for tests.
	Simulated bool
}

// Status is what [Probe] found.
type Status struct {
	Built   bool   // with the tag cuda
	Driver  string // version of the interface, such as "13.0"; "" without a driver
	Problem string // why there are no devices, "" where there are some
	Devices []Info
}

// Probe looks for devices and starts nothing on them.
func Probe() Status { return probe() }

// backend is a device's driver. Its methods are called on the device's thread
// alone. Addresses are of the device's memory.
type backend interface {
	alloc(n int64) (uint64, error)
	free(at uint64) error
	memory() (free, total int64, err error)
	pin(n int) ([]byte, error)
	unpin(p []byte) error
	upload(dst uint64, src []byte) error
	download(dst []byte, src uint64) error
	uploadPinned(dst uint64, src []byte) error   // goes on after it returns
	downloadPinned(dst []byte, src uint64) error // as well
	zero(dst uint64, n int64) error
	copy(dst, src uint64, n int64) error // within the device
	load(name string, image []byte) error
	launch(kernel string, l Launch, args []uint64) error
	mark(i int) error                  // records event i, one of those below, in the order of the work
	reached(i int) error               // waits for event i
	between(i, j int) (float64, error) // seconds from event i to j, after both
	wait() error                       // for all work
	close() error
}

// Events of a device: of the beginning and end of a call of [Device.Do], of the slots of
// [Queue.Mark], of a kernel that is traced, of an upload, which is the backend's, and of the kernels
// of a call that are timed.
const (
	eventDo      = 0
	eventSlot    = 2
	eventTrace   = eventSlot + Slots
	eventArrived = eventTrace + 2
	eventTimed   = eventArrived + 1
	events       = eventTimed + 2*timedMost
)

// Device is an open device. It is safe for concurrent use.
type Device struct {
	info  Info
	b     backend
	work  chan func()
	ended chan struct{}

	// gate is held, shared, while work is handed over, so that the channel is not
	// closed meanwhile; mu is taken on the device's thread too, gate never.
	gate   sync.RWMutex
	closed bool

	mu   sync.Mutex
	lost error
	held map[*Buffer]struct{}
	// Of each kernel, while they are traced.
	traced map[string]Traced

	budget *budget
	clock  clock // of the device's thread, but for its counts
	metrics
}

type metrics struct {
	bytes, peak, uploaded, downloaded, launches, nanos atomic.Int64
}

// Metrics are a device's counts since it was opened.
type Metrics struct {
	Allocated, Peak      int64 // bytes held now and at most
	Uploaded, Downloaded int64 // bytes
	Launches             int64
	// Kernels is how long the device worked, by its own events, in calls of
	// [Device.Do].
	Kernels time.Duration
	// Held is how many bytes each purpose holds.
	Held map[string]int64
	// Each is what each kernel has done: its launches, and how long they took as some of them
	// that were timed say, about one in 16.
	Each map[string]Traced
}

// Traced is what one kernel has done.
type Traced struct {
	Launches int64
	Time     time.Duration // by the device's events
}

// Trace begins to time each kernel by itself, and returns what was timed since it was called
// before. It is for finding where time goes: every launch is then waited for.
func (d *Device) Trace() map[string]Traced {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.traced
	d.traced = map[string]Traced{}
	return was
}

// Open opens the device of that number, counted from 0, and loads the kernels.
func Open(ordinal int) (*Device, error) {
	d, err := start(func() (backend, Info, error) { return open(ordinal) })
	if err != nil {
		return nil, err
	}
	if err := d.on(func() error { return loadAll(d.b) }); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// start is a device over the backend that open makes on the device's thread.
func start(open func() (backend, Info, error)) (*Device, error) {
	d := &Device{work: make(chan func()), ended: make(chan struct{}), held: map[*Buffer]struct{}{}}
	d.budget = newBudget(d)
	d.clock = clock{kernels: map[string]*kernel{}}
	opened := make(chan error)
	go func() {
		defer close(d.ended)
		// A context of the driver's belongs to a thread. The thread is not given
		// back: what the driver keeps in it dies with it.
		runtime.LockOSThread()
		b, info, err := open()
		d.b, d.info = b, info
		opened <- err
		if err != nil {
			return
		}
		for f := range d.work {
			f()
		}
	}()
	if err := <-opened; err != nil {
		return nil, err
	}
	return d, nil
}

// Info describes the device.
func (d *Device) Info() Info { return d.info }

// Metrics returns the counts so far.
func (d *Device) Metrics() Metrics {
	m := Metrics{
		Allocated: d.bytes.Load(), Peak: d.peak.Load(), Uploaded: d.uploaded.Load(), Downloaded: d.downloaded.Load(),
		Launches: d.launches.Load(), Kernels: time.Duration(d.nanos.Load()), Held: map[string]int64{},
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := range d.held {
		m.Held[b.purpose] += b.size
	}
	m.Each = d.clock.each()
	return m
}

// on runs f on the device's thread. After an error that loses the device every
// further call answers that error.
func (d *Device) on(f func() error) error { return d.onWhile(context.Background(), f) }

// onWhile is on that does not wait for its turn once ctx has ended.
func (d *Device) onWhile(ctx context.Context, f func() error) error {
	d.gate.RLock()
	if d.closed {
		d.gate.RUnlock()
		return ErrClosed
	}
	done := make(chan error, 1)
	work := func() {
		if err := d.failed(); err != nil {
			done <- err
			return
		}
		err := f()
		if isLost(err) {
			d.mu.Lock()
			d.lost = err
			d.mu.Unlock()
		}
		done <- err
	}
	select {
	case d.work <- work:
	case <-ctx.Done():
		d.gate.RUnlock()
		return ctx.Err()
	}
	d.gate.RUnlock()
	return <-done
}

// Err is the error that lost the device, nil while there is none.
func (d *Device) Err() error { return d.failed() }

// failed is the error that lost the device, nil while there is none.
func (d *Device) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// Close frees everything and gives the device back. It reports buffers that were
// not freed, by purpose. A second call does nothing.
func (d *Device) Close() error {
	d.gate.Lock()
	if d.closed {
		d.gate.Unlock()
		return nil
	}
	d.closed = true
	d.gate.Unlock()
	d.mu.Lock()
	var left []string
	for b := range d.held {
		left = append(left, fmt.Sprintf("%d bytes for %s", b.size, b.purpose))
	}
	lost := d.lost != nil
	d.mu.Unlock()
	done := make(chan error, 1)
	d.work <- func() { done <- d.b.close() }
	err := <-done
	close(d.work)
	<-d.ended
	if lost { // nothing of it can be given back
		err, left = nil, nil
	}
	if err == nil && len(left) > 0 {
		sort.Strings(left)
		err = fmt.Errorf("CUDA device %d was closed while it held %s", d.info.Ordinal, strings.Join(left, ", "))
	}
	return err
}

// Buffer is memory of a device.
type Buffer struct {
	d       *Device
	purpose string
	at      uint64
	size    int64
}

// Alloc allocates size bytes, above 0, of undefined contents. The purpose names
// them in metrics and errors. Where memory lacks, holders give way: see [Device.Hold].
func (d *Device) Alloc(purpose string, size int64) (*Buffer, error) {
	if size < 1 {
		return nil, fmt.Errorf("CUDA device %d: %d bytes for %s: want at least one", d.info.Ordinal, size, purpose)
	}
	b := &Buffer{d: d, purpose: purpose, size: size}
	for {
		var free, total int64
		err := d.on(func() (err error) {
			if b.at, err = d.b.alloc(size); isOutOfMemory(err) {
				free, total, _ = d.b.memory()
			}
			return err
		})
		if err == nil {
			break
		}
		if !isOutOfMemory(err) {
			return nil, err
		}
		if !d.budget.reclaim(size) {
			return nil, d.full(purpose, size, free, total)
		}
	}
	d.mu.Lock()
	d.held[b] = struct{}{}
	d.mu.Unlock()
	n := d.bytes.Add(size)
	for p := d.peak.Load(); n > p && !d.peak.CompareAndSwap(p, n); p = d.peak.Load() {
	}
	return b, nil
}

// Size returns the buffer's bytes.
func (b *Buffer) Size() int64 { return b.size }

// Free gives the memory back. It may be called on nil, and again; of a lost or
// closed device there is nothing to give back.
func (b *Buffer) Free() error {
	if b == nil {
		return nil
	}
	d := b.d
	d.mu.Lock()
	_, held := d.held[b]
	delete(d.held, b)
	d.mu.Unlock()
	if !held {
		return nil
	}
	d.bytes.Add(-b.size)
	err := d.on(func() error { return d.b.free(b.at) })
	if errors.Is(err, ErrClosed) || isLost(err) {
		return nil
	}
	return err
}

// Memory returns the free and all bytes of the device.
func (d *Device) Memory() (free, total int64, err error) {
	err = d.on(func() (err error) { free, total, err = d.b.memory(); return err })
	return free, total, err
}

// Do runs work, in which the methods of Queue order what the device does, one
// after the other, and waits until the device has done it. Other calls of this
// device wait meanwhile, so a long work should be several, and work must not call any. An error of work, or of
// the device, is returned; ctx is asked until it begins.
func (d *Device) Do(ctx context.Context, work func(q *Queue) error) error {
	return d.onWhile(ctx, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		q := &Queue{d: d}
		d.clock.begin()
		if err := d.b.mark(eventDo); err != nil {
			return err
		}
		err := work(q)
		if !isLost(err) {
			// Also after an error: nothing may go on that reads a caller's memory.
			if e := d.b.mark(eventDo + 1); e != nil && err == nil {
				err = e
			}
			if e := d.b.wait(); e != nil && (err == nil || isLost(e)) {
				err = e
			}
		}
		if err == nil {
			s, e := d.b.between(eventDo, eventDo+1)
			d.nanos.Add(int64(s * 1e9))
			err = errors.Join(e, d.clock.end(d.b))
		}
		return err
	})
}
