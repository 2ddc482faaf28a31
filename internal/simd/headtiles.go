package simd

import "unsafe"

// The form of heads on tile registers: 16 heads a group, 64 elements a step. A step is
// two tiles of 16 lines, of the heads' upper bytes and of their lower ones; a line has
// four elements of each head of the group. Rows are read as they lie.
const (
	tileGroup = 16
	tileStep  = 64
	tileBlock = 32 // rows
	// tileBlocks is how many blocks are multiplied with all heads, group by group, before
	// the next are read: they stay in cache.
	tileBlocks = 3
)

func packTiles(heads [][]int16, dim int, scales, biases []float64) *HeadPanels {
	groups, steps := (len(heads)+tileGroup-1)/tileGroup, (dim+tileStep-1)/tileStep
	p := &HeadPanels{dim: dim, n: len(heads), panel: tileGroup, groups: steps, width: groups * tileGroup, stride: steps * tileStep, tiles: true}
	p.data = make([]uint32, groups*steps*2*256)
	for h, head := range heads {
		checkScan("NewHeadPanels", dim, dim, len(head), 1)
		for j, x := range head[:dim] {
			at := (h/tileGroup*steps+j/tileStep)*512 + j%tileStep/4*16 + h%tileGroup
			p.data[at] |= uint32(uint8(x>>8)) << (j % 4 * 8)
			p.data[at+256] |= uint32(uint8(x)) << (j % 4 * 8)
		}
	}
	p.weigh(scales, biases)
	return p
}

// dotTiles is Dot on tile registers. Whole blocks of rows without padding are multiplied
// where they lie; others are copied first, a block at a time.
func (p *HeadPanels) dotTiles(rows []int8, n int, out []int32, s *PanelScratch) {
	groups := p.width / tileGroup
	whole := 0
	if p.dim == p.stride {
		whole = n / tileBlock
		for b := 0; b < whole; b += tileBlocks {
			m := min(tileBlocks, whole-b)
			part := rows[b*tileBlock*p.dim:]
			// What follows the rows is asked for, and never looked at. It may be no object,
			// so it is a number.
			ahead := uintptr(unsafe.Pointer(&part[0])) + uintptr(m*tileBlock*p.dim)
			dotTiles(part, p.dim, p.data, p.groups, m, groups, out[b*tileBlock*p.width:], p.width, &s.tiles, ahead)
		}
	}
	if whole*tileBlock == n {
		return
	}
	if len(s.rows) != tileBlock*p.stride {
		s.rows = make([]int8, tileBlock*p.stride)
	}
	if len(s.tail) < tileBlock*p.width {
		s.tail = make([]int32, tileBlock*p.width)
	}
	for i := whole * tileBlock; i < n; i += tileBlock {
		m := min(tileBlock, n-i)
		for r := range m {
			row := s.rows[r*p.stride : (r+1)*p.stride]
			clear(row[copy(row, rows[(i+r)*p.dim:(i+r+1)*p.dim]):])
		}
		to := s.tail[:tileBlock*p.width]
		dotTiles(s.rows, p.stride, p.data, p.groups, 1, groups, to, p.width, &s.tiles, uintptr(unsafe.Pointer(&s.rows[0])))
		copy(out[i*p.width:n*p.width], to)
	}
}
