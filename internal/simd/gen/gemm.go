package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into simd's tile struct.
const (
	tileC     = 0
	tileA     = 24
	tileB     = 48
	tileInit  = 72
	tileBias  = 96
	tileLdc   = 120
	tileLda   = 128
	tileLdb   = 136
	tileLdi   = 144
	tileK     = 152
	tileRows  = 160
	tileAhead = 176
	tileLines = 184
)

// microKernel describes one family of tiles: up to rows rows of two vectors.
type microKernel struct {
	name    string
	rows    int
	bytes   int // of one vector
	acc     func(row, half int) reg.VecPhysical
	b       [2]reg.VecPhysical
	scratch [2]reg.VecPhysical
	zero    func(reg.VecPhysical)
}

var ymm = []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
	reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
}

var zmm = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
	reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// gemmAVX2 fills the 16 registers: 6 x 2 accumulators, 2 of B, 2 broadcasts.
func gemmAVX2() {
	microKernel{
		name: "tileAVX2", rows: 6, bytes: 32,
		acc:     func(r, h int) reg.VecPhysical { return ymm[2*r+h] },
		b:       [2]reg.VecPhysical{ymm[12], ymm[13]},
		scratch: [2]reg.VecPhysical{ymm[14], ymm[15]},
		zero:    func(v reg.VecPhysical) { VXORPS(v, v, v) },
	}.emit("tileAVX2 computes a tile of up to 6 rows and 16 columns; t points to a tile.")
}

// gemmAVX512 has 12 x 2 accumulators of 16 lanes: half the instructions for the
// same products, which is what counts where 512-bit units are full width.
func gemmAVX512() {
	microKernel{
		name: "tileAVX512", rows: 12, bytes: 64,
		acc:     func(r, h int) reg.VecPhysical { return zmm[2*r+h] },
		b:       [2]reg.VecPhysical{zmm[24], zmm[25]},
		scratch: [2]reg.VecPhysical{zmm[26], zmm[27]},
		zero:    func(v reg.VecPhysical) { VPXORD(v, v, v) },
	}.emit("tileAVX512 computes a tile of up to 12 rows and 32 columns; t points to a tile.")
}

func (m microKernel) emit(doc string) {
	function(m.name, "func(t *byte)", doc)
	t := ptr("t")
	for r := m.rows; r > 1; r-- {
		CMPQ(Mem{Base: t, Disp: tileRows}, Imm(uint64(r)))
		JEQ(LabelRef(fmt.Sprintf("rows%d", r)))
	}
	for r := 1; r <= m.rows; r++ {
		Label(fmt.Sprintf("rows%d", r))
		m.body(t, r)
	}
}

// rowPointers returns one operand per row, using a base register per three
// rows and the stride as index.
func rowPointers(base, stride reg.Register, rows int) []Mem {
	var out []Mem
	stride3 := GP64()
	if rows > 3 {
		LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	}
	for r := 0; r < rows; r += 3 {
		if r > 0 {
			next := GP64()
			LEAQ(Mem{Base: base, Index: stride3, Scale: 1}, next)
			base = next
		}
		out = append(out, Mem{Base: base}, Mem{Base: base, Index: stride, Scale: 1}, Mem{Base: base, Index: stride, Scale: 2})
	}
	return out[:rows]
}

func field(t reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: t, Disp: offset}, r)
	return r
}

// stride loads an element count and turns it into bytes.
func stride(t reg.Register, offset int) reg.GPVirtual {
	r := field(t, offset)
	SHLQ(Imm(2), r)
	return r
}

// fetcher asks for the share of a tile in the panel that comes next; see simd's
// tile.
type fetcher struct{ ahead, bytes reg.Register }

func newFetcher(t reg.Register, ahead, lines int) fetcher {
	return fetcher{field(t, ahead), field(t, lines)}
}

// fetch asks for one line, four or eight.
func (f fetcher) fetch(done string, prefetch func(Op)) {
	prefetch(Mem{Base: f.ahead})
	CMPQ(f.bytes, Imm(64))
	JEQ(LabelRef(done))
	for l := 1; l < 4; l++ {
		prefetch(Mem{Base: f.ahead, Disp: 64 * l})
	}
	CMPQ(f.bytes, U32(256))
	JEQ(LabelRef(done))
	for l := 4; l < 8; l++ {
		prefetch(Mem{Base: f.ahead, Disp: 64 * l})
	}
	Label(done)
	ADDQ(f.bytes, f.ahead)
}

