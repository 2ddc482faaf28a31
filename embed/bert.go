package embed

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/embed/weights"
	"github.com/kindred-search/kindred/internal/simd"
)

// bert is an encoder of Devlin et al. 2018 (arXiv:1810.04805) with its weights
// packed for simd.MatMul. It is immutable and safe for concurrent use.
type bert struct {
	cfg       config
	words     []float32 // [vocab, dim]
	positions []float32 // [positions, dim], the first token type already added
	norm      norm
	layers    []bertLayer
	full      []string // linear layers that run in fp32 although asked for integers
}

type bertLayer struct {
	qkv, out                           linear
	inner                              []chunk // the feed-forward part
	qkvBias, outBias, upBias, downBias []float32
	attnNorm, outNorm                  norm
}

// norm is the affine part of a layer norm; both slices have dim elements.
type norm struct{ gamma, beta []float32 }

// scratch is the working memory of one tile, reused from tile to tile.
type scratch struct {
	x      []float32   // [rows, dim], a layer's input and, at the end, the output
	y      []float32   // [rows, dim]
	qkv    []float32   // [rows, 3*dim]
	inner  []float32   // [rows, columns of a chunk], or of all chunks for a crew
	scores [][]float32 // working memory for each part of attention
	starts []int       // row at which each text starts, and the end
	ints   []simd.Quantised
	crew   *crew // who shares the tile, or nil
	parts  int   // into how many parts its work is cut; 1 without a crew
}

// text returns the last layer's rows of the tile's text j, [tokens, dim].
func (s *scratch) text(j, dim int) simd.Matrix {
	return simd.Dense(s.x[s.starts[j]*dim:s.starts[j+1]*dim], s.starts[j+1]-s.starts[j], dim)
}

// innerColumns is the width of the feed-forward part's buffer.
func (s *scratch) innerColumns(w *bertLayer, inner int) int {
	if s.crew != nil {
		return inner
	}
	return w.inner[0].to
}

func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}

func (s *scratch) fit(rows, longest int, b *bert) {
	cfg := &b.cfg
	s.x = grow(s.x, rows*cfg.Dim)
	s.y = grow(s.y, rows*cfg.Dim)
	s.qkv = grow(s.qkv, rows*3*cfg.Dim)
	s.inner = grow(s.inner, rows*s.innerColumns(&b.layers[0], cfg.Inner))
	s.ints = grow(s.ints, 1+len(b.layers[0].inner))
	s.scores = grow(s.scores, min(s.parts, cfg.Heads))
	for i := range s.scores {
		s.scores[i] = grow(s.scores[i], simd.AttentionScratch(longest))
	}
}

func newBERT(cfg config, t *weights.Tensors, p Precision) (*bert, error) {
	l := loader{t: t, precision: p}
	b := &bert{
		cfg:       cfg,
		words:     l.want("embeddings.word_embeddings.weight", cfg.Vocab, cfg.Dim),
		positions: l.want("embeddings.position_embeddings.weight", cfg.Positions, cfg.Dim),
		norm:      l.norm("embeddings.LayerNorm", cfg.Dim),
	}
	types := l.want("embeddings.token_type_embeddings.weight", cfg.TokenTypes, cfg.Dim)
	if l.err != nil {
		return nil, l.err
	}
	b.positions = slices.Clone(b.positions) // the tensors are shared
	for i := range b.positions {
		b.positions[i] += types[i%cfg.Dim]
	}
	for i := range cfg.Layers {
		p := fmt.Sprintf("encoder.layer.%d.", i)
		self := p + "attention.self."
		var qkv []float32
		var layer bertLayer
		for _, part := range []string{"query", "key", "value"} {
			qkv = append(qkv, l.want(self+part+".weight", cfg.Dim, cfg.Dim)...)
			layer.qkvBias = append(layer.qkvBias, l.want(self+part+".bias", cfg.Dim)...)
		}
		layer.qkv = l.pack(p+"attention.self", func(p Precision) (linear, error) {
			return packLinear(qkv, cfg.Dim, 3*cfg.Dim, cfg.Dim, p)
		})
		layer.out, layer.outBias = l.linear(p+"attention.output.dense", cfg.Dim, cfg.Dim)
		layer.attnNorm = l.norm(p+"attention.output.LayerNorm", cfg.Dim)
		layer.inner, layer.upBias, layer.downBias = l.feedForward(p, cfg.Dim, cfg.Inner)
		layer.outNorm = l.norm(p+"output.LayerNorm", cfg.Dim)
		b.layers = append(b.layers, layer)
	}
	b.full = l.full
	return b, l.err
}

// loader takes tensors by name and keeps the first error.
type loader struct {
	t         *weights.Tensors
	precision Precision
	full      []string // layers packed in fp32 instead
	err       error
}

func (l *loader) want(name string, shape ...int) []float32 {
	if l.err != nil {
		return nil
	}
	x, err := l.t.Want(name, shape...)
	l.err = err
	return x
}

func (l *loader) norm(name string, dim int) norm {
	return norm{gamma: l.want(name+".weight", dim), beta: l.want(name+".bias", dim)}
}

