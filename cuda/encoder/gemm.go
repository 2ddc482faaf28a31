package encoder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/cuda"
)

// shape is one of the kernels of gemm.cu: the tile of out that a block makes, its threads and
// dynamic shared memory, and how many of its blocks a processor needs to be busy.
type shape struct {
	kernel          string
	m, n            int
	threads, shared int
	blocks          int
	// work is what an element of the tile costs beside the others of its kind: small tiles
	// read more of their operands for each.
	work int
}

// Kernels for any device, and those for compute capability 9.0.
var (
	portable = []shape{
		{kernel: "gemm", m: 64, n: 64, threads: 128, blocks: 4, work: 3},
		{kernel: "gemm_large", m: 128, n: 128, threads: 256, blocks: 2, work: 2},
	}
	capability90 = []shape{
		{kernel: "gemm_90", m: 64, n: 64, threads: 128, shared: 5 * (64 + 64) * 64, blocks: 4, work: 10},
		{kernel: "gemm_90_128", m: 128, n: 128, threads: 256, shared: 6 * (128 + 128) * 64, blocks: 2, work: 5},
		{kernel: "gemm_90_192", m: 128, n: 192, threads: 256, shared: 5 * (128 + 192) * 64, blocks: 2, work: 4},
	}
)

// Products are the kernels of products that a device runs: those for every device, and those for
// its architecture alone.
func Products(info cuda.Info) []string {
	var names []string
	for _, s := range allFor(info) {
		names = append(names, s.kernel)
	}
	return names
}

// own are the kernels for a device's architecture alone.
func own(info cuda.Info) []shape {
	if info.Major == 9 && info.Minor == 0 {
		return capability90
	}
	return nil
}

// allFor are those of [Products].
func allFor(info cuda.Info) []shape { return slices.Concat(portable, own(info)) }

// shapesFor are the kernels that a model may use on a device: all give the same bits.
func shapesFor(info cuda.Info, only string) ([]shape, error) {
	if only != "" {
		all := allFor(info)
		i := slices.IndexFunc(all, func(s shape) bool { return s.kernel == only })
		if i < 0 {
			return nil, fmt.Errorf("products by kernel %q: this device runs %s", only, strings.Join(Products(info), ", "))
		}
		return all[i : i+1], nil
	}
	if best := own(info); best != nil {
		return best, nil
	}
	return portable, nil
}

// grid is how many blocks make [m, n].
func (s *shape) grid(m, n int) (blocksM, blocksN int) {
	return (m + s.m - 1) / s.m, (n + s.n - 1) / s.n
}

// cost is about how long out [m, n] takes on so many processors, in no unit, to compare shapes
// by: blocks are dealt out evenly, and a processor with fewer than it needs waits in between, so
// that one block alone takes as long as (blocks + 1) / 2 of many.
func (s *shape) cost(m, n, processors int) int {
	blocksM, blocksN := s.grid(m, n)
	each := (blocksM*blocksN + processors - 1) / processors
	return max(2*each, s.blocks+1) * s.m * s.n * s.work
}

// best is the shape that makes [m, n] soonest.
func best(shapes []shape, m, n, processors int) *shape {
	least := &shapes[0]
	for i := range shapes[1:] {
		if s := &shapes[1+i]; s.cost(m, n, processors) < least.cost(m, n, processors) {
			least = s
		}
	}
	return least
}
