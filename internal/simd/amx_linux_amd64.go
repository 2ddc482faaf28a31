//go:build !noasm

package simd

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

//go:generate go run ./gen/amx -out amx_amd64.s -stubs amx_amd64.go -pkg simd

// amxAllowed asks the kernel once for the tile registers, which a process must do before
// it uses them. KINDRED_SIMD=vnni leaves them alone.
var amxAllowed = sync.OnceValue(func() bool {
	const requestPermission, tileData = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXInt8 || os.Getenv("KINDRED_SIMD") == "vnni" {
		return false
	}
	_, _, fault := unix.RawSyscall(unix.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return fault == 0
})

// useAMX says whether heads are packed for tiles. noAMX is for tests.
func useAMX() bool { return impl == variantVNNI && !noAMX && amxAllowed() }

var noAMX bool

// amxConfig describes eight tiles of 16 rows of 64 bytes.
var amxConfig = func() (c [64]byte) {
	c[0] = 1 // the palette
	for t := range 8 {
		c[16+2*t], c[48+t] = 64, 16
	}
	return c
}()

func dotTiles(a []int8, lda int, b []uint32, steps, blocks, groups int, c []int32, ldc int, scratch *[4096]byte, ahead unsafe.Pointer) {
	dotTilesAMX(&amxConfig[0], (*byte)(unsafe.Pointer(&a[0])), lda, (*byte)(unsafe.Pointer(&b[0])), steps, blocks, groups, (*byte)(unsafe.Pointer(&c[0])), 4*ldc, &scratch[0], (*byte)(ahead))
}
