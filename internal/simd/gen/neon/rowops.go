package main

import "math"

func f32(v float32) uint32 { return math.Float32bits(v) }

// constants makes a table of fp32 numbers and loads each into all lanes of a
// register, from first on; it uses R25.
func (a *assembly) constants(name string, first int, numbers ...float32) {
	words := make([]uint32, len(numbers))
	for i, v := range numbers {
		words[i] = f32(v)
	}
	a.table(name, words)
	a.op("MOVD $%s<>(SB), R25", name)
	for i := range numbers {
		a.spreadNext(first+i, 25)
	}
}

// geluCut is where the tail h is frozen: h(5.5) = 1.0e-7.
const geluCut = 5.5

// geluPoly is the Chebyshev interpolation of degree 16 of
// h(u) = u/2·erfc(u/√2) on [0, geluCut] in s = 2u/geluCut - 1, highest power
// first. In fp32 its absolute error is 1.9e-7.
var geluPoly = []float32{
	-0x1.0d4e54p-6, -0x1.18e89cp-12, 0x1.a149a6p-4, -0x1.3ab8c6p-5, -0x1.0bf7e4p-2, 0x1.deeb30p-3,
	0x1.1adf1ep-2, -0x1.17c020p-1, 0x1.322fa2p-3, 0x1.d7330ep-2, -0x1.417544p-1, 0x1.0a919ap-2,
	0x1.6e5d34p-3, -0x1.3c1474p-2, 0x1.87b68ap-3, -0x1.f041c0p-5, 0x1.0c832ep-7,
}

// gelu uses GELU(x) = max(x, 0) - h(|x|): no division, and no cancellation
// against 1 for large |x|. A NaN passes through fmax and fmin.
func (a *assembly) gelu() {
	a.function("geluNEON", 32, "(x *float32, rows int, vecs int, stride int)",
		"applies GELU in place to rows rows of vecs times eight elements; all are above 0, and stride is in elements.")
	const poly, cut, scale, one, zero = 15, 11, 12, 13, 14
	a.constants("geluConst", cut, geluCut, 2/geluCut, 1, 0)
	a.constants("geluPoly", poly, geluPoly...)
	for i, arg := range []string{"x", "rows", "vecs", "stride"} {
		a.op("MOVD %s+%d(FP), R%d", arg, 8*i, i)
	}
	a.countDown("R1", 1, func() {
		a.op("MOVD R0, R4")
		a.op("MOVD R2, R5")
		a.op("ADD R3<<2, R0, R0")
		a.countDown("R5", 1, func() {
			a.loadPair(0, 1, 4, 0)
			for i := range 2 {
				a.v2(fabs, 2+i, i)
				a.v3(fmin, 2+i, 2+i, cut)
				a.v3(fmul, 2+i, 2+i, scale)
				a.v3(fsub, 2+i, 2+i, one)
			}
			sum := [2]int{poly, poly}
			for step := 1; step < len(geluPoly); step++ {
				for i := range 2 {
					next := 4 + i + 2*(step%2)
					a.move(next, poly+step)
					a.v3(fmla, next, sum[i], 2+i)
					sum[i] = next
				}
			}
			for i := range 2 {
				a.v3(fmax, i, i, zero)
				a.v3(fsub, i, i, sum[i])
			}
			a.storePairNext(0, 1, 4)
		})
	})
	a.op("RET")
}

// expPoly is the Chebyshev interpolation of exp on [-ln2/2, ln2/2], highest
// power first; relative error 7e-8 in fp32.
var expPoly = []float32{0.0013941108481958508, 0.00837512593716383, 0.04166635125875473, 0.16666415333747864, 0.5, 1, 1}

func (a *assembly) softmax() {
	a.function("scaleMaxNEON", 28, "(x *float32, n int, scale float32) float32",
		"multiplies n elements, a multiple of 8 above 0, by scale and returns the largest, or a NaN.")
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	a.op("FMOVS scale+16(FP), F31")
	a.dup(31, 31)
	a.loadPair(4, 5, 0, 0)
	a.v3(fmul, 4, 4, 31)
	a.v3(fmul, 5, 5, 31)
	a.countDown("R1", 8, func() {
		a.loadPair(0, 1, 0, 0)
		for i := range 2 {
			a.v3(fmul, i, i, 31)
			a.v3(fmax, 4+i, 4+i, i)
		}
		a.storePairNext(0, 1, 0)
	})
	a.v3(fmax, 4, 4, 5)
	a.fold(fmaxv, 0, 4)
	a.op("FMOVS F0, ret+24(FP)")
	a.op("RET")

	// ln2 comes in two parts; n·hi is exact for |n| < 2¹⁵.
	const poly, log2e, hi, lo, least, top = 20, 27, 28, 29, 30, 31
	a.function("expSumNEON", 28, "(x *float32, n int, top float32) float32",
		"replaces n elements, a multiple of 8 above 0, by exp(x-top) and returns their sum; below -87.33 it writes 0.")
	a.constants("expPoly", poly, expPoly...)
	a.constants("expConst", log2e, math.Log2E, 0.693359375, -0.00021219444005471377, -87.33)
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	a.op("FMOVS top+16(FP), F31")
	a.dup(top, 31)
	a.zero(18)
	a.zero(19)
	a.countDown("R1", 8, func() {
		const below, k, p = 2, 4, 6
		a.loadPair(0, 1, 0, 0)
		for i := range 2 {
			a.v3(fsub, i, i, top)
			a.v3(fcmgt, below+i, least, i)
			a.v3(fmax, i, i, least)
			a.v3(fmul, k+i, i, log2e)
			a.v2(frintn, k+i, k+i)
			a.v3(fmls, i, k+i, hi)
			a.v3(fmls, i, k+i, lo)
			a.v2(fcvtns, k+i, k+i)
			a.v2(shl23, k+i, k+i)
		}
		sum := [2]int{poly, poly}
		for step := 1; step < len(expPoly); step++ {
			for i := range 2 {
				next := p + i + 2*(step%2)
				a.move(next, poly+step)
				a.v3(fmla, next, sum[i], i)
				sum[i] = next
			}
		}
		for i := range 2 {
			a.v3(add, i, sum[i], k+i)
			a.v3(bic, i, i, below+i)
			a.v3(fadd, 18+i, 18+i, i)
		}
		a.storePairNext(0, 1, 0)
	})
	a.foldLanes(18, 19, 0)
	a.op("FMOVS F18, ret+24(FP)")
	a.op("RET")
}

