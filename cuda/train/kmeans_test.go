//go:build cuda

package train

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

func normal(rng *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

func rowsOf(flat []float32, dim int) (out [][]float32) {
	for part := range slices.Chunk(flat, dim) {
		out = append(out, part)
	}
	return out
}

// scored are x·c - |c|²/2 in fp64, and by how much fp32 may be off.
func scored(x, c []float32) (s, off float64) {
	for j := range x {
		s += float64(x[j])*float64(c[j]) - float64(c[j])*float64(c[j])/2
		off += math.Abs(float64(x[j]) * float64(c[j]))
		off += float64(c[j]) * float64(c[j]) / float64(len(x)+2)
	}
	return s, off * float64(len(x)+2) * 0x1p-24
}

// TestAssign: whole numbers are exact, and so is the choice, the first of equals; of
// others, the centre chosen is as near as any, to what fp32 tells apart, and the distances
// are right to that. Sizes straddle the tiles' rows, centres and depth.
func TestAssign(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(31, 1))
	for _, c := range []struct {
		n, dim, k int
		whole     bool
	}{
		{1, 1, 1, true}, {127, 16, 3, true}, {129, 17, 65, true}, {300, 5, 64, true}, {520, 33, 7, true}, {2000, 3, 130, true},
		{128, 15, 8, false}, {130, 40, 70, false}, {70, 384, 24, false},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			points, flat := normal(rng, c.n*c.dim), normal(rng, c.k*c.dim)
			if c.whole {
				for _, v := range [][]float32{points, flat} {
					for i := range v {
						v[i] = float32(2 * (rng.IntN(5) - 2)) // even, so that halves of squares are whole
					}
				}
			}
			centres := rowsOf(flat, c.dim)
			k, err := NewKMeans(t.Context(), d, points, c.dim, c.k+1)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			var last []int32
			for round := range 2 {
				a, err := k.Assign(t.Context(), centres)
				if err != nil {
					t.Fatal(err)
				}
				moved, counts := 0, make([]uint32, c.k)
				for i, x := range rowsOf(points, c.dim) {
					if a.Of[i] < 0 || int(a.Of[i]) >= c.k {
						t.Fatalf("point %d is in %d", i, a.Of[i])
					}
					best, off, at := math.Inf(-1), 0.0, 0
					var all []float64
					for j := range centres {
						s, e := scored(x, centres[j])
						all, off = append(all, s), max(off, e)
						if s > best {
							best, at = s, j
						}
					}
					if c.whole && int(a.Of[i]) != at || best-all[a.Of[i]] > 2*off {
						t.Fatalf("point %d is in %d, want %d: %v and %v", i, a.Of[i], at, all[a.Of[i]], best)
					}
					norm, _ := squares(x, c.dim, "")
					slices.Sort(all)
					second := math.Inf(-1)
					if c.k > 1 {
						second = all[c.k-2]
					}
					if c.whole {
						off = 0
					}
					if w := max(0, norm[0]-2*best); !(math.Abs(a.Dist[i]-w) <= 2*off) {
						t.Fatalf("point %d: %v from its centre, want %v", i, a.Dist[i], w)
					}
					if w := max(0, norm[0]-2*second); !(math.Abs(a.Next[i]-w) <= 2*off || w == a.Next[i]) {
						t.Fatalf("point %d: %v from the next centre, want %v", i, a.Next[i], w)
					}
					counts[a.Of[i]]++
					if last == nil || last[i] != a.Of[i] {
						moved++
					}
				}
				if a.Moved != moved || !slices.Equal(a.Counts, counts) {
					t.Fatalf("%d moved to %v, want %d to %v", a.Moved, a.Counts, moved, counts)
				}
				sums(t, k, points, a.Of, c.k)
				if last = a.Of; round == 0 {
					centres[rng.IntN(c.k)] = slices.Clone(points[:c.dim])
				}
			}
		})
	}
}

// sums: the bits of adding the points up one after the other.
func sums(t *testing.T, k *KMeans, points []float32, of []int32, count int) {
	t.Helper()
	got, err := k.Sums(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float64, count*k.dim)
	for i, c := range of {
		for j, x := range points[i*k.dim : (i+1)*k.dim] {
			want[int(c)*k.dim+j] += float64(x)
		}
	}
	for i := range want {
		if len(got) != len(want) || math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("centre %d, number %d: %v, want %v", i/k.dim, i%k.dim, got[i], want[i])
		}
	}
}