func (m microKernel) body(t reg.Register, rows int) {
	label := func(s string) string { return fmt.Sprintf("%s%d", s, rows) }
	// Start: init or zero, then bias.
	CMPQ(Mem{Base: t, Disp: tileInit + 8}, Imm(0))
	JEQ(LabelRef(label("zero")))
	from := rowPointers(field(t, tileInit), stride(t, tileLdi), rows)
	for r := range rows {
		VMOVUPS(from[r], m.acc(r, 0))
		VMOVUPS(from[r].Offset(m.bytes), m.acc(r, 1))
	}
	JMP(LabelRef(label("bias")))
	Label(label("zero"))
	for r := range rows {
		m.zero(m.acc(r, 0))
		m.zero(m.acc(r, 1))
	}
	Label(label("bias"))
	CMPQ(Mem{Base: t, Disp: tileBias + 8}, Imm(0))
	JEQ(LabelRef(label("start")))
	bias := Mem{Base: field(t, tileBias)}
	VMOVUPS(bias, m.b[0])
	VMOVUPS(bias.Offset(m.bytes), m.b[1])
	for r := range rows {
		VADDPS(m.b[0], m.acc(r, 0), m.acc(r, 0))
		VADDPS(m.b[1], m.acc(r, 1), m.acc(r, 1))
	}

	Label(label("start"))
	k := field(t, tileK)
	b := field(t, tileB)
	ldb := stride(t, tileLdb)
	lda := stride(t, tileLda)
	a := rowPointers(field(t, tileA), lda, rows)
	next := newFetcher(t, tileAhead, tileLines)
	step := func(l int) {
		VMOVUPS(Mem{Base: b}, m.b[0])
		VMOVUPS(Mem{Base: b, Disp: m.bytes}, m.b[1])
		ADDQ(ldb, b)
		for r := range rows {
			s := m.scratch[r&1]
			VBROADCASTSS(a[r].Offset(4*l), s)
			VFMADD231PS(m.b[0], s, m.acc(r, 0))
			VFMADD231PS(m.b[1], s, m.acc(r, 1))
		}
	}
	advance := func(n int) {
		for r := 0; r < rows; r += 3 {
			ADDQ(Imm(uint64(4*n)), a[r].Base)
		}
	}
	const unroll = 4
	SUBQ(Imm(unroll), k)
	JL(LabelRef(label("tail")))
	Label(label("loop"))
	for l := range unroll {
		step(l)
	}
	// Two panels of 24 KiB have room in L1, of 48 KiB in L2.
	if m.bytes == 64 {
		next.fetch(label("fetched"), PREFETCHT1)
	} else {
		next.fetch(label("fetched"), PREFETCHT0)
	}
	advance(unroll)
	SUBQ(Imm(unroll), k)
	JGE(LabelRef(label("loop")))
	Label(label("tail"))
	ADDQ(Imm(unroll), k)
	JEQ(LabelRef(label("store")))
	Label(label("single"))
	step(0)
	advance(1)
	SUBQ(Imm(1), k)
	JNE(LabelRef(label("single")))

	Label(label("store"))
	to := rowPointers(field(t, tileC), stride(t, tileLdc), rows)
	for r := range rows {
		VMOVUPS(m.acc(r, 0), to[r])
		VMOVUPS(m.acc(r, 1), to[r].Offset(m.bytes))
	}
	VZEROUPPER()
	RET()
}

