package main

import "fmt"

// Offsets into simd's tile struct.
const (
	tileC    = 0
	tileA    = 24
	tileB    = 48
	tileInit = 72
	tileBias = 96
	tileLdc  = 120
	tileLda  = 128
	tileLdb  = 136
	tileLdi  = 144
	tileK    = 152
	tileRows = 160
)

// Offsets into simd's intTile struct.
const (
	intScaleB = 120
	intScaleA = 144
	intLdc    = 192
	intLda    = 200
	intLdi    = 208
	intGroups = 216
	intRows   = 224
	intLds    = 232
)

// A tile is 6 rows of 16 columns. 24 registers hold the sums, 6 four elements
// (or groups of elements) of each row of A, 2 what is in use of B's row: all 32.
// While the sums are set up and written out the last eight are free.
const (
	tileMax  = 6
	tileVecs = 4
	bReg     = 6
)

func acc(r, v int) int { return 8 + tileVecs*r + v }

// Where the general registers of the micro-kernels point.
const (
	cReg    = 1
	aReg    = 2 // to aReg+5, a row of A each
	panel   = 8
	initReg = 12
	biasReg = 15
	scaleA  = 19
	scaleB  = 20
)

func load(a *assembly, offset, reg int) { a.op("MOVD %d(R0), R%d", offset, reg) }

// rowCounts writes body for every number of rows that a tile may have.
func (a *assembly) rowCounts(rowsAt int, body func(rows int)) {
	load(a, rowsAt, 14)
	names := make([]string, tileMax+1)
	for rows := tileMax; rows > 1; rows-- {
		names[rows] = a.fresh(fmt.Sprintf("rows%dx", rows))
		a.op("CMP $%d, R14", rows)
		a.op("BEQ %s", names[rows])
	}
	body(1)
	a.op("RET")
	for rows := 2; rows <= tileMax; rows++ {
		a.label(names[rows])
		body(rows)
		a.op("RET")
	}
}

// aRows points a register at each row of A, lda elements of four bytes apart.
func (a *assembly) aRows(rows, ldaAt int) {
	load(a, tileA, aReg)
	if rows > 1 {
		load(a, ldaAt, 14)
	}
	for r := 1; r < rows; r++ {
		a.op("ADD R14<<2, R%d, R%d", aReg+r-1, aReg+r)
	}
}

// depth runs four for every four of the counter in R9 and one for what is left;
// both find their element of A's rows in the lanes of v0 to v5.
func (a *assembly) depth(rows int, product func(lane int)) {
	rest, one, done := a.fresh("rest"), a.fresh("one"), a.fresh("done")
	four := a.fresh("four")
	a.op("SUBS $4, R9, R9")
	a.op("BLT %s", rest)
	a.label(four)
	for r := range rows {
		a.loadNext(16, r, aReg+r)
	}
	for lane := range 4 {
		product(lane)
	}
	a.op("SUBS $4, R9, R9")
	a.op("BGE %s", four)
	a.label(rest)
	a.op("ADDS $4, R9, R9")
	a.op("BEQ %s", done)
	a.label(one)
	for r := range rows {
		a.loadNext(4, r, aReg+r)
	}
	product(0)
	a.op("SUBS $1, R9, R9")
	a.op("BNE %s", one)
	a.label(done)
}

func (a *assembly) gemmFP32() {
	a.function("tileNEON", 8, "(t *byte)", "computes a tile of up to 6 rows and 16 columns; t points to a tile.")
	a.op("MOVD t+0(FP), R0")
	a.rowCounts(tileRows, func(rows int) {
		zero, bias, start := a.fresh("zero"), a.fresh("bias"), a.fresh("start")
		a.op("MOVD %d(R0), R14", tileInit+8)
		a.op("CBZ R14, %s", zero)
		load(a, tileInit, initReg)
		load(a, tileLdi, 14)
		for r := range rows {
			for v := range tileVecs {
				a.load(16, acc(r, v), initReg, 16*v)
			}
			a.op("ADD R14<<2, R%d, R%d", initReg, initReg)
		}
		a.op("B %s", bias)
		a.label(zero)
		for r := range rows {
			for v := range tileVecs {
				a.zero(acc(r, v))
			}
		}
		a.label(bias)
		a.op("MOVD %d(R0), R14", tileBias+8)
		a.op("CBZ R14, %s", start)
		load(a, tileBias, biasReg)
		for v := range tileVecs {
			a.load(16, v, biasReg, 16*v)
			for r := range rows {
				a.v3(fadd, acc(r, v), acc(r, v), v)
			}
		}
		a.label(start)
		a.aRows(rows, tileLda)
		load(a, tileB, panel)
		load(a, tileLdb, 10)
		a.op("LSL $2, R10, R10")
		load(a, tileK, 9)
		a.depth(rows, func(lane int) {
			for half := range 2 {
				a.loadPair(bReg, bReg+1, panel, 32*half)
				for r := range rows {
					a.fmlaLane(acc(r, 2*half), bReg, r, lane)
					a.fmlaLane(acc(r, 2*half+1), bReg+1, r, lane)
				}
			}
			a.op("ADD R10, R%d, R%d", panel, panel)
		})
		load(a, tileC, cReg)
		load(a, tileLdc, 14)
		for r := range rows {
			for v := range tileVecs {
				a.store(16, acc(r, v), cReg, 16*v)
			}
			if r < rows-1 {
				a.op("ADD R14<<2, R%d, R%d", cReg, cReg)
			}
		}
	})
}

