// Command gen writes the assembly of package simd and its Go declarations. Run
// it with go generate in internal/simd; a test compares the committed files.
//
// One file per family: gemm.go and gemmint.go (micro-kernels), rowops.go and
// wide.go (row operations of 256 and 512 bits), scan.go (row scores and fp16).
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"   //nolint:revive,staticcheck // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive,staticcheck // as above
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	gemmAVX2()
	gemmAVX512()
	gemmInt16AVX2()
	gemmIntAVX512()
	quantise()
	quantiseWide()
	geluWide()
	softmaxWide()
	packTransposed()
	gelu()
	softmax()
	reductions()
	elementwise()
	dotInt8()
	dotFloat("dotFp32AVX2", 4, func(m Mem, dst reg.VecVirtual) { VMOVUPS(m, dst) })
	dotFloat("dotFp16AVX2", 2, func(m Mem, dst reg.VecVirtual) { VCVTPH2PS(m, dst) })
	halves()
	scores()
	ceilings()
	cpuid()
	Generate()
}

// function opens one kernel: no stack, arguments that do not escape.
func function(name, signature string, doc ...string) {
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc...)
}

func ptr(param string) reg.Register {
	return Load(Param(param), GP64())
}

// vector32 places eight copies of an fp32 bit pattern in read-only memory.
func vector32(name string, bits uint32) Mem {
	m := GLOBL(name, attr.RODATA|attr.NOPTR)
	for i := range 8 {
		DATA(i*4, U32(bits))
	}
	return m
}

// foldLanes leaves in lane 0 the sum of eight lanes: halves, then pairs.
func foldLanes(y reg.VecVirtual) reg.VecVirtual {
	hi := XMM()
	VEXTRACTF128(Imm(1), y, hi)
	lo := XMM()
	VADDPS(y.AsX(), hi, lo)
	VMOVHLPS(lo, lo, hi)
	VADDPS(lo, hi, lo)
	VMOVSHDUP(lo, hi)
	VADDSS(lo, hi, lo)
	return lo
}
