package hnsw

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

func newEngine(base index.Engine, opt *Options, least int, path string) *Engine {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{Engine: base, opt: opt, least: least, path: path, kick: make(chan struct{}, 1), cancel: cancel, news: make(chan struct{})}
	e.done.Go(func() { e.run(ctx) })
	e.wake()
	return e
}

// wake tells the building goroutine that there may be rows to insert.
func (e *Engine) wake() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// stop ends the building goroutine.
func (e *Engine) stop() {
	e.cancel()
	e.done.Wait()
}

func (e *Engine) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.kick:
		}
		for {
			v, err := e.view(ctx)
			if err == nil {
				err = e.follow(ctx, v)
			}
			if err != nil { // closed or dropped; searches say so themselves
				e.mu.Lock()
				e.broken = err
				close(e.news)
				e.news = make(chan struct{})
				e.mu.Unlock()
				return
			}
			e.mu.Lock()
			again := e.caught != v.Version()
			e.caught = v.Version()
			close(e.news)
			e.news = make(chan struct{})
			e.mu.Unlock()
			if !again {
				break
			}
		}
		if e.changed > 1000 && time.Since(e.kept) >= e.opt.SaveEvery {
			e.keep()
		}
	}
}

// Wait returns when the graph has every row that was acknowledged before the
// call, or when there is nothing to have a graph of.
func (e *Engine) Wait(ctx context.Context) error {
	v, err := e.view(ctx)
	if err != nil {
		return err
	}
	e.wake()
	for {
		e.mu.Lock()
		caught, news, broken := e.caught, e.news, e.broken
		e.mu.Unlock()
		switch {
		case broken != nil:
			return broken
		case caught >= v.Version():
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// follow brings the graph up to a view.
func (e *Engine) follow(ctx context.Context, v *rows.View) error {
	g := e.graph.Load()
	if g == nil && int(v.Live().GetCardinality()) < e.least {
		return nil
	}
	if uint64(v.Len()) >= 1<<31 {
		e.graph.Store(nil) // a key has 31 bits for a row
		return nil
	}
	if g == nil || !v.SameRows(g.home) {
		fresh := newGraph(v, e.opt)
		if g == nil {
			if err := e.restore(ctx, fresh, v); err != nil {
				return err
			}
		} else if err := e.renumber(ctx, fresh, g, v); err != nil {
			return err
		}
		g = fresh
		e.graph.Store(g)
	}
	e.last = v
	g.grow(v)
	from, all := int(g.covered.Load()), v.Len()
	for at := from; at < all; {
		end := min(at+4096, all)
		if err := g.insertAll(ctx, v, e.opt.Workers, end-at, func(i int) uint32 { return uint32(at + i) }); err != nil {
			return err
		}
		g.covered.Store(uint32(end))
		e.changed += end - at
		at = end
	}
	if e.loose += all - from; e.loose >= max(1000, all/50) {
		e.loose = 0
		return g.mend(ctx, v, e.opt.Workers)
	}
	return nil
}

// parallel calls do for 0..n-1 in several goroutines, each with a walker of its
// own.
func (g *graph) parallel(ctx context.Context, workers, n int, do func(w *walker, i int)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			w := g.pool.Get().(*walker)
			defer g.pool.Put(w)
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(w, i)
				runtime.Gosched() // searches go first
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// insertAll inserts the live ones of n rows.
func (g *graph) insertAll(ctx context.Context, v *rows.View, workers, n int, row func(i int) uint32) error {
	return g.parallel(ctx, workers, n, func(w *walker, i int) {
		if r := row(i); v.Live().Contains(r) {
			g.insert(w, v, r)
		}
	})
}

// renumber grows a graph out of one of an earlier generation: a row has the
// place of the one that had its id and its vector.
func (e *Engine) renumber(ctx context.Context, g, old *graph, v *rows.View) error {
	covered := old.covered.Load()
	to := make([]uint32, covered)
	for i := range to {
		to[i] = none
	}
	it := v.Live().Iterator()
	for it.HasNext() {
		row := it.Next()
		was, ok := e.last.Find(v.ID(row))
		if !ok || was >= covered {
			continue
		}
		a, b := v.Vector(row), e.last.Vector(was)
		if vectorSum(&a) == vectorSum(&b) {
			to[was] = row
		}
	}
	return e.transplant(ctx, g, old, to, v)
}

// restore grows a graph out of the one on disk, where there is one.
func (e *Engine) restore(ctx context.Context, g *graph, v *rows.View) error {
	if e.path == "" {
		return nil
	}
	old, to, err := load(e.path, g.shape, v)
	if errors.Is(err, errNoFile) {
		return nil
	}
	e.kept = time.Now()
	if err != nil {
		e.opt.Logf("graph %s: %v; what is missing is built anew", e.path, err)
	}
	if old == nil {
		return nil
	}
	return e.transplant(ctx, g, old, to, v)
}

// keep writes the graph to disk. A graph that cannot be kept is built anew after
// the next start, so that is told and no more.
func (e *Engine) keep() {
	g := e.graph.Load()
	if e.path == "" || g == nil || e.changed == 0 || e.last == nil || !e.last.SameRows(g.home) {
		return
	}
	if err := save(e.path, g, e.last); err != nil {
		e.opt.Logf("graph %s: not kept: %v", e.path, err)
		return
	}
	e.changed, e.kept = 0, time.Now()
}

// transplant makes g, which is empty, of what old links: row r of old is to[r] of
// v, or gone. Live rows of v that old does not have are inserted.
func (e *Engine) transplant(ctx context.Context, g, old *graph, to []uint32, v *rows.View) error {
	g.grow(v)
	t, ot := g.tab.Load(), old.tab.Load()
	had := make(bitset, (v.Len()+63)/64)
	lost := 0
	isTwin := make(bitset, (len(to)+63)/64)
	for r := range to {
		if to[r] == none {
			lost++
		}
		if n := old.twin(uint32(r)); int(n) < len(to) {
			isTwin.add(n)
		}
	}
	// A node's place goes to the first of it and its twins that lives.
	node := make([]uint32, len(to))
	var nodes []uint32
	top, entry := -1, uint32(0)
	for r := range to {
		node[r] = none
		if ot.scale(uint32(r)) == 0 || isTwin.has(uint32(r)) {
			continue
		}
		chain := uint32(none) // end of the new chain
		for o := uint32(r); int(o) < len(to); o = old.twin(o) {
			row := to[o]
			if row == none || had.has(row) || !g.place(t, v, row) {
				continue
			}
			had.add(row)
			if node[r] == none {
				node[r] = row
			} else {
				b, i := t.at(chain)
				b.twin[i] = row
			}
			chain = row
		}
		if node[r] == none {
			continue
		}
		nodes = append(nodes, uint32(r))
		level := ot.level(uint32(r))
		if level > 0 {
			b, i := t.at(node[r])
			b.upper[i] = make([]uint32, level*t.m)
			for j := range b.upper[i] {
				b.upper[i][j] = none
			}
		}
		if level > top {
			top, entry = level, node[r]
		}
	}
	if top >= 0 {
		g.entry.Store(uint64(top+1)<<32 | uint64(entry))
	}
	poor := make([]bool, len(nodes)) // links are missing and nobody knows where they led
	err := g.parallel(ctx, e.opt.Workers, len(nodes), func(w *walker, i int) {
		w.begin(t)
		for level := ot.level(nodes[i]); level >= 0; level-- {
			poor[i] = !w.regraft(ot, nodes[i], level, node) || poor[i]
		}
	})
	if err != nil {
		return err
	}
	err = g.parallel(ctx, e.opt.Workers, len(nodes), func(w *walker, i int) {
		if row := node[nodes[i]]; poor[i] {
			w.connect(row, t.level(row), false)
		}
	})
	if err != nil {
		return err
	}
	var missing []uint32
	it := v.Live().Iterator()
	for it.HasNext() {
		if row := it.Next(); !had.has(row) {
			missing = append(missing, row)
		}
	}
	if err := g.insertAll(ctx, v, e.opt.Workers, len(missing), func(i int) uint32 { return missing[i] }); err != nil {
		return fmt.Errorf("inserting %d rows: %w", len(missing), err)
	}
	g.covered.Store(uint32(v.Len()))
	e.last = v
	e.changed += max(len(missing), lost)
	return g.mend(ctx, v, e.opt.Workers)
}

// regraft writes the links of one node of a transplanted graph. Where a link
// led to a node that is gone, the nodes that could be reached through it stand
// for election. It returns false where that is not known of some.
func (w *walker) regraft(ot *tables, was uint32, level int, node []uint32) bool {
	self := node[was]
	list := w.t.links(self, level)
	next := w.rest[:0]
	var gone []uint32
	known := true
	add := func(links []uint32) {
		for _, n := range links {
			if n == none {
				return
			}
			if int(n) >= len(node) {
				known = false
				continue
			}
			if row := node[n]; row != none {
				if row != self && !contains(next, row) {
					next = append(next, row)
				}
			} else if !contains(gone, n) {
				gone = append(gone, n)
				known = known && ot.scale(n) != 0
			}
		}
	}
	add(ot.links(was, level))
	direct := len(gone)
	for i := 0; i < len(gone); i++ {
		// Through the dead that were linked to, and through theirs while few
		// live ones are found.
		if i >= direct && (len(next) >= len(list) || i >= 4*len(list)) {
			break
		}
		add(ot.links(gone[i], level))
	}
	w.rest = next
	if direct == 0 || len(next) == 0 {
		store(list, next[:min(len(next), len(list))])
		return known
	}
	store(list, w.pick(self, next, len(list)))
	return known
}

func contains(list []uint32, x uint32) bool {
	for _, y := range list {
		if y == x {
			return true
		}
	}
	return false
}

// mend links nodes again that no walk on level 0 reaches from the entry.
func (g *graph) mend(ctx context.Context, v *rows.View, workers int) error {
	for range 3 {
		lost := g.unreached(v)
		if len(lost) == 0 {
			return ctx.Err()
		}
		t := g.tab.Load()
		err := g.parallel(ctx, workers, len(lost), func(w *walker, i int) { w.connect(lost[i], t.level(lost[i]), false) })
		if err != nil {
			return err
		}
	}
	return nil
}

// unreached lists the live nodes that cannot be reached on level 0.
func (g *graph) unreached(v *rows.View) []uint32 {
	t, entry, _, ok := g.start()
	if !ok {
		return nil
	}
	seen := make(bitset, (int(t.limit)+63)/64)
	seen.add(entry)
	todo := []uint32{entry}
	for len(todo) > 0 {
		row := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, n := range t.links(row, 0) {
			if n == none {
				break
			}
			if seen.add(n) {
				todo = append(todo, n)
			}
		}
		for n := g.twin(row); n != none; n = g.twin(n) {
			seen.add(n)
		}
	}
	var lost []uint32
	for row := range g.covered.Load() {
		if !seen.has(row) && t.scale(row) != 0 && v.Live().Contains(row) {
			lost = append(lost, row)
		}
	}
	return lost
}
