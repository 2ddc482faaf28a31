package hugepages

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the usual size of a large page. Another size makes the advice
// below less exact, no more.
const pageSize = 2 << 20

// Advise asks the system for large pages under b, which a scan reads from one
// end to the other: fewer entries of the page tables to look up, fewer faults
// when it is filled. The range is rounded outwards, into the heap that lies
// around it. It is advice: where the system has none to give, or gives them only
// to all or to nobody, nothing changes.
func Advise[T any](b []T) {
	size := uintptr(len(b)) * unsafe.Sizeof(*new(T))
	if size < pageSize {
		return
	}
	// Numbers, not pointers: the range begins in memory that may be no object, which a
	// pointer must not point to while the collector looks.
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	start := p &^ (pageSize - 1)
	end := (p + size + pageSize - 1) &^ (pageSize - 1)
	// An error says that the kernel has no large pages, or that a part of the
	// range is not the heap's.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_HUGEPAGE)
	runtime.KeepAlive(b)
}
