//go:build arm64 && !noasm

package simd

import "unsafe"

// narrowQuery: the kernels multiply codes as they are, by codes.
func narrowQuery() (offset uint8, narrow bool) { return 0, impl != variantGo }

func dotInt8At(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) {
	if impl == variantGo {
		dotInt8AtGo(t, rows, q, out)
		return
	}
	body := t.dim &^ 15
	if body > 0 {
		run := dotInt8AtNEON
		if impl == variantDotProd {
			run = dotInt8AtSDOT
		}
		table := (*byte)(unsafe.Pointer(unsafe.SliceData(t.chunks)))
		run(table, int(t.shift), t.dim, body, &rows[0], len(rows), &q.narrow[0], &out[0])
	} else {
		clear(out)
	}
	if body == t.dim {
		return
	}
	for i, r := range rows {
		var s int32
		for j, c := range t.Row(r)[body:] {
			s += int32(c) * int32(int8(q.narrow[body+j]))
		}
		out[i] += s
	}
}

func prefetch([]uint32) {}
