//go:build cuda

package convert

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/internal/simd"
)

// vectors are rows of many kinds: of ordinary numbers, of very large and very small
// ones, of one number and zeros, and of zeros.
func vectors(rng *rand.Rand, n, dim int) []float32 {
	out := make([]float32, n*dim)
	for i := range n {
		row := out[i*dim : (i+1)*dim]
		kind := rng.IntN(6)
		for j := range row {
			x := float32(rng.NormFloat64())
			switch kind {
			case 0:
				x *= 1e38
			case 1:
				x *= 1e-42
			case 2:
				x = float32(rng.IntN(3) - 1) // halves of a code, which round to even
			}
			row[j] = max(-math.MaxFloat32, min(math.MaxFloat32, x))
		}
		switch kind {
		case 3:
			one := row[rng.IntN(dim)]
			clear(row)
			row[rng.IntN(dim)] = one
		case 4:
			clear(row)
		}
	}
	return out
}

// TestQuantise: every code and scale is the CPU's, over sizes that straddle lanes, warps
// and blocks.
func TestQuantise(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(11, 1))
	for _, c := range []struct{ n, dim int }{{1, 1}, {7, 3}, {8, 31}, {9, 32}, {65, 33}, {33, 384}, {600, 20}, {2, 2000}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			x := vectors(rng, c.n, c.dim)
			codes, scales, err := Quantise(t.Context(), d, x, c.dim)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.n {
				want := rows.EncodeVector(index.Int8, x[i*c.dim:(i+1)*c.dim])
				if want.Codes == nil {
					want.Codes = make([]int8, c.dim)
				}
				if got := codes[i*c.dim : (i+1)*c.dim]; !slices.Equal(got, want.Codes) || math.Float32bits(scales[i]) != math.Float32bits(want.Scale) {
					t.Fatalf("row %d: %v x %v, want %v x %v", i, scales[i], got, want.Scale, want.Codes)
				}
			}
		})
	}
}

