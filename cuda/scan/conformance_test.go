//go:build cuda

package scan_test

import (
	"errors"
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
