//go:build amd64 && !noasm

package simd

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./gen/amx -out amx_amd64.s -stubs amx_amd64.go -pkg simd

// hasAMX says whether this process may use AMX: the processor has tiles of bytes
// (and the permutations that prepare operands), and the operating system saves
// the tile registers and has permitted them. Permission is asked for once, here;
// it is of the process and holds for later threads.
func hasAMX() bool {
	x := &cpu.X86
	return x.HasAMXTile && x.HasAMXInt8 && x.HasAVX512VBMI && permitTiles()
}

// Shape of a tile register: 16 rows of 64 bytes.
const (
	amxRows      = 16
	amxLineBytes = 64
)

// amxConfig is the operand of LDTILECFG.
type amxConfig struct {
	palette, startRow uint8
	_                 [14]uint8
	lineBytes         [16]uint16
	rows              [16]uint8
}

// set describes the tiles of a kernel by their rows.
func (c *amxConfig) set(rows ...int) {
	c.palette = 1
	for i, n := range rows {
		c.lineBytes[i], c.rows[i] = amxLineBytes, uint8(n)
	}
}

// amxWork is what a kernel of AMX needs besides its operands; gen/amx reads and
// writes it by offset.
type amxWork struct {
	config amxConfig                 // offset 0
	step   int                       // 64, rows of a tile
	state  [23]uintptr               // 72, the kernel's own
	sums   [4096 + amxLineBytes]byte // 256, the kernel aligns it
}

// runAMX computes t.panels panels of 32 columns over any number of rows.
func runAMX(t *intTile) {
	tiles := (t.rows + amxRows - 1) / amxRows
	step := (t.rows + tiles - 1) / tiles
	t.panels = max(t.panels, 1)
	rows, left := t.rows, t.rows%step
	t.rows -= left
	t.runSteps(step)
	if left > 0 {
		rest := *t
		rest.c, rest.a, rest.rows = t.c[t.rows*t.ldc:], t.a[t.rows*t.lda:], left
		if len(t.init) > 0 {
			rest.init = t.init[t.rows*t.ldi:]
		}
		if len(t.scaleA) > 0 {
			rest.scaleA = t.scaleA[t.rows*t.lds:]
		}
		rest.runSteps(left)
	}
	t.rows = rows
}

// runSteps computes t, whose rows are a multiple of step.
func (t *intTile) runSteps(step int) {
	w := t.work
	w.step = step
	p := (*byte)(unsafe.Pointer(t))
	if t.format == formatTileInt16 {
		w.config.set(step, step, step, step, step, step, amxRows, amxRows)
		tileInt16AMX(p)
		return
	}
	w.config.set(step, step, step, amxRows, amxRows, step, amxRows, amxRows)
	tileInt8AMX(p)
}

// ceilingAMX is [ceiling] for integers: a product of int16 takes four of bytes.
func ceilingAMX(kind string) (run func(int), products int64) {
	var c amxConfig
	c.set(amxRows, amxRows, amxRows, amxRows, amxRows, amxRows, amxRows, amxRows)
	products = 24 * amxRows * amxRows * amxLineBytes
	if kind == "int16" {
		products /= 4
	}
	return func(n int) { ceilingInt8AMX(n, (*byte)(unsafe.Pointer(&c))) }, products
}
