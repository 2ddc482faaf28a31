package encoder

import (
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/internal/simd"
)

// Config is a model's shape.
type Config struct {
	Dim, Inner, Layers, Heads    int
	Vocab, Positions, TokenTypes int
	Eps                          float32
	Pooling                      string // mean, first, last or max
	// Bfloat16 holds weights and activations in bfloat16, which has the range of fp32 and
	// 8 bits of precision, instead of in halves, which have 11 bits and end at 65,504.
	Bfloat16 bool
	// Products, where it is set, is the one kernel of products that is used, one of [Products],
	// for comparison: without it the fastest is, of those for the device's architecture.
	Products string
}

// pools are the kernel's numbers of ways to pool.
var pools = map[string]int{"mean": 0, "first": 1, "last": 2, "max": 3}

// Limits of the kernels.
const (
	dimMost  = 1024
	headMost = 128
	halfMost = 65504
	// bfloat16Most is where rounding to bfloat16 gives infinity.
	bfloat16Most = 0x1.ffp127
)

func (c *Config) check() error {
	for _, x := range []struct {
		what string
		ok   bool
	}{
		{"sizes above 0", c.Dim > 0 && c.Inner > 0 && c.Layers > 0 && c.Heads > 0 && c.Vocab > 0 && c.Positions > 0 && c.TokenTypes > 0},
		{fmt.Sprintf("a dim of at most %d, a multiple of 8", dimMost), c.Dim <= dimMost && c.Dim%8 == 0},
		{"an inner size that is a multiple of 8", c.Inner%8 == 0},
		{"heads that divide dim", c.Heads > 0 && c.Dim%c.Heads == 0},
		{fmt.Sprintf("heads of at most %d", headMost), c.Heads > 0 && c.Dim/c.Heads <= headMost},
	} {
		if !x.ok {
			return fmt.Errorf("a model of %+v cannot run on a CUDA device: its kernels need %s", *c, x.what)
		}
	}
	if _, ok := pools[c.Pooling]; !ok {
		return fmt.Errorf("pooling %q cannot run on a CUDA device: mean, first, last and max can", c.Pooling)
	}
	return nil
}

// Tensors gives a tensor by its name in BERT's checkpoints, row-major, or why there is
// none of that shape.
type Tensors func(name string, shape ...int) ([]float32, error)

// packed are a model's tensors in two arrays, and where each begins.
type packed struct {
	halves   []uint16
	floats   []float32
	bfloat16 bool
	err      error
}

// half appends a tensor in halves and returns where it begins, in bytes.
func (p *packed) half(name string, x []float32) int64 {
	for len(p.halves)%128 != 0 { // rows are copied 16 bytes at a time
		p.halves = append(p.halves, 0)
	}
	at := int64(len(p.halves)) * 2
	for i, v := range x {
		switch most := math.Abs(float64(v)); {
		case p.err != nil || most <= halfMost:
		case p.bfloat16 && !(most < bfloat16Most):
			p.err = fmt.Errorf("tensor %s: element %d is %g: the model cannot run on a CUDA device", name, i, v)
		case !p.bfloat16:
			p.err = fmt.Errorf("tensor %s: element %d is %g, which no half holds: the model cannot run in fp16 (bf16 has the range of fp32)", name, i, v)
		}
	}
	n := len(p.halves)
	p.halves = slices.Grow(p.halves, len(x))[:n+len(x)]
	if p.bfloat16 {
		for i, v := range x {
			p.halves[n+i] = bfloat16(v)
		}
		return at
	}
	simd.Fp32ToFp16(p.halves[n:], x)
	return at
}

