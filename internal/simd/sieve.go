package simd

import (
	"fmt"
	"math"
)

// HeadSieve finds which of many int8 rows may reach a floor under which of up to 64
// heads, at half of what exact sums cost, and then the exact sums of those alone.
//
// A head's short is 256·u + l with a byte u. The coarse sum, of the u alone, is one
// product of bytes; what it leaves out is at most ‖l‖·‖row‖ (Cauchy and Schwarz), some
// 0.7 % of ‖head‖·‖row‖. So a row whose coarse score and that are below the floor is
// below it for certain, and no other is left out: lists are exact. It is immutable and
// safe for concurrent use.
type HeadSieve struct {
	dim, n, width int
	panel         int
	data          []uint32  // panel, four elements, head: u + 128
	heads         []int16   // [n, dim]
	scale, bias   []float64 // [n]
	unit, margin  []float32 // [width], see NewHeadSieve
}

// sieveLeast is added to what floors are lowered by: all that products of fp32 lose
// where they are too small for a normal number.
const sieveLeast = 1e-35

// NewHeadSieve takes what [NewHeadPanels] takes. It is nil where a sieve is no help: on
// machines without the products it is made of or with better ones, for a dim that is not a
// multiple of 64, and for scales far from those of stored vectors.
func NewHeadSieve(heads [][]int16, dim int, scales, biases []float64) *HeadSieve {
	if !useSieve() {
		return nil
	}
	return newHeadSieve(heads, dim, scales, biases)
}

func newHeadSieve(heads [][]int16, dim int, scales, biases []float64) *HeadSieve {
	sameLen("NewHeadSieve scales", len(scales), len(heads))
	sameLen("NewHeadSieve biases", len(biases), len(heads))
	if len(heads) < 1 || len(heads) > MostPanelHeads || dim < 1 {
		panic(fmt.Sprintf("simd: NewHeadSieve: %d heads of dim %d", len(heads), dim))
	}
	if dim%64 != 0 || dim > 1<<15 {
		return nil
	}
	w, _ := panelShape()
	p := &HeadSieve{dim: dim, n: len(heads), panel: w, width: (len(heads) + w - 1) / w * w}
	p.data = make([]uint32, p.width*dim/4)
	p.unit, p.margin = make([]float32, p.width), make([]float32, p.width)
	p.scale, p.bias = append(p.scale, scales...), append(p.bias, biases...)
	for h, head := range heads {
		checkScan("NewHeadSieve", dim, dim, len(head), 1)
		if scales[h] < 1e-30 || scales[h] > 1e6 || math.Abs(biases[h]) > 1e30 { // NaN is seen by Above
			return nil
		}
		p.heads = append(p.heads, head[:dim]...)
		to := p.data[h/w*w*dim/4+h%w:]
		var rest, all float64
		for j, x := range head[:dim] {
			u := min((int(x)+128)>>8, 127)
			l := float64(int(x) - 256*u)
			rest, all = rest+l*l, all+float64(256*u)*float64(256*u)
			to[j/4*w] |= uint32(uint8(u+128)) << (j % 4 * 8)
		}
		p.unit[h] = float32(256 * scales[h])
		// The second part is for fp32: its few roundings are each 2^-24 of the coarse
		// score, which is at most ‖256 u‖·‖row‖.
		p.margin[h] = float32(scales[h] * (math.Sqrt(rest) + math.Sqrt(all)/(1<<20)) * (1 + 1.0/(1<<20)))
	}
	return p
}

// Heads is the number of heads.
func (p *HeadSieve) Heads() int { return p.n }

// SieveScratch is the memory that one goroutine works in. The zero value is ready.
type SieveScratch struct {
	coarse        []int32
	sums, squares []int32
	floors        []float32
	tail          []int8
	ints          []int32
}

// Above sets bit h of masks[i] where the score of row i under head h is at least
// floors[h], and for few others too. rows is [n, dim], int8 in -127..127; scales has a
// number a row, none negative, floors one a head, masks one a row.
func (p *HeadSieve) Above(masks []uint64, rows []int8, scales, floors []float32, s *SieveScratch) {
	n := len(masks)
	sameLen("HeadSieve.Above scales", len(scales), n)
	sameLen("HeadSieve.Above floors", len(floors), p.n)
	checkScan("HeadSieve.Above", len(rows), p.dim, p.dim, n)
	if n == 0 {
		return
	}
	_, tile := panelShape()
	whole := n / tile * tile
	s.room((n+tile-1)/tile*tile, p.width)
	for h := range s.floors[:p.width] {
		s.floors[h] = float32(math.Inf(1))
		if h < p.n && floors[h] <= math.MaxFloat32 {
			// A score is rounded before it is compared, and the bias is added here, once.
			f, b := float64(floors[h]), p.bias[h]
			s.floors[h] = float32(f - b - (math.Abs(f)+math.Abs(b))/(1<<21) - sieveLeast)
		}
	}
	sieveRows(rows, p.dim, s.sums[:n], s.squares[:n])
	p.tiles(rows, s.coarse[:whole*p.width])
	if whole < n {
		if len(s.tail) < tile*p.dim {
			s.tail = make([]int8, tile*p.dim)
		}
		copy(s.tail, rows[whole*p.dim:n*p.dim])
		p.tiles(s.tail, s.coarse[whole*p.width:(whole+tile)*p.width])
	}
	sieveAbove(&sieveRow{&s.coarse[0], &s.sums[0], &s.squares[0], &scales[0], &masks[0], &p.unit[0], &p.margin[0], &s.floors[0], n, p.width},
		s.coarse, s.sums, s.squares, scales, masks, p, s.floors)
	for i := range masks {
		masks[i] &= 1<<p.n - 1 // of NaN
	}
}

