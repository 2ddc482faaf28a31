package simd

import (
	"fmt"
	"unsafe"
)

// Matrix is a view of a row-major [Rows, Cols] fp32 matrix: element (i, j) is
// Data[i*Stride+j]. It owns nothing; Stride counts elements and is at least Cols.
type Matrix struct {
	Data   []float32
	Rows   int
	Cols   int
	Stride int
}

// Dense views data as a [rows, cols] matrix without gaps between rows.
func Dense(data []float32, rows, cols int) Matrix {
	return Matrix{Data: data, Rows: rows, Cols: cols, Stride: cols}
}

// Slice views rows [from, to) of m.
func (m Matrix) Slice(from, to int) Matrix {
	if from == to {
		return Matrix{Cols: m.Cols, Stride: m.Stride}
	}
	return Matrix{Data: m.Data[from*m.Stride : (to-1)*m.Stride+m.Cols], Rows: to - from, Cols: m.Cols, Stride: m.Stride}
}

// Row returns row i, a slice of Cols elements that aliases m.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

func (m Matrix) check(name string) {
	if m.Rows < 0 || m.Cols < 0 || m.Stride < m.Cols {
		panic(fmt.Sprintf("simd: matrix %s [%d, %d] with stride %d: stride must be at least cols", name, m.Rows, m.Cols, m.Stride))
	}
	if m.Rows > 0 && m.Cols > 0 && len(m.Data) < (m.Rows-1)*m.Stride+m.Cols {
		panic(fmt.Sprintf("simd: matrix %s [%d, %d] with stride %d does not fit in %d elements", name, m.Rows, m.Cols, m.Stride, len(m.Data)))
	}
}

// PackedB is a right-hand operand [K, N] laid out for the micro-kernel: panels
// of width columns, each K x width and contiguous, the last padded with zeros.
// It is immutable and safe for concurrent use.
type PackedB struct {
	data  []float32
	k, n  int
	width int
}

// K returns the number of rows of the unpacked operand.
func (b *PackedB) K() int { return b.k }

// N returns the number of columns of the unpacked operand.
func (b *PackedB) N() int { return b.n }

// PackB copies b into panels. b is [k, n] row-major, or, when transposed, [n, k]
// row-major (a PyTorch linear layer's weight). The caller keeps b.
func PackB(b []float32, k, n int, transposed bool) *PackedB {
	if k < 0 || n < 0 || len(b) < k*n {
		panic(fmt.Sprintf("simd: PackB: [%d, %d] does not fit in %d elements", k, n, len(b)))
	}
	w := panelWidth()
	panels := (n + w - 1) / w
	p := &PackedB{data: make([]float32, panels*k*w), k: k, n: n, width: w}
	if k == 0 {
		return p
	}
	for j := range n {
		dst := p.data[j/w*k*w+j%w:]
		if transposed {
			for l, v := range b[j*k : j*k+k] {
				dst[l*w] = v
			}
			continue
		}
		for l := range k {
			dst[l*w] = b[l*n+j]
		}
	}
	return p
}

// Epilogue is what [MatMul] does besides the product, in this order: add Bias,
// apply GELU, add Residual. The zero value adds nothing.
type Epilogue struct {
	// Bias, when not nil, holds N elements added to every row.
	Bias []float32
	// GELU applies the exact (erf) GELU, see [GELU].
	GELU bool
	// Residual, when its Data is not nil, is an [M, N] matrix added to C. It
	// may be C itself (same Data and Stride), otherwise it must not overlap C.
	Residual Matrix
}

// check holds the epilogue's shapes against C's.
func (epi *Epilogue) check(c Matrix) {
	if epi.Bias != nil && len(epi.Bias) < c.Cols {
		panic(fmt.Sprintf("simd: MatMul: bias holds %d elements, C has %d columns", len(epi.Bias), c.Cols))
	}
	if epi.Residual.Data != nil {
		epi.Residual.check("Residual")
		if epi.Residual.Rows != c.Rows || epi.Residual.Cols != c.Cols {
			panic(fmt.Sprintf("simd: MatMul: residual [%d, %d] for C [%d, %d]", epi.Residual.Rows, epi.Residual.Cols, c.Rows, c.Cols))
		}
	}
}

// Row and depth blocking of MatMul. 120 rows of A at depth 384 are 180 KiB and
// stay in L2 while panels pass over them; a panel of depth 384 is 24 KiB (16
// columns) and stays in L1 while the rows pass over it. Neither changes a bit
// of the result: an accumulator is stored and reloaded without rounding.
const (
	blockRows  = 120
	blockDepth = 384
	// blockTileRows is blockRows for AMX, whose operands are half as large.
	blockTileRows = 256
)

// MatMul computes C = epilogue(A·B): a is [M, K], b packed [K, N], c [M, N].
// C must not overlap A. The sum of an element starts from the bias and, unless
// GELU is set, the residual, and then adds the K products in order.
func MatMul(c, a Matrix, b *PackedB, epi Epilogue) {
	MatMulColumns(c, a, b, 0, b.Panels(), epi)
}

// Panels returns the number of panels b's columns are held in.
func (b *PackedB) Panels() int { return (b.n + b.width - 1) / b.width }

