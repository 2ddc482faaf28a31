package simd

import (
	"encoding/binary"
	"fmt"
)

//go:generate go run ./gen/binary -out binary_amd64.s -stubs binary_amd64.go -pkg simd

// Binary rows hold one bit a dimension, 1 for +1 and 0 for -1, in words of 32
// dimensions, lowest bit first. The words of 16 rows lie side by side: word w of
// row r begins at byte ((r/16·words + w)·16 + r%16)·4, little-endian. So a row's
// bytes are its own, and the kernels read 16 rows at a time.
const (
	binaryGroup = 16
	// BinaryBlock is of how many rows the memory of binary rows is a multiple.
	BinaryBlock = 64
	// binaryScan is how many bytes of rows DotBinary keeps in L1 between heads.
	binaryScan = 16 << 10
)

// BinaryBytes is how many bytes a binary row of dim dimensions takes: whole words.
func BinaryBytes(dim int) int { return (dim + 31) / 32 * 4 }

// PutBinary writes bits, of [BinaryBytes], as row r.
func PutBinary(rows []byte, r int, bits []byte) {
	at := r / binaryGroup * binaryGroup * len(bits)
	at += r % binaryGroup * 4
	for ; len(bits) >= 4; bits, at = bits[4:], at+4*binaryGroup {
		copy(rows[at:at+4], bits)
	}
}

// GetBinary reads row r into bits, of [BinaryBytes].
func GetBinary(bits, rows []byte, r int) {
	at := r / binaryGroup * binaryGroup * len(bits)
	at += r % binaryGroup * 4
	for ; len(bits) >= 4; bits, at = bits[4:], at+4*binaryGroup {
		copy(bits[:4], rows[at:])
	}
}

// BinaryHead is a head in the form that [DotBinary] takes. It is read-only.
type BinaryHead struct {
	words int
	sums  []int16 // [nibbles of a row, 16]: sum of the four numbers under the signs
	// The same plus 2^15 in two planes of bytes; see the generator.
	tables []byte
	bias   int32 // what the 2^15s add up to
}

// NewBinaryHead tabulates a head of whole numbers, of which no four from a
// multiple of four on may have magnitudes that add up to more than 32767.
func NewBinaryHead(q []int16) *BinaryHead {
	h := &BinaryHead{words: (len(q) + 31) / 32}
	h.bias = int32(h.words * 8 << 15)
	h.sums = make([]int16, h.words*8*16)
	h.tables = make([]byte, h.words*256)
	for nib := range h.words * 8 {
		var four [4]int
		room := 0
		for i := range four {
			if j := nib*4 + i; j < len(q) {
				four[i] = int(q[j])
				room += max(four[i], -four[i])
			}
		}
		if room > 32767 {
			panic(fmt.Sprintf("simd: NewBinaryHead: numbers %d to %d of the head add up to %d; at most 32767", nib*4, nib*4+3, room))
		}
		// Byte of the word, and which half of it.
		table := h.tables[nib/8*256+nib%2*128+nib%8/2*16:]
		for v := range 16 {
			sum := 0
			for i, x := range four {
				if v>>i&1 != 0 {
					sum += x
				} else {
					sum -= x
				}
			}
			h.sums[nib*16+v] = int16(sum)
			table[v], table[64+v] = byte(sum+1<<15), byte((sum+1<<15)>>8)
		}
	}
	return h
}

// DotBinary sets out[h][i] to the sum of the numbers of heads[h] under the signs
// of row i: exact whole numbers, at most 2^30 for 32768 dimensions. rows holds
// a multiple of [BinaryBlock] rows, of which the first len(out[0]) are scored. A
// block of rows is read from memory once and scored under every head while it is
// in cache. Every out[h] has the same length, and all heads the same dimension.
func DotBinary(rows []byte, heads []*BinaryHead, out [][]int32) {
	sameLen("DotBinary", len(heads), len(out))
	if len(heads) == 0 {
		return
	}
	n, words := len(out[0]), heads[0].words
	for h := range heads {
		sameLen("DotBinary out", len(out[h]), n)
		sameLen("DotBinary head", heads[h].words, words)
	}
	if need := (n + BinaryBlock - 1) / BinaryBlock * BinaryBlock * words * 4; len(rows) < need {
		panic(fmt.Sprintf("simd: DotBinary: %d rows of %d words need %d bytes, got %d", n, words, need, len(rows)))
	}
	step := max(BinaryBlock, binaryScan/max(1, words*4)/BinaryBlock*BinaryBlock)
	for i := 0; i < n; i += step {
		end := min(i+step, n)
		for h := range heads {
			dotBinary(rows[i*words*4:], heads[h], out[h][i:end])
		}
	}
}

// DotBinaryRow is [DotBinary] for row r alone.
func DotBinaryRow(rows []byte, r int, h *BinaryHead) int32 {
	at := r / binaryGroup * binaryGroup * h.words * 4
	at += r % binaryGroup * 4
	sums, s := h.sums, int32(0)
	for ; len(sums) >= 128; sums, at = sums[128:], at+4*binaryGroup {
		x := binary.LittleEndian.Uint32(rows[at:])
		t := (*[128]int16)(sums)
		s += int32(t[x&15]) + int32(t[16+x>>4&15]) + int32(t[32+x>>8&15]) + int32(t[48+x>>12&15]) +
			int32(t[64+x>>16&15]) + int32(t[80+x>>20&15]) + int32(t[96+x>>24&15]) + int32(t[112+x>>28])
	}
	return s
}

func dotBinaryGo(rows []byte, h *BinaryHead, out []int32) {
	for i := range out {
		out[i] = DotBinaryRow(rows, i, h)
	}
}
