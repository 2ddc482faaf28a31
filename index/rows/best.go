package rows

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
	"github.com/kindred-search/kindred/internal/simd"
)

var posInf, negInf = float32(math.Inf(1)), float32(math.Inf(-1))

const (
	// sampleRows is how many rows are scored first, for a guess at the last member's
	// score of each list.
	sampleRows = 1 << 14
	// wholeScores is how many scores of everyone are held at once for lists that the
	// guess does not help: 256 MB.
	wholeScores = 64 << 20
)

// Best selects while it scores: from a sample a score is guessed that a few more rows
// than wanted reach, and only those are kept, so that a list takes memory by its length
// and the population is read once for all. A guess that lets too few or far too many
// through costs that list a scan of its own; what is returned does not depend on it.
func (v *View) Best(ctx context.Context, req index.BestRequest) ([]index.Ranked, error) {
	if err := req.Validate(v.spec); err != nil {
		return nil, fmt.Errorf("best of collection %q: %w", v.spec.Name, err)
	}
	out := make([]index.Ranked, len(req.Sets))
	c := &collector{size: req.Size, allowed: make([][]uint64, len(req.Sets))}
	for s, rows := range req.Allowed {
		if rows != nil {
			c.allowed[s] = v.dense(rows)
		}
	}
	rest := req.Sets // of the scan below, and which they are
	which := make([]int, len(req.Sets))
	for s := range which {
		which[s] = s
	}
	guessed := int(v.n) >= 16*sampleRows
	if len(req.Sets) > 0 && (guessed || v.opt.Device != nil) {
		p, err := v.plan(&req.ScanRequest)
		if err != nil {
			return nil, err
		}
		c.plan = p
		if made, err := v.deviceBest(ctx, p, &req, c.allowed, out); err != nil || made {
			return out, err
		}
		if guessed && c.guess() {
			c.sieves = p.sieves()
			if err := p.blocks(ctx, req.Progress, c.worker); err != nil {
				return nil, err
			}
			req.Progress = nil // it has been told that all is done
			done := c.finish(out, v.Tie)
			rest, which = nil, nil
			for s := range req.Sets {
				if !done[s] {
					rest, which = append(rest, req.Sets[s]), append(which, s)
				}
			}
		}
	}
	each := max(1, wholeScores/(int(v.n)+1))
	for len(rest) > 0 {
		n := min(each, len(rest))
		scan := req.ScanRequest
		scan.Sets = rest[:n]
		scores, err := v.Scan(ctx, scan)
		if err != nil {
			return nil, err
		}
		for i, x := range scores {
			s := which[i]
			mask(x, c.allowed[s])
			out[s] = ranked(selection.Select(x, req.Size[s], selection.Options{Tie: v.Tie}), x)
		}
		rest, which, req.Progress = rest[n:], which[n:], nil
	}
	return out, nil
}

func ranked(rows []uint32, scores []float32) index.Ranked {
	r := index.Ranked{Rows: rows, Scores: make([]float32, len(rows))}
	for i, row := range rows {
		r.Scores[i] = scores[row]
	}
	return r
}

// dense is a set of rows as a bit a row of the view.
func (v *View) dense(rows *roaring.Bitmap) []uint64 {
	words := make([]uint64, (int(v.n)+63)/64)
	copy(words, rows.ToDense())
	return words
}

// mask takes out the scores of rows that words, where given, leave out.
func mask(scores []float32, words []uint64) {
	for k, x := range words {
		for x = ^x; x != 0; x &= x - 1 {
			if r := k*64 + bits.TrailingZeros64(x); r < len(scores) {
				scores[r] = negInf
			}
		}
	}
}

// collector gathers candidates of every list while rows are scored.
type collector struct {
	*plan
	size    []int
	allowed [][]uint64 // [sets], nil: all
	floor   []float32  // [sets]; +Inf: not by this way
	most    []int      // candidates of one worker beyond which the guess was no good

	// Beside each of the plan's panels what finds the few rows that are worth its exact
	// sums, or nil.
	sieves []*simd.HeadSieve

	mu    sync.Mutex
	found [][]*[]selection.Entry // [workers][sets]; nil: too many
}

// guess sets every list's floor from a sample of rows, evenly spread, and reports whether
// any list has one.
func (c *collector) guess() bool {
	n := int(c.view.n)
	w := newWorker(c.plan)
	w.off, w.to = 0, make([][]float32, len(c.sets))
	for s := range w.to {
		w.to[s] = make([]float32, 1<<c.view.core.shift)
	}
	sample := make([][]uint32, len(c.sets))
	step := n / sampleRows
	size := 1 << c.view.core.shift
	at := func(i int) int { return i*step + i%step }
	for i := 0; i < sampleRows; {
		ch, _ := c.view.at(uint32(at(i)))
		first := at(i) &^ (size - 1)
		w.idx = w.idx[:0]
		for ; i < sampleRows && at(i) < first+size && len(w.idx) < c.block; i++ {
			if row := at(i); c.mask[row>>6]>>(row&63)&1 != 0 {
				w.idx = append(w.idx, row-first)
			}
		}
		if len(w.idx) == 0 {
			continue
		}
		w.vectors(ch, 0, 0, false)
		w.gather(ch, first)
		for h := range w.heads {
			w.tables(ch, first, h)
		}
		w.reduce(0)
		for s := range sample {
			for _, i := range w.idx {
				if c.may(s, first+i) {
					sample[s] = append(sample[s], selection.Image(w.to[s][i]))
				}
			}
		}
	}
	guessed := false
	c.floor, c.most = make([]float32, len(c.sets)), make([]int, len(c.sets))
	for s, k := range c.size {
		c.floor[s] = posInf
		// Three standard deviations more than the share of k, so that it is rarely too
		// few; rows outside the mask count as below everything.
		share := float64(k) * sampleRows / float64(n)
		place := int(share + 3*math.Sqrt(share) + 8)
		if k > n/8 || place >= len(sample[s]) {
			continue
		}
		slices.Sort(sample[s])
		c.floor[s] = selection.Float(sample[s][len(sample[s])-1-place])
		c.most[s] = max(4*k, n/256) + 1024
		guessed = true
	}
	return guessed
}

