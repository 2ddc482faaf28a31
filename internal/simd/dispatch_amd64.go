//go:build amd64 && !noasm

package simd

import (
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// variant orders the instruction sets; a larger one includes the smaller.
type variant int

const (
	variantGo variant = iota
	variantAVX2
	variantAVX512
	variantVNNI
	variantAMX
)

func (v variant) String() string {
	return [...]string{"go", "avx2+fma", "avx512+avx2+fma", "avx512+vnni+avx2+fma", "amx+avx512+vnni+avx2+fma"}[v]
}

// impl is read-only after start-up.
var impl = choose(os.Getenv(WishVariable), best())

// best is the widest variant this machine and its operating system support.
func best() variant {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA || !hasF16C():
		return variantGo
	case !x.HasAVX512F || !x.HasAVX512BW || !x.HasAVX512DQ || !x.HasAVX512VL:
		return variantAVX2
	case !x.HasAVX512VNNI:
		return variantAVX512
	case !hasAMX():
		return variantVNNI
	}
	return variantAMX
}

// choose lowers have as the user asks; it never raises it, and an unknown
// value changes nothing.
func choose(wish string, have variant) variant {
	switch wish {
	case "go":
		return variantGo
	case "avx2":
		return min(have, variantAVX2)
	case "avx512":
		return min(have, variantAVX512)
	case "vnni":
		return min(have, variantVNNI)
	}
	return have
}

// Features names the variant in use: "go", "avx2+fma", "avx512+avx2+fma",
// "avx512+vnni+avx2+fma" or "amx+avx512+vnni+avx2+fma".
func Features() string { return impl.String() }

func panelWidth() int {
	if impl >= variantAVX512 {
		return 32
	}
	return goPanelWidth
}

// tileRows is the most rows a tile of the given panel width may have.
func tileRows(width int) int {
	if width == 32 && impl >= variantAVX512 {
		return 12
	}
	return goTileRows
}

// smallWidth is the panel width of the unpacked products for cols columns that
// are left.
func smallWidth(cols int) int {
	if impl >= variantAVX512 && cols > 16 {
		return 32
	}
	return 16
}

func runTile(t *tile) {
	switch {
	case impl == variantGo:
		runTileGo(t)
	case t.width == 32:
		tileAVX512((*byte)(unsafe.Pointer(t)))
	default:
		tileAVX2((*byte)(unsafe.Pointer(t)))
	}
}

// int8Format is the form [PackInt8] gives its operands.
func int8Format() intFormat {
	switch {
	case impl == variantAMX:
		return formatTileUint8
	case impl == variantVNNI:
		return formatUint8
	}
	return formatInt16
}

// int16Format is the form [PackInt16] gives its operands.
func int16Format() intFormat {
	if impl == variantAMX {
		return formatTileInt16
	}
	return formatInt16
}

func runIntTile(t *intTile) {
	p := (*byte)(unsafe.Pointer(t))
	switch {
	case impl == variantGo:
		runIntTileGo(t)
	case t.format.tiles():
		runAMX(t)
	case t.format == formatUint8:
		tileInt8VNNI(p)
	case t.width != 32:
		tileInt16AVX2(p)
	case impl >= variantVNNI:
		tileInt16VNNI(p)
	default:
		tileInt16AVX512(p)
	}
}

func absMax(x []float32) uint32 {
	if impl == variantGo || len(x) == 0 {
		return absMaxGo(x)
	}
	if impl >= variantAVX512 {
		return absMaxAVX512(&x[0], len(x))
	}
	return absMaxAVX2(&x[0], len(x))
}

// quantBody quantises len(x) elements, a multiple of 16.
func quantBody(dst []uint32, x []float32, f intFormat, inv float32) {
	switch {
	case len(x) == 0:
	case impl == variantGo:
		quantGo(dst, x, f, inv)
	case f == formatTileInt16:
		quantSplitAVX512(&dst[0], &x[0], len(x), inv)
	case f.unsigned():
		quantUint8AVX512(&dst[0], &x[0], len(x), inv)
	case impl >= variantAVX512:
		quantInt16AVX512(&dst[0], &x[0], len(x), inv)
	default:
		quantInt16AVX2(&dst[0], &x[0], len(x), inv)
	}
}

