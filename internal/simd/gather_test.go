package simd

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDotInt8At holds every variant to exact sums, over dims that straddle each
// block, at the largest magnitudes, in rows that end where their memory ends.
func TestDotInt8At(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 7))
		for _, dim := range []int{1, 2, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 130, 384, 385, 768, 1000, 32768} {
			for _, shift := range []uint{0, 1, 3} {
				chunks := make([][]int8, 5)
				for i := range chunks {
					chunks[i] = make([]int8, dim<<shift+1)[1:]
					for j := range chunks[i] {
						chunks[i][j] = int8(r.IntN(256) - 128)
						if i == 1 {
							chunks[i][j] = -128
						}
						if i == 2 {
							chunks[i][j] = 127
						}
					}
				}
				table := NewInt8Rows(chunks, shift, dim)
				for _, top := range []int8{-128, 127, 0} {
					codes := make([]int8, dim)
					for j := range codes {
						codes[j] = top
						if top == 0 {
							codes[j] = int8(r.IntN(256) - 128)
						}
					}
					var q Int8Query
					q.Set(codes)
					for _, n := range []int{0, 1, 2, 4, 5, 9, 33} {
						rows, out := make([]uint32, n), make([]int32, n+1)
						for i := range rows {
							rows[i] = uint32(r.IntN(5 << shift))
						}
						out[n] = 77
						DotInt8At(table, rows, &q, out[:n])
						if out[n] != 77 {
							t.Fatalf("dim %d, %d rows: wrote past out", dim, n)
						}
						for i, row := range rows {
							want := int64(0)
							for j, c := range table.Row(row) {
								want += int64(c) * int64(codes[j])
							}
							if int64(out[i]) != want {
								t.Fatalf("dim %d shift %d row %d (%d of %d): got %d, want %d", dim, shift, row, i, n, out[i], want)
							}
						}
					}
				}
			}
		}
	})
}

func TestDotInt8AtRefusesRowsThatAreNot(t *testing.T) {
	table := NewInt8Rows([][]int8{make([]int8, 64)}, 2, 16)
	var q Int8Query
	q.Set(make([]int8, 16))
	defer func() {
		if recover() == nil {
			t.Error("row 4 of 4 was read")
		}
	}()
	DotInt8At(table, []uint32{0, 4}, &q, make([]int32, 2))
}

// TestGatherGenerated runs the generator and wants the committed files.
func TestGatherGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "main")
	if out, err := exec.Command("go", "build", "-o", bin, "./gen/gather").CombinedOutput(); err != nil {
		t.Fatalf("building the generator: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "-out", "gather_amd64.s", "-stubs", "gather_amd64.go", "-pkg", "simd")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generating: %v\n%s", err, out)
	}
	for _, f := range []string{"gather_amd64.s", "gather_amd64.go"} {
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

// BenchmarkDotInt8At scores 24 scattered rows of 100,000 a time.
func BenchmarkDotInt8At(b *testing.B) {
	const shift, dim = 13, 384
	chunks := make([][]int8, 13)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range chunks {
		chunks[i] = make([]int8, dim<<shift)
		for j := range chunks[i] {
			chunks[i][j] = int8(r.IntN(255) - 127)
		}
	}
	table := NewInt8Rows(chunks, shift, dim)
	var q Int8Query
	q.Set(chunks[0][:dim])
	lists := make([]uint32, 24*4096)
	for i := range lists {
		lists[i] = uint32(r.IntN(100_000))
	}
	out := make([]int32, 24)
	at := 0
	for b.Loop() {
		DotInt8At(table, lists[at:at+24], &q, out)
		at = (at + 24) % len(lists)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/24, "ns/row")
}
