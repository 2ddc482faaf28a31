//go:build cuda

package scan

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
)

// tenant is a population with its oracle, in small segments.
type tenant struct {
	*Population
	b    *base
	plan *Plan
	bins [][]uint16
}

func newTenant(t *testing.T, rng *rand.Rand, d *cuda.Device, n, dim int) *tenant {
	t.Helper()
	x := &tenant{b: random(rng, n, dim, 127)}
	x.plan, x.bins = randomPlan(rng, n, dim, 1, 2, 2)
	var err error
	if x.Population, err = New(d, dim); err != nil {
		t.Fatal(err)
	}
	x.perSegment, x.perTile, x.tileBytes = 256, 64, 4096
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	for lo := 0; lo < n; lo += 100 { // chunks of the caller's
		hi := min(n, lo+100)
		if err := x.Append(t.Context(), x.b.codes[lo*dim:hi*dim], x.b.scales[lo:hi]); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// right holds lists of plain heads and of a plan, some rows masked, to the oracle.
func (x *tenant) right(t *testing.T, rng *rand.Rand) {
	t.Helper()
	n := x.Rows()
	check(t, x.Population, x.b, n, randomMask(rng, n, 80), randomHeads(rng, 2, x.b.dim), []int{7, n / 2})
	checkPlan(t, x.Population, x.b, n, randomMask(rng, n, 80), x.plan, x.bins, []int{5, n / 3})
}

// TestComesBack: rows that were streamed because others had the memory go to the device at
// the next pass once there is room, as far as there is, and the lists are the oracle's all along.
func TestComesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(91, 92))
	const n, dim = 2000, 20
	d := small(t, 400_000)
	take := func(leave int64) *cuda.Buffer {
		free, _, err := d.Memory()
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.Alloc("another's", free-leave)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ballast := take(80_000)
	x := newTenant(t, rng, d, n, dim)
	x.right(t, rng)
	if device, streamed := x.Lie(); streamed < n/2 {
		t.Fatalf("%d rows are on the device, %d streamed", device, streamed)
	}
	if err := ballast.Free(); err != nil {
		t.Fatal(err)
	}
	ballast = take(105_000)
	before, _ := x.Lie()
	x.right(t, rng)
	some, streamed := x.Lie()
	if some <= before || streamed == 0 {
		t.Errorf("with some room %d rows are on the device, %d before, %d streamed", some, before, streamed)
	}
	if err := ballast.Free(); err != nil {
		t.Fatal(err)
	}
	x.right(t, rng)
	if device, streamed := x.Lie(); device != n || streamed != 0 || x.stage != nil {
		t.Errorf("with room for all %d rows are on the device, %d streamed", device, streamed)
	}
	uploaded := d.Metrics().Uploaded
	x.right(t, rng)
	if more := d.Metrics().Uploaded - uploaded; more > n*dim/2 {
		t.Errorf("%d bytes are copied for a pass over rows that are on the device", more)
	}
	if s := x.segments[0]; len(s.hosted) > (s.rows+99)/100+1 {
		t.Errorf("%d pieces of the caller's rows are kept for %d rows", len(s.hosted), s.rows)
	}
}

// TestTenants: two populations that do not fit together share the device, whoever came first;
// a model's memory comes before their rows; and what one no longer needs the other has.
func TestTenants(t *testing.T) {
	rng := rand.New(rand.NewPCG(93, 94))
	const n, dim = 3000, 20
	d := small(t, 190_000)
	x := newTenant(t, rng, d, n, dim)
	x.right(t, rng)
	alone, _ := x.Lie()
	y := newTenant(t, rng, d, n, dim)
	for range 2 {
		y.right(t, rng)
		x.right(t, rng)
	}
	mine, _ := x.Lie()
	yours, _ := y.Lie()
	t.Logf("alone %d rows are on the device, with another %d and %d", alone, mine, yours)
	if yours < alone/4 || mine < alone/4 {
		t.Errorf("two of one size have %d and %d rows on the device; the first alone had %d", mine, yours, alone)
	}
	// They do not take from each other again.
	were := [][]*segment{slices.Clone(x.segments), slices.Clone(y.segments)}
	for range 3 {
		x.right(t, rng)
		y.right(t, rng)
	}
	if !slices.Equal(x.segments, were[0]) || !slices.Equal(y.segments, were[1]) {
		t.Error("rows went to and fro")
	}
	// A model that is loaded has what it needs.
	weights, err := d.Alloc("weights", 40_000)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		x.right(t, rng)
		y.right(t, rng)
	}
	if err := weights.Free(); err != nil {
		t.Fatal(err)
	}
	if err := y.Close(); err != nil {
		t.Fatal(err)
	}
	x.right(t, rng)
	if again, _ := x.Lie(); again < alone {
		t.Errorf("alone again: %d rows of %d", again, alone)
	}
}

