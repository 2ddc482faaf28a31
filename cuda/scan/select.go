package scan

import (
	"context"
	"errors"

	"github.com/kindred-search/kindred/cuda"
)

// nothing is the prefix of a list of which nothing is asked.
const nothing = ^uint32(0)

// listed is what is known of one list while its rows are selected.
type listed struct {
	want   int    // 0: nothing is asked
	prefix uint32 // the upper bits of the want-th best's image
	open   bool   // there are as many, and more bits of it to be found
	above  int    // rows that are known to be better
	room   int    // rows that the list will have
}

// best selects the rows of all lists of the pass from their scores. Counts holds histograms of the
// upper 11 bits, [lists, bins]; size[h] is how many of list h are wanted. Each step is one launch
// a segment for all lists.
func (w *pass) best(ctx context.Context, counts []uint32, size []int) ([][]uint64, error) {
	lists := make([]listed, len(size))
	for h := range lists {
		l := &lists[h]
		if l.want = max(size[h], 0); l.want > 0 {
			l.prefix, l.open = place(counts[h*bins:(h+1)*bins], l.want, &l.above)
			l.room = l.above
		}
	}
	for _, known := range []int{11, 22} {
		next := 11
		if known == 22 {
			next = 10
		}
		prefix, any := make([]uint32, len(lists)), false
		for h, l := range lists {
			prefix[h] = nothing
			if l.open {
				prefix[h], any = l.prefix, true
			}
		}
		if !any {
			break
		}
		if err := w.refine(ctx, prefix, known, counts); err != nil {
			return nil, err
		}
		for h := range lists {
			l := &lists[h]
			if !l.open {
				continue
			}
			of := counts[h*bins : h*bins+1<<next]
			digit, ok := place(of, l.want-l.above, &l.above)
			if !ok {
				return nil, errors.New("the histograms of a scan contradict each other: this is a fault of the device or of Kindred")
			}
			l.prefix = l.prefix<<next | digit
			l.room = l.above + int(of[digit])
		}
	}
	out := make([][]uint64, len(lists))
	for first := 0; first < len(lists); {
		// As many lists as have together no more rows than there are, for which memory was
		// planned; at least one.
		end, sum := first, 0
		for end < len(lists) && (end == first || sum+lists[end].room <= w.n) {
			sum += lists[end].room
			end++
		}
		if sum > 0 {
			if err := w.collect(ctx, first, lists[first:end], out[first:end]); err != nil {
				return nil, err
			}
		}
		first = end
	}
	return out, nil
}

// place is the bin, from the highest down, that the k-th best lies in; the rows of
// those above it are added to above. It is not found where all bins together have
// no k.
func place(counts []uint32, k int, above *int) (uint32, bool) {
	sum := 0
	for bin := len(counts) - 1; bin >= 0; bin-- {
		if sum+int(counts[bin]) >= k {
			*above += sum
			return uint32(bin), true
		}
		sum += int(counts[bin])
	}
	*above += sum
	return 0, false
}

// grid is one for n rows of so many lists, which are its y: all lists together have as many
// blocks as one alone would.
func (w *pass) grid(n, lists int) [3]int {
	g := w.p.d.Blocks(int64(n), threads)
	return [3]int{min(g[0], max(1, 16*w.p.d.Info().Processors/lists)), lists}
}

// refine counts the next bits of each list's scores whose upper ones are its prefix, [lists, bins].
func (w *pass) refine(ctx context.Context, prefix []uint32, known int, counts []uint32) error {
	return w.p.d.Do(ctx, func(q *cuda.Queue) error {
		lists := len(prefix)
		if err := errors.Join(q.Zero(w.hist, 0, int64(lists)*bins*4), cuda.Upload(q, w.prefix, 0, prefix)); err != nil {
			return err
		}
		for i, scores := range w.scores {
			err := q.Launch("refine", cuda.Launch{Grid: w.grid(w.rows[i], lists), Block: [3]int{threads}},
				cuda.At(scores, 0), cuda.At(w.hist, 0), cuda.At(w.prefix, 0), cuda.I64(int64(w.rows[i])), cuda.I32(known))
			if err != nil {
				return err
			}
		}
		return cuda.Download(q, counts[:lists*bins], w.hist, 0)
	})
}

// collect gets the rows of these lists, of which first is the number of the first.
func (w *pass) collect(ctx context.Context, first int, lists []listed, out [][]uint64) error {
	places, floors := make([]uint64, len(lists)+1), make([]uint32, len(lists))
	for h, l := range lists {
		places[h+1] = places[h] + uint64(l.room)
		floors[h] = uint32(maskedImage) + 1
		if l.open {
			floors[h] = l.prefix
		}
	}
	room, found := int64(places[len(lists)]), make([]uint64, len(lists))
	rows := make([]uint64, room)
	err := w.p.d.Borrow("members", []int64{8 * room, 8 * int64(len(found)), 8 * int64(len(places)), 4 * int64(len(floors))}, func(b []*cuda.Buffer) error {
		return w.p.d.Do(ctx, func(q *cuda.Queue) error {
			err := errors.Join(q.Zero(b[1], 0, b[1].Size()), cuda.Upload(q, b[2], 0, places), cuda.Upload(q, b[3], 0, floors))
			if err != nil {
				return err
			}
			for i, scores := range w.scores {
				err := q.Launch("collect", cuda.Launch{Grid: w.grid(w.rows[i], len(lists)), Block: [3]int{threads}},
					cuda.At(scores, int64(first)*int64(w.rows[i])*4), cuda.At(b[0], 0), cuda.At(b[1], 0), cuda.At(b[2], 0), cuda.At(b[3], 0),
					cuda.I64(int64(w.rows[i])), cuda.U32(uint32(w.p.segments[i].first)))
				if err != nil {
					return err
				}
			}
			return errors.Join(cuda.Download(q, rows, b[0], 0), cuda.Download(q, found, b[1], 0))
		})
	})
	if err != nil {
		return err
	}
	for h := range lists {
		if found[h] != uint64(lists[h].room) {
			return errors.New("a scan's histogram and its rows contradict each other: this is a fault of the device or of Kindred")
		}
		if lists[h].room > 0 {
			out[h] = rows[places[h]:places[h+1]:places[h+1]]
		}
	}
	return nil
}
