package scan

import (
	"github.com/kindred-search/kindred/cuda"
)

const (
	manyHeads   = 64 // of a launch of dots_many
	manyThreads = 128
	manyRows    = manyThreads / 32 * 16 // of a block
)

// pitch is the distance of heads in the shared memory of dots_many.
func (p *Population) pitch() int {
	pitch := (p.stride + 127) &^ 127
	if pitch-64 >= p.stride {
		return pitch - 64
	}
	return pitch + 64
}

// byTensors says whether these vectors are multiplied by dots_many. Few are not: the
// tensor cores would mostly multiply nothing.
func (p *Population) byTensors(vectors []Head) bool {
	return len(vectors) > headsMost && 2*manyHeads*p.pitch() <= p.d.Info().SharedPerBlock
}

// lay puts the codes of vectors where the kernels read them: one after the other, or
// for dots_many 64 at a time, all high bytes and then all low ones, such that
// code = 256 * high + low, of which low is unsigned.
func (p *Population) lay(vectors []Head) []int16 {
	if !p.byTensors(vectors) {
		out := make([]int16, len(vectors)*p.stride)
		for h, v := range vectors {
			copy(out[h*p.stride:], v.Codes)
		}
		return out
	}
	groups := (len(vectors) + manyHeads - 1) / manyHeads
	out := make([]int16, groups*manyHeads*p.stride) // two bytes each
	for h, v := range vectors {
		at := h / manyHeads * 2 * manyHeads * p.stride
		high, low := at+h%manyHeads*p.stride, at+(manyHeads+h%manyHeads)*p.stride
		for j, c := range v.Codes {
			put(out, high+j, int8(c>>8))
			put(out, low+j, int8(c))
		}
	}
	return out
}

// put writes byte i of shorts in the device's order, lowest first.
func put(shorts []int16, i int, x int8) {
	shift := i % 2 * 8
	shorts[i/2] = shorts[i/2]&^(0xff<<shift) | int16(uint16(uint8(x))<<shift)
}

// multiply orders the products of n rows at codes with all vectors.
func (w *pass) multiply(q *cuda.Queue, codes cuda.Arg, n int, mask cuda.Arg) error {
	p := w.p
	if p.byTensors(w.heads) {
		for h := 0; h < len(w.heads); h += manyHeads {
			err := q.Launch("dots_many", cuda.Launch{Grid: [3]int{p.grid(n, manyRows)}, Block: [3]int{manyThreads}, Shared: 2 * manyHeads * p.pitch()},
				codes, cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.dots, int64(h)*int64(n)*4),
				cuda.I64(int64(n)), cuda.I32(p.stride), cuda.I32(p.pitch()), cuda.I32(min(manyHeads, len(w.heads)-h)))
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
		err := q.Launch(kernel, cuda.Launch{Grid: [3]int{p.grid(n, threads/rowLanes)}, Block: [3]int{threads}, Shared: count * 2 * p.stride},
			codes, mask, cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.dots, int64(h)*int64(n)*4),
			cuda.I64(int64(n)), cuda.I32(p.stride), cuda.I32(count))
		if err != nil {
			return err
		}
	}
	return nil
}
