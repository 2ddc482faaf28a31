package flat

import (
	"errors"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/indextest"
	"github.com/kindred-search/kindred/index/rows"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Rows: rows.Options{ChunkRows: 64, MinDead: 50}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	indextest.Run(t, indextest.Config{
		Open: func(t *testing.T) index.Store { return open(t, t.TempDir()) },
		Reopen: func(t *testing.T, s index.Store) index.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, s.(*Store).dir)
		},
	})
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(dir, Options{}); !errors.Is(err, index.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
