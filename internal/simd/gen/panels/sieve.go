package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// instruction writes what avo has no name for: an instruction that adds to its last operand.
func instruction(opcode string, a, b Op, acc reg.VecVirtual) {
	Instruction(&ir.Instruction{Opcode: opcode, Operands: []Op{a, b, acc}, Inputs: []Op{a, b, acc}, Outputs: []Op{acc}})
}

func sieve() {
	tile{name: "sieveTileVNNI", rows: 12, bytes: 64, vec: ZMM, zero: zeroWide, elem: "int8", multiply: func(b, a, acc reg.VecVirtual) {
		instruction("VPDPBUSD", a, b, acc) // b, heads, is unsigned
	}}.emit()
	sieveRows()
	sieveAbove()
	sievePairs()
}

// fold sets the lowest lane of the result to the sum of all of v's.
func fold(v reg.VecVirtual) reg.VecVirtual {
	y, hi, lo := YMM(), XMM(), XMM()
	VEXTRACTI64X4(Imm(1), v, y)
	VPADDD(y, v.AsY(), y)
	VEXTRACTI32X4(Imm(1), y, hi)
	VPADDD(y.AsX(), hi, lo)
	VPSHUFD(Imm(0x4e), lo, hi)
	VPADDD(hi, lo, lo)
	VPSHUFD(Imm(0xb1), lo, hi)
	VPADDD(hi, lo, lo)
	return lo
}

