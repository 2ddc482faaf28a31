//go:build cuda

package scan_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/rows"
)

// excused is a spread whose devices may fail, of which it keeps the errors.
type excused struct {
	spread
	mu   sync.Mutex
	errs []error
}

func (s *excused) Note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// TestFallBack: whatever call of two devices fails, for once or for good, an engine gives the
// scores and lists that it gives without any.
func TestFallBack(t *testing.T) {
	const n, dim = 300, 12
	rng := rand.New(rand.NewPCG(61, 62))
	vector := func() []float32 {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rng.IntN(5) - 2) // with ties
		}
		return v
	}
	all := make([]index.Row, n)
	for i := range all {
		all[i] = index.Row{ID: fmt.Sprintf("c%03d", i*77%n), Vector: vector()}
	}
	var few, many index.BestRequest
	for i := range 10 {
		set := index.HeadSet{Heads: []index.Head{{Vector: vector()}, {Vector: vector(), Bias: 1}}}
		if i < 2 {
			few.Sets, few.Size = append(few.Sets, index.HeadSet{Heads: set.Heads[:1]}), append(few.Size, 40)
		}
		many.Sets, many.Size = append(many.Sets, set), append(many.Size, 1+10*i)
	}
	ask := func(device rows.Device) (out []any) {
		opt := rows.Options{ChunkRows: 64, DeviceRows: 1, Device: device}
		store := memory.OpenWith(opt)
		e, err := store.Create(t.Context(), index.Spec{Name: "n", Dim: dim, Precision: index.Int8})
		must(t, err)
		must(t, e.Upsert(t.Context(), all))
		snap, err := e.Snapshot(t.Context())
		must(t, err)
		for range 2 { // the second time it is left alone
			for _, req := range []index.BestRequest{few, many} {
				lists, err := snap.Best(context.Background(), req)
				must(t, err)
				out = append(out, lists)
			}
			scores, err := snap.Scan(context.Background(), many.ScanRequest)
			must(t, err)
			out = append(out, scores)
		}
		must(t, errors.Join(snap.Close(), store.Close()))
		return out
	}
	want := ask(nil)
	devices := openAll(t, 2)
	step := 11
	if testing.Short() {
		step = 101
	}
	for bad := range devices {
		for _, f := range []struct {
			call string
			kind error
		}{
			{"alloc", cuda.ErrOutOfMemory}, {"upload", cuda.ErrLaunch}, {"download", cuda.ErrLaunch}, {"launch", cuda.ErrLaunch},
			{"launch", cuda.ErrLost}, {"wait", cuda.ErrLost},
		} {
			for at := 1; ; at += step {
				what := fmt.Sprintf("device %d: %s %d, %v", bad, f.call, at, f.kind)
				seen := 0
				must(t, devices[bad].Inject(func(call string) error {
					if call == f.call {
						if seen++; seen == at {
							return fmt.Errorf("on purpose: %w", f.kind)
						}
					}
					return nil
				}))
				s := &excused{spread: spread{devices: devices, run: 64, perSegment: 128, shares: map[string][]int{}}}
				if got := ask(s); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s: other lists", what)
				}
				// Rows that one device has no memory for are the other's.
				if full := errors.Is(f.kind, cuda.ErrOutOfMemory); len(s.errs) > 0 != (seen >= at) && (!full || seen < at) {
					t.Fatalf("%s: %d calls, and %v was noted", what, seen, s.errs)
				}
				for _, err := range s.errs {
					if !errors.Is(err, f.kind) {
						t.Fatalf("%s: %v", what, err)
					}
				}
				if m := devices[bad].Metrics(); m.Allocated != 0 {
					t.Fatalf("%s: %v is held", what, m.Held)
				}
				if devices[bad].Err() != nil {
					must(t, devices[bad].Close())
					d, err := cuda.Open(bad)
					must(t, err)
					t.Cleanup(func() { _ = d.Close() })
					devices[bad] = d
				}
				if seen < at {
					if at == 1 {
						t.Errorf("%s: never came up", what)
					}
					break
				}
			}
			must(t, devices[bad].Inject(nil))
		}
	}
}
