package ingest

import (
	"fmt"
	"syscall"
)

// limitAddressSpace makes the kernel refuse this process more than n bytes.
func limitAddressSpace(n uint64) error {
	limit := syscall.Rlimit{Cur: n, Max: n}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}
