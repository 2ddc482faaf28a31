//go:build (!amd64 && !arm64) || noasm

package simd

func narrowQuery() (offset uint8, narrow bool) { return 0, false }

func dotInt8At(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) { dotInt8AtGo(t, rows, q, out) }

func prefetch([]uint32) {}
