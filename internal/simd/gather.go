package simd

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

//go:generate go run ./gen/gather -out gather_amd64.s -stubs gather_amd64.go -pkg simd

// Int8Query is a vector of codes in the forms that [DotInt8At] multiplies with.
// Set fills it; it is then read-only and may be shared.
type Int8Query struct {
	dim    int
	narrow []uint8 // codes + an offset, padded to a multiple of 64, where narrowQuery
	wide   []int16 // the codes, elsewhere
}

// Set makes q the query of codes, reusing its memory. codes stay the caller's.
func (q *Int8Query) Set(codes []int8) {
	if q.dim != len(codes) {
		q.dim = len(codes)
		q.wide = make([]int16, len(codes))
		q.narrow = make([]uint8, (len(codes)+63)&^63)
	}
	if offset, narrow := narrowQuery(); narrow {
		src := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(codes))), len(codes))
		dst := q.narrow[:len(codes)]
		const each = 0x0101010101010101
		for ; len(src) >= 8; src, dst = src[8:], dst[8:] {
			binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^each*uint64(offset))
		}
		for i, c := range src {
			dst[i] = c ^ offset
		}
		return
	}
	wide := q.wide[:len(codes)]
	for i, c := range codes {
		wide[i] = int16(c)
	}
}

// Int8Rows are rows of codes in chunks of equal size. Row r is
// chunks[r>>shift][(r&(1<<shift-1))·dim:][:dim].
type Int8Rows struct {
	chunks [][]int8
	shift  uint
	dim    int
}

// NewInt8Rows describes rows of dim codes in chunks of 1<<shift rows. It keeps
// chunks and what they hold.
func NewInt8Rows(chunks [][]int8, shift uint, dim int) *Int8Rows {
	for i, c := range chunks {
		if dim < 0 || len(c) < dim<<shift {
			panic(fmt.Sprintf("simd: NewInt8Rows: chunk %d has %d codes, %d rows of dim %d need %d", i, len(c), 1<<shift, dim, dim<<shift))
		}
	}
	return &Int8Rows{chunks, shift, dim}
}

// Row returns the codes of row r; they alias its chunk.
func (t *Int8Rows) Row(r uint32) []int8 {
	return t.chunks[r>>t.shift][int(r&(1<<t.shift-1))*t.dim:][:t.dim]
}

// DotInt8At sets out[i] to the exact dot product of row rows[i] with the query,
// which has the rows' dim. Rows are fetched from memory ahead of their turn.
// out is as long as rows. Products of codes are at most 2¹⁴, so 2¹⁶ dimensions
// cannot overflow.
func DotInt8At(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) {
	sameLen("DotInt8At", len(rows), len(out))
	sameLen("DotInt8At query", q.dim, t.dim)
	top := uint32(0)
	for _, r := range rows {
		top = max(top, r)
	}
	if len(rows) == 0 || t.dim == 0 {
		clear(out)
		return
	}
	if int(top>>t.shift) >= len(t.chunks) {
		panic(fmt.Sprintf("simd: DotInt8At: row %d of %d", top, len(t.chunks)<<t.shift))
	}
	dotInt8At(t, rows, q, out)
}

func dotInt8AtGo(t *Int8Rows, rows []uint32, q *Int8Query, out []int32) {
	for i, r := range rows {
		var s int32
		for j, c := range t.Row(r) {
			s += int32(c) * int32(q.wide[j])
		}
		out[i] = s
	}
}

// Prefetch asks for memory that is read soon. It changes nothing.
func Prefetch(x []uint32) {
	if len(x) > 0 {
		prefetch(x)
	}
}
