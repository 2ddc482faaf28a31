package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// TestDotInt8 compares with sums in int64; every score must be exact, at the
// largest magnitudes the contract allows too.
func TestDotInt8(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 21)
		for _, dim := range append([]int{768, 1024}, lengths...) {
			for _, n := range []int{0, 1, 3, 4, 5, 8, 11} {
				for _, saturated := range []bool{false, true} {
					// Rows end exactly at the end of the allocation's length.
					rows := make([]int8, n*dim+1)[1:]
					head := make([]int16, dim+1)[1:]
					limit := min(32767, (math.MaxInt32/127)/max(dim, 1))
					for i := range rows {
						rows[i] = int8(r.IntN(255) - 127)
						if saturated {
							rows[i] = 127
						}
					}
					for i := range head {
						head[i] = int16(r.IntN(2*limit+1) - limit)
						if saturated {
							head[i] = int16(limit)
						}
					}
					if saturated && n > 1 {
						for i := range dim {
							rows[dim+i] = -127
						}
					}
					out := make([]int32, n+1)
					out[n] = 77
					DotInt8(rows, dim, head, out[:n])
					if out[n] != 77 {
						t.Fatalf("dim %d, %d rows: wrote past out", dim, n)
					}
					for i := range n {
						var want int64
						for j, h := range head {
							want += int64(rows[i*dim+j]) * int64(h)
						}
						if int64(out[i]) != want {
							t.Fatalf("dim %d, row %d of %d: got %d, want %d", dim, i, n, out[i], want)
						}
					}
				}
			}
		}
	})
}

func TestDotInt8Heads(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 22)
		for _, dim := range []int{1, 16, 33, 384, 40000} {
			n := min(5*scanBlock/dim, 1000) + 3
			rows := make([]int8, n*dim)
			for i := range rows {
				rows[i] = int8(r.IntN(255) - 127)
			}
			heads, got := make([][]int16, 6), make([][]int32, 6)
			for h := range heads {
				heads[h], got[h] = make([]int16, dim), make([]int32, n)
				for j := range heads[h] {
					heads[h][j] = int16(r.IntN(401) - 200)
				}
			}
			DotInt8Heads(rows, dim, heads, got)
			for h := range heads {
				want := make([]int32, n)
				dotInt8Go(rows, dim, heads[h], want)
				if !slices.Equal(got[h], want) {
					t.Errorf("dim %d, head %d differs", dim, h)
				}
			}
		}
		DotInt8Heads(nil, 8, nil, nil)
	})
}

func TestDotFloat(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 23)
		for _, dim := range lengths {
			for _, n := range []int{0, 1, 3, 4, 5, 9} {
				rows, head := floats(r, n*dim), floats(r, dim)
				half := make([]uint16, n*dim+1)[1:]
				Fp32ToFp16(half, rows)
				Fp16ToFp32(rows, half) // both kernels see the same values
				out, out16 := make([]float32, n), make([]float32, n)
				DotFp32(rows, dim, head, out)
				DotFp16(half, dim, head, out16)
				equalBits(t, "fp16 against fp32", out16, out)
				for i := range n {
					want, size := 0.0, 0.0
					for j, h := range head {
						v := float64(rows[i*dim+j]) * float64(h)
						want, size = want+v, size+math.Abs(v)
					}
					checkClose(t, fmt.Sprintf("dim %d, row %d of %d", dim, i, n), float64(out[i]), want, float64(dim)*size*0x1p-23, 0)
					alone := make([]float32, 1)
					DotFp32(rows[i*dim:(i+1)*dim], dim, head, alone)
					equalBits(t, fmt.Sprintf("dim %d, row %d alone", dim, i), alone, out[i:i+1])
				}
			}
		}
	})
}

// TestHalfDecode decodes all 65536 patterns, against the definition and back.
func TestHalfDecode(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		src := make([]uint16, 1<<16)
		for i := range src {
			src[i] = uint16(i)
		}
		got := make([]float32, len(src))
		Fp16ToFp32(got, src)
		back := make([]uint16, len(src))
		Fp32ToFp16(back, got)
		for i, h := range src {
			exp, frac := int(h>>10&31), float64(h&0x3ff)
			var want float64
			switch {
			case exp == 31 && frac != 0:
				if got[i] == got[i] || back[i] != h|0x200 {
					t.Fatalf("%04x: %g, back %04x", h, got[i], back[i])
				}
				continue
			case exp == 31:
				want = math.Inf(1)
			case exp == 0:
				want = math.Ldexp(frac, -24)
			default:
				want = math.Ldexp(1024+frac, exp-25)
			}
			if h&0x8000 != 0 {
				want = -want
			}
			if math.Float64bits(float64(got[i])) != math.Float64bits(want) || back[i] != h {
				t.Fatalf("%04x: got %g, want %g; back %04x", h, got[i], want, back[i])
			}
		}
	})
}

