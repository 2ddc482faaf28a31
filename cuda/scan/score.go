package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/cuda"
)

const (
	finishThreads = 128
	// A tile is rows that are scored before ctx is asked again: an eighth of them, but
	// no fewer than leastTile, and as many as have dotsBytes of products at most, but
	// no fewer than 64.
	leastTile = 1 << 14
	dotsBytes = 256 << 20
)

// binned is a column's bins of one segment's rows, as many as have been asked for.
type binned struct {
	bins *cuda.Buffer // [room of the segment] shorts
	rows int
}

func (c *column) free() error {
	var all []error
	for _, s := range c.segments {
		all = append(all, s.bins.Free())
	}
	return errors.Join(all...)
}

// column brings a column's bins of the first n rows to the device, and makes it the
// one asked for last.
func (p *Population) column(ctx context.Context, want Column, n int) (*column, error) {
	var c *column
	if i := slices.IndexFunc(p.columns, func(c *column) bool { return c.key == want.Key }); i >= 0 {
		c = p.columns[i]
		p.columns = append(slices.Delete(p.columns, i, i+1), c)
	} else {
		c = &column{key: want.Key}
		p.columns = append(p.columns, c)
	}
	var fresh []uint16
	for i, s := range p.segments {
		rows := min(s.rows, n-s.first)
		if rows <= 0 {
			break
		}
		if i == len(c.segments) {
			b, err := p.d.Alloc("columns", int64(s.room)*2)
			if err != nil {
				return nil, err
			}
			c.segments = append(c.segments, &binned{bins: b})
		}
		b := c.segments[i]
		if b.rows >= rows {
			continue
		}
		fresh = slices.Grow(fresh[:0], rows-b.rows)[:rows-b.rows]
		want.Fill(s.first+b.rows, fresh)
		for r, x := range fresh {
			if int(x) >= want.Bins {
				return nil, fmt.Errorf("row %d has bin %d in column %q, which has %d", s.first+b.rows+r, x, want.Key, want.Bins)
			}
		}
		err := p.d.Do(ctx, func(q *cuda.Queue) error { return cuda.Upload(q, b.bins, int64(b.rows)*2, fresh) })
		if err != nil {
			return nil, err
		}
		b.rows = rows
	}
	return c, nil
}

// shrink forgets what columns hold of rows from n on, which an append that failed took
// back.
func (p *Population) shrink() error {
	var all []error
	for _, c := range p.columns {
		for len(c.segments) > len(p.segments) {
			all = append(all, c.segments[len(c.segments)-1].bins.Free())
			c.segments = c.segments[:len(c.segments)-1]
		}
		if n := len(c.segments); n > 0 {
			c.segments[n-1].rows = min(c.segments[n-1].rows, p.segments[n-1].rows)
		}
	}
	return errors.Join(all...)
}

