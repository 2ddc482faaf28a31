//go:build !amd64 || noasm || !linux

package simd

import "unsafe"

func useAMX() bool { return false }

func dotTiles([]int8, int, []uint32, int, int, int, []int32, int, *[4096]byte, unsafe.Pointer) {}