// bfloat16 is the upper half of a number's bits, rounded to nearest even. The number is
// below bfloat16Most.
func bfloat16(x float32) uint16 {
	b := math.Float32bits(x)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// headSize is how many elements a head has on the device: as many as the smallest kernel of
// attention that has room for it, zeros behind its own.
func (c *Config) headSize() int {
	for _, size := range []int{32, 64} {
		if c.Dim/c.Heads <= size {
			return size
		}
	}
	return headMost
}

// padded gives the rows of n heads, [n * own, dim], with rows of zeros behind each head's,
// [n * size, dim].
func padded(x []float32, n, own, size, dim int) []float32 {
	out := make([]float32, n*size*dim)
	for h := range n {
		copy(out[h*size*dim:], x[h*own*dim:(h+1)*own*dim])
	}
	return out
}

// turned exchanges rows of [rows, dim]: each 32 are a matrix of 4 x 4 pairs, which becomes its
// transpose. Of values that lie so, attention writes 16 bytes of a row at a time.
func turned(x []float32, rows, dim int) []float32 {
	out := make([]float32, len(x))
	for row := range rows {
		pair := row / 2 % 16
		from := row - row%32 + 2*(pair%4*4+pair/4) + row%2
		copy(out[row*dim:(row+1)*dim], x[from*dim:])
	}
	return out
}

func (p *packed) float(x []float32) int64 {
	at := int64(len(p.floats)) * 4
	p.floats = append(p.floats, x...)
	return at
}

// tensorPlace is where one linear layer, or one layer norm, lies.
type tensorPlace struct{ weight, bias int64 }

// layerPlace is where a layer's tensors lie: weights in halves, biases and norms in
// floats.
type layerPlace struct {
	qkv, out, up, down tensorPlace
	attnNorm, outNorm  tensorPlace // gamma, beta
}

type places struct {
	words, positions int64
	norm             tensorPlace
	layers           []layerPlace
}

// pack takes a model's tensors by BERT's names.
func pack(c *Config, get Tensors) (*packed, *places, error) {
	p, at := &packed{bfloat16: c.Bfloat16}, &places{}
	want := func(name string, shape ...int) []float32 {
		if p.err != nil {
			return nil
		}
		x, err := get(name, shape...)
		p.err = err
		return x
	}
	norm := func(name string) tensorPlace {
		return tensorPlace{p.float(want(name+".weight", c.Dim)), p.float(want(name+".bias", c.Dim))}
	}
	linear := func(name string, out, in int) tensorPlace {
		return tensorPlace{p.half(name, want(name+".weight", out, in)), p.float(want(name+".bias", out))}
	}
	at.words = p.half("word embeddings", want("embeddings.word_embeddings.weight", c.Vocab, c.Dim))
	positions := append([]float32(nil), want("embeddings.position_embeddings.weight", c.Positions, c.Dim)...)
	if types := want("embeddings.token_type_embeddings.weight", c.TokenTypes, c.Dim); p.err == nil {
		for i := range positions {
			positions[i] += types[i%c.Dim]
		}
	}
	at.positions = p.half("position embeddings", positions)
	at.norm = norm("embeddings.LayerNorm")
	for l := range c.Layers {
		name := fmt.Sprintf("encoder.layer.%d.", l)
		var weight, bias []float32
		own, size := c.Dim/c.Heads, c.headSize()
		for _, part := range []string{"query", "key", "value"} {
			w := want(name+"attention.self."+part+".weight", c.Dim, c.Dim)
			b := want(name+"attention.self."+part+".bias", c.Dim)
			if p.err != nil {
				break
			}
			w, b = padded(w, c.Heads, own, size, c.Dim), padded(b, c.Heads, own, size, 1)
			if part == "value" {
				w, b = turned(w, c.Heads*size, c.Dim), turned(b, c.Heads*size, 1)
			}
			weight, bias = append(weight, w...), append(bias, b...)
		}
		// The columns that multiply a head's zeros are zeros too.
		out := make([]float32, c.Dim*c.Heads*size)
		for i, x := range want(name+"attention.output.dense.weight", c.Dim, c.Dim) {
			row, col := i/c.Dim, i%c.Dim
			out[(row*c.Heads+col/own)*size+col%own] = x
		}
		at.layers = append(at.layers, layerPlace{
			qkv:      tensorPlace{p.half(name+"attention.self", weight), p.float(bias)},
			out:      tensorPlace{p.half(name+"attention.output.dense", out), p.float(want(name+"attention.output.dense.bias", c.Dim))},
			attnNorm: norm(name + "attention.output.LayerNorm"),
			up:       linear(name+"intermediate.dense", c.Inner, c.Dim),
			down:     linear(name+"output.dense", c.Dim, c.Inner),
			outNorm:  norm(name + "output.LayerNorm"),
		})
		if p.err != nil {
			break
		}
	}
	return p, at, p.err
}
