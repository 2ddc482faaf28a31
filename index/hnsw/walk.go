package hnsw

import (
	"sync/atomic"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/internal/simd"
)

// walker is the memory of one walk. It is for one goroutine; take one from the
// graph's pool and put it back.
type walker struct {
	g     *graph
	t     *tables
	query simd.Int8Query
	scale float32 // of the query
	pairs simd.Int8Query

	seen  bitset
	fresh []uint32 // neighbours not seen before
	dots  []int32
	best  []key // found so far, ascending: best first
	heap  []key // to be visited, in a walk with a filter; the least is first
	work  int   // scores made

	keys   []key // of selection
	rest   []uint32
	chosen []uint32
}

func newWalker(g *graph) *walker {
	return &walker{g: g, fresh: make([]uint32, 0, g.M0), dots: make([]int32, g.M0)}
}

// aim sets the query to a vector that is not zero.
func (w *walker) aim(vector []float32) {
	v := rows.EncodeVector(index.Int8, vector)
	w.query.Set(v.Codes)
	w.scale = v.Scale
}

// aimAt sets the query to a row that has been placed.
func (w *walker) aimAt(row uint32) {
	w.query.Set(w.t.codes.Row(row))
	w.scale = w.t.scale(row)
}

// begin readies the walker for tables.
func (w *walker) begin(t *tables) {
	w.t, w.work = t, 0
	if words := int(t.limit+63) / 64; len(w.seen) < words {
		w.seen = make(bitset, words)
	}
}

// score scores rows against the query into w.dots.
func (w *walker) score(rows []uint32) []int32 {
	if cap(w.dots) < len(rows) {
		w.dots = make([]int32, len(rows)*2)
	}
	dots := w.dots[:len(rows)]
	simd.DotInt8At(w.t.codes, rows, &w.query, dots)
	w.work += len(rows)
	return dots
}

// scorePairs is score against the query of a selection.
func (w *walker) scorePairs(rows []uint32) []int32 {
	if cap(w.dots) < len(rows) {
		w.dots = make([]int32, len(rows)*2)
	}
	dots := w.dots[:len(rows)]
	simd.DotInt8At(w.t.codes, rows, &w.pairs, dots)
	w.work += len(rows)
	return dots
}

func (w *walker) keyOf(row uint32) key {
	w.fresh = append(w.fresh[:0], row)
	return keyOf(float32(w.score(w.fresh)[0])*w.t.scale(row)*w.scale, row)
}

// unseen collects the neighbours of a node that the walk has not seen.
func (w *walker) unseen(row uint32, level int) []uint32 {
	w.fresh = w.fresh[:0]
	links := w.t.links(row, level)
	for i := range links {
		n := atomic.LoadUint32(&links[i])
		if n >= w.t.limit { // the end, or a row younger than the tables
			if n == none {
				break
			}
			continue
		}
		if w.seen.add(n) {
			w.fresh = append(w.fresh, n)
		}
	}
	return w.fresh
}

// descend goes greedily from a node at one level down to another, and returns
// the nearest node that it met.
func (w *walker) descend(from key, level, to int) key {
	for ; level > to; level-- {
		for moved := true; moved; {
			moved = false
			links := w.t.links(from.row(), level)
			w.fresh = w.fresh[:0]
			for i := range links {
				n := atomic.LoadUint32(&links[i])
				if n == none {
					break
				}
				if n < w.t.limit {
					w.fresh = append(w.fresh, n)
				}
			}
			dots := w.score(w.fresh)
			for i, n := range w.fresh {
				if k := keyOf(float32(dots[i])*w.t.scale(n)*w.scale, n); k < from {
					from, moved = k, true
				}
			}
		}
	}
	return from
}

// near fills w.best with the ef nearest nodes of a level that a best-first walk
// from a node finds.
func (w *walker) near(from key, level, ef int) []key {
	clear(w.seen)
	w.seen.add(from.row())
	best := append(w.best[:0], from)
	for next := 0; next < len(best); {
		if best[next]&1 != 0 {
			next++
			continue
		}
		best[next] |= 1
		fresh := w.unseen(best[next].row(), level)
		if next+1 < len(best) { // likely the next to be visited
			simd.Prefetch(w.t.links(best[next+1].row(), level))
		}
		dots := w.score(fresh)
		first := next + 1
		for i, n := range fresh {
			k := keyOf(float32(dots[i])*w.t.scale(n)*w.scale, n)
			if len(best) == ef {
				if k >= best[ef-1] {
					continue
				}
				best = best[:ef-1]
			}
			at := place(best, k)
			best = append(best, 0)
			copy(best[at+1:], best[at:])
			best[at] = k
			first = min(first, at)
		}
		next = first
	}
	w.best = best
	return best
}

// place is the first position of an ascending list whose key is above k. Marks
// do not matter, since no node is twice in a list.
func place(list []key, k key) int {
	lo, n := 0, len(list)
	for n > 0 {
		half := n / 2
		if list[lo+half] < k {
			lo += half + 1
			n -= half + 1
		} else {
			n = half
		}
	}
	return lo
}

// nearAllowed is near on level 0 for the nodes of which allowed holds: the walk
// goes through all nodes, and ends when none is left that is nearer than the
// worst of ef allowed ones. It gives up, with false, after budget scores.
func (w *walker) nearAllowed(from key, ef, budget int, allowed func(row uint32) bool) bool {
	clear(w.seen)
	w.seen.add(from.row())
	w.best = w.best[:0]
	w.heap = push(w.heap[:0], from)
	if allowed(from.row()) {
		w.best = append(w.best, from)
	}
	for len(w.heap) > 0 {
		var k key
		w.heap, k = pop(w.heap)
		if len(w.best) == ef && k > w.best[ef-1] {
			break
		}
		if w.work > budget {
			return false
		}
		fresh := w.unseen(k.row(), 0)
		if len(w.heap) > 0 {
			simd.Prefetch(w.t.links(w.heap[0].row(), 0))
		}
		dots := w.score(fresh)
		for i, n := range fresh {
			k := keyOf(float32(dots[i])*w.t.scale(n)*w.scale, n)
			full := len(w.best) == ef
			if full && k >= w.best[ef-1] {
				continue
			}
			w.heap = push(w.heap, k)
			if !allowed(n) {
				continue
			}
			if full {
				w.best = w.best[:ef-1]
			}
			at := place(w.best, k)
			w.best = append(w.best, 0)
			copy(w.best[at+1:], w.best[at:])
			w.best[at] = k
		}
	}
	return true
}

func push(h []key, k key) []key {
	h = append(h, k)
	i := len(h) - 1
	for i > 0 {
		p := (i - 1) / 2
		if h[p] <= k {
			break
		}
		h[i] = h[p]
		i = p
	}
	h[i] = k
	return h
}

func pop(h []key) ([]key, key) {
	least, k := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	if len(h) == 0 {
		return h, least
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if k <= h[c] {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = k
	return h, least
}