// TestQuantiseStride: what lies between rows is zeros, and what lies behind is untouched.
func TestQuantiseStride(t *testing.T) {
	d := cudatest.Open(t)
	const n, dim, stride = 5, 20, 48
	x := vectors(rand.New(rand.NewPCG(11, 2)), n, dim)
	got := make([]int8, n*stride+16)
	err := d.Borrow("test", []int64{4 * n * dim, n*stride + 16, 4 * n, 8}, func(b []*cuda.Buffer) error {
		return d.Do(t.Context(), func(q *cuda.Queue) error {
			return errors.Join(cuda.Upload(q, b[0], 0, x), cuda.Upload(q, b[1], 0, slices.Repeat([]int8{99}, len(got))), cuda.Upload(q, b[3], 0, []uint64{99}),
				QuantiseOn(d, q, b[0], b[1], b[2], b[3], n, dim, stride), cuda.Download(q, got, b[1], 0))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		want := make([]int8, stride)
		copy(want, rows.EncodeVector(index.Int8, x[i*dim:(i+1)*dim]).Codes)
		if row := got[i*stride : (i+1)*stride]; !slices.Equal(row, want) {
			t.Errorf("row %d: %v, want %v", i, row, want)
		}
	}
	if rest := got[n*stride:]; !slices.Equal(rest, slices.Repeat([]int8{99}, 16)) {
		t.Errorf("behind the rows: %v", rest)
	}
}

// TestNotFinite: the first row that cannot be quantised is named.
func TestNotFinite(t *testing.T) {
	d := cudatest.Open(t)
	const n, dim = 70, 40
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, at := range [][]int{{0}, {69}, {31, 32, 5}, {64, 66}} {
			x := slices.Repeat([]float32{1}, n*dim)
			for i, r := range at {
				x[r*dim+(i+39)%dim] = bad
			}
			_, _, err := Quantise(t.Context(), d, x, dim)
			var not *NotFiniteError
			if !errors.As(err, &not) || not.Row != int64(slices.Min(at)) {
				t.Errorf("%v in rows %v: %v", bad, at, err)
			}
		}
	}
}

// TestHalves: all patterns one way; the other way all halves, what lies half way between
// them and beside that, and random floats.
func TestHalves(t *testing.T) {
	d := cudatest.Open(t)
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	exact, want := make([]float32, len(all)), make([]float32, len(all))
	simd.Fp16ToFp32(want, all)
	if err := FromHalf(t.Context(), d, exact, all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if math.Float32bits(exact[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%#04x: %v, want %v", i, exact[i], want[i])
		}
	}
	var x []float32
	for _, f := range want {
		b := math.Float32bits(f)
		for _, off := range []uint32{0, 1, 0xfff, 0x1000, 0x1001, 0x1fff} {
			if off != 0 && rand.IntN(2) == 0 {
				continue // the simulator takes its time
			}
			x = append(x, math.Float32frombits(b+off))
		}
	}
	for range 20_000 {
		x = append(x, math.Float32frombits(rand.Uint32()))
	}
	got, half := make([]uint16, len(x)), make([]uint16, len(x))
	simd.Fp32ToFp16(half, x)
	if err := ToHalf(t.Context(), d, got, x); err != nil {
		t.Fatal(err)
	}
	for i := range x {
		if got[i] != half[i] {
			t.Fatalf("%v (%#08x): %#04x, want %#04x", x[i], math.Float32bits(x[i]), got[i], half[i])
		}
	}
	for n := range 40 { // the last few are not a group of four
		got, back := make([]uint16, n), make([]float32, n)
		err := errors.Join(ToHalf(t.Context(), d, got, x[:n]), FromHalf(t.Context(), d, back, all[15000:15000+n]))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, half[:n]) || !slices.Equal(back, want[15000:15000+n]) {
			t.Fatalf("%d numbers: %v, %v", n, got, back)
		}
	}
}

// TestChecksum: sizes that straddle words, warps' steps and parts, from places other than
// the beginning.
func TestChecksum(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(11, 3))
	raw := make([]byte, 9*4*partWords+7)
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	b, err := d.Alloc("test", int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	if err := d.Do(t.Context(), func(q *cuda.Queue) error { return cuda.Upload(q, b, 0, raw) }); err != nil {
		t.Fatal(err)
	}
	sizes := []int{0, 1, 2, 3, 4, 5, 8, 124, 125, 127, 128, 129, 130, 132, 255, 256, 260, 1000}
	for _, part := range []int{1, 2, 9} {
		for _, more := range []int{-128, -4, -1, 0, 1, 4, 7} {
			if n := part*4*partWords + more; n <= len(raw) {
				sizes = append(sizes, n)
			}
		}
	}
	for _, n := range sizes {
		for _, off := range []int{0, 4, 200} {
			if off+n > len(raw) {
				continue
			}
			got, err := Checksum(t.Context(), d, b, int64(off), int64(n))
			if err != nil {
				t.Fatal(err)
			}
			if want := crc32.Checksum(raw[off:off+n], crc32.MakeTable(crc32.Castagnoli)); got != want {
				t.Fatalf("%d bytes from %d on: %#08x, want %#08x", n, off, got, want)
			}
		}
	}
}

// TestRefused: what cannot be done is an error, and nothing is left on the device.
func TestRefused(t *testing.T) {
	d := cudatest.Open(t)
	b, err := d.Alloc("test", 64)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	quantise := func(ctx context.Context, x []float32, dim int) error {
		_, _, err := Quantise(ctx, d, x, dim)
		return err
	}
	sum := func(b *cuda.Buffer, off, n int64) error {
		_, err := Checksum(t.Context(), d, b, off, n)
		return err
	}
	on := func(f func(q *cuda.Queue) error) error { return d.Do(t.Context(), f) }
	for what, err := range map[string]error{
		"dimension 0":          quantise(t.Context(), nil, 0),
		"dimension 100,000":    quantise(t.Context(), nil, 100_000),
		"half a row":           quantise(t.Context(), make([]float32, 3), 2),
		"cancelled":            quantise(ended, make([]float32, 4), 2),
		"halves of other size": ToHalf(t.Context(), d, make([]uint16, 3), make([]float32, 4)),
		"halves, cancelled":    FromHalf(ended, d, make([]float32, 4), make([]uint16, 4)),
		"an odd place":         sum(b, 2, 4),
		"behind the end":       sum(b, 60, 8),
		"no buffer":            sum(nil, 0, 1),
		"fewer than no bytes":  sum(b, 0, -1),
		"a buffer too small":   on(func(q *cuda.Queue) error { return ToHalfOn(d, q, b, b, 17) }),
		"a stride too small":   on(func(q *cuda.Queue) error { return QuantiseOn(d, q, b, b, b, b, 1, 16, 8) }),
		"rows too many":        on(func(q *cuda.Queue) error { return QuantiseOn(d, q, b, b, b, b, 2, 16, 16) }),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
	if n := d.Metrics().Allocated; n != 0 {
		t.Errorf("%d bytes are left on the device", n)
	}
}

// TestFails: an allocation or a launch that fails, whichever, is an error of its kind and
// leaves nothing behind.
func TestFails(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	for _, c := range []struct {
		env  string
		most int
		kind error
	}{{"KINDRED_SIM_FAIL_ALLOC", 4, cuda.ErrOutOfMemory}, {"KINDRED_SIM_FAIL_LAUNCH", 1, cuda.ErrLaunch}, {"KINDRED_SIM_LOSE", 1, cuda.ErrLost}} {
		for n := 1; n <= c.most+1; n++ {
			t.Setenv(c.env, strconv.Itoa(n))
			d, err := cuda.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = Quantise(t.Context(), d, make([]float32, 64), 8)
			if n <= c.most && !errors.Is(err, c.kind) || n > c.most && err != nil {
				t.Errorf("%s=%d: %v", c.env, n, err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("%s=%d: %v", c.env, n, err)
			}
		}
		t.Setenv(c.env, "")
	}
}