func (s *SieveScratch) room(n, width int) {
	if len(s.sums) < n {
		s.sums, s.squares = make([]int32, n), make([]int32, n)
	}
	if len(s.coarse) < n*width {
		s.coarse = make([]int32, n*width)
	}
	if len(s.floors) < width {
		s.floors = make([]float32, MostPanelHeads)
	}
}

// tiles sets out, [rows, width], to the sums with u + 128, of whole tiles of rows.
func (p *HeadSieve) tiles(rows []int8, out []int32) {
	_, tile := panelShape()
	for i := 0; i < len(out)/p.width; i += tile {
		for h := 0; h < p.width; h += p.panel {
			sieveTile(rows[i*p.dim:(i+tile)*p.dim], p.dim, p.data[h*p.dim/4:(h+p.panel)*p.dim/4], out[i*p.width+h:], p.width, p.panel)
		}
	}
}

// Scores sets scores[i] to the score of pairs[i], a row times 64 plus a head, with the
// bits of [Scores]. rows and scales are those of [HeadSieve.Above].
func (p *HeadSieve) Scores(scores []float32, pairs []uint32, rows []int8, scale []float32, s *SieveScratch) {
	n := len(pairs)
	sameLen("HeadSieve.Scores", len(scores), n)
	if n == 0 {
		return
	}
	for _, x := range pairs {
		if h, i := int(x%64), int(x/64); h >= p.n || i >= len(scale) || (i+1)*p.dim > len(rows) {
			panic(fmt.Sprintf("simd: HeadSieve.Scores: row %d and head %d of %d rows and %d heads", i, h, len(scale), p.n))
		}
	}
	if len(s.ints) < n {
		s.ints = make([]int32, n)
	}
	sievePairs(rows, p.heads, p.dim, pairs, s.ints[:n])
	for k, x := range pairs {
		h, bias := x%64, 0.0
		if bias = p.bias[h]; bias == 0 {
			bias = math.Copysign(0, -1) // as in Scores
		}
		scores[k] = scoreGo(s.ints[k], scale[x/64], p.scale[h], bias)
	}
}

// sieveRow is the argument block of the kernel, which reads fields by offset.
type sieveRow struct {
	coarse, sums, squares *int32 // offset 0, and 8 more for each that follows
	scales                *float32
	masks                 *uint64
	unit, margin, floor   *float32
	rows, width           int
}

func sieveTileGo(a []int8, lda int, b []uint32, c []int32, ldc, width, rows int) {
	for r := range rows {
		row, out := a[r*lda:r*lda+4*len(b)/width], c[r*ldc:r*ldc+width]
		clear(out)
		for g := range len(b) / width {
			x := row[4*g : 4*g+4]
			for h, w := range b[g*width : (g+1)*width] {
				out[h] += int32(x[0])*int32(uint8(w)) + int32(x[1])*int32(uint8(w>>8)) + int32(x[2])*int32(uint8(w>>16)) + int32(x[3])*int32(uint8(w>>24))
			}
		}
	}
}

func sieveRowsGo(rows []int8, dim int, sums, squares []int32) {
	for i := range sums {
		var sum, square int32
		for _, x := range rows[i*dim : (i+1)*dim] {
			sum += int32(x)
			square += int32(x) * int32(x)
		}
		sums[i], squares[i] = sum, square
	}
}

func sieveAboveGo(coarse, sums, squares []int32, scales []float32, masks []uint64, p *HeadSieve, floors []float32) {
	const up = 1 + 1.0/(1<<20)
	for i, s := range scales {
		length := float32(math.Sqrt(float64(squares[i]))) * up * s
		masks[i] = 0
		for h := range p.width {
			v := float32(float32(coarse[i*p.width+h]-sums[i]<<7)*s) * p.unit[h]
			if v += float32(p.margin[h] * length); !(v < floors[h]) {
				masks[i] |= 1 << h
			}
		}
	}
}

func sievePairsGo(rows []int8, heads []int16, dim int, pairs []uint32, out []int32) {
	for k, x := range pairs {
		var sum int32
		head := heads[int(x%64)*dim:][:dim]
		for j, v := range rows[int(x/64)*dim:][:dim] {
			sum += int32(v) * int32(head[j])
		}
		out[k] = sum
	}
}
