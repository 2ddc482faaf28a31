//go:build cuda

package scan

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
)

// several opens n devices: those there are, or of the simulator as many as that.
func several(t *testing.T, n int) []*cuda.Device {
	t.Helper()
	if cudatest.Open(t).Info().Simulated {
		t.Setenv("KINDRED_SIM_DEVICES", strconv.Itoa(n))
	}
	if have := len(cuda.Probe().Devices); have < n {
		t.Skipf("%d devices of the %d that are wanted", have, n)
	}
	var out []*cuda.Device
	for i := range n {
		d, err := cuda.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, d)
	}
	return out
}

func shards(t *testing.T, devices []*cuda.Device, dim int) *Shards {
	t.Helper()
	s, err := NewShards(devices, dim)
	if err != nil {
		t.Fatal(err)
	}
	s.run = 128
	for _, p := range s.parts {
		p.perSegment, p.tileBytes = 192, 4096
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestShards holds populations on several devices to the oracle of one: over sizes that
// straddle runs, rounds of all devices and segments, views of earlier rows, and
// devices that have no row.
func TestShards(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for _, count := range []int{1, 2, 3} {
		devices := several(t, count)
		for _, n := range []int{1, 128, 129, 500, 1000} {
			const dim = 24
			b := random(rng, n, dim, []int{1, 127}[rng.IntN(2)])
			s := shards(t, devices, dim)
			for lo := 0; lo < n; {
				hi := min(n, lo+1+rng.IntN(400))
				if err := s.Append(t.Context(), b.codes[lo*dim:hi*dim], b.scales[lo:hi]); err != nil {
					t.Fatal(err)
				}
				lo = hi
			}
			if s.Rows() != n {
				t.Fatalf("%d rows, want %d", s.Rows(), n)
			}
			for _, seen := range []int{n, 1 + rng.IntN(n)} {
				mask := randomMask(rng, seen, []int{100, 60, 1}[rng.IntN(3)])
				check(t, s, b, seen, mask, randomHeads(rng, 3, dim), []int{1, seen, seen / 3})
				plan, bins := randomPlan(rng, n, dim, 3, 4, 4)
				var told []int
				var mu sync.Mutex
				plan.Progress = func(done, total int) {
					mu.Lock()
					defer mu.Unlock()
					if told = append(told, done); total != seen {
						t.Errorf("%d rows in all, want %d", total, seen)
					}
				}
				checkPlan(t, s, b, seen, mask, plan, bins, []int{0, 1, seen, 17})
				if len(told) == 0 || told[len(told)-1] != seen {
					t.Errorf("%d rows are done in the end, want %d", told, seen)
				}
			}
		}
	}
}

// TestShardsFail: a device of several that is full, or lost, or a call that is given
// up: a typed error, no row half there, and the same lists from those that go on.
func TestShardsFail(t *testing.T) {
	devices := several(t, 3)
	if !devices[0].Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	rng := rand.New(rand.NewPCG(33, 34))
	const n, dim = 1000, 24
	b := random(rng, n, dim, 127)
	heads, size := randomHeads(rng, 2, dim), []int{10, 300}
	mask := randomMask(rng, n, 90)

	// One device's n-th allocation fails, for every n.
	for i := 1; ; i++ {
		t.Setenv("KINDRED_SIM_FAIL_ALLOC", strconv.Itoa(i))
		failing, err := cuda.Open(2)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("KINDRED_SIM_FAIL_ALLOC", "")
		s := shards(t, []*cuda.Device{devices[0], failing, devices[1]}, dim)
		grow := func(n int) error {
			have := s.Rows()
			return s.Append(t.Context(), b.codes[have*dim:n*dim], b.scales[have:n])
		}
		const some = 777
		if err = grow(some); err == nil {
			if _, err = s.Best(t.Context(), some, randomMask(rng, some, 90), heads, size); err == nil {
				err = grow(n)
			}
		}
		if err != nil && (!errors.Is(err, cuda.ErrOutOfMemory) || s.Rows() != 0 && s.Rows() != some) {
			t.Fatalf("allocation %d: %v, %d rows", i, err, s.Rows())
		}
		if err != nil { // it fails once
			if err := grow(n); err != nil {
				t.Fatal(err)
			}
			check(t, s, b, n, mask, heads, size)
		}
		if err := errors.Join(s.Close(), failing.Close()); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			if i < 10 {
				t.Errorf("%d allocations only were seen to fail", i-1)
			}
			break
		}
	}

	s := shards(t, devices, dim)
	if err := s.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Best(ctx, n, mask, heads, size); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	check(t, s, b, n, mask, heads, size)

	t.Setenv("KINDRED_SIM_LOSE", "9")
	doomed, err := cuda.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KINDRED_SIM_LOSE", "")
	lost := shards(t, []*cuda.Device{devices[1], doomed}, dim)
	if err := lost.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		_, err := lost.Best(t.Context(), n, mask, heads, size)
		if errors.Is(err, cuda.ErrLost) {
			break
		}
		if err != nil || i > 9 {
			t.Fatalf("pass %d: %v, want a lost device", i, err)
		}
	}
	if err := errors.Join(lost.Close(), doomed.Close()); err != nil {
		t.Fatal(err)
	}
}
