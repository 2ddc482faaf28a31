//go:build cuda

package encoder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/internal/simd"
)

// asHalf rounds to a half, or to bfloat16, and gives its bits and its value.
func asHalf(x float32, bf bool) (uint16, float32) {
	if bf {
		b := bfloat16(x)
		return b, math.Float32frombits(uint32(b) << 16)
	}
	var b [1]uint16
	var f [1]float32
	simd.Fp32ToFp16(b[:], []float32{x})
	simd.Fp16ToFp32(f[:], b[:])
	return b[0], f[0]
}

// TestProducts holds each kernel of gemm.cu to a product in double: sizes that end within a tile, a
// slice, or 16 bytes behind one, each activation, with a residual that out overwrites.
func TestProducts(t *testing.T) {
	d := cudatest.Open(t)
	sizes := [][3]int{{1, 8, 8}, {64, 64, 32}, {65, 72, 40}, {130, 200, 264}, {128, 192, 384}, {257, 136, 200}}
	if testing.Short() {
		sizes = sizes[:4]
	}
	for _, s := range allFor(d.Info()) {
		for _, bf := range []bool{false, true} {
			kernel := s.kernel
			if bf {
				kernel += "_bf16"
			}
			t.Run(kernel, func(t *testing.T) {
				for i, size := range sizes {
					holdProduct(t, d, &s, kernel, bf, size[0], size[1], size[2], i%2, i%3 == 2)
				}
			})
		}
	}
}

func holdProduct(t *testing.T, d *cuda.Device, s *shape, kernel string, bf bool, m, n, k, act int, residual bool) {
	rng := rand.New(rand.NewPCG(uint64(m), uint64(k)))
	random := func(n int, scale float64) ([]uint16, []float32) {
		bits, x := make([]uint16, n), make([]float32, n)
		for i := range x {
			bits[i], x[i] = asHalf(float32(rng.NormFloat64()*scale), bf)
		}
		return bits, x
	}
	xBits, x := random(m*k, 1)
	wBits, w := random(n*k, 2/math.Sqrt(float64(k)))
	outBits, old := random(m*n, 1)
	_, bias := random(n, 1)
	// Behind out there is something that is not to change.
	const guard = 64
	for range guard {
		outBits = append(outBits, 0x1234)
	}
	buffers := make([]*cuda.Buffer, 4)
	for i, bytes := range []int{2 * m * k, 2 * n * k, 4 * n, 2 * len(outBits)} {
		b, err := d.Alloc("test", int64(bytes))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Free()
		buffers[i] = b
	}
	add := cuda.Null()
	if residual {
		add = cuda.At(buffers[3], 0)
	}
	blocksM, blocksN := s.grid(m, n)
	got := make([]uint16, len(outBits))
	err := d.Do(t.Context(), func(q *cuda.Queue) error {
		for _, err := range []error{
			cuda.Upload(q, buffers[0], 0, xBits), cuda.Upload(q, buffers[1], 0, wBits), cuda.Upload(q, buffers[2], 0, bias), cuda.Upload(q, buffers[3], 0, outBits),
			q.Launch(kernel, cuda.Launch{Grid: [3]int{blocksN, blocksM}, Block: [3]int{s.threads}, Shared: s.shared},
				cuda.At(buffers[0], 0), cuda.At(buffers[1], 0), cuda.At(buffers[2], 0), add, cuda.At(buffers[3], 0), cuda.I32(m), cuda.I32(n), cuda.I32(k), cuda.I32(act)),
			cuda.Download(q, got, buffers[3], 0),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	bits := 11.0
	if bf {
		bits = 8
	}
	for r := range m {
		for c := range n {
			sum := float64(bias[c])
			size := math.Abs(sum)
			for i := range k {
				p := float64(x[r*k+i]) * float64(w[c*k+i])
				sum += p
				size += math.Abs(p)
			}
			if act == 1 {
				sum = sum / 2 * (1 + math.Erf(sum/math.Sqrt2))
			}
			if residual {
				sum += float64(old[r*n+c])
			}
			// Half a unit of the rounding, sums in fp32, and what gelu is off.
			most := math.Ldexp(math.Abs(sum), -int(bits))*1.01 + size*1e-6 + 7e-5
			var is float64
			if bf {
				is = float64(math.Float32frombits(uint32(got[r*n+c]) << 16))
			} else {
				var f [1]float32
				simd.Fp16ToFp32(f[:], got[r*n+c:r*n+c+1])
				is = float64(f[0])
			}
			if !(math.Abs(is-sum) <= most) {
				t.Fatalf("%s of %s: element (%d, %d) is %g, want %g within %g", kernel, fmt.Sprint(m, n, k, act, residual), r, c, is, sum, most)
			}
		}
	}
	for i, b := range got[m*n:] {
		if b != 0x1234 {
			t.Fatalf("%s of %d x %d: half %d behind the last was overwritten", kernel, m, n, i)
		}
	}
}

// TestBest pins which tiles are chosen: large ones where they fill the device.
func TestBest(t *testing.T) {
	for _, c := range []struct {
		shapes     []shape
		m, n, most int
		want       string
	}{
		{capability90, 16384, 384, 132, "gemm_90_192"},
		{capability90, 16384, 1152, 132, "gemm_90_192"},
		{capability90, 16384, 1536, 132, "gemm_90_192"},
		{capability90, 5000, 384, 132, "gemm_90_128"},
		{capability90, 16384, 256, 132, "gemm_90_128"},
		{capability90, 2048, 384, 132, "gemm_90"},
		{capability90, 32, 1536, 132, "gemm_90"},
		{portable, 16384, 1536, 108, "gemm_large"},
		{portable, 32, 384, 108, "gemm"},
	} {
		if got := best(c.shapes, c.m, c.n, c.most).kernel; got != c.want {
			t.Errorf("%d x %d on %d processors: %s, want %s", c.m, c.n, c.most, got, c.want)
		}
	}
}