func (c *collector) may(s, row int) bool {
	words := c.allowed[s]
	return words == nil || words[row>>6]>>(row&63)&1 != 0
}

// worker returns what scores a block and keeps its candidates.
func (c *collector) worker() func(lo, hi int) {
	w := newWorker(c.plan)
	found := make([]*[]selection.Entry, len(c.sets))
	for s, k := range c.size {
		var list []selection.Entry
		if c.most[s] > 0 {
			// The guess lets a quarter more through, or so.
			list = make([]selection.Entry, 0, (k+k/2)/runtime.GOMAXPROCS(0)+1024)
		}
		found[s] = &list
	}
	c.mu.Lock()
	c.found = append(c.found, found)
	c.mu.Unlock()
	floor := slices.Clone(c.floor)
	add := func(s, row int, score float32) {
		list := found[s]
		if list == nil || !c.may(s, row) {
			return
		}
		if len(*list) == c.most[s] {
			found[s], floor[s] = nil, posInf
			return
		}
		*list = append(*list, selection.MakeEntry(score, uint32(row)))
	}
	if c.plain && c.panels != nil {
		return func(lo, hi int) { c.collectMany(w, lo, hi, floor, add) }
	}
	above := make([]uint64, (c.block+63)/64)
	buffer := make([]float32, len(c.sets)*c.block)
	for s := range c.sets {
		w.to = append(w.to, buffer[s*c.block:(s+1)*c.block])
	}
	return func(lo, hi int) {
		w.off = lo
		if !w.scan(lo, hi) {
			return
		}
		words := above[:(hi-lo+63)/64]
		for s := range c.sets {
			scores := w.to[s][:hi-lo]
			simd.Above(words, scores, floor[s])
			for k, x := range words {
				for ; x != 0; x &= x - 1 {
					r := k*64 + bits.TrailingZeros64(x)
					add(s, lo+r, scores[r])
				}
			}
		}
	}
}

// collectMany scores a block under all heads of a plain plan, 64 at a time.
func (c *collector) collectMany(w *worker, lo, hi int, floor []float32, add func(s, row int, score float32)) {
	words := c.mask[lo>>6 : (hi+63)>>6]
	wanted := 0
	for _, x := range words {
		wanted += bits.OnesCount64(x)
	}
	if wanted == 0 {
		return
	}
	ch, base := c.view.at(uint32(lo))
	floors := make([]float32, simd.MostPanelHeads)
	for from := lo; from < hi; from += manyRows {
		n := min(manyRows, hi-from)
		for g, p := range c.panels {
			first := g * simd.MostPanelHeads
			if s := c.sieves[g]; s != nil {
				w.sieve(s, ch, base+from-lo, n, from, floor[first:first+p.Heads()], func(row, h int, score float32) {
					add(first+h, row, score)
				})
				continue
			}
			for h := range floors {
				floors[h] = posInf
			}
			copy(floors, floor[first:first+p.Heads()])
			scores, above := w.panelScores(p, ch, base+from-lo, n, floors)
			for r, x := range above {
				if row := from + r; x != 0 && c.mask[row>>6]>>(row&63)&1 != 0 {
					for ; x != 0; x &= x - 1 {
						h := bits.TrailingZeros64(x)
						add(first+h, row, scores[r*p.Width()+h])
					}
				}
			}
		}
	}
}

// finish makes the lists of the candidates, as many at once as there are cores, and says
// which of them the candidates hold.
func (c *collector) finish(out []index.Ranked, tie func(a, b uint32) int) []bool {
	done := make([]bool, len(out))
	workers := max(1, min(runtime.GOMAXPROCS(0), len(out)))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var all, room []selection.Entry // of the longest list, for all
			opt := selection.Options{Tie: tie, Workers: max(1, runtime.GOMAXPROCS(0)/workers), Room: &room}
			for s := int(next.Add(1)) - 1; s < len(out); s = int(next.Add(1)) - 1 {
				out[s], done[s] = c.best(s, opt, &all)
			}
		})
	}
	wg.Wait()
	return done
}

// best is the list of set s, and false where its candidates do not hold it. They are
// let go. They are put side by side in all.
func (c *collector) best(s int, opt selection.Options, all *[]selection.Entry) (index.Ranked, bool) {
	n := 0
	for _, found := range c.found {
		if found[s] == nil {
			return index.Ranked{}, false
		}
		n += len(*found[s])
	}
	if n < c.size[s] || math.IsInf(float64(c.floor[s]), 1) {
		return index.Ranked{}, false
	}
	*all = slices.Grow((*all)[:0], n)
	for _, found := range c.found {
		*all = append(*all, *found[s]...)
		found[s] = nil
	}
	rows, scores := selection.Best(*all, c.size[s], opt)
	return index.Ranked{Rows: rows, Scores: scores}, true
}
