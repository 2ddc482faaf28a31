package embed

import (
	"errors"
	"fmt"

	"github.com/kindred-search/kindred/internal/simd"
)

// linear is one matrix product with weights, in the model's precision or, where
// its weights have no integer form, in fp32.
type linear struct {
	full *simd.PackedB   // fp32, or nil
	ints *simd.PackedInt // else this
}

// packLinear packs w, [out, in] row-major with rows stride apart.
func packLinear(w []float32, in, out, stride int, p Precision) (linear, error) {
	var l linear
	var err error
	switch p {
	case Int16:
		l.ints, err = simd.PackInt16(w, in, out, stride)
	case Int8:
		l.ints, err = simd.PackInt8(w, in, out, stride)
	default:
		if stride != in {
			dense := make([]float32, 0, in*out)
			for j := range out {
				dense = append(dense, w[j*stride:j*stride+in]...)
			}
			w = dense
		}
		l.full = simd.PackB(w, in, out, true)
	}
	return l, err
}

// input is the left operand of products: fp32 rows and, after take, the same
// quantised.
type input struct {
	rows simd.Matrix
	ints *simd.Quantised
}

// take makes x ready for products by l and by every linear of the same
// precision and depth.
func (in *input) take(x simd.Matrix, l linear) {
	in.rows = x
	if l.ints != nil {
		in.ints.From(x, l.ints)
	}
}

// mul computes part i of n of c = epilogue(x·W): a share of the columns. Parts
// may run at the same time; how many there are changes no bit.
func (l linear) mul(c simd.Matrix, x *input, i, n int, epi simd.Epilogue) {
	if l.ints != nil {
		p := l.ints.Panels()
		simd.MatMulIntColumns(c, x.ints, l.ints, p*i/n, p*(i+1)/n, epi)
		return
	}
	p := l.full.Panels()
	simd.MatMulColumns(c, x.rows, l.full, p*i/n, p*(i+1)/n, epi)
}

// chunkColumns is the most inner columns of the feed-forward part that exist at
// a time: rows of a chunk stay in L2 between the two products, and in integers
// one chunk is one slice with its own scales.
const chunkColumns = 384

// chunk is a share of the feed-forward part's inner columns: [from, to).
type chunk struct {
	from, to int
	up, down linear
}

// chunks cuts inner columns evenly, in multiples of a panel.
func chunks(inner int) []chunk {
	parts := (inner + chunkColumns - 1) / chunkColumns
	step := ((inner+parts-1)/parts + 31) &^ 31
	var out []chunk
	for from := 0; from < inner; from += step {
		out = append(out, chunk{from: from, to: min(from+step, inner)})
	}
	return out
}

// linear packs the layer name with its bias. Where the weights have no integer
// form it packs them in fp32 and notes the name.
func (l *loader) linear(name string, in, out int) (linear, []float32) {
	w, bias := l.want(name+".weight", out, in), l.want(name+".bias", out)
	return l.pack(name, func(p Precision) (linear, error) { return packLinear(w, in, out, in, p) }), bias
}

// pack calls do with the model's precision and, if that has no form for the
// weights, with fp32.
func (l *loader) pack(name string, do func(p Precision) (linear, error)) linear {
	if l.err != nil {
		return linear{}
	}
	out, err := do(l.precision)
	if errors.Is(err, simd.ErrRange) {
		l.full = append(l.full, fmt.Sprintf("%s (%v)", name, err))
		out, err = do(FP32)
	}
	l.err = err
	return out
}

// feedForward packs a layer's two inner products chunk by chunk.
func (l *loader) feedForward(prefix string, dim, inner int) (out []chunk, upBias, downBias []float32) {
	upName, downName := prefix+"intermediate.dense", prefix+"output.dense"
	up, down := l.want(upName+".weight", inner, dim), l.want(downName+".weight", dim, inner)
	upBias, downBias = l.want(upName+".bias", inner), l.want(downName+".bias", dim)
	if l.err != nil {
		return nil, nil, nil
	}
	out = chunks(inner)
	packAll := func(name string, one func(c *chunk, p Precision) error) {
		l.pack(name, func(p Precision) (linear, error) {
			for i := range out {
				if err := one(&out[i], p); err != nil {
					return linear{}, err
				}
			}
			return linear{}, nil
		})
	}
	packAll(upName, func(c *chunk, p Precision) (err error) {
		c.up, err = packLinear(up[c.from*dim:], dim, c.to-c.from, dim, p)
		return err
	})
	packAll(downName, func(c *chunk, p Precision) (err error) {
		c.down, err = packLinear(down[c.from:], c.to-c.from, dim, inner, p)
		return err
	})
	return out, upBias, downBias
}