// MatMulColumns is [MatMul] for the columns of panels [from, to) alone:
// goroutines may share a product by its columns, with the same bits.
func MatMulColumns(c, a Matrix, b *PackedB, from, to int, epi Epilogue) {
	c.check("C")
	a.check("A")
	if a.Cols != b.k || c.Cols != b.n || a.Rows != c.Rows {
		panic(fmt.Sprintf("simd: MatMul: C [%d, %d] = A [%d, %d] x B [%d, %d]", c.Rows, c.Cols, a.Rows, a.Cols, b.k, b.n))
	}
	epi.check(c)
	for i := 0; i < c.Rows; i += blockRows {
		end := min(i+blockRows, c.Rows)
		e := epi
		if e.Residual.Data != nil {
			e.Residual = e.Residual.Slice(i, end)
		}
		matMulBlock(c.Slice(i, end), a.Slice(i, end), b, from*b.width, min(to*b.width, b.n), &e)
	}
}

func matMulBlock(c, a Matrix, b *PackedB, from, to int, epi *Epilogue) {
	var p product
	for kk := 0; kk == 0 || kk < b.k; kk += blockDepth {
		depth := min(blockDepth, b.k-kk)
		last := kk+depth == b.k
		for j := from; j < to; j += b.width {
			p.c, p.a, p.b = c, a, b.data[j*b.k+kk*b.width:j*b.k+(kk+depth)*b.width]
			p.j, p.kk, p.depth, p.ldb, p.width = j, kk, depth, b.width, b.width
			p.next = 4 * b.width * b.k
			p.bias, p.init, p.gelu = nil, Matrix{}, last && epi.GELU
			switch {
			case kk > 0:
				p.init = c
			case epi.Residual.Data != nil && !epi.GELU:
				p.init = epi.Residual
			}
			if kk == 0 {
				p.bias = epi.Bias
			}
			p.run()
		}
	}
	if epi.GELU && epi.Residual.Data != nil && from < to {
		for i := range c.Rows {
			Axpy(1, epi.Residual.Row(i)[from:to], c.Row(i)[from:to])
		}
	}
}

// product is one panel's worth of work: c[:, j:j+width] (+)= a[:, kk:kk+depth]
// times a [depth, width] panel whose rows are ldb elements apart.
type product struct {
	c, a         Matrix
	init         Matrix    // starting values [rows, cols of c], or no Data for zero
	b            []float32 // panel, at least (depth-1)*ldb+width elements
	bias         []float32 // cols of c, or nil
	j, kk, depth int
	ldb, width   int
	next         int  // bytes from this panel to the one after it; 0 if there is none
	gelu         bool // apply GELU to each tile, while it is in the first cache
}

// maxTile is the largest tile any micro-kernel writes, in elements.
const maxTile = 16 * 32

// run walks the rows in tiles. A panel that reaches past the last column of C
// goes through a buffer, so nothing outside C is ever written.
func (p *product) run() {
	rows := p.c.Rows
	step := evenRows(rows, p.width)
	cols := min(p.width, p.c.Cols-p.j)
	var buf [maxTile]float32
	var biasBuf [32]float32
	t := tile{b: p.b, ldb: p.ldb, k: p.depth, width: p.width}
	if p.bias != nil {
		t.bias = p.bias[p.j : p.j+cols]
		if cols < p.width {
			copy(biasBuf[:], t.bias)
			t.bias = biasBuf[:p.width]
		}
	}
	if p.depth > 0 {
		t.fetch = newFetch(unsafe.Pointer(&p.b[0]), p.next, (rows+step-1)/step)
	}
	for i := 0; i < rows; i += step {
		if i > 0 && p.next > 0 {
			t.after(p.depth)
		}
		t.rows = min(step, rows-i)
		if p.depth > 0 {
			t.a, t.lda = p.a.Data[i*p.a.Stride+p.kk:(i+t.rows-1)*p.a.Stride+p.kk+p.depth], p.a.Stride
		}
		if cols == p.width {
			t.c, t.ldc = p.c.Data[i*p.c.Stride+p.j:(i+t.rows-1)*p.c.Stride+p.j+cols], p.c.Stride
			if p.init.Data != nil {
				t.init, t.ldi = p.init.Data[i*p.init.Stride+p.j:(i+t.rows-1)*p.init.Stride+p.j+cols], p.init.Stride
			}
			runTile(&t)
			if p.gelu {
				geluStrip(Matrix{Data: t.c, Rows: t.rows, Cols: cols, Stride: t.ldc})
			}
			continue
		}
		t.c, t.ldc = buf[:t.rows*p.width], p.width
		if p.init.Data != nil {
			for r := range t.rows {
				copy(buf[r*p.width:r*p.width+cols], p.init.Row(i + r)[p.j:])
			}
			t.init, t.ldi = t.c, p.width
		}
		runTile(&t)
		if p.gelu {
			geluStrip(Matrix{Data: t.c, Rows: t.rows, Cols: cols, Stride: t.ldc})
		}
		for r := range t.rows {
			copy(p.c.Row(i + r)[p.j:], buf[r*p.width:r*p.width+cols])
		}
	}
}

