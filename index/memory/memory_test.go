package memory

import (
	"context"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/indextest"
	"github.com/kindred-search/kindred/index/rows"
)

func TestConformance(t *testing.T) {
	indextest.Run(t, indextest.Config{Open: func(*testing.T) index.Store {
		return OpenWith(rows.Options{ChunkRows: 64, MinDead: 50})
	}})
}

// TestCrowd needs more rows than conformance has: lists are then selected while rows
// are scored.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("300,000 rows")
	}
	s := Open()
	e, err := s.Create(context.Background(), index.Spec{Name: "crowd", Dim: indextest.CrowdDim, Columns: []index.Column{{Name: "age", Kind: index.Number}}})
	if err != nil {
		t.Fatal(err)
	}
	indextest.Crowd(t, e)
}
