package scan

import (
	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/seeds"
)

const (
	manyHeads   = 64 // of a launch of dots_many
	manyThreads = 128
	manyRows    = manyThreads / 32 * 16 // of a block
)

// byTensors says whether these vectors are multiplied by dots_many. Few are not: the
// tensor cores would mostly multiply nothing.
func (p *Population) byTensors(vectors []Head) bool {
	return len(vectors) > headsMost && 2*manyHeads*seeds.Pitch(p.stride) <= p.d.Info().SharedPerBlock
}

// lay puts the codes of vectors where the kernels read them: one after the other, or
// for dots_many in bytes, as [seeds.Split] does. One of both is empty.
func (p *Population) lay(vectors []Head) (codes []int16, split []int8) {
	if !p.byTensors(vectors) {
		codes = make([]int16, len(vectors)*p.stride)
		for h, v := range vectors {
			copy(codes[h*p.stride:], v.Codes)
		}
		return codes, nil
	}
	heads := make([][]int16, len(vectors))
	for h, v := range vectors {
		heads[h] = v.Codes
	}
	return nil, seeds.Split(heads, p.stride)
}

// multiply orders the products of n rows at codes with all vectors.
func (w *pass) multiply(q *cuda.Queue, codes cuda.Arg, n int, mask cuda.Arg) error {
	p := w.p
	if p.byTensors(w.heads) {
		for h := 0; h < len(w.heads); h += manyHeads {
			err := q.Launch("dots_many", cuda.Launch{Grid: p.d.Blocks(int64(n), manyRows), Block: [3]int{manyThreads}, Shared: 2 * manyHeads * seeds.Pitch(p.stride)},
				codes, cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.dots, int64(h)*int64(n)*4),
				cuda.I64(int64(n)), cuda.I32(p.stride), cuda.I32(seeds.Pitch(p.stride)), cuda.I32(min(manyHeads, len(w.heads)-h)))
			if err != nil {
				return err
			}
		}
		return nil
	}
	each := min(headsMost, p.d.Info().SharedPerBlock/(2*p.stride))
	for h := 0; h < len(w.heads); h += each {
		count := min(each, len(w.heads)-h)
		kernel := "dots_int8_8"
		if count == 1 {
			kernel = "dots_int8_1"
		}
		err := q.Launch(kernel, cuda.Launch{Grid: p.d.Blocks(int64(n), threads/rowLanes), Block: [3]int{threads}, Shared: count * 2 * p.stride},
			codes, mask, cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.dots, int64(h)*int64(n)*4),
			cuda.I64(int64(n)), cuda.I32(p.stride), cuda.I32(count))
		if err != nil {
			return err
		}
	}
	return nil
}
