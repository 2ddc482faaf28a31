package cuda

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"
)

func isLost(err error) bool        { return errors.Is(err, ErrLost) }
func isOutOfMemory(err error) bool { return errors.Is(err, ErrOutOfMemory) }

// Queue orders work within [Device.Do]. It must not be used after.
type Queue struct{ d *Device }

// within checks that n bytes from off on lie in b and that b is of this device.
func (q *Queue) within(what string, b *Buffer, off, n int64) error {
	if b == nil || b.d != q.d {
		return fmt.Errorf("CUDA device %d: %s: a buffer of another device, or none", q.d.info.Ordinal, what)
	}
	q.d.mu.Lock()
	_, held := q.d.held[b]
	q.d.mu.Unlock()
	if !held {
		return fmt.Errorf("CUDA device %d: %s: the buffer for %s was freed", q.d.info.Ordinal, what, b.purpose)
	}
	if off < 0 || n < 0 || off > b.size-n {
		return fmt.Errorf("CUDA device %d: %s: bytes %d to %d of the buffer for %s, which has %d", q.d.info.Ordinal, what, off, off+n, b.purpose, b.size)
	}
	return nil
}

// Bytes is the memory of a slice of numbers, for [Upload] and [Download].
type number interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32 | ~float64
}

func bytesOf[T number](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(x[0])))
}

// Upload copies src to b from byte off on. src may be changed after it returns.
func Upload[T number](q *Queue, b *Buffer, off int64, src []T) error {
	raw := bytesOf(src)
	if err := q.within("upload", b, off, int64(len(raw))); err != nil || len(raw) == 0 {
		return err
	}
	q.d.uploaded.Add(int64(len(raw)))
	return q.d.b.upload(b.at+uint64(off), raw)
}

// Download copies b from byte off on to dst, after the work ordered so far.
func Download[T number](q *Queue, dst []T, b *Buffer, off int64) error {
	raw := bytesOf(dst)
	if err := q.within("download", b, off, int64(len(raw))); err != nil || len(raw) == 0 {
		return err
	}
	q.d.downloaded.Add(int64(len(raw)))
	return q.d.b.download(raw, b.at+uint64(off))
}

// UploadPinned is [Upload] of n bytes of p, from byte at on, that may go on after it
// returns: they must not be changed before [Device.Do] has ended, or [Queue.Reached] says
// that they were read.
func (q *Queue) UploadPinned(b *Buffer, off int64, p *Pinned, at, n int) error {
	if at < 0 || n < 0 || at > len(p.Bytes)-n {
		return fmt.Errorf("CUDA device %d: upload of bytes %d to %d of %d pinned ones", q.d.info.Ordinal, at, at+n, len(p.Bytes))
	}
	if err := q.within("upload", b, off, int64(n)); err != nil || n == 0 {
		return err
	}
	q.d.uploaded.Add(int64(n))
	return q.d.b.uploadPinned(b.at+uint64(off), p.Bytes[at:at+n])
}

// DownloadPinned is [Download] of n bytes to those of p from byte at on, that may go on after it
// returns: they are there when [Device.Do] has ended, or [Queue.Reached] says so of a
// [Queue.Mark] behind it.
func (q *Queue) DownloadPinned(p *Pinned, at int, b *Buffer, off int64, n int) error {
	if at < 0 || n < 0 || at > len(p.Bytes)-n {
		return fmt.Errorf("CUDA device %d: download to bytes %d to %d of %d pinned ones", q.d.info.Ordinal, at, at+n, len(p.Bytes))
	}
	if err := q.within("download", b, off, int64(n)); err != nil || n == 0 {
		return err
	}
	q.d.downloaded.Add(int64(n))
	return q.d.b.downloadPinned(p.Bytes[at:at+n], b.at+uint64(off))
}

// Slots is how many things a queue can mark at a time.
const Slots = 2

// Mark remembers, as number slot below [Slots], what has been ordered so far.
func (q *Queue) Mark(slot int) error { return q.d.b.mark(eventSlot + slot) }

// Reached waits until what the slot's last [Queue.Mark] remembered is done: what an
// [Queue.UploadPinned] before it read may then be changed. A slot that was never marked
// waits for nothing.
func (q *Queue) Reached(slot int) error { return q.d.b.reached(eventSlot + slot) }

// Zero clears n bytes of b from off on.
func (q *Queue) Zero(b *Buffer, off, n int64) error {
	if err := q.within("zero", b, off, n); err != nil || n == 0 {
		return err
	}
	return q.d.b.zero(b.at+uint64(off), n)
}

// Copy copies n bytes of from, from byte fromOff on, to b from byte off on. They do not
// overlap.
func (q *Queue) Copy(b *Buffer, off int64, from *Buffer, fromOff, n int64) error {
	if err := errors.Join(q.within("copy", b, off, n), q.within("copy", from, fromOff, n)); err != nil || n == 0 {
		return err
	}
	return q.d.b.copy(b.at+uint64(off), from.at+uint64(fromOff), n)
}

