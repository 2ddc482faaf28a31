//go:build cuda

package seeds

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
)

// base are rows in plain Go.
type base struct {
	dim    int
	codes  []int8
	scales []float32
	mask   []uint64
}

// random makes rows of which many score alike when few codes are used.
func random(rng *rand.Rand, n, dim, spread int) *base {
	b := &base{dim: dim, mask: make([]uint64, (n+63)/64)}
	for r := range n {
		for range dim {
			b.codes = append(b.codes, int8(rng.IntN(2*spread+1)-spread))
		}
		b.scales = append(b.scales, float32(1+rng.IntN(spread))/100)
		if rng.IntN(8) > 0 {
			b.mask[r/64] |= 1 << (r % 64)
		}
	}
	if n%64 > 0 { // of no row, and not to be looked at
		b.mask[n/64] |= ^uint64(0) << (n % 64)
	}
	return b
}

// randomHeads makes heads whose codes are all that shorts can be, as far as sums allow.
func randomHeads(rng *rand.Rand, count, dim, most int, biased bool) []Head {
	most = min(most, math.MaxInt16, math.MaxInt32/(127*dim))
	out := make([]Head, count)
	for h := range out {
		out[h] = Head{Codes: make([]int16, dim), Scale: math.Ldexp(1, rng.IntN(3)-15)}
		for j := range out[h].Codes {
			out[h].Codes[j] = int16(rng.IntN(2*most+1) - most)
		}
		if h%17 == 0 { // the ends of what bytes hold
			out[h].Codes[rng.IntN(dim)] = int16(most)
			out[h].Codes[rng.IntN(dim)] = int16(-most)
			if most == math.MaxInt16 {
				out[h].Codes[rng.IntN(dim)] = math.MinInt16
			}
		}
		if biased && rng.IntN(2) == 0 {
			out[h].Bias = rng.NormFloat64()
		}
	}
	return out
}

// scores is the oracle: each head's score of a row, sorted, the top added from the highest
// down.
func (b *base) scores(heads []Head, top int) []float32 {
	out, all := make([]float32, len(b.scales)), make([]float64, len(heads))
	for r := range out {
		if b.mask[r/64]>>(r%64)&1 == 0 {
			out[r] = float32(math.Inf(-1))
			continue
		}
		for h := range heads {
			sum := 0
			for j, c := range heads[h].Codes {
				sum += int(c) * int(b.codes[r*b.dim+j])
			}
			all[h] = float64(float64(sum) * (float64(b.scales[r]) * heads[h].Scale))
			if heads[h].Bias != 0 {
				all[h] += heads[h].Bias
			}
		}
		slices.Sort(all)
		x := 0.0
		for k := range top {
			x += all[len(all)-1-k]
		}
		out[r] = float32(max(-math.MaxFloat32, min(math.MaxFloat32, x/float64(top))))
	}
	return out
}

