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

// TestShardsFail: a device of several that is lost, or a call that is given up: a typed
// error, and the same lists from those that go on. TestFaults has more.
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

// TestShardsFull: rows go where there is room, are streamed where there is none, and are
// refused where they cannot be: the lists are the oracle's all along.
func TestShardsFull(t *testing.T) {
	small(t, 130_000)
	devices := several(t, 3)
	rng := rand.New(rand.NewPCG(35, 36))
	const n, dim = 1500, 24
	b := random(rng, n, dim, 127)
	s := shards(t, devices, dim)
	for _, p := range s.parts {
		p.perTile = 128
	}
	// with calls f while others leave the devices so many bytes.
	with := func(leave [3]int64, f func()) {
		t.Helper()
		for d, bytes := range leave {
			free, _, err := devices[d].Memory()
			if err != nil {
				t.Fatal(err)
			}
			ballast, err := devices[d].Alloc("another's", max(1, free-bytes))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := ballast.Free(); err != nil {
					t.Fatal(err)
				}
			}()
		}
		f()
	}
	grow := func(to int) error {
		for have := s.Rows(); have < to; have = s.Rows() {
			hi := min(to, have+1+rng.IntN(90))
			if err := s.Append(t.Context(), b.codes[have*dim:hi*dim], b.scales[have:hi]); err != nil {
				return err
			}
		}
		return nil
	}
	right := func() {
		t.Helper()
		rows := s.Rows()
		check(t, s, b, rows, randomMask(rng, rows, 80), randomHeads(rng, 2, dim), []int{5, rows / 2})
		seen := 1 + rng.IntN(rows)
		plan, bins := randomPlan(rng, n, dim, 2, 2, 2)
		checkPlan(t, s, b, seen, randomMask(rng, seen, 80), plan, bins, []int{seen, 9})
	}
	// lie checks which devices have rows, and that they are streamed or not.
	lie := func(streamed bool, has ...bool) {
		t.Helper()
		shares, err := s.Shares(s.Rows())
		if err != nil {
			t.Fatal(err)
		}
		for d, rows := range shares {
			if rows > 0 != has[d] {
				t.Fatalf("the devices have %d rows", shares)
			}
		}
		if _, there := s.Lie(); there > 0 != streamed {
			t.Fatalf("%d rows are streamed", there)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const none, stage, room = 1000, 20_000, 120_000
	with([3]int64{none, room, none}, func() { must(grow(300)) }) // the second has room
	lie(false, false, true, false)
	right()
	with([3]int64{none, room, room}, func() { must(grow(500)) }) // and the third
	lie(false, false, true, true)
	right()
	with([3]int64{none, none, stage}, func() { must(grow(900)) }) // which streams
	lie(true, false, true, true)
	right()
	// Where there is not even memory to stream through, there is an error with the numbers.
	fresh := shards(t, devices, dim)
	with([3]int64{none, none, none}, func() {
		var full *cuda.OutOfMemoryError
		if err := fresh.Append(t.Context(), b.codes, b.scales); !errors.As(err, &full) || full.Asked < 1 || full.Total == 0 || fresh.Rows() != 0 {
			t.Errorf("%d rows, %v", fresh.Rows(), err)
		}
	})
	must(grow(n)) // all have room
	lie(true, true, true, true)
	right()
}
