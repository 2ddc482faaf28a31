//go:build !amd64 || noasm

package simd

func panelShape() (heads, rows int) { return 16, 6 }

func runPanel(a []int16, lda int, b []uint32, groups int, c []int32, ldc, width int) {
	_, rows := panelShape()
	runPanelGo(a, lda, b, groups, c, ldc, width, rows)
}

func widenInt8(dst []int16, src []int8) { widenGo(dst, src) }

func runPanelScores(_ *panelScores, dst []float32, ints []int32, scales, floors []float32, above []uint64, p *HeadPanels) {
	panelScoresGo(dst, ints, scales, floors, above, p)
}

func aboveWords(dst []uint64, x []float32, floor float32) { aboveGo(dst, x, floor) }