// onDevice scores the rows on a device, from places that aren't the beginning.
func onDevice(t *testing.T, d *cuda.Device, b *base, s *Set, top int, plain bool) []float32 {
	t.Helper()
	n := len(b.scales)
	padded := make([]int8, n*s.stride)
	for r := range n {
		copy(padded[r*s.stride:], b.codes[r*b.dim:(r+1)*b.dim])
	}
	out := make([]float32, n+2)
	err := d.Borrow("test", []int64{int64(len(padded)) + 32, 4*int64(n) + 8, 8*int64(len(b.mask)) + 8, 4*int64(n) + 8}, func(m []*cuda.Buffer) error {
		return d.Do(t.Context(), func(q *cuda.Queue) error {
			return errors.Join(
				cuda.Upload(q, m[0], 32, padded), cuda.Upload(q, m[1], 8, b.scales), cuda.Upload(q, m[2], 8, b.mask), cuda.Upload(q, m[3], 0, slices.Repeat([]float32{77}, n+2)),
				s.Score(q, Rows{N: int64(n), Codes: m[0], Scales: m[1], Mask: m[2], CodesAt: 32, ScalesAt: 8, MaskAt: 8}, top, plain, m[3], 4),
				cuda.Download(q, out, m[3], 0))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if out[0] != 77 || out[n+1] != 77 {
		t.Fatalf("scores beside the rows' were written: %v, %v", out[0], out[n+1])
	}
	return out[1 : n+1]
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d scores, want %d", what, len(got), len(want))
	}
	for r := range want {
		if math.Float32bits(got[r]) != math.Float32bits(want[r]) && (got[r] != 0 || want[r] != 0) {
			t.Fatalf("%s: row %d: %v, want %v", what, r, got[r], want[r])
		}
	}
}

// TestScore holds the device to the oracle over sizes that straddle lanes, rows of a
// block, heads of a group and steps of a row, with ties and with bytes at their ends.
func TestScore(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(21, 1))
	for _, c := range []struct {
		n, dim, heads, top, spread, most int
		biased                           bool
	}{
		{1, 1, 1, 1, 127, 32767, false}, {31, 16, 7, 3, 127, 32767, true}, {33, 17, 64, 5, 2, 2, false}, {130, 64, 65, 16, 127, 32767, true},
		{65, 100, 130, 5, 127, 32767, false}, {257, 48, 66, 1, 1, 1, true}, {40, 384, 20, 10, 127, 32767, true}, {300, 8, 200, 5, 3, 300, false},
		{34, 20, 100, 64, 127, 32767, true}, {3, 2000, 3, 2, 127, 300, false},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b, heads := random(rng, c.n, c.dim, c.spread), randomHeads(rng, c.heads, c.dim, c.most, c.biased)
			s, err := New(t.Context(), d, c.dim, heads)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			same(t, "mean", onDevice(t, d, b, s, c.top, false), b.scores(heads, c.top))
			if c.top == 1 {
				same(t, "highest", onDevice(t, d, b, s, 1, true), b.scores(heads, 1))
			}
		})
	}
}

// TestOrder: what a row's best are doesn't depend on the order that heads come in, nor do
// the last bits of their mean. Heads from the worst to the best are all candidates, those
// from the best down none after the first few.
func TestOrder(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(21, 2))
	b := random(rng, 40, 32, 127)
	heads := randomHeads(rng, 150, 32, 32767, false)
	for h := range heads {
		heads[h].Bias = float64(h) / 3 * 1e-3
	}
	want := b.scores(heads, 7)
	for _, order := range []string{"up", "down", "shuffled"} {
		switch order {
		case "down":
			slices.Reverse(heads)
		case "shuffled":
			rng.Shuffle(len(heads), func(i, j int) { heads[i], heads[j] = heads[j], heads[i] })
		}
		s, err := New(t.Context(), d, 32, heads)
		if err != nil {
			t.Fatal(err)
		}
		same(t, order, onDevice(t, d, b, s, 7, false), want)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNear: heads that differ by less than a float tells apart, and numbers at the ends of
// floats, where the kernel must not trust them.
func TestNear(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(21, 3))
	for _, c := range []struct {
		name        string
		scale, bias float64
	}{
		{"close", 1e-12, 1000}, {"large", 1e30, 0}, {"larger", 1e200, 1e200}, {"small", 1e-38, 0}, {"smaller", 1e-60, 1e-59}, {"none", 0, 1}, {"bias", 1e-20, 1e35},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, heads := random(rng, 35, 20, 127), randomHeads(rng, 90, 20, 32767, false)
			for h := range heads {
				heads[h].Scale, heads[h].Bias = c.scale*float64(1+h%3), c.bias*float64(1-2*(h%2))
			}
			b.scales[3], b.scales[4] = 0, 1e-44
			s, err := New(t.Context(), d, 20, heads)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			same(t, c.name, onDevice(t, d, b, s, 4, false), b.scores(heads, 4))
		})
	}
}