func packTransposed(dst, src []float32, stride, cols, depth, width int) {
	body := depth &^ 7
	if impl == variantGo {
		body = 0
	}
	at := 0
	for ; at+16 <= cols && body > 0; at += 16 {
		packTransposedAVX2(&dst[at], &src[at*stride], stride, body, width)
		if body < depth {
			packTransposedGo(dst[body*width+at:], src[at*stride+body:], stride, 16, depth-body, width)
		}
	}
	if at < cols {
		packTransposedGo(dst[at:], src[at*stride:], stride, cols-at, depth, width)
	}
}

func geluStrip(m Matrix) {
	if impl == variantGo {
		for i := range m.Rows {
			geluGo(m.Row(i))
		}
		return
	}
	at := 0
	if vecs := m.Cols / 16; impl >= variantAVX512 && m.Rows > 0 && vecs > 0 {
		geluAVX512(&m.Data[0], m.Rows, vecs, m.Stride)
		at = vecs * 16
	}
	if vecs := (m.Cols - at) / 8; m.Rows > 0 && vecs > 0 {
		geluAVX2(&m.Data[at], m.Rows, vecs, m.Stride)
		at += vecs * 8
	}
	if at < m.Cols {
		for i := range m.Rows {
			geluTail(m.Row(i)[at:])
		}
	}
}

// expRows turns rows of scores into weights. Either they are normalised, or it
// returns true and leaves in inv what each row has still to be multiplied by.
func expRows(m Matrix, scale float32, inv []float32) (late bool) {
	if impl >= variantAVX512 && m.Rows > 0 && m.Cols > 0 {
		expRowsAVX512(&m.Data[0], m.Rows, m.Cols, m.Stride, scale, &inv[0])
		return true
	}
	SoftmaxRows(m, scale)
	return false
}

func scaleRow(x []float32, factor float32) {
	n := len(x) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		scaleAVX2(&x[0], n, factor)
	}
	for i := n; i < len(x); i++ {
		x[i] *= factor
	}
}

func gelu(x []float32) {
	if len(x) > 0 {
		geluStrip(Dense(x, 1, len(x)))
	}
}

// geluTail runs up to seven elements through a whole vector, so that an
// element's bits do not depend on where it lies.
func geluTail(x []float32) {
	var buf [8]float32
	copy(buf[:], x)
	geluAVX2(&buf[0], 1, 1, 8)
	copy(x, buf[:])
}

func softmax(x []float32, scale float32) {
	if impl == variantGo {
		softmaxGo(x, scale)
		return
	}
	n := len(x) &^ 7
	var buf [8]float32
	tail := x[n:]
	for i := range buf {
		buf[i] = float32(math.Inf(-1))
	}
	for i, v := range tail {
		buf[i] = v * scale
	}
	top := float32(math.Inf(-1))
	if n > 0 {
		top = scaleMaxAVX2(&x[0], n, scale)
	}
	for _, v := range buf[:len(tail)] {
		top = max(top, v)
	}
	var sum float32
	if n > 0 {
		sum = expSumAVX2(&x[0], n, top)
	}
	if len(tail) > 0 {
		sum += expSumAVX2(&buf[0], len(buf), top)
	}
	inv := 1 / sum
	if n > 0 {
		scaleAVX2(&x[0], n, inv)
	}
	for i := range tail {
		tail[i] = buf[i] * inv
	}
}

func dotBody(a, b []float32) float32 {
	if impl == variantGo || len(a) == 0 {
		return dotBodyGo(a, b)
	}
	return dotAVX2(&a[0], &b[0], len(a))
}

func axpy(alpha float32, x, y []float32) {
	n := len(x) &^ 7
	if impl == variantGo || n == 0 {
		axpyGo(alpha, x, y)
		return
	}
	axpyAVX2(alpha, &x[0], &y[0], n)
	axpyGo(alpha, x[n:], y[n:])
}

