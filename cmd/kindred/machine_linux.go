package main

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memorySize is the machine's memory in bytes.
func memorySize() (uint64, bool) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, false
	}
	return info.Totalram * uint64(info.Unit), true
}

// freeDisk is what may be written where dir lies, or will.
func freeDisk(dir string) (uint64, bool) {
	for {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil {
			return fs.Bavail * uint64(fs.Bsize), true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return 0, false
		}
		dir = up
	}
}
