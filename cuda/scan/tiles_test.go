//go:build cuda

package scan

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
)

// streamedOf is a population of which most rows are streamed, in tiles of 64.
func streamedOf(t *testing.T, b *base) (*cuda.Device, *Population) {
	t.Helper()
	d := small(t, 90_000)
	p, err := New(d, b.dim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	p.perSegment, p.perTile, p.tileBytes = 512, 64, 1<<14
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	if _, streamed := p.Lie(); streamed < 3*streamedAtOnce*64 {
		t.Fatalf("%d rows only are streamed", streamed)
	}
	return d, p
}

// passes are the ways rows are scored, each with what its tile launches at most.
func passes(rng *rand.Rand, b *base, n int, mask []uint64) map[string]struct {
	launches int
	run      func(ctx context.Context, p *Population) error
} {
	heads, size := randomHeads(rng, 1, b.dim), []int{50}
	plan, _ := randomPlan(rng, n, b.dim, 2, 1, 1)
	plan.Sets[0].Heads[0].Head, plan.Sets[0].Common = heads[0], nil
	likeness := &Plan{Sets: []Set{{}}}
	for range 10 {
		likeness.Sets[0].Heads = append(likeness.Sets[0].Heads, SumHead{Head: randomHeads(rng, 1, b.dim)[0]})
	}
	out := [][]float32{make([]float32, n)}
	type pass = struct {
		launches int
		run      func(ctx context.Context, p *Population) error
	}
	all := map[string]pass{
		"best":   {1, func(ctx context.Context, p *Population) error { return second(p.Best(ctx, n, mask, heads, size)) }},
		"lists":  {2, func(ctx context.Context, p *Population) error { return second(p.BestOf(ctx, n, mask, plan, size)) }},
		"scores": {2, func(ctx context.Context, p *Population) error { return p.Scores(ctx, n, mask, plan, out) }},
		"seeds":  {1, func(ctx context.Context, p *Population) error { return p.Scores(ctx, n, mask, likeness, out) }},
	}
	if testing.Short() {
		delete(all, "seeds") // its kernel takes long
	}
	return all
}

// TestStreamedGivenUp: a pass over streamed rows that is given up ends with the tile that it
// is at, whichever that is, and the next pass is right.
func TestStreamedGivenUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	const n, dim = 2600, 16
	b := random(rng, n, dim, 127)
	d, p := streamedOf(t, b)
	mask := randomMask(rng, n, 90)
	for name, pass := range passes(rng, b, n, mask) {
		for at := 1; at <= pass.launches*len(p.segments); at += 9 { // the selection that follows is short
			ctx, cancel := context.WithCancel(t.Context())
			launches, copies, then := 0, 0, 0
			err := d.Inject(func(call string) error {
				switch call {
				case "launch":
					if launches++; launches == at {
						cancel()
						then = copies
					}
				case "upload":
					copies++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			err = pass.run(ctx, p)
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%s, given up at launch %d: %v", name, at, err)
			}
			if launches >= at+pass.launches || copies != then {
				t.Fatalf("%s, given up at launch %d: %d launches and %d copies followed, a tile has %d launches", name, at, launches-at, copies-then, pass.launches)
			}
		}
		if err := d.Inject(nil); err != nil {
			t.Fatal(err)
		}
	}
	check(t, p, b, n, mask, randomHeads(rng, 2, dim), []int{10, 700})
}

// TestStreamedLetsOthers: other work of the device waits for some tiles, not for the pass.
func TestStreamedLetsOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(73, 74))
	const n, dim = 2600, 16
	b := random(rng, n, dim, 127)
	d, p := streamedOf(t, b)
	for name, pass := range passes(rng, b, n, randomMask(rng, n, 90)) {
		var launches, before atomic.Int64
		other := make(chan error, 1)
		err := d.Inject(func(call string) error {
			if call != "launch" {
				return nil
			}
			if launches.Add(1) == 5 {
				go func() {
					other <- d.Do(t.Context(), func(*cuda.Queue) error { before.Store(launches.Load()); return nil })
				}()
				time.Sleep(50 * time.Millisecond) // it waits now
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pass.run(t.Context(), p), <-other, d.Inject(nil)); err != nil {
			t.Fatal(err)
		}
		if most := int64(5 + 2*pass.launches*streamedAtOnce); before.Load() > most || launches.Load() < most {
			t.Errorf("%s: other work began after %d of %d launches, want %d at most", name, before.Load(), launches.Load(), most)
		}
	}
}

// TestWorks: the tiles of a pass are those of its rows, each once, and a work has either kind.
func TestWorks(t *testing.T) {
	rng := rand.New(rand.NewPCG(75, 76))
	const n, dim = 2600, 16
	b := random(rng, n, dim, 127)
	_, p := streamedOf(t, b)
	for _, most := range []int{64, 128, n} {
		w := &pass{p: p, n: n - 7}
		for _, s := range p.segments {
			w.rows = append(w.rows, min(s.rows, w.n-s.first))
		}
		var works [][]tile
		var told []int
		row := 0
		err := w.works(t.Context(), most, 3, func(_ *cuda.Queue, tiles []tile) error { works = append(works, tiles); return nil }, func(_ *cuda.Queue, k int, x tile, at lying) error {
			s := p.segments[x.i]
			if s.first+x.from != row || x.n < 1 || x.n > most || works[len(works)-1][k] != x || w.streamed(x) == (at.codes == s.codes) {
				t.Errorf("tile %+v, row %d", x, row)
			}
			row += x.n
			return nil
		}, func(done, total int) {
			if total != w.n || done != row {
				t.Errorf("%d of %d are done, want %d", done, total, row)
			}
			told = append(told, done)
		})
		if err != nil || row != w.n || len(told) != len(works) {
			t.Fatalf("%d rows, %d works, told %d: %v", row, len(works), told, err)
		}
		for _, tiles := range works {
			limit := 3
			if w.streamed(tiles[0]) {
				limit = streamedAtOnce
			}
			if len(tiles) > limit || slices.ContainsFunc(tiles, func(x tile) bool { return w.streamed(x) != w.streamed(tiles[0]) }) {
				t.Errorf("a work of %v", tiles)
			}
		}
	}
}
