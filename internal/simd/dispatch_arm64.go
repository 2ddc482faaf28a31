//go:build arm64 && !noasm

package simd

import (
	"os"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// variant orders the instruction sets; a larger one includes the smaller.
type variant int

const (
	variantGo variant = iota
	variantNEON
	variantDotProd
)

func (v variant) String() string {
	return [...]string{"go", "neon", "neon+dotprod"}[v]
}

// impl is read-only after start-up.
var impl = choose(os.Getenv(WishVariable), best())

// best is the widest variant this machine and its operating system support.
// Every arm64 system that Go runs on has NEON; products of bytes came with
// Armv8.2.
func best() variant {
	if cpu.ARM64.HasASIMDDP {
		return variantDotProd
	}
	return variantNEON
}

// choose lowers have as the user asks; it never raises it, and an unknown
// value changes nothing.
func choose(wish string, have variant) variant {
	switch wish {
	case "go":
		return variantGo
	case "neon":
		return min(have, variantNEON)
	}
	return have
}

// Features names the variant in use: "go", "neon" or "neon+dotprod".
func Features() string { return impl.String() }

func panelWidth() int    { return goPanelWidth }
func tileRows(int) int   { return goTileRows }
func smallWidth(int) int { return goPanelWidth }

func runTile(t *tile) {
	if impl == variantGo {
		runTileGo(t)
		return
	}
	tileNEON((*byte)(unsafe.Pointer(t)))
}

// int8Format is the form [PackInt8] gives its operands.
func int8Format() intFormat {
	if impl == variantDotProd {
		return formatInt8
	}
	return formatInt16
}

func runIntTile(t *intTile) {
	switch {
	case impl == variantGo:
		runIntTileGo(t)
	case t.format == formatInt8:
		tileInt8SDOT((*byte)(unsafe.Pointer(t)))
	default:
		tileInt16NEON((*byte)(unsafe.Pointer(t)))
	}
}

func absMax(x []float32) uint32 {
	if impl == variantGo || len(x) == 0 {
		return absMaxGo(x)
	}
	return absMaxNEON(&x[0], len(x))
}

// quantBody quantises len(x) elements, a multiple of 16.
func quantBody(dst []uint32, x []float32, f intFormat, inv float32) {
	switch {
	case len(x) == 0:
	case impl == variantGo:
		quantGo(dst, x, f, inv)
	case f == formatInt8:
		quantInt8NEON(&dst[0], &x[0], len(x), inv)
	default:
		quantInt16NEON(&dst[0], &x[0], len(x), inv)
	}
}

func packTransposed(dst, src []float32, stride, cols, depth, width int) {
	body := depth &^ 3
	if impl == variantGo {
		body = 0
	}
	at := 0
	for ; at+16 <= cols && body > 0; at += 16 {
		packTransposedNEON(&dst[at], &src[at*stride], stride, body, width)
		if body < depth {
			packTransposedGo(dst[body*width+at:], src[at*stride+body:], stride, 16, depth-body, width)
		}
	}
	if at < cols {
		packTransposedGo(dst[at:], src[at*stride:], stride, cols-at, depth, width)
	}
}

func dotInt8(rows []int8, dim int, head []int16, out []int32) {
	body := dim &^ 15
	switch {
	case impl == variantGo || body == 0 || len(out) == 0:
		dotInt8Go(rows, dim, head, out)
		return
	case impl == variantDotProd:
		dotInt8SDOT(&rows[0], dim, body, &head[0], &out[0], len(out))
	default:
		dotInt8NEON(&rows[0], dim, body, &head[0], &out[0], len(out))
	}
	if body == dim {
		return
	}
	head = head[body:dim]
	for i := range out {
		var s int32
		for j, v := range rows[i*dim+body : i*dim+dim] {
			s += int32(v) * int32(head[j])
		}
		out[i] += s
	}
}

func dotInt8Heads(rows []int8, dim int, heads [][]int16, out [][]int32) {
	for i, head := range heads {
		dotInt8(rows, dim, head, out[i])
	}
}

func dotFp32(rows []float32, dim int, head, out []float32) {
	body := dim &^ 7
	if impl == variantGo || body == 0 || len(out) == 0 {
		dotFp32Go(rows, dim, head, out)
		return
	}
	dotFp32NEON(&rows[0], dim, body, &head[0], &out[0], len(out))
	if body == dim {
		return
	}
	head = head[body:dim]
	for i := range out {
		s := out[i]
		for j, v := range rows[i*dim+body : i*dim+dim] {
			s += v * head[j]
		}
		out[i] = s
	}
}

func dotFp16(rows []uint16, dim int, head, out []float32) {
	body := dim &^ 7
	if impl == variantGo || body == 0 || len(out) == 0 {
		dotFp16Go(rows, dim, head, out)
		return
	}
	dotFp16NEON(&rows[0], dim, body, &head[0], &out[0], len(out))
	if body == dim {
		return
	}
	head = head[body:dim]
	for i := range out {
		s := out[i]
		for j, v := range rows[i*dim+body : i*dim+dim] {
			s += halfToFloat(v) * head[j]
		}
		out[i] = s
	}
}

func scores(dst []float32, ints []int32, scales []float32, scale, bias float64) {
	n := len(dst) &^ 3
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		scoresNEON(&dst[0], &ints[0], &scales[0], n, scale, bias)
	}
	scoresGo(dst[n:], ints[n:], scales[n:], scale, bias)
}

func fp16ToFp32(dst []float32, src []uint16) {
	n := len(src) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		fp16ToFp32NEON(&dst[0], &src[0], n)
	}
	fp16ToFp32Go(dst[n:], src[n:])
}

func fp32ToFp16(dst []uint16, src []float32) {
	n := len(src) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		fp32ToFp16NEON(&dst[0], &src[0], n)
	}
	fp32ToFp16Go(dst[n:], src[n:])
}

// Ceiling is for the variants of amd64; here it returns 0.
func Ceiling(string, int) int64 { return 0 }