// gemmInt16 multiplies pairs: a group of B's row holds two int16 of a column,
// which ld2 parts, and a lane of A's the two of a row.
func (a *assembly) gemmInt16() {
	a.gemmInt("tileInt16NEON", "computes an int16 tile of up to 6 rows and 16 columns; t points to an intTile.", func(rows, lane int) {
		for half := range 2 {
			a.loadTwo(bReg, panel)
			for place := range 2 {
				for r := range rows {
					a.smlalLane(false, acc(r, 2*half), bReg+place, r, 2*lane+place)
					a.smlalLane(true, acc(r, 2*half+1), bReg+place, r, 2*lane+place)
				}
			}
		}
	})
}

// gemmInt8 multiplies groups of four signed bytes by sdot.
func (a *assembly) gemmInt8() {
	a.gemmInt("tileInt8SDOT", "computes a tile of signed bytes of A by signed bytes of B, up to 6 rows and 16 columns.", func(rows, lane int) {
		for half := range 2 {
			a.loadPairNext(bReg, bReg+1, panel)
			for r := range rows {
				a.sdotLane(acc(r, 2*half), bReg, r, lane)
				a.sdotLane(acc(r, 2*half+1), bReg+1, r, lane)
			}
		}
	})
}

func (a *assembly) gemmInt(name, doc string, product func(rows, lane int)) {
	a.function(name, 8, "(t *byte)", doc)
	a.op("MOVD t+0(FP), R0")
	a.rowCounts(intRows, func(rows int) {
		for r := range rows {
			for v := range tileVecs {
				a.zero(acc(r, v))
			}
		}
		a.aRows(rows, intLda)
		load(a, tileB, panel)
		load(a, intGroups, 9)
		a.depth(rows, func(lane int) { product(rows, lane) })
		a.intEpilogue(rows)
	})
}

// intEpilogue writes (init + bias) + sums·scaleB·scaleA, with every step rounded.
// v0 to v3 hold scaleB.
func (a *assembly) intEpilogue(rows int) {
	const scale, base, term = 4, 5, 6
	load(a, intScaleB, scaleB)
	load(a, intScaleA, scaleA)
	load(a, intLds, 21)
	load(a, tileC, cReg)
	load(a, intLdc, 22)
	load(a, tileInit, initReg)
	load(a, tileInit+8, 23)
	load(a, intLdi, 24)
	load(a, tileBias, biasReg)
	load(a, tileBias+8, 25)
	for v := range tileVecs {
		a.load(16, v, scaleB, 16*v)
	}
	for r := range rows {
		a.spread(scale, scaleA)
		for v := range tileVecs {
			noBias, noInit := a.fresh("noBias"), a.fresh("noInit")
			a.v2(scvtf, acc(r, v), acc(r, v))
			a.v3(fmul, acc(r, v), acc(r, v), v)
			a.v3(fmul, acc(r, v), acc(r, v), scale)
			a.zero(base)
			a.op("CBZ R25, %s", noBias)
			a.load(16, base, biasReg, 16*v)
			a.label(noBias)
			a.op("CBZ R23, %s", noInit)
			a.load(16, term, initReg, 16*v)
			a.v3(fadd, base, base, term)
			a.label(noInit)
			a.v3(fadd, acc(r, v), base, acc(r, v))
			a.store(16, acc(r, v), cReg, 16*v)
		}
		if r < rows-1 {
			a.op("ADD R21<<2, R%d, R%d", scaleA, scaleA)
			a.op("ADD R22<<2, R%d, R%d", cReg, cReg)
			a.op("ADD R24<<2, R%d, R%d", initReg, initReg)
		}
	}
}

