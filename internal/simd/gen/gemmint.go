package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into simd's intTile struct.
const (
	intC      = 0
	intA      = 24
	intB      = 48
	intInit   = 72
	intBias   = 96
	intScaleB = 120
	intScaleA = 144
	intStart  = 168
	intLdc    = 192
	intLda    = 200
	intLdi    = 208
	intGroups = 216
	intRows   = 224
	intLds    = 232
	intAhead  = 280
	intLines  = 288
)

// intKernel is a family of integer tiles. A group is four bytes of K: two int16
// or four bytes; a lane of the accumulators takes one group a step.
type intKernel struct {
	microKernel
	// multiply adds the group sums of b and the broadcast a to acc.
	multiply func(b, a, acc reg.VecPhysical)
}

// gemmInt16AVX2 needs all 16 registers: 6 x 2 accumulators, 2 of B, a broadcast
// and the products.
func gemmInt16AVX2() {
	product := ymm[15]
	intKernel{
		microKernel: microKernel{
			name: "tileInt16AVX2", rows: 6, bytes: 32,
			acc:     func(r, h int) reg.VecPhysical { return ymm[2*r+h] },
			b:       [2]reg.VecPhysical{ymm[12], ymm[13]},
			scratch: [2]reg.VecPhysical{ymm[14], ymm[14]},
			zero:    func(v reg.VecPhysical) { VPXOR(v, v, v) },
		},
		multiply: func(b, a, acc reg.VecPhysical) {
			VPMADDWD(b, a, product)
			VPADDD(product, acc, acc)
		},
	}.emit("tileInt16AVX2 computes an int16 tile of up to 6 rows and 16 columns; t points to an intTile.")
}

func wide(name string, multiply func(b, a, acc reg.VecPhysical)) intKernel {
	return intKernel{
		microKernel: microKernel{
			name: name, rows: 12, bytes: 64,
			acc:     func(r, h int) reg.VecPhysical { return zmm[2*r+h] },
			b:       [2]reg.VecPhysical{zmm[24], zmm[25]},
			scratch: [2]reg.VecPhysical{zmm[26], zmm[27]},
			zero:    func(v reg.VecPhysical) { VPXORD(v, v, v) },
		},
		multiply: multiply,
	}
}

func gemmIntAVX512() {
	turn := 0
	wide("tileInt16AVX512", func(b, a, acc reg.VecPhysical) {
		product := zmm[28+turn%4] // four in turn, so that none waits for another
		turn++
		VPMADDWD(b, a, product)
		VPADDD(product, acc, acc)
	}).emit("tileInt16AVX512 computes an int16 tile of up to 12 rows and 32 columns; t points to an intTile.")
	wide("tileInt16VNNI", func(b, a, acc reg.VecPhysical) { vnni("VPDPWSSD", b, a, acc) }).
		emit("tileInt16VNNI is tileInt16AVX512 by vpdpwssd.")
	wide("tileInt8VNNI", func(b, a, acc reg.VecPhysical) { vnni("VPDPBUSD", b, a, acc) }).
		emit("tileInt8VNNI computes a tile of unsigned bytes of A by signed bytes of B, up to 12 rows and 32 columns.")
}

// vnni is written out because avo does not know AVX512_VNNI.
func vnni(opcode string, b, a, acc Op) {
	Instruction(&ir.Instruction{
		Opcode: opcode, Operands: []Op{b, a, acc}, Inputs: []Op{b, a, acc}, Outputs: []Op{acc},
	})
}

func (m intKernel) emit(doc string) {
	function(m.name, "func(t *byte)", doc)
	t := ptr("t")
	for r := m.rows; r > 1; r-- {
		CMPQ(Mem{Base: t, Disp: intRows}, Imm(uint64(r)))
		JEQ(LabelRef(fmt.Sprintf("rows%d", r)))
	}
	for r := 1; r <= m.rows; r++ {
		Label(fmt.Sprintf("rows%d", r))
		m.body(t, r)
	}
}

