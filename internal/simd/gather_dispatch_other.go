//go:build !amd64 || noasm

package simd

func biasedQuery() bool { return false }

func dotInt8At(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) { dotInt8AtGo(t, rows, q, out) }

func prefetch([]uint32) {}
