//go:build (!amd64 && !arm64) || noasm

package simd

func dotBinary(rows []byte, h *BinaryHead, out []int32) { dotBinaryGo(rows, h, out) }