func (m intKernel) body(t reg.Register, rows int) {
	label := func(s string) string { return fmt.Sprintf("%s%d", s, rows) }
	CMPQ(Mem{Base: t, Disp: intStart + 8}, Imm(0))
	JEQ(LabelRef(label("zero")))
	from := Mem{Base: field(t, intStart)}
	for h := range 2 {
		VMOVUPS(from.Offset(h*m.bytes), m.acc(0, h))
		for r := 1; r < rows; r++ {
			VMOVAPS(m.acc(0, h), m.acc(r, h))
		}
	}
	JMP(LabelRef(label("start")))
	Label(label("zero"))
	for r := range rows {
		m.zero(m.acc(r, 0))
		m.zero(m.acc(r, 1))
	}
	Label(label("start"))
	groups := field(t, intGroups)
	b := field(t, intB)
	a := rowPointers(field(t, intA), stride(t, intLda), rows)
	next := newFetcher(t, intAhead, intLines)
	step := func(l int) {
		VMOVUPS(Mem{Base: b, Disp: 2 * m.bytes * l}, m.b[0])
		VMOVUPS(Mem{Base: b, Disp: 2*m.bytes*l + m.bytes}, m.b[1])
		for r := range rows {
			s := m.scratch[r&1]
			VPBROADCASTD(a[r].Offset(4*l), s)
			m.multiply(m.b[0], s, m.acc(r, 0))
			m.multiply(m.b[1], s, m.acc(r, 1))
		}
	}
	advance := func(n int) {
		ADDQ(U32(uint32(2*m.bytes*n)), b)
		for r := 0; r < rows; r += 3 {
			ADDQ(Imm(uint64(4*n)), a[r].Base)
		}
	}
	const unroll = 4
	SUBQ(Imm(unroll), groups)
	JL(LabelRef(label("tail")))
	Label(label("loop"))
	for l := range unroll {
		step(l)
	}
	next.fetch(label("fetched"), PREFETCHT0)
	advance(unroll)
	SUBQ(Imm(unroll), groups)
	JGE(LabelRef(label("loop")))
	Label(label("tail"))
	ADDQ(Imm(unroll), groups)
	JEQ(LabelRef(label("scale")))
	Label(label("single"))
	step(0)
	advance(1)
	SUBQ(Imm(1), groups)
	JNE(LabelRef(label("single")))

	// c = (init + bias) + (float(acc)·scaleB)·scaleA, each operation rounded, in
	// the order of the twin: so every variant gives the same bits.
	Label(label("scale"))
	scale := Mem{Base: field(t, intScaleB)}
	VMOVUPS(scale, m.b[0])
	VMOVUPS(scale.Offset(m.bytes), m.b[1])
	sa := rowPointers(field(t, intScaleA), stride(t, intLds), rows)
	for r := range rows {
		s := m.scratch[0]
		VBROADCASTSS(sa[r], s)
		for h := range 2 {
			acc := m.acc(r, h)
			VCVTDQ2PS(acc, acc)
			VMULPS(m.b[h], acc, acc)
			VMULPS(s, acc, acc)
		}
	}
	m.zero(m.b[0])
	m.zero(m.b[1])
	CMPQ(Mem{Base: t, Disp: intBias + 8}, Imm(0))
	JEQ(LabelRef(label("unbiased")))
	bias := Mem{Base: field(t, intBias)}
	VMOVUPS(bias, m.b[0])
	VMOVUPS(bias.Offset(m.bytes), m.b[1])
	Label(label("unbiased"))
	to := rowPointers(field(t, intC), stride(t, intLdc), rows)
	CMPQ(Mem{Base: t, Disp: intInit + 8}, Imm(0))
	JEQ(LabelRef(label("fresh")))
	init := rowPointers(field(t, intInit), stride(t, intLdi), rows)
	for r := range rows {
		for h := range 2 {
			s := m.scratch[0]
			VADDPS(init[r].Offset(h*m.bytes), m.b[h], s)
			VADDPS(m.acc(r, h), s, s)
			VMOVUPS(s, to[r].Offset(h*m.bytes))
		}
	}
	VZEROUPPER()
	RET()
	Label(label("fresh"))
	for r := range rows {
		for h := range 2 {
			acc := m.acc(r, h)
			VADDPS(acc, m.b[h], acc)
			VMOVUPS(acc, to[r].Offset(h*m.bytes))
		}
	}
	VZEROUPPER()
	RET()
}

// quantise writes the kernels that turn rows into integers. The largest
// magnitude is found on the bits as integers, where NaN is above infinity and
// that above every number, so nothing gets lost.
func quantise() {
	abs := vector32("quantAbs", 0x7fffffff)
	function("absMaxAVX2", "func(x *float32, n int) uint32",
		"absMaxAVX2 returns the largest of the bits of |x| over n elements, a multiple of 8 above 0.")
	x, n := ptr("x"), ptr("n")
	mask, top := YMM(), YMM()
	VMOVUPS(abs, mask)
	VPXOR(top, top, top)
	Label("loop")
	v := YMM()
	VPAND(Mem{Base: x}, mask, v)
	VPMAXSD(v, top, top)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNE(LabelRef("loop"))
	hi, lo := XMM(), XMM()
	VEXTRACTI128(Imm(1), top, hi)
	VPMAXSD(top.AsX(), hi, lo)
	VPSHUFD(Imm(0x4e), lo, hi)
	VPMAXSD(hi, lo, lo)
	VPSHUFD(Imm(0xb1), lo, hi)
	VPMAXSD(hi, lo, lo)
	out := GP32()
	VMOVD(lo, out)
	VZEROUPPER()
	Store(out, ReturnIndex(0))
	RET()

	function("quantInt16AVX2", "func(dst *uint32, x *float32, n int, inv float32)",
		"quantInt16AVX2 writes x·inv, rounded to nearest even, as int16; n is a multiple of 16 above 0 and |x·inv| at most 32767.")
	dst, x, n := ptr("dst"), ptr("x"), ptr("n")
	inv := YMM()
	VBROADCASTSS(mustAddr("inv"), inv)
	Label("loop")
	u, w := YMM(), YMM()
	VMULPS(Mem{Base: x}, inv, u)
	VMULPS(Mem{Base: x, Disp: 32}, inv, w)
	VCVTPS2DQ(u, u)
	VCVTPS2DQ(w, w)
	VPACKSSDW(w, u, u)
	VPERMQ(Imm(0xd8), u, u) // the pack works in 128-bit halves
	VMOVDQU(u, Mem{Base: dst})
	ADDQ(Imm(64), x)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()

	offset := vector32("quantOffset", 128)
	function("quantUint8AVX512", "func(dst *uint32, x *float32, n int, inv float32)",
		"quantUint8AVX512 writes 128 + x·inv, rounded to nearest even, as bytes; n is a multiple of 16 above 0 and |x·inv| at most 127.")
	dst, x, n = ptr("dst"), ptr("x"), ptr("n")
	factor, plus := ZMM(), ZMM()
	VBROADCASTSS(mustAddr("inv"), factor)
	VPBROADCASTD(offset, plus)
	Label("loop")
	z := ZMM()
	VMULPS(Mem{Base: x}, factor, z)
	VCVTPS2DQ(z, z)
	VPADDD(plus, z, z)
	VPMOVDB(z, Mem{Base: dst})
	ADDQ(Imm(64), x)
	ADDQ(Imm(16), dst)
	SUBQ(Imm(16), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
