//go:build cuda

package scan

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/index/selection"
)

// base is a population in plain Go, the oracle.
type base struct {
	dim    int
	codes  []int8
	scales []float32
}

// random makes rows of which many score alike when few codes are used.
func random(rng *rand.Rand, n, dim, spread int) *base {
	b := &base{dim: dim}
	for range n {
		for range dim {
			b.codes = append(b.codes, int8(rng.IntN(2*spread+1)-spread))
		}
		b.scales = append(b.scales, float32(1+rng.IntN(spread))/100)
	}
	return b
}

func (b *base) score(row int, h Head) float32 {
	sum := 0
	for j, c := range h.Codes {
		sum += int(c) * int(b.codes[row*b.dim+j])
	}
	x := float64(float64(sum) * (float64(b.scales[row]) * h.Scale))
	if h.Bias != 0 {
		x += h.Bias
	}
	return float32(max(-math.MaxFloat32, min(math.MaxFloat32, x))) // NaN stays, and counts as no score
}

// best are the candidates of the k best of the first n, sorted.
func (b *base) best(n int, mask []uint64, h Head, k int) []uint64 {
	var all []uint64
	for r := range n {
		if x := b.score(r, h); mask[r/64]>>(r%64)&1 != 0 && x == x {
			all = append(all, selection.MakeEntry(x, uint32(r)))
		}
	}
	slices.Sort(all)
	if k <= 0 {
		return nil
	}
	end := min(k, len(all))
	for end > 0 && end < len(all) && all[end]>>32 == all[end-1]>>32 {
		end++
	}
	return all[:end]
}

func randomHeads(rng *rand.Rand, count, dim int) []Head {
	var out []Head
	most := min(math.MaxInt16, math.MaxInt32/(127*dim))
	for range count {
		h := Head{Scale: rng.Float64(), Codes: make([]int16, dim)}
		for j := range h.Codes {
			h.Codes[j] = int16(rng.IntN(2*most+1) - most)
		}
		if rng.IntN(2) == 0 {
			h.Bias = rng.NormFloat64()
		}
		out = append(out, h)
	}
	return out
}

// population is one on one device or on several.
type population interface {
	Append(ctx context.Context, codes []int8, scales []float32) error
	Best(ctx context.Context, n int, mask []uint64, heads []Head, size []int) ([][]uint64, error)
	BestOf(ctx context.Context, n int, mask []uint64, plan *Plan, size []int) ([][]uint64, error)
	Scores(ctx context.Context, n int, mask []uint64, plan *Plan, out [][]float32) error
}

// candidates are got, of which several devices have more than there need be: what is
// behind the last wanted is taken off, once it is known to be worse.
func candidates(p population, got, want []uint64) []uint64 {
	if _, several := p.(*Shards); several && len(got) > len(want) && (len(want) == 0 || got[len(want)]>>32 > want[len(want)-1]>>32) {
		return got[:len(want)]
	}
	return got
}

func check(t *testing.T, p population, b *base, n int, mask []uint64, heads []Head, size []int) {
	t.Helper()
	got, err := p.Best(t.Context(), n, mask, heads, size)
	if err != nil {
		t.Fatal(err)
	}
	for h := range heads {
		slices.Sort(got[h])
		if want := b.best(n, mask, heads[h], size[h]); !slices.Equal(candidates(p, got[h], want), want) {
			t.Fatalf("%d rows of %d codes, head %d of %d, the best %d: %d candidates, want %d; they differ", n, b.dim, h, len(heads), size[h], len(got[h]), len(want))
		}
	}
}

// TestBest holds the device to the oracle over sizes that straddle lanes, warps,
// blocks, words of the mask and segments.
func TestBest(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ n, dim, heads, spread int }{
		{1, 1, 1, 127}, {1, 384, 2, 127}, {31, 16, 1, 127}, {32, 17, 3, 127}, {33, 15, 1, 1}, {63, 8, 8, 1}, {64, 24, 9, 127},
		{65, 100, 2, 127}, {257, 32, 1, 1}, {1000, 384, 1, 127}, {1500, 48, 17, 2}, {4097, 16, 4, 1}, {3000, 16, 8, 127},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b := random(rng, c.n, c.dim, c.spread)
			p, err := New(d, c.dim)
			if err != nil {
				t.Fatal(err)
			}
			p.perSegment = 1024
			defer p.Close()
			for lo := 0; lo < c.n; {
				hi := min(c.n, lo+1+rng.IntN(900))
				if err := p.Append(t.Context(), b.codes[lo*c.dim:hi*c.dim], b.scales[lo:hi]); err != nil {
					t.Fatal(err)
				}
				lo = hi
			}
			for _, density := range []int{100, 50, 3, 0} {
				n := c.n
				if density == 50 {
					n = 1 + rng.IntN(c.n) // a view of earlier rows
				}
				mask := make([]uint64, (n+63)/64)
				for r := range n {
					if rng.IntN(100) < density {
						mask[r/64] |= 1 << (r % 64)
					}
				}
				heads := randomHeads(rng, c.heads, c.dim)
				size := make([]int, c.heads)
				for h := range size {
					size[h] = []int{1, 1 + rng.IntN(n), n, n + 5, 0, n / 2}[rng.IntN(6)]
				}
				check(t, p, b, n, mask, heads, size)
			}
		})
	}
}

