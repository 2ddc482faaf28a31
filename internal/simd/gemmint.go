package simd

import (
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// ErrRange is wrapped by the errors of [PackInt16] and [PackInt8] about weights
// that have no integer form.
var ErrRange = errors.New("weights cannot be held as integers")

// Largest magnitudes of the quantised operands. Activations of 13 bits leave
// weights about as many: an int32 sum has 31 to share between the two and the
// depth of a slice.
const (
	int16Activation = 8191
	int16Weight     = 32767
	int8Activation  = 127
	int8Weight      = 127
)

// maxSlice is the most elements of K one int32 sum covers. Activations have one
// scale a row and slice, weights one a column and slice.
const maxSlice = 384

// intFormat is how four bytes of K are held and multiplied.
type intFormat uint8

const (
	// formatInt16: two int16 of A by two int16 of B.
	formatInt16 intFormat = iota
	// formatUint8: four unsigned bytes of A, 128 above their value, by four
	// signed bytes of B.
	formatUint8
	// formatInt8: four signed bytes of A by four of B.
	formatInt8 //nolint:unused // the form of arm64
	// formatTileInt16: for tiles of AMX, of 64 elements first the high bytes,
	// signed, and then the low ones, unsigned. Slices are filled up with zeros
	// to whole steps of 64.
	formatTileInt16
	// formatTileUint8 is formatUint8 in slices of whole steps of 64.
	formatTileUint8
)

// perGroup is how many elements of K a group of four bytes holds.
func (f intFormat) perGroup() int {
	if f == formatInt16 || f == formatTileInt16 {
		return 2
	}
	return 4
}

// groups is how many groups n elements of a slice take.
func (f intFormat) groups(n int) int {
	if f.tiles() {
		n = (n + 63) &^ 63
	}
	return (n + f.perGroup() - 1) / f.perGroup()
}

// unsigned says whether activations are bytes 128 above their value.
func (f intFormat) unsigned() bool { return f == formatUint8 || f == formatTileUint8 }

// tiles says whether the format is for AMX.
func (f intFormat) tiles() bool { return f == formatTileInt16 || f == formatTileUint8 }

// put stores integer v as element l of a slice; groups are w apart.
func (f intFormat) put(dst []uint32, l, w int, v int32) {
	switch {
	case f == formatTileInt16:
		at := l/64*32 + l%64/4
		dst[at*w] |= uint32(uint8(v>>8)) << (l % 4 * 8)
		dst[(at+16)*w] |= uint32(uint8(v)) << (l % 4 * 8)
	case f.perGroup() == 4:
		dst[l/4*w] |= uint32(uint8(v)) << (l % 4 * 8)
	default:
		dst[l/2*w] |= uint32(uint16(v)) << (l % 2 * 16)
	}
}

// kslice is one slice of K: elements [from, to) and groups [group, groupTo).
type kslice struct{ from, to, group, groupTo int }

// cutDepth cuts K evenly into as few slices as maxSlice allows, each but the last
// a multiple of 16.
func cutDepth(k int, f intFormat) []kslice {
	var out []kslice
	parts := max(1, (k+maxSlice-1)/maxSlice)
	step := max(16, ((k+parts-1)/parts+15)&^15)
	group := 0
	for from := 0; from < k; from += step {
		s := kslice{from: from, to: min(from+step, k), group: group}
		group += f.groups(s.to - s.from)
		s.groupTo = group
		out = append(out, s)
	}
	return out
}

// PackedInt is a right-hand operand [K, N] in integers: panels like
// [PackedB]'s, of groups of four bytes, with one fp32 scale for each column and
// slice of K. It is immutable and safe for concurrent use.
//
// No sum of [MatMulInt] can overflow: packing has checked, on the integers
// themselves, that for each column and slice the largest activation times the
// sum of the weights' magnitudes is below 2³¹.
type PackedInt struct {
	data   []uint32 // panel, group, column
	scale  []float32
	start  []int32 // [slices, padded N]: what a sum starts from; nil for zero
	slices []kslice
	k, n   int
	width  int
	format intFormat
	top    int32 // largest magnitude of an activation
}

// K returns the number of rows of the unpacked operand.
func (b *PackedInt) K() int { return b.k }

// N returns the number of columns of the unpacked operand.
func (b *PackedInt) N() int { return b.n }

// PackInt16 quantises b, [n, k] row-major with rows stride elements apart (a
// PyTorch linear layer's weight, or some columns of one), to int16. Weights get
// as many bits as the proof of no overflow leaves, 12 to 16. It returns an error
// that wraps [ErrRange] if a weight is not finite or a column is so small that
// its scale is not a normal fp32 number.
func PackInt16(b []float32, k, n, stride int) (*PackedInt, error) {
	return packInt(b, k, n, stride, int16Format(), int16Activation, int16Weight)
}

// PackInt8 is [PackInt16] to int8, activations and weights in -127..127. Where
// the machine has no byte products the integers are held as int16: the results
// are the same bits.
func PackInt8(b []float32, k, n, stride int) (*PackedInt, error) {
	return packInt(b, k, n, stride, int8Format(), int8Activation, int8Weight)
}

func packInt(b []float32, k, n, stride int, f intFormat, top, limit int32) (*PackedInt, error) {
	if k < 1 || n < 0 || stride < k || (n > 0 && len(b) < (n-1)*stride+k) {
		panic(fmt.Sprintf("simd: PackInt: [%d, %d] with stride %d does not fit in %d elements", n, k, stride, len(b)))
	}
	w := panelWidth()
	padded := (n + w - 1) / w * w
	p := &PackedInt{slices: cutDepth(k, f), k: k, n: n, width: w, format: f, top: top}
	groups := p.slices[len(p.slices)-1].groupTo
	p.data = make([]uint32, padded*groups)
	p.scale = make([]float32, padded*len(p.slices))
	if f.unsigned() {
		p.start = make([]int32, padded*len(p.slices))
	}
	var q [maxSlice]int32
	for j := range n {
		for i, s := range p.slices {
			col := q[:s.to-s.from]
			scale, err := quantiseColumn(col, b[j*stride+s.from:j*stride+s.to], top, limit)
			if err != nil {
				return nil, fmt.Errorf("column %d, elements %d to %d: %w", j, s.from, s.to-1, err)
			}
			p.scale[i*padded+j] = scale
			dst := p.data[j/w*groups*w+s.group*w+j%w:]
			var sum int32
			for l, v := range col {
				sum += v
				f.put(dst, l, w, v)
			}
			if f.unsigned() {
				p.start[i*padded+j] = -128 * sum // takes the activations' offset back
			}
		}
	}
	return p, nil
}

// quantiseColumn writes round(src/scale) to dst with the smallest scale that
// keeps magnitudes within limit and sums within int32, and proves the latter.
func quantiseColumn(dst []int32, src []float32, top, limit int32) (float32, error) {
	var largest, sum float64
	for _, v := range src {
		f := math.Abs(float64(v))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, fmt.Errorf("%w: %v", ErrRange, v)
		}
		largest, sum = max(largest, f), sum+f
	}
	if largest == 0 {
		clear(dst)
		return 0, nil
	}
	// Rounding adds at most half to each magnitude.
	room := float64(math.MaxInt32/top) - float64(len(src))/2 - 1
	scale := float32(max(largest/float64(limit), sum/room))
	if scale < minNormal {
		return 0, fmt.Errorf("%w: the largest is %g", ErrRange, largest)
	}
	var total int64
	for i, v := range src {
		q := int32(math.RoundToEven(float64(v) / float64(scale)))
		dst[i] = max(-limit, min(limit, q))
		total += int64(max(dst[i], -dst[i]))
	}
	if total*int64(top) > math.MaxInt32 {
		return 0, fmt.Errorf("%w: %d times the sum of magnitudes %d exceeds 31 bits", ErrRange, top, total)
	}
	return scale, nil
}

