package scan

import (
	"fmt"

	"github.com/kindred-search/kindred/cuda"
)

// What stream.cuh, scan.cu and many.cu name alike.
const (
	headsMost = 8  // of a launch of scan_int8 or dots_int8
	manyHeads = 64 // of scan_many or dots_many
	ringBytes = 192
	tileRows  = 16
)

// wide is how many pieces of 16 bytes lie from a head to the next in shared memory: four more than a
// multiple of eight, so that eight lanes that read one of each meet all banks.
func (p *Population) wide() int {
	wide := (p.stride/16 + 7) &^ 7
	if wide-4 >= p.stride/16 {
		return wide - 4
	}
	return wide + 4
}

// shared is how many bytes of shared memory a block of so many threads needs for so many of the pass's
// heads: the kernels of many have room for 32 or 64.
func (w *pass) shared(threads, count int) int {
	if w.many {
		count = (count + manyHeads/2 - 1) / (manyHeads / 2) * (manyHeads / 2)
	}
	return ringBytes*threads + 2*count*16*w.p.wide()
}

// choose says by which kernels the pass's heads are multiplied, and how many at once, where more is
// how many bytes of shared memory a block of the kernels for few needs beside for each.
func (w *pass) choose(more int) error {
	have := w.p.d.Info().SharedPerBlock
	fits := func(count, more int) bool { return w.shared(32, count)+more <= have }
	w.each, w.many = manyHeads, len(w.heads) > headsMost && fits(manyHeads, 0)
	if w.many {
		return nil
	}
	for w.each = headsMost; !fits(w.each, w.each*more); w.each-- {
		if w.each == 1 {
			return fmt.Errorf("rows of %d codes do not fit the %d bytes of shared memory of a block", w.p.dim, have)
		}
	}
	return nil
}

// shape is that of a launch for so many rows and heads, with so many bytes of shared memory beside
// the heads and the ring: blocks of the size of which a processor holds the most threads, and no
// more than the processors hold at a time, since each begins with the heads.
func (w *pass) shape(rows, count, more int) cuda.Launch {
	info := w.p.d.Info()
	const reserved = 1 << 10         // of each block, by CUDA
	largest, threadsMost := 512, 768 // of a block, and of a processor's registers
	if w.many {
		largest, threadsMost = 256, 256
	}
	hold := func(size int) int { // at a time
		shared := w.shared(size, count) + more
		if shared > info.SharedPerBlock {
			return 0
		}
		return min(threadsMost/size, (info.SharedPerBlock+reserved)/(shared+reserved))
	}
	size := 32
	for s := 64; s <= largest; s *= 2 {
		if hold(s)*s >= hold(size)*size {
			size = s
		}
	}
	blocks := (rows + tileRows*size/32 - 1) / (tileRows * size / 32)
	return cuda.Launch{Grid: [3]int{max(1, min(blocks, hold(size)*max(1, info.Processors)))}, Block: [3]int{size}, Shared: w.shared(size, count) + more}
}

// split lays the codes of the pass's heads where the kernels read them: of the heads of each launch the
// high bytes, [heads, stride], then the low ones, which have no sign.
func (w *pass) split() []int8 {
	stride := w.p.stride
	out := make([]int8, 2*len(w.heads)*stride)
	for first := 0; first < len(w.heads); first += w.each {
		count := min(w.each, len(w.heads)-first)
		for h, head := range w.heads[first : first+count] {
			high := out[(2*first+h)*stride:]
			low := high[count*stride:]
			for j, c := range head.Codes {
				high[j], low[j] = int8(c>>8), int8(c)
			}
		}
	}
	return out
}

// multiply orders the products of n rows, which lie there, with all vectors. Mask is from their
// first on.
func (w *pass) multiply(q *cuda.Queue, at lying, n int, mask cuda.Arg) error {
	p := w.p
	kernel := "dots_int8"
	if w.many {
		kernel = "dots_many"
	}
	codes, scales := at.args()
	for h := 0; h < len(w.heads); h += w.each {
		count := min(w.each, len(w.heads)-h)
		err := q.Launch(kernel, w.shape(n, count, 0), codes, scales, mask, cuda.At(w.vectors, int64(h)*2*int64(p.stride)), cuda.At(w.dots, int64(h)*int64(n)*4),
			cuda.U32(uint32(n)), cuda.I32(p.stride), cuda.I32(p.wide()), cuda.I32(count))
		if err != nil {
			return err
		}
	}
	return nil
}
