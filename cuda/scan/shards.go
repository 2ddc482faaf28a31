package scan

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/kindred-search/kindred/cuda"
)

// runRows is how many rows that follow each other one device gets, before the next gets
// as many: so all have their share whatever the rows come to.
const runRows = 1 << 16

// Shards are one population on several devices: rows are dealt out in runs, every device
// scores its own under all heads, and what they select is put together. What it answers
// is what a [Population] of all rows would. It is safe for concurrent use.
type Shards struct {
	dim, run int
	parts    []*Population

	mu   sync.Mutex
	rows int
}

// NewShards returns an empty population of rows of dim codes on at least one device. The
// devices stay the caller's.
func NewShards(devices []*cuda.Device, dim int) (*Shards, error) {
	if len(devices) == 0 {
		return nil, fmt.Errorf("a population on no device: %w", cuda.ErrNoDevice)
	}
	s := &Shards{dim: dim, run: runRows}
	for _, d := range devices {
		p, err := New(d, dim)
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, p)
	}
	return s, nil
}

// share is how many of the first n rows device d has.
func (s *Shards) share(n, d int) int {
	round := s.run * len(s.parts)
	return n/round*s.run + min(s.run, max(0, n%round-d*s.run))
}

// everyones is which of all rows is row i of device d.
func (s *Shards) everyones(i, d int) int {
	return (i/s.run*len(s.parts)+d)*s.run + i%s.run
}

// runs calls f for each run of device d's first n rows: where it begins there, where
// among everyone, and how long it is.
func (s *Shards) runs(from, n, d int, f func(own, all, n int)) {
	for n > 0 {
		m := min(n, s.run-from%s.run)
		f(from, s.everyones(from, d), m)
		from, n = from+m, n-m
	}
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

// Append is [Population.Append].
func (s *Shards) Append(ctx context.Context, codes []int8, scales []float32) error {
	if len(codes) != len(scales)*s.dim {
		return fmt.Errorf("append of %d scales and %d codes, which are %d a row", len(scales), len(codes), s.dim)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.rows
	for len(scales) > 0 {
		d := s.rows / s.run % len(s.parts)
		n := min(len(scales), s.run-s.rows%s.run)
		if err := s.parts[d].Append(ctx, codes[:n*s.dim], scales[:n]); err != nil {
			s.rows = was
			all := []error{err}
			for d, p := range s.parts {
				all = append(all, p.truncate(s.share(was, d)))
			}
			return errors.Join(all...)
		}
		s.rows += n
		codes, scales = codes[n*s.dim:], scales[n:]
	}
	return nil
}

// truncate takes back the rows from n on.
func (p *Population) truncate(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || n >= p.rows {
		return nil
	}
	defer p.counted()
	return p.cut(n)
}

// Close frees all copies. It may be called again.
func (s *Shards) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = 0
	var all []error
	for _, p := range s.parts {
		all = append(all, p.Close())
	}
	return errors.Join(all...)
}

// each runs f for every device that has some of the first n rows, at the same time: with
// the number of its rows and their mask. The first error ends the others.
func (s *Shards) each(ctx context.Context, n int, mask []uint64, f func(ctx context.Context, d int, p *Population, n int, mask []uint64) error) error {
	s.mu.Lock()
	rows := s.rows
	s.mu.Unlock()
	switch {
	case n < 0 || n > rows:
		return fmt.Errorf("%d rows are asked for: the devices have %d", n, rows)
	case len(mask) != (n+63)/64:
		return fmt.Errorf("a mask of %d words for %d rows: want %d", len(mask), n, (n+63)/64)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(s.parts))
	var wg sync.WaitGroup
	for d, p := range s.parts {
		own := s.share(n, d)
		if own == 0 && d > 0 { // the first checks the request
			continue
		}
		wg.Go(func() {
			words := make([]uint64, (own+63)/64)
			s.runs(0, own, d, func(at, all, m int) { copy(words[at/64:(at+m+63)/64], mask[all/64:(all+m+63)/64]) })
			if errs[d] = f(ctx, d, p, own, words); errs[d] != nil {
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
func (s *Shards) lists(ctx context.Context, n int, mask []uint64, count int, f func(ctx context.Context, d int, p *Population, n int, mask []uint64) ([][]uint64, error)) ([][]uint64, error) {
	found := make([][][]uint64, len(s.parts))
	err := s.each(ctx, n, mask, func(ctx context.Context, d int, p *Population, n int, mask []uint64) (err error) {
		found[d], err = f(ctx, d, p, n, mask)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([][]uint64, count)
	for d, part := range found {
		for h := range part {
			for _, e := range part[h] {
				out[h] = append(out[h], e&^0xffffffff|uint64(s.everyones(int(uint32(e)), d)))
			}
		}
	}
	return out, nil
}

// Best is [Population.Best]: rows that score at least as the size-th best of their device
// does, among which all that everyone's best are.
func (s *Shards) Best(ctx context.Context, n int, mask []uint64, heads []Head, size []int) ([][]uint64, error) {
	return s.lists(ctx, n, mask, len(heads), func(ctx context.Context, _ int, p *Population, n int, mask []uint64) ([][]uint64, error) {
		return p.Best(ctx, n, mask, heads, size)
	})
}

// BestOf is [Population.BestOf], as [Shards.Best] is Best.
func (s *Shards) BestOf(ctx context.Context, n int, mask []uint64, plan *Plan, size []int) ([][]uint64, error) {
	plans := s.plans(plan, n)
	return s.lists(ctx, n, mask, len(plan.Sets), func(ctx context.Context, d int, p *Population, n int, mask []uint64) ([][]uint64, error) {
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
	plans := s.plans(plan, n)
	return s.each(ctx, n, mask, func(ctx context.Context, d int, p *Population, own int, mask []uint64) error {
		part := make([][]float32, len(out))
		for k := range part {
			part[k] = make([]float32, own)
		}
		if err := p.Scores(ctx, own, mask, plans[d], part); err != nil {
			return err
		}
		for k := range part {
			s.runs(0, own, d, func(at, all, m int) { copy(out[k][all:all+m], part[k][at:]) })
		}
		return nil
	})
}

// plans are the plan for each device: of its own rows' bins, and with progress that adds up.
func (s *Shards) plans(plan *Plan, n int) []*Plan {
	var mu sync.Mutex
	done := make([]int, len(s.parts))
	out := make([]*Plan, len(s.parts))
	for d := range out {
		p := *plan
		p.Columns = make([]Column, len(plan.Columns))
		for c, column := range plan.Columns {
			p.Columns[c] = column
			p.Columns[c].Fill = func(from int, dst []uint16) {
				s.runs(from, len(dst), d, func(at, all, m int) { column.Fill(all, dst[at-from:at-from+m]) })
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