// Quantised is a left-hand operand [Rows, K] in integers. The zero value is
// ready for [Quantised.From]; it is reused to save allocations and must not be
// shared between goroutines while it is written.
type Quantised struct {
	data   []uint32  // [rows, stride] groups
	scale  []float32 // [rows, slices]
	rows   int
	stride int // groups of a row
	slices int
	k      int
	format intFormat
	top    int32
}

// Resize makes room for rows rows in the form b takes. Contents are undefined
// until [Quantised.SetRow] has run for each row.
func (q *Quantised) Resize(rows int, b *PackedInt) {
	q.rows, q.stride, q.slices, q.k = rows, b.slices[len(b.slices)-1].groupTo, len(b.slices), b.k
	q.format, q.top = b.format, b.top
	if n := rows * q.stride; cap(q.data) < n {
		q.data = make([]uint32, n)
	} else {
		q.data = q.data[:n]
	}
	if n := rows * q.slices; cap(q.scale) < n {
		q.scale = make([]float32, n)
	} else {
		q.scale = q.scale[:n]
	}
}

// From sets q to the quantised form of x, [rows, K of b], that b takes.
func (q *Quantised) From(x Matrix, b *PackedInt) {
	x.check("Quantised.From")
	q.Resize(x.Rows, b)
	for i := range x.Rows {
		q.SetRow(i, x.Row(i), b)
	}
}