// TestHalfRounding tries the two neighbours of, and the point at, every
// boundary between adjacent halves: ties go to even.
func TestHalfRounding(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		var src []float32
		var want []uint16
		for h := uint16(0); h < 0x7c00; h++ {
			next := float64(halfToFloat(h + 1))
			if h == 0x7bff {
				next = 65536
			}
			mid := float32((float64(halfToFloat(h)) + next) / 2)
			even := h + h&1
			below, above := math.Nextafter32(mid, 0), math.Nextafter32(mid, float32(math.Inf(1)))
			src = append(src, below, mid, above, -below, -mid, -above)
			want = append(want, h, even, h+1, h|0x8000, even|0x8000, (h+1)|0x8000)
		}
		got := make([]uint16, len(src))
		Fp32ToFp16(got, src)
		for i := range src {
			if got[i] != want[i] {
				t.Fatalf("%g: got %04x, want %04x", src[i], got[i], want[i])
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	const dim = 384
	r := rand.New(rand.NewPCG(1, 1))
	const bytes = 128 << 20 // far beyond the last-level cache
	ints := make([]int8, bytes)
	for i := range ints {
		ints[i] = int8(i*7%255 - 127)
	}
	head16 := make([]int16, dim)
	for j := range head16 {
		head16[j] = int16(r.IntN(2001) - 1000)
	}
	scores := make([]int32, bytes/dim)
	b.Run("read", func(b *testing.B) { // the ceiling of the others
		b.SetBytes(bytes)
		words := unsafe.Slice((*float32)(unsafe.Pointer(&ints[0])), bytes/4)
		for b.Loop() {
			sumBody(words)
		}
	})
	b.Run("int8", func(b *testing.B) {
		b.SetBytes(bytes)
		for b.Loop() {
			DotInt8(ints, dim, head16, scores)
		}
	})
	b.Run("int8/cached", func(b *testing.B) {
		b.SetBytes(40 * dim)
		for b.Loop() {
			DotInt8(ints[:40*dim], dim, head16, scores[:40])
		}
	})
	b.Run("int8/8heads", func(b *testing.B) {
		b.SetBytes(bytes)
		heads, out := make([][]int16, 8), make([][]int32, 8)
		for h := range heads {
			heads[h], out[h] = head16, make([]int32, bytes/dim)
		}
		for b.Loop() {
			DotInt8Heads(ints, dim, heads, out)
		}
	})
	head := floats(r, dim)
	halves := make([]uint16, bytes/2)
	for i := range halves { // untouched pages would all be one cached page of zeros
		halves[i] = uint16(i % 0x7c00)
	}
	out := make([]float32, len(halves)/dim)
	b.Run("fp16", func(b *testing.B) {
		b.SetBytes(bytes)
		for b.Loop() {
			DotFp16(halves, dim, head, out)
		}
	})
	wide := make([]float32, bytes/4)
	for i := range wide {
		wide[i] = float32(i % 100)
	}
	b.Run("fp32", func(b *testing.B) {
		b.SetBytes(bytes)
		for b.Loop() {
			DotFp32(wide, dim, head, out[:len(wide)/dim])
		}
	})
}

// TestScores holds every variant to the definition, bit for bit.
func TestScores(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 29)
		for n := range 37 {
			for _, c := range [][2]float64{{1, 0}, {0.3, -2.5}, {1e300, 0}, {-1e300, 1e300}, {0, 0}, {-1e-40, 0}, {1e-320, 1e-46}} {
				ints, scales, got := make([]int32, n+1)[1:], make([]float32, n+1)[1:], make([]float32, n+2)[1:]
				for i := range ints {
					ints[i] = int32(r.Uint32()) >> r.IntN(32)
					scales[i] = float32(r.ExpFloat64())
				}
				if n > 2 {
					ints[0], ints[1], ints[2], scales[2] = math.MinInt32, math.MaxInt32, 0, 0
				}
				got[n] = 77
				Scores(got[:n], ints, scales, c[0], c[1])
				if got[n] != 77 {
					t.Fatalf("%d elements: wrote past the end", n)
				}
				for i := range n {
					x := float64(ints[i]) * (float64(scales[i]) * c[0])
					if c[1] != 0 {
						x = float64(x) + c[1]
					}
					want := float32(min(max(x, -math.MaxFloat32), math.MaxFloat32))
					if math.Float32bits(got[i]) != math.Float32bits(want) {
						t.Fatalf("%d elements, scale %g, bias %g: element %d is %v, want %v", n, c[0], c[1], i, got[i], want)
					}
				}
			}
		}
	})
}
