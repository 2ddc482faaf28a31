package ingest

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if RunParquetChild() {
		return
	}
	if os.Getenv(greedyEnv) != "" {
		greedy()
	}
	os.Exit(m.Run())
}
