//go:build !linux

package main

// memory and freeDisk are known on Linux only; doctor leaves them out elsewhere.
func memory() (uint64, bool) { return 0, false }

func freeDisk(string) (uint64, bool) { return 0, false }
