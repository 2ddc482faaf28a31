//go:build cuda

package scan

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
)

// story is what a population on several devices goes through: rows come, lists and scores
// are asked for, more rows come. Each step has the oracle's answer.
type story struct {
	b     *base
	steps []step
	rows  []int // how many there are after each step
}

// step returns a description of what is wrong with an answer, "" for nothing.
type step func(t *testing.T, s *Shards) (wrong string, err error)

func newStory(rng *rand.Rand, b *base, some, n int, seeds bool) *story {
	st := &story{b: b}
	add := func(rows int, f step) { st.steps, st.rows = append(st.steps, f), append(st.rows, rows) }
	grow := func(rows int) {
		add(rows, func(t *testing.T, s *Shards) (string, error) {
			have := s.Rows()
			return "", s.Append(t.Context(), b.codes[have*b.dim:rows*b.dim], b.scales[have:rows])
		})
	}
	same := func(got, want [][]uint64) string {
		for h := range want {
			slices.Sort(got[h])
			if !slices.Equal(candidates(got[h], want[h]), want[h]) {
				return fmt.Sprintf("list %d has %d candidates, want %d; they differ", h, len(got[h]), len(want[h]))
			}
		}
		return ""
	}
	grow(some)
	heads, size, mask := randomHeads(rng, 2, b.dim), []int{7, some / 2}, randomMask(rng, some, 80)
	best := make([][]uint64, len(heads))
	for h := range heads {
		best[h] = b.best(some, mask, heads[h], size[h])
	}
	add(some, func(t *testing.T, s *Shards) (string, error) {
		got, err := s.Best(t.Context(), some, mask, heads, size)
		if err != nil {
			return "", err
		}
		return same(got, best), nil
	})
	grow(n)
	plan, bins := randomPlan(rng, n, b.dim, 2, 3, 3)
	if seeds { // a set of many vectors goes to package seeds
		plan.Sets[1] = Set{}
		for range 10 {
			plan.Sets[1].Heads = append(plan.Sets[1].Heads, SumHead{Head: randomHeads(rng, 1, b.dim)[0]})
		}
	}
	all := randomMask(rng, n, 90)
	counts, scores, lists := []int{n / 3, 5, n}, make([][]float32, 3), make([][]uint64, 3)
	for k := range scores {
		scores[k], lists[k] = b.planned(plan, bins, k, n, all, counts[k])
	}
	add(n, func(t *testing.T, s *Shards) (string, error) {
		got, err := s.BestOf(t.Context(), n, all, plan, counts)
		if err != nil {
			return "", err
		}
		return same(got, lists), nil
	})
	add(n, func(t *testing.T, s *Shards) (string, error) {
		out := make([][]float32, len(scores))
		for k := range out {
			out[k] = slices.Repeat([]float32{float32(math.NaN())}, n)
		}
		if err := s.Scores(t.Context(), n, all, plan, out); err != nil {
			return "", err
		}
		for k := range out {
			if !slices.Equal(out[k], scores[k]) {
				return fmt.Sprintf("the scores under set %d differ", k), nil
			}
		}
		return "", nil
	})
	return st
}

// fault is one call of a device that fails.
type fault struct {
	call string
	err  error
	n    int // which of these calls
}

// balance counts what was taken and not given back, and is a fault's witness.
type balance struct {
	fault
	seen, held, pinned atomic.Int64
}

// before is for [cuda.Device.Inject].
func (f *balance) before(call string) error {
	if call == f.call && f.seen.Add(1) == int64(f.n) {
		return fmt.Errorf("on purpose, %s %d: %w", f.call, f.n, f.err)
	}
	switch call {
	case "alloc":
		f.held.Add(1)
	case "free":
		f.held.Add(-1)
	case "pin":
		f.pinned.Add(1)
	case "unpin":
		f.pinned.Add(-1)
	}
	return nil
}

