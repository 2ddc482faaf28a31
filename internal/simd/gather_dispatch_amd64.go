//go:build amd64 && !noasm

package simd

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// biasedQuery says which form of a query dotInt8At reads.
func biasedQuery() bool { return impl >= variantVNNI && cpu.X86.HasBMI2 }

// narrowQuery: bytes are multiplied unsigned by signed, so codes are 128 up.
func narrowQuery() (offset uint8, narrow bool) { return 0x80, biasedQuery() }

func dotInt8At(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) {
	body := t.dim &^ 15
	table := (*byte)(unsafe.Pointer(unsafe.SliceData(t.chunks)))
	switch {
	case biasedQuery():
		dotInt8AtVNNI(table, int(t.shift), t.dim, &rows[0], len(rows), &q.narrow[0], &out[0])
	case impl == variantGo || !cpu.X86.HasBMI2 || body == 0:
		dotInt8AtGo(t, rows, q, out)
	default:
		dotInt8AtAVX2(table, int(t.shift), t.dim, body, &rows[0], len(rows), &q.wide[0], &out[0])
		if body == t.dim {
			return
		}
		for i, r := range rows {
			var s int32
			for j, c := range t.Row(r)[body:] {
				s += int32(c) * int32(q.wide[body+j])
			}
			out[i] += s
		}
	}
}

func prefetch(x []uint32) { prefetchLines((*byte)(unsafe.Pointer(&x[0])), 4*len(x)) }