func sieveRows() {
	function("sieveRowsVNNI", "func(rows *int8, dim int, sums, squares *int32, n int)",
		"sieveRowsVNNI sums n rows of dim elements, a multiple of 64 above 0, and their squares.")
	rows, dim, sums, squares, n := ptr("rows"), ptr("dim"), ptr("sums"), ptr("squares"), ptr("n")
	ones := ZMM()
	one := GP32()
	MOVL(U32(0x01010101), one)
	VPBROADCASTD(one, ones)
	Label("row")
	sum, square := ZMM(), ZMM()
	zeroWide(sum)
	zeroWide(square)
	left := GP64()
	MOVQ(dim, left)
	Label("line")
	v := ZMM()
	VMOVDQU64(Mem{Base: rows}, v)
	PREFETCHT0(Mem{Base: rows, Disp: ahead})
	instruction("VPDPBUSD", v, ones, sum)
	VPABSB(v, v)
	instruction("VPDPBUSD", v, v, square)
	ADDQ(Imm(64), rows)
	SUBQ(Imm(64), left)
	JNE(LabelRef("line"))
	VMOVD(fold(sum), Mem{Base: sums})
	VMOVD(fold(square), Mem{Base: squares})
	ADDQ(Imm(4), sums)
	ADDQ(Imm(4), squares)
	SUBQ(Imm(1), n)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// Offsets into simd's sieveRow struct.
const (
	sieveCoarse  = 0
	sieveSums    = 8
	sieveSquares = 16
	sieveScales  = 24
	sieveMasks   = 32
	sieveUnit    = 40
	sieveMargin  = 48
	sieveFloor   = 56
	sieveNumber  = 64
	sieveWidth   = 72
)

// sieveAbove says which of a row's heads may reach their floors.
func sieveAbove() {
	up := GLOBL("sieveUp", attr.RODATA|attr.NOPTR)
	DATA(0, F32(1+1.0/(1<<20)))
	function("sieveAboveAVX512", "func(t *byte)", "sieveAboveAVX512 is sieveAboveGo; t points to a sieveRow of 1 row or more and a width that is a multiple of 16 above 0.")
	t := ptr("t")
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: t, Disp: off}, r)
		return r
	}
	coarse, sums, squares, scales, masks := field(sieveCoarse), field(sieveSums), field(sieveSquares), field(sieveScales), field(sieveMasks)
	unit, margin, floor, n, width := field(sieveUnit), field(sieveMargin), field(sieveFloor), field(sieveNumber), field(sieveWidth)
	Label("row")
	offset, scale, length := ZMM(), ZMM(), ZMM()
	sum := GP32()
	MOVL(Mem{Base: sums}, sum)
	SHLL(Imm(7), sum)
	VPBROADCASTD(sum, offset)
	s, x := XMM(), XMM()
	VMOVSS(Mem{Base: scales}, s)
	VBROADCASTSS(s, scale)
	VPXORD(x, x, x)
	VCVTSI2SSL(Mem{Base: squares}, x, x)
	VSQRTSS(x, x, x)
	VMULSS(up, x, x)
	VMULSS(s, x, x)
	VBROADCASTSS(x, length)
	at, mask := GP64(), GP64()
	XORQ(mask, mask)
	MOVQ(width, at)
	Label("lanes") // from the last to the first, so that the mask shifts up
	SUBQ(Imm(16), at)
	v, over := ZMM(), K()
	VMOVDQU32(Mem{Base: coarse, Index: at, Scale: 4}, v)
	VPSUBD(offset, v, v)
	VCVTDQ2PS(v, v)
	VMULPS(scale, v, v)
	VMULPS(Mem{Base: unit, Index: at, Scale: 4}, v, v)
	m := ZMM()
	VMULPS(Mem{Base: margin, Index: at, Scale: 4}, length, m)
	VADDPS(m, v, v)
	VCMPPS(Imm(5), Mem{Base: floor, Index: at, Scale: 4}, v, over) // not below, so NaN too
	bits := GP32()
	KMOVW(over, bits)
	SHLQ(Imm(16), mask)
	ORQ(bits.As64(), mask)
	TESTQ(at, at)
	JNE(LabelRef("lanes"))
	MOVQ(mask, Mem{Base: masks})
	ADDQ(Imm(8), masks)
	ADDQ(Imm(4), sums)
	ADDQ(Imm(4), squares)
	ADDQ(Imm(4), scales)
	LEAQ(Mem{Base: coarse, Index: width, Scale: 4}, coarse)
	SUBQ(Imm(1), n)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func sievePairs() {
	function("sievePairsVNNI", "func(rows *int8, heads *int16, dim int, pairs *uint32, out *int32, n int)",
		"sievePairsVNNI sets out to the products of n pairs of a row and a head, row·64 + head, of dim elements, a multiple of 64 above 0.")
	rows, heads, dim, pairs, out, n := ptr("rows"), ptr("heads"), ptr("dim"), ptr("pairs"), ptr("out"), ptr("n")
	Label("pair")
	row, head, left := GP64(), GP64(), GP64()
	MOVL(Mem{Base: pairs}, row.As32())
	MOVQ(row, head)
	SHRQ(Imm(6), row)
	ANDQ(Imm(63), head)
	IMULQ(dim, row)
	ADDQ(rows, row)
	IMULQ(dim, head)
	LEAQ(Mem{Base: heads, Index: head, Scale: 2}, head)
	a, b := ZMM(), ZMM()
	zeroWide(a)
	zeroWide(b)
	MOVQ(dim, left)
	Label("line")
	x, y := ZMM(), ZMM()
	VPMOVSXBW(Mem{Base: row}, x)
	VPMOVSXBW(Mem{Base: row, Disp: 32}, y)
	instruction("VPDPWSSD", Mem{Base: head}, x, a)
	instruction("VPDPWSSD", Mem{Base: head, Disp: 64}, y, b)
	ADDQ(Imm(64), row)
	ADDQ(U32(128), head)
	SUBQ(Imm(64), left)
	JNE(LabelRef("line"))
	VPADDD(a, b, a)
	VMOVD(fold(a), Mem{Base: out})
	ADDQ(Imm(4), pairs)
	ADDQ(Imm(4), out)
	SUBQ(Imm(1), n)
	JNE(LabelRef("pair"))
	VZEROUPPER()
	RET()
}
