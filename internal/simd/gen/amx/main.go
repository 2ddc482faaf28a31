// Command amx writes the assembly of the matrix kernels for AMX and of what
// prepares their operands. Run it with go generate in internal/simd; a test
// compares the committed files.
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"   //nolint:revive,staticcheck // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into simd's intTile struct.
const (
	argC      = 0
	argA      = 24
	argB      = 48
	argInit   = 72
	argBias   = 96
	argScaleB = 120
	argScaleA = 144
	argStart  = 168
	argLdc    = 192
	argLda    = 200
	argLdi    = 208
	argGroups = 216
	argRows   = 224
	argLds    = 232
	argWork   = 256
	argPanels = 264
	argNext   = 272
)

// Offsets into simd's amxWork struct. The kernels keep how far they are in the
// state, where the collector does not look for pointers.
const (
	workConfig  = 0
	workStep    = 64 // rows of a unit
	stateRows   = 80 // left in the column
	statePanels = 88 // left
	stateHalf   = 96 // the right half of a panel is being done
	stateTop    = 104
	stateNow    = 120 // place of the unit whose products run
	statePast   = 184
	workBuffer  = 256 // 4 KiB and a cache line
)

// A place is where one unit starts in each operand.
const (
	placeC     = 0
	placeA     = 8
	placeInit  = 16
	placeScale = 24 // of A
	placeB     = 32
	placeBias  = 40
	placeWidth = 48 // scales of B
	placeStart = 56
	placeEnd   = 64
)

// Fixed registers of the instructions written as bytes.
var (
	rowsA, lda   = reg.RSI, reg.R8
	panel, ldb   = reg.RDX, reg.R9
	buffer, line = reg.R11, reg.R12
	work         = reg.R10
	args         = reg.RDI
)

const (
	tileBytes = 1024
	panelLine = 128 // bytes of one group of a panel: 32 columns
)

func main() {
	ConstraintExpr("!noasm")
	tileInt16()
	tileInt8()
	quantise()
	ceiling()
	Generate()
}

func ptr(param string) reg.Register { return Load(Param(param), GP64()) }

func field(base reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: base, Disp: offset}, r)
	return r
}

// bytesOf loads a stride in elements of four bytes.
func bytesOf(offset int) reg.GPVirtual {
	r := field(args, offset)
	SHLQ(Imm(2), r)
	return r
}

// kernel is a walk over the columns of one or more panels and down the rows of
// each, unit by unit. The epilogue of one unit stands behind the products of
// the next, which run for so long that the processor does both at a time.
type kernel struct {
	name, doc string
	// columns of a unit: 32, or 16, where the walk goes down the left half of
	// a panel and then down the right.
	columns int
	// products of a unit's part, and where its sums go. An epilogue belongs to
	// each part; parts are side by side.
	parts    int
	products func(part int)
	store    func()
	epilogue epilogue
}

func (k kernel) emit() {
	TEXT(k.name, attr.NOSPLIT, "func(t *byte)")
	Pragma("noescape")
	Doc(k.doc, "It sets up the tile registers and releases them before it returns, and nothing can be scheduled in between.")
	Load(Param("t"), args)
	MOVQ(Mem{Base: args, Disp: argWork}, work)
	loadConfig(work)
	put := func(from, to int) { MOVQ(field(args, from), Mem{Base: work, Disp: to}) }
	put(argRows, stateRows)
	put(argPanels, statePanels)
	put(argC, stateTop)
	put(argInit, stateTop+8)
	for _, f := range [][2]int{
		{argC, placeC}, {argA, placeA}, {argInit, placeInit}, {argScaleA, placeScale},
		{argB, placeB}, {argBias, placeBias}, {argScaleB, placeWidth}, {argStart, placeStart},
	} {
		put(f[0], stateNow+f[1])
	}
	MOVQ(U32(0), Mem{Base: work, Disp: stateHalf})
	MOVQ(U32(0), Mem{Base: work, Disp: statePast + placeC})
	LEAQ(Mem{Base: work, Disp: workBuffer + 63}, buffer)
	ANDQ(I8(-64), buffer)

	Label("unit")
	for part := range k.parts {
		k.operands(part)
		k.products(part)
		e := k.epilogue
		if part > 0 {
			e.name, e.place, e.columns = fmt.Sprintf("part%d", part-1), stateNow, 64*(part-1)
			e.emit()
		} else {
			Label("past")
			CMPQ(Mem{Base: work, Disp: statePast + placeC}, Imm(0))
			JEQ(LabelRef("first"))
			e.name, e.place, e.columns = "last", statePast, 64*(k.parts-1)
			e.emit()
			CMPQ(Mem{Base: work, Disp: statePanels}, Imm(0))
			JLE(LabelRef("done"))
			Label("first")
		}
		k.store()
	}
	k.next()
	Label("done")
	tileRelease()
	VZEROUPPER()
	RET()
}