// SetRow sets row i to the quantised form of x, K elements: in each slice of K
// round(x/scale) with scale the slice's largest magnitude over the top of the
// range, ties to even. A slice with a NaN or an infinity gets the scale NaN, so
// all of its row's products are NaN; one whose magnitudes are all below 2⁻¹⁰⁰
// is zero. Different rows may be set at the same time.
func (q *Quantised) SetRow(i int, x []float32, b *PackedInt) {
	sameLen("Quantised.SetRow", len(x), b.k)
	row := q.data[i*q.stride : (i+1)*q.stride]
	for j, s := range b.slices {
		q.scale[i*q.slices+j] = quantiseSlice(row[s.group:s.groupTo], x[s.from:s.to], q.format, q.top)
	}
}

func quantiseSlice(dst []uint32, x []float32, f intFormat, top int32) float32 {
	n := len(x) &^ 15
	if f == formatTileInt16 {
		n = len(x) &^ 63
	}
	bits := absMax(x[:n])
	for _, v := range x[n:] {
		bits = max(bits, math.Float32bits(v)&0x7fffffff)
	}
	largest := math.Float32frombits(bits)
	inv, scale := float32(top)/largest, largest/float32(top)
	switch {
	case bits >= 0x7f800000:
		inv, scale = 0, float32(math.NaN())
	case largest < 0x1p-100:
		inv, scale = 0, 0
	}
	if inv == 0 { // 0·Inf is not 0, so the kernels are not asked
		var zero uint32
		if f.unsigned() {
			zero = 0x80808080
		}
		for i := range dst {
			dst[i] = zero
		}
		return scale
	}
	quantBody(dst, x[:n], f, inv)
	if n < len(x) {
		quantGo(dst[n/f.perGroup():], x[n:], f, inv)
	}
	return scale
}

// MatMulInt computes C = epilogue(A·B) from integers: the sums of a slice of K
// are exact; each is then converted, scaled and added in fp32. The value of an
// element starts from the bias and, unless GELU is set, the residual, and adds
// the slices in order. GELU apart, every variant gives the same bits. A must
// have been quantised for an operand of b's form; see [Epilogue] for the rest.
func MatMulInt(c Matrix, a *Quantised, b *PackedInt, epi Epilogue) {
	MatMulIntColumns(c, a, b, 0, b.Panels(), epi)
}

// Panels returns the number of panels b's columns are held in.
func (b *PackedInt) Panels() int { return (b.n + b.width - 1) / b.width }

// MatMulIntColumns is [MatMulInt] for the columns of panels [from, to) alone:
// goroutines may share a product by its columns, with the same bits.
func MatMulIntColumns(c Matrix, a *Quantised, b *PackedInt, from, to int, epi Epilogue) {
	c.check("C")
	if a.k != b.k || a.format != b.format || a.top != b.top || c.Cols != b.n || a.rows != c.Rows {
		panic(fmt.Sprintf("simd: MatMulInt: C [%d, %d] = A [%d, %d] of %d x B [%d, %d] of %d", c.Rows, c.Cols, a.rows, a.k, a.top, b.k, b.n, b.top))
	}
	epi.check(c)
	var work amxWork
	block, full := blockRows, 0
	if b.format.tiles() { // all whole panels at once
		block, full = blockTileRows, min(to, b.n/b.width)-from
	}
	for i := 0; i < c.Rows; i += block {
		end := min(i+block, c.Rows)
		for at, s := range b.slices {
			next := from
			if full > 0 {
				intPanel(c, a, b, at, s, next*b.width, full, i, end, &epi, &work)
				next += full
			}
			for j := next * b.width; j < min(to*b.width, b.n); j += b.width {
				intPanel(c, a, b, at, s, j, 1, i, end, &epi, &work)
			}
		}
	}
}