func sumBody(x []float32) float32 {
	if impl == variantGo || len(x) == 0 {
		return sumBodyGo(x)
	}
	return sumAVX2(&x[0], len(x))
}

func sumSqBody(x []float32, mean float32) float32 {
	if impl == variantGo || len(x) == 0 {
		return sumSqBodyGo(x, mean)
	}
	return sumSqAVX2(&x[0], len(x), mean)
}

func normBody(n *normArgs) {
	if impl == variantGo || len(n.x) == 0 {
		normBodyGo(n)
		return
	}
	normAVX2((*byte)(unsafe.Pointer(n)), len(n.x))
}

func dotInt8(rows []int8, dim int, head []int16, out []int32) {
	step := 16
	if impl >= variantVNNI {
		step = 32
	}
	body := dim - dim%step
	switch {
	case impl == variantGo || body == 0 || len(out) == 0:
		dotInt8Go(rows, dim, head, out)
		return
	case impl >= variantVNNI:
		dotInt8VNNI(&rows[0], dim, body, &head[0], &out[0], len(out))
	default:
		dotInt8AVX2(&rows[0], dim, body, &head[0], &out[0], len(out))
	}
	dotInt8Tail(rows, dim, body, head, out)
}

// dotInt8Tail adds the elements from body on.
func dotInt8Tail(rows []int8, dim, body int, head []int16, out []int32) {
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
	body := dim &^ 31
	if impl >= variantVNNI && body > 0 && len(out[0]) > 0 {
		for ; len(heads) >= 4; heads, out = heads[4:], out[4:] {
			h := [4]*int16{&heads[0][0], &heads[1][0], &heads[2][0], &heads[3][0]}
			o := [4]*int32{&out[0][0], &out[1][0], &out[2][0], &out[3][0]}
			dotInt8VNNIx4(&rows[0], dim, body, (*byte)(unsafe.Pointer(&h)), (*byte)(unsafe.Pointer(&o)), len(out[0]))
			for i := range 4 {
				dotInt8Tail(rows, dim, body, heads[i], out[i])
			}
		}
	}
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
	dotFp32AVX2(&rows[0], dim, body, &head[0], &out[0], len(out))
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
	dotFp16AVX2(&rows[0], dim, body, &head[0], &out[0], len(out))
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
		scoresAVX2(&dst[0], &ints[0], &scales[0], n, scale, bias)
	}
	scoresGo(dst[n:], ints[n:], scales[n:], scale, bias)
}

func fp16ToFp32(dst []float32, src []uint16) {
	n := len(src) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		fp16ToFp32AVX2(&dst[0], &src[0], n)
	}
	fp16ToFp32Go(dst[n:], src[n:])
}

func fp32ToFp16(dst []uint16, src []float32) {
	n := len(src) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		fp32ToFp16AVX2(&dst[0], &src[0], n)
	}
	fp32ToFp16Go(dst[n:], src[n:])
}

// Ceiling runs rounds of the multiplications that a product of the kind "fp32",
// "int16" or "int8" is made of, with no memory access, and returns how many
// elements were multiplied and added; 0 where the variant in use has no kernel.
// Benchmarks divide it by the time to get the rate nothing can exceed.
func Ceiling(kind string, rounds int) int64 {
	run, lanes := ceiling(kind)
	if run == nil || rounds < 1 {
		return 0
	}
	run(rounds)
	return int64(rounds) * lanes
}

func ceiling(kind string) (run func(int), products int64) {
	if kind == "int8" && impl < variantVNNI {
		kind = "int16"
	}
	switch {
	case impl == variantGo:
		return nil, 0
	case impl == variantAMX && kind != "fp32":
		return ceilingAMX(kind)
	case kind == "fp32" && impl == variantAVX2:
		return ceilingFP32AVX2, 12 * 8
	case kind == "fp32":
		return ceilingFP32AVX512, 24 * 16
	case kind == "int8":
		return ceilingInt8VNNI, 24 * 64
	case impl == variantVNNI:
		return ceilingInt16VNNI, 24 * 32
	case impl == variantAVX512:
		return ceilingInt16AVX512, 24 * 32
	}
	return ceilingInt16AVX2, 12 * 16
}
