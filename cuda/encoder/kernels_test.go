//go:build cuda

package encoder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/internal/simd"
)

// kind is one of the two types of halves: how its kernels end, and the relative error of
// rounding to it.
type kind struct {
	ending string
	step   float64
}

var kinds = []kind{{"", 0x1p-11}, {"_bf16", 0x1p-8}}

// halves are n values as the kind has them, and their bits.
func (k kind) halves(n int, value func(i int) float64) ([]float64, []uint16) {
	x, bits := make([]float32, n), make([]uint16, n)
	for i := range x {
		x[i] = float32(value(i))
		bits[i] = bfloat16(x[i])
	}
	if k.ending == "" {
		simd.Fp32ToFp16(bits, x)
	}
	return k.wide(bits), bits
}

func (k kind) wide(bits []uint16) []float64 {
	x, out := make([]float32, len(bits)), make([]float64, len(bits))
	simd.Fp16ToFp32(x, bits)
	for i, b := range bits {
		if out[i] = float64(x[i]); k.ending != "" {
			out[i] = float64(math.Float32frombits(uint32(b) << 16))
		}
	}
	return out
}

// launched runs a kernel. Of its arguments slices are copied to the device, and those that are
// given by their address back.
func launched(t *testing.T, d *cuda.Device, kernel string, l cuda.Launch, args ...any) {
	t.Helper()
	var sizes []int64
	for _, a := range args {
		size := 0
		switch x := a.(type) {
		case []uint16:
			size = 2 * len(x)
		case *[]uint16:
			size = 2 * len(*x)
		case []int32:
			size = 4 * len(x)
		case []float32:
			size = 4 * len(x)
		case *[]float32:
			size = 4 * len(*x)
		}
		sizes = append(sizes, int64(size))
	}
	err := d.Borrow("test", sizes, func(b []*cuda.Buffer) error {
		return d.Do(t.Context(), func(q *cuda.Queue) (err error) {
			all := make([]cuda.Arg, len(args))
			for i, a := range args {
				all[i] = cuda.At(b[i], 0)
				switch x := a.(type) {
				case []uint16:
					err = cuda.Upload(q, b[i], 0, x)
				case *[]uint16:
					err = cuda.Upload(q, b[i], 0, *x)
				case []int32:
					err = cuda.Upload(q, b[i], 0, x)
				case []float32:
					err = cuda.Upload(q, b[i], 0, x)
				case *[]float32:
					err = cuda.Upload(q, b[i], 0, *x)
				case cuda.Arg:
					all[i] = x
				}
				if err != nil {
					return err
				}
			}
			if err := q.Launch(kernel, l, all...); err != nil {
				return err
			}
			for i, a := range args {
				switch x := a.(type) {
				case *[]uint16:
					err = cuda.Download(q, *x, b[i], 0)
				case *[]float32:
					err = cuda.Download(q, *x, b[i], 0)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startsOf are where texts of these lengths begin, and where the last ends.
func startsOf(lengths []int) []int32 {
	starts := []int32{0}
	for _, n := range lengths {
		starts = append(starts, starts[len(starts)-1]+int32(n))
	}
	return starts
}

// TestAttention holds the kernels of attention to softmax(q · kᵀ / sqrt(d)) · v in float64, over
// texts that straddle tiles, stages and blocks, with heads that are no multiple of those of a
// block; and to the same bits in every shape of a launch and alone.
func TestAttention(t *testing.T) {
	d := cudatest.Open(t)
	for _, c := range []struct {
		size, heads int
		lengths     []int
	}{
		{32, 5, []int{200, 129, 128, 97, 65, 64, 33, 32, 31, 17, 16, 9, 1}},
		{64, 3, []int{140, 65, 64, 63, 33, 32, 8, 1}},
		{128, 2, []int{70, 64, 33, 32, 16, 1}},
	} {
		for _, k := range kinds {
			t.Run(fmt.Sprint(c.size, k.ending), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(7, uint64(c.size)))
				width, starts := c.heads*c.size, startsOf(c.lengths)
				tokens := int(starts[len(c.lengths)])
				in, bits := k.halves(tokens*3*width, func(i int) float64 {
					x := rng.NormFloat64()
					if token := i / (3 * width); i/width%3 == 1 && token < c.lengths[0] {
						// The keys of the first text grow, so that each tile has a higher score.
						x *= 1 + 6*float64(token)/float64(c.lengths[0])
					}
					return x
				})
				run := func(bits []uint16, starts []int32, parts int) []uint16 {
					out := slices.Repeat([]uint16{0x7fff}, len(bits)/3) // NaN
					longest := 0
					for i, s := range starts[1:] {
						longest = max(longest, int(s-starts[i]))
					}
					grid := attentionGrid(c.size, c.heads, len(starts)-1, longest, 1)
					grid[1] = parts
					launched(t, d, fmt.Sprintf("attention_%d%s", c.size, k.ending), cuda.Launch{Grid: grid, Block: [3]int{blockThreads}},
						bits, starts, &out, cuda.I32(c.heads), cuda.F32(float32(math.Log2E/math.Sqrt(float64(c.size)))))
					return out
				}
				got := run(bits, starts, 1)
				x := k.wide(got)
				for text, n := range c.lengths {
					start := int(starts[text])
					at := func(token, part, head int) []float64 {
						return in[((start+token)*3+part)*width+head*c.size:][:c.size]
					}
					for token := range n {
						for head := range c.heads {
							want := make([]float64, c.size)
							weights, top, sum, most := make([]float64, n), math.Inf(-1), 0.0, 0.0
							for u := range n {
								for i, v := range at(token, 0, head) {
									weights[u] += v * at(u, 1, head)[i] / math.Sqrt(float64(c.size))
								}
								top = max(top, weights[u])
							}
							for u := range n {
								weights[u] = math.Exp(weights[u] - top)
								sum += weights[u]
							}
							for u := range n {
								for i, v := range at(u, 2, head) {
									// Values lie turned: of each 32, pair 4 t + d is the device's 4 d + t.
									pair := i / 2 % 16
									want[i/32*32+2*(pair%4*4+pair/4)+i%2] += weights[u] / sum * v
									most = max(most, math.Abs(v))
								}
							}
							for i, v := range x[(start+token)*width+head*c.size:][:c.size] {
								// Rounded are the weights, and the result.
								if !(math.Abs(v-want[i]) <= 2*k.step*most+1e-5) {
									t.Fatalf("text %d of %d tokens, token %d, head %d, element %d: %g, want %g", text, n, token, head, i, v, want[i])
								}
							}
						}
					}
				}
				for parts := 2; parts <= c.heads; parts++ {
					if !slices.Equal(run(bits, starts, parts), got) {
						t.Errorf("of heads in %d parts come other bits", parts)
					}
				}
				for text, n := range c.lengths {
					from := int(starts[text])
					alone := run(bits[from*3*width:(from+n)*3*width], []int32{0, int32(n)}, 1+text%2)
					if !slices.Equal(alone, got[from*width:(from+n)*width]) {
						t.Errorf("alone the text of %d tokens has other bits", n)
					}
				}
			})
		}
	}
}

// TestAttentionGrid: every head and query has a block, short texts have as many heads a block as
// it takes at once, and a large device has enough blocks where there are such.
func TestAttentionGrid(t *testing.T) {
	for _, c := range []struct {
		size, heads, texts, longest, processors int
		want                                    [3]int
	}{
		{32, 12, 1, 32, 132, [3]int{1, 3, 1}},
		{32, 12, 1, 33, 132, [3]int{1, 6, 1}},
		{32, 12, 1, 65, 132, [3]int{1, 12, 1}},
		{32, 12, 128, 128, 132, [3]int{1, 6, 128}},
		{32, 12, 512, 128, 132, [3]int{1, 3, 512}},
		{32, 12, 32, 512, 132, [3]int{4, 6, 32}},
		{64, 8, 1, 20, 132, [3]int{1, 4, 1}},
		{64, 7, 1000, 200, 132, [3]int{2, 2, 1000}},
		{128, 8, 1, 65, 132, [3]int{2, 8, 1}},
	} {
		if got := attentionGrid(c.size, c.heads, c.texts, c.longest, c.processors); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestNorms holds layer_norm to float64 over dims that have a form of their own and others, and
// embed_norm to layer_norm of the same rows.
func TestNorms(t *testing.T) {
	d := cudatest.Open(t)
	const eps = 1e-5
	for _, dim := range []int{8, 40, 120, 128, 136, 384, 392, 512, 520, 760, 768, 1016, 1024} {
		for _, k := range kinds {
			rng := rand.New(rand.NewPCG(9, uint64(dim)))
			const tokens, words, most = 19, 7, 3
			in, bits := k.halves(words*dim, func(int) float64 { return 2 + rng.NormFloat64() })
			gamma, beta, ids, places := make([]float32, dim), make([]float32, dim), make([]int32, tokens), make([]int32, tokens)
			for i := range gamma {
				gamma[i], beta[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
			}
			rows := make([]uint16, 0, tokens*dim)
			for i := range ids {
				ids[i], places[i] = int32(rng.IntN(words)), int32(rng.IntN(most))
				rows = append(rows, bits[int(ids[i])*dim:][:dim]...)
			}
			out := make([]uint16, tokens*dim)
			launched(t, d, "layer_norm"+k.ending, cuda.Launch{Grid: normGrid(tokens, dim), Block: [3]int{blockThreads}},
				rows, gamma, beta, cuda.F32(eps), &out, cuda.I32(tokens), cuda.I32(dim))
			x := k.wide(out)
			for token, id := range ids {
				mean, square := 0.0, 0.0
				for _, v := range in[int(id)*dim:][:dim] {
					mean += v / float64(dim)
				}
				for _, v := range in[int(id)*dim:][:dim] {
					square += (v - mean) * (v - mean) / float64(dim)
				}
				for i, v := range in[int(id)*dim:][:dim] {
					want := (v-mean)/math.Sqrt(square+eps)*float64(gamma[i]) + float64(beta[i])
					if got := x[token*dim+i]; !(math.Abs(got-want) <= k.step*math.Abs(want)+1e-4) {
						t.Fatalf("dim %d%s, token %d, element %d: %g, want %g", dim, k.ending, token, i, got, want)
					}
				}
			}
			// Positions of which the sum is a half too: those of the words, or zeros.
			same, twice := make([]uint16, most*dim), make([]uint16, tokens*dim)
			launched(t, d, "embed_norm"+k.ending, cuda.Launch{Grid: normGrid(tokens, dim), Block: [3]int{blockThreads}},
				bits, same, ids, places, gamma, beta, cuda.F32(eps), &twice, cuda.I32(tokens), cuda.I32(dim))
			if !slices.Equal(twice, out) {
				t.Errorf("dim %d%s: embed_norm without positions is not layer_norm", dim, k.ending)
			}
			launched(t, d, "embed_norm"+k.ending, cuda.Launch{Grid: normGrid(tokens, dim), Block: [3]int{blockThreads}},
				same, bits, places, ids, gamma, beta, cuda.F32(eps), &twice, cuda.I32(tokens), cuda.I32(dim))
			if !slices.Equal(twice, out) {
				t.Errorf("dim %d%s: embed_norm of positions alone is not layer_norm", dim, k.ending)
			}
		}
	}
}

// TestPool holds pool to float64 in every way, and to NaN where a vector has no length or is not
// finite.
func TestPool(t *testing.T) {
	d := cudatest.Open(t)
	for _, dim := range []int{8, 40, 384, 768, 1000, 1024} {
		for _, k := range kinds {
			rng := rand.New(rand.NewPCG(11, uint64(dim)))
			lengths := []int{1, 2, 3, 9, 30, 50}
			starts := startsOf(lengths)
			in, bits := k.halves(int(starts[len(lengths)])*dim, func(int) float64 { return rng.NormFloat64() })
			pooled := func(how int) []float32 {
				out := slices.Repeat([]float32{7}, len(lengths)*dim)
				launched(t, d, "pool"+k.ending, cuda.Launch{Grid: [3]int{len(lengths)}, Block: [3]int{poolThreads}},
					bits, starts, &out, cuda.I32(dim), cuda.I32(how))
				return out
			}
			for name, how := range pools {
				got := pooled(how)
				for text, n := range lengths {
					want := slices.Clone(in[int(starts[text])*dim:][:dim])
					for token := 1; token < n; token++ {
						for i, v := range in[(int(starts[text])+token)*dim:][:dim] {
							switch name {
							case "mean":
								want[i] += v
							case "last":
								want[i] = v
							case "max":
								want[i] = max(want[i], v)
							}
						}
					}
					length := 0.0
					for _, v := range want {
						length += v * v
					}
					for i, v := range want {
						if x := float64(got[text*dim+i]); !(math.Abs(x-v/math.Sqrt(length)) <= 1e-5) {
							t.Fatalf("dim %d%s, %s, text %d of %d tokens, element %d: %g, want %g", dim, k.ending, name, text, n, i, x, v/math.Sqrt(length))
						}
					}
				}
			}
			// A NaN in the middle of the last text, an infinity in that before, zeros for that
			// before: none is left unseen, and none is seen by others.
			_, odd := k.halves(2, func(i int) float64 { return []float64{math.NaN(), math.Inf(1)}[i] })
			bits[(int(starts[5])+25)*dim+dim/2] = odd[0]
			bits[(int(starts[4])+3)*dim+dim/2] = odd[1]
			clear(bits[int(starts[3])*dim : int(starts[4])*dim])
			for _, name := range []string{"mean", "max"} {
				got := pooled(pools[name])
				for i, v := range got {
					text := i / dim
					if nan := math.IsNaN(float64(v)); nan != (text >= 3) && (text < 5 || i%dim == dim/2 || name == "mean") {
						t.Fatalf("dim %d%s, %s, text %d, element %d: %g", dim, k.ending, name, text, i%dim, v)
					}
				}
			}
		}
	}
}
