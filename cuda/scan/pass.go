package scan

import (
	"context"
	"errors"

	"github.com/kindred-search/kindred/cuda"
)

// pass is what one pass over the rows holds on the device.
type pass struct {
	p     *Population
	n     int
	lists int    // whose scores it has
	heads []Head // vectors that it multiplies
	each  int    // of them, in one launch
	many  bool   // by the kernels of up to manyHeads

	vectors, runs *cuda.Buffer // of the heads: as [pass.split] lays them, then scales and biases; runs: see [pass.table]
	// Of a plan: itself, addresses of columns, and the products of a tile.
	ints, values, answers, columns, dots *cuda.Buffer
	hist, prefix                         *cuda.Buffer // hist: [lists, bins]; prefix: [lists]
	scores                               *cuda.Buffer // [lists, pitch], of which n are scores
	pitch                                int
	counts                               []uint32 // hist of the upper bits of all scores, where the scan made it
	rows                                 []int    // of each segment, below n
	all                                  []*cuda.Buffer
}

// newPass is a pass over the first n rows for so many lists. It holds nothing yet.
func (p *Population) newPass(n, lists int, heads []Head) *pass {
	w := &pass{p: p, n: n, lists: lists, heads: heads, pitch: (n + 63) &^ 63}
	for _, s := range p.segments {
		rows := min(s.rows, n-s.first)
		if rows <= 0 {
			break
		}
		w.rows = append(w.rows, rows)
	}
	return w
}

// free gives back what the pass holds.
func (w *pass) free() error {
	var all []error
	for _, b := range w.all {
		all = append(all, b.Free())
	}
	w.all = nil
	return errors.Join(all...)
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

// takeScores allocates what lists are made of: the scores, and their histograms.
func (w *pass) takeScores() error {
	lists := int64(w.lists)
	return w.take(
		cuda.Want{To: &w.hist, Purpose: "histograms", Size: lists * bins * 4}, cuda.Want{To: &w.prefix, Purpose: "heads", Size: lists * 4},
		cuda.Want{To: &w.scores, Purpose: "scores", Size: lists * int64(w.pitch) * 4})
}

// score scores everyone under the pass's heads, each of which is a list.
func (w *pass) score(ctx context.Context, mask []uint64, progress func(done, total int)) error {
	p := w.p
	if err := w.choose(4 * bins); err != nil {
		return err
	}
	split, exact := w.split(), make([]float64, 0, 2*len(w.heads))
	for _, h := range w.heads {
		exact = append(exact, h.Scale, h.Bias)
	}
	err := w.take(
		cuda.Want{To: &w.vectors, Purpose: "heads", Size: int64(len(split) + 8*len(exact))},
		cuda.Want{To: &w.runs, Purpose: "heads", Size: runBytes * segmentsAtOnce})
	if err != nil {
		return err
	}
	if err := w.takeScores(); err != nil {
		return err
	}
	if err := p.putMask(ctx, mask); err != nil {
		return err
	}
	if !w.many {
		w.counts = make([]uint32, w.lists*bins)
	}
	var work []tile
	begun := false
	begin := func(q *cuda.Queue, tiles []tile) error {
		work = tiles
		if !begun {
			begun = true
			err := errors.Join(cuda.Upload(q, w.vectors, 0, split), cuda.Upload(q, w.vectors, int64(len(split)), exact), q.Zero(w.hist, 0, w.hist.Size()))
			if err != nil {
				return err
			}
		}
		return w.table(q, tiles)
	}
	most, atOnce := w.n, segmentsAtOnce
	if progress != nil { // which is told between launches
		most, atOnce = w.tile(), 1
	}
	return w.works(ctx, most, atOnce, begin, func(q *cuda.Queue, k int, t tile, _ lying) error {
		first := p.segments[t.i].first + t.from
		if !w.streamed(t) { // what is on the device is one launch, at the last of its tiles
			if k < len(work)-1 {
				return nil
			}
			first, k = p.segments[work[0].i].first+work[0].from, 0
		}
		end := p.segments[t.i].first + t.from + t.n
		for h := 0; h < len(w.heads); h += w.each {
			count := min(w.each, len(w.heads)-h)
			args := []cuda.Arg{
				cuda.At(w.runs, int64(k)*runBytes), cuda.At(p.mask, 0), cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.vectors, int64(len(split)+16*h)),
				cuda.At(w.scores, int64(h)*int64(w.pitch)*4),
			}
			kernel, more := "scan_many", 0
			if !w.many {
				kernel, more = "scan_int8", 4*bins*count
				args = append(args, cuda.At(w.hist, int64(h)*bins*4))
			}
			args = append(args, cuda.U32(uint32(first)), cuda.U32(uint32(end)), cuda.I64(int64(w.pitch)), cuda.I32(p.stride), cuda.I32(p.wide()), cuda.I32(count))
			if err := q.Launch(kernel, w.shape(end-first, count, more), args...); err != nil {
				return err
			}
		}
		if end < w.n || w.many {
			return nil
		}
		return cuda.Download(q, w.counts, w.hist, 0)
	}, progress)
}

// runBytes is the size of a Run of stream.cuh.
const runBytes = 24

// table writes where the rows of a work's tiles lie, as Runs of stream.cuh. The slots of what is
// streamed come in turn.
func (w *pass) table(q *cuda.Queue, tiles []tile) error {
	runs := make([]uint64, 0, 3*len(tiles))
	for k, t := range tiles {
		s := w.p.segments[t.i]
		codes, scales, from := s.codes, s.scales, int64(t.from)
		if codes == nil {
			slot := (w.p.stage.next + k) % cuda.Slots
			codes, scales, from = w.p.stage.codes[slot], w.p.stage.scales[slot], 0
		}
		at, err := q.Address(codes, from*int64(w.p.stride))
		if err != nil {
			return err
		}
		scalesAt, err := q.Address(scales, 4*from)
		if err != nil {
			return err
		}
		runs = append(runs, at, scalesAt, uint64(uint32(s.first+t.from))|uint64(t.n)<<32)
	}
	return cuda.Upload(q, w.runs, 0, runs)
}

// histogram is that of the upper bits of each list's scores, [lists, bins].
func (w *pass) histogram(ctx context.Context) ([]uint32, error) {
	if w.counts != nil {
		return w.counts, nil
	}
	counts := make([]uint32, w.lists*bins)
	return counts, w.count(ctx, make([]uint32, w.lists), counts, w.refine(0))
}
