// Package simd holds the arithmetic every hot loop of Kindred runs on: matrix
// products for the encoder, row operations (softmax, GELU, layer norm) between
// them, and the scan kernels that score a population against a head.
//
// # Place in the flow
//
// embed packs a model's weights once with [PackB], [PackInt16] or [PackInt8] and
// then calls [MatMul] or [MatMulInt] per row tile, and [Attention] per text and
// head; index/rows uses [DotInt8], [DotInt8Heads], [DotFp16] and [DotFp32] per
// block of rows, and [HeadPanels] where there are many heads: up to 64 are then
// multiplied as one matrix. audience fits its models with [DotRows64] and
// [AddRows64]. Everything here runs on the calling goroutine: callers split
// rows, or with [MatMulColumns] and [MatMulIntColumns] columns, over cores.
//
// # Variants
//
// On amd64 each kernel exists as AVX2+FMA assembly (written by the generator in
// gen), as AVX-512 assembly where that is faster, with VNNI and, for the integer
// products and many heads at once, with AMX (gen/amx, gen/headtiles) where the
// machine has them. On arm64 each exists as NEON assembly (written by gen/neon),
// with the products of bytes of FEAT_DotProd where the machine has them. A plain
// Go twin stays the oracle of the tests and serves every other machine. [Features]
// names the variant in use. The environment variable KINDRED_SIMD=go forces the
// twin, KINDRED_SIMD=avx2 forbids AVX-512, KINDRED_SIMD=avx512 forbids VNNI,
// KINDRED_SIMD=vnni forbids AMX and KINDRED_SIMD=neon forbids products of bytes;
// it is read once, when the process starts. The build tag noasm removes the
// assembly.
//
// # Integers
//
// [PackInt16] and [PackInt8] choose scales with which no int32 sum can overflow
// whatever the activations are, and check it on the packed integers. Activations
// are quantised row by row and slice by slice of K when they arrive, see
// [Quantised]; sums are exact, and what follows is in fp32 in a fixed order.
//
// # Determinism
//
// Within one variant a result depends only on its own operands: an element of
// C is one accumulator, updated over k = 0..K-1 in order, whatever the number
// of rows or the element's place in its tile; reductions use a lane order fixed
// by the length alone. So a text embeds to the same bits alone and in any batch.
// The AVX2, AVX-512 and NEON matrix kernels agree bit for bit; the twin may round
// each multiplication and so agrees to within K·2⁻²³ of Σ|a·b|. The integer
// kernels and the fp16 conversions give the same bits in every variant.
//
// # Misuse
//
// Shapes are checked against slice lengths before any assembly runs. A shape
// that does not fit is a mistake of the calling code, never of a user, and
// stops like an index out of range.
package simd

//go:generate go run ./gen -out kernels_amd64.s -stubs kernels_amd64.go -pkg simd
//go:generate go run ./gen/neon -out kernels_arm64.s -stubs kernels_arm64.go
