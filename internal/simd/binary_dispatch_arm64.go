//go:build arm64 && !noasm

package simd

// narrowWords is how many words dotBinaryNEON adds up in 16 bits.
const narrowWords = 32

func dotBinary(rows []byte, h *BinaryHead, out []int32) {
	if impl == variantGo || h.words == 0 {
		dotBinaryGo(rows, h, out)
		return
	}
	whole := len(out) / binaryGroup * binaryGroup
	run := func(rows []byte, out []int32) {
		for i := range out {
			out[i] = -h.bias
		}
		stride := h.words * 4 * binaryGroup
		for w := 0; w < h.words; w += narrowWords {
			dotBinaryNEON(&rows[w*4*binaryGroup], stride, min(narrowWords, h.words-w), &h.tables[w*256], &out[0], len(out)/binaryGroup)
		}
	}
	if whole > 0 {
		run(rows, out[:whole])
	}
	if whole < len(out) {
		var last [binaryGroup]int32
		run(rows[whole*h.words*4:], last[:])
		copy(out[whole:], last[:])
	}
}
