package rows

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the usual size of a large page. Another size makes the advice
// below less exact, no more.
const hugePage = 2 << 20

// hugePages asks the system for large pages under b, which a scan reads from one
// end to the other: fewer entries of the page tables to look up, fewer faults
// when it is filled. The range is rounded outwards, into the heap that lies
// around it. It is advice: where the system has none to give, or gives them only
// to all or to nobody, nothing changes.
func hugePages[T any](b []T) {
	size := uintptr(len(b)) * unsafe.Sizeof(*new(T))
	if size < hugePage {
		return
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	off := uintptr(p) & (hugePage - 1)
	start := unsafe.Add(p, -int(off))
	end := (off + size + hugePage - 1) &^ (hugePage - 1)
	// An error says that the kernel has no large pages, or that a part of the
	// range is not the heap's.
	_ = unix.Madvise(unsafe.Slice((*byte)(start), end), unix.MADV_HUGEPAGE)
}
