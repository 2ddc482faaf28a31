package simd

import (
	"math"
	"testing"
)

// TestHeadSieve holds every variant to the exact scores: no pair that reaches its floor is
// missed, few that don't are found, and the scores of pairs have the bits of Scores.
func TestHeadSieve(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 63)
		var scratch SieveScratch
		found, reached, all := 0, 0, 0
		for _, dim := range []int{64, 128, 384, 1024} {
			for _, n := range []int{1, 5, 11, 12, 13, 24, 96, 97} {
				for _, k := range []int{1, 16, 17, 32, 33, 63, 64} {
					rows := make([]int8, n*dim+1)[1:]
					shape := r.IntN(4)
					for i := range rows {
						switch shape {
						case 0:
							rows[i] = int8(127 - 254*(i/dim%2))
						case 1:
							rows[i] = 0
						default:
							rows[i] = int8(max(-127, min(127, r.NormFloat64()*42)))
						}
					}
					limit := float64(min(32767, math.MaxInt32/127/dim))
					heads := make([][]int16, k)
					scales, biases, floors := make([]float64, k), make([]float64, k), make([]float32, k)
					for h := range heads {
						heads[h] = make([]int16, dim)
						for j := range heads[h] {
							heads[h][j] = int16(max(-limit, min(limit, r.NormFloat64()*limit/3)))
							if shape == 0 {
								heads[h][j] = int16(limit)
							}
						}
						scales[h], biases[h] = math.Ldexp(1, -r.IntN(20)), float64(r.IntN(3)-1)*r.Float64()
						if r.IntN(8) == 0 {
							scales[h] = 1e-29
						}
					}
					p := newHeadSieve(heads, dim, scales, biases)
					if p == nil || p.Heads() != k {
						t.Fatalf("dim %d, %d heads: %v", dim, k, p)
					}
					rowScales := make([]float32, n)
					for i := range rowScales {
						rowScales[i] = r.Float32()
					}
					// Floors: scores that exist, and what lies beside them; never and always.
					want := make([][]float32, k)
					for h := range heads {
						ints := make([]int32, n)
						DotInt8(rows, dim, heads[h], ints)
						want[h] = make([]float32, n)
						Scores(want[h], ints, rowScales, scales[h], biases[h])
						x := want[h][r.IntN(n)]
						floors[h] = [...]float32{x, math.Nextafter32(x, 1e38), math.Nextafter32(x, -1e38), float32(math.Inf(1)), float32(math.Inf(-1))}[r.IntN(5)]
					}
					masks := make([]uint64, n)
					p.Above(masks, rows, rowScales, floors, &scratch)
					var pairs []uint32
					for i, x := range masks {
						if k < 64 && x>>k != 0 {
							t.Fatalf("row %d: heads that are not there are found: %x of %d", i, x, k)
						}
						for h := range k {
							if is := want[h][i] >= floors[h]; is && x>>h&1 == 0 {
								t.Fatalf("dim %d, row %d of %d, head %d of %d: %v reaches %v and was not found", dim, i, n, h, k, want[h][i], floors[h])
							} else if shape > 1 && dim == 384 && scales[h] > 1e-20 && biases[h] == 0 && !math.IsInf(float64(floors[h]), 0) {
								all++
								found += int(x >> h & 1)
								if is {
									reached++
								}
							}
							pairs = append(pairs, uint32(i*64+h))
						}
					}
					got := make([]float32, len(pairs))
					p.Scores(got, pairs, rows, rowScales, &scratch)
					for j, x := range pairs {
						if w := want[x%64][x/64]; math.Float32bits(got[j]) != math.Float32bits(w) {
							t.Fatalf("row %d, head %d: score %v, want %v", x/64, x%64, got[j], w)
						}
					}
				}
			}
		}
		if found-reached > all/10 || reached < all/10 {
			t.Errorf("of %d pairs %d reach their floors and %d are found: that is no sieve", all, reached, found)
		}
	})
}

// TestHeadSieveRefuses: what its bound doesn't hold for is left to exact sums.
func TestHeadSieveRefuses(t *testing.T) {
	for name, p := range map[string]*HeadSieve{
		"dim":   newHeadSieve([][]int16{make([]int16, 65)}, 65, []float64{1}, []float64{0}),
		"scale": newHeadSieve([][]int16{make([]int16, 64)}, 64, []float64{1e-31}, []float64{0}),
		"large": newHeadSieve([][]int16{make([]int16, 64)}, 64, []float64{1e7}, []float64{0}),
		"bias":  newHeadSieve([][]int16{make([]int16, 64)}, 64, []float64{1}, []float64{1e31}),
	} {
		if p != nil {
			t.Errorf("%s: a sieve", name)
		}
	}
}

// TestHeadSieveNaN: rows with a NaN for a scale are found, so that exact scores decide.
func TestHeadSieveNaN(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		head := make([]int16, 64)
		head[0] = 1000
		p := newHeadSieve([][]int16{head, head}, 64, []float64{1, 1}, []float64{0, 0})
		rows := make([]int8, 64)
		rows[0] = 1
		masks := []uint64{0}
		p.Above(masks, rows, []float32{float32(math.NaN())}, []float32{5, float32(math.Inf(1))}, &SieveScratch{})
		if masks[0]&1 == 0 || masks[0]>>2 != 0 {
			t.Errorf("found %b", masks[0])
		}
	})
}