// TestKernelsAreTimed: the device's counts have the kernels of a list, and no more time than all took.
func TestKernelsAreTimed(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(7, 9))
	b := random(rng, 1000, 16, 127)
	p, err := New(d, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	check(t, p, b, 1000, randomMask(rng, 1000, 100), randomHeads(rng, 1, 16), []int{10})
	m := d.Metrics()
	launches, sum := int64(0), time.Duration(0)
	scans := int64(0)
	for name, k := range m.Each {
		launches, sum = launches+k.Launches, sum+k.Time
		if strings.HasPrefix(name, "scan_int8") && k.Time > 0 {
			scans += k.Launches
		}
	}
	if scans != 1 {
		t.Errorf("%+v", m.Each)
	}
	if launches != m.Launches || sum > 2*m.Kernels {
		t.Errorf("%d launches of %d, %v of %v", launches, m.Launches, sum, m.Kernels)
	}
}

// TestExtremes: sums beyond fp32 become the largest of it, and equal scores are all
// candidates.
func TestExtremes(t *testing.T) {
	d := cudatest.Open(t)
	b := &base{dim: 16}
	for r := range 200 {
		for range 16 {
			b.codes = append(b.codes, int8(127*(r%3-1)))
		}
		b.scales = append(b.scales, []float32{0, 1, math.MaxFloat32, math.SmallestNonzeroFloat32}[r%4])
	}
	p, err := New(d, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	mask := []uint64{math.MaxUint64, math.MaxUint64, math.MaxUint64, 1<<8 - 1}
	ones := slices.Repeat([]int16{math.MaxInt16}, 16)
	for _, h := range []Head{{ones, 1, 0}, {ones, math.MaxFloat64, 0}, {ones, -1e300, 1}, {make([]int16, 16), 1, 0}, {make([]int16, 16), 1, -3}} {
		for _, k := range []int{1, 7, 100, 200, 1000} {
			check(t, p, b, 200, mask, []Head{h}, []int{k})
		}
	}
}

// TestEveryAllocationFails: wherever memory runs out there is an error that says so,
// nothing is left held, and the next try succeeds.
func TestEveryAllocationFails(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	b := random(rng, 300, 16, 127)
	heads, size, mask := randomHeads(rng, 2, 16), []int{10, 290}, []uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), 1<<44 - 1}
	for n := 1; ; n++ {
		t.Setenv("KINDRED_SIM_FAIL_ALLOC", strconv.Itoa(n))
		d, err := cuda.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		failed := func() bool {
			p, err := New(d, 16)
			if err != nil {
				t.Fatal(err)
			}
			p.perSegment = 128
			defer p.Close()
			if err = p.Append(t.Context(), b.codes, b.scales); err == nil {
				_, err = p.Best(t.Context(), 300, mask, heads, size)
			}
			if err == nil {
				return false // the one that fails would be of the next pass
			}
			var memory *cuda.OutOfMemoryError
			if !errors.As(err, &memory) || memory.Asked < 1 {
				t.Fatalf("allocation %d failed: %v", n, err)
			}
			if p.Rows() != 0 && p.Rows() != 300 {
				t.Fatalf("allocation %d failed: %d rows are left of 300", n, p.Rows())
			}
			if p.Rows() == 0 {
				if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
					t.Fatal(err)
				}
			}
			check(t, p, b, 300, mask, heads, size)
			return true
		}()
		if err := d.Close(); err != nil {
			t.Fatalf("allocation %d failed: %v", n, err)
		}
		if !failed {
			if n < 10 {
				t.Fatalf("%d allocations only were seen to fail", n-1)
			}
			return
		}
	}
}

