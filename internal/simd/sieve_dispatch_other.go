//go:build !amd64 || noasm

package simd

// useSieve: without products of bytes by the dozen exact sums are as fast.
func useSieve() bool { return false }

func sieveTile(a []int8, lda int, b []uint32, c []int32, ldc, width int) {
	_, rows := panelShape()
	sieveTileGo(a, lda, b, c, ldc, width, rows)
}

func sieveRows(rows []int8, dim int, sums, squares []int32) { sieveRowsGo(rows, dim, sums, squares) }

func sieveAbove(_ *sieveRow, coarse, sums, squares []int32, scales []float32, masks []uint64, p *HeadSieve, floors []float32) {
	sieveAboveGo(coarse, sums, squares, scales, masks, p, floors)
}

func sievePairs(rows []int8, heads []int16, dim int, pairs []uint32, out []int32) {
	sievePairsGo(rows, heads, dim, pairs, out)
}
