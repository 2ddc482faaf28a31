package simd

import (
	"fmt"
	"math"
)

// scanBlock is how many bytes of rows DotInt8Heads keeps in L1 between heads.
const scanBlock = 16 << 10

func checkScan(name string, rows, dim, head, out int) {
	if dim < 0 || head < dim || (dim > 0 && rows/dim < out) {
		panic(fmt.Sprintf("simd: %s: %d rows of dim %d need %d elements and a head of %d, got %d and %d", name, out, dim, out*dim, dim, rows, head))
	}
}

// DotInt8 sets out[i] = Σ_j rows[i*dim+j]·head[j] for len(out) rows: exact
// integer scores. rows is [len(out), dim] with values in -127..127. The caller
// scales head so that 127·Σ|head| < 2³¹; then no int32 overflows.
func DotInt8(rows []int8, dim int, head []int16, out []int32) {
	checkScan("DotInt8", len(rows), dim, len(head), len(out))
	dotInt8(rows, dim, head, out)
}

// DotInt8Heads is [DotInt8] for several heads: out[h][i] is the score of row i
// under heads[h]. A block of rows is read from memory once and scored under
// every head while it is in cache. Every out[h] has the same length.
func DotInt8Heads(rows []int8, dim int, heads [][]int16, out [][]int32) {
	sameLen("DotInt8Heads", len(heads), len(out))
	if len(heads) == 0 {
		return
	}
	n := len(out[0])
	for h := range heads {
		sameLen("DotInt8Heads out", len(out[h]), n)
		checkScan("DotInt8Heads", len(rows), dim, len(heads[h]), n)
	}
	step := max(4, scanBlock/max(dim, 1)&^3)
	part := make([][]int32, len(out))
	for i := 0; i < n; i += step {
		end := min(i+step, n)
		for h := range out {
			part[h] = out[h][i:end]
		}
		dotInt8Heads(rows[i*dim:end*dim], dim, heads, part)
	}
}

// DotFp32 sets out[i] = Σ_j rows[i*dim+j]·head[j] for len(out) rows of fp32. A
// row's score does not depend on its position.
func DotFp32(rows []float32, dim int, head []float32, out []float32) {
	checkScan("DotFp32", len(rows), dim, len(head), len(out))
	dotFp32(rows, dim, head, out)
}

// DotFp16 is [DotFp32] for rows of IEEE 754 binary16 bit patterns; products and
// sums are fp32.
func DotFp16(rows []uint16, dim int, head []float32, out []float32) {
	checkScan("DotFp16", len(rows), dim, len(head), len(out))
	dotFp16(rows, dim, head, out)
}

// Fp16ToFp32 converts binary16 bit patterns exactly. dst and src have the same
// length.
func Fp16ToFp32(dst []float32, src []uint16) {
	sameLen("Fp16ToFp32", len(dst), len(src))
	fp16ToFp32(dst, src)
}

// Fp32ToFp16 converts to binary16 bit patterns, rounding to nearest even;
// magnitudes from 65520 up become infinity and NaN stays NaN.
func Fp32ToFp16(dst []uint16, src []float32) {
	sameLen("Fp32ToFp16", len(dst), len(src))
	fp32ToFp16(dst, src)
}

// Scores sets dst[i] = ints[i]·(scales[i]·scale) + bias, in fp64 and rounded once;
// what is beyond fp32 becomes the largest of it. All slices have the same length.
// Every variant gives the same bits.
func Scores(dst []float32, ints []int32, scales []float32, scale, bias float64) {
	sameLen("Scores", len(dst), len(ints))
	sameLen("Scores scales", len(dst), len(scales))
	if bias == 0 {
		bias = math.Copysign(0, -1) // adds nothing to any number, -0 included
	}
	scores(dst, ints, scales, scale, bias)
}

func scoresGo(dst []float32, ints []int32, scales []float32, scale, bias float64) {
	for i, s := range scales {
		dst[i] = scoreGo(ints[i], s, scale, bias)
	}
}

func scoreGo(sum int32, s float32, scale, bias float64) float32 {
	x := float64(float64(sum)*(float64(s)*scale)) + bias // the conversion forbids a fused addition
	return float32(max(-math.MaxFloat32, min(x, math.MaxFloat32)))
}