// TestLost: a launch that is refused is an error and no more; a device that is lost
// stays so, and one that is opened anew works.
func TestLost(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	rng := rand.New(rand.NewPCG(5, 6))
	b := random(rng, 500, 16, 127)
	heads, size := randomHeads(rng, 1, 16), []int{50}
	mask := []uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), 1<<52 - 1}
	for _, c := range []struct {
		env  string
		kind error
	}{{"KINDRED_SIM_FAIL_LAUNCH", cuda.ErrLaunch}, {"KINDRED_SIM_LOSE", cuda.ErrLost}} {
		for n := 1; n <= 4; n++ {
			t.Setenv(c.env, strconv.Itoa(n))
			d, err := cuda.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(c.env, "")
			p, err := New(d, 16)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Best(t.Context(), 500, mask, heads, size); !errors.Is(err, c.kind) {
				t.Fatalf("%s=%d: %v, want %v", c.env, n, err, c.kind)
			}
			_, again := p.Best(t.Context(), 500, mask, heads, size)
			if lost := errors.Is(c.kind, cuda.ErrLost); lost != errors.Is(again, cuda.ErrLost) || !lost && again != nil {
				t.Fatalf("%s=%d, the second time: %v", c.env, n, again)
			}
			if err := errors.Join(p.Close(), d.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	d := cudatest.Open(t)
	if _, err := New(d, 0); err == nil {
		t.Error("rows of no codes are taken")
	}
	p, err := New(d, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), make([]int8, 7), make([]float32, 2)); err == nil {
		t.Error("seven codes are taken for two rows of four")
	}
	if err := p.Append(t.Context(), make([]int8, 8), make([]float32, 2)); err != nil {
		t.Fatal(err)
	}
	h := []Head{{Codes: make([]int16, 4)}}
	for what, err := range map[string]error{
		"more rows than there are": second(p.Best(t.Context(), 3, []uint64{7}, h, []int{1})),
		"a long mask":              second(p.Best(t.Context(), 2, []uint64{3, 0}, h, []int{1})),
		"a short head":             second(p.Best(t.Context(), 2, []uint64{3}, []Head{{Codes: make([]int16, 3)}}, []int{1})),
		"no size":                  second(p.Best(t.Context(), 2, []uint64{3}, h, nil)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Best(ctx, 2, []uint64{3}, h, []int{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Best(t.Context(), 0, nil, nil, nil); !errors.Is(err, cuda.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// small opens a device of so many bytes of memory, under the simulator.
func small(t *testing.T, bytes int) *cuda.Device {
	t.Helper()
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator has as little memory as is asked for")
	}
	t.Setenv("KINDRED_SIM_MEMORY", strconv.Itoa(bytes))
	return cudatest.Open(t)
}

// TestStreamed: rows that don't fit the device are streamed, with the same lists and
// scores; in tiles that are not full, grown and cut.
func TestStreamed(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	const n = 1300
	for dim, memory := range map[int]int{16: 72_000, 23: 90_000, 100: 110_000} {
		d := small(t, memory)
		b := random(rng, n, dim, 127)
		p, err := New(d, dim)
		if err != nil {
			t.Fatal(err)
		}
		p.perSegment, p.perTile, p.tileBytes = 256, 128, 2048
		if dim == 16 { // so that some fit
			p.perSegment = 1024
		}
		plan, bins := randomPlan(rng, n, dim, 2, 4, 5)
		heads := randomHeads(rng, 11, dim)
		for lo := 0; lo < n; {
			hi := min(n, lo+1+rng.IntN(700))
			if err := p.Append(t.Context(), b.codes[lo*dim:hi*dim], b.scales[lo:hi]); err != nil {
				t.Fatal(err)
			}
			mask := randomMask(rng, hi, 80)
			check(t, p, b, hi, mask, heads, []int{1, 5, hi, 0, 300, 20, 20, 20, 20, 20, 7})
			checkPlan(t, p, b, hi, mask, plan, bins, []int{3, 0, hi, 40})
			lo = hi
		}
		if device, streamed := p.Lie(); device == 0 || streamed == 0 || device+streamed != n {
			t.Errorf("dim %d: %d rows are on the device and %d are streamed, of %d", dim, device, streamed, n)
		}
		// Rows that are taken back leave the others as they are.
		if err := p.truncate(n - 333); err != nil || p.Rows() != n-333 {
			t.Fatalf("%d rows, %v", p.Rows(), err)
		}
		check(t, p, b, n-333, randomMask(rng, n-333, 90), heads[:2], []int{10, 400})
		if err := p.Append(t.Context(), b.codes[(n-333)*dim:], b.scales[n-333:]); err != nil {
			t.Fatal(err)
		}
		check(t, p, b, n, randomMask(rng, n, 90), heads[:2], []int{10, 400})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTooSmall: where not even the stage fits, the error has the numbers.
func TestTooSmall(t *testing.T) {
	d := small(t, 60_000)
	p, err := New(d, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var full *cuda.OutOfMemoryError
	if err := p.Append(t.Context(), make([]int8, 160), make([]float32, 10)); !errors.As(err, &full) || full.Asked == 0 || full.Total != 60_000 {
		t.Fatalf("%v", err)
	}
	if p.Rows() != 0 {
		t.Errorf("%d rows", p.Rows())
	}
}
