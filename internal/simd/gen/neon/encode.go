package main

// Encodings of the Advanced SIMD instructions that the kernels use, from the Arm
// Architecture Reference Manual, section C7.2. Vector registers are numbers from
// 0 to 31, general registers those of Go's R0 to R25.

// three is an instruction of three vector registers: d = n op m.
type three struct {
	code    uint32
	name    string
	d, n, m string // arrangements
}

var (
	fadd   = three{code: 0x4e20d400, name: "fadd", d: "4s", n: "4s", m: "4s"}
	fsub   = three{code: 0x4ea0d400, name: "fsub", d: "4s", n: "4s", m: "4s"}
	fmul   = three{code: 0x6e20dc00, name: "fmul", d: "4s", n: "4s", m: "4s"}
	fmla   = three{code: 0x4e20cc00, name: "fmla", d: "4s", n: "4s", m: "4s"}
	fmls   = three{code: 0x4ea0cc00, name: "fmls", d: "4s", n: "4s", m: "4s"}
	fmax   = three{code: 0x4e20f400, name: "fmax", d: "4s", n: "4s", m: "4s"}
	fmin   = three{code: 0x4ea0f400, name: "fmin", d: "4s", n: "4s", m: "4s"}
	fcmgt  = three{code: 0x6ea0e400, name: "fcmgt", d: "4s", n: "4s", m: "4s"}
	fmul2d = three{code: 0x6e60dc00, name: "fmul", d: "2d", n: "2d", m: "2d"}
	fadd2d = three{code: 0x4e60d400, name: "fadd", d: "2d", n: "2d", m: "2d"}
	fmax2d = three{code: 0x4e60f400, name: "fmax", d: "2d", n: "2d", m: "2d"}
	fmin2d = three{code: 0x4ee0f400, name: "fmin", d: "2d", n: "2d", m: "2d"}

	and   = three{code: 0x4e201c00, name: "and", d: "16b", n: "16b", m: "16b"}
	bic   = three{code: 0x4e601c00, name: "bic", d: "16b", n: "16b", m: "16b"}
	orr   = three{code: 0x4ea01c00, name: "orr", d: "16b", n: "16b", m: "16b"}
	eor   = three{code: 0x6e201c00, name: "eor", d: "16b", n: "16b", m: "16b"}
	add   = three{code: 0x4ea08400, name: "add", d: "4s", n: "4s", m: "4s"}
	umax  = three{code: 0x6ea06400, name: "umax", d: "4s", n: "4s", m: "4s"}
	uzp1b = three{code: 0x4e001800, name: "uzp1", d: "16b", n: "16b", m: "16b"}
	uzp2b = three{code: 0x4e005800, name: "uzp2", d: "16b", n: "16b", m: "16b"}
	zip1s = three{code: 0x4e803800, name: "zip1", d: "4s", n: "4s", m: "4s"}
	zip2s = three{code: 0x4e807800, name: "zip2", d: "4s", n: "4s", m: "4s"}

	smlal  = three{code: 0x0e608000, name: "smlal", d: "4s", n: "4h", m: "4h"}
	smlal2 = three{code: 0x4e608000, name: "smlal2", d: "4s", n: "8h", m: "8h"}
	smull  = three{code: 0x0e20c000, name: "smull", d: "8h", n: "8b", m: "8b"}
	smull2 = three{code: 0x4e20c000, name: "smull2", d: "8h", n: "16b", m: "16b"}
	sdot   = three{code: 0x4e809400, name: "sdot", d: "4s", n: "16b", m: "16b"}
	uaddw  = three{code: 0x2e201000, name: "uaddw", d: "8h", n: "8h", m: "8b"}
	uaddw2 = three{code: 0x6e201000, name: "uaddw2", d: "8h", n: "8h", m: "16b"}
	waddl  = three{code: 0x2e601000, name: "uaddw", d: "4s", n: "4s", m: "4h"}
	waddl2 = three{code: 0x6e601000, name: "uaddw2", d: "4s", n: "4s", m: "8h"}
)

