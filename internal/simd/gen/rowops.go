package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func f32(v float32) uint32 { return math.Float32bits(v) }

// geluCut is where the tail h is frozen: h(5.5) = 1.0e-7.
const geluCut = 5.5

// geluPoly is the Chebyshev interpolation of degree 16 of
// h(u) = u/2·erfc(u/√2) on [0, geluCut] in s = 2u/geluCut - 1, lowest power
// first. In fp32 its absolute error is 1.9e-7.
var geluPoly = []float32{
	0x1.0c832ep-7, -0x1.f041c0p-5, 0x1.87b68ap-3, -0x1.3c1474p-2, 0x1.6e5d34p-3, 0x1.0a919ap-2,
	-0x1.417544p-1, 0x1.d7330ep-2, 0x1.322fa2p-3, -0x1.17c020p-1, 0x1.1adf1ep-2, 0x1.deeb30p-3,
	-0x1.0bf7e4p-2, -0x1.3ab8c6p-5, 0x1.a149a6p-4, -0x1.18e89cp-12, -0x1.0d4e54p-6,
}

// gelu uses GELU(x) = max(x, 0) - h(|x|): no division, and no cancellation
// against 1 for large |x|.
func gelu() {
	absMask := vector32("geluAbs", 0x7fffffff)
	cut := vector32("geluCut", f32(geluCut))
	scale := vector32("geluScale", f32(2/geluCut))
	one := vector32("geluOne", f32(1))
	coef := make([]Mem, len(geluPoly))
	for i, c := range geluPoly {
		coef[i] = vector32(fmt.Sprintf("geluC%d", i), f32(c))
	}
	function("geluAVX2", "func(x *float32, rows, vecs, stride int)",
		"geluAVX2 applies GELU in place to rows rows of vecs vectors of eight; stride is in elements.")
	x, rows, vecs, ld := ptr("x"), ptr("rows"), ptr("vecs"), ptr("stride")
	SHLQ(Imm(2), ld)
	top := YMM()
	VMOVUPS(coef[len(coef)-1], top)
	zero := YMM()
	VXORPS(zero, zero, zero)
	Label("row")
	p, n := GP64(), GP64()
	MOVQ(x, p)
	MOVQ(vecs, n)
	Label("vec")
	v, s, acc := YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: p}, v)
	VANDPS(absMask, v, s)
	VMINPS(cut, s, s)
	VMOVUPS(scale, acc)
	VFMSUB213PS(one, acc, s)
	VMOVAPS(top, acc)
	for i := len(coef) - 2; i >= 0; i-- {
		VFMADD213PS(coef[i], s, acc)
	}
	VMAXPS(v, zero, v) // the second source, x, is what a NaN selects
	VSUBPS(acc, v, v)
	VMOVUPS(v, Mem{Base: p})
	ADDQ(Imm(32), p)
	SUBQ(Imm(1), n)
	JNE(LabelRef("vec"))
	ADDQ(ld, x)
	SUBQ(Imm(1), rows)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// expPoly is the Chebyshev interpolation of exp on [-ln2/2, ln2/2], lowest
// power first; relative error 7e-8 in fp32.
var expPoly = []float32{1, 1, 0.5, 0.16666415333747864, 0.04166635125875473, 0.00837512593716383, 0.0013941108481958508}

