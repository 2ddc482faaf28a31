// Command panels writes the assembly of scores under many heads at once: int8 rows by
// panels of int16 heads, and what turns the sums into scores. Run it with go generate
// in internal/simd; a test compares the committed files.
package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"   //nolint:revive,staticcheck // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// ahead is how far widening prefetches, in bytes: a tile of rows is multiplied for
// a while before the next is read.
const ahead = 8192

func main() {
	ConstraintExpr("!noasm")
	widen()
	tile{name: "panelAVX2", rows: 6, bytes: 32, vec: YMM, zero: func(v reg.VecVirtual) { VPXOR(v, v, v) }, multiply: apart(YMM, 1)}.emit()
	tile{name: "panelAVX512", rows: 12, bytes: 64, vec: ZMM, zero: zeroWide, multiply: apart(ZMM, 4)}.emit()
	tile{name: "panelVNNI", rows: 12, bytes: 64, vec: ZMM, zero: zeroWide, multiply: func(b, a, acc reg.VecVirtual) {
		instruction("VPDPWSSD", b, a, acc)
	}}.emit()
	scores()
	above()
	sieve()
	Generate()
}

func function(name, signature, doc string) {
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

func ptr(param string) reg.Register { return Load(Param(param), GP64()) }

func zeroWide(v reg.VecVirtual) { VPXORD(v, v, v) }

// apart multiplies and adds in two instructions, with n products under way.
func apart(vec func() reg.VecVirtual, n int) func(b, a, acc reg.VecVirtual) {
	var products []reg.VecVirtual
	turn := 0
	return func(b, a, acc reg.VecVirtual) {
		if len(products) < n {
			products = append(products, vec())
		}
		p := products[turn%len(products)]
		turn++
		VPMADDWD(b, a, p)
		VPADDD(p, acc, acc)
	}
}

func widen() {
	function("widenAVX2", "func(dst *int16, src *int8, n int)",
		"widenAVX2 sign-extends n elements, a multiple of 16 above 0, and asks for the memory of those that follow.")
	dst, src, n := ptr("dst"), ptr("src"), ptr("n")
	Label("loop")
	v := YMM()
	VPMOVSXBW(Mem{Base: src}, v)
	PREFETCHT0(Mem{Base: src, Disp: ahead})
	VMOVDQU(v, Mem{Base: dst})
	ADDQ(Imm(16), src)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// tile is rows rows by two vectors of heads, a head a lane. A group is four bytes.
type tile struct {
	name     string
	rows     int
	bytes    int // of one vector
	vec      func() reg.VecVirtual
	zero     func(reg.VecVirtual)
	multiply func(b, a, acc reg.VecVirtual)
	elem     string // of a; none: int16
}

func (t tile) emit() {
	elem := t.elem
	if elem == "" {
		elem = "int16"
	}
	function(t.name, "func(a *"+elem+", lda int, b *uint32, groups int, c *int32, ldc int)",
		fmt.Sprintf("%s sets c to the products of %d rows of a with %d heads of b; lda and ldc are in bytes, groups is a multiple of 4 above 0.", t.name, t.rows, t.bytes/2))
	a0, lda, b, groups := ptr("a"), ptr("lda"), ptr("b"), ptr("groups")
	a := pointers(a0, lda, t.rows)
	acc := make([][2]reg.VecVirtual, t.rows)
	for r := range acc {
		for h := range 2 {
			acc[r][h] = t.vec()
			t.zero(acc[r][h])
		}
	}
	w := [2]reg.VecVirtual{t.vec(), t.vec()}
	s := t.vec()
	const unroll = 4
	Label("loop")
	for l := range unroll {
		VMOVUPS(Mem{Base: b, Disp: 2 * t.bytes * l}, w[0])
		VMOVUPS(Mem{Base: b, Disp: 2*t.bytes*l + t.bytes}, w[1])
		for r := range t.rows {
			VPBROADCASTD(a[r].Offset(4*l), s)
			t.multiply(w[0], s, acc[r][0])
			t.multiply(w[1], s, acc[r][1])
		}
	}
	ADDQ(U32(uint32(2*t.bytes*unroll)), b)
	for r := 0; r < t.rows; r += 3 {
		ADDQ(Imm(4*unroll), a[r].Base)
	}
	SUBQ(Imm(unroll), groups)
	JNE(LabelRef("loop"))
	c0, ldc := ptr("c"), ptr("ldc")
	for r, to := range pointers(c0, ldc, t.rows) {
		VMOVUPS(acc[r][0], to)
		VMOVUPS(acc[r][1], to.Offset(t.bytes))
	}
	VZEROUPPER()
	RET()
}

// pointers are the places of rows that lie ld bytes apart, a register for three.
func pointers(base, ld reg.Register, rows int) []Mem {
	out := make([]Mem, rows)
	for r := range out {
		switch {
		case r == 0:
			out[r] = Mem{Base: base}
		case r%3 == 0:
			next := GP64()
			LEAQ(Mem{Base: out[r-1].Base, Index: ld, Scale: 2}, next)
			ADDQ(ld, next)
			out[r] = Mem{Base: next}
		default:
			out[r] = Mem{Base: out[r-r%3].Base, Index: ld, Scale: uint8(r % 3)}
		}
	}
	return out
}

// Offsets into simd's panelScores struct.
const (
	offDst    = 0
	offInts   = 8
	offScales = 16
	offMasks  = 24
	offHead   = 32
	offBias   = 40
	offFloor  = 48
	offRows   = 56
	offWidth  = 64
)

// scores turns a row of sums, a head a lane, into scores: four at a time in fp64, each
// operation rounded as in the twin.
func scores() {
	limit := GLOBL("largestScore", attr.RODATA|attr.NOPTR)
	DATA(0, F64(math.MaxFloat32))
	DATA(8, F64(-math.MaxFloat32))
	function("panelScoresAVX2", "func(t *byte)", "panelScoresAVX2 is panelScoresGo; t points to a panelScores of 1 row or more and a width that is a multiple of 4 above 0.")
	t := ptr("t")
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: t, Disp: off}, r)
		return r
	}
	dst, ints, scales, masks := field(offDst), field(offInts), field(offScales), field(offMasks)
	head, bias, floor, rows, width := field(offHead), field(offBias), field(offFloor), field(offRows), field(offWidth)
	top, least := YMM(), YMM()
	VBROADCASTSD(limit, top)
	VBROADCASTSD(limit.Offset(8), least)
	Label("row")
	s := YMM()
	x := XMM()
	VMOVSS(Mem{Base: scales}, x)
	VCVTSS2SD(x, x, x)
	VBROADCASTSD(x, s)
	at, mask, bits := GP64(), GP64(), GP64()
	MOVQ(width, at)
	XORQ(mask, mask)
	Label("lanes") // from the last to the first, so that the mask shifts up
	SUBQ(Imm(4), at)
	v, f, out, over := YMM(), YMM(), XMM(), XMM()
	VMULPD(Mem{Base: head, Index: at, Scale: 8}, s, f)
	VCVTDQ2PD(Mem{Base: ints, Index: at, Scale: 4}, v)
	VMULPD(f, v, v)
	VADDPD(Mem{Base: bias, Index: at, Scale: 8}, v, v)
	VMINPD(v, top, v)
	VMAXPD(v, least, v)
	VCVTPD2PSY(v, out)
	VMOVUPS(out, Mem{Base: dst, Index: at, Scale: 4})
	VCMPPS(Imm(13), Mem{Base: floor, Index: at, Scale: 4}, out, over) // out >= floor
	VMOVMSKPS(over, bits.As32())
	SHLQ(Imm(4), mask)
	ORQ(bits, mask)
	TESTQ(at, at)
	JNE(LabelRef("lanes"))
	MOVQ(mask, Mem{Base: masks})
	ADDQ(Imm(8), masks)
	ADDQ(Imm(4), scales)
	LEAQ(Mem{Base: dst, Index: width, Scale: 4}, dst)
	LEAQ(Mem{Base: ints, Index: width, Scale: 4}, ints)
	SUBQ(Imm(1), rows)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// above says which scores reach a floor, 64 a word.
func above() {
	function("aboveAVX2", "func(dst *uint64, x *float32, words int, floor float32)",
		"aboveAVX2 sets bit i of dst to x[i] >= floor for words times 64 elements, words above 0.")
	dst, x, words := ptr("dst"), ptr("x"), ptr("words")
	f := YMM()
	addr, err := Param("floor").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(addr.Addr, f)
	Label("word")
	mask, bits := GP64(), GP64()
	XORQ(mask, mask)
	for i := 7; i >= 0; i-- {
		v := YMM()
		VMOVUPS(Mem{Base: x, Disp: 32 * i}, v)
		VCMPPS(Imm(13), f, v, v)
		VMOVMSKPS(v, bits.As32())
		SHLQ(Imm(8), mask)
		ORQ(bits, mask)
	}
	MOVQ(mask, Mem{Base: dst})
	ADDQ(Imm(8), dst)
	ADDQ(U32(256), x)
	SUBQ(Imm(1), words)
	JNE(LabelRef("word"))
	VZEROUPPER()
	RET()
}
