package scan

import (
	"context"
	"errors"
	"slices"

	"github.com/kindred-search/kindred/cuda"
)

const (
	// nothing is the prefix of a list of which nothing is asked.
	nothing = ^uint32(0)
	// fewBytes is how many candidates go to the host as they are, where to find out which of
	// them are needed takes the device as long as to copy them.
	fewBytes = 1 << 20
)

// listed is what is known of one list while its rows are selected.
type listed struct {
	want   int    // 0: nothing is asked
	prefix uint32 // the known upper bits of the want-th best's image
	known  int    // how many these are
	open   bool   // there are as many rows; else all that count are wanted
	above  int    // rows that are known to be better than the prefix
	room   int    // rows that reach it
}

// floor is the least image of those that reach the prefix.
func (l *listed) floor() uint32 {
	if !l.open {
		return maskedImage + 1
	}
	return max(l.prefix<<(32-l.known), maskedImage+1)
}

// narrow takes the list's histogram of the next bits.
func (l *listed) narrow(counts []uint32) error {
	next := digit(l.known)
	bin, ok := place(counts[:1<<next], l.want-l.above, &l.above)
	if !ok {
		return errors.New("the histograms of a scan contradict each other: this is a fault of the device or of Kindred")
	}
	l.prefix, l.known, l.room = l.prefix<<next|bin, l.known+next, l.above+int(counts[bin])
	return nil
}

// digit is how many bits follow the known ones, of 32: 11, 11 and 10.
func digit(known int) int {
	if known == 22 {
		return 10
	}
	return 11
}

