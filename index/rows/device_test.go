package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// scorer is a device in plain Go that can be told to fail.
type scorer struct {
	fail        error
	during      func(ctx context.Context) // called while a list is made
	mu          sync.Mutex
	notes       []error // under mu
	made, freed int
}

func (s *scorer) NewPopulation(dim int) (Population, error) {
	s.made++
	return &copied{s: s, dim: dim}, nil
}

func (s *scorer) Note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, err)
}

type copied struct {
	s      *scorer
	dim    int
	codes  []int8
	scales []float32
}

func (c *copied) Rows() int { return len(c.scales) }

func (c *copied) Append(_ context.Context, codes []int8, scales []float32) error {
	c.codes, c.scales = append(c.codes, codes...), append(c.scales, scales...)
	return nil
}

func (c *copied) Close() error { c.s.freed++; return nil }

func (c *copied) Best(ctx context.Context, n int, mask []uint64, heads []scan.Head, size []int) ([][]uint64, error) {
	if c.s.fail != nil {
		return nil, c.s.fail
	}
	if c.s.during != nil {
		c.s.during(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out [][]uint64
	for range heads {
		out = append(out, nil)
	}
	for h, head := range heads {
		for r := range n {
			if mask[r/64]>>(r%64)&1 == 0 {
				continue
			}
			sum := 0
			for j, q := range head.Codes {
				sum += int(q) * int(c.codes[r*c.dim+j])
			}
			out[h] = append(out[h], selection.MakeEntry(toScore(float64(float64(sum)*(float64(c.scales[r])*head.Scale))+head.Bias), uint32(r)))
		}
		slices.Sort(out[h])
		end := min(size[h], len(out[h]))
		for end < len(out[h]) && end > 0 && out[h][end]>>32 == out[h][end-1]>>32 {
			end++
		}
		out[h] = out[h][:end]
	}
	return out, ctx.Err()
}

// deviceTables are the same rows with a device and without, after updates,
// removals and, where asked for, a compaction.
func deviceTables(t *testing.T, s *scorer, dim int, compact bool) (with, without *Table) {
	t.Helper()
	spec := index.Spec{Name: "c", Dim: dim}
	opt := Options{ChunkRows: 64, MinDead: 1 << 20}
	if compact {
		opt.MinDead = 8
	}
	without = New(spec, opt)
	opt.Device, opt.DeviceRows = s, 1
	with = New(spec, opt)
	rng := rand.New(rand.NewPCG(7, 7))
	for range 5 {
		var in []Prepared
		seen := map[int]bool{}
		for range 100 {
			id := rng.IntN(300)
			if seen[id] {
				continue
			}
			seen[id] = true
			v := make([]float32, dim)
			for j := range v {
				v[j] = float32(rng.IntN(3) - 1) // many ties
			}
			in = append(in, Prepare(&spec, &index.Row{ID: fmt.Sprintf("id-%03d", id), Vector: v}))
		}
		for _, table := range []*Table{with, without} {
			if err := table.Apply(in, 0); err != nil {
				t.Fatal(err)
			}
			table.Remove([]string{in[0].ID, in[5].ID}, 0)
		}
		sameLists(t, with.Snapshot(), without.Snapshot(), dim)
	}
	return with, without
}

func deviceRequest(n uint32, dim int) index.BestRequest {
	some := roaring.New()
	for r := uint32(0); r < n; r += 3 {
		some.Add(r)
	}
	var req index.BestRequest
	for k, size := range []int{1, 20, 100, 1000} {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32((j+k)%5) - 2
		}
		req.Sets = append(req.Sets, index.HeadSet{Heads: []index.Head{{Vector: v, Bias: float32(k)}}})
		req.Size = append(req.Size, size)
		req.Allowed = append(req.Allowed, nil)
	}
	req.Allowed[2] = some
	return req
}

func sameLists(t *testing.T, with, without *View, dim int) {
	t.Helper()
	req := deviceRequest(without.n, dim)
	want, err := without.Best(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := with.Best(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for s := range want {
		if !slices.Equal(got[s].Rows, want[s].Rows) || !slices.Equal(got[s].Scores, want[s].Scores) {
			t.Fatalf("list %d of %d: %v, want %v", s, len(want), got[s].Rows, want[s].Rows)
		}
	}
}

func TestDeviceMakesTheSameLists(t *testing.T) {
	for _, compact := range []bool{false, true} {
		s := &scorer{}
		with, _ := deviceTables(t, s, 12, compact)
		for _, err := range s.notes {
			if err != nil {
				t.Error(err)
			}
		}
		if len(s.notes) != 5 {
			t.Errorf("the device made %d of 5 sets of lists", len(s.notes))
		}
		with.Close()
		if s.freed != s.made || compact != (s.made > 1) {
			t.Errorf("compaction %v: %d copies were made, %d freed", compact, s.made, s.freed)
		}
	}
}

// TestDeviceFails: whatever happens to a device, the list is the same, it is told of,
// and the device is left alone for a while.
func TestDeviceFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		drop bool
	}{{cuda.ErrLost, true}, {cuda.ErrClosed, true}, {&cuda.OutOfMemoryError{Asked: 1}, true}, {cuda.ErrLaunch, false}, {errors.New("strange"), false}} {
		s := &scorer{}
		with, without := deviceTables(t, s, 12, false)
		s.fail, s.notes = c.err, nil
		sameLists(t, with.Snapshot(), without.Snapshot(), 12)
		sameLists(t, with.Snapshot(), without.Snapshot(), 12)
		if len(s.notes) != 1 || !errors.Is(s.notes[0], c.err) {
			t.Errorf("%v was noted as %v", c.err, s.notes)
		}
		if (s.freed == 1) != c.drop {
			t.Errorf("after %v %d copies are freed", c.err, s.freed)
		}
		s.fail, with.core.device.retry = nil, with.core.device.retry.Add(-2*deviceRetry)
		sameLists(t, with.Snapshot(), without.Snapshot(), 12)
		if len(s.notes) != 2 || s.notes[1] != nil {
			t.Errorf("after %v the device was not tried again: %v", c.err, s.notes)
		}
	}
}

func TestDeviceCancelled(t *testing.T) {
	s := &scorer{}
	with, _ := deviceTables(t, s, 12, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := with.Snapshot()
	if _, err := v.Best(ctx, deviceRequest(v.n, 12)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDeviceGivenUpWaiting: who is given up while another's list is made does not wait for it.
func TestDeviceGivenUpWaiting(t *testing.T) {
	s := &scorer{}
	with, without := deviceTables(t, s, 12, false)
	v := with.Snapshot()
	begun, end := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.during = func(context.Context) {
		once.Do(func() { close(begun) })
		<-end
	}
	first := make(chan error)
	go func() {
		_, err := v.Best(t.Context(), deviceRequest(v.n, 12))
		first <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := v.Best(ctx, deviceRequest(v.n, 12)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	close(end) // not before: the other waited for nothing
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	sameLists(t, v, without.Snapshot(), 12)
}
