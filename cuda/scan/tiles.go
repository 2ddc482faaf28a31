package scan

import (
	"context"

	"github.com/kindred-search/kindred/cuda"
)

const (
	// streamedAtOnce is how many tiles of streamed rows are one work of the device: so many
	// that few copies wait for the host, so few that others who want the device wait some
	// hundredths of a second.
	streamedAtOnce = 8
	// segmentsAtOnce is how many segments on the device are one work, which is one launch: some
	// hundredths of a second.
	segmentsAtOnce = 64
)

// tile is rows [from, from + n) of segment i.
type tile struct{ i, from, n int }

// tiles are those of the pass's rows, none of more than most.
func (w *pass) tiles(most int) []tile {
	var out []tile
	for i, rows := range w.rows {
		for from := 0; from < rows; from += most {
			out = append(out, tile{i, from, min(most, rows-from)})
		}
	}
	return out
}

// streamed says whether a tile's rows come from the host.
func (w *pass) streamed(t tile) bool { return w.p.segments[t.i].codes == nil }

// works has the device do the pass's tiles, of most rows at most. Those that are on it are given to
// a work atOnce at a time, streamed ones streamedAtOnce; ctx is asked before each tile, and
// progress told after each work how many rows are done. Before each work, begin may order
// what it needs; each orders a tile's kernels, the k-th of the work.
func (w *pass) works(ctx context.Context, most, atOnce int, begin func(q *cuda.Queue, tiles []tile) error,
	each func(q *cuda.Queue, k int, t tile, at lying) error, progress func(done, total int),
) error {
	p := w.p
	for all := w.tiles(most); len(all) > 0; {
		limit := atOnce
		if w.streamed(all[0]) {
			limit = streamedAtOnce
		}
		n := 1
		for n < min(limit, len(all)) && w.streamed(all[n]) == w.streamed(all[0]) {
			n++
		}
		part := all[:n]
		all = all[n:]
		err := p.d.Do(ctx, func(q *cuda.Queue) error {
			if begin != nil {
				if err := begin(q, part); err != nil {
					return err
				}
			}
			for k, t := range part {
				if err := ctx.Err(); err != nil {
					return err
				}
				err := p.with(q, p.segments[t.i], t.from, t.n, func(at lying) error { return each(q, k, t, at) })
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if last := part[n-1]; progress != nil {
			progress(p.segments[last.i].first+last.from+last.n, w.n)
		}
	}
	return nil
}