// quantise writes the reductions and conversions of activations.
func (a *assembly) quantise() {
	a.function("absMaxNEON", 20, "(x *float32, n int) uint32", "returns the largest of the bits of |x| over n elements, a multiple of 16 above 0.")
	a.op("MOVD x+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	for i := range 4 {
		a.zero(4 + i)
	}
	a.countDown("R1", 16, func() {
		for i := range 2 {
			a.loadPairNext(2*i, 2*i+1, 0)
		}
		for i := range 4 {
			a.v2(fabs, i, i)
			a.v3(umax, 4+i, 4+i, i)
		}
	})
	a.v3(umax, 4, 4, 5)
	a.v3(umax, 6, 6, 7)
	a.v3(umax, 4, 4, 6)
	a.fold(umaxv, 0, 4)
	a.op("FMOVS F0, ret+16(FP)")
	a.op("RET")

	for _, k := range []struct {
		name, doc string
		bytes     bool
	}{
		{"quantInt16NEON", "writes x·inv, rounded to nearest even, as int16; n is a multiple of 16 above 0 and |x·inv| at most 32767.", false},
		{"quantInt8NEON", "writes x·inv, rounded to nearest even, as bytes; n is a multiple of 16 above 0 and |x·inv| at most 127.", true},
	} {
		a.function(k.name, 28, "(dst *uint32, x *float32, n int, inv float32)", k.doc)
		a.op("MOVD dst+0(FP), R0")
		a.op("MOVD x+8(FP), R1")
		a.op("MOVD n+16(FP), R2")
		a.op("FMOVS inv+24(FP), F31")
		a.dup(31, 31)
		a.countDown("R2", 16, func() {
			for i := range 2 {
				a.loadPairNext(2*i, 2*i+1, 1)
			}
			for i := range 4 {
				a.v3(fmul, i, i, 31)
				a.v2(fcvtns, i, i)
			}
			for i := range 2 {
				a.v2(xtnS, 4+i, 2*i)
				a.v2(xtnS2, 4+i, 2*i+1)
			}
			if !k.bytes {
				a.storePairNext(4, 5, 0)
				return
			}
			a.v2(xtnH, 6, 4)
			a.v2(xtnH2, 6, 5)
			a.storeNext(16, 6, 0)
		})
		a.op("RET")
	}
}

// packTransposed transposes blocks of 4 x 4.
func (a *assembly) packTransposed() {
	a.function("packTransposedNEON", 40, "(dst *float32, src *float32, stride int, depth int, width int)",
		"writes src[j*stride+l] to dst[l*width+j] for j < 16 and l < depth, a multiple of 4 above 0.")
	a.op("MOVD dst+0(FP), R0")
	a.op("MOVD src+8(FP), R1")
	a.op("MOVD stride+16(FP), R2")
	a.op("MOVD depth+24(FP), R3")
	a.op("MOVD width+32(FP), R4")
	a.op("LSL $2, R2, R2")
	a.op("LSL $2, R4, R4")
	a.op("MOVD $4, R5")
	a.countDown("R5", 1, func() {
		a.op("MOVD R1, R6")
		for i := range 3 {
			a.op("ADD R2, R%d, R%d", 6+i, 7+i)
		}
		a.op("ADD R2, R9, R1")
		a.op("MOVD R0, R10")
		a.op("ADD $16, R0")
		a.op("MOVD R3, R11")
		a.countDown("R11", 4, func() {
			for i := range 4 {
				a.loadNext(16, i, 6+i)
			}
			a.v3(zip1s, 4, 0, 2)
			a.v3(zip2s, 5, 0, 2)
			a.v3(zip1s, 6, 1, 3)
			a.v3(zip2s, 7, 1, 3)
			a.v3(zip1s, 0, 4, 6)
			a.v3(zip2s, 1, 4, 6)
			a.v3(zip1s, 2, 5, 7)
			a.v3(zip2s, 3, 5, 7)
			for i := range 4 {
				a.store(16, i, 10, 0)
				a.op("ADD R4, R10")
			}
		})
	})
	a.op("RET")
}
