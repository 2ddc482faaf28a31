package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/kindred-search/kindred/cuda"
)

// runRows is how many rows that follow each other one device gets, before the next gets
// as many: so all have their share whatever the rows come to. Where a device is full the
// next gets them.
const runRows = 1 << 16

// Shards are one population on several devices: rows are dealt out in runs, every device
// scores its own under all heads, and what they select is put together. What it answers
// is what a [Population] of all rows would. It is safe for concurrent use.
type Shards struct {
	dim, run int
	parts    []*Population

	growing chan struct{} // full while rows are appended, or all are freed

	mu     sync.Mutex
	rows   int     // changed by who is growing
	pieces []piece // who has which rows; an array that is only appended to, for who reads it
}

// NewShards returns an empty population of rows of dim codes on at least one device. The
// devices stay the caller's.
func NewShards(devices []*cuda.Device, dim int) (*Shards, error) {
	if len(devices) == 0 {
		return nil, fmt.Errorf("a population on no device: %w", cuda.ErrNoDevice)
	}
	s := &Shards{dim: dim, run: runRows, growing: make(chan struct{}, 1)}
	for _, d := range devices {
		p, err := New(d, dim)
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, p)
	}
	return s, nil
}

// Rows returns how many rows there are.
func (s *Shards) Rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows
}

// Lie is [Population.Lie] of all.
func (s *Shards) Lie() (device, streamed int) {
	for _, p := range s.parts {
		d, h := p.Lie()
		device, streamed = device+d, streamed+h
	}
	return device, streamed
}

// dealt is which of the first n rows each device has.
func (s *Shards) dealt(n int) ([]dealt, error) {
	s.mu.Lock()
	pieces, rows := s.pieces, s.rows
	s.mu.Unlock()
	if n < 0 || n > rows {
		return nil, fmt.Errorf("%d rows are asked for: the devices have %d", n, rows)
	}
	return deal(pieces, rows, n, len(s.parts), s.run), nil
}

