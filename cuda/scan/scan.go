package scan

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kindred-search/kindred/cuda"
)

// What scan.cu names alike.
const (
	bins        = 2048
	threads     = 256
	maskedImage = 0x007fffff // of -Inf
)

// segmentBytes is how much of the codes a segment holds. Small ones waste launches,
// large ones memory.
const segmentBytes = 256 << 20

// Head is a vector of codes, whose products with any row add up within 32 bits; its
// score of a row is codes·row × (the row's scale × Scale) + Bias, in fp64, rounded once to fp32.
type Head struct {
	Codes       []int16
	Scale, Bias float64
}

// Population is a copy of int8 rows on a device, as far as its memory goes: the rows
// beyond stay with the host, and every pass streams them past. Rows leave the device when
// others need its memory, and come back at the next pass when there is room: see
// [cuda.Device.Hold]. It is safe for concurrent use; passes and appends take turns in the
// order of asking, and who is given up meanwhile does not wait on.
type Population struct {
	d           *cuda.Device
	dim, stride int
	perSegment  int // rows of the first, a multiple of 64; of later ones up to four times as many
	perTile     int // rows that are streamed at a time, a multiple of 64
	tileBytes   int // of products
	blocksMost  int // of a launch that selects
	fewBytes    int // of candidates that go to the host as they are
	fetchBytes  int // of the slots that long lists go through

	hold *cuda.Holder
	turn chan struct{} // full while a pass or an append goes on

	// mu is taken by who has the turn, and given back while that waits for memory; and by
	// [Population.give], which never waits for it.
	mu       sync.Mutex
	segments []*segment
	stage    *stage    // nil while no rows are streamed
	columns  []*column // the one asked for last at the end
	mask     *cuda.Buffer
	masked   []uint64     // what mask holds
	fetched  *cuda.Pinned // see fetch
	rows     int
	beside   int64 // what the last plan took beside its sets
	closed   bool

	count, here, there atomic.Int64 // rows in all, and see Lie
}

// segment holds rows [first, first + rows), of which it has room for so many.
type segment struct {
	codes, scales     *cuda.Buffer // nil: streamed
	hosted            []hosted     // the same rows, the caller's
	first, rows, room int
}

// New returns an empty population of rows of dim codes. The device stays the
// caller's.
func New(d *cuda.Device, dim int) (*Population, error) {
	if dim < 1 || dim > 1<<15 {
		return nil, fmt.Errorf("a population of dimension %d: want 1 to %d", dim, 1<<15)
	}
	stride := (dim + 15) &^ 15
	p := &Population{
		d: d, dim: dim, stride: stride, perSegment: max(segmentBytes/stride&^63, 64), perTile: max(stageBytes/stride&^63, 64), tileBytes: dotsBytes,
		blocksMost: 16 * max(1, d.Info().Processors), fewBytes: fewBytes, fetchBytes: fetchBytes,
		turn: make(chan struct{}, 1),
	}
	p.hold = d.Hold(p.give)
	return p, nil
}

// enter waits for the turn, which leave ends.
func (p *Population) enter(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	return nil
}

func (p *Population) leave() {
	p.counted()
	p.mu.Unlock()
	<-p.turn
}

// Dim is how many codes a row has.
func (p *Population) Dim() int { return p.dim }

// Rows returns how many rows there are. It waits for nothing.
func (p *Population) Rows() int { return int(p.count.Load()) }

// Append puts rows behind those there are: codes [n, dim] and scales [n], which must not
// change while the population lives, for what does not fit the device is read where it is. Memory is
// planned before it is taken: a segment is only made where what passes over the rows
// need stays free, and where not even these fit the error wraps [cuda.ErrOutOfMemory], with
// the numbers. After an error none of the rows counts.
func (p *Population) Append(ctx context.Context, codes []int8, scales []float32) error {
	return p.append(ctx, codes, scales, true)
}

// errNoRoom: rows would have to be streamed.
var errNoRoom = fmt.Errorf("the rows do not fit the device: %w", cuda.ErrOutOfMemory)