func softmax() {
	function("scaleMaxAVX2", "func(x *float32, n int, scale float32) float32",
		"scaleMaxAVX2 multiplies n elements, a multiple of 8 above 0, by scale and returns the largest; a NaN may be passed over.")
	x, n := ptr("x"), ptr("n")
	scale := YMM()
	VBROADCASTSS(mustAddr("scale"), scale)
	top := YMM()
	VMULPS(Mem{Base: x}, scale, top)
	Label("loop")
	v := YMM()
	VMULPS(Mem{Base: x}, scale, v)
	VMOVUPS(v, Mem{Base: x})
	VMAXPS(v, top, top)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNE(LabelRef("loop"))
	hi, lo := XMM(), XMM()
	VEXTRACTF128(Imm(1), top, hi)
	VMAXPS(top.AsX(), hi, lo)
	VMOVHLPS(lo, lo, hi)
	VMAXPS(lo, hi, lo)
	VMOVSHDUP(lo, hi)
	VMAXSS(lo, hi, lo)
	VZEROUPPER()
	Store(lo, ReturnIndex(0))
	RET()

	log2e := vector32("expLog2e", f32(math.Log2E))
	// ln2 in two parts; n·hi is exact for |n| < 2¹⁵.
	ln2hi := vector32("expLn2Hi", f32(0.693359375))
	ln2lo := vector32("expLn2Lo", f32(-0.00021219444005471377))
	least := vector32("expLeast", f32(-87.33))
	coef := make([]Mem, len(expPoly))
	for i, c := range expPoly {
		coef[i] = vector32(fmt.Sprintf("expC%d", i), f32(c))
	}
	function("expSumAVX2", "func(x *float32, n int, top float32) float32",
		"expSumAVX2 replaces n elements, a multiple of 8 above 0, by exp(x-top) and returns their sum; below -87.33 it writes 0.")
	x, n = ptr("x"), ptr("n")
	shift := YMM()
	VBROADCASTSS(mustAddr("top"), shift)
	sum := YMM()
	VXORPS(sum, sum, sum)
	Label("loop")
	t, below, r, k, p := YMM(), YMM(), YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: x}, t)
	VSUBPS(shift, t, t)
	VCMPPS(Imm(1), least, t, below) // t < least, false for NaN
	VMOVUPS(least, r)
	VMAXPS(t, r, t) // NaN stays
	VMULPS(log2e, t, k)
	VROUNDPS(Imm(8), k, k)
	VFNMADD231PS(ln2hi, k, t)
	VFNMADD231PS(ln2lo, k, t)
	VMOVUPS(coef[len(coef)-1], p)
	for i := len(coef) - 2; i >= 0; i-- {
		VFMADD213PS(coef[i], t, p)
	}
	VCVTPS2DQ(k, k)
	VPSLLD(Imm(23), k, k)
	VPADDD(k, p, p)
	VANDNPS(p, below, p)
	VMOVUPS(p, Mem{Base: x})
	VADDPS(p, sum, sum)
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNE(LabelRef("loop"))
	lo = foldLanes(sum)
	VZEROUPPER()
	Store(lo, ReturnIndex(0))
	RET()
}

