package main

import "math"

// rowsBy reads the arguments of a scan kernel and runs block for four rows at a
// time, then for what is left one by one. R0 to R3 point at the rows, dim
// elements of size bytes apart; R5 at the head, which block restores from R10;
// R11 holds body, R6 takes the scores.
func (a *assembly) rowsBy(size int, block func(rows int)) {
	a.op("MOVD rows+0(FP), R0")
	a.op("MOVD dim+8(FP), R8")
	a.op("MOVD body+16(FP), R11")
	a.op("MOVD head+24(FP), R10")
	a.op("MOVD out+32(FP), R6")
	a.op("MOVD n+40(FP), R7")
	if shift := map[int]int{1: 0, 2: 1, 4: 2}[size]; shift > 0 {
		a.op("LSL $%d, R8, R8", shift)
	}
	few, single, done := a.fresh("few"), a.fresh("single"), a.fresh("done")
	many := a.fresh("many")
	a.op("SUBS $4, R7, R7")
	a.op("BLT %s", few)
	a.label(many)
	a.op("MOVD R0, R12")
	for i := range 3 {
		a.op("ADD R8, R%d, R%d", i, i+1)
	}
	a.op("MOVD R10, R5")
	a.op("MOVD R11, R4")
	block(4)
	a.op("ADD R8<<2, R12, R0")
	a.op("SUBS $4, R7, R7")
	a.op("BGE %s", many)
	a.label(few)
	a.op("ADDS $4, R7, R7")
	a.op("BEQ %s", done)
	a.label(single)
	a.op("MOVD R0, R12")
	a.op("MOVD R10, R5")
	a.op("MOVD R11, R4")
	block(1)
	a.op("ADD R8, R12, R0")
	a.op("SUBS $1, R7, R7")
	a.op("BNE %s", single)
	a.label(done)
	a.op("RET")
}

// dotInt8 scores rows of int8 under heads of int16.
func (a *assembly) dotInt8() {
	const signature = "(rows *int8, dim int, body int, head *int16, out *int32, n int)"
	a.function("dotInt8NEON", 48, signature, "scores n rows over their first body elements, a multiple of 16 above 0; rows are dim apart.")
	a.rowsBy(1, func(rows int) {
		for i := range 2 * rows {
			a.zero(16 + i)
		}
		a.countDown("R4", 16, func() {
			a.loadPairNext(0, 1, 5)
			for r := range rows {
				a.loadNext(16, 2+r, r)
				a.v2(sxtlB, 6+2*r, 2+r)
				a.v2(sxtlB2, 7+2*r, 2+r)
			}
			for r := range rows {
				a.v3(smlal, 16+2*r, 6+2*r, 0)
				a.v3(smlal2, 17+2*r, 6+2*r, 0)
			}
			for r := range rows {
				a.v3(smlal, 16+2*r, 7+2*r, 1)
				a.v3(smlal2, 17+2*r, 7+2*r, 1)
			}
		})
		for r := range rows {
			a.v3(add, 16+2*r, 16+2*r, 17+2*r)
			a.fold(addv, 0, 16+2*r)
			a.storeNext(4, 0, 6)
		}
	})

	// h = 256·high + (low - 128) + 128 with high and low - 128 signed bytes, so
	// three sums of bytes make the score. They and the score are exact modulo
	// 2³², and the score fits.
	a.function("dotInt8SDOT", 48, signature, "is dotInt8NEON by products of bytes.")
	const low, high, ones, offset = 2, 3, 30, 31
	a.bytes(ones, 1)
	a.bytes(offset, 0x80)
	a.rowsBy(1, func(rows int) {
		sum := func(kind, r int) int { return 8 + 4*kind + r }
		for kind := range 3 {
			for r := range rows {
				a.zero(sum(kind, r))
			}
		}
		a.countDown("R4", 16, func() {
			a.loadPairNext(0, 1, 5)
			for r := range rows {
				a.loadNext(16, 4+r, r)
			}
			a.v3(uzp1b, low, 0, 1)
			a.v3(uzp2b, high, 0, 1)
			a.v3(eor, low, low, offset)
			for kind, factor := range []int{low, high, ones} {
				for r := range rows {
					a.v3(sdot, sum(kind, r), 4+r, factor)
				}
			}
		})
		for r := range rows {
			a.v2(shl8, sum(1, r), sum(1, r))
			a.v2(shl7, sum(2, r), sum(2, r))
			a.v3(add, sum(0, r), sum(0, r), sum(1, r))
			a.v3(add, sum(0, r), sum(0, r), sum(2, r))
			a.fold(addv, 0, sum(0, r))
			a.storeNext(4, 0, 6)
		}
	})
}

