//go:build amd64 && !noasm

package simd

import "unsafe"

//go:generate go run ./gen/headtiles -out headtiles_amd64.s -stubs headtiles_amd64.go -pkg simd

// useTiles says whether heads are packed for tile registers.
func useTiles() bool { return impl == variantAMX }

// headTiles describes eight tiles of 16 rows of 64 bytes.
var headTiles = func() (c amxConfig) {
	c.set(amxRows, amxRows, amxRows, amxRows, amxRows, amxRows, amxRows, amxRows)
	return c
}()

func dotTiles(a []int8, lda int, b []uint32, steps, blocks, groups int, c []int32, ldc int, scratch *[4096]byte, ahead uintptr) {
	dotTilesAMX((*byte)(unsafe.Pointer(&headTiles)), (*byte)(unsafe.Pointer(&a[0])), lda, (*byte)(unsafe.Pointer(&b[0])), steps, blocks, groups, (*byte)(unsafe.Pointer(&c[0])), 4*ldc, &scratch[0], ahead)
}