// forward runs the tile's texts (indices into ids) through all layers; the
// outputs are then in s, see scratch.text. ctx is looked at before each layer.
// With s.crew set each step is shared by the crew, else this goroutine does all.
func (b *bert) forward(ctx context.Context, s *scratch, tile []int, ids [][]int32) error {
	dim := b.cfg.Dim
	longest := 0
	s.starts = append(s.starts[:0], 0)
	for _, i := range tile {
		longest = max(longest, len(ids[i]))
		s.starts = append(s.starts, s.starts[len(s.starts)-1]+len(ids[i]))
	}
	rows := s.starts[len(tile)]
	s.fit(rows, longest, b)
	for j, i := range tile {
		for p, id := range ids[i] {
			row := s.x[(s.starts[j]+p)*dim:][:dim]
			copy(row, b.words[int(id)*dim:][:dim])
			simd.Axpy(1, b.positions[p*dim:][:dim], row)
			simd.LayerNorm(row, row, b.norm.gamma, b.norm.beta, b.cfg.Eps)
		}
	}
	x, y, qkv := simd.Dense(s.x, rows, dim), simd.Dense(s.y, rows, dim), simd.Dense(s.qkv, rows, 3*dim)
	in := input{ints: &s.ints[0]}
	for l := range b.layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		w := &b.layers[l]
		in.take(x, w.qkv)
		s.crew.each(s.parts, func(i int) { w.qkv.mul(qkv, &in, i, s.parts, simd.Epilogue{Bias: w.qkvBias}) })
		heads := len(s.scores)
		s.crew.each(heads, func(i int) { b.attention(s, y, qkv, i, heads) })
		in.take(y, w.out)
		s.crew.each(s.parts, func(i int) {
			w.out.mul(x, &in, i, s.parts, simd.Epilogue{Bias: w.outBias, Residual: x})
		})
		b.normRows(x, x, w.attnNorm)
		in.take(x, w.inner[0].up)
		b.feedForward(s, w, y, &in)
		b.normRows(x, y, w.outNorm)
	}
	return nil
}

// feedForward writes in + down(GELU(up(in))) to y. Alone, a goroutine takes a chunk of
// inner columns through both products while it is in cache; a crew does all
// chunks of one product and then of the other, for fewer hand-overs. The sums
// have one order.
func (b *bert) feedForward(s *scratch, w *bertLayer, y simd.Matrix, in *input) {
	columns := s.innerColumns(w, b.cfg.Inner)
	up := func(c *chunk, at, part int) simd.Matrix {
		m := simd.Matrix{Data: s.inner[at:], Rows: y.Rows, Cols: c.to - c.from, Stride: columns}
		c.up.mul(m, in, part, s.parts, simd.Epilogue{Bias: w.upBias[c.from:c.to], GELU: true})
		return m
	}
	down := func(i int, mid *input, part int) {
		epi := simd.Epilogue{Residual: y}
		if i == 0 {
			epi = simd.Epilogue{Bias: w.downBias, Residual: in.rows}
		}
		w.inner[i].down.mul(y, mid, part, s.parts, epi)
	}
	if s.crew == nil {
		mid := input{ints: &s.ints[1]}
		for i := range w.inner {
			mid.take(up(&w.inner[i], 0, 0), w.inner[i].down)
			down(i, &mid, 0)
		}
		return
	}
	s.crew.each(s.parts, func(part int) {
		for i := range w.inner {
			up(&w.inner[i], w.inner[i].from, part)
		}
	})
	mids := make([]input, len(w.inner))
	s.crew.each(len(mids), func(i int) {
		c := &w.inner[i]
		mids[i].ints = &s.ints[1+i]
		mids[i].take(simd.Matrix{Data: s.inner[c.from:], Rows: y.Rows, Cols: c.to - c.from, Stride: columns}, c.down)
	})
	s.crew.each(s.parts, func(part int) {
		for i := range mids {
			down(i, &mids[i], part)
		}
	})
}

// attention writes softmax(QKᵀ/√d)·V of every text to ctx, [rows, dim], for part
// i of n of the heads; qkv is [rows, 3*dim] with the heads of Q, K and V side by
// side.
func (b *bert) attention(s *scratch, ctx, qkv simd.Matrix, i, n int) {
	dim, size := b.cfg.Dim, b.cfg.Dim/b.cfg.Heads
	scale := float32(1 / math.Sqrt(float64(size)))
	for j := range len(s.starts) - 1 {
		from, to := s.starts[j], s.starts[j+1]
		text, out := qkv.Slice(from, to), ctx.Slice(from, to)
		for h := b.cfg.Heads * i / n; h < b.cfg.Heads*(i+1)/n; h++ {
			at := h * size
			simd.Attention(columns(out, at, size), columns(text, at, size), columns(text, dim+at, size),
				columns(text, 2*dim+at, size), scale, s.scores[i])
		}
	}
}

// columns views columns [from, from+n) of m.
func columns(m simd.Matrix, from, n int) simd.Matrix {
	m.Data, m.Cols = m.Data[from:], n
	return m
}

// normRows writes the layer norm of from's rows to to's; they may be the same.
func (b *bert) normRows(to, from simd.Matrix, n norm) {
	for i := range from.Rows {
		simd.LayerNorm(to.Row(i), from.Row(i), n.gamma, n.beta, b.cfg.Eps)
	}
}
