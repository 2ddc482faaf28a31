//go:build amd64 && !noasm

package simd

import "golang.org/x/sys/cpu"

// narrowWords is how many words dotBinaryAVX2 adds up in 16 bits.
const narrowWords = 32

func dotBinary(rows []byte, h *BinaryHead, out []int32) {
	if impl == variantGo || h.words == 0 {
		dotBinaryGo(rows, h, out)
		return
	}
	wide := impl >= variantVNNI && cpu.X86.HasAVX512VBMI
	whole := len(out) / BinaryBlock * BinaryBlock
	run := func(rows []byte, out []int32) {
		for i := range out {
			out[i] = -h.bias
		}
		stride := h.words * 4 * binaryGroup
		if wide {
			dotBinaryVBMI(&rows[0], stride, h.words, &h.tables[0], &out[0], len(out)/BinaryBlock)
			return
		}
		for w := 0; w < h.words; w += narrowWords {
			dotBinaryAVX2(&rows[w*4*binaryGroup], stride, min(narrowWords, h.words-w), &h.tables[w*256], &out[0], len(out)/32)
		}
	}
	if whole > 0 {
		run(rows, out[:whole])
	}
	if whole < len(out) {
		var last [BinaryBlock]int32
		run(rows[whole*h.words*4:], last[:])
		copy(out[whole:], last[:])
	}
}
