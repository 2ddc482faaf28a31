//go:build cuda

package scan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/indextest"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/rows"
)

// tables lets the tables of an engine use the device.
type tables struct {
	t     *testing.T
	d     *cuda.Device
	lists atomic.Int64
}

func (s *tables) NewPopulation(dim int) (rows.Population, error) { return scan.New(s.d, dim) }

func (s *tables) Note(err error) {
	if err != nil && !errors.Is(err, cuda.ErrClosed) {
		s.t.Errorf("the device: %v", err)
	}
	s.lists.Add(1)
}

// TestConformance runs the suite of all engines with the lists of int8 rows made by
// the device.
func TestConformance(t *testing.T) {
	d, err := cuda.Open(0)
	if err != nil {
		t.Skipf("TestBest says why: %v", err)
	}
	s := &tables{t: t, d: d}
	indextest.Run(t, indextest.Config{Open: func(*testing.T) index.Store {
		return memory.OpenWith(rows.Options{ChunkRows: 64, MinDead: 50, Device: s, DeviceRows: 1})
	}})
	if err := d.Close(); err != nil {
		t.Errorf("the tables did not give back what they held: %v", err)
	}
	if s.lists.Load() == 0 {
		t.Error("the device was never asked")
	}
	t.Logf("%d sets of lists were made by the device", s.lists.Load())
}

// spread lets the tables of an engine use several devices, in short runs, and notes how
// the rows of each list were shared out.
type spread struct {
	tables
	devices         []*cuda.Device
	run, perSegment int

	mu     sync.Mutex
	shares map[string][]int
}

func (s *spread) NewPopulation(dim int) (rows.Population, error) {
	shards, err := scan.NewShardsOf(s.devices, dim, s.run, s.perSegment)
	if err != nil {
		return nil, err
	}
	return &noted{shards, s}, nil
}

type noted struct {
	*scan.Shards
	s *spread
}

func (n *noted) note(rows int) {
	shares, err := n.Shares(rows)
	if err != nil {
		n.s.t.Error(err)
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.s.shares[fmt.Sprint(shares)] = shares
}

func (n *noted) Best(ctx context.Context, rows int, mask []uint64, heads []scan.Head, size []int) ([][]uint64, error) {
	n.note(rows)
	return n.Shards.Best(ctx, rows, mask, heads, size)
}

func (n *noted) BestOf(ctx context.Context, rows int, mask []uint64, plan *scan.Plan, size []int) ([][]uint64, error) {
	n.note(rows)
	return n.Shards.BestOf(ctx, rows, mask, plan, size)
}

func (n *noted) Scores(ctx context.Context, rows int, mask []uint64, plan *scan.Plan, out [][]float32) error {
	n.note(rows)
	return n.Shards.Scores(ctx, rows, mask, plan, out)
}

// openAll opens as many devices: those there are, or of the simulator as many as that.
func openAll(t *testing.T, count int) []*cuda.Device {
	t.Helper()
	probe := cuda.Probe()
	if len(probe.Devices) == 0 {
		t.Skipf("TestBest says why: %s", probe.Problem)
	}
	if probe.Devices[0].Simulated {
		t.Setenv("KINDRED_SIM_DEVICES", strconv.Itoa(count))
	}
	if have := len(cuda.Probe().Devices); have < count {
		t.Skipf("%d devices of the %d that are wanted", have, count)
	}
	var out []*cuda.Device
	for i := range count {
		d, err := cuda.Open(i)
		must(t, err)
		t.Cleanup(func() { // nothing to do where the test came to its end
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, d)
	}
	return out
}

// TestShardsConformance runs the suite of all engines with the rows on two and three devices: in
// runs of which some devices have more, some fewer and some none.
func TestShardsConformance(t *testing.T) {
	for _, c := range []struct{ devices, run, perSegment int }{{2, 64, 128}, {3, 64, 64}, {3, 192, 64}} {
		t.Run(fmt.Sprintf("%d devices, runs of %d", c.devices, c.run), func(t *testing.T) {
			if testing.Short() && c.devices == 2 {
				t.Skip("takes long; one schedule runs it")
			}
			devices := openAll(t, c.devices)
			s := &spread{tables: tables{t: t}, devices: devices, run: c.run, perSegment: c.perSegment, shares: map[string][]int{}}
			indextest.Run(t, indextest.Config{Precisions: []index.Precision{index.Int8}, Open: func(*testing.T) index.Store {
				return memory.OpenWith(rows.Options{ChunkRows: 64, MinDead: 50, Device: s, DeviceRows: 1})
			}})
			for i, d := range devices {
				if d.Metrics().Launches == 0 {
					t.Errorf("device %d was never asked", i)
				}
				if err := d.Close(); err != nil {
					t.Errorf("the tables did not give back what they held: %v", err)
				}
			}
			none, uneven := 0, 0
			for _, shares := range s.shares {
				if least := slices.Min(shares); least == 0 {
					none++
				} else if least != slices.Max(shares) {
					uneven++
				}
			}
			if none == 0 || uneven == 0 {
				t.Errorf("of %d ways that rows were shared out, in %d a device had none, in %d some had fewer than others: want both", len(s.shares), none, uneven)
			}
			t.Logf("%d sets of lists; in %d ways to share them out a device had none, in %d some had fewer", s.lists.Load(), none, uneven)
		})
	}
}
