//go:build !amd64 || noasm || !linux

package simd

import "testing"

func forEachPanel(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	forEachVariant(t, f)
}