// TestRefused: what cannot be done is an error that says so, and nothing is left on the
// device.
func TestRefused(t *testing.T) {
	d := cudatest.Open(t)
	good := []Head{{Codes: []int16{1, 2}, Scale: 1}}
	ended, end := context.WithCancel(t.Context())
	end()
	make1 := func(ctx context.Context, dim int, heads []Head) error {
		_, err := New(ctx, d, dim, heads)
		return err
	}
	for what, err := range map[string]error{
		"no dimension":      make1(t.Context(), 0, good),
		"no heads":          make1(t.Context(), 2, nil),
		"another dimension": make1(t.Context(), 3, good),
		"a scale of NaN":    make1(t.Context(), 2, []Head{{Codes: []int16{1, 2}, Scale: math.NaN()}}),
		"an infinite bias":  make1(t.Context(), 2, []Head{{Codes: []int16{1, 2}, Bias: math.Inf(1)}}),
		"sums too large":    make1(t.Context(), 600, []Head{{Codes: slices.Repeat([]int16{32767}, 600)}}),
		"cancelled":         make1(ended, 2, good),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	s, err := New(t.Context(), d, 2, good)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Alloc("test", 256)
	if err != nil {
		t.Fatal(err)
	}
	r := Rows{N: 2, Codes: b, Scales: b, Mask: b, CodesAt: 0, ScalesAt: 32, MaskAt: 40}
	if err := d.Do(t.Context(), func(q *cuda.Queue) error {
		score := func(change func(r *Rows), top int, plain bool, scores *cuda.Buffer, at int64) error {
			other := r
			if change != nil {
				change(&other)
			}
			return s.Score(q, other, top, plain, scores, at)
		}
		for what, err := range map[string]error{
			"top 0":            score(nil, 0, false, b, 64),
			"top 2 of one":     score(nil, 2, false, b, 64),
			"no scores":        score(nil, 1, false, nil, 64),
			"behind the end":   score(nil, 1, false, b, 252),
			"rows below 0":     score(func(r *Rows) { r.N = -1 }, 1, false, b, 64),
			"rows too many":    score(func(r *Rows) { r.N = 20 }, 1, false, b, 64),
			"an odd place":     score(func(r *Rows) { r.CodesAt = 8 }, 1, false, b, 64),
			"a place below 0":  score(func(r *Rows) { r.MaskAt = -8 }, 1, false, b, 64),
			"another device's": score(func(r *Rows) { r.Scales = new(cuda.Buffer) }, 1, false, b, 64),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		return score(func(r *Rows) { r.N = 0 }, 1, true, b, 64)
	}); err != nil {
		t.Error(err)
	}
	// A row that doesn't fit a block's memory.
	wide, err := New(t.Context(), d, 1<<15, []Head{{Codes: make([]int16, 1<<15)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wide.warps(1); err == nil || Fits(d, 1<<15, 1) == nil {
		t.Error("a megabyte of rows fits a block")
	}
	if err := Fits(d, 384, 16); err != nil {
		t.Error(err)
	}
	if err := errors.Join(b.Free(), s.Close(), s.Close(), wide.Close()); err != nil {
		t.Fatal(err)
	}
	if n := d.Metrics().Allocated; n != 0 {
		t.Errorf("%d bytes are left on the device", n)
	}
}

// TestFails: memory that runs out, and launches that fail.
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
			s, err := New(t.Context(), d, 16, []Head{{Codes: make([]int16, 16), Scale: 1}})
			if err == nil {
				err = d.Borrow("test", []int64{1024}, func(b []*cuda.Buffer) error {
					return d.Do(t.Context(), func(q *cuda.Queue) error {
						return s.Score(q, Rows{N: 1, Codes: b[0], Scales: b[0], Mask: b[0]}, 1, false, b[0], 512)
					})
				})
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
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