// Append is [Population.Append]. A run goes to the next device whose memory has room for it;
// where none has, to the next that can stream it; and where none can, the error wraps
// [cuda.ErrOutOfMemory].
func (s *Shards) Append(ctx context.Context, codes []int8, scales []float32) error {
	if len(codes) != len(scales)*s.dim {
		return fmt.Errorf("append of %d scales and %d codes, which are %d a row", len(scales), len(codes), s.dim)
	}
	select {
	case s.growing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.growing }()
	rows, pieces := s.rows, s.pieces
	own := make([]int, len(s.parts))
	for d, p := range s.parts {
		own[d] = p.Rows()
	}
	for len(scales) > 0 {
		d, n := s.next(rows, pieces)
		n = min(n, len(scales))
		d, err := s.place(ctx, d, codes[:n*s.dim], scales[:n])
		if err != nil {
			all := []error{err}
			for d, p := range s.parts {
				all = append(all, p.truncate(own[d]))
			}
			return errors.Join(all...)
		}
		if last := len(pieces) - 1; last < 0 || pieces[last].device != d {
			pieces = append(pieces, piece{all: rows, own: s.parts[d].Rows() - n, device: d})
		}
		rows += n
		codes, scales = codes[n*s.dim:], scales[n:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.pieces = rows, pieces
	return nil
}

// next is the device whose turn it is, and for how many rows.
func (s *Shards) next(rows int, pieces []piece) (device, count int) {
	if len(pieces) == 0 {
		return 0, s.run
	}
	last := pieces[len(pieces)-1]
	if used := (rows - last.all) % s.run; used > 0 {
		return last.device, s.run - used
	}
	return (last.device + 1) % len(s.parts), s.run
}

// place gives rows to the first device from the given one on that takes them, and says which.
func (s *Shards) place(ctx context.Context, from int, codes []int8, scales []float32) (int, error) {
	var full []error
	for _, stream := range []bool{false, true} {
		full = nil
		for i := range s.parts {
			d := (from + i) % len(s.parts)
			err := s.parts[d].append(ctx, codes, scales, stream)
			if err == nil || !errors.Is(err, cuda.ErrOutOfMemory) {
				return d, err
			}
			full = append(full, err)
		}
	}
	return 0, errors.Join(full...)
}

// truncate takes back the rows from n on.
func (p *Population) truncate(n int) error {
	p.turn <- struct{}{} // whatever became of the context
	p.mu.Lock()
	defer p.leave()
	if p.closed || n >= p.rows {
		return nil
	}
	return p.cut(n)
}

// Close frees all copies, when what goes on has ended. It may be called again.
func (s *Shards) Close() error {
	s.growing <- struct{}{}
	defer func() { <-s.growing }()
	s.mu.Lock()
	s.rows, s.pieces = 0, nil
	s.mu.Unlock()
	var all []error
	for _, p := range s.parts {
		all = append(all, p.Close())
	}
	return errors.Join(all...)
}

// each runs f for every device that has some of the rows dealt, at the same time: with
// the number of its rows and their mask. The first error ends the others.
func (s *Shards) each(ctx context.Context, dealt []dealt, n int, mask []uint64, f func(ctx context.Context, d int, p *Population, n int, mask []uint64) error) error {
	if len(mask) != (n+63)/64 {
		return fmt.Errorf("a mask of %d words for %d rows: want %d", len(mask), n, (n+63)/64)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(s.parts))
	var wg sync.WaitGroup
	for d, p := range s.parts {
		own := &dealt[d]
		if own.rows == 0 && d > 0 { // the first checks the request
			continue
		}
		wg.Go(func() {
			if errs[d] = f(ctx, d, p, own.rows, own.mask(mask)); errs[d] != nil {
				cancel(errs[d])
			}
		})
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause // what came first, not what it brought upon the others
	}
	return errors.Join(errs...)
}

// lists asks every device for its entries of each list, and puts those of a list together.
func (s *Shards) lists(ctx context.Context, dealt []dealt, n int, mask []uint64, count int, f func(ctx context.Context, d int, p *Population, n int, mask []uint64) ([][]uint64, error)) ([][]uint64, error) {
	found := make([][][]uint64, len(s.parts))
	err := s.each(ctx, dealt, n, mask, func(ctx context.Context, d int, p *Population, n int, mask []uint64) (err error) {
		found[d], err = f(ctx, d, p, n, mask)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([][]uint64, count)
	for d, part := range found {
		for h := range part {
			out[h] = slices.Grow(out[h], len(part[h]))
			for _, e := range part[h] {
				out[h] = append(out[h], e&^0xffffffff|uint64(dealt[d].everyones(int(uint32(e)))))
			}
		}
	}
	return out, nil
}

// Best is [Population.Best]: rows that score at least as the size-th best of their device
// does, among which all that everyone's best are.
func (s *Shards) Best(ctx context.Context, n int, mask []uint64, heads []Head, size []int) ([][]uint64, error) {
	dealt, err := s.dealt(n)
	if err != nil {
		return nil, err
	}
	return s.lists(ctx, dealt, n, mask, len(heads), func(ctx context.Context, _ int, p *Population, n int, mask []uint64) ([][]uint64, error) {
		return p.Best(ctx, n, mask, heads, size)
	})
}

// BestOf is [Population.BestOf], as [Shards.Best] is Best.
func (s *Shards) BestOf(ctx context.Context, n int, mask []uint64, plan *Plan, size []int) ([][]uint64, error) {
	dealt, err := s.dealt(n)
	if err != nil {
		return nil, err
	}
	plans := s.plans(dealt, plan, n)
	return s.lists(ctx, dealt, n, mask, len(plan.Sets), func(ctx context.Context, d int, p *Population, n int, mask []uint64) ([][]uint64, error) {
		return p.BestOf(ctx, n, mask, plans[d], size)
	})
}

// Scores is [Population.Scores].
func (s *Shards) Scores(ctx context.Context, n int, mask []uint64, plan *Plan, out [][]float32) error {
	if len(out) != len(plan.Sets) {
		return fmt.Errorf("scores of %d sets for %d", len(out), len(plan.Sets))
	}
	for k := range out {
		if len(out[k]) != n {
			return fmt.Errorf("%d places for the scores of %d rows under set %d", len(out[k]), n, k)
		}
	}
	dealt, err := s.dealt(n)
	if err != nil {
		return err
	}
	plans := s.plans(dealt, plan, n)
	return s.each(ctx, dealt, n, mask, func(ctx context.Context, d int, p *Population, own int, mask []uint64) error {
		part := make([][]float32, len(out))
		for k := range part {
			part[k] = make([]float32, own)
		}
		if err := p.Scores(ctx, own, mask, plans[d], part); err != nil {
			return err
		}
		for k := range part {
			dealt[d].runs(0, own, func(at, all, m int) { copy(out[k][all:all+m], part[k][at:]) })
		}
		return nil
	})
}

// plans are the plan for each device: of its own rows' bins, and with progress that adds up.
func (s *Shards) plans(dealt []dealt, plan *Plan, n int) []*Plan {
	var mu sync.Mutex
	done := make([]int, len(s.parts))
	out := make([]*Plan, len(s.parts))
	for d := range out {
		p := *plan
		p.Columns = make([]Column, len(plan.Columns))
		for c, column := range plan.Columns {
			p.Columns[c] = column
			p.Columns[c].Fill = func(from int, dst []uint16) {
				dealt[d].runs(from, len(dst), func(at, all, m int) { column.Fill(all, dst[at-from:at-from+m]) })
			}
		}
		if plan.Progress != nil {
			p.Progress = func(now, _ int) {
				mu.Lock()
				defer mu.Unlock()
				done[d] = now
				sum := 0
				for _, x := range done {
					sum += x
				}
				plan.Progress(sum, n)
			}
		}
		out[d] = &p
	}
	return out
}