// best selects the candidates of all lists of the pass from their scores; size[h] is how many of
// list h are wanted.
//
// From the histogram of the upper bits follows in which bin the want-th best of each list lies.
// What is in it or above is collected, which reads all scores once; that is more than is wanted,
// so that histograms of the next bits of what was collected narrow it. Where the bin is too
// crowded to be collected, all scores are read for these histograms.
func (w *pass) best(ctx context.Context, size []int) ([][]uint64, error) {
	out := make([][]uint64, w.lists)
	if !slices.ContainsFunc(size, func(k int) bool { return k > 0 }) {
		return out, nil
	}
	counts, err := w.histogram(ctx)
	if err != nil {
		return nil, err
	}
	lists := make([]listed, w.lists)
	for h := range lists {
		l := &lists[h]
		if l.want = max(size[h], 0); l.want > 0 {
			of := counts[h*bins : (h+1)*bins]
			l.prefix, l.open = place(of, l.want, &l.above)
			l.known, l.room = 11, l.above
			if l.open {
				l.room += int(of[l.prefix])
			}
		}
	}
	// Memory was planned for as many entries as there are rows: for what is collected, and what is
	// left of it.
	most := w.n / 2
	for _, known := range []int{11, 22} {
		err := w.narrow(ctx, lists, known, func(l *listed) bool { return l.room > most }, counts, w.refine(known))
		if err != nil {
			return nil, err
		}
	}
	for first := 0; first < len(lists); {
		// At least one list; one that is long although it was narrowed needs no more.
		end, sum := first, 0
		for end < len(lists) && (end == first || sum+lists[end].room <= most) {
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

// grid is one for some items of so many lists, which are its y: all lists together have as many
// blocks as one alone would.
func (w *pass) grid(items int64, lists int) [3]int {
	g := w.p.d.Blocks(items, threads)
	return [3]int{min(g[0], max(1, w.p.blocksMost/lists)), lists}
}

// narrow counts the next bits, [lists, bins], of those lists of which so many are known and that are to
// be narrowed, by what launch orders.
func (w *pass) narrow(ctx context.Context, lists []listed, known int, which func(l *listed) bool, counts []uint32, launch func(q *cuda.Queue, prefix *cuda.Buffer) error) error {
	prefix, any := make([]uint32, len(lists)), false
	asked := make([]bool, len(lists))
	for h := range lists {
		l := &lists[h]
		prefix[h] = nothing
		if l.open && l.known == known && which(l) {
			prefix[h], asked[h], any = l.prefix, true, true
		}
	}
	if !any {
		return nil
	}
	if err := w.count(ctx, prefix, counts, launch); err != nil {
		return err
	}
	for h := range lists {
		if asked[h] {
			if err := lists[h].narrow(counts[h*bins : (h+1)*bins]); err != nil {
				return err
			}
		}
	}
	return nil
}

// count has a launch add to histograms of as many lists as there are prefixes.
func (w *pass) count(ctx context.Context, prefix, counts []uint32, launch func(q *cuda.Queue, prefix *cuda.Buffer) error) error {
	return w.p.d.Do(ctx, func(q *cuda.Queue) error {
		size := int64(len(prefix)) * bins
		return errors.Join(q.Zero(w.hist, 0, 4*size), cuda.Upload(q, w.prefix, 0, prefix), launch(q, w.prefix), cuda.Download(q, counts[:size], w.hist, 0))
	})
}

// refine orders that the next bits of all scores be counted.
func (w *pass) refine(known int) func(q *cuda.Queue, prefix *cuda.Buffer) error {
	return func(q *cuda.Queue, prefix *cuda.Buffer) error {
		return q.Launch("refine", cuda.Launch{Grid: w.grid(int64(w.n)/4, w.lists), Block: [3]int{threads}},
			cuda.At(w.scores, 0), cuda.At(w.hist, 0), cuda.At(prefix, 0), cuda.I64(int64(w.n)), cuda.I64(int64(w.pitch)), cuda.I32(known))
	}
}

// collected is entries on the device: of list h those from places[h] to places[h + 1].
type collected struct {
	entries, found, placesAt, floors *cuda.Buffer
	places                           []uint64
}

// roomFor allocates what lists are collected into, gives it to f and frees it.
func (w *pass) roomFor(lists []listed, f func(c *collected) error) error {
	c := &collected{places: make([]uint64, len(lists)+1)}
	for h := range lists {
		c.places[h+1] = c.places[h] + uint64(lists[h].room)
	}
	n := int64(len(lists))
	return w.p.d.Borrow("members", []int64{8 * int64(c.places[n]), 8 * n, 8 * (n + 1), 4 * n}, func(b []*cuda.Buffer) error {
		c.entries, c.found, c.placesAt, c.floors = b[0], b[1], b[2], b[3]
		return f(c)
	})
}

// fill orders that the entries be made, by what launch orders, and checks that they are as many as was
// known.
func (w *pass) fill(ctx context.Context, c *collected, lists []listed, launch func(q *cuda.Queue) error) error {
	floors, found := make([]uint32, len(lists)), make([]uint64, len(lists))
	for h := range lists {
		floors[h] = lists[h].floor()
	}
	err := w.p.d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(q.Zero(c.found, 0, c.found.Size()), cuda.Upload(q, c.placesAt, 0, c.places), cuda.Upload(q, c.floors, 0, floors), launch(q), cuda.Download(q, found, c.found, 0))
	})
	if err != nil {
		return err
	}
	for h := range lists {
		if found[h] != uint64(lists[h].room) {
			return errors.New("a scan's histogram and its rows contradict each other: this is a fault of the device or of Kindred")
		}
	}
	return nil
}

// collect gets the candidates of these lists, of which first is the number of the first.
func (w *pass) collect(ctx context.Context, first int, lists []listed, out [][]uint64) error {
	return w.roomFor(lists, func(c *collected) error {
		err := w.fill(ctx, c, lists, func(q *cuda.Queue) error {
			return q.Launch("collect", cuda.Launch{Grid: w.grid(int64(w.n)/4, len(lists)), Block: [3]int{threads}},
				cuda.At(w.scores, int64(first)*int64(w.pitch)*4), cuda.At(c.entries, 0), cuda.At(c.found, 0), cuda.At(c.placesAt, 0), cuda.At(c.floors, 0),
				cuda.I64(int64(w.n)), cuda.I64(int64(w.pitch)))
		})
		if err != nil {
			return err
		}
		have, want := int(c.places[len(lists)]), wanted(lists)
		exact := !slices.ContainsFunc(lists, func(l listed) bool { return l.open && l.known < 32 })
		if exact || 8*have <= w.p.fewBytes || have <= want+want/8 {
			return w.download(ctx, c, out)
		}
		kept := slices.Clone(lists)
		counts := make([]uint32, len(lists)*bins)
		for _, known := range []int{11, 22} {
			err := w.narrow(ctx, kept, known, func(*listed) bool { return true }, counts, func(q *cuda.Queue, prefix *cuda.Buffer) error {
				return q.Launch("refine_entries", cuda.Launch{Grid: w.grid(int64(have), len(lists)), Block: [3]int{threads}},
					cuda.At(c.entries, 0), cuda.At(w.hist, 0), cuda.At(prefix, 0), cuda.At(c.placesAt, 0), cuda.I32(known))
			})
			if err != nil {
				return err
			}
		}
		return w.roomFor(kept, func(to *collected) error {
			err := w.fill(ctx, to, kept, func(q *cuda.Queue) error {
				return q.Launch("collect_entries", cuda.Launch{Grid: w.grid(int64(have), len(lists)), Block: [3]int{threads}},
					cuda.At(c.entries, 0), cuda.At(c.placesAt, 0), cuda.At(to.entries, 0), cuda.At(to.found, 0), cuda.At(to.placesAt, 0), cuda.At(to.floors, 0))
			})
			if err != nil {
				return err
			}
			return w.download(ctx, to, out)
		})
	})
}

// wanted is how many rows the lists need at least.
func wanted(lists []listed) int {
	sum := 0
	for h := range lists {
		sum += min(lists[h].want, lists[h].room)
	}
	return sum
}

// download gets the entries of all lists.
func (w *pass) download(ctx context.Context, c *collected, out [][]uint64) error {
	rows := make([]uint64, c.places[len(out)])
	if err := w.p.fetch(ctx, rows, c.entries); err != nil {
		return err
	}
	for h := range out {
		if c.places[h+1] > c.places[h] {
			out[h] = rows[c.places[h]:c.places[h+1]:c.places[h+1]]
		}
	}
	return nil
}
