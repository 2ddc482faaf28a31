// Command binary writes the assembly of the scores of binary rows. Run it with
// go generate in internal/simd; a test compares the committed files.
//
// Both kernels look up the sum of four dimensions in a table of 16 entries of
// 16 bits, kept as two planes of bytes. The tables of a word of 32 dimensions are
// 256 bytes: low nibbles' low bytes, low nibbles' high bytes, high nibbles' low
// bytes, high nibbles' high bytes, each 16 entries for each of the word's bytes.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	vbmi()
	narrow()
	Generate()
}

const signature = "func(rows *byte, stride, words int, tables *byte, out *int32, n int)"

// group is how many rows have their words side by side.
const group = 16

func ptr(param string) reg.Register { return Load(Param(param), GP64()) }

// constant places eight words, the given ones over and over, in read-only memory.
func constant(name string, words ...uint32) Mem {
	m := GLOBL(name, attr.RODATA|attr.NOPTR)
	for i := range 8 {
		DATA(i*4, U32(words[i%len(words)]))
	}
	return m
}

// vbmi looks the four bytes of 16 rows' words up at once: vpermb takes each
// byte's place in the word from two bits above the nibble, and vpdpbusd adds the
// four results of a row. It takes 64 rows a turn.
func vbmi() {
	TEXT("dotBinaryVBMI", attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc("dotBinaryVBMI adds to n x 64 of out the sums of as many rows over their first words; groups of 16 rows are stride bytes apart.")
	rows, stride, words, tables, out, n := ptr("rows"), ptr("stride"), ptr("words"), ptr("tables"), ptr("out"), ptr("n")
	spread := func(word uint32) reg.VecVirtual {
		v, g := ZMM(), GP32()
		MOVL(U32(word), g)
		VPBROADCASTD(g, v)
		return v
	}
	nibble, place, ones := spread(0x0f0f0f0f), spread(0x30201000), spread(0x01010101)
	add := func(looked, acc reg.VecVirtual) {
		Instruction(&ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{ones, looked, acc}, Inputs: []Op{ones, looked, acc}, Outputs: []Op{acc}})
	}
	const groups = 4
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	base := make([]reg.Register, groups)
	var low, high [groups]reg.VecVirtual
	for i := range base {
		base[i] = GP64()
		if i == 0 {
			MOVQ(rows, base[0])
		} else {
			LEAQ(Mem{Base: base[i-1], Index: stride, Scale: 1}, base[i])
		}
		low[i], high[i] = ZMM(), ZMM()
		VPXORD(low[i], low[i], low[i])
		VPXORD(high[i], high[i], high[i])
	}
	LEAQ(Mem{Base: base[groups-1], Index: stride, Scale: 1}, rows)
	at, table, left := GP64(), GP64(), GP64()
	XORQ(at, at)
	MOVQ(tables, table)
	MOVQ(words, left)
	Label("word")
	var t [4]reg.VecVirtual
	for i := range t {
		t[i] = ZMM()
		VMOVDQU64(Mem{Base: table, Disp: 64 * i}, t[i])
	}
	for i := range base {
		x, y := ZMM(), ZMM()
		VMOVDQU64(Mem{Base: base[i], Index: at, Scale: 1}, x)
		VPSRLD(Imm(4), x, y)
		for k, v := range []reg.VecVirtual{x, y} {
			VPTERNLOGD(Imm(0xea), place, nibble, v) // (v & nibble) | place
			a, b := ZMM(), ZMM()
			VPERMB(t[2*k], v, a)
			add(a, low[i])
			VPERMB(t[2*k+1], v, b)
			add(b, high[i])
		}
	}
	ADDQ(Imm(4*group), at)
	ADDQ(U32(256), table)
	DECQ(left)
	JNZ(LabelRef("word"))
	for i := range base {
		VPSLLD(Imm(8), high[i], high[i])
		VPADDD(low[i], high[i], high[i])
		VPADDD(Mem{Base: out, Disp: 64 * i}, high[i], high[i])
		VMOVDQU64(high[i], Mem{Base: out, Disp: 64 * i})
	}
	ADDQ(U32(4*group*groups), out)
	DECQ(n)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// narrow brings the first bytes of 32 rows' words together, then the second and
// so on, so that all bytes of a register are looked up in one table, and adds in
// 16 bits: the odd rows apart, the even ones with them, to be taken apart at the
// end. 32 words of 8 lookups of at most 255 stay below 2^16.
func narrow() {
	TEXT("dotBinaryAVX2", attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc("dotBinaryAVX2 adds to n x 32 of out the sums of as many rows over their first words, 1 to 32; groups of 16 rows are stride bytes apart.")
	rows, stride, words, tables, out, n := ptr("rows"), ptr("stride"), ptr("words"), ptr("tables"), ptr("out"), ptr("n")
	columns := constant("binaryColumns", 0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703)
	nibble := YMM()
	VMOVDQU(constant("binaryNibble", 0x0f0f0f0f), nibble)
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	second := GP64()
	LEAQ(Mem{Base: rows, Index: stride, Scale: 1}, second)
	var all, odd [2]reg.VecVirtual // low and high bytes
	for i := range all {
		all[i], odd[i] = YMM(), YMM()
		VPXOR(all[i], all[i], all[i])
		VPXOR(odd[i], odd[i], odd[i])
	}
	at, table, left := GP64(), GP64(), GP64()
	XORQ(at, at)
	MOVQ(tables, table)
	MOVQ(words, left)
	Label("word")
	r := [4]reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	for i, v := range r {
		from := Mem{Base: rows, Index: at, Scale: 1, Disp: 32 * (i % 2)}
		if i >= 2 {
			from.Base = second
		}
		VMOVDQU(from, v)
		VPSHUFB(columns, v, v)
	}
	a, b, c, d := YMM(), YMM(), YMM(), YMM()
	VPUNPCKLDQ(r[1], r[0], a)
	VPUNPCKHDQ(r[1], r[0], b)
	VPUNPCKLDQ(r[3], r[2], c)
	VPUNPCKHDQ(r[3], r[2], d)
	VPUNPCKLQDQ(c, a, r[0])
	VPUNPCKHQDQ(c, a, r[1])
	VPUNPCKLQDQ(d, b, r[2])
	VPUNPCKHQDQ(d, b, r[3])
	for i, v := range r {
		high := YMM()
		VPSRLW(Imm(4), v, high)
		VPAND(nibble, v, v)
		VPAND(nibble, high, high)
		for k, index := range []reg.VecVirtual{v, high} {
			for plane := range 2 {
				x := YMM()
				VBROADCASTI128(Mem{Base: table, Disp: 128*k + 64*plane + 16*i}, x)
				VPSHUFB(index, x, x)
				VPADDW(x, all[plane], all[plane])
				VPSRLW(Imm(8), x, x)
				VPADDW(x, odd[plane], odd[plane])
			}
		}
	}
	ADDQ(Imm(4*group), at)
	ADDQ(U32(256), table)
	DECQ(left)
	JNZ(LabelRef("word"))
	// sums[plane] holds words in the order of rows of the unpacking that follows.
	var sums [2][2]reg.VecVirtual
	for plane := range sums {
		even := YMM()
		VPSLLW(Imm(8), odd[plane], even)
		VPSUBW(even, all[plane], even)
		for half := range 2 {
			sums[plane][half] = YMM()
		}
		VPUNPCKLWD(odd[plane], even, sums[plane][0])
		VPUNPCKHWD(odd[plane], even, sums[plane][1])
	}
	zero := YMM()
	VPXOR(zero, zero, zero)
	for i := range 4 {
		x, y := YMM(), YMM()
		if i%2 == 0 {
			VPUNPCKLWD(zero, sums[0][i/2], x)
			VPUNPCKLWD(zero, sums[1][i/2], y)
		} else {
			VPUNPCKHWD(zero, sums[0][i/2], x)
			VPUNPCKHWD(zero, sums[1][i/2], y)
		}
		VPSLLD(Imm(8), y, y)
		VPADDD(x, y, y)
		VPADDD(Mem{Base: out, Disp: 32 * i}, y, y)
		VMOVDQU(y, Mem{Base: out, Disp: 32 * i})
	}
	LEAQ(Mem{Base: second, Index: stride, Scale: 1}, rows)
	ADDQ(U32(128), out)
	DECQ(n)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}
