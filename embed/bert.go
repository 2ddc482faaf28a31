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
}

type bertLayer struct {
	qkv, out, up, down                 *simd.PackedB
	qkvBias, outBias, upBias, downBias []float32
	attnNorm, outNorm                  norm
}

// norm is the affine part of a layer norm; both slices have dim elements.
type norm struct{ gamma, beta []float32 }

// scratch is the working memory of one tile, reused from tile to tile.
type scratch struct {
	x      []float32 // [rows, dim], a layer's input and, at the end, the output
	y      []float32 // [rows, dim]
	wide   []float32 // [rows, max(3*dim, inner)]
	scores []float32 // [longest, longest] of one head of one text
	starts []int     // row at which each text starts, and the end
}

// text returns the last layer's rows of the tile's text j, [tokens, dim].
func (s *scratch) text(j, dim int) simd.Matrix {
	return simd.Dense(s.x[s.starts[j]*dim:s.starts[j+1]*dim], s.starts[j+1]-s.starts[j], dim)
}

func (s *scratch) fit(rows, longest int, cfg config) {
	grow := func(b []float32, n int) []float32 {
		if cap(b) < n {
			return make([]float32, n)
		}
		return b[:n]
	}
	s.x = grow(s.x, rows*cfg.Dim)
	s.y = grow(s.y, rows*cfg.Dim)
	s.wide = grow(s.wide, rows*max(3*cfg.Dim, cfg.Inner))
	s.scores = grow(s.scores, longest*longest)
}

func newBERT(cfg config, t *weights.Tensors) (*bert, error) {
	l := loader{t: t}
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
		if l.err != nil {
			return nil, l.err
		}
		layer.qkv = simd.PackB(qkv, cfg.Dim, 3*cfg.Dim, true)
		layer.out, layer.outBias = l.linear(p+"attention.output.dense", cfg.Dim, cfg.Dim)
		layer.attnNorm = l.norm(p+"attention.output.LayerNorm", cfg.Dim)
		layer.up, layer.upBias = l.linear(p+"intermediate.dense", cfg.Dim, cfg.Inner)
		layer.down, layer.downBias = l.linear(p+"output.dense", cfg.Inner, cfg.Dim)
		layer.outNorm = l.norm(p+"output.LayerNorm", cfg.Dim)
		b.layers = append(b.layers, layer)
	}
	return b, l.err
}

// loader takes tensors by name and keeps the first error.
type loader struct {
	t   *weights.Tensors
	err error
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

func (l *loader) linear(name string, in, out int) (*simd.PackedB, []float32) {
	w, b := l.want(name+".weight", out, in), l.want(name+".bias", out)
	if l.err != nil {
		return nil, nil
	}
	return simd.PackB(w, in, out, true), b
}

// forward runs the tile's texts (indices into ids) through all layers; the
// outputs are then in s, see scratch.text. ctx is looked at before each layer.
func (b *bert) forward(ctx context.Context, s *scratch, tile []int, ids [][]int32) error {
	dim := b.cfg.Dim
	longest := 0
	s.starts = append(s.starts[:0], 0)
	for _, i := range tile {
		longest = max(longest, len(ids[i]))
		s.starts = append(s.starts, s.starts[len(s.starts)-1]+len(ids[i]))
	}
	rows := s.starts[len(tile)]
	s.fit(rows, longest, b.cfg)
	for j, i := range tile {
		for p, id := range ids[i] {
			row := s.x[(s.starts[j]+p)*dim:][:dim]
			copy(row, b.words[int(id)*dim:][:dim])
			simd.Axpy(1, b.positions[p*dim:][:dim], row)
			simd.LayerNorm(row, row, b.norm.gamma, b.norm.beta, b.cfg.Eps)
		}
	}
	x, y := simd.Dense(s.x, rows, dim), simd.Dense(s.y, rows, dim)
	qkv := simd.Dense(s.wide[:rows*3*dim], rows, 3*dim)
	inner := simd.Dense(s.wide[:rows*b.cfg.Inner], rows, b.cfg.Inner)
	for l := range b.layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		w := &b.layers[l]
		simd.MatMul(qkv, x, w.qkv, simd.Epilogue{Bias: w.qkvBias})
		b.attention(s, y, qkv)
		simd.MatMul(x, y, w.out, simd.Epilogue{Bias: w.outBias, Residual: x})
		b.normRows(x, w.attnNorm)
		simd.MatMul(inner, x, w.up, simd.Epilogue{Bias: w.upBias, GELU: true})
		simd.MatMul(x, inner, w.down, simd.Epilogue{Bias: w.downBias, Residual: x})
		b.normRows(x, w.outNorm)
	}
	return nil
}

// attention writes softmax(QKᵀ/√d)·V of every text and head to ctx, [rows, dim];
// qkv is [rows, 3*dim] with the heads of Q, K and V side by side.
func (b *bert) attention(s *scratch, ctx, qkv simd.Matrix) {
	dim, size := b.cfg.Dim, b.cfg.Dim/b.cfg.Heads
	scale := float32(1 / math.Sqrt(float64(size)))
	for j := range len(s.starts) - 1 {
		from, to := s.starts[j], s.starts[j+1]
		text, out := qkv.Slice(from, to), ctx.Slice(from, to)
		scores := simd.Dense(s.scores[:(to-from)*(to-from)], to-from, to-from)
		for h := range b.cfg.Heads {
			simd.MatMulNT(scores, columns(text, h*size, size), columns(text, dim+h*size, size))
			simd.SoftmaxRows(scores, scale)
			simd.MatMulNN(columns(out, h*size, size), scores, columns(text, 2*dim+h*size, size))
		}
	}
}

// columns views columns [from, from+n) of m.
func columns(m simd.Matrix, from, n int) simd.Matrix {
	m.Data, m.Cols = m.Data[from:], n
	return m
}

func (b *bert) normRows(m simd.Matrix, n norm) {
	for i := range m.Rows {
		simd.LayerNorm(m.Row(i), m.Row(i), n.gamma, n.beta, b.cfg.Eps)
	}
}
