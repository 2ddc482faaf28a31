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
	"github.com/kindred-search/kindred/internal/simd"
)

// A plan is a request made ready for one view: heads rounded to the rows'
// arithmetic, tables turned to what the columns hold.
type plan struct {
	view  *View
	sets  []setPlan
	heads []headPlan
	asked []treeColumn // what trees look at
	mask  []uint64     // dense, ANDed with live
	block int          // rows a block, a power of two
	plain bool         // int8 rows, and every set is one vector and a bias
	out   [][]float32
	// Where there are many heads on int8 rows, those with a vector, 64 at a time.
	panels []*simd.HeadPanels

	// Heads with a vector, as the kernels take them, and which head each is.
	int8s  [][]int16
	floats [][]float32
	signs  []*simd.BinaryHead
	which  []int
}

type setPlan struct {
	first, count int
	common       int // head, or -1
	reduce       index.Reduce
	top          int // of a topmean
}

type headPlan struct {
	scale  float64 // what the vector was divided by
	bias   float64
	tables []tablePlan
	trees  []treePlan
}

// tablePlan is one column's part of a head: bins for numbers, codes otherwise.
type tablePlan struct {
	column int
	kind   index.Kind
	table  []float64 // by bin (numbers), or by 1 + code
	steps  []int64   // sets: table in whole numbers of step
	step   float64
	bins   [][]uint16
}

// Scan scores the rows of the mask with every head set in one pass.
//
// The order of a score's sum is fixed: vector, tables in order of Bins, trees, bias,
// in float64, rounded once to float32. With Int8 and Binary rows the vector's part
// is an exact integer times two scales, so scores are the same bit for bit on every
// CPU and for every number of cores.
func (v *View) Scan(ctx context.Context, req index.ScanRequest) ([][]float32, error) {
	if err := req.Validate(v.spec); err != nil {
		return nil, fmt.Errorf("scan of collection %q: %w", v.spec.Name, err)
	}
	p, err := v.plan(&req)
	if err != nil {
		return nil, err
	}
	for range p.sets {
		p.out = append(p.out, make([]float32, v.n))
	}
	if made, err := v.deviceScan(ctx, p, &req); err != nil {
		return nil, err
	} else if made {
		return p.out, nil
	}
	err = p.blocks(ctx, req.Progress, func() func(lo, hi int) {
		w := newWorker(p)
		w.to = p.out
		return func(lo, hi int) { w.scan(lo, hi) }
	})
	if err != nil {
		return nil, err
	}
	return p.out, nil
}