// operands points to the rows of A that are next and to the panel.
func (k kernel) operands(part int) {
	MOVQ(Mem{Base: work, Disp: stateNow + placeA}, rowsA)
	MOVQ(Mem{Base: args, Disp: argLda}, lda)
	SHLQ(Imm(2), lda)
	MOVQ(Mem{Base: work, Disp: stateNow + placeB}, panel)
	if part > 0 {
		ADDQ(U32(uint32(64*part)), panel)
	}
	MOVQ(U32(panelLine), ldb)
}

// next goes on with the next unit; after the last it goes to where only the
// epilogue of that is left to do.
func (k kernel) next() {
	for at := 0; at < placeEnd; at += 8 {
		if at != placeA && at != placeB {
			MOVQ(field(work, stateNow+at), Mem{Base: work, Disp: statePast + at})
		}
	}
	step := field(work, workStep)
	SUBQ(step, Mem{Base: work, Disp: stateRows})
	JLE(LabelRef("column"))
	down := func(place, ld int) {
		d := bytesOf(ld)
		IMULQ(step, d)
		ADDQ(d, Mem{Base: work, Disp: stateNow + place})
	}
	down(placeC, argLdc)
	down(placeA, argLda)
	down(placeInit, argLdi) // without an init it is not read, like other operands
	down(placeScale, argLds)
	JMP(LabelRef("unit"))

	Label("column")
	put := func(base reg.Register, from, to int) { MOVQ(field(base, from), Mem{Base: work, Disp: to}) }
	wide := 4 * k.columns
	to := field(args, argNext)
	if k.columns == 16 {
		// After the left half the right one of the same panel, then the next panel.
		right, one := GP64(), GP64()
		MOVQ(U32(uint32(wide)), right)
		MOVQ(U32(1), one)
		SUBQ(right, to)
		XORQ(one, Mem{Base: work, Disp: stateHalf})
		CMOVQNE(right, to)
		JNE(LabelRef("same"))
	}
	SUBQ(Imm(1), Mem{Base: work, Disp: statePanels})
	JLE(LabelRef("past"))
	if k.columns == 16 {
		Label("same")
	}
	ADDQ(to, Mem{Base: work, Disp: stateNow + placeB})
	for _, at := range []int{stateTop, stateTop + 8, stateNow + placeBias, stateNow + placeWidth, stateNow + placeStart} {
		ADDQ(U32(uint32(wide)), Mem{Base: work, Disp: at})
	}
	put(work, stateTop, stateNow+placeC)
	put(work, stateTop+8, stateNow+placeInit)
	put(args, argA, stateNow+placeA)
	put(args, argScaleA, stateNow+placeScale)
	put(args, argRows, stateRows)
	JMP(LabelRef("unit"))
}

// depth is the loop over K, a step of which has the given groups; it is unrolled
// for each way of assigning registers.
func depth(label string, groups int, steps ...func()) {
	k := field(args, argGroups)
	Label(label)
	for i, step := range steps {
		step()
		SUBQ(U32(uint32(groups)), k)
		if i < len(steps)-1 {
			JEQ(LabelRef(label + "End"))
		}
	}
	JNE(LabelRef(label))
	if len(steps) > 1 {
		Label(label + "End")
	}
}

// tileInt16 is the kernel of int16 operands held as two planes of bytes: the high
// ones signed, the low ones unsigned, so that a·b is hh·2¹⁶ + (hl+lh)·2⁸ + ll.
// The sums are exact modulo 2³², and so is what they are put together to, which
// fits int32 by the proof at packing.
func tileInt16() {
	const plane = 16 * panelLine
	step := func(high int) func() {
		return func() {
			tileLoad(6, panel, ldb, 0)
			tileLoad(high, rowsA, lda, 0)
			dotSS.tiles(0, high, 6)
			tileLoad(5, rowsA, lda, 64)
			dotUS.tiles(1, 5, 6)
			tileLoad(7, panel, ldb, plane)
			dotUU.tiles(2, 5, 7)
			dotSU.tiles(1, high, 7)
			ADDQ(U32(128), rowsA)
			ADDQ(U32(2*plane), panel)
		}
	}
	kernel{
		name: "tileInt16AMX", doc: "tileInt16AMX computes int16 operands split into bytes; t points to an intTile.",
		columns: 32, parts: 2,
		products: func(part int) {
			for i := range 3 {
				tileZero(i)
			}
			depth(fmt.Sprintf("depth%d", part), 32, step(3), step(4))
		},
		store: func() {
			MOVQ(U32(64), line)
			for i := range 3 {
				tileStore(i, buffer, line, i*tileBytes)
			}
		},
		epilogue: epilogue{vectors: 1, stride: 64, sum: func(at Mem, _ int) reg.VecVirtual {
			z := ZMM()
			VMOVDQU32(at, z)
			VPSLLD(Imm(8), z, z)
			VPADDD(at.Offset(tileBytes), z, z)
			VPSLLD(Imm(8), z, z)
			VPADDD(at.Offset(2*tileBytes), z, z)
			return z
		}},
	}.emit()
}