// tell runs the story while device bad has a fault, and reports whether it came up.
func (st *story) tell(t *testing.T, devices []*cuda.Device, bad int, f fault, small bool) bool {
	t.Helper()
	what := fmt.Sprintf("device %d: %s %d, %v", bad, f.call, f.n, f.err)
	hang := time.AfterFunc(time.Minute, func() { panic(what + ": it hangs") })
	defer hang.Stop()
	all := make([]*balance, len(devices))
	for d := range devices {
		all[d] = &balance{}
		if d == bad {
			all[d].fault = f
		}
		if err := devices[d].Inject(all[d].before); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewShards(devices, st.b.dim)
	if err != nil {
		t.Fatal(err)
	}
	s.run = 64
	for _, p := range s.parts {
		p.perSegment, p.tileBytes, p.perTile = 64, 4096, 64
	}
	lost, last := false, len(st.steps)
	for i, step := range st.steps {
		had := s.Rows()
		wrong, err := step(t, s)
		if err != nil {
			if !errors.Is(err, f.err) {
				t.Fatalf("%s: step %d: %v, which is not of its kind", what, i, err)
			}
			if lost = errors.Is(err, cuda.ErrLost); lost != (devices[bad].Err() != nil) {
				t.Fatalf("%s: step %d: %v, and the device says %v", what, i, err, devices[bad].Err())
			}
			if have := s.Rows(); have != had {
				t.Fatalf("%s: step %d: %d rows, of %d before it failed", what, i, have, had)
			}
			shares, err := s.Shares(had)
			if err != nil {
				t.Fatal(err)
			}
			for d, p := range s.parts {
				if own := p.Rows(); own != shares[d] {
					t.Fatalf("%s: step %d: device %d has %d rows, want %d", what, i, d, own, shares[d])
				}
			}
			if lost {
				if _, again := step(t, s); !errors.Is(again, cuda.ErrLost) {
					t.Fatalf("%s: step %d, again: %v, want a lost device", what, i, again)
				}
				break
			}
			if wrong, err = step(t, s); err != nil { // it fails once
				t.Fatalf("%s: step %d, again: %v", what, i, err)
			}
			last = i + 1 // and another, of what it may have left
		}
		if wrong != "" {
			t.Fatalf("%s: step %d: %s", what, i, wrong)
		}
		if s.Rows() != st.rows[i] {
			t.Fatalf("%s: step %d: %d rows, want %d", what, i, s.Rows(), st.rows[i])
		}
		if i == last {
			break
		}
	}
	if _, streamed := s.Lie(); small && last == len(st.steps) && !lost && streamed == 0 {
		t.Fatalf("%s: nothing was streamed", what)
	}
	if err := s.Close(); err != nil && !errors.Is(err, f.err) {
		t.Fatalf("%s: closed: %v", what, err)
	}
	for d := range devices {
		if m := devices[d].Metrics(); m.Allocated != 0 || len(m.Held) != 0 {
			t.Fatalf("%s: device %d holds %v", what, d, m.Held)
		}
		if devices[d].Err() == nil && (all[d].held.Load() != 0 || all[d].pinned.Load() != 0) {
			t.Fatalf("%s: device %d did not get back %d allocations and %d pinned ones", what, d, all[d].held.Load(), all[d].pinned.Load())
		}
	}
	return all[bad].seen.Load() >= int64(f.n)
}

// TestFaults: of a population on two devices, every call that either makes fails in its
// turn, for this once or for good: the error is of its kind, no row is half there, what is
// asked again is answered as the oracle does, and all memory is given back.
func TestFaults(t *testing.T) {
	// Each call, or where losing the device is the same wherever it comes, some.
	once := []fault{
		{"alloc", cuda.ErrOutOfMemory, 0}, {"pin", cuda.ErrOutOfMemory, 0}, {"upload", cuda.ErrLaunch, 0}, {"download", cuda.ErrLaunch, 0},
		{"zero", cuda.ErrLaunch, 0}, {"launch", cuda.ErrLaunch, 0},
	}
	var lost []fault
	for _, call := range []string{"upload", "download", "launch", "reached", "pin", "unpin", "alloc", "free", "memory", "zero", "mark", "wait"} {
		lost = append(lost, fault{call, cuda.ErrLost, 0})
	}
	for _, c := range []struct {
		name         string
		small, seeds bool
		every        int // of the calls
	}{{"on the devices", false, false, 1}, {"streamed", true, false, 2}, {"seeds", false, true, 37}} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() { // one schedule tries them all
				if c.seeds {
					t.Skip("takes long")
				}
				c.every *= 13
			}
			if c.small && !several(t, 2)[0].Info().Simulated {
				t.Skip("only the simulator has as little memory as is asked for")
			}
			if c.small {
				t.Setenv("KINDRED_SIM_MEMORY", "31500")
			}
			devices := several(t, 2)
			st := newStory(rand.New(rand.NewPCG(51, 52)), random(rand.New(rand.NewPCG(53, 54)), 200, 20, 127), 150, 200, c.seeds)
			count := 0
			st.tell(t, devices, 0, fault{}, c.small)
			for bad := range devices {
				for i, f := range slices.Concat(once, lost) {
					every := c.every
					if i >= len(once)+3 {
						if c.seeds {
							break
						}
						every *= 5
					}
					for f.n = 1; st.tell(t, devices, bad, f, c.small); f.n += every {
						count++
						if devices[bad].Err() == nil {
							continue
						}
						if err := devices[bad].Close(); err != nil {
							t.Fatal(err)
						}
						d, err := cuda.Open(bad)
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { _ = d.Close() })
						devices[bad] = d
					}
					if streams := f.call == "pin" || f.call == "unpin" || f.call == "reached"; f.n == 1 && (!streams || c.small) {
						t.Errorf("device %d: %s never failed", bad, f.call)
					}
				}
			}
			st.tell(t, devices, 1, fault{}, c.small)
			t.Logf("%d faults", count)
		})
	}
}
