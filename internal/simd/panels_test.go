package simd

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestHeadPanels holds every variant to exact sums in int64 and to the bits of Scores,
// over dims, rows and numbers of heads that straddle each block, at the largest
// magnitudes too, from memory that ends where the rows end.
func TestHeadPanels(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 61)
		var scratch PanelScratch
		for _, dim := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 40, 64, 65, 128, 384, 385, 1000, 32768} {
			for _, n := range []int{0, 1, 5, 6, 7, 12, 13, 25, 31, 32, 33, 130} {
				for _, k := range []int{1, 15, 16, 17, 32, 33, 64} {
					if dim > 1000 && (n > 13 || k > 17) || dim > 128 && n > 33 && k%16 != 0 {
						continue
					}
					rows := make([]int8, n*dim+1)[1:]
					limit := min(32767, math.MaxInt32/127/dim)
					saturated := r.IntN(4) == 0
					for i := range rows {
						rows[i] = int8(r.IntN(255) - 127)
						if saturated {
							rows[i] = int8(127 - 254*(i/dim%2))
						}
					}
					heads := make([][]int16, k)
					scales, biases, floors := make([]float64, k), make([]float64, k), make([]float32, 0, 64)
					for h := range heads {
						heads[h] = make([]int16, dim)
						for j := range heads[h] {
							heads[h][j] = int16(r.IntN(2*limit+1) - limit)
							if saturated {
								heads[h][j] = int16(limit)
							}
						}
						scales[h], biases[h] = math.Ldexp(1, -r.IntN(40)), float64(r.IntN(3)-1)
						if r.IntN(8) == 0 {
							scales[h] = 1e40 // beyond fp32
						}
						floors = append(floors, float32(r.NormFloat64()))
					}
					p := NewHeadPanels(heads, dim, scales, biases)
					w := p.Width()
					if p.Heads() != k || w < k || w > 64 {
						t.Fatalf("%d heads of width %d", p.Heads(), w)
					}
					for len(floors) < w {
						floors = append(floors, float32(math.Inf(1)))
					}
					out := make([]int32, n*w)
					p.Dot(rows, n, out, &scratch)
					rowScales := make([]float32, n)
					for i := range rowScales {
						rowScales[i] = r.Float32()
					}
					got, masks := make([]float32, n*w), make([]uint64, n)
					p.Scores(got, out, rowScales, floors, masks)
					for h := range heads {
						want, ints := make([]float32, n), make([]int32, n)
						for i := range n {
							sum := int64(0)
							for j, x := range heads[h] {
								sum += int64(x) * int64(rows[i*dim+j])
							}
							if int64(out[i*w+h]) != sum {
								t.Fatalf("dim %d, row %d of %d, head %d of %d: got %d, want %d", dim, i, n, h, k, out[i*w+h], sum)
							}
							ints[i] = int32(sum)
						}
						Scores(want, ints, rowScales, scales[h], biases[h])
						for i := range n {
							if math.Float32bits(got[i*w+h]) != math.Float32bits(want[i]) {
								t.Fatalf("dim %d, row %d, head %d: scores %v, want %v", dim, i, h, got[i*w+h], want[i])
							}
							if (masks[i]>>h&1 != 0) != (want[i] >= floors[h]) {
								t.Fatalf("row %d, head %d: %v against floor %v: mask %x", i, h, want[i], floors[h], masks[i])
							}
						}
					}
					for i := range n {
						if k < 64 && masks[i]>>k != 0 {
							t.Fatalf("row %d: heads that are not there are above: %x of %d", i, masks[i], k)
						}
					}
				}
			}
		}
	})
}

func TestAbove(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := newRand(t, 62)
		special := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0, float32(math.Copysign(0, -1)), 0.5}
		for _, n := range []int{0, 1, 63, 64, 65, 128, 200, 1000} {
			for _, floor := range special[1:] {
				x := make([]float32, n+1)[1:]
				for i := range x {
					x[i] = float32(r.NormFloat64())
					if r.IntN(4) == 0 {
						x[i] = special[r.IntN(len(special))]
					}
				}
				got, want := make([]uint64, (n+63)/64), make([]uint64, (n+63)/64)
				for i := range got {
					got[i] = r.Uint64()
				}
				for i, v := range x {
					if v >= floor {
						want[i/64] |= 1 << (i % 64)
					}
				}
				if Above(got, x, floor); !slices.Equal(got, want) {
					t.Fatalf("n %d, floor %v: %x, want %x", n, floor, got, want)
				}
			}
		}
	})
}

// TestFamiliesGenerated runs the generators of the smaller families and wants the
// committed files.
func TestFamiliesGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generators")
	}
	for _, name := range []string{"panels", "headtiles", "fit"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bin := filepath.Join(dir, name)
			if out, err := exec.Command("go", "build", "-o", bin, "./gen/"+name).CombinedOutput(); err != nil {
				t.Fatalf("building the generator: %v\n%s", err, out)
			}
			files := []string{name + "_amd64.s", name + "_amd64.go"}
			cmd := exec.Command(bin, "-out", files[0], "-stubs", files[1], "-pkg", "simd")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("generating: %v\n%s", err, out)
			}
			for _, f := range files {
				want, err := os.ReadFile(filepath.Join(dir, f))
				if err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				_, want, _ = bytes.Cut(want, []byte("\n")) // the first line quotes the command
				_, got, _ = bytes.Cut(got, []byte("\n"))
				if !bytes.Equal(got, want) {
					t.Errorf("%s is stale or edited by hand: run go generate ./internal/simd", f)
				}
			}
		})
	}
}

func BenchmarkHeadPanels(b *testing.B) {
	const dim, n = 384, 8192
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]int8, n*dim)
	for i := range rows {
		rows[i] = int8(r.IntN(255) - 127)
	}
	heads, ones := make([][]int16, 64), make([]float64, 64)
	for h := range heads {
		heads[h], ones[h] = make([]int16, dim), 1
		for j := range heads[h] {
			heads[h][j] = int16(r.IntN(401) - 200)
		}
	}
	p := NewHeadPanels(heads, dim, ones, ones)
	out := make([]int32, n*p.Width())
	var s PanelScratch
	b.Run("dot", func(b *testing.B) {
		for b.Loop() {
			p.Dot(rows, n, out, &s)
		}
		b.ReportMetric(2*float64(n*dim*64*b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
	})
	dst, scales, floors, masks := make([]float32, len(out)), make([]float32, n), make([]float32, p.Width()), make([]uint64, n)
	b.Run("scores", func(b *testing.B) {
		for b.Loop() {
			p.Scores(dst, out, scales, floors, masks)
		}
		b.ReportMetric(float64(len(dst)*b.N)/b.Elapsed().Seconds()/1e9, "G/s")
	})
}
