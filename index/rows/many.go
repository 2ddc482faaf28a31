package rows

import (
	"math/bits"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// manyRows is how many rows are scored under 64 heads before the scores are looked at:
// a multiple of every tile's rows, sums and scores within the first-level cache.
const manyRows = 96

// manyHeads is the memory of a worker whose plan has panels.
type manyHeads struct {
	scratch simd.PanelScratch
	ints    []int32   // [rows, width]
	scores  []float32 // [rows, width]
	above   []uint64  // [rows]
	never   []float32 // floors that nothing reaches
	sieve   simd.SieveScratch
	pairs   []uint32
}

// pack puts the heads of int8 rows into panels where there are enough of them.
func (p *plan) pack() {
	if p.view.spec.Precision != index.Int8 || len(p.int8s) < simd.PanelHeads() {
		return
	}
	for from := 0; from < len(p.int8s); from += simd.MostPanelHeads {
		to := min(from+simd.MostPanelHeads, len(p.int8s))
		scales, biases := p.weights(from, to)
		p.panels = append(p.panels, simd.NewHeadPanels(p.int8s[from:to], p.view.spec.Dim, scales, biases))
	}
}

// sieves are beside each panel of a plain plan what finds the rows that may reach a floor,
// or nil where that is no help.
func (p *plan) sieves() []*simd.HeadSieve {
	out := make([]*simd.HeadSieve, len(p.panels))
	for g := range out {
		from := g * simd.MostPanelHeads
		to := min(from+simd.MostPanelHeads, len(p.int8s))
		scales, biases := p.weights(from, to)
		out[g] = simd.NewHeadSieve(p.int8s[from:to], p.view.spec.Dim, scales, biases)
	}
	return out
}

// weights are what the sums of heads from..to-1 are scaled by and what is added.
func (p *plan) weights(from, to int) (scales, biases []float64) {
	for _, k := range p.which[from:to] {
		scales, biases = append(scales, p.heads[k].scale), append(biases, p.heads[k].bias)
	}
	return scales, biases
}

// room readies a worker's memory for rows rows.
func (m *manyHeads) room(rows int) {
	if len(m.above) < rows {
		m.ints, m.scores = make([]int32, rows*simd.MostPanelHeads), make([]float32, rows*simd.MostPanelHeads)
		m.above = make([]uint64, rows)
	}
	if m.never == nil {
		m.never = make([]float32, simd.MostPanelHeads)
		for h := range m.never {
			m.never[h] = posInf
		}
	}
}

// panelScores scores rows at..at+n-1 of a chunk under one panel: scores [n, width], and
// above of each row which heads' floors it reaches.
func (w *worker) panelScores(p *simd.HeadPanels, ch *chunk, at, n int, floors []float32) (scores []float32, above []uint64) {
	m, dim, width := &w.many, w.view.spec.Dim, p.Width()
	m.room(manyRows)
	ints := m.ints[:n*width]
	scores, above = m.scores[:n*width], m.above[:n]
	p.Dot(ch.codes[at*dim:(at+n)*dim], n, ints, &m.scratch)
	p.Scores(scores, ints, ch.scales[at:at+n], floors[:width], above)
	return scores, above
}

// sieve calls add for every wanted row of the n from row from on, which lie at at of a
// chunk, and every head whose floor its score reaches.
func (w *worker) sieve(p *simd.HeadSieve, ch *chunk, at, n, from int, floors []float32, add func(row, h int, score float32)) {
	m, dim := &w.many, w.view.spec.Dim
	m.room(manyRows)
	codes, scales, above := ch.codes[at*dim:(at+n)*dim], ch.scales[at:at+n], m.above[:n]
	p.Above(above, codes, scales, floors, &m.sieve)
	m.pairs = m.pairs[:0]
	for r, x := range above {
		if row := from + r; w.mask[row>>6]>>(row&63)&1 == 0 {
			continue
		}
		for ; x != 0; x &= x - 1 {
			m.pairs = append(m.pairs, uint32(r*simd.MostPanelHeads+bits.TrailingZeros64(x)))
		}
	}
	scores := m.scores[:len(m.pairs)]
	p.Scores(scores, m.pairs, codes, scales, &m.sieve)
	for k, x := range m.pairs {
		if h := int(x % simd.MostPanelHeads); scores[k] >= floors[h] {
			add(from+int(x/simd.MostPanelHeads), h, scores[k])
		}
	}
}

// spread scores the rows lo..hi-1 of a chunk under all heads of a plain plan.
func (w *worker) spread(ch *chunk, base, lo, hi int) {
	w.many.room(manyRows)
	for from := lo; from < hi; from += manyRows {
		n := min(manyRows, hi-from)
		for g, p := range w.panels {
			scores, _ := w.panelScores(p, ch, base+from-lo, n, w.many.never)
			for h := range p.Heads() {
				out := w.to[g*simd.MostPanelHeads+h][from-w.off:][:n]
				for r := range out {
					out[r] = scores[r*p.Width()+h]
				}
			}
		}
	}
}

// manyVectors fills acc with the vector part of the rows in idx, row idx[j] being
// place(j) of rows.
func (w *worker) manyVectors(ch *chunk, codes []int8, rows int, place func(j int) int) {
	w.many.room(rows)
	for g, p := range w.panels {
		width := p.Width()
		ints := w.many.ints[:rows*width]
		p.Dot(codes, rows, ints, &w.many.scratch)
		for k := range p.Heads() {
			h := w.which[g*simd.MostPanelHeads+k]
			acc, scale := w.acc[h], w.heads[h].scale
			for j, i := range w.idx {
				acc[j] = float64(ints[place(j)*width+k]) * (float64(ch.scales[i]) * scale)
			}
		}
	}
}
