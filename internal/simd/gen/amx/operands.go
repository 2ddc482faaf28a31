package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" //nolint:revive,staticcheck // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func param(name string) Mem {
	c, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// table places 64 bytes in read-only memory and loads them.
func table(name string, at func(i int) uint8) reg.VecVirtual {
	m := GLOBL(name, attr.RODATA|attr.NOPTR)
	for i := range 64 {
		DATA(i, U8(at(i)))
	}
	z := ZMM()
	VMOVDQU64(m, z)
	return z
}

// quantise writes 64 elements as a plane of 64 high bytes and one of 64 low
// bytes.
func quantise() {
	TEXT("quantSplitAVX512", attr.NOSPLIT, "func(dst *uint32, x *float32, n int, inv float32)")
	Pragma("noescape")
	Doc("quantSplitAVX512 writes x·inv, rounded to nearest even, as int16 in planes: of each 64 elements first the high bytes and then the low ones; n is a multiple of 64 above 0 and |x·inv| at most 32767.")
	dst, x, n := ptr("dst"), ptr("x"), ptr("n")
	inv := ZMM()
	VBROADCASTSS(param("inv"), inv)
	// Where VPACKSSDW has put the words: it works in lanes of 128 bits.
	low := func(i int) uint8 { return uint8(i/32*64 + i%16/4*16 + i%32/16*8 + i%4*2) }
	lows := table("splitLow", low)
	highs := table("splitHigh", func(i int) uint8 { return low(i) + 1 })
	Label("loop")
	var z [4]reg.VecVirtual
	for i := range z {
		z[i] = ZMM()
		VMULPS(Mem{Base: x, Disp: 64 * i}, inv, z[i])
		VCVTPS2DQ(z[i], z[i])
	}
	VPACKSSDW(z[1], z[0], z[0])
	VPACKSSDW(z[3], z[2], z[2])
	for i, index := range []reg.VecVirtual{highs, lows} {
		out := ZMM()
		VMOVDQA64(index, out)
		VPERMI2B(z[2], z[0], out)
		VMOVDQU64(out, Mem{Base: dst, Disp: 64 * i})
	}
	ADDQ(U32(256), x)
	ADDQ(U32(128), dst)
	SUBQ(Imm(64), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
