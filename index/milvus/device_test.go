package milvus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/rows"
)

// shelf is a device that keeps rows and makes no lists.
type shelf struct {
	mu         sync.Mutex
	made, kept int
}

func (s *shelf) NewPopulation(int) (rows.Population, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made, s.kept = s.made+1, s.kept+1
	return &onShelf{s: s}, nil
}

func (s *shelf) Note(error) {}

func (s *shelf) holds() (made, kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made, s.kept
}

type onShelf struct {
	s *shelf
	n int
}

func (p *onShelf) Rows() int { return p.n }

func (p *onShelf) Append(_ context.Context, _ []int8, scales []float32) error {
	p.n += len(scales)
	return nil
}

func (p *onShelf) Best(context.Context, int, []uint64, []scan.Head, []int) ([][]uint64, error) {
	return nil, cuda.ErrLaunch
}

func (p *onShelf) BestOf(context.Context, int, []uint64, *scan.Plan, []int) ([][]uint64, error) {
	return nil, cuda.ErrLaunch
}

func (p *onShelf) Scores(context.Context, int, []uint64, *scan.Plan, [][]float32) error {
	return cuda.ErrLaunch
}

func (p *onShelf) Close() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.kept--
	return nil
}

// TestDeviceGivenBack: the copies of collections that are dropped, and of all when the store
// closes, leave the device, before the device is closed.
func TestDeviceGivenBack(t *testing.T) {
	server, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	s := &shelf{}
	atEnd := -1
	store, err := milvus.Open(t.Context(), milvus.Options{
		Client: client.Config{Address: server.Addr()}, Prefix: "d", Rows: rows.Options{ChunkRows: 64, Device: s, DeviceRows: 1},
		OnClose: func() error { _, atEnd = s.holds(); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		e, err := store.Create(t.Context(), index.Spec{Name: name, Dim: 4})
		if err != nil {
			t.Fatal(err)
		}
		var all []index.Row
		for i := range 100 {
			all = append(all, index.Row{ID: fmt.Sprint(i), Vector: []float32{1, float32(i), 2, 3}})
		}
		if err := e.Upsert(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		snap, err := e.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = snap.Best(t.Context(), index.BestRequest{Size: []int{5}, ScanRequest: index.ScanRequest{
			Sets: []index.HeadSet{{Heads: []index.Head{{Vector: []float32{1, 0, 0, 0}}}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if made, kept := s.holds(); made != 2 || kept != 2 {
		t.Fatalf("%d copies were made and %d are there", made, kept)
	}
	if err := store.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, kept := s.holds(); kept != 1 {
		t.Errorf("after a drop %d copies are there", kept)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if atEnd != 0 {
		t.Errorf("when the device is closed %d copies are there", atEnd)
	}
}
