package scan

import (
	"errors"
	"unsafe"

	"github.com/kindred-search/kindred/cuda"
)

// stageBytes is how much of the codes is streamed at a time: long enough for a copy at
// full speed, short enough for the first to come soon.
const stageBytes = 32 << 20

// hosted is rows of the caller's: codes [n, dim] and scales [n].
type hosted struct {
	codes  []int8
	scales []float32
}

// host keeps rows of the caller's behind those that it has.
func (s *segment) host(codes []int8, scales []float32) {
	if n := len(s.hosted); n > 0 {
		// What comes a few rows at a time mostly lies behind what came before.
		last := &s.hosted[n-1]
		at, to := len(last.scales), len(last.scales)+len(scales)
		if to <= cap(last.scales) && len(last.codes)+len(codes) <= cap(last.codes) {
			c, x := last.codes[:len(last.codes)+len(codes)], last.scales[:to]
			if &c[len(last.codes)] == &codes[0] && &x[at] == &scales[0] {
				last.codes, last.scales = c, x
				return
			}
		}
	}
	s.hosted = append(s.hosted, hosted{codes, scales})
}

// cut lets go of the rows from n on.
func (s *segment) cut(n int) {
	s.rows = n
	for i, h := range s.hosted {
		if n < len(h.scales) {
			s.hosted[i] = hosted{h.codes[:len(h.codes)/len(h.scales)*n], h.scales[:n]}
		}
		if n -= len(h.scales); n <= 0 {
			s.hosted = s.hosted[:i+1]
			return
		}
	}
}

// stage is where rows that are streamed pass: two slots, so that the host fills one while
// the device copies and scores the other. The copies are the bound: a row takes the bus
// as long as some fifty kernels.
type stage struct {
	codes, scales [cuda.Slots]*cuda.Buffer
	pinned        [cuda.Slots]*cuda.Pinned // codes, then scales
	next          int
}

// staged makes the stage where there is none.
func (p *Population) staged() error {
	if p.stage != nil {
		return nil
	}
	g := &stage{}
	for i := range g.codes {
		var err error
		if g.codes[i], err = p.d.Alloc("streamed rows", int64(p.perTile)*int64(p.stride)); err == nil {
			if g.scales[i], err = p.d.Alloc("streamed rows", int64(p.perTile)*4); err == nil {
				g.pinned[i], err = p.d.Pin(p.perTile * int(p.rowBytes()))
			}
		}
		if err != nil {
			return errors.Join(err, g.free())
		}
	}
	p.stage = g
	return nil
}

// unstage frees the stage.
func (p *Population) unstage() error {
	err := p.stage.free()
	p.stage = nil
	return err
}

// free may be called on nil.
func (g *stage) free() error {
	if g == nil {
		return nil
	}
	var all []error
	for i := range g.codes {
		all = append(all, g.codes[i].Free(), g.scales[i].Free(), g.pinned[i].Free())
	}
	return errors.Join(all...)
}

// lying is where rows lie on the device.
type lying struct {
	codes, scales     *cuda.Buffer
	codesAt, scalesAt int64
}

func (l lying) args() (codes, scales cuda.Arg) {
	return cuda.At(l.codes, l.codesAt), cuda.At(l.scales, l.scalesAt)
}

// with gives f where rows [from, from + n) of a segment lie on the device, for kernels that
// it launches. Streamed rows come from the host first.
func (p *Population) with(q *cuda.Queue, s *segment, from, n int, f func(at lying) error) error {
	if s.codes != nil {
		return f(lying{s.codes, s.scales, int64(from) * int64(p.stride), int64(from) * 4})
	}
	g := p.stage
	slot := g.next
	g.next = (slot + 1) % cuda.Slots
	if err := q.Reached(slot); err != nil {
		return err
	}
	bytes := g.pinned[slot].Bytes
	codes := unsafe.Slice((*int8)(unsafe.Pointer(&bytes[0])), n*p.stride)
	scales := unsafe.Slice((*float32)(unsafe.Pointer(&bytes[len(codes)])), n) // a stride is a multiple of 16
	p.gather(codes, scales, s, from)
	err := errors.Join(
		q.UploadPinned(g.codes[slot], 0, g.pinned[slot], 0, len(codes)),
		q.UploadPinned(g.scales[slot], 0, g.pinned[slot], len(codes), 4*n))
	if err != nil {
		return err
	}
	if err := f(lying{codes: g.codes[slot], scales: g.scales[slot]}); err != nil {
		return err
	}
	return q.Mark(slot)
}

// gather copies a segment's rows from from on, as many as there are scales, as the device
// has them.
func (p *Population) gather(codes []int8, scales []float32, s *segment, from int) {
	for _, h := range s.hosted {
		skip := min(from, len(h.scales))
		from -= skip
		n := copy(scales, h.scales[skip:])
		rows := h.codes[skip*p.dim : (skip+n)*p.dim]
		if p.stride == p.dim {
			copy(codes, rows)
		} else {
			for i := range n {
				row := codes[i*p.stride : (i+1)*p.stride]
				clear(row[copy(row, rows[i*p.dim:(i+1)*p.dim]):])
			}
		}
		codes, scales = codes[n*p.stride:], scales[n:]
		if len(scales) == 0 {
			return
		}
	}
}

// Lie is how many rows are on the device, and how many do not fit it and are streamed by
// every pass. It waits for nothing.
func (p *Population) Lie() (device, streamed int) {
	return int(p.here.Load()), int(p.there.Load())
}

// counted notes how many rows there are, where they lie, and what could be given up.
func (p *Population) counted() {
	here, bytes := 0, int64(0)
	for _, s := range p.segments {
		if s.codes != nil {
			here += s.rows
			bytes += int64(s.room) * p.rowBytes()
		}
	}
	p.count.Store(int64(p.rows))
	p.here.Store(int64(here))
	p.there.Store(int64(p.rows - here))
	p.hold.Holds(bytes)
}