func mustAddr(param string) Mem {
	c, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// reductions share a loop of four accumulators and a tail of one.
func reductions() {
	reduce := func(x reg.Register, n reg.Register, add func(disp int, acc reg.VecVirtual), advance func(bytes uint64)) {
		acc := make([]reg.VecVirtual, 4)
		for i := range acc {
			acc[i] = YMM()
			VXORPS(acc[i], acc[i], acc[i])
		}
		SUBQ(Imm(32), n)
		JL(LabelRef("tail"))
		Label("loop")
		for i := range acc {
			add(32*i, acc[i])
		}
		advance(128)
		SUBQ(Imm(32), n)
		JGE(LabelRef("loop"))
		Label("tail")
		ADDQ(Imm(32), n)
		JEQ(LabelRef("fold"))
		Label("single")
		add(0, acc[0])
		advance(32)
		SUBQ(Imm(8), n)
		JNE(LabelRef("single"))
		Label("fold")
		VADDPS(acc[1], acc[0], acc[0])
		VADDPS(acc[3], acc[2], acc[2])
		VADDPS(acc[2], acc[0], acc[0])
		lo := foldLanes(acc[0])
		VZEROUPPER()
		Store(lo, ReturnIndex(0))
		RET()
	}

	function("dotAVX2", "func(a, b *float32, n int) float32", "dotAVX2 returns the inner product of n elements, a multiple of 8.")
	a, b, n := ptr("a"), ptr("b"), ptr("n")
	reduce(a, n, func(disp int, acc reg.VecVirtual) {
		v := YMM()
		VMOVUPS(Mem{Base: a, Disp: disp}, v)
		VFMADD231PS(Mem{Base: b, Disp: disp}, v, acc)
	}, func(bytes uint64) { ADDQ(Imm(bytes), a); ADDQ(Imm(bytes), b) })

	function("sumAVX2", "func(x *float32, n int) float32", "sumAVX2 returns the sum of n elements, a multiple of 8.")
	x, m := ptr("x"), ptr("n")
	reduce(x, m, func(disp int, acc reg.VecVirtual) {
		VADDPS(Mem{Base: x, Disp: disp}, acc, acc)
	}, func(bytes uint64) { ADDQ(Imm(bytes), x) })

	function("sumSqAVX2", "func(x *float32, n int, mean float32) float32",
		"sumSqAVX2 returns the sum of (x-mean)² over n elements, a multiple of 8.")
	y, l := ptr("x"), ptr("n")
	mean := YMM()
	VBROADCASTSS(mustAddr("mean"), mean)
	reduce(y, l, func(disp int, acc reg.VecVirtual) {
		v := YMM()
		VMOVUPS(Mem{Base: y, Disp: disp}, v)
		VSUBPS(mean, v, v)
		VFMADD231PS(v, v, acc)
	}, func(bytes uint64) { ADDQ(Imm(bytes), y) })
}

func elementwise() {
	function("axpyAVX2", "func(alpha float32, x, y *float32, n int)", "axpyAVX2 adds alpha·x to y over n elements, a multiple of 8 above 0.")
	alpha := YMM()
	VBROADCASTSS(mustAddr("alpha"), alpha)
	x, y, n := ptr("x"), ptr("y"), ptr("n")
	Label("loop")
	v := YMM()
	VMOVUPS(Mem{Base: y}, v)
	VFMADD231PS(Mem{Base: x}, alpha, v)
	VMOVUPS(v, Mem{Base: y})
	ADDQ(Imm(32), x)
	ADDQ(Imm(32), y)
	SUBQ(Imm(8), n)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()

	function("scaleAVX2", "func(x *float32, n int, factor float32)", "scaleAVX2 multiplies n elements, a multiple of 8 above 0, by factor.")
	factor := YMM()
	VBROADCASTSS(mustAddr("factor"), factor)
	p, m := ptr("x"), ptr("n")
	Label("loop")
	w := YMM()
	VMULPS(Mem{Base: p}, factor, w)
	VMOVUPS(w, Mem{Base: p})
	ADDQ(Imm(32), p)
	SUBQ(Imm(8), m)
	JNE(LabelRef("loop"))
	VZEROUPPER()
	RET()

	function("normAVX2", "func(args *byte, n int)", "normAVX2 is the last pass of LayerNorm over n elements, a multiple of 8 above 0; args points to a normArgs.")
	args, left := ptr("args"), ptr("n")
	d, src, gamma, beta := field(args, 0), field(args, 24), field(args, 48), field(args, 72)
	mean, inv := YMM(), YMM()
	VBROADCASTSS(Mem{Base: args, Disp: 96}, mean)
	VBROADCASTSS(Mem{Base: args, Disp: 100}, inv)
	at := GP64()
	XORQ(at, at)
	Label("loop")
	u := YMM()
	VMOVUPS(Mem{Base: src, Index: at, Scale: 4}, u)
	VSUBPS(mean, u, u)
	VMULPS(inv, u, u)
	g := YMM()
	VMOVUPS(Mem{Base: gamma, Index: at, Scale: 4}, g)
	VFMADD213PS(Mem{Base: beta, Index: at, Scale: 4}, g, u)
	VMOVUPS(u, Mem{Base: d, Index: at, Scale: 4})
	ADDQ(Imm(8), at)
	CMPQ(at, left)
	JL(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