func (a *assembly) v3(i three, d, n, m int) {
	a.word(i.code|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s v%d.%s, v%d.%s, v%d.%s", i.name, d, i.d, n, i.n, m, i.m)
}

// two is an instruction of two vector registers: d = op n.
type two struct {
	code uint32
	name string
	d, n string
	tail string
}

var (
	fabs    = two{0x4ea0f800, "fabs", "4s", "4s", ""}
	frintn  = two{0x4e218800, "frintn", "4s", "4s", ""}
	fcvtns  = two{0x4e21a800, "fcvtns", "4s", "4s", ""}
	scvtf   = two{0x4e21d800, "scvtf", "4s", "4s", ""}
	scvtf2d = two{0x4e61d800, "scvtf", "2d", "2d", ""}
	fcvtlH  = two{0x0e217800, "fcvtl", "4s", "4h", ""}
	fcvtlH2 = two{0x4e217800, "fcvtl2", "4s", "8h", ""}
	fcvtnH  = two{0x0e216800, "fcvtn", "4h", "4s", ""}
	fcvtnH2 = two{0x4e216800, "fcvtn2", "8h", "4s", ""}
	fcvtlS  = two{0x0e617800, "fcvtl", "2d", "2s", ""}
	fcvtlS2 = two{0x4e617800, "fcvtl2", "2d", "4s", ""}
	fcvtnS  = two{0x0e616800, "fcvtn", "2s", "2d", ""}
	fcvtnS2 = two{0x4e616800, "fcvtn2", "4s", "2d", ""}
	sxtlB   = two{0x0f08a400, "sxtl", "8h", "8b", ""}
	sxtlB2  = two{0x4f08a400, "sxtl2", "8h", "16b", ""}
	sxtlS   = two{0x0f20a400, "sxtl", "2d", "2s", ""}
	sxtlS2  = two{0x4f20a400, "sxtl2", "2d", "4s", ""}
	xtnS    = two{0x0e612800, "xtn", "4h", "4s", ""}
	xtnS2   = two{0x4e612800, "xtn2", "8h", "4s", ""}
	xtnH    = two{0x0e212800, "xtn", "8b", "8h", ""}
	xtnH2   = two{0x4e212800, "xtn2", "16b", "8h", ""}
	sadalp  = two{0x4e606800, "sadalp", "4s", "8h", ""}
	shl7    = two{0x4f275400, "shl", "4s", "4s", ", #7"}
	shl8    = two{0x4f285400, "shl", "4s", "4s", ", #8"}
	shl23   = two{0x4f375400, "shl", "4s", "4s", ", #23"}
	ushrB4  = two{0x6f0c0400, "ushr", "16b", "16b", ", #4"}
	ushllH8 = two{0x2f18a400, "ushll", "4s", "4h", ", #8"}
	ushllX8 = two{0x6f18a400, "ushll2", "4s", "8h", ", #8"}
)

func (a *assembly) v2(i two, d, n int) {
	a.word(i.code|uint32(n)<<5|uint32(d), "%s v%d.%s, v%d.%s%s", i.name, d, i.d, n, i.n, i.tail)
}

// across folds the lanes of n into a scalar.
type across struct {
	code uint32
	name string
	n    string
}

var (
	addv  = across{0x4eb1b800, "addv", "4s"}
	umaxv = across{0x6eb0a800, "umaxv", "4s"}
	fmaxv = across{0x6e30f800, "fmaxv", "4s"}
	faddp = across{0x7e30d800, "faddp", "2s"}
)

func (a *assembly) fold(i across, d, n int) {
	a.word(i.code|uint32(n)<<5|uint32(d), "%s s%d, v%d.%s", i.name, d, n, i.n)
}

// Products by one lane of m.

func (a *assembly) fmlaLane(d, n, m, lane int) {
	a.word(0x4f801000|lane4(m, lane)|uint32(n)<<5|uint32(d), "fmla v%d.4s, v%d.4s, v%d.s[%d]", d, n, m, lane)
}

func (a *assembly) sdotLane(d, n, m, lane int) {
	a.word(0x4f80e000|lane4(m, lane)|uint32(n)<<5|uint32(d), "sdot v%d.4s, v%d.16b, v%d.4b[%d]", d, n, m, lane)
}

func lane4(m, lane int) uint32 {
	return uint32(m)<<16 | uint32(lane&1)<<21 | uint32(lane>>1)<<11
}

// smlalLane takes m from v0 to v15.
func (a *assembly) smlalLane(high bool, d, n, m, lane int) {
	code, name, half := uint32(0x0f402000), "smlal", "4h"
	if high {
		code, name, half = 0x4f402000, "smlal2", "8h"
	}
	code |= uint32(lane&1)<<20 | uint32(lane>>1&1)<<21 | uint32(lane>>2)<<11
	a.word(code|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s v%d.4s, v%d.%s, v%d.h[%d]", name, d, n, half, m, lane)
}

// Memory. load and store move n bytes (4, 8 or 16) at an offset that is a
// multiple of n; the "next" forms advance the register afterwards.

var (
	prefix    = map[int]string{4: "s", 8: "d", 16: "q"}
	loadCode  = map[int]uint32{4: 0xbd400000, 8: 0xfd400000, 16: 0x3dc00000}
	storeCode = map[int]uint32{4: 0xbd000000, 8: 0xfd000000, 16: 0x3d800000}
	loadNext  = map[int]uint32{4: 0xbc400400, 8: 0xfc400400, 16: 0x3cc00400}
	storeNext = map[int]uint32{4: 0xbc000400, 8: 0xfc000400, 16: 0x3c800400}
)

func (a *assembly) load(n, v, base, offset int) {
	a.word(loadCode[n]|uint32(offset/n)<<10|uint32(base)<<5|uint32(v), "ldr %s%d, [x%d, #%d]", prefix[n], v, base, offset)
}

func (a *assembly) store(n, v, base, offset int) {
	a.word(storeCode[n]|uint32(offset/n)<<10|uint32(base)<<5|uint32(v), "str %s%d, [x%d, #%d]", prefix[n], v, base, offset)
}

func (a *assembly) loadNext(n, v, base int) {
	a.word(loadNext[n]|uint32(n)<<12|uint32(base)<<5|uint32(v), "ldr %s%d, [x%d], #%d", prefix[n], v, base, n)
}

func (a *assembly) storeNext(n, v, base int) {
	a.word(storeNext[n]|uint32(n)<<12|uint32(base)<<5|uint32(v), "str %s%d, [x%d], #%d", prefix[n], v, base, n)
}

// loadPair loads 32 bytes into v and w.
func (a *assembly) loadPair(v, w, base, offset int) {
	a.word(0xad400000|uint32(offset/16)<<15|uint32(w)<<10|uint32(base)<<5|uint32(v), "ldp q%d, q%d, [x%d, #%d]", v, w, base, offset)
}

func (a *assembly) loadPairNext(v, w, base int) {
	a.word(0xacc00000|2<<15|uint32(w)<<10|uint32(base)<<5|uint32(v), "ldp q%d, q%d, [x%d], #32", v, w, base)
}

func (a *assembly) storePairNext(v, w, base int) {
	a.word(0xac800000|2<<15|uint32(w)<<10|uint32(base)<<5|uint32(v), "stp q%d, q%d, [x%d], #32", v, w, base)
}

// loadTwo splits 16 int16 into those of even place, in v, and of odd, in v+1.
func (a *assembly) loadTwo(v, base int) {
	a.word(0x4cdf8400|uint32(base)<<5|uint32(v), "ld2 {v%d.8h, v%d.8h}, [x%d], #32", v, v+1, base)
}

// loadFour splits 64 bytes into v to v+3 by their place modulo 4.
func (a *assembly) loadFour(v, base int) {
	a.word(0x4c400000|uint32(base)<<5|uint32(v), "ld4 {v%d.16b, v%d.16b, v%d.16b, v%d.16b}, [x%d]", v, v+1, v+2, v+3, base)
}

// spread fills v with the four bytes at base.
func (a *assembly) spread(v, base int) {
	a.word(0x4d40c800|uint32(base)<<5|uint32(v), "ld1r {v%d.4s}, [x%d]", v, base)
}

func (a *assembly) spreadNext(v, base int) {
	a.word(0x4ddfc800|uint32(base)<<5|uint32(v), "ld1r {v%d.4s}, [x%d], #4", v, base)
}

// dup fills d with lane 0 of n.
func (a *assembly) dup(d, n int) {
	a.word(0x4e040400|uint32(n)<<5|uint32(d), "dup v%d.4s, v%d.s[0]", d, n)
}

func (a *assembly) dup2d(d, n int) {
	a.word(0x4e080400|uint32(n)<<5|uint32(d), "dup v%d.2d, v%d.d[0]", d, n)
}

func (a *assembly) zero(d int) { a.word(0x6f00e400|uint32(d), "movi v%d.2d, #0", d) }

// bytes fills d with one byte.
func (a *assembly) bytes(d int, b uint8) {
	a.word(0x4f00e400|uint32(b>>5)<<16|uint32(b&31)<<5|uint32(d), "movi v%d.16b, #0x%x", d, b)
}

func (a *assembly) move(d, n int) {
	a.word(orr.code|uint32(n)<<16|uint32(n)<<5|uint32(d), "mov v%d.16b, v%d.16b", d, n)
}

// upper sets the lower half of d to the upper half of n.
func (a *assembly) upper(d, n int) {
	a.word(0x6e004000|8<<11|uint32(n)<<16|uint32(n)<<5|uint32(d), "ext v%d.16b, v%d.16b, v%d.16b, #8", d, n, n)
}

// lookup sets every byte of d to entry m of the 16 of n.
func (a *assembly) lookup(d, n, m int) {
	a.word(0x4e000000|uint32(m)<<16|uint32(n)<<5|uint32(d), "tbl v%d.16b, {v%d.16b}, v%d.16b", d, n, m)
}

// foldLanes leaves in lane 0 of lo the sum of eight lanes: halves, then pairs,
// in the order of the twin. It spoils tmp.
func (a *assembly) foldLanes(lo, hi, tmp int) {
	a.v3(fadd, lo, lo, hi)
	a.upper(tmp, lo)
	a.v3(fadd, lo, lo, tmp)
	a.fold(faddp, lo, lo)
}
