package memory

import (
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
