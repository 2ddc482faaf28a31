//go:build !linux

package rows

// hugePages asks for large pages where a process can; here it cannot.
func hugePages[T any]([]T) {}
