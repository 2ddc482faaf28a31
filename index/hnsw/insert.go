package hnsw

import (
	"bytes"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/kindred-search/kindred/index/rows"
)

// insert makes a node of a row, or a twin of the node that has its codes. It
// may run in several goroutines for different rows.
func (g *graph) insert(w *walker, view *rows.View, row uint32) {
	t := g.tab.Load()
	if !g.place(t, view, row) {
		g.bare.Add(1)
		return
	}
	level := g.levelOf(row)
	b, i := t.at(row)
	if level > 0 {
		up := make([]uint32, level*t.m)
		for j := range up {
			up[j] = none
		}
		b.upper[i] = up
	}
	if g.entry.Load() == 0 {
		g.top.Lock()
		if g.entry.Load() == 0 {
			g.entry.Store(uint64(level+1)<<32 | uint64(row))
			g.top.Unlock()
			return
		}
		g.top.Unlock()
	}
	if w.connect(row, level, true) {
		g.raise(row, level)
	}
}

// connect finds a node's neighbours and links them both ways, on its levels. It
// returns false, having linked nothing, when twins is set and there is a node of
// the same codes: the row is then that node's twin.
func (w *walker) connect(row uint32, level int, twins bool) bool {
	t, entry, top, ok := w.g.start()
	if !ok {
		return true
	}
	w.begin(t)
	w.aimAt(row)
	at := w.descend(w.keyOf(entry), top, level)
	var chosen [maxLevel + 1][]uint32
	for l := min(level, top); l >= 0; l-- {
		found := w.near(at, l, w.g.Build)
		if twins {
			if node, ok := w.same(row, found); ok {
				w.g.join(t, node, row)
				return false
			}
		}
		at = found[0] &^ 1
		w.keys = w.keys[:0]
		for _, k := range found {
			if k.row() != row {
				w.keys = append(w.keys, k&^1)
			}
		}
		chosen[l] = slices.Clone(w.choose(w.keys, w.g.M))
	}
	for l := 0; l <= min(level, top); l++ {
		w.g.lock(row).Lock()
		list := t.links(row, l)
		merged := chosen[l]
		for i := range list { // who linked to it meanwhile, or before
			n := atomic.LoadUint32(&list[i])
			if n == none || len(merged) == len(list) {
				break
			}
			if !slices.Contains(merged, n) {
				merged = append(merged, n)
			}
		}
		store(list, merged)
		w.g.lock(row).Unlock()
		for _, n := range chosen[l] {
			w.link(n, row, l)
		}
	}
	return true
}

// same finds a node of exactly the row's codes among the nearest.
func (w *walker) same(row uint32, found []key) (uint32, bool) {
	codes := w.t.codes.Row(row)
	for _, k := range found {
		if k.sim() < 0.9999 {
			break
		}
		if n := k.row(); n != row && sameCodes(w.t.codes.Row(n), codes) {
			return n, true
		}
	}
	return 0, false
}

func sameCodes(a, b []int8) bool {
	return len(a) == len(b) && (len(a) == 0 || bytes.Equal(
		unsafe.Slice((*byte)(unsafe.Pointer(&a[0])), len(a)), unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), len(b))))
}

// join puts a row on the chain of a node's twins.
func (g *graph) join(t *tables, node, row uint32) {
	mu := g.lock(node)
	mu.Lock()
	nb, ni := t.at(node)
	rb, ri := t.at(row)
	rb.upper[ri] = nil
	atomic.StoreUint32(&rb.twin[ri], nb.twin[ni])
	atomic.StoreUint32(&nb.twin[ni], row)
	mu.Unlock()
}

// store writes a list of links, ended by none where there is room.
func store(list, links []uint32) {
	for i, n := range links {
		atomic.StoreUint32(&list[i], n)
	}
	for i := len(links); i < len(list); i++ {
		atomic.StoreUint32(&list[i], none)
	}
}

// link adds row to a node's links. Where the list is full, the node chooses anew
// among those that it has and this one.
func (w *walker) link(node, row uint32, level int) {
	mu := w.g.lock(node)
	mu.Lock()
	defer mu.Unlock()
	list := w.t.links(node, level)
	for i, n := range list {
		if n == row {
			return
		}
		if n == none {
			atomic.StoreUint32(&list[i], row)
			return
		}
	}
	w.rest = append(append(w.rest[:0], list...), row)
	store(list, w.pick(node, w.rest, len(list)))
}

// pick chooses up to m of candidates, which are not the node itself, as the
// node's links.
func (w *walker) pick(node uint32, candidates []uint32, m int) []uint32 {
	w.aimAt(node)
	dots := w.score(candidates)
	w.keys = w.keys[:0]
	for i, n := range candidates {
		w.keys = append(w.keys, keyOf(float32(dots[i])*w.t.scale(n)*w.scale, n))
	}
	slices.Sort(w.keys)
	return w.choose(w.keys, m)
}

// choose picks up to m links from candidates, best first: one that is nearer to
// a link already picked than to the node itself is left out, since it can be
// reached through that one. The result is the walker's until the next call;
// candidates are overwritten.
func (w *walker) choose(candidates []key, m int) []uint32 {
	w.chosen = w.chosen[:0]
	rest := candidates
	for len(rest) > 0 && len(w.chosen) < m {
		c := rest[0].row()
		w.chosen = append(w.chosen, c)
		rest = rest[1:]
		if len(w.chosen) == m || len(rest) == 0 {
			break
		}
		w.fresh = w.fresh[:0]
		for _, k := range rest {
			w.fresh = append(w.fresh, k.row())
		}
		w.pairs.Set(w.t.codes.Row(c))
		scale := w.t.scale(c)
		dots := w.scorePairs(w.fresh)
		kept := rest[:0]
		for i, k := range rest {
			if float32(dots[i])*w.t.scale(k.row())*scale <= k.sim() {
				kept = append(kept, k)
			}
		}
		rest = kept
	}
	return w.chosen
}
