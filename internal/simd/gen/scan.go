package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Rows that share one load of the head. A scan under one head is bound by
// memory, and one sequential stream reads faster than four interleaved ones
// (fp16 at 0.95 of the read rate of the same run against 0.42, fp32 at 0.85
// against 0.45: BenchmarkScan, medians of three interleaved rounds on a busy
// two-core Zen 4). Four heads a pass are bound by arithmetic, so there the
// loads of the heads are worth sharing.
const (
	streamRows = 1
	headRows   = 4
)

// ahead is how far the scans prefetch, in bytes. A scan under one head on 512 bits asks
// twice: for the second-level cache from far, which keeps more of memory under way than
// the first level has room to wait for, and for the first from near (12 % less processor
// time than 4096 alone, medians of nine interleaved rounds on a busy two-core Xeon with AMX).
const (
	ahead     = 4096
	aheadNear = 2048
	aheadFar  = 16384
)

// rowScan is the skeleton of a scan over left rows, stride bytes apart.
type rowScan struct {
	rows, left, stride reg.Register
	group              int
}

// emit writes the loop over groups of rows and the one over single rows after
// it, each row by the same instructions. body scores the rows whose addresses
// it gets and stores the results.
func (s rowScan) emit(body func(label string, base []reg.Register)) {
	rows, left, stride := s.rows, s.left, s.stride
	if s.group > 1 {
		Label("group")
		CMPQ(left, Imm(uint64(s.group)))
		JL(LabelRef("one"))
		base := make([]reg.Register, s.group)
		for i := range base {
			base[i] = GP64()
		}
		MOVQ(rows, base[0])
		for i := 1; i < s.group; i++ {
			LEAQ(Mem{Base: base[i-1], Index: stride, Scale: 1}, base[i])
		}
		LEAQ(Mem{Base: base[s.group-1], Index: stride, Scale: 1}, rows)
		body("group", base)
		SUBQ(Imm(uint64(s.group)), left)
		JMP(LabelRef("group"))
	}
	Label("one")
	CMPQ(left, Imm(0))
	JLE(LabelRef("done"))
	last := GP64()
	MOVQ(rows, last)
	ADDQ(stride, rows)
	body("one", []reg.Register{last})
	SUBQ(Imm(1), left)
	JMP(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// int8Kernel describes one width of the int8 scores.
type int8Kernel struct {
	name string
	step int // elements a vector of int16 holds
	vec  func() reg.VecVirtual
	// multiply adds the pair sums of v and h to acc; v is free afterwards.
	multiply func(h, v, acc reg.VecVirtual)
	zero     func(reg.VecVirtual)
}

// dotInt8 widens int8 to int16 and multiplies with vpmaddwd, whose pair sums
// (at most 2·127·32767) cannot overflow, or with vpdpwssd, which also adds.
func dotInt8() {
	narrow := int8Kernel{
		name: "dotInt8AVX2", step: 16, vec: YMM,
		multiply: func(h, v, acc reg.VecVirtual) {
			VPMADDWD(h, v, v)
			VPADDD(v, acc, acc)
		},
		zero: func(v reg.VecVirtual) { VPXOR(v, v, v) },
	}
	wide := int8Kernel{
		name: "dotInt8VNNI", step: 32, vec: ZMM,
		multiply: func(h, v, acc reg.VecVirtual) { vnni("VPDPWSSD", h, v, acc) },
		zero:     func(v reg.VecVirtual) { VPXORD(v, v, v) },
	}
	narrow.emit()
	wide.emit()
	wide.emitHeads()
}

func (k int8Kernel) emit() {
	function(k.name, "func(rows *int8, dim, body int, head *int16, out *int32, n int)",
		fmt.Sprintf("%s scores n rows over their first body elements, a multiple of %d above 0; rows are dim apart.", k.name, k.step))
	rows, dim, bodyLen, head, out, n := ptr("rows"), ptr("dim"), ptr("body"), ptr("head"), ptr("out"), ptr("n")
	rowScan{rows, n, dim, streamRows}.emit(func(label string, base []reg.Register) {
		acc := make([]reg.VecVirtual, len(base))
		for i := range acc {
			acc[i] = k.vec()
			k.zero(acc[i])
		}
		at := GP64()
		XORQ(at, at)
		if k.step == 32 {
			k.lines(label, at, bodyLen, head, base, acc)
		}
		Label(label + "loop")
		h := k.vec()
		VMOVUPS(Mem{Base: head, Index: at, Scale: 2}, h)
		for i, b := range base {
			v := k.vec()
			VPMOVSXBW(Mem{Base: b, Index: at, Scale: 1}, v)
			k.multiply(h, v, acc[i])
		}
		ADDQ(Imm(uint64(k.step)), at)
		CMPQ(at, bodyLen)
		JL(LabelRef(label + "loop"))
		if k.step == 32 {
			Label(label + "fold")
		}
		for i := range acc {
			k.fold(acc[i], Mem{Base: out, Disp: 4 * i})
		}
		ADDQ(Imm(uint64(4*len(base))), out)
	})
}

// lines multiplies a cache line of 64 elements a step, with two sums a row, and leaves
// what is less to the loop that follows, which it jumps over where nothing is.
func (k int8Kernel) lines(label string, at, bodyLen, head reg.Register, base []reg.Register, acc []reg.VecVirtual) {
	whole := GP64()
	MOVQ(bodyLen, whole)
	ANDQ(I32(-64), whole)
	JEQ(LabelRef(label + "loop"))
	second := make([]reg.VecVirtual, len(base))
	for i := range second {
		second[i] = k.vec()
		k.zero(second[i])
	}
	Label(label + "lines")
	for half, sums := range [][]reg.VecVirtual{acc, second} {
		h := k.vec()
		VMOVUPS(Mem{Base: head, Index: at, Scale: 2, Disp: 64 * half}, h)
		for i, b := range base {
			v := k.vec()
			VPMOVSXBW(Mem{Base: b, Index: at, Scale: 1, Disp: 32 * half}, v)
			if half == 0 {
				PREFETCHT0(Mem{Base: b, Index: at, Scale: 1, Disp: aheadNear})
				PREFETCHT1(Mem{Base: b, Index: at, Scale: 1, Disp: aheadFar})
			}
			k.multiply(h, v, sums[i])
		}
	}
	ADDQ(Imm(64), at)
	CMPQ(at, whole)
	JL(LabelRef(label + "lines"))
	for i := range second {
		VPADDD(second[i], acc[i], acc[i])
	}
	CMPQ(at, bodyLen)
	JGE(LabelRef(label + "fold"))
}

// fold stores the sum of all int32 lanes of acc; integers, so any order.
func (k int8Kernel) fold(acc reg.VecVirtual, to Mem) {
	y := acc
	if k.step == 32 {
		upper := YMM()
		VEXTRACTI64X4(Imm(1), acc, upper)
		VPADDD(upper, acc.AsY(), upper)
		y = upper
	}
	hi, lo := XMM(), XMM()
	if k.step == 32 { // the allocator may use registers from 16 on: AVX512VL
		VEXTRACTI32X4(Imm(1), y, hi)
	} else {
		VEXTRACTI128(Imm(1), y, hi)
	}
	VPADDD(y.AsX(), hi, lo)
	VPSHUFD(Imm(0x4e), lo, hi)
	VPADDD(hi, lo, lo)
	VPSHUFD(Imm(0xb1), lo, hi)
	VPADDD(hi, lo, lo)
	VMOVD(lo, to)
}

// emitHeads writes the kernel of four heads: a row is widened once and
// multiplied four times, 4 x 4 accumulators.
func (k int8Kernel) emitHeads() {
	name := k.name + "x4"
	function(name, "func(rows *int8, dim, body int, heads, out *byte, n int)",
		fmt.Sprintf("%s scores n rows under four heads; heads points to four *int16, out to four *int32.", name))
	rows, dim, bodyLen, heads, outs, n := ptr("rows"), ptr("dim"), ptr("body"), ptr("heads"), ptr("out"), ptr("n")
	offset := GP64() // of the next score, in bytes
	XORQ(offset, offset)
	rowScan{rows, n, dim, headRows}.emit(func(label string, base []reg.Register) {
		acc := make([][4]reg.VecVirtual, len(base))
		for i := range acc {
			for h := range acc[i] {
				acc[i][h] = k.vec()
				k.zero(acc[i][h])
			}
		}
		at := GP64()
		XORQ(at, at)
		Label(label + "loop")
		v := make([]reg.VecVirtual, len(base))
		for i, b := range base {
			v[i] = k.vec()
			VPMOVSXBW(Mem{Base: b, Index: at, Scale: 1}, v[i])
			PREFETCHT0(Mem{Base: b, Index: at, Scale: 1, Disp: ahead})
		}
		for h := range 4 {
			head, w := field(heads, 8*h), k.vec()
			VMOVUPS(Mem{Base: head, Index: at, Scale: 2}, w)
			for i := range base {
				k.multiply(w, v[i], acc[i][h])
			}
		}
		ADDQ(Imm(uint64(k.step)), at)
		CMPQ(at, bodyLen)
		JL(LabelRef(label + "loop"))
		for h := range 4 {
			out := field(outs, 8*h)
			for i := range acc {
				k.fold(acc[i][h], Mem{Base: out, Index: offset, Scale: 1, Disp: 4 * i})
			}
		}
		ADDQ(Imm(uint64(4*len(base))), offset)
	})
}

// dotFloat scores rows of fp32 or fp16 with two accumulators a row.
func dotFloat(name string, size int, load func(Mem, reg.VecVirtual)) {
	elem := map[int]string{4: "float32", 2: "uint16"}[size]
	function(name, "func(rows *"+elem+", dim, body int, head, out *float32, n int)",
		name+" scores n rows over their first body elements, a multiple of 8 above 0; rows are dim apart.")
	rows, dim, bodyLen, head, out, n := ptr("rows"), ptr("dim"), ptr("body"), ptr("head"), ptr("out"), ptr("n")
	stride := GP64()
	MOVQ(dim, stride)
	SHLQ(Imm(uint64(size/2)), stride) // 4 -> 2 bits, 2 -> 1 bit
	rowScan{rows, n, stride, streamRows}.emit(func(label string, base []reg.Register) {
		acc := make([][2]reg.VecVirtual, len(base))
		for i := range acc {
			for h := range 2 {
				acc[i][h] = YMM()
				VXORPS(acc[i][h], acc[i][h], acc[i][h])
			}
		}
		at, left := GP64(), GP64()
		XORQ(at, at)
		MOVQ(bodyLen, left)
		step := func(half int) {
			h := YMM()
			VMOVUPS(Mem{Base: head, Index: at, Scale: 4, Disp: 32 * half}, h)
			for i, b := range base {
				v := YMM()
				load(Mem{Base: b, Index: at, Scale: uint8(size), Disp: 8 * size * half}, v)
				VFMADD231PS(h, v, acc[i][half])
			}
		}
		SUBQ(Imm(16), left)
		JL(LabelRef(label + "tail"))
		Label(label + "loop")
		for _, b := range base {
			PREFETCHT0(Mem{Base: b, Index: at, Scale: uint8(size), Disp: ahead})
		}
		step(0)
		step(1)
		ADDQ(Imm(16), at)
		SUBQ(Imm(16), left)
		JGE(LabelRef(label + "loop"))
		Label(label + "tail")
		ADDQ(Imm(16), left)
		JEQ(LabelRef(label + "fold"))
		step(0)
		Label(label + "fold")
		for i := range acc {
			VADDPS(acc[i][1], acc[i][0], acc[i][0])
			lo := foldLanes(acc[i][0])
			VMOVSS(lo, Mem{Base: out, Disp: 4 * i})
		}
		ADDQ(Imm(uint64(4*len(base))), out)
	})
}

func halves() {
	function("fp16ToFp32AVX2", "func(dst *float32, src *uint16, n int)", "fp16ToFp32AVX2 converts n elements, a multiple of 8 above 0.")
	dst, src, n := ptr("dst"), ptr("src"), ptr("n")
	Label("loop")
	v := YMM()
	VCVTPH2PS(Mem{Base: src}, v)
	VMOVUPS(v, Mem{Base: dst})
	ADDQ(Imm(16), src)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(8), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()

	function("fp32ToFp16AVX2", "func(dst *uint16, src *float32, n int)", "fp32ToFp16AVX2 converts n elements, a multiple of 8 above 0, rounding to nearest even.")
	d, s, m := ptr("dst"), ptr("src"), ptr("n")
	Label("loop")
	w := YMM()
	VMOVUPS(Mem{Base: s}, w)
	VCVTPS2PH(Imm(0), w, Mem{Base: d})
	ADDQ(Imm(32), s)
	ADDQ(Imm(16), d)
	SUBQ(Imm(8), m)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// scores turns exact integer scores into the rounded ones: four at a time in
// fp64, as the twin does one.
func scores() {
	limit := GLOBL("largestFloat32", attr.RODATA|attr.NOPTR)
	DATA(0, F64(math.MaxFloat32))
	DATA(8, F64(-math.MaxFloat32))
	function("scoresAVX2", "func(dst *float32, ints *int32, scales *float32, n int, scale, bias float64)",
		"scoresAVX2 sets dst[i] to ints[i]·(scales[i]·scale) + bias, kept within fp32, for n elements, a multiple of 4 above 0.")
	dst, ints, scales, n := ptr("dst"), ptr("ints"), ptr("scales"), ptr("n")
	scale, bias, top, least := YMM(), YMM(), YMM(), YMM()
	for _, p := range []struct {
		name string
		to   reg.VecVirtual
	}{{"scale", scale}, {"bias", bias}} {
		x := XMM()
		Load(Param(p.name), x)
		VBROADCASTSD(x, p.to)
	}
	VBROADCASTSD(limit, top)
	VBROADCASTSD(limit.Offset(8), least)
	Label("loop")
	v, s, out := YMM(), YMM(), XMM()
	VCVTDQ2PD(Mem{Base: ints}, v)
	VCVTPS2PD(Mem{Base: scales}, s)
	VMULPD(scale, s, s)
	VMULPD(s, v, v)
	VADDPD(bias, v, v)
	VMINPD(v, top, v)
	VMAXPD(v, least, v)
	VCVTPD2PSY(v, out)
	VMOVUPS(out, Mem{Base: dst})
	ADDQ(Imm(16), ints)
	ADDQ(Imm(16), scales)
	ADDQ(Imm(16), dst)
	SUBQ(Imm(4), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
