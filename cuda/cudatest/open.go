package cudatest

import (
	"errors"
	"os"
	"testing"

	"github.com/kindred-search/kindred/cuda"
)

// Open opens the first device, or the simulator where that is the driver, and closes it
// when the test ends. Without either the test is skipped, and fails with CI set.
func Open(t *testing.T) *cuda.Device {
	t.Helper()
	d, err := cuda.Open(0)
	if errors.Is(err, cuda.ErrNoDevice) {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has the simulator at least: %v", err)
		}
		t.Skipf("no device, nor the simulator (make test-cuda-sim): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
