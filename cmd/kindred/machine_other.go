//go:build !linux

package main

// memorySize and freeDisk are known on Linux only; doctor leaves them out elsewhere.
func memorySize() (uint64, bool) { return 0, false }

func freeDisk(string) (uint64, bool) { return 0, false }