// dotFloat scores rows of fp32 or fp16: eight lanes a row, folded like the twin.
func (a *assembly) dotFloat(name string, half bool) {
	kind, size := "float32", 4
	if half {
		kind, size = "uint16", 2
	}
	a.function(name, 48, "(rows *"+kind+", dim int, body int, head *float32, out *float32, n int)",
		"scores n rows over their first body elements, a multiple of 8 above 0; rows are dim apart.")
	a.rowsBy(size, func(rows int) {
		for i := range 2 * rows {
			a.zero(16 + i)
		}
		a.countDown("R4", 8, func() {
			a.loadPairNext(0, 1, 5)
			for r := range rows {
				if half {
					a.loadNext(16, 10+r, r)
					a.v2(fcvtlH, 2+2*r, 10+r)
					a.v2(fcvtlH2, 3+2*r, 10+r)
					continue
				}
				a.loadPairNext(2+2*r, 3+2*r, r)
			}
			for r := range rows {
				a.v3(fmla, 16+2*r, 2+2*r, 0)
				a.v3(fmla, 17+2*r, 3+2*r, 1)
			}
		})
		for r := range rows {
			a.foldLanes(16+2*r, 17+2*r, 0)
			a.storeNext(4, 16+2*r, 6)
		}
	})
}

func (a *assembly) halves() {
	a.function("fp16ToFp32NEON", 24, "(dst *float32, src *uint16, n int)", "converts n elements, a multiple of 8 above 0.")
	a.op("MOVD dst+0(FP), R0")
	a.op("MOVD src+8(FP), R1")
	a.op("MOVD n+16(FP), R2")
	a.countDown("R2", 8, func() {
		a.loadNext(16, 0, 1)
		a.v2(fcvtlH, 1, 0)
		a.v2(fcvtlH2, 2, 0)
		a.storePairNext(1, 2, 0)
	})
	a.op("RET")

	a.function("fp32ToFp16NEON", 24, "(dst *uint16, src *float32, n int)", "converts n elements, a multiple of 8 above 0, rounding to nearest even.")
	a.op("MOVD dst+0(FP), R0")
	a.op("MOVD src+8(FP), R1")
	a.op("MOVD n+16(FP), R2")
	a.countDown("R2", 8, func() {
		a.loadPairNext(0, 1, 1)
		a.v2(fcvtnH, 2, 0)
		a.v2(fcvtnH2, 2, 1)
		a.storeNext(16, 2, 0)
	})
	a.op("RET")
}

func (a *assembly) scores() {
	largest := math.Float64bits(math.MaxFloat32)
	a.table("largestFloat32", []uint32{uint32(largest & 0xffffffff), uint32(largest >> 32)})
	a.function("scoresNEON", 48, "(dst *float32, ints *int32, scales *float32, n int, scale float64, bias float64)",
		"sets dst[i] to ints[i]·(scales[i]·scale) + bias, kept within fp32, for n elements, a multiple of 4 above 0.")
	a.op("MOVD dst+0(FP), R0")
	a.op("MOVD ints+8(FP), R1")
	a.op("MOVD scales+16(FP), R2")
	a.op("MOVD n+24(FP), R3")
	a.op("FMOVD scale+32(FP), F28")
	a.op("FMOVD bias+40(FP), F29")
	a.op("FMOVD largestFloat32<>(SB), F30")
	a.op("FNEGD F30, F31")
	for v := 28; v < 32; v++ {
		a.dup2d(v, v)
	}
	a.countDown("R3", 4, func() {
		a.loadNext(16, 0, 1)
		a.loadNext(16, 1, 2)
		a.v2(sxtlS, 2, 0)
		a.v2(sxtlS2, 3, 0)
		a.v2(fcvtlS, 4, 1)
		a.v2(fcvtlS2, 5, 1)
		for i := range 2 {
			a.v2(scvtf2d, 2+i, 2+i)
			a.v3(fmul2d, 4+i, 4+i, 28)
			a.v3(fmul2d, 2+i, 2+i, 4+i)
			a.v3(fadd2d, 2+i, 2+i, 29)
			a.v3(fmin2d, 2+i, 2+i, 30)
			a.v3(fmax2d, 2+i, 2+i, 31)
		}
		a.v2(fcvtnS, 0, 2)
		a.v2(fcvtnS2, 0, 3)
		a.storeNext(16, 0, 0)
	})
	a.op("RET")
}

