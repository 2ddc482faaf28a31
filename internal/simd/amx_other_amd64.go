//go:build amd64 && !linux && !noasm

package simd

// permitTiles: only Linux is known to grant and to save the tile registers.
func permitTiles() bool { return false }