// intPanel runs slice s over rows [i, end) of the panels that start at column j;
// more than one only for AMX.
func intPanel(c Matrix, a *Quantised, b *PackedInt, at int, s kslice, j, panels, i, end int, epi *Epilogue, work *amxWork) {
	w := b.width
	cols := min(panels*w, b.n-j)
	whole := cols == panels*w
	padded := b.Panels() * w
	groups := b.slices[len(b.slices)-1].groupTo
	last := at == len(b.slices)-1
	t := intTile{
		b:      b.data[(j/w*groups+s.group)*w : ((j/w+panels-1)*groups+s.groupTo)*w],
		scaleB: b.scale[at*padded+j : at*padded+j+panels*w],
		lda:    a.stride, lds: a.slices, groups: s.groupTo - s.group, width: w, format: b.format, work: work,
		panels: panels, next: 4 * groups * w,
	}
	if b.start != nil {
		t.start = b.start[at*padded+j : at*padded+j+panels*w]
	}
	var buf [maxTile]float32
	var biasBuf [32]float32
	if at == 0 && epi.Bias != nil {
		t.bias = epi.Bias[j : j+cols]
		if !whole {
			copy(biasBuf[:], t.bias)
			t.bias = biasBuf[:w]
		}
	}
	init := Matrix{}
	switch {
	case at > 0:
		init = c
	case epi.Residual.Data != nil && !epi.GELU:
		init = epi.Residual
	}
	step := evenRows(end-i, w)
	switch {
	case b.format.tiles() && whole:
		step = end - i // the kernel walks the rows
	case b.format.tiles():
		step = maxTile / w
	}
	// Panels lie one after the other, slices of K within them.
	t.fetch = newFetch(unsafe.Pointer(&t.b[0]), t.next, (end-i+step-1)/step)
	for ; i < end; i += step {
		t.rows = min(step, end-i)
		t.a = a.data[i*a.stride+s.group : (i+t.rows-1)*a.stride+s.groupTo]
		t.scaleA = a.scale[i*a.slices+at : (i+t.rows-1)*a.slices+at+1]
		out := Matrix{Data: c.Data[i*c.Stride+j : (i+t.rows-1)*c.Stride+j+cols], Rows: t.rows, Cols: cols, Stride: c.Stride}
		if whole {
			t.c, t.ldc = out.Data, c.Stride
			if init.Data != nil {
				t.init, t.ldi = init.Data[i*init.Stride+j:(i+t.rows-1)*init.Stride+j+cols], init.Stride
			}
			runIntTile(&t)
		} else {
			t.c, t.ldc = buf[:t.rows*w], w
			if init.Data != nil {
				for r := range t.rows {
					copy(buf[r*w:r*w+cols], init.Row(i + r)[j:])
				}
				t.init, t.ldi = t.c, w
			}
			runIntTile(&t)
			for r := range t.rows {
				copy(out.Row(r), buf[r*w:r*w+cols])
			}
		}
		t.after(t.groups)
		if last && epi.GELU {
			geluStrip(out)
			if epi.Residual.Data != nil {
				for r := range t.rows {
					Axpy(1, epi.Residual.Row(i + r)[j:j+cols], out.Row(r))
				}
			}
		}
	}
}

// intTile is the argument block of the integer micro-kernels; gen/gemmint.go
// and gen/amx read its fields by offset. c = (init + bias) + (start + a·b)·scaleB·scaleA.
type intTile struct {
	c      []float32 // offset 0
	a      []uint32  // 24
	b      []uint32  // 48
	init   []float32 // 72, empty for zero
	bias   []float32 // 96, empty for none
	scaleB []float32 // 120, width elements
	scaleA []float32 // 144, one for each row, lds apart
	start  []int32   // 168, empty for zero
	ldc    int       // 192, in elements like the following strides
	lda    int       // 200
	ldi    int       // 208
	groups int       // 216
	rows   int       // 224
	lds    int       // 232
	width  int       // 240
	format intFormat // 248
	work   *amxWork  // 256, for the formats of AMX
	panels int       // 264, for the same: how many
	next   int       // 272, bytes of B from one panel to the next
	fetch            // 280
}
