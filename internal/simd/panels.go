package simd

import (
	"fmt"
	"math"
)

//go:generate go run ./gen/panels -out panels_amd64.s -stubs panels_amd64.go -pkg simd

// MostPanelHeads is the most heads of one [HeadPanels]: a bit each of a word.
const MostPanelHeads = 64

// PanelHeads is from how many heads on [HeadPanels] beat [DotInt8Heads]: half a panel.
func PanelHeads() int {
	heads, _ := panelShape()
	return heads / 2
}

// HeadPanels are up to 64 heads of int8 rows in the form that all are multiplied with
// at once: a head a lane, so that no sum has to be folded and a row is widened once
// for all of them. It is immutable and safe for concurrent use.
type HeadPanels struct {
	dim, n        int
	panel         int      // heads a panel
	groups        int      // pairs of elements, a multiple of 4
	data          []uint32 // panel, group, head
	scale, bias   []float64
	width, stride int  // padded heads; padded elements of a widened row
	tiles         bool // data is for tile registers, see packTiles
}

// NewHeadPanels packs heads, each of at least dim elements, with what their sums are
// scaled by and what is added to them. The caller scales heads so that 127·Σ|head| < 2³¹;
// then no int32 overflows.
func NewHeadPanels(heads [][]int16, dim int, scales, biases []float64) *HeadPanels {
	sameLen("NewHeadPanels scales", len(scales), len(heads))
	sameLen("NewHeadPanels biases", len(biases), len(heads))
	if len(heads) < 1 || len(heads) > MostPanelHeads || dim < 1 {
		panic(fmt.Sprintf("simd: NewHeadPanels: %d heads of dim %d", len(heads), dim))
	}
	if useTiles() {
		return packTiles(heads, dim, scales, biases)
	}
	w, _ := panelShape()
	p := &HeadPanels{dim: dim, n: len(heads), panel: w, width: (len(heads) + w - 1) / w * w, stride: (dim + 7) &^ 7}
	p.groups = p.stride / 2
	p.data = make([]uint32, p.width*p.groups)
	for h, head := range heads {
		checkScan("NewHeadPanels", dim, dim, len(head), 1)
		to := p.data[h/w*w*p.groups+h%w:]
		for j, x := range head[:dim] {
			to[j/2*w] |= uint32(uint16(x)) << (j & 1 * 16)
		}
	}
	p.weigh(scales, biases)
	return p
}

// weigh keeps what scores are made with.
func (p *HeadPanels) weigh(scales, biases []float64) {
	p.scale, p.bias = make([]float64, p.width), make([]float64, p.width)
	copy(p.scale, scales)
	copy(p.bias, biases)
	for h, x := range p.bias {
		if x == 0 {
			p.bias[h] = math.Copysign(0, -1) // as in Scores
		}
	}
}

// Heads is the number of heads, Width how many a row of sums has room for.
func (p *HeadPanels) Heads() int { return p.n }

// Width is Heads rounded up to whole vectors; the heads beyond are zero.
func (p *HeadPanels) Width() int { return p.width }

// PanelScratch is the memory that one goroutine multiplies in. The zero value is ready.
type PanelScratch struct {
	wide  []int16
	tail  []int32
	rows  []int8
	tiles [4096]byte
}

// Dot sets out[i·Width()+h] to the exact product of row i with head h, for n rows of
// int8 in -127..127, [n, dim]. out has n·Width() elements.
func (p *HeadPanels) Dot(rows []int8, n int, out []int32, s *PanelScratch) {
	sameLen("HeadPanels.Dot", len(out), n*p.width)
	checkScan("HeadPanels.Dot", len(rows), p.dim, p.dim, n)
	if p.tiles {
		p.dotTiles(rows, n, out, s)
		return
	}
	_, tile := panelShape()
	if len(s.wide) != tile*p.stride {
		s.wide = make([]int16, tile*p.stride)
	}
	if len(s.tail) < tile*p.width {
		s.tail = make([]int32, tile*p.width)
	}
	for i := 0; i < n; i += tile {
		m := min(tile, n-i)
		p.widen(s.wide, rows[i*p.dim:], m)
		to := s.tail[:tile*p.width]
		if m == tile {
			to = out[i*p.width : (i+tile)*p.width]
		}
		for h := 0; h < p.width; h += p.panel {
			runPanel(s.wide, p.stride, p.data[h*p.groups:(h+p.panel)*p.groups], p.groups, to[h:], p.width, p.panel)
		}
		if m < tile {
			copy(out[i*p.width:n*p.width], to)
		}
	}
}