// TestTenantsAtOnce: passes of several populations, appends and allocations at the same time,
// on a device that has room for some of it.
func TestTenantsAtOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(95, 96))
	d := small(t, 300_000)
	var wg sync.WaitGroup
	for i := range 3 {
		n := 1000 * (i + 1)
		x := newTenant(t, rng, d, n, 20)
		own := rand.New(rand.NewPCG(97, uint64(i)))
		for range 2 {
			mask := randomMask(own, n, 80)
			heads := randomHeads(own, 1, 20)
			want := x.b.best(n, mask, heads[0], 50)
			wg.Go(func() {
				for range 5 {
					got, err := x.Best(t.Context(), n, mask, heads, []int{50})
					if err != nil {
						t.Error(err)
						return
					}
					slices.Sort(got[0])
					if !slices.Equal(candidates(got[0], want), want) {
						t.Errorf("population %d: another list", i)
					}
				}
			})
		}
	}
	wg.Go(func() {
		for range 20 {
			b, err := d.Alloc("activations", 40_000)
			if errors.Is(err, cuda.ErrOutOfMemory) {
				continue // all were at work
			}
			if err != nil {
				t.Error(err)
				return
			}
			if err := b.Free(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// TestTurnGivenUp: who waits for another's pass, or for its memory, and is given up returns at
// once; one that waits on has its list.
func TestTurnGivenUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(98, 99))
	d := small(t, 400_000)
	x, y := newTenant(t, rng, d, 1000, 20), newTenant(t, rng, d, 1000, 20)
	begun, end := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	err := d.Inject(func(call string) error {
		if call == "launch" && !once.Swap(true) {
			close(begun)
			<-end
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	mask, heads := randomMask(rng, 1000, 80), randomHeads(rng, 1, 20)
	go func() { first <- second(x.Best(t.Context(), 1000, mask, heads, []int{5})) }()
	<-begun
	free := make(chan error, 1)
	go func() { free <- second(x.Best(t.Context(), 1000, mask, heads, []int{5})) }()
	for what, f := range map[string]func(ctx context.Context) error{
		"a list": func(ctx context.Context) error { return second(x.Best(ctx, 1000, mask, heads, []int{5})) },
		"a plan": func(ctx context.Context) error { return second(x.BestOf(ctx, 1000, mask, x.plan, []int{5, 5})) },
		"scores": func(ctx context.Context) error { return x.Scores(ctx, 1000, mask, x.plan, make([][]float32, 2)) },
		"rows":   func(ctx context.Context) error { return x.Append(ctx, make([]int8, 20), make([]float32, 1)) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s, given up: it waits on", what)
		}
		cancel()
	}
	if n := x.Rows(); n != 1000 {
		t.Errorf("%d rows", n)
	}
	close(end)
	if err := errors.Join(<-first, <-free, d.Inject(nil)); err != nil {
		t.Fatal(err)
	}
	x.right(t, rng)
	y.right(t, rng)
}
