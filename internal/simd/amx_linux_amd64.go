//go:build !noasm

package simd

import "syscall"

// permitTiles asks the kernel for the right to use the tile registers
// (https://docs.kernel.org/arch/x86/xstate.html). A kernel that does not know
// them, or that was started without, refuses.
func permitTiles() bool {
	const (
		requestPermission = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData          = 18     // XFEATURE_XTILE_DATA
	)
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return errno == 0
}