// packTransposed turns 16 rows into columns, eight rows by eight at a time.
func packTransposed() {
	function("packTransposedAVX2", "func(dst, src *float32, stride, depth, width int)",
		"packTransposedAVX2 writes src[j*stride+l] to dst[l*width+j] for j < 16 and l < depth, a multiple of 8.")
	dst, src, ld, depth, width := ptr("dst"), ptr("src"), ptr("stride"), ptr("depth"), ptr("width")
	SHLQ(Imm(2), ld)
	SHLQ(Imm(2), width)
	other := GP64()
	LEAQ(Mem{Base: src, Index: ld, Scale: 8}, other)
	Label("block")
	for half, base := range []reg.Register{src, other} {
		rows := rowPointers(base, ld, 8)
		in := make([]reg.VecVirtual, 8)
		for i := range in {
			in[i] = YMM()
			VMOVUPS(rows[i], in[i])
		}
		// Pairs of rows, then pairs of pairs, within each 128-bit half.
		pair := make([]reg.VecVirtual, 8)
		for i := 0; i < 8; i += 2 {
			pair[i], pair[i+1] = YMM(), YMM()
			VUNPCKLPS(in[i+1], in[i], pair[i])
			VUNPCKHPS(in[i+1], in[i], pair[i+1])
		}
		quad := make([]reg.VecVirtual, 8) // quad[4*g+c]: rows 4g..4g+3, column c (and c+4)
		for g := range 2 {
			for c := range 4 {
				q := YMM()
				lo, hi := pair[4*g+c/2], pair[4*g+2+c/2]
				if c%2 == 0 {
					VUNPCKLPD(hi, lo, q)
				} else {
					VUNPCKHPD(hi, lo, q)
				}
				quad[4*g+c] = q
			}
		}
		to := rowPointers(dst, width, 8)
		for c := range 4 {
			y := YMM()
			VPERM2F128(Imm(0x20), quad[4+c], quad[c], y)
			VMOVUPS(y, to[c].Offset(half*32))
			VPERM2F128(Imm(0x31), quad[4+c], quad[c], y)
			VMOVUPS(y, to[c+4].Offset(half*32))
		}
	}
	ADDQ(Imm(32), src)
	ADDQ(Imm(32), other)
	LEAQ(Mem{Base: dst, Index: width, Scale: 8}, dst)
	SUBQ(Imm(8), depth)
	JNE(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// ceilings are what every benchmark is set against: twelve (256 bits) or
// twenty-four (512 bits) independent accumulators and nothing else.
func ceilings() {
	loop := func(name string, acc []reg.VecPhysical, a, b reg.VecPhysical, what string, zero, step func(v reg.VecPhysical)) {
		function(name, "func(n int)", fmt.Sprintf("%s runs n rounds of %d independent %s.", name, len(acc), what))
		n := ptr("n")
		for _, v := range append([]reg.VecPhysical{a, b}, acc...) {
			zero(v)
		}
		Label("loop")
		for _, v := range acc {
			step(v)
		}
		SUBQ(Imm(1), n)
		JNE(LabelRef("loop"))
		VZEROUPPER()
		RET()
	}
	narrow := func(v reg.VecPhysical) { VXORPS(v, v, v) }
	wide := func(v reg.VecPhysical) { VPXORD(v, v, v) }
	loop("ceilingFP32AVX2", ymm[:12], ymm[12], ymm[13], "FMAs of eight lanes", narrow,
		func(v reg.VecPhysical) { VFMADD231PS(ymm[12], ymm[13], v) })
	loop("ceilingInt16AVX2", ymm[:12], ymm[12], ymm[13], "vpmaddwd and vpaddd of sixteen int16", narrow,
		func(v reg.VecPhysical) { VPMADDWD(ymm[12], ymm[13], ymm[14]); VPADDD(ymm[14], v, v) })
	loop("ceilingFP32AVX512", zmm[:24], zmm[24], zmm[25], "FMAs of sixteen lanes", wide,
		func(v reg.VecPhysical) { VFMADD231PS(zmm[24], zmm[25], v) })
	turn := 0
	loop("ceilingInt16AVX512", zmm[:24], zmm[24], zmm[25], "vpmaddwd and vpaddd of 32 int16", wide,
		func(v reg.VecPhysical) {
			p := zmm[26+turn%4]
			turn++
			VPMADDWD(zmm[24], zmm[25], p)
			VPADDD(p, v, v)
		})
	loop("ceilingInt16VNNI", zmm[:24], zmm[24], zmm[25], "vpdpwssd of 32 int16", wide,
		func(v reg.VecPhysical) { vnni("VPDPWSSD", zmm[24], zmm[25], v) })
	loop("ceilingInt8VNNI", zmm[:24], zmm[24], zmm[25], "vpdpbusd of 64 bytes", wide,
		func(v reg.VecPhysical) { vnni("VPDPBUSD", zmm[24], zmm[25], v) })
}

func cpuid() {
	TEXT("hasF16C", attr.NOSPLIT, "func() bool")
	Doc("hasF16C reports CPUID.1:ECX bit 29, the fp16 conversions.")
	MOVL(U32(1), reg.EAX)
	XORL(reg.ECX, reg.ECX)
	CPUID()
	SHRL(Imm(29), reg.ECX)
	ANDL(Imm(1), reg.ECX)
	Store(reg.CL, ReturnIndex(0))
	RET()
}