// gather scores scattered rows of codes under a query of codes. A chunk's slice
// is 24 bytes. Rows two ahead are prefetched.
func (a *assembly) gather() {
	for _, k := range []struct {
		name, doc string
		dot       bool
	}{
		{"dotInt8AtNEON", "sets out to the products of n rows with q over their first body codes, a multiple of 16 above 0; chunks points to slices of 1<<shift rows of dim codes.", false},
		{"dotInt8AtSDOT", "is dotInt8AtNEON by products of bytes.", true},
	} {
		a.function(k.name, 64, "(chunks *byte, shift int, dim int, body int, rows *uint32, n int, q *uint8, out *int32)", k.doc)
		for i, arg := range []string{"chunks", "shift", "dim", "body", "rows", "n", "q", "out"} {
			a.op("MOVD %s+%d(FP), R%d", arg, 8*i, i)
		}
		a.op("MOVD $24, R8")
		a.op("MOVD $1, R9")
		a.op("LSL R1, R9, R9")
		a.op("SUB $1, R9")
		address := func(to int) { // of the row whose number is there
			a.op("AND R9, R%d, R10", to)
			a.op("LSR R1, R%d, R%d", to, to)
			a.op("MADD R8, R0, R%d, R%d", to, to)
			a.op("MOVD (R%d), R%d", to, to)
			a.op("MADD R2, R%d, R10, R%d", to, to)
		}
		a.countDown("R5", 1, func() {
			last := a.fresh("last")
			a.op("CMP $2, R5")
			a.op("BLE %s", last)
			a.op("MOVWU 8(R4), R13")
			address(13)
			a.op("ADD R2, R13, R14")
			ahead := a.fresh("ahead")
			a.label(ahead)
			a.op("PRFM (R13), PLDL1KEEP")
			a.op("ADD $64, R13")
			a.op("CMP R14, R13")
			a.op("BLO %s", ahead)
			a.label(last)
			a.op("MOVWU.P 4(R4), R12")
			address(12)
			a.op("MOVD R6, R13")
			a.op("MOVD R3, R14")
			for i := range 2 {
				a.zero(16 + i)
			}
			a.countDown("R14", 16, func() {
				a.loadNext(16, 0, 12)
				a.loadNext(16, 1, 13)
				if k.dot {
					a.v3(sdot, 16, 0, 1)
					return
				}
				// A product is at most 2¹⁴, so pairs fit 16 bits only when
				// widened as they are added.
				a.v3(smull, 2, 0, 1)
				a.v3(smull2, 3, 0, 1)
				a.v2(sadalp, 16, 2)
				a.v2(sadalp, 17, 3)
			})
			a.v3(add, 16, 16, 17)
			a.fold(addv, 0, 16)
			a.storeNext(4, 0, 7)
		})
		a.op("RET")
	}
}

// binary scores 16 binary rows at a time: tbl looks up the sums of four
// dimensions for one byte of 16 rows, in two planes of bytes that are added up
// in 16 bits.
func (a *assembly) binary() {
	a.function("dotBinaryNEON", 48, "(rows *byte, stride int, words int, tables *byte, out *int32, n int)",
		"adds to n x 16 of out the sums of as many rows over words of their words, at most 32; groups of 16 rows are stride bytes apart.")
	for i, arg := range []string{"rows", "stride", "words", "tables", "out", "n"} {
		a.op("MOVD %s+%d(FP), R%d", arg, 8*i, i)
	}
	const nibble, lows, highs = 31, 16, 18
	a.bytes(nibble, 0x0f)
	a.countDown("R5", 1, func() {
		a.op("MOVD R0, R6")
		a.op("MOVD R3, R7")
		a.op("MOVD R2, R8")
		a.op("ADD R1, R0")
		for i := range 4 {
			a.zero(lows + i)
		}
		a.countDown("R8", 1, func() {
			a.loadFour(0, 6)
			a.op("ADD $64, R6")
			for half := range 2 {
				for p := range 4 {
					if half == 0 {
						a.v3(and, 4+p, p, nibble)
					} else {
						a.v2(ushrB4, 4+p, p)
					}
				}
				for plane, sum := range []int{lows, highs} {
					for p := range 4 {
						a.load(16, 8+p, 7, 128*half+64*plane+16*p)
						a.lookup(12+p, 8+p, 4+p)
					}
					for p := range 4 {
						a.v3(uaddw, sum, sum, 12+p)
						a.v3(uaddw2, sum+1, sum+1, 12+p)
					}
				}
			}
			a.op("ADD $256, R7")
		})
		for i := range 2 { // eight rows each
			for j, widen := range []two{ushllH8, ushllX8} {
				a.load(16, 0, 4, 0)
				a.v2(widen, 1, highs+i)
				a.v3(add, 0, 0, 1)
				if j == 0 {
					a.v3(waddl, 0, 0, lows+i)
				} else {
					a.v3(waddl2, 0, 0, lows+i)
				}
				a.storeNext(16, 0, 4)
			}
		}
	})
	a.op("RET")
}
