package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The 512-bit row operations. Elements go through the same steps as in the
// 256-bit kernels; constants stay in registers.

// scalar32 places an fp32 bit pattern in read-only memory.
func scalar32(name string, bits uint32) Mem {
	m := GLOBL(name, attr.RODATA|attr.NOPTR)
	DATA(0, U32(bits))
	return m
}

func spread(name string, bits uint32) reg.VecVirtual {
	z := ZMM()
	VBROADCASTSS(scalar32(name, bits), z)
	return z
}

// geluWide is [gelu] on sixteen lanes: the same operations, so the same bits.
func geluWide() {
	function("geluAVX512", "func(x *float32, rows, vecs, stride int)",
		"geluAVX512 applies GELU in place to rows rows of vecs vectors of sixteen; stride is in elements.")
	x, rows, vecs, ld := ptr("x"), ptr("rows"), ptr("vecs"), ptr("stride")
	SHLQ(Imm(2), ld)
	abs, cut := spread("wideAbs", 0x7fffffff), spread("wideCut", f32(geluCut))
	scale, one := spread("wideScale", f32(2/geluCut)), spread("wideOne", f32(1))
	coef := make([]reg.VecVirtual, len(geluPoly))
	for i, c := range geluPoly {
		coef[i] = spread(fmt.Sprintf("wideG%d", i), f32(c))
	}
	zero := ZMM()
	VPXORD(zero, zero, zero)
	Label("row")
	p, n := GP64(), GP64()
	MOVQ(x, p)
	MOVQ(vecs, n)
	Label("vec")
	v, s, acc := ZMM(), ZMM(), ZMM()
	VMOVUPS(Mem{Base: p}, v)
	VPANDD(abs, v, s)
	VMINPS(cut, s, s)
	VFMSUB213PS(one, scale, s)
	VMOVAPS(coef[len(coef)-1], acc)
	for i := len(coef) - 2; i >= 0; i-- {
		VFMADD213PS(coef[i], s, acc)
	}
	VMAXPS(v, zero, v) // the second source, x, is what a NaN selects
	VSUBPS(acc, v, v)
	VMOVUPS(v, Mem{Base: p})
	ADDQ(Imm(64), p)
	SUBQ(Imm(1), n)
	JNE(LabelRef("vec"))
	ADDQ(ld, x)
	SUBQ(Imm(1), rows)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// softmaxWide writes exponentials and the reciprocals of their sums, which the
// caller multiplies by where that is cheapest.
func softmaxWide() {
	function("expRowsAVX512", "func(x *float32, rows, cols, stride int, scale float32, inv *float32)",
		"expRowsAVX512 replaces each row by exp(scale·x - max) and writes the reciprocal of its sum to inv; rows and cols are above 0, scale is not negative. Below -87.33 it writes 0.")
	x, rows, cols, ld, inv := ptr("x"), ptr("rows"), ptr("cols"), ptr("stride"), ptr("inv")
	SHLQ(Imm(2), ld)
	scale := ZMM()
	VBROADCASTSS(mustAddr("scale"), scale)
	lowest := spread("wideLowest", 0xff800000)
	log2e := spread("wideLog2e", f32(math.Log2E))
	ln2hi, ln2lo := spread("wideLn2Hi", f32(0.693359375)), spread("wideLn2Lo", f32(-0.00021219444005471377))
	least := spread("wideLeast", f32(-87.33))
	coef := make([]reg.VecVirtual, len(expPoly))
	for i, c := range expPoly {
		coef[i] = spread(fmt.Sprintf("wideE%d", i), f32(c))
	}
	one := scalar32("wideUnit", f32(1))
	// The tail's mask: the low cols mod 16 bits; all of them for a full vector.
	full, bits, tail := GP64(), GP64(), K()
	MOVQ(cols, full)
	SUBQ(Imm(1), full)
	MOVQ(full, reg.RCX)
	ANDQ(Imm(15), reg.RCX)
	MOVQ(U32(2), bits)
	SHLQ(reg.CL, bits)
	SUBQ(Imm(1), bits)
	KMOVW(bits.As32(), tail)
	SHRQ(Imm(4), full) // vectors before the last

	Label("row")
	p, n := GP64(), GP64()
	top, sum := ZMM(), ZMM()
	VMOVAPS(lowest, top)
	MOVQ(x, p)
	MOVQ(full, n)
	TESTQ(n, n)
	JEQ(LabelRef("lastMax"))
	Label("max")
	VMAXPS(Mem{Base: p}, top, top)
	ADDQ(Imm(64), p)
	SUBQ(Imm(1), n)
	JNE(LabelRef("max"))
	Label("lastMax")
	last := ZMM()
	VMOVAPS(lowest, last)
	VMOVUPS(Mem{Base: p}, tail, last)
	VMAXPS(last, top, top)
	y, half, lo := YMM(), XMM(), XMM()
	VEXTRACTF64X4(Imm(1), top, y)
	VMAXPS(top.AsY(), y, y)
	VEXTRACTF32X4(Imm(1), y, half)
	VMAXPS(y.AsX(), half, lo)
	VMOVHLPS(lo, lo, half)
	VMAXPS(lo, half, lo)
	VMOVSHDUP(lo, half)
	VMAXSS(lo, half, lo)
	VMULSS(scale.AsX(), lo, lo)
	VBROADCASTSS(lo, top)

	exp := func(t reg.VecVirtual) {
		keep, k, e := K(), ZMM(), ZMM()
		VFMSUB213PS(top, scale, t)     // scale·x - top in one rounding
		VCMPPS(Imm(5), least, t, keep) // not below; true for NaN
		VMAXPS(t, least, t)            // NaN stays
		VMULPS(log2e, t, k)
		VRNDSCALEPS(Imm(8), k, k)
		VFNMADD231PS(ln2hi, k, t)
		VFNMADD231PS(ln2lo, k, t)
		VMOVAPS(coef[len(coef)-1], e)
		for i := len(coef) - 2; i >= 0; i-- {
			VFMADD213PS(coef[i], t, e)
		}
		VSCALEFPS_Z(k, e, keep, t)
	}
	VPXORD(sum, sum, sum)
	MOVQ(x, p)
	MOVQ(full, n)
	TESTQ(n, n)
	JEQ(LabelRef("lastExp"))
	Label("exp")
	t := ZMM()
	VMOVUPS(Mem{Base: p}, t)
	exp(t)
	VMOVUPS(t, Mem{Base: p})
	VADDPS(t, sum, sum)
	ADDQ(Imm(64), p)
	SUBQ(Imm(1), n)
	JNE(LabelRef("exp"))
	Label("lastExp")
	u := ZMM()
	VMOVUPS_Z(Mem{Base: p}, tail, u)
	exp(u)
	VMOVUPS(u, tail, Mem{Base: p})
	VADDPS(u, sum, tail, sum)
	y2, half2, lo2, unit := YMM(), XMM(), XMM(), XMM()
	VEXTRACTF64X4(Imm(1), sum, y2)
	VADDPS(sum.AsY(), y2, y2)
	VEXTRACTF32X4(Imm(1), y2, half2)
	VADDPS(y2.AsX(), half2, lo2)
	VMOVHLPS(lo2, lo2, half2)
	VADDPS(lo2, half2, lo2)
	VMOVSHDUP(lo2, half2)
	VADDSS(lo2, half2, lo2)
	VMOVSS(one, unit)
	VDIVSS(lo2, unit, unit)
	VMOVSS(unit, Mem{Base: inv})
	ADDQ(Imm(4), inv)
	ADDQ(ld, x)
	SUBQ(Imm(1), rows)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func quantiseWide() {
	function("absMaxAVX512", "func(x *float32, n int) uint32",
		"absMaxAVX512 returns the largest of the bits of |x| over n elements, a multiple of 16 above 0.")
	x, n := ptr("x"), ptr("n")
	mask, top := spread("wideMask", 0x7fffffff), ZMM()
	VPXORD(top, top, top)
	Label("loop")
	v := ZMM()
	VPANDD(Mem{Base: x}, mask, v)
	VPMAXSD(v, top, top)
	ADDQ(Imm(64), x)
	SUBQ(Imm(16), n)
	JNE(LabelRef("loop"))
	y, hi, lo := YMM(), XMM(), XMM()
	VEXTRACTI64X4(Imm(1), top, y)
	VPMAXSD(top.AsY(), y, y)
	VEXTRACTI32X4(Imm(1), y, hi)
	VPMAXSD(y.AsX(), hi, lo)
	VPSHUFD(Imm(0x4e), lo, hi)
	VPMAXSD(hi, lo, lo)
	VPSHUFD(Imm(0xb1), lo, hi)
	VPMAXSD(hi, lo, lo)
	out := GP32()
	VMOVD(lo, out)
	VZEROUPPER()
	Store(out, ReturnIndex(0))
	RET()

	function("quantInt16AVX512", "func(dst *uint32, x *float32, n int, inv float32)",
		"quantInt16AVX512 is quantInt16AVX2 on sixteen lanes.")
	dst, x, n := ptr("dst"), ptr("x"), ptr("n")
	inv := ZMM()
	VBROADCASTSS(mustAddr("inv"), inv)
	Label("loop")
	z := ZMM()
	VMULPS(Mem{Base: x}, inv, z)
	VCVTPS2DQ(z, z)
	VPMOVDW(z, Mem{Base: dst})
	ADDQ(Imm(64), x)
	ADDQ(Imm(32), dst)
	SUBQ(Imm(16), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
