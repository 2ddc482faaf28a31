//go:build !amd64 || noasm

package simd

// useTiles: there are none here.
func useTiles() bool { return false }

func dotTiles([]int8, int, []uint32, int, int, int, []int32, int, *[4096]byte, uintptr) {}
