// Command headtiles writes the assembly of int8 rows by int16 heads on tile registers (AMX),
// which avo does not know: their instructions are written out as bytes, on registers
// that are fixed for it. Run it with go generate in internal/simd; a test compares the
// committed files.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

func raw(bytes ...uint8) {
	for _, b := range bytes {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}})
	}
}

// One call holds tiles 0 to 3 for the sums of 32 rows by 16 heads, upper and lower bytes
// of the heads apart: a head is 256 times a signed byte plus an unsigned one.
func main() {
	ConstraintExpr("!noasm")
	TEXT("dotTilesAMX", attr.NOSPLIT, "func(config, a *byte, lda int, b *byte, steps, blocks, groups int, c *byte, ldc int, scratch *byte, ahead uintptr)")
	Pragma("noescape")
	Doc("dotTilesAMX sets c to the products of blocks times 32 rows of a with groups times 16 heads of b, over steps times 64 elements; lda and ldc are in bytes, scratch has 4096. It asks for memory from ahead on.")
	var (
		a0, lda, b, a1 = reg.RAX, reg.RCX, reg.RDX, reg.RBX
		sixtyFour, scr = reg.RSI, reg.RDI
		step, block    = reg.R8, reg.R9
		group, c       = reg.R10, reg.R11
		out, row       = reg.R12, reg.R13
		ahead, ldc     = reg.R15, reg.R14 // R14 is the goroutine's in Go code alone
	)
	Load(Param("config"), a0)
	raw(0xc4, 0xe2, 0x78, 0x49, 0x00) // LDTILECFG (AX)
	Load(Param("lda"), lda)
	Load(Param("b"), b)
	Load(Param("scratch"), scr)
	Load(Param("ahead"), ahead)
	Load(Param("c"), c)
	Load(Param("ldc"), ldc)
	Load(Param("groups"), group)
	MOVQ(U32(64), sixtyFour)
	Label("group")
	Load(Param("a"), a0)
	Load(Param("blocks"), block)
	MOVQ(c, out)
	Label("block")
	MOVQ(lda, a1)
	SHLQ(Imm(4), a1)
	ADDQ(a0, a1)
	raw(0xc4, 0xe2, 0x7b, 0x49, 0xc0) // TILEZERO 0
	raw(0xc4, 0xe2, 0x7b, 0x49, 0xc8)
	raw(0xc4, 0xe2, 0x7b, 0x49, 0xd0)
	raw(0xc4, 0xe2, 0x7b, 0x49, 0xd8)
	Load(Param("steps"), step)
	Label("step")
	raw(0xc4, 0xe2, 0x7b, 0x4b, 0x34, 0x32)                         // TILELOADD (DX)(SI*1), 6: upper bytes
	raw(0xc4, 0xe2, 0x7b, 0x4b, 0x24, 0x08)                         // TILELOADD (AX)(CX*1), 4: rows 0 to 15
	raw(0xc4, 0xe2, 0x4b, 0x5e, 0xc4)                               // TDPBSSD 6, 4, 0
	raw(0xc4, 0xe2, 0x7b, 0x4b, 0xbc, 0x32, 0x00, 0x04, 0x00, 0x00) // TILELOADD 1024(DX)(SI*1), 7: lower
	raw(0xc4, 0xe2, 0x42, 0x5e, 0xcc)                               // TDPBSUD 7, 4, 1
	raw(0xc4, 0xe2, 0x7b, 0x4b, 0x2c, 0x0b)                         // TILELOADD (BX)(CX*1), 5: rows 16 to 31
	raw(0xc4, 0xe2, 0x4b, 0x5e, 0xd5)                               // TDPBSSD 6, 5, 2
	raw(0xc4, 0xe2, 0x42, 0x5e, 0xdd)                               // TDPBSUD 7, 5, 3
	for i := range 8 {
		PREFETCHT1(Mem{Base: ahead, Disp: 64 * i})
	}
	ADDQ(U32(512), ahead)
	ADDQ(U32(2048), b)
	ADDQ(sixtyFour, a0)
	ADDQ(sixtyFour, a1)
	SUBQ(Imm(1), step)
	JNE(LabelRef("step"))
	raw(0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x37) // TILESTORED 0, (DI)(SI*1)
	raw(0xc4, 0xe2, 0x7a, 0x4b, 0x8c, 0x37, 0x00, 0x04, 0x00, 0x00)
	raw(0xc4, 0xe2, 0x7a, 0x4b, 0x94, 0x37, 0x00, 0x08, 0x00, 0x00)
	raw(0xc4, 0xe2, 0x7a, 0x4b, 0x9c, 0x37, 0x00, 0x0c, 0x00, 0x00)
	for half := range 2 {
		label := []string{"upper", "lower"}[half]
		XORQ(row, row)
		Label(label)
		VMOVDQU32(Mem{Base: scr, Index: row, Scale: 1, Disp: 2048 * half}, reg.Z0)
		VPSLLD(Imm(8), reg.Z0, reg.Z0)
		VPADDD(Mem{Base: scr, Index: row, Scale: 1, Disp: 2048*half + 1024}, reg.Z0, reg.Z0)
		VMOVDQU32(reg.Z0, Mem{Base: out})
		ADDQ(ldc, out)
		ADDQ(sixtyFour, row)
		CMPQ(row, U32(1024))
		JNE(LabelRef(label))
	}
	// Back to the first element, of the next 32 rows, and to this group's heads.
	Load(Param("steps"), step)
	MOVQ(step, row)
	SHLQ(Imm(11), row)
	SUBQ(row, b)
	SHLQ(Imm(6), step)
	SUBQ(step, a0)
	MOVQ(lda, row)
	SHLQ(Imm(5), row)
	ADDQ(row, a0)
	SUBQ(Imm(1), block)
	JNE(LabelRef("block"))
	Load(Param("steps"), row)
	SHLQ(Imm(11), row)
	ADDQ(row, b)
	ADDQ(sixtyFour, c)
	SUBQ(Imm(1), group)
	JNE(LabelRef("group"))
	raw(0xc4, 0xe2, 0x78, 0x49, 0xc0) // TILERELEASE
	VZEROUPPER()
	RET()
	Generate()
}
