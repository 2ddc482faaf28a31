//go:build (!amd64 && !arm64) || noasm

package simd

// everyVariant has the twin alone here.
func everyVariant(f func()) { f() }