// widen writes n rows with their padding; what lies behind them is of no account.
func (p *HeadPanels) widen(dst []int16, rows []int8, n int) {
	if p.dim == p.stride {
		widenInt8(dst[:n*p.dim], rows[:n*p.dim])
		return
	}
	for i := range n {
		row := dst[i*p.stride : (i+1)*p.stride]
		widenInt8(row[:p.dim], rows[i*p.dim:(i+1)*p.dim])
		clear(row[p.dim:])
	}
}

func widenGo(dst []int16, src []int8) {
	for i, x := range src {
		dst[i] = int16(x)
	}
}

func runPanelGo(a []int16, lda int, b []uint32, groups int, c []int32, ldc, width, rows int) {
	for r := range rows {
		row, out := a[r*lda:r*lda+2*groups], c[r*ldc:r*ldc+width]
		clear(out)
		for g := range groups {
			a0, a1 := int32(row[2*g]), int32(row[2*g+1])
			for h, w := range b[g*width : (g+1)*width] {
				out[h] += a0*int32(int16(w)) + a1*int32(int16(w>>16))
			}
		}
	}
}

// Scores turns the sums of [HeadPanels.Dot] into scores, with the bits of [Scores]:
// dst[i·Width()+h] of row i under head h. scales has one number a row, floors one a
// head, Width() of them; bit h of above[i] says whether the score is at least its floor.
func (p *HeadPanels) Scores(dst []float32, ints []int32, scales, floors []float32, above []uint64) {
	n := len(scales)
	sameLen("HeadPanels.Scores", len(dst), n*p.width)
	sameLen("HeadPanels.Scores sums", len(ints), n*p.width)
	sameLen("HeadPanels.Scores floors", len(floors), p.width)
	sameLen("HeadPanels.Scores above", len(above), n)
	if n > 0 {
		runPanelScores(&panelScores{&dst[0], &ints[0], &scales[0], &above[0], &p.scale[0], &p.bias[0], &floors[0], n, p.width}, dst, ints, scales, floors, above, p)
	}
}

// panelScores is the argument block of the kernel, which reads fields by offset.
type panelScores struct {
	dst         *float32 // offset 0, and 8 more for each that follows
	ints        *int32
	scales      *float32
	masks       *uint64
	scale, bias *float64
	floor       *float32
	rows, width int
}

func panelScoresGo(dst []float32, ints []int32, scales, floors []float32, above []uint64, p *HeadPanels) {
	w := p.width
	for i, s := range scales {
		var one [1]float32
		mask := uint64(0)
		for h := range w {
			scoresGo(one[:], ints[i*w+h:i*w+h+1], []float32{s}, p.scale[h], p.bias[h])
			dst[i*w+h] = one[0]
			if one[0] >= floors[h] {
				mask |= 1 << h
			}
		}
		above[i] = mask
	}
}

// Above sets bit i&63 of dst[i>>6] where x[i] is at least floor, and clears the others.
// dst has a bit for each of x. NaN is above nothing.
func Above(dst []uint64, x []float32, floor float32) {
	sameLen("Above", len(dst), (len(x)+63)/64)
	n := len(x) &^ 63
	aboveWords(dst[:n/64], x[:n], floor)
	if n < len(x) {
		aboveGo(dst[n/64:], x[n:], floor)
	}
}

func aboveGo(dst []uint64, x []float32, floor float32) {
	clear(dst)
	for i, v := range x {
		if v >= floor {
			dst[i>>6] |= 1 << (i & 63)
		}
	}
}