// append is Append that streams what does not fit, or not: then that is an error as well.
func (p *Population) append(ctx context.Context, codes []int8, scales []float32, stream bool) error {
	if len(codes) != len(scales)*p.dim {
		return fmt.Errorf("append of %d scales and %d codes, which are %d a row", len(scales), len(codes), p.dim)
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.leave()
	if p.closed {
		return cuda.ErrClosed
	}
	if err := p.use(ctx, p.rows+len(scales)); err != nil {
		return err
	}
	was := p.rows
	for len(scales) > 0 {
		s := p.last()
		if s != nil && s.codes == nil && !stream {
			return errors.Join(errNoRoom, p.cut(was))
		}
		if s == nil {
			var err error
			if s, err = p.grow(ctx, stream); err != nil {
				return errors.Join(err, p.cut(was))
			}
		}
		n := min(len(scales), s.room-s.rows)
		if err := p.write(ctx, s, codes[:n*p.dim], scales[:n]); err != nil {
			return errors.Join(err, p.cut(was))
		}
		s.rows, p.rows = s.rows+n, p.rows+n
		codes, scales = codes[n*p.dim:], scales[n:]
	}
	return nil
}

// last is the segment that has room, nil for none.
func (p *Population) last() *segment {
	if n := len(p.segments); n > 0 && p.segments[n-1].rows < p.segments[n-1].room {
		return p.segments[n-1]
	}
	return nil
}

// rowBytes is what a row takes.
func (p *Population) rowBytes() int64 { return int64(p.stride) + 4 }

// roomFrom is how many rows a segment has room for that begins with row first.
func (p *Population) roomFrom(first int) int {
	// A pass launches its kernels for each segment, so a large population has larger ones.
	return min(max(p.perSegment, first&^63), 4*p.perSegment)
}

func (p *Population) grow(ctx context.Context, stream bool) (*segment, error) {
	s := &segment{first: p.rows, room: p.roomFrom(p.rows)}
	// Behind rows that are streamed others are too: they come to the device in order.
	ok := len(p.segments) == 0 || p.segments[len(p.segments)-1].codes != nil
	if ok {
		if err := p.use(ctx, p.rows+s.room); err != nil {
			return nil, err
		}
		var err error
		if ok, err = p.hold.Room(ctx, int64(s.room)*p.rowBytes()); err != nil {
			return nil, err
		}
	}
	if !ok {
		if !stream {
			return nil, errNoRoom
		}
		s.room = p.perTile
		if err := p.staged(); err != nil {
			return nil, err
		}
		p.segments = append(p.segments, s)
		return s, nil
	}
	if err := p.place(s); err != nil {
		return nil, err
	}
	p.segments = append(p.segments, s)
	return s, nil
}

// place allocates a segment's memory on the device.
func (p *Population) place(s *segment) error {
	return p.d.AllocAll(
		cuda.Want{To: &s.codes, Purpose: "rows", Size: int64(s.room) * int64(p.stride)},
		cuda.Want{To: &s.scales, Purpose: "rows", Size: int64(s.room) * 4},
	)
}

// passBytes is what has to be free for a pass over so many rows: the scores of two heads and the
// list, their histograms, products of a tile, the mask, and the stage of what is streamed.
func (p *Population) passBytes(rows int) int64 {
	return int64(rows)*(2*4+8) + int64(rows)/8 + 2*bins*4 + int64(p.tileBytes) + 2*int64(p.perTile)*p.rowBytes()
}

// cut takes back rows from an append that failed, and the segments that were made for
// them.
func (p *Population) cut(rows int) error {
	p.rows = rows
	var all []error
	for n := len(p.segments); n > 0 && p.segments[n-1].first >= rows; n-- {
		all = append(all, p.segments[n-1].free())
		p.segments = p.segments[:n-1]
	}
	if n := len(p.segments); n > 0 {
		p.segments[n-1].cut(rows - p.segments[n-1].first)
	}
	all = append(all, p.shrink())
	return errors.Join(all...)
}

func (s *segment) free() error { return errors.Join(s.codes.Free(), s.scales.Free()) }

// write puts rows behind those of a segment, which does not count them yet.
func (p *Population) write(ctx context.Context, s *segment, codes []int8, scales []float32) error {
	if s.codes == nil {
		s.host(codes, scales)
		return nil
	}
	own := codes
	if p.stride != p.dim {
		padded := make([]int8, len(scales)*p.stride)
		for i := range scales {
			copy(padded[i*p.stride:], codes[i*p.dim:(i+1)*p.dim])
		}
		codes = padded
	}
	err := p.d.Do(ctx, func(q *cuda.Queue) error {
		if err := cuda.Upload(q, s.codes, int64(s.rows)*int64(p.stride), codes); err != nil {
			return err
		}
		return cuda.Upload(q, s.scales, int64(s.rows)*4, scales)
	})
	if err == nil {
		s.host(own, scales)
	}
	return err
}

// Close frees the device's copy, when what goes on has ended. It may be called again.
func (p *Population) Close() error {
	p.turn <- struct{}{}
	p.mu.Lock()
	var all []error
	for _, s := range p.segments {
		all = append(all, s.free())
	}
	all = append(all, p.forget(), p.unstage(), p.dropMask(), p.fetched.Free())
	p.segments, p.fetched, p.rows, p.closed = nil, nil, 0, true
	p.leave()
	p.hold.Close()
	return errors.Join(all...)
}

// Best returns for each head the candidates of its size[h] best rows among the first
// n, of those whose bit is set in mask ([(n+63)/64] words, row r bit r%64): all rows
// that score at least as the size-th best does, ties included, and maybe some that are
// worse, in no order; all that count, where they are fewer. An entry is the complement of the
// score's image (package selection) above the row. Ctx is asked between passes.
func (p *Population) Best(ctx context.Context, n int, mask []uint64, heads []Head, size []int) ([][]uint64, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	switch {
	case p.closed:
		return nil, cuda.ErrClosed
	case n < 0 || n > p.rows:
		return nil, fmt.Errorf("the best of %d rows: the device has %d", n, p.rows)
	case len(mask) != (n+63)/64:
		return nil, fmt.Errorf("a mask of %d words for %d rows: want %d", len(mask), n, (n+63)/64)
	case len(size) != len(heads):
		return nil, fmt.Errorf("%d sizes for %d heads", len(size), len(heads))
	}
	for h := range heads {
		if len(heads[h].Codes) != p.dim {
			return nil, fmt.Errorf("head %d has %d codes, rows have %d", h, len(heads[h].Codes), p.dim)
		}
	}
	if n == 0 {
		return make([][]uint64, len(heads)), nil
	}
	lease, each, err := p.lease(ctx, n, min(len(heads), manyHeads), nil)
	if err != nil {
		return nil, err
	}
	defer lease.End()
	out := make([][]uint64, 0, len(heads))
	for first := 0; first < len(heads); first += each {
		end := min(first+each, len(heads))
		part, err := p.bestOf(ctx, n, mask, heads[first:end], size[first:end])
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

// bestOf is Best in one pass.
func (p *Population) bestOf(ctx context.Context, n int, mask []uint64, heads []Head, size []int) (out [][]uint64, err error) {
	w := p.newPass(n, len(heads), heads)
	defer func() { err = errors.Join(err, w.free()) }()
	if err := w.score(ctx, mask, nil); err != nil {
		return nil, err
	}
	return w.best(ctx, size)
}
