// Package convert turns vectors on a CUDA device into bytes with a scale, halves and
// back, and takes checksums of a device's memory.
//
// Every result has the bits that the CPU gives: of rows.EncodeVector, of the
// conversions of internal/simd, and of CRC-32C. [QuantiseOn], [ToHalfOn], [FromHalfOn]
// and [Checksum] work on memory of the device; [Quantise], [ToHalf] and [FromHalf] carry
// slices there and back, a tile at a time.
//
// The kernels are in cuda/kernels/convert.cu.
package convert
