// Command gather writes the assembly of the scores of scattered rows, the inner
// loop of a walk through a neighbour graph. Run it with go generate in
// internal/simd; a test compares the committed files.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// ahead is for how many rows the lines are asked for before they are needed.
const ahead = 8

func main() {
	ConstraintExpr("!noasm")
	vnni()
	narrow()
	lines()
	Generate()
}

func ptr(param string) reg.Register { return Load(Param(param), GP64()) }

// walk is the loop over n rows. Row r lies at table[r>>shift] + (r & mask)·dim,
// where table holds slices: pointer, length and capacity.
type walk struct {
	table, shift, dim, rows, n reg.Register
}

// address leaves the address of the row numbered at rows[disp] in a register.
func (w walk) address(disp int) reg.Register {
	row, chunk := GP64(), GP64()
	MOVL(Mem{Base: w.rows, Disp: 4 * disp}, row.As32())
	SHRXQ(w.shift, row, chunk)
	high := GP64()
	SHLXQ(w.shift, chunk, high)
	SUBQ(high, row)
	IMULQ(w.dim, row)
	LEAQ(Mem{Base: chunk, Index: chunk, Scale: 2}, chunk)
	ADDQ(Mem{Base: w.table, Index: chunk, Scale: 8}, row)
	return row
}

// prefetch asks for the lines of a row.
func (w walk) prefetch(label string, row reg.Register) {
	end := GP64()
	LEAQ(Mem{Base: row, Index: w.dim, Scale: 1}, end)
	Label(label)
	PREFETCHT0(Mem{Base: row})
	ADDQ(Imm(64), row)
	CMPQ(row, end)
	JLT(LabelRef(label))
}

// emit writes the loop; body scores the row at an address.
func (w walk) emit(body func(row reg.Register)) {
	i := GP64()
	XORQ(i, i)
	Label("early")
	CMPQ(i, Imm(ahead))
	JGE(LabelRef("rows"))
	CMPQ(i, w.n)
	JGE(LabelRef("rows"))
	at := GP64()
	LEAQ(Mem{Base: w.rows, Index: i, Scale: 4}, at)
	first := w
	first.rows = at
	w.prefetch("earlylines", first.address(0))
	INCQ(i)
	JMP(LabelRef("early"))
	Label("rows")
	TESTQ(w.n, w.n)
	JLE(LabelRef("done"))
	CMPQ(w.n, Imm(ahead))
	JLE(LabelRef("score"))
	w.prefetch("lines", w.address(ahead))
	Label("score")
	body(w.address(0))
	ADDQ(Imm(4), w.rows)
	DECQ(w.n)
	JMP(LabelRef("rows"))
	Label("done")
	VZEROUPPER()
	RET()
}

// lines writes the request for lines of memory that are read soon.
func lines() {
	TEXT("prefetchLines", attr.NOSPLIT, "func(p *byte, n int)")
	Pragma("noescape")
	Doc("prefetchLines asks for the lines of n bytes above 0 from p on.")
	p, end := ptr("p"), ptr("n")
	ADDQ(p, end)
	Label("loop")
	PREFETCHT0(Mem{Base: p})
	ADDQ(Imm(64), p)
	CMPQ(p, end)
	JLT(LabelRef("loop"))
	RET()
}

