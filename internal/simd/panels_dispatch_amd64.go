//go:build amd64 && !noasm

package simd

import "unsafe"

// panelShape is how many heads a panel has and how many rows a tile.
func panelShape() (heads, rows int) {
	if impl >= variantAVX512 {
		return 32, 12
	}
	return 16, 6
}

func runPanel(a []int16, lda int, b []uint32, groups int, c []int32, ldc, width int) {
	_, rows := panelShape()
	switch {
	case impl == variantGo:
		runPanelGo(a, lda, b, groups, c, ldc, width, rows)
	case impl >= variantVNNI:
		panelVNNI(&a[0], 2*lda, &b[0], groups, &c[0], 4*ldc)
	case impl == variantAVX512:
		panelAVX512(&a[0], 2*lda, &b[0], groups, &c[0], 4*ldc)
	default:
		panelAVX2(&a[0], 2*lda, &b[0], groups, &c[0], 4*ldc)
	}
}

func widenInt8(dst []int16, src []int8) {
	n := len(src) &^ 15
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		widenAVX2(&dst[0], &src[0], n)
	}
	widenGo(dst[n:], src[n:])
}

func runPanelScores(t *panelScores, dst []float32, ints []int32, scales, floors []float32, above []uint64, p *HeadPanels) {
	if impl == variantGo {
		panelScoresGo(dst, ints, scales, floors, above, p)
		return
	}
	panelScoresAVX2((*byte)(unsafe.Pointer(t)))
}

func aboveWords(dst []uint64, x []float32, floor float32) {
	if impl == variantGo || len(dst) == 0 {
		aboveGo(dst, x, floor)
		return
	}
	aboveAVX2(&dst[0], &x[0], len(dst), floor)
}
