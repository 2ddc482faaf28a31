package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// Neither avo nor Go's assembler knows AMX, so its instructions are written as
// bytes: VEX in three bytes, opcode, ModRM and, for memory, SIB and a
// displacement of four bytes (Intel SDM volume 2, chapter 2.3 and the pages of
// the instructions). Registers are therefore fixed, and named to avo as inputs.

// Values of VEX.pp, the implied prefix.
const (
	prefixNone = iota
	prefix66
	prefixF3
	prefixF2
)

// number is the hardware's number of each general register the kernels address by.
var number = map[reg.GPPhysical]byte{
	reg.RAX: 0, reg.RCX: 1, reg.RDX: 2, reg.RBX: 3, reg.RSI: 6, reg.RDI: 7,
	reg.R8: 8, reg.R9: 9, reg.R10: 10, reg.R11: 11, reg.R12: 12, reg.R13: 13,
}

// raw emits one instruction; what names it in the assembly.
func raw(what string, inputs []Op, code ...byte) {
	Comment(what)
	for i, b := range code {
		in := &ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}}
		if i == 0 {
			in.Inputs = inputs
		}
		Instruction(in)
	}
}

func high(r reg.GPPhysical) byte { return number[r] >> 3 }

// vex returns the three bytes of the prefix in map 0F38 with W = L = 0; x and b
// extend index and base, v is the third operand.
func vex(pp, x, b, v byte) []byte {
	return []byte{0xc4, 0x80 | (x^1)<<6 | (b^1)<<5 | 2, (v^15)<<3 | pp}
}

// memory emits an instruction of tile and base + index + disp; the tile's rows
// are index bytes apart.
func memory(name string, pp byte, tile int, base, index reg.GPPhysical, disp int) {
	code := append(vex(pp, high(index), high(base), 0), 0x4b,
		0x80|byte(tile)<<3|4, (number[index]&7)<<3|number[base]&7,
		byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
	raw(fmt.Sprintf("%s tmm%d, %d(%s)(%s*1)", name, tile, disp, base.Asm(), index.Asm()), []Op{base, index}, code...)
}

func tileLoad(tile int, base, index reg.GPPhysical, disp int) {
	memory("TILELOADD", prefixF2, tile, base, index, disp)
}

func tileStore(tile int, base, index reg.GPPhysical, disp int) {
	memory("TILESTORED", prefixF3, tile, base, index, disp)
}

func tileZero(tile int) {
	raw(fmt.Sprintf("TILEZERO tmm%d", tile), nil, append(vex(prefixF2, 0, 0, 0), 0x49, 0xc0|byte(tile)<<3)...)
}

// loadConfig reads the 64 bytes at base.
func loadConfig(base reg.GPPhysical) {
	raw(fmt.Sprintf("LDTILECFG (%s)", base.Asm()), []Op{base}, append(vex(prefixNone, 0, high(base), 0), 0x49,
		0x80|number[base]&7, 0, 0, 0, 0)...)
}

func tileRelease() {
	raw("TILERELEASE", nil, append(vex(prefixNone, 0, 0, 0), 0x49, 0xc0)...)
}

// A dot is a product of two tiles of bytes, added to a third.
type dot struct {
	name string
	pp   byte
}

var (
	dotSS = dot{"TDPBSSD", prefixF2}
	dotSU = dot{"TDPBSUD", prefixF3}
	dotUS = dot{"TDPBUSD", prefix66}
	dotUU = dot{"TDPBUUD", prefixNone}
)

// tiles adds a times b to acc; a is signed or unsigned by the first letter of
// the name, b by the second.
func (d dot) tiles(acc, a, b int) {
	raw(fmt.Sprintf("%s tmm%d, tmm%d, tmm%d", d.name, acc, a, b), nil,
		append(vex(d.pp, 0, 0, byte(b)), 0x5e, 0xc0|byte(acc)<<3|byte(a))...)
}