// evenRows is how many rows each tile gets when rows are cut into as few tiles
// as the width allows: 16 rows are better as 8 and 8 than as 12 and 4.
func evenRows(rows, width int) int {
	most := tileRows(width)
	tiles := max(1, (rows+most-1)/most)
	return max(1, (rows+tiles-1)/tiles)
}

// tile is the argument block of the micro-kernels; gen/gemm.go and gen/neon/gemm.go
// read its fields by offset. c = init + bias + a·b over one [rows, width] tile, each element
// one accumulator over k in order.
type tile struct {
	c    []float32 // offset 0
	a    []float32 // 24
	b    []float32 // 48
	init []float32 // 72, empty for zero
	bias []float32 // 96, empty for none
	ldc  int       // 120, in elements like the following strides
	lda  int       // 128
	ldb  int       // 136
	ldi  int       // 144
	k    int       // 152
	rows int       // 160
	// width is the number of columns: 16, or 32 for AVX-512.
	width int // 168
	fetch
}

// fetch is a tile's share in asking for the panel that comes after its own, so that
// the weights' way from memory and the products overlap. The kernels of amd64 without
// AMX obey it: in each four steps of K, or groups of them, they ask for the lines of
// bytes from ahead on, which they move.
type fetch struct {
	// ahead may point past the end of the operand, so it is no pointer.
	ahead uintptr // 176 of tile, 280 of intTile
	bytes int     // 184 and 288: 64, 256 or 512; the fewer tiles share a panel, the more
}

// newFetch is of the first of the tiles that a panel of b, next bytes before the one
// after it, is multiplied by.
func newFetch(b unsafe.Pointer, next, tiles int) fetch {
	f := fetch{ahead: uintptr(b) + uintptr(next), bytes: 64}
	if next > 0 && tiles <= 4 {
		f.bytes = 256
		if tiles == 1 {
			f.bytes = 512
		}
	}
	return f
}

// after a tile of so many steps, or groups, the next one goes on.
func (f *fetch) after(steps int) { f.ahead += uintptr(steps / 4 * f.bytes) }

// packDepth is the depth to which a small right-hand operand is packed at a
// time: 16 KiB of stack for 32 columns.
const packDepth = 128

// MatMulNT computes C = A·Bᵀ with a [M, K], b [N, K], c [M, N], all unpacked:
// attention's scores. C must not overlap A or B.
func MatMulNT(c, a, b Matrix) {
	checkSmall("MatMulNT", c, a, b)
	if a.Cols != b.Cols || c.Cols != b.Rows || a.Rows != c.Rows {
		panic(fmt.Sprintf("simd: MatMulNT: C [%d, %d] = A [%d, %d] x transposed B [%d, %d]", c.Rows, c.Cols, a.Rows, a.Cols, b.Rows, b.Cols))
	}
	var panel [packDepth * 32]float32
	w := 0
	for j := 0; j < c.Cols; j += w {
		w = smallWidth(c.Cols - j)
		cols := min(w, c.Cols-j)
		p := product{c: c, a: a, j: j, ldb: w, width: w}
		for kk := 0; kk == 0 || kk < a.Cols; kk += packDepth {
			depth := min(packDepth, a.Cols-kk)
			if cols < w {
				clear(panel[:depth*w])
			}
			if depth > 0 {
				packTransposed(panel[:], b.Data[j*b.Stride+kk:(j+cols-1)*b.Stride+kk+depth], b.Stride, cols, depth, w)
			}
			p.b, p.kk, p.depth = panel[:depth*w], kk, depth
			if kk > 0 {
				p.init = c
			}
			p.run()
		}
	}
}

// MatMulNN computes C = A·B with a [M, K], b [K, N], c [M, N], all unpacked:
// attention's weighted sum of values. C must not overlap A or B.
func MatMulNN(c, a, b Matrix) {
	checkSmall("MatMulNN", c, a, b)
	if a.Cols != b.Rows || c.Cols != b.Cols || a.Rows != c.Rows {
		panic(fmt.Sprintf("simd: MatMulNN: C [%d, %d] = A [%d, %d] x B [%d, %d]", c.Rows, c.Cols, a.Rows, a.Cols, b.Rows, b.Cols))
	}
	var panel [packDepth * 32]float32
	w := 0
	for j := 0; j < c.Cols; j += w {
		w = smallWidth(c.Cols - j)
		cols := min(w, c.Cols-j)
		p := product{c: c, a: a, j: j, ldb: w, width: w}
		for kk := 0; kk == 0 || kk < a.Cols; kk += packDepth {
			depth := min(packDepth, a.Cols-kk)
			for l := range depth { // a copy: rows a power of two apart evict each other
				copy(panel[l*w:l*w+cols], b.Row(kk + l)[j:])
			}
			p.b, p.kk, p.depth = panel[:depth*w], kk, depth
			if kk > 0 {
				p.init = c
			}
			p.run()
		}
	}
}

func checkSmall(name string, c, a, b Matrix) {
	c.check(name + " C")
	a.check(name + " A")
	b.check(name + " B")
}
