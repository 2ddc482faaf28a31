// Command fit writes the assembly of sums in fp64 over rows of fp32, which models are
// fitted with. Every lane does what the twin does, in its order, so the bits are its.
// Run it with go generate in internal/simd; a test compares the committed files.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"   //nolint:revive,staticcheck // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// group is how many rows are under way at once: a sum waits four cycles for the last.
const group = 4

func main() {
	ConstraintExpr("!noasm")
	dots()
	add()
	Generate()
}

func function(name, signature, doc string) {
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

func ptr(param string) reg.Register { return Load(Param(param), GP64()) }

// rowsAt leaves the addresses of four rows, dim elements each, numbered at idx.
func rowsAt(x, dim, idx reg.Register) []reg.Register {
	base := make([]reg.Register, group)
	for i := range base {
		r := GP64()
		MOVQ(Mem{Base: idx, Disp: 8 * i}, r)
		IMULQ(dim, r)
		LEAQ(Mem{Base: x, Index: r, Scale: 4}, r)
		base[i] = r
	}
	return base
}

// dots fuses products and sums: a product of two fp32 is exact in fp64, so there is
// nothing that fusing would not round.
func dots() {
	function("dotRows64AVX2", "func(x *float32, dim int, idx *int, n int, head *float32, out *float64)",
		"dotRows64AVX2 sets out to the products of n rows, a multiple of 4 above 0, with head; dim is a multiple of 4 above 0.")
	x, dim, idx, n, head, out := ptr("x"), ptr("dim"), ptr("idx"), ptr("n"), ptr("head"), ptr("out")
	Label("group")
	base := rowsAt(x, dim, idx)
	acc := make([]reg.VecVirtual, group)
	for i := range acc {
		acc[i] = YMM()
		VXORPD(acc[i], acc[i], acc[i])
	}
	at := GP64()
	XORQ(at, at)
	Label("loop")
	h := YMM()
	VCVTPS2PD(Mem{Base: head, Index: at, Scale: 4}, h)
	for i, b := range base {
		v := YMM()
		VCVTPS2PD(Mem{Base: b, Index: at, Scale: 4}, v)
		VFMADD231PD(h, v, acc[i])
	}
	ADDQ(Imm(4), at)
	CMPQ(at, dim)
	JL(LabelRef("loop"))
	for i, a := range acc {
		hi, next := XMM(), XMM()
		VEXTRACTF128(Imm(1), a, hi)
		VPERMILPD(Imm(1), a.AsX(), next)
		sum := XMM()
		VADDSD(next, a.AsX(), sum)
		VADDSD(hi, sum, sum)
		VPERMILPD(Imm(1), hi, next)
		VADDSD(next, sum, sum)
		VMOVSD(sum, Mem{Base: out, Disp: 8 * i})
	}
	ADDQ(Imm(8*group), idx)
	ADDQ(Imm(8*group), out)
	SUBQ(Imm(group), n)
	JNE(LabelRef("group"))
	VZEROUPPER()
	RET()
}

func add() {
	function("addRows64AVX2", "func(y *float64, x *float32, dim int, idx *int, alpha *float64)",
		"addRows64AVX2 adds alpha times each of 4 rows to y, in their order; dim is a multiple of 4 above 0.")
	y, x, dim, idx, alpha := ptr("y"), ptr("x"), ptr("dim"), ptr("idx"), ptr("alpha")
	base := rowsAt(x, dim, idx)
	a := make([]reg.VecVirtual, group)
	for i := range a {
		a[i] = YMM()
		VBROADCASTSD(Mem{Base: alpha, Disp: 8 * i}, a[i])
	}
	at := GP64()
	XORQ(at, at)
	Label("loop")
	sum := YMM()
	VMOVUPD(Mem{Base: y, Index: at, Scale: 8}, sum)
	for i, b := range base {
		v := YMM()
		VCVTPS2PD(Mem{Base: b, Index: at, Scale: 4}, v)
		VMULPD(a[i], v, v)
		VADDPD(v, sum, sum)
	}
	VMOVUPD(sum, Mem{Base: y, Index: at, Scale: 8})
	ADDQ(Imm(4), at)
	CMPQ(at, dim)
	JL(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
