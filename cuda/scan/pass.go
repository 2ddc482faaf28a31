package scan

import (
	"context"
	"errors"
	"fmt"

	"github.com/kindred-search/kindred/cuda"
)

// pass is what one pass over the rows holds on the device.
type pass struct {
	p     *Population
	n     int
	heads []Head

	sets  int     // of a plan
	codes []int16 // of its vectors, or split, as [Population.lay] lays them
	split []int8

	vectors, scale, bias *cuda.Buffer // of the heads
	// Of a plan: itself, addresses of columns, and the products of a tile.
	ints, values, answers, columns, dots *cuda.Buffer
	mask, hist, prefix                   *cuda.Buffer   // hist: [lists, bins]; prefix: [lists]
	scores                               []*cuda.Buffer // [segments]: [heads, rows of the segment below n]
	rows                                 []int
	all                                  []*cuda.Buffer
}

func (p *Population) pass(ctx context.Context, n int, mask []uint64, heads []Head, size []int) (out [][]uint64, err error) {
	if n == 0 || len(heads) == 0 {
		return make([][]uint64, len(heads)), nil
	}
	w := &pass{p: p, n: n, heads: heads}
	defer func() {
		for _, b := range w.all {
			err = errors.Join(err, b.Free())
		}
	}()
	if err := w.alloc(len(mask)); err != nil {
		return nil, err
	}
	counts := make([]uint32, len(heads)*bins)
	if err := w.score(ctx, mask, counts); err != nil {
		return nil, err
	}
	return w.best(ctx, counts, size)
}

func (w *pass) alloc(words int) error {
	p := w.p
	count := int64(len(w.heads))
	err := w.take(
		cuda.Want{To: &w.vectors, Purpose: "heads", Size: 2 * count * int64(p.stride)},
		cuda.Want{To: &w.scale, Purpose: "heads", Size: count * 8}, cuda.Want{To: &w.bias, Purpose: "heads", Size: count * 8},
		cuda.Want{To: &w.mask, Purpose: "mask", Size: int64(words) * 8}, cuda.Want{To: &w.hist, Purpose: "histograms", Size: count * bins * 4},
		cuda.Want{To: &w.prefix, Purpose: "heads", Size: count * 4},
	)
	if err != nil {
		return err
	}
	return w.takeScores(count)
}

// take allocates what the pass holds until it ends.
func (w *pass) take(wants ...cuda.Want) error {
	if err := w.p.d.AllocAll(wants...); err != nil {
		return err
	}
	for _, want := range wants {
		w.all = append(w.all, *want.To)
	}
	return nil
}

// takeScores allocates so many lists' scores of every segment's rows below n.
func (w *pass) takeScores(count int64) error {
	for _, s := range w.p.segments {
		rows := min(s.rows, w.n-s.first)
		if rows <= 0 {
			break
		}
		var scores *cuda.Buffer
		if err := w.take(cuda.Want{To: &scores, Purpose: "scores", Size: count * int64(rows) * 4}); err != nil {
			return err
		}
		w.scores, w.rows = append(w.scores, scores), append(w.rows, rows)
	}
	return nil
}

// scanFor is the kernel for so many heads.
func scanFor(count int) string {
	most := 1
	for most < count {
		most *= 2
	}
	return fmt.Sprintf("scan_int8_%d", most)
}

// score scores everyone and reads the histograms of the scores' upper bits.
func (w *pass) score(ctx context.Context, mask []uint64, counts []uint32) error {
	p := w.p
	codes := make([]int16, len(w.heads)*p.stride)
	scale, bias := make([]float64, len(w.heads)), make([]float64, len(w.heads))
	for h, head := range w.heads {
		copy(codes[h*p.stride:], head.Codes)
		scale[h], bias[h] = head.Scale, head.Bias
	}
	err := p.d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(
			cuda.Upload(q, w.vectors, 0, codes), cuda.Upload(q, w.scale, 0, scale), cuda.Upload(q, w.bias, 0, bias),
			cuda.Upload(q, w.mask, 0, mask), q.Zero(w.hist, 0, w.hist.Size()))
	})
	if err != nil {
		return err
	}
	count := len(w.heads)
	err = w.works(ctx, w.n, segmentsAtOnce, nil, func(q *cuda.Queue, _ int, t tile, at lying) error {
		codes, scales := at.args()
		return q.Launch(scanFor(count), cuda.Launch{
			Grid: p.d.Blocks(int64(t.n), threads/rowLanes), Block: [3]int{threads}, Shared: count * (2*p.stride + 4*bins),
		}, codes, scales, cuda.At(w.mask, int64(p.segments[t.i].first)/8), cuda.At(w.vectors, 0), cuda.At(w.scale, 0), cuda.At(w.bias, 0),
			cuda.At(w.scores[t.i], 0), cuda.At(w.hist, 0), cuda.I64(int64(t.n)), cuda.I32(p.stride), cuda.I32(count))
	}, nil)
	if err != nil {
		return err
	}
	return p.d.Do(ctx, func(q *cuda.Queue) error { return cuda.Download(q, counts, w.hist, 0) })
}