// tileInt8 has one tile of rows and both halves of a panel.
func tileInt8() {
	step := func(a, left, right int) func() {
		return func() {
			tileLoad(a, rowsA, lda, 0)
			tileLoad(left, panel, ldb, 0)
			dotUS.tiles(0, a, left)
			tileLoad(right, panel, ldb, 64)
			dotUS.tiles(1, a, right)
			ADDQ(U32(64), rowsA)
			ADDQ(U32(16*panelLine), panel)
		}
	}
	kernel{
		name: "tileInt8AMX", doc: "tileInt8AMX computes unsigned bytes of A times signed bytes of B; t points to an intTile.",
		columns: 32, parts: 1,
		products: func(int) {
			tileZero(0)
			tileZero(1)
			depth("depth", 16, step(2, 3, 4), step(5, 6, 7))
		},
		store: func() {
			MOVQ(U32(panelLine), line)
			tileStore(0, buffer, line, 0)
			tileStore(1, buffer, line, 64)
		},
		epilogue: epilogue{vectors: 2, stride: panelLine, start: true, sum: plainSum},
	}.emit()
}

func plainSum(at Mem, i int) reg.VecVirtual {
	z := ZMM()
	VMOVDQU32(at.Offset(64*i), z)
	return z
}

// epilogue writes rows of c = (init + bias) + float(start + sum)·scaleB·scaleA,
// each operation rounded in the order of the twin.
type epilogue struct {
	name    string
	place   int // in the state
	vectors int // of sixteen columns
	columns int // bytes to the first column
	stride  int // bytes of a row of the buffer
	start   bool
	// sum loads vector i of the row at at.
	sum func(at Mem, i int) reg.VecVirtual
}

func (e epilogue) emit() {
	label := func(s string) string { return e.name + s }
	c := field(work, e.place+placeC)
	ldc := bytesOf(argLdc)
	at := GP64()
	MOVQ(buffer, at)
	n := field(work, workStep)
	bias, scaleB, start := make([]reg.VecVirtual, e.vectors), make([]reg.VecVirtual, e.vectors), make([]reg.VecVirtual, e.vectors)
	for i := range e.vectors {
		bias[i], scaleB[i], start[i] = ZMM(), ZMM(), ZMM()
		VPXORD(bias[i], bias[i], bias[i])
	}
	load := func(place int, v []reg.VecVirtual) {
		m := Mem{Base: field(work, e.place+place), Disp: e.columns}
		for i := range v {
			VMOVUPS(m.Offset(64*i), v[i])
		}
	}
	CMPQ(Mem{Base: args, Disp: argBias + 8}, Imm(0))
	JEQ(LabelRef(label("Bias")))
	load(placeBias, bias)
	Label(label("Bias"))
	load(placeWidth, scaleB)
	scaleA, lds := field(work, e.place+placeScale), bytesOf(argLds)
	if e.start {
		load(placeStart, start)
	}
	value := func(i int) reg.VecVirtual {
		z := e.sum(Mem{Base: at}, i)
		if e.start {
			VPADDD(start[i], z, z)
		}
		VCVTDQ2PS(z, z)
		VMULPS(scaleB[i], z, z)
		VMULPS_BCST(Mem{Base: scaleA}, z, z)
		return z
	}
	step := func() {
		ADDQ(ldc, c)
		ADDQ(U32(uint32(e.stride)), at)
		ADDQ(lds, scaleA)
		SUBQ(Imm(1), n)
	}
	CMPQ(Mem{Base: args, Disp: argInit + 8}, Imm(0))
	JEQ(LabelRef(label("Fresh")))
	init, ldi := field(work, e.place+placeInit), bytesOf(argLdi)
	Label(label("Add"))
	for i := range e.vectors {
		base := ZMM()
		VADDPS(Mem{Base: init, Disp: e.columns + 64*i}, bias[i], base)
		VADDPS(value(i), base, base)
		VMOVUPS(base, Mem{Base: c, Disp: e.columns + 64*i})
	}
	ADDQ(ldi, init)
	step()
	JNE(LabelRef(label("Add")))
	JMP(LabelRef(label("End")))
	Label(label("Fresh"))
	for i := range e.vectors {
		z := value(i)
		VADDPS(z, bias[i], z)
		VMOVUPS(z, Mem{Base: c, Disp: e.columns + 64*i})
	}
	step()
	JNE(LabelRef(label("Fresh")))
	Label(label("End"))
}

// ceiling runs products of whole tiles with nothing else.
func ceiling() {
	TEXT("ceilingInt8AMX", attr.NOSPLIT, "func(n int, config *byte)")
	Pragma("noescape")
	Doc("ceilingInt8AMX runs n rounds of 24 products of two tiles of bytes.")
	n := ptr("n")
	Load(Param("config"), work)
	loadConfig(work)
	for i := range 8 {
		tileZero(i)
	}
	Label("loop")
	for i := range 24 {
		dotSS.tiles(i%6, 6, 7)
	}
	SUBQ(Imm(1), n)
	JNE(LabelRef("loop"))
	tileRelease()
	RET()
}