// Scores writes to out[s][r] the score of row r, below n, under set s of the plan:
// -Inf for rows whose bit is not set in mask. Each out[s] has n places. Ctx is asked
// between tiles of rows.
func (p *Population) Scores(ctx context.Context, n int, mask []uint64, plan *Plan, out [][]float32) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.leave()
	if len(out) != len(plan.Sets) {
		return fmt.Errorf("scores of %d sets for %d", len(out), len(plan.Sets))
	}
	for s := range out {
		if len(out[s]) != n {
			return fmt.Errorf("%d places for the scores of %d rows under set %d", len(out[s]), n, s)
		}
	}
	return p.scored(ctx, n, mask, plan, func(w *pass, first int) error {
		return p.d.Do(ctx, func(q *cuda.Queue) error {
			for h := range w.lists {
				if err := cuda.Download(q, out[first+h], w.scores, int64(h)*int64(w.pitch)*4); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// BestOf is [Population.Best] of sets: for each the candidates of its size[s] best.
func (p *Population) BestOf(ctx context.Context, n int, mask []uint64, plan *Plan, size []int) ([][]uint64, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	if len(size) != len(plan.Sets) {
		return nil, fmt.Errorf("%d sizes for %d sets", len(size), len(plan.Sets))
	}
	out := make([][]uint64, len(size))
	err := p.scored(ctx, n, mask, plan, func(w *pass, first int) error {
		lists, err := w.best(ctx, size[first:first+w.lists])
		copy(out[first:], lists)
		return err
	})
	return out, err
}

// scored scores the first n rows, some sets of the plan at a time, and gives each pass
// to then with the number of its first set.
func (p *Population) scored(ctx context.Context, n int, mask []uint64, plan *Plan, then func(w *pass, first int) error) error {
	switch {
	case p.closed:
		return cuda.ErrClosed
	case n < 0 || n > p.rows:
		return fmt.Errorf("scores of %d rows: the device has %d", n, p.rows)
	case len(mask) != (n+63)/64:
		return fmt.Errorf("a mask of %d words for %d rows: want %d", len(mask), n, (n+63)/64)
	}
	if n == 0 {
		_, err := plan.pack(p.dim)
		return err
	}
	lease, sets, err := p.lease(ctx, n, len(plan.Sets), plan)
	if err != nil {
		return err
	}
	defer lease.End()
	for first := 0; first < len(plan.Sets); {
		part := Plan{Columns: plan.Columns, Sets: plan.Sets[first:]}
		count := p.beforeSeeds(part.Sets[:min(group(part.Sets, manyHeads), sets)])
		seeds := count == 0
		count = max(count, 1)
		if plan.Progress != nil {
			part.Progress = func(done, _ int) { plan.Progress((first*n+count*done)/len(plan.Sets), n) }
		}
		part.Sets = part.Sets[:count]
		next := func(w *pass) error { return then(w, first) }
		if seeds {
			err = p.seeded(ctx, n, mask, &part.Sets[0], part.Progress, next)
		} else {
			err = p.part(ctx, n, mask, &part, next)
		}
		if err != nil {
			return err
		}
		first += count
	}
	return p.oldest(plan.Columns)
}

func (p *Population) part(ctx context.Context, n int, mask []uint64, plan *Plan, then func(w *pass) error) (err error) {
	k, err := plan.pack(p.dim)
	if err != nil {
		return err
	}
	w := p.newPass(n, len(plan.Sets), k.vectors)
	defer func() { err = errors.Join(err, w.free()) }()
	if plan.vectorsAlone() {
		if err := w.score(ctx, mask, plan.Progress); err != nil {
			return err
		}
		return then(w)
	}
	if shared := p.d.Info().SharedPerBlock; k.most*8*finishThreads > shared {
		return fmt.Errorf("the mean of the top %d does not fit the %d bytes of shared memory of a block", k.most, shared)
	}
	columns := make([]*column, len(plan.Columns))
	for i, c := range plan.Columns {
		if columns[i], err = p.column(ctx, c, n); err != nil {
			return err
		}
	}
	if err := w.allocPlan(k, len(columns)); err != nil {
		return err
	}
	if err := p.putMask(ctx, mask); err != nil {
		return err
	}
	if err := w.upload(ctx, k); err != nil {
		return err
	}
	if err := w.finish(ctx, columns, k, plan.Progress); err != nil {
		return err
	}
	return then(w)
}

// tile is how many rows are multiplied before they are finished.
func (w *pass) tile() int {
	most := min(w.p.perSegment, max(w.n/8&^63, leastTile))
	if n := len(w.heads); n > 0 {
		most = min(most, max(w.p.tileBytes/(4*n)&^63, 64))
	}
	return min(most, (w.n+63)&^63)
}

func (w *pass) allocPlan(k *packed, columns int) error {
	if err := w.choose(0); err != nil {
		return err
	}
	// want is a buffer that may be of nothing, which no device allocates.
	want := func(to **cuda.Buffer, purpose string, size int64) cuda.Want {
		return cuda.Want{To: to, Purpose: purpose, Size: max(size, 1)}
	}
	err := w.take(
		want(&w.vectors, "heads", 2*int64(len(w.heads))*int64(w.p.stride)), want(&w.ints, "heads", 4*int64(len(k.ints))),
		want(&w.values, "heads", 8*int64(len(k.values))), want(&w.answers, "heads", int64(len(k.answers))), want(&w.columns, "heads", 8*streamedAtOnce*int64(columns)),
		want(&w.dots, "products", 4*int64(len(k.vectors))*int64(w.tile())),
	)
	if err != nil {
		return err
	}
	return w.takeScores()
}

func (w *pass) upload(ctx context.Context, k *packed) error {
	return w.p.d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(cuda.Upload(q, w.vectors, 0, w.split()), cuda.Upload(q, w.ints, 0, k.ints), cuda.Upload(q, w.values, 0, k.values),
			cuda.Upload(q, w.answers, 0, k.answers))
	})
}

// finish scores the rows, a tile at a time.
func (w *pass) finish(ctx context.Context, columns []*column, k *packed, progress func(done, total int)) error {
	p := w.p
	// Where the bins of each tile's rows lie, of all tiles of a work: an upload between two
	// would wait for what is going on.
	begin := func(q *cuda.Queue, tiles []tile) error {
		address := make([]uint64, 0, len(tiles)*len(columns))
		for _, t := range tiles {
			for _, c := range columns {
				at, err := q.Address(c.segments[t.i].bins, int64(t.from)*2)
				if err != nil {
					return err
				}
				address = append(address, at)
			}
		}
		return cuda.Upload(q, w.columns, 0, address)
	}
	return w.works(ctx, w.tile(), 1, begin, func(q *cuda.Queue, of int, t tile, at lying) error {
		first := p.segments[t.i].first + t.from
		mask := cuda.At(p.mask, int64(first)/8)
		if err := w.multiply(q, at, t.n, mask); err != nil {
			return err
		}
		_, scales := at.args()
		return q.Launch("finish", cuda.Launch{Grid: p.d.Blocks(int64(t.n), finishThreads), Block: [3]int{finishThreads}, Shared: k.most * 8 * finishThreads},
			cuda.At(w.dots, 0), scales, mask, cuda.At(w.columns, 8*int64(of)*int64(len(columns))), cuda.At(w.ints, 0), cuda.At(w.values, 0),
			cuda.At(w.answers, 0), cuda.At(w.scores, int64(first)*4), cuda.I64(int64(t.n)), cuda.I64(int64(w.pitch)))
	}, progress)
}
