package ingest

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if RunParquetChild() {
		return
	}
	os.Exit(m.Run())
}
