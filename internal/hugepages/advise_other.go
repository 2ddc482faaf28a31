//go:build !linux

package hugepages

// Advise asks for large pages where a process can; here it cannot.
func Advise[T any]([]T) {}
