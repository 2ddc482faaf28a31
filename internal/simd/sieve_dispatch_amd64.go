//go:build amd64 && !noasm

package simd

import "unsafe"

// useSieve: tile registers multiply all of a head faster than these kernels its half.
func useSieve() bool { return impl >= variantVNNI && !useTiles() }

func sieveTile(a []int8, lda int, b []uint32, c []int32, ldc, width int) {
	if impl < variantVNNI {
		_, rows := panelShape()
		sieveTileGo(a, lda, b, c, ldc, width, rows)
		return
	}
	sieveTileVNNI(&a[0], lda, &b[0], len(b)/width, &c[0], 4*ldc)
}

func sieveRows(rows []int8, dim int, sums, squares []int32) {
	if impl < variantVNNI {
		sieveRowsGo(rows, dim, sums, squares)
		return
	}
	sieveRowsVNNI(&rows[0], dim, &sums[0], &squares[0], len(sums))
}

func sieveAbove(t *sieveRow, coarse, sums, squares []int32, scales []float32, masks []uint64, p *HeadSieve, floors []float32) {
	if impl < variantVNNI {
		sieveAboveGo(coarse, sums, squares, scales, masks, p, floors)
		return
	}
	sieveAboveAVX512((*byte)(unsafe.Pointer(t)))
}

func sievePairs(rows []int8, heads []int16, dim int, pairs []uint32, out []int32) {
	if impl < variantVNNI {
		sievePairsGo(rows, heads, dim, pairs, out)
		return
	}
	sievePairsVNNI(&rows[0], &heads[0], dim, &pairs[0], &out[0], len(pairs))
}