// vnni multiplies unsigned query bytes (codes + 128) by signed row bytes with
// vpdpbusd, whose sums of four products cannot saturate, and takes 128 times
// the row's sum off again, from a second accumulator.
func vnni() {
	TEXT("dotInt8AtVNNI", attr.NOSPLIT, "func(table *byte, shift, dim int, rows *uint32, n int, query *uint8, out *int32)")
	Pragma("noescape")
	Doc("dotInt8AtVNNI scores n rows under the query, biased by 128 and padded to 64 bytes.")
	w := walk{table: ptr("table"), shift: ptr("shift"), dim: ptr("dim"), rows: ptr("rows"), n: ptr("n")}
	query, out := ptr("query"), ptr("out")
	bias, word := ZMM(), GP32()
	MOVL(U32(0x80808080), word)
	VPBROADCASTD(word, bias)
	// body is the whole blocks of 64; the mask is of what is left.
	body, left, mask := GP64(), GP64(), K()
	MOVQ(w.dim, body)
	ANDQ(I32(-64), body)
	MOVQ(w.dim, left)
	SUBQ(body, left)
	ones := GP64()
	MOVQ(I64(-1), ones)
	BZHIQ(left, ones, ones)
	KMOVQ(ones, mask)
	dot := func(b, a, acc reg.VecVirtual) {
		Instruction(&ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{b, a, acc}, Inputs: []Op{b, a, acc}, Outputs: []Op{acc}})
	}
	w.emit(func(row reg.Register) {
		acc, sum := ZMM(), ZMM()
		VPXORD(acc, acc, acc)
		VPXORD(sum, sum, sum)
		at := GP64()
		XORQ(at, at)
		CMPQ(at, body)
		JGE(LabelRef("tail"))
		Label("loop")
		v, q := ZMM(), ZMM()
		VMOVDQU8(Mem{Base: row, Index: at, Scale: 1}, v)
		VMOVDQU8(Mem{Base: query, Index: at, Scale: 1}, q)
		dot(v, q, acc)
		dot(v, bias, sum)
		ADDQ(Imm(64), at)
		CMPQ(at, body)
		JLT(LabelRef("loop"))
		Label("tail")
		TESTQ(left, left)
		JEQ(LabelRef("fold"))
		vt, qt := ZMM(), ZMM()
		VMOVDQU8_Z(Mem{Base: row, Index: at, Scale: 1}, mask, vt)
		VMOVDQU8(Mem{Base: query, Index: at, Scale: 1}, qt)
		dot(vt, qt, acc)
		dot(vt, bias, sum)
		Label("fold")
		VPSUBD(sum, acc, acc)
		y := YMM()
		VEXTRACTI64X4(Imm(1), acc, y)
		VPADDD(y, acc.AsY(), y)
		hi, lo := XMM(), XMM()
		VEXTRACTI32X4(Imm(1), y, hi)
		fold(y, hi, lo, Mem{Base: out})
		ADDQ(Imm(4), out)
	})
}

// narrow widens rows to int16 and multiplies with vpmaddwd.
func narrow() {
	TEXT("dotInt8AtAVX2", attr.NOSPLIT, "func(table *byte, shift, dim, body int, rows *uint32, n int, query *int16, out *int32)")
	Pragma("noescape")
	Doc("dotInt8AtAVX2 scores n rows over their first body elements, a multiple of 16 above 0.")
	w := walk{table: ptr("table"), shift: ptr("shift"), dim: ptr("dim"), rows: ptr("rows"), n: ptr("n")}
	body, query, out := ptr("body"), ptr("query"), ptr("out")
	w.emit(func(row reg.Register) {
		acc := YMM()
		VPXOR(acc, acc, acc)
		at := GP64()
		XORQ(at, at)
		Label("loop")
		v := YMM()
		VPMOVSXBW(Mem{Base: row, Index: at, Scale: 1}, v)
		VPMADDWD(Mem{Base: query, Index: at, Scale: 2}, v, v)
		VPADDD(v, acc, acc)
		ADDQ(Imm(16), at)
		CMPQ(at, body)
		JLT(LabelRef("loop"))
		hi, lo := XMM(), XMM()
		VEXTRACTI128(Imm(1), acc, hi)
		fold(acc, hi, lo, Mem{Base: out})
		ADDQ(Imm(4), out)
	})
}

// fold stores the sum of the lanes of y's low half and hi.
func fold(y, hi, lo reg.VecVirtual, to Mem) {
	VPADDD(y.AsX(), hi, lo)
	VPSHUFD(Imm(0x4e), lo, hi)
	VPADDD(hi, lo, lo)
	VPSHUFD(Imm(0xb1), lo, hi)
	VPADDD(hi, lo, lo)
	VMOVD(lo, to)
}
