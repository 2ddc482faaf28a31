package simd

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDotBinary holds every variant to exact sums, over dims that straddle each
// word and the AVX2 kernel's stretch, with heads at their largest, from memory
// that ends where the rows end.
func TestDotBinary(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 9))
		for _, dim := range []int{1, 3, 4, 5, 8, 31, 32, 33, 63, 64, 65, 384, 385, 1000, 1023, 1024, 1025, 2100, 32768} {
			size := BinaryBytes(dim)
			for _, n := range []int{0, 1, 15, 17, 32, 63, 64, 65, 128, 200} {
				if dim > 2100 && n > 65 {
					continue
				}
				room := (n + BinaryBlock - 1) / BinaryBlock * BinaryBlock
				rows := make([]byte, room*size+1)[1:]
				signs := make([][]byte, n)
				for i := range signs {
					signs[i] = make([]byte, size)
					for j := range dim {
						on := r.IntN(2)
						if i%7 == 1 {
							on = 1
						} else if i%7 == 2 {
							on = 0
						}
						signs[i][j/8] |= byte(on << (j % 8))
					}
					PutBinary(rows, i, signs[i])
				}
				heads := make([]*BinaryHead, 3)
				numbers := make([][]int16, 3)
				out := make([][]int32, 3)
				for k := range heads {
					numbers[k] = make([]int16, dim)
					for j := range numbers[k] {
						numbers[k][j] = int16(r.IntN(2*8191+1) - 8191)
						if k == 1 {
							numbers[k][j] = 8191
						}
						if k == 2 {
							numbers[k][j] = int16([]int{-32767, 0, 0, 0}[j%4])
						}
					}
					heads[k] = NewBinaryHead(numbers[k])
					out[k] = make([]int32, n+1)
					out[k][n] = 77
					out[k] = out[k][:n]
				}
				DotBinary(rows, heads, out)
				bits := make([]byte, size)
				for k := range heads {
					if out[k][:n+1][n] != 77 {
						t.Fatalf("dim %d, %d rows: wrote past out", dim, n)
					}
					for i := range n {
						GetBinary(bits, rows, i)
						if string(bits) != string(signs[i]) {
							t.Fatalf("dim %d row %d: got %x back, put %x", dim, i, bits, signs[i])
						}
						want := 0
						for j, x := range numbers[k] {
							want += int(x) * (2*int(signs[i][j/8]>>(j%8)&1) - 1)
						}
						if int(out[k][i]) != want || int(DotBinaryRow(rows, i, heads[k])) != want {
							t.Fatalf("dim %d head %d row %d of %d: got %d (alone %d), want %d", dim, k, i, n, out[k][i], DotBinaryRow(rows, i, heads[k]), want)
						}
					}
				}
			}
		}
	})
}

func TestBinaryRefusals(t *testing.T) {
	for name, f := range map[string]func(){
		"head":  func() { NewBinaryHead([]int16{0, 0, 0, 0, 32767, -1}) },
		"rows":  func() { DotBinary(make([]byte, 63*4), []*BinaryHead{NewBinaryHead([]int16{1})}, [][]int32{{0}}) },
		"heads": func() { DotBinary(nil, []*BinaryHead{NewBinaryHead([]int16{1})}, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			f()
		}()
	}
}

// TestBinaryGenerated runs the generator and wants the committed files.
func TestBinaryGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "main")
	if out, err := exec.Command("go", "build", "-o", bin, "./gen/binary").CombinedOutput(); err != nil {
		t.Fatalf("building the generator: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "-out", "binary_amd64.s", "-stubs", "binary_amd64.go", "-pkg", "simd")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generating: %v\n%s", err, out)
	}
	for _, f := range []string{"binary_amd64.s", "binary_amd64.go"} {
		want, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if body(want) != body(got) {
			t.Errorf("%s is stale or edited by hand: run go generate ./internal/simd", f)
		}
	}
}

// BenchmarkDotBinary scores 100,000 rows of 384 under one head, and under four.
func BenchmarkDotBinary(b *testing.B) {
	const n, dim = 99_968, 384
	r := rand.New(rand.NewPCG(1, 1))
	rows := make([]byte, n*BinaryBytes(dim))
	for i := range rows {
		rows[i] = byte(r.Uint32())
	}
	q := make([]int16, dim)
	for i := range q {
		q[i] = int16(r.IntN(16381) - 8190)
	}
	for name, k := range map[string]int{"1 head": 1, "4 heads": 4} {
		b.Run(name, func(b *testing.B) {
			heads, out := make([]*BinaryHead, k), make([][]int32, k)
			for i := range heads {
				heads[i], out[i] = NewBinaryHead(q), make([]int32, n)
			}
			b.SetBytes(int64(len(rows)))
			for b.Loop() {
				DotBinary(rows, heads, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
		})
	}
}