// TestLloyd: steps of the package lead to the groups that points were drawn from.
func TestLloyd(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(31, 2))
	const n, dim, groups = 400, 12, 4
	points := normal(rng, n*dim)
	for i := range n {
		points[i*dim+i%groups] += 12
	}
	k, err := NewKMeans(t.Context(), d, points, dim, groups)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var centres [][]float32
	for c := range groups {
		centres = append(centres, slices.Clone(points[c*dim:(c+1)*dim]))
	}
	for step := 0; ; step++ {
		a, err := k.Assign(t.Context(), centres)
		if err != nil {
			t.Fatal(err)
		}
		if a.Moved == 0 {
			for i, c := range a.Of {
				if int(c) != i%groups {
					t.Fatalf("point %d is in %d", i, c)
				}
			}
			return
		}
		if step > 20 {
			t.Fatalf("%d points move after %d steps", a.Moved, step)
		}
		sums, err := k.Sums(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for c := range centres {
			for j := range centres[c] {
				centres[c][j] = float32(sums[c*dim+j] / float64(a.Counts[c]))
			}
		}
	}
}

func TestKMeansRefused(t *testing.T) {
	d := cudatest.Open(t)
	nan := float32(math.NaN())
	ended, end := context.WithCancel(t.Context())
	end()
	make1 := func(ctx context.Context, points []float32, dim, most int) error {
		_, err := NewKMeans(ctx, d, points, dim, most)
		return err
	}
	k, err := NewKMeans(t.Context(), d, []float32{1, 2, 3, 4}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	assign := func(centres ...[]float32) error {
		_, err := k.Assign(t.Context(), centres)
		return err
	}
	_, early := k.Sums(t.Context())
	for what, err := range map[string]error{
		"no points":         make1(t.Context(), nil, 2, 1),
		"half a point":      make1(t.Context(), make([]float32, 3), 2, 1),
		"no dimension":      make1(t.Context(), make([]float32, 3), 0, 1),
		"no centres":        make1(t.Context(), make([]float32, 3), 1, 0),
		"many centres":      make1(t.Context(), make([]float32, 3), 1, centresMost+1),
		"a NaN":             make1(t.Context(), []float32{1, nan}, 1, 1),
		"cancelled":         make1(ended, make([]float32, 3), 1, 1),
		"sums early":        early,
		"none":              assign(),
		"three of two":      assign([]float32{1, 2}, []float32{1, 2}, []float32{1, 2}),
		"a short centre":    assign([]float32{1}),
		"a centre of a NaN": assign([]float32{1, nan}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	if err := assign([]float32{1, 2}); !errors.Is(err, cuda.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := k.Sums(t.Context()); !errors.Is(err, cuda.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if n := d.Metrics().Allocated; n != 0 {
		t.Errorf("%d bytes are left on the device", n)
	}
}

// TestFails: memory that runs out, launches that fail and a device that is lost, each at
// every place, are errors of their kind, and leave nothing behind.
func TestFails(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	run := func(d *cuda.Device) error {
		k, err := NewKMeans(t.Context(), d, make([]float32, 8), 2, 2)
		if err != nil {
			return err
		}
		_, err = k.Assign(t.Context(), [][]float32{{1, 2}})
		if err == nil {
			_, err = k.Sums(t.Context())
		}
		if err = errors.Join(err, k.Close()); err != nil {
			return err
		}
		l, err := NewLogistic(t.Context(), d, make([]float32, 8), 2, make([]bool, 4), make([]float64, 4))
		if err != nil {
			return err
		}
		_, err = l.Loss(t.Context(), []float32{1, 2}, 0, nil, make([]float64, 3), nil)
		return errors.Join(err, l.Close())
	}
	for _, c := range []struct {
		env  string
		most int
		kind error
	}{{"KINDRED_SIM_FAIL_ALLOC", 17, cuda.ErrOutOfMemory}, {"KINDRED_SIM_FAIL_LAUNCH", 7, cuda.ErrLaunch}, {"KINDRED_SIM_LOSE", 7, cuda.ErrLost}} {
		for n := 1; n <= c.most+1; n++ {
			t.Setenv(c.env, strconv.Itoa(n))
			d, err := cuda.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			if err := run(d); n <= c.most && !errors.Is(err, c.kind) || n > c.most && err != nil {
				t.Errorf("%s=%d: %v", c.env, n, err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("%s=%d: %v", c.env, n, err)
			}
		}
		t.Setenv(c.env, "")
	}
}
