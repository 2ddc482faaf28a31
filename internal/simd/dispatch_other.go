//go:build (!amd64 && !arm64) || noasm

package simd

// Features names the variant in use: always "go" in this build.
func Features() string { return "go" }

func panelWidth() int  { return goPanelWidth }
func tileRows(int) int { return goTileRows }
func runTile(t *tile)  { runTileGo(t) }

func int8Format() intFormat     { return formatInt16 }
func runIntTile(t *intTile)     { runIntTileGo(t) }
func absMax(x []float32) uint32 { return absMaxGo(x) }

func quantBody(dst []uint32, x []float32, f intFormat, inv float32) { quantGo(dst, x, f, inv) }

func smallWidth(int) int { return 16 }

func packTransposed(dst, src []float32, stride, cols, depth, width int) {
	packTransposedGo(dst, src, stride, cols, depth, width)
}

func expRows(m Matrix, scale float32, _ []float32) (late bool) {
	SoftmaxRows(m, scale)
	return false
}

func scaleRow(x []float32, factor float32) {
	for i := range x {
		x[i] *= factor
	}
}

func geluStrip(m Matrix) {
	for i := range m.Rows {
		geluGo(m.Row(i))
	}
}

func gelu(x []float32)                                         { geluGo(x) }
func softmax(x []float32, scale float32)                       { softmaxGo(x, scale) }
func dotBody(a, b []float32) float32                           { return dotBodyGo(a, b) }
func axpy(alpha float32, x, y []float32)                       { axpyGo(alpha, x, y) }
func sumBody(x []float32) float32                              { return sumBodyGo(x) }
func sumSqBody(x []float32, mean float32) float32              { return sumSqBodyGo(x, mean) }
func normBody(n *normArgs)                                     { normBodyGo(n) }
func dotInt8(r []int8, dim int, head []int16, out []int32)     { dotInt8Go(r, dim, head, out) }
func dotFp32(r []float32, dim int, head, out []float32)        { dotFp32Go(r, dim, head, out) }
func dotFp16(r []uint16, dim int, head []float32, o []float32) { dotFp16Go(r, dim, head, o) }
func scores(dst []float32, ints []int32, scales []float32, scale, bias float64) {
	scoresGo(dst, ints, scales, scale, bias)
}

func fp16ToFp32(dst []float32, src []uint16) { fp16ToFp32Go(dst, src) }
func fp32ToFp16(dst []uint16, src []float32) { fp32ToFp16Go(dst, src) }

func dotInt8Heads(rows []int8, dim int, heads [][]int16, out [][]int32) {
	for i, head := range heads {
		dotInt8Go(rows, dim, head, out[i])
	}
}

// Ceiling is for the variants with assembly; here it returns 0.
func Ceiling(string, int) int64 { return 0 }
