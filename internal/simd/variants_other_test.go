//go:build !amd64 || noasm

package simd

import "testing"

func forEachVariant(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Run("go", f)
}
