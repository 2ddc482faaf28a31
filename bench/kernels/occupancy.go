package main

import "strings"

// architecture is what a processor (SM) of one has: CUDA C++ Programming Guide, "Features
// and Technical Specifications", compute capability 8.0, 9.0 and 10.0.
type architecture struct {
	name   string
	warps  int // resident
	most   int // blocks, resident
	shared int // bytes, of which each block takes 1,024 for itself
}

var architectures = []architecture{
	{"sm_80", 64, 32, 164 << 10},
	{"sm_90a", 64, 32, 228 << 10},
	{"sm_100", 64, 32, 228 << 10},
}

const (
	registerFile   = 64 << 10 // registers of a processor
	registerUnit   = 256      // of a warp are given out by so many
	sharedReserved = 1 << 10  // of a block
	sharedUnit     = 128
)

// blocks is how many blocks of a kernel are resident on a processor.
func (a architecture) blocks(threads, registers, shared int) int {
	up := func(x, unit int) int { return (x + unit - 1) / unit * unit }
	warps := (threads + 31) / 32
	n := min(a.most, a.warps/warps)
	// A warp's registers lie in one of four parts of the file.
	n = min(n, registerFile/4/up(registers*32, registerUnit)*4/warps)
	return min(n, a.shared/up(shared+sharedReserved, sharedUnit))
}

func architectureNames() string {
	var names []string
	for _, a := range architectures {
		names = append(names, strings.TrimPrefix(a.name, "sm_"))
	}
	return strings.Join(names, " / ")
}
