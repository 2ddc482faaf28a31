//go:build !noasm

package simd

import "testing"

// forEachPanel is forEachVariant, and once more without tile registers where there are
// any.
func forEachPanel(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if !noAMX && amxAllowed() {
		t.Cleanup(func() { noAMX = false })
		noAMX = true
		t.Run("no tiles", func(t *testing.T) { forEachVariant(t, f) })
		noAMX = false
	}
	forEachVariant(t, f)
}