// Launch is the shape of a launch: blocks, threads a block, and bytes of dynamic
// shared memory a block. A zero of Grid's or Block's is one.
type Launch struct {
	Grid, Block [3]int
	Shared      int
}

// Arg is an argument of a kernel: a slot of eight bytes, as gorgonia.org/cu reads
// them.
type Arg struct {
	bits uint64
	b    *Buffer
	off  int64
}

// At is the address of byte off of b.
func At(b *Buffer, off int64) Arg { return Arg{b: b, off: off} }

// Address is where byte off of b lies on the device, for tables of addresses that a
// kernel reads. It is worth nothing once b is freed.
func (q *Queue) Address(b *Buffer, off int64) (uint64, error) {
	if err := q.within("address", b, off, 0); err != nil {
		return 0, err
	}
	return b.at + uint64(off), nil
}

// Null is an address that a kernel takes for none.
func Null() Arg { return Arg{} }

// I32 is a number for a parameter of type int.
func I32(x int) Arg { return Arg{bits: uint64(uint32(int32(x)))} }

// U32 is a number for a parameter of type unsigned.
func U32(x uint32) Arg { return Arg{bits: uint64(x)} }

// I64 is a number for a parameter of type long long.
func I64(x int64) Arg { return Arg{bits: uint64(x)} }

// F32 is a number for a parameter of type float.
func F32(x float32) Arg { return Arg{bits: uint64(math.Float32bits(x))} }

// Launch orders a kernel. Its arguments must be of the types and in the order of
// its parameters.
func (q *Queue) Launch(kernel string, l Launch, args ...Arg) error {
	l, slots, err := q.slots(kernel, l, args)
	if err != nil {
		return err
	}
	q.d.launches.Add(1)
	q.d.mu.Lock()
	traced := q.d.traced != nil
	q.d.mu.Unlock()
	if traced {
		return q.trace(kernel, l, slots)
	}
	timed, err := q.d.clock.before(q.d.b, kernel)
	if err != nil {
		return err
	}
	if err := q.d.b.launch(kernel, l, slots); err != nil {
		return err
	}
	return q.d.clock.after(q.d.b, kernel, timed)
}

// trace launches a kernel, waits for it and notes its time.
func (q *Queue) trace(kernel string, l Launch, slots []uint64) error {
	took, err := q.measured(kernel, l, slots)
	if err != nil {
		return err
	}
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	t := q.d.traced[kernel]
	q.d.traced[kernel] = Traced{t.Launches + 1, t.Time + took}
	return nil
}

// slots are a kernel's arguments as the driver takes them, and its shape in full.
func (q *Queue) slots(kernel string, l Launch, args []Arg) (Launch, []uint64, error) {
	slots := make([]uint64, len(args))
	for i, a := range args {
		slots[i] = a.bits
		if a.b != nil {
			if err := q.within(fmt.Sprintf("argument %d of kernel %s", i, kernel), a.b, a.off, 0); err != nil {
				return l, nil, err
			}
			slots[i] = a.b.at + uint64(a.off)
		}
	}
	for i := range 3 {
		l.Grid[i], l.Block[i] = max(l.Grid[i], 1), max(l.Block[i], 1)
	}
	return l, slots, nil
}

// LaunchTimed is [Queue.Launch] that waits for the kernel, and says how long it took by the
// device's events.
func (q *Queue) LaunchTimed(kernel string, l Launch, args ...Arg) (time.Duration, error) {
	l, slots, err := q.slots(kernel, l, args)
	if err != nil {
		return 0, err
	}
	q.d.launches.Add(1)
	return q.measured(kernel, l, slots)
}

// measured launches a kernel and waits for it, between two events.
func (q *Queue) measured(kernel string, l Launch, slots []uint64) (time.Duration, error) {
	const begin, end = eventTrace, eventTrace + 1
	b := q.d.b
	if err := b.mark(begin); err != nil {
		return 0, err
	}
	if err := b.launch(kernel, l, slots); err != nil {
		return 0, err
	}
	if err := errors.Join(b.mark(end), b.reached(end)); err != nil {
		return 0, err
	}
	s, err := b.between(begin, end)
	if err != nil {
		return 0, err
	}
	took := time.Duration(s * 1e9)
	q.d.clock.measured(kernel, took)
	return took, nil
}

// Pinned is memory of the host that the device reads by itself.
type Pinned struct {
	Bytes []byte
	d     *Device
}

// Pin allocates n bytes of pinned memory, which Free gives back.
func (d *Device) Pin(n int) (*Pinned, error) {
	p := &Pinned{d: d}
	err := d.on(func() (err error) { p.Bytes, err = d.b.pin(n); return err })
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Free gives the memory back; p.Bytes must not be used any more. It may be called
// on nil, and again.
func (p *Pinned) Free() error {
	if p == nil || p.Bytes == nil {
		return nil
	}
	b := p.Bytes
	p.Bytes = nil
	err := p.d.on(func() error { return p.d.b.unpin(b) })
	if errors.Is(err, ErrClosed) || isLost(err) { // it went with the device
		return nil
	}
	return err
}