// reductions run over 16 elements with four registers of sums, then over eight
// with the first two.
func (a *assembly) reductions() {
	reduce := func(step func(pair, sum int), at int) {
		tail, last, loop := a.fresh("tail"), a.fresh("last"), a.fresh("loop")
		for i := range 4 {
			a.zero(16 + i)
		}
		a.op("SUBS $16, R2, R2")
		a.op("BLT %s", tail)
		a.label(loop)
		step(0, 16)
		step(2, 18)
		a.op("SUBS $16, R2, R2")
		a.op("BGE %s", loop)
		a.label(tail)
		a.op("ADDS $16, R2, R2")
		a.op("BEQ %s", last)
		step(0, 16)
		a.label(last)
		a.v3(fadd, 16, 16, 18)
		a.v3(fadd, 17, 17, 19)
		a.foldLanes(16, 17, 0)
		a.op("FMOVS F16, ret+%d(FP)", at)
		a.op("RET")
	}
	a.function("dotNEON", 28, "(a *float32, b *float32, n int) float32", "returns the inner product of n elements, a multiple of 8.")
	a.op("MOVD a+0(FP), R0")
	a.op("MOVD b+8(FP), R1")
	a.op("MOVD n+16(FP), R2")
	reduce(func(pair, sum int) {
		a.loadPairNext(pair, pair+1, 0)
		a.loadPairNext(4+pair, 5+pair, 1)
		a.v3(fmla, sum, pair, 4+pair)
		a.v3(fmla, sum+1, pair+1, 5+pair)
	}, 24)

	a.function("sumNEON", 20, "(x *float32, n int) float32", "returns the sum of n elements, a multiple of 8.")
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R2")
	reduce(func(pair, sum int) {
		a.loadPairNext(pair, pair+1, 0)
		a.v3(fadd, sum, sum, pair)
		a.v3(fadd, sum+1, sum+1, pair+1)
	}, 16)

	a.function("sumSqNEON", 28, "(x *float32, n int, mean float32) float32", "returns the sum of (x-mean)² over n elements, a multiple of 8.")
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R2")
	a.op("FMOVS mean+16(FP), F31")
	a.dup(31, 31)
	reduce(func(pair, sum int) {
		a.loadPairNext(pair, pair+1, 0)
		for i := range 2 {
			a.v3(fsub, pair+i, pair+i, 31)
			a.v3(fmla, sum+i, pair+i, pair+i)
		}
	}, 24)
}

func (a *assembly) elementwise() {
	a.function("axpyNEON", 32, "(alpha float32, x *float32, y *float32, n int)", "adds alpha·x to y over n elements, a multiple of 8 above 0.")
	a.op("FMOVS alpha+0(FP), F31")
	a.dup(31, 31)
	a.op("MOVD x+8(FP), R0")
	a.op("MOVD y+16(FP), R1")
	a.op("MOVD n+24(FP), R2")
	a.countDown("R2", 8, func() {
		a.loadPairNext(0, 1, 0)
		a.loadPair(2, 3, 1, 0)
		a.v3(fmla, 2, 0, 31)
		a.v3(fmla, 3, 1, 31)
		a.storePairNext(2, 3, 1)
	})
	a.op("RET")

	a.function("scaleNEON", 20, "(x *float32, n int, factor float32)", "multiplies n elements, a multiple of 8 above 0, by factor.")
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	a.op("FMOVS factor+16(FP), F31")
	a.dup(31, 31)
	a.countDown("R1", 8, func() {
		a.loadPair(0, 1, 0, 0)
		a.v3(fmul, 0, 0, 31)
		a.v3(fmul, 1, 1, 31)
		a.storePairNext(0, 1, 0)
	})
	a.op("RET")

	a.function("normNEON", 16, "(args *byte, n int)", "is the last pass of LayerNorm over n elements, a multiple of 8 above 0; args points to a normArgs.")
	a.op("MOVD args+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	for i := range 4 { // dst, x, gamma, beta
		load(a, 24*i, 2+i)
	}
	a.op("FMOVS 96(R0), F30")
	a.op("FMOVS 100(R0), F31")
	a.dup(30, 30)
	a.dup(31, 31)
	a.countDown("R1", 8, func() {
		for i := range 3 {
			a.loadPairNext(2*i, 2*i+1, 3+i)
		}
		for i := range 2 {
			a.v3(fsub, i, i, 30)
			a.v3(fmul, i, i, 31)
			a.v3(fmla, 4+i, i, 2+i)
		}
		a.storePairNext(4, 5, 2)
	})
	a.op("RET")
}
