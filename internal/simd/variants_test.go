package simd

import (
	"os"
	"testing"
)

// TestChosen wants the variant that KINDRED_WANT_SIMD names: whoever runs the
// tests on an emulated processor knows what detection has to find there.
func TestChosen(t *testing.T) {
	want := os.Getenv("KINDRED_WANT_SIMD")
	if want == "" {
		t.Skip("KINDRED_WANT_SIMD names no variant")
	}
	if got := Features(); got != want {
		t.Errorf("chose %s, want %s", got, want)
	}
}

// forEachVariant runs f as a test of its own under every variant this machine
// supports. Tests that use it do not run in parallel, because it changes impl.
func forEachVariant(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	everyVariant(func() { t.Run(Features(), f) })
}

// inEachVariant is forEachVariant within the test t, for fuzz targets.
func inEachVariant(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	everyVariant(func() {
		defer func() {
			if t.Failed() {
				t.Logf("under %s", Features())
			}
		}()
		f(t)
	})
}
