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
	entries *cuda.Buffer
	// One after the other, words of each list: how many were found, where they lie, and
	// one place more, and the floor.
	about  *cuda.Buffer
	places []uint64
}

func (c *collected) found() cuda.Arg    { return cuda.At(c.about, 0) }
func (c *collected) placesAt() cuda.Arg { return cuda.At(c.about, 8*int64(len(c.places)-1)) }
func (c *collected) floors() cuda.Arg   { return cuda.At(c.about, 8*int64(2*len(c.places)-1)) }

// roomFor allocates what lists are collected into, gives it to f and frees it.
func (w *pass) roomFor(lists []listed, f func(c *collected) error) error {
	c := &collected{places: make([]uint64, len(lists)+1)}
	for h := range lists {
		c.places[h+1] = c.places[h] + uint64(lists[h].room)
	}
	n := len(lists)
	return w.p.d.Borrow("members", []int64{8 * int64(c.places[n]), 8 * int64(3*n+1)}, func(b []*cuda.Buffer) error {
		c.entries, c.about = b[0], b[1]
		return f(c)
	})
}

// fill orders that the entries be made, by what launch orders, and checks that they are as many as was
// known. Where out is not nil, the lists are copied to it.
func (w *pass) fill(ctx context.Context, c *collected, lists []listed, out [][]uint64, launch func(q *cuda.Queue) error) error {
	about := slices.Concat(make([]uint64, len(lists)), c.places)
	for h := range lists {
		about = append(about, uint64(lists[h].floor()))
	}
	found, rows := make([]uint64, len(lists)), []uint64(nil)
	if out != nil {
		rows = make([]uint64, c.places[len(lists)])
		if err := w.p.pinFetched(len(rows)); err != nil {
			return err
		}
	}
	rest := func() {}
	err := w.p.d.Do(ctx, func(q *cuda.Queue) error {
		if err := errors.Join(cuda.Upload(q, c.about, 0, about), launch(q)); err != nil {
			return err
		}
		if out != nil {
			var err error
			if rest, err = w.p.fetch(q, rows, c.entries); err != nil {
				return err
			}
		}
		return cuda.Download(q, found, c.about, 0)
	})
	if err != nil {
		return err
	}
	rest()
	for h := range lists {
		if found[h] != uint64(lists[h].room) {
			return errors.New("a scan's histogram and its rows contradict each other: this is a fault of the device or of Kindred")
		}
		if out != nil && lists[h].room > 0 {
			out[h] = rows[c.places[h]:c.places[h+1]:c.places[h+1]]
		}
	}
	return nil
}

// collect gets the candidates of these lists, of which first is the number of the first.
func (w *pass) collect(ctx context.Context, first int, lists []listed, out [][]uint64) error {
	return w.roomFor(lists, func(c *collected) error {
		have := int(c.places[len(lists)])
		direct := out
		if 8*have > w.p.fewBytes && !narrowed(lists) {
			direct = nil
		}
		err := w.fill(ctx, c, lists, direct, func(q *cuda.Queue) error {
			return q.Launch("collect", cuda.Launch{Grid: w.grid(int64(w.n)/4, len(lists)), Block: [3]int{threads}},
				cuda.At(w.scores, int64(first)*int64(w.pitch)*4), cuda.At(c.entries, 0), c.found(), c.placesAt(), c.floors(), cuda.I64(int64(w.n)), cuda.I64(int64(w.pitch)))
		})
		if err != nil || direct != nil {
			return err
		}
		kept := slices.Clone(lists)
		counts := make([]uint32, len(lists)*bins)
		for _, known := range []int{11, 22} {
			if narrowed(kept) {
				break
			}
			err := w.narrow(ctx, kept, known, func(*listed) bool { return true }, counts, func(q *cuda.Queue, prefix *cuda.Buffer) error {
				return q.Launch("refine_entries", cuda.Launch{Grid: w.grid(int64(have), len(lists)), Block: [3]int{threads}},
					cuda.At(c.entries, 0), cuda.At(w.hist, 0), cuda.At(prefix, 0), c.placesAt(), cuda.I32(known))
			})
			if err != nil {
				return err
			}
		}
		return w.roomFor(kept, func(to *collected) error {
			return w.fill(ctx, to, kept, out, func(q *cuda.Queue) error {
				return q.Launch("collect_entries", cuda.Launch{Grid: w.grid(int64(have), len(lists)), Block: [3]int{threads}},
					cuda.At(c.entries, 0), c.placesAt(), cuda.At(to.entries, 0), to.found(), to.placesAt(), to.floors())
			})
		})
	})
}

// narrowed says whether lists have hardly more rows than they need, or can't be narrowed.
func narrowed(lists []listed) bool {
	room, want := 0, 0
	all := true
	for h := range lists {
		l := &lists[h]
		room, want = room+l.room, want+min(l.want, l.room)
		all = all && (!l.open || l.known == 32)
	}
	return all || room <= want+want/8
}