// blocks gives all rows to as many workers as there are cores, a block lo..hi-1 of one
// chunk at a time.
func (p *plan) blocks(ctx context.Context, progress func(done, total int), worker func() func(lo, hi int)) error {
	v := p.view
	n := int(v.n)
	blocks := (n + p.block - 1) / p.block
	workers := max(1, min(runtime.GOMAXPROCS(0), blocks))
	// A worker takes blocks that follow each other, up to a chunk: what the
	// kernels fetch ahead is then read by the core that asked for it.
	run := min(max(1, blocks/(4*workers)), max(1, 1<<v.core.shift/p.block))
	var (
		next, done atomic.Int64
		wg         sync.WaitGroup
		report     sync.Mutex
		reported   int
	)
	for range workers {
		wg.Go(func() {
			scan := worker()
			for {
				end := int(next.Add(int64(run)))
				for b := end - run; b < end; b++ {
					if b >= blocks || ctx.Err() != nil {
						return
					}
					lo := b * p.block
					hi := min(lo+p.block, n)
					scan(lo, hi)
					d := int(done.Add(int64(hi - lo)))
					// Every 64 blocks is often enough for a person.
					if progress != nil && (b%64 == 63 || d == n) {
						report.Lock()
						if d > reported {
							reported = d
							progress(d, n)
						}
						report.Unlock()
					}
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("scan of collection %q after %d of %d rows: %w", v.spec.Name, done.Load(), n, err)
	}
	return nil
}

func (v *View) plan(req *index.ScanRequest) (*plan, error) {
	p := &plan{view: v, block: 64}
	// A block's vectors stay in the second-level cache between heads.
	for p.block < 1024 && p.block < 1<<v.core.shift && p.block*2*vectorBytes(&v.spec) <= 256<<10 {
		p.block *= 2
	}
	mask := v.live
	if req.Mask != nil {
		mask = roaring.And(v.live, req.Mask)
	}
	p.mask = make([]uint64, (int(v.n)+63)/64)
	copy(p.mask, mask.ToDense())
	cols := make([]int, len(req.Bins))
	codes := make([][][]uint16, len(req.Bins))
	asked := make([]int, len(req.Bins))
	for i := range req.Bins {
		k, err := v.column(req.Bins[i].Column)
		if err != nil {
			return nil, err
		}
		cols[i], asked[i] = k, -1
	}
	for _, set := range req.Sets {
		sp := setPlan{first: len(p.heads), count: len(set.Heads), common: -1, reduce: set.Reduce}
		if set.Reduce == index.TopMean {
			sp.top = min(set.Top, len(set.Heads))
		}
		heads := set.Heads
		if set.Common != nil {
			sp.common = sp.first + sp.count
			heads = append(slices.Clip(heads), *set.Common)
		}
		p.sets = append(p.sets, sp)
		for i := range heads {
			h := &heads[i]
			hp := headPlan{bias: float64(h.Bias)}
			if h.Vector != nil && v.spec.Dim > 0 {
				p.which = append(p.which, len(p.heads))
				switch v.spec.Precision {
				case index.Int8:
					q, scale := quantiseHead(h.Vector)
					hp.scale = scale
					p.int8s = append(p.int8s, q)
				case index.Binary:
					q, scale := binaryHead(h.Vector)
					hp.scale = scale
					p.signs = append(p.signs, q)
				default:
					f, scale := scaleHead(h.Vector)
					hp.scale = scale
					p.floats = append(p.floats, f)
				}
			}
			for k, table := range h.Tables {
				if table == nil {
					continue
				}
				b := &req.Bins[k]
				tp := tablePlan{column: cols[k], kind: b.Kind}
				if b.Kind.Numeric() {
					if codes[k] == nil {
						codes[k] = v.bins(cols[k], b.Edges)
					}
					tp.bins = codes[k]
					tp.table = make([]float64, len(table))
					for j, x := range table {
						tp.table[j] = float64(x)
					}
				} else {
					tp.table = codeTable(v.names[cols[k]], b, table)
					if b.Kind == index.Set {
						tp.fix()
					}
				}
				hp.tables = append(hp.tables, tp)
			}
			var err error
			if hp.trees, err = p.planTrees(req, h.Trees, asked); err != nil {
				return nil, err
			}
			p.heads = append(p.heads, hp)
		}
	}
	p.plain = v.spec.Precision == index.Int8 && len(p.which) == len(p.heads) && len(p.sets) == len(p.heads)
	p.pack()
	for i := range p.heads {
		p.plain = p.plain && len(p.heads[i].tables) == 0 && len(p.heads[i].trees) == 0
	}
	return p, nil
}

// worker is the memory of one goroutine of a scan.
type worker struct {
	*plan
	to   [][]float32 // [sets]: of rows from off on
	off  int
	idx  []int       // rows of the chunk that are scored
	acc  [][]float64 // [heads][block]
	ints [][]int32   // [vector heads][block]
	flts []float32
	leaf []uint8 // [block]
	// Bins of plan.asked for the rows of idx.
	gathered []gathered
	// Where few rows of a block are wanted, their vectors are packed first.
	packed chunk
	many   manyHeads
}

func newWorker(p *plan) *worker {
	w := &worker{plan: p, idx: make([]int, 0, p.block), flts: make([]float32, p.block)}
	if len(p.asked) > 0 {
		w.leaf, w.gathered = make([]uint8, p.block), make([]gathered, len(p.asked))
	}
	for range p.heads {
		w.acc = append(w.acc, make([]float64, p.block))
	}
	for range len(p.int8s) + len(p.signs) {
		if p.panels != nil {
			break
		}
		w.ints = append(w.ints, make([]int32, p.block))
	}
	spec := &p.view.spec
	size := p.block * spec.Dim
	switch spec.Precision {
	case index.Fp16:
		w.packed.half = make([]uint16, size)
	case index.Fp32:
		w.packed.full = make([]float32, size)
	case index.Binary:
		w.packed.bits = make([]byte, p.block*simd.BinaryBytes(spec.Dim))
	default:
		w.packed.codes = make([]int8, size)
	}
	return w
}

// scan scores rows lo..hi-1, which lie in one chunk; lo is a multiple of 64. It reports
// whether any of them is wanted.
func (w *worker) scan(lo, hi int) bool {
	ninf := float32(math.Inf(-1))
	words := w.mask[lo>>6 : (hi+63)>>6]
	wanted := 0
	for _, x := range words {
		wanted += bits.OnesCount64(x)
	}
	if wanted < hi-lo {
		for _, out := range w.to {
			for r := lo; r < hi; r++ {
				out[r-w.off] = ninf
			}
		}
	}
	if wanted == 0 {
		return false
	}
	ch, base := w.view.at(uint32(lo))
	if w.plain && wanted*4 >= hi-lo {
		w.direct(ch, base, lo, hi, words)
		return true
	}
	w.idx = w.idx[:0]
	for k, x := range words {
		for ; x != 0; x &= x - 1 {
			w.idx = append(w.idx, base+k*64+bits.TrailingZeros64(x))
		}
	}
	dense := wanted*4 >= hi-lo
	w.vectors(ch, base, hi-lo, dense)
	w.gather(ch, lo-base)
	for h := range w.heads {
		w.tables(ch, lo-base, h)
	}
	w.reduce(lo - base - w.off)
	return true
}

// direct scores all rows of a block under heads that are a vector and a bias,
// then takes back those that words leave out. The bits are those of the other way.
func (w *worker) direct(ch *chunk, base, lo, hi int, words []uint64) {
	dim, rows := w.view.spec.Dim, hi-lo
	for k := range w.ints {
		w.ints[k] = w.ints[k][:rows]
	}
	if w.panels != nil {
		w.spread(ch, base, lo, hi)
	} else {
		simd.DotInt8Heads(ch.codes[base*dim:(base+rows)*dim], dim, w.int8s, w.ints)
	}
	for h := range w.ints {
		simd.Scores(w.to[h][lo-w.off:hi-w.off], w.ints[h], ch.scales[base:base+rows], w.heads[h].scale, w.heads[h].bias)
	}
	ninf := float32(math.Inf(-1))
	for k, x := range words {
		for x = ^x; x != 0; x &= x - 1 {
			r := lo + k*64 + bits.TrailingZeros64(x)
			if r >= hi {
				break
			}
			for h := range w.to {
				w.to[h][r-w.off] = ninf
			}
		}
	}
}

// vectors fills acc[head][j] with the vector part of row idx[j].
func (w *worker) vectors(ch *chunk, base, rows int, dense bool) {
	for h := range w.acc {
		clear(w.acc[h][:len(w.idx)])
	}
	if len(w.which) == 0 {
		return
	}
	dim := w.view.spec.Dim
	src, at := ch, base
	if !dense && ch.bits != nil {
		row := make([]byte, simd.BinaryBytes(dim))
		for j, i := range w.idx {
			simd.GetBinary(row, ch.bits, i)
			simd.PutBinary(w.packed.bits, j, row)
		}
		src, at, rows = &w.packed, 0, len(w.idx)
	} else if !dense {
		for j, i := range w.idx {
			switch {
			case ch.codes != nil:
				copy(w.packed.codes[j*dim:(j+1)*dim], ch.codes[i*dim:])
			case ch.half != nil:
				copy(w.packed.half[j*dim:(j+1)*dim], ch.half[i*dim:])
			default:
				copy(w.packed.full[j*dim:(j+1)*dim], ch.full[i*dim:])
			}
		}
		src, at, rows = &w.packed, 0, len(w.idx)
	}
	place := func(j int) int { // of row idx[j] among the scored
		if dense {
			return w.idx[j] - base
		}
		return j
	}
	if w.panels != nil {
		w.manyVectors(ch, src.codes[at*dim:(at+rows)*dim], rows, place)
		return
	}
	if ch.codes != nil {
		for k := range w.ints {
			w.ints[k] = w.ints[k][:rows]
		}
		simd.DotInt8Heads(src.codes[at*dim:(at+rows)*dim], dim, w.int8s, w.ints)
		for k, h := range w.which {
			acc, scale, ints := w.acc[h], w.heads[h].scale, w.ints[k]
			if len(w.idx) == rows {
				first := w.idx[0]
				if dense || w.idx[rows-1]-first == rows-1 {
					scales := ch.scales[first : first+rows]
					for j, s := range scales {
						acc[j] = float64(ints[j]) * (float64(s) * scale)
					}
					continue
				}
			}
			for j, i := range w.idx {
				acc[j] = float64(ints[place(j)]) * (float64(ch.scales[i]) * scale)
			}
		}
		return
	}
	if ch.bits != nil {
		for k := range w.ints {
			w.ints[k] = w.ints[k][:rows]
		}
		simd.DotBinary(src.bits[at*simd.BinaryBytes(dim):], w.signs, w.ints)
		unit := float64(binaryScale(dim))
		for k, h := range w.which {
			acc, ints, scale := w.acc[h], w.ints[k], w.heads[h].scale*unit
			for j, i := range w.idx {
				if ch.signed[i] {
					acc[j] = float64(ints[place(j)]) * scale
				}
			}
		}
		return
	}
	for k, h := range w.which {
		flts := w.flts[:rows]
		if ch.half != nil {
			simd.DotFp16(src.half[at*dim:(at+rows)*dim], dim, w.floats[k], flts)
		} else {
			simd.DotFp32(src.full[at*dim:(at+rows)*dim], dim, w.floats[k], flts)
		}
		for j := range w.idx {
			w.acc[h][j] = float64(flts[place(j)]) * w.heads[h].scale
		}
	}
}

// tables adds the columns' parts and the bias of one head.
func (w *worker) tables(ch *chunk, first, h int) {
	hp := &w.heads[h]
	acc := w.acc[h][:len(w.idx)]
	for t := range hp.tables {
		tp := &hp.tables[t]
		col := &ch.cols[tp.column]
		switch tp.kind {
		case index.Category:
			for j, i := range w.idx {
				acc[j] += tp.table[col.codes[i]+1]
			}
		case index.Set:
			for j, i := range w.idx {
				acc[j] += tp.setSum(col.sets[i])
			}
		default:
			bins := tp.bins[first>>w.view.core.shift]
			for j, i := range w.idx {
				acc[j] += tp.table[bins[i]]
			}
		}
	}
	if len(hp.trees) > 0 {
		w.trees(h)
	}
	if hp.bias != 0 {
		for j := range acc {
			acc[j] += hp.bias
		}
	}
}

// fix turns a set's table into whole numbers of a power of two, so that the sum
// of a row's elements does not depend on their order (which is that of arrival).
// Entries are at most 2^46 and sets at most 2^16 long: the sum is below 2^63.
func (tp *tablePlan) fix() {
	top := 0.0
	for _, x := range tp.table {
		top = max(top, math.Abs(x))
	}
	_, exp := math.Frexp(top)
	tp.step = math.Ldexp(1, exp-46)
	tp.steps = make([]int64, len(tp.table))
	for i, x := range tp.table {
		tp.steps[i] = int64(math.RoundToEven(math.Ldexp(x, 46-exp)))
	}
}

func (tp *tablePlan) setSum(set []int32) float64 {
	if len(set) == 0 {
		return tp.table[0]
	}
	sum := int64(0)
	for _, c := range set {
		sum += tp.steps[c+1]
	}
	return float64(sum) * tp.step / math.Sqrt(float64(len(set)))
}

// reduce writes every set's score of the rows in idx, first being where the chunk's
// row 0 goes.
func (w *worker) reduce(first int) {
	for s, set := range w.sets {
		out := w.to[s]
		heads := w.acc[set.first : set.first+set.count]
		if len(heads) == 1 && set.common < 0 {
			for j, i := range w.idx {
				out[first+i] = toScore(heads[0][j])
			}
			continue
		}
		top := make([]float64, set.top)
		for j, i := range w.idx {
			x := reduceOne(heads, j, set.reduce, top)
			if set.common >= 0 {
				x += w.acc[set.common][j]
			}
			out[first+i] = toScore(x)
		}
	}
}

// toScore rounds a sum to a score. Sums beyond a float32 become the largest:
// -Inf would say that the row is masked.
func toScore(x float64) float32 {
	if x > math.MaxFloat32 {
		return math.MaxFloat32
	}
	if x < -math.MaxFloat32 {
		return -math.MaxFloat32
	}
	return float32(x)
}

// reduceOne reduces the heads' scores of row j; best is as long as a topmean takes
// and is written over.
func reduceOne(heads [][]float64, j int, how index.Reduce, best []float64) float64 {
	if how == index.TopMean {
		return topMean(heads, j, best)
	}
	top, sum := math.Inf(-1), 0.0
	for _, h := range heads {
		top = max(top, h[j])
		sum += h[j]
	}
	switch how {
	case index.Mean:
		return sum / float64(len(heads))
	case index.LogSumExp:
		sum = 0
		for _, h := range heads {
			sum += math.Exp(h[j] - top)
		}
		return top + math.Log(sum)
	}
	return top
}

// topMean is the mean of the highest, which it keeps in best from high to low.
func topMean(heads [][]float64, j int, best []float64) float64 {
	for k := range best {
		best[k] = math.Inf(-1)
	}
	last := len(best) - 1
	for _, h := range heads {
		x := h[j]
		if x <= best[last] {
			continue
		}
		k := last
		for ; k > 0 && best[k-1] < x; k-- {
			best[k] = best[k-1]
		}
		best[k] = x
	}
	sum := 0.0
	for _, x := range best {
		sum += x
	}
	return sum / float64(len(best))
}
