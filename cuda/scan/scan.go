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
// beyond stay with the host, and every pass streams them past. It is safe for concurrent
// use.
type Population struct {
	d           *cuda.Device
	dim, stride int
	perSegment  int // rows of the first, a multiple of 64; of later ones up to four times as many
	perTile     int // rows that are streamed at a time, a multiple of 64
	tileBytes   int // of products
	blocksMost  int // of a launch that selects
	fewBytes    int // of candidates that go to the host as they are
	fetchBytes  int // of the slots that long lists go through

	mu       sync.Mutex
	segments []*segment
	stage    *stage    // nil while all rows are on the device
	columns  []*column // the one asked for last at the end
	mask     *cuda.Buffer
	masked   []uint64     // what mask holds
	fetched  *cuda.Pinned // see fetch
	rows     int
	closed   bool

	here, there atomic.Int64 // see Lie
}

// segment holds rows [first, first + rows), of which it has room for so many. Those of
// one that is streamed are the caller's.
type segment struct {
	codes, scales     *cuda.Buffer // nil: streamed
	hosted            []hosted
	first, rows, room int
}

// New returns an empty population of rows of dim codes. The device stays the
// caller's.
func New(d *cuda.Device, dim int) (*Population, error) {
	if dim < 1 || dim > 1<<15 {
		return nil, fmt.Errorf("a population of dimension %d: want 1 to %d", dim, 1<<15)
	}
	stride := (dim + 15) &^ 15
	return &Population{d: d, dim: dim, stride: stride, perSegment: max(segmentBytes/stride&^63, 64), perTile: max(stageBytes/stride&^63, 64), tileBytes: dotsBytes, blocksMost: 16 * max(1, d.Info().Processors), fewBytes: fewBytes, fetchBytes: fetchBytes}, nil
}

// Dim is how many codes a row has.
func (p *Population) Dim() int { return p.dim }

// Rows returns how many rows there are.
func (p *Population) Rows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows
}

// Append puts rows behind those there are: codes [n, dim] and scales [n], which must not
// change while the population lives, for what does not fit the device stays where it is. Memory is
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return cuda.ErrClosed
	}
	defer p.counted()
	was := p.rows
	for len(scales) > 0 {
		s := p.last()
		if s != nil && s.codes == nil && !stream {
			return errors.Join(errNoRoom, p.cut(was))
		}
		if s == nil {
			var err error
			if s, err = p.grow(stream); err != nil {
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

func (p *Population) grow(stream bool) (*segment, error) {
	// A pass launches its kernels for each segment, so a large population has larger ones.
	s := &segment{first: p.rows, room: min(max(p.perSegment, p.rows&^63), 4*p.perSegment)}
	free, _, err := p.d.Memory()
	if err != nil {
		return nil, err
	}
	// Once rows are streamed, the device is as full as it may be.
	if p.stage != nil || free < int64(s.room)*p.rowBytes()+p.passBytes(p.rows+s.room) {
		if !stream {
			return nil, errNoRoom
		}
		s.room = p.perTile
		if p.stage == nil {
			if p.stage, err = p.newStage(); err != nil {
				return nil, err
			}
		}
		p.segments = append(p.segments, s)
		return s, nil
	}
	err = p.d.AllocAll(
		cuda.Want{To: &s.codes, Purpose: "rows", Size: int64(s.room) * int64(p.stride)},
		cuda.Want{To: &s.scales, Purpose: "rows", Size: int64(s.room) * 4},
	)
	if err != nil {
		return nil, err
	}
	p.segments = append(p.segments, s)
	return s, nil
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

func (p *Population) write(ctx context.Context, s *segment, codes []int8, scales []float32) error {
	if s.codes == nil {
		s.hosted = append(s.hosted, hosted{codes, scales})
		return nil
	}
	if p.stride != p.dim {
		padded := make([]int8, len(scales)*p.stride)
		for i := range scales {
			copy(padded[i*p.stride:], codes[i*p.dim:(i+1)*p.dim])
		}
		codes = padded
	}
	return p.d.Do(ctx, func(q *cuda.Queue) error {
		if err := cuda.Upload(q, s.codes, int64(s.rows)*int64(p.stride), codes); err != nil {
			return err
		}
		return cuda.Upload(q, s.scales, int64(s.rows)*4, scales)
	})
}

// Close frees the device's copy. It may be called again.
func (p *Population) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	defer p.counted()
	var all []error
	for _, s := range p.segments {
		all = append(all, s.free())
	}
	for _, c := range p.columns {
		all = append(all, c.free())
	}
	all = append(all, p.stage.free(), p.dropMask(), p.fetched.Free())
	p.segments, p.columns, p.stage, p.fetched, p.rows = nil, nil, nil, nil, 0
	return errors.Join(all...)
}

// Best returns for each head the candidates of its size[h] best rows among the first
// n, of those whose bit is set in mask ([(n+63)/64] words, row r bit r%64): all rows
// that score at least as the size-th best does, ties included, and maybe some that are
// worse, in no order; all that count, where they are fewer. An entry is the complement of the
// score's image (package selection) above the row. Ctx is asked between passes.
func (p *Population) Best(ctx context.Context, n int, mask []uint64, heads []Head, size []int) ([][]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
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
	each, err := p.setsAtOnce(n)
	if err != nil {
		return nil, err
	}
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
