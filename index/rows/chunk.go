package rows

import (
	"math"
	"strings"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/hugepages"
	"github.com/kindred-search/kindred/internal/simd"
)

// A chunk holds a fixed number of rows column by column. Its arrays are
// allocated once and rows are written once, below the length that any reader
// knows of, so readers need no lock.
type chunk struct {
	codes  []int8
	scales []float32 // 0: no vector
	half   []uint16
	full   []float32
	bits   []byte // as package simd lays binary rows out
	signed []bool // whether a row has bits; false: no vector
	ids    []string
	prev   []uint32 // the row before this one of the same id, plus one; 0: none
	cols   []column
}

// column holds one of: numbers (NaN missing), codes (-1 missing), or sets
// (ascending codes, nil missing).
type column struct {
	nums  []float64
	codes []int32
	sets  [][]int32
}

func newColumn(k index.Kind, rows int) column {
	switch {
	case k.Numeric():
		c := column{nums: make([]float64, rows)}
		for i := range c.nums {
			c.nums[i] = math.NaN()
		}
		return c
	case k == index.Category:
		c := column{codes: make([]int32, rows)}
		for i := range c.codes {
			c.codes[i] = -1
		}
		return c
	}
	return column{sets: make([][]int32, rows)}
}

func newChunk(spec *index.Spec, rows int, first bool) *chunk {
	c := &chunk{ids: make([]string, rows), prev: make([]uint32, rows), cols: make([]column, len(spec.Columns))}
	if spec.Dim > 0 {
		switch spec.Precision {
		case index.Fp16:
			c.half = make([]uint16, rows*spec.Dim)
		case index.Fp32:
			c.full = make([]float32, rows*spec.Dim)
		case index.Binary:
			c.bits = make([]byte, rows*simd.BinaryBytes(spec.Dim))
			c.signed = make([]bool, rows)
		default:
			c.codes = make([]int8, rows*spec.Dim)
			c.scales = make([]float32, rows)
		}
	}
	if !first { // a small collection does not fill one
		hugepages.Advise(c.codes)
		hugepages.Advise(c.half)
		hugepages.Advise(c.full)
	}
	for i, col := range spec.Columns {
		c.cols[i] = newColumn(col.Kind, rows)
	}
	return c
}

// vector returns row i as it is held; it aliases the chunk, but for Binary,
// whose bits are copied. For Fp16 and Fp32 "no vector" is returned as zeros,
// which scores the same.
func (c *chunk) vector(i, dim int) Vector {
	switch {
	case c.codes != nil:
		if c.scales[i] == 0 {
			return Vector{}
		}
		return Vector{Codes: c.codes[i*dim : (i+1)*dim], Scale: c.scales[i]}
	case c.half != nil:
		return Vector{Half: c.half[i*dim : (i+1)*dim]}
	case c.full != nil:
		return Vector{Full: c.full[i*dim : (i+1)*dim]}
	case c.bits != nil && c.signed[i]:
		bits := make([]byte, simd.BinaryBytes(dim))
		simd.GetBinary(bits, c.bits, i)
		return Vector{Bits: bits}
	}
	return Vector{}
}

func (c *chunk) setVector(i, dim int, v *Vector) {
	switch {
	case v.Codes != nil:
		copy(c.codes[i*dim:], v.Codes)
		c.scales[i] = v.Scale
	case v.Half != nil:
		copy(c.half[i*dim:], v.Half)
	case v.Full != nil:
		copy(c.full[i*dim:], v.Full)
	case v.Bits != nil:
		simd.PutBinary(c.bits, i, v.Bits)
		c.signed[i] = true
	}
}

// chunkRows picks a power of two of rows that makes a chunk's vectors about
// 4 MB: small enough for small collections, large enough that a scan streams.
func chunkRows(spec *index.Spec) int {
	bytes := max(1, vectorBytes(spec))
	rows := 8192
	for rows > 64 && rows*bytes > 4<<20 {
		rows /= 2
	}
	return rows
}

// vectorBytes is how many bytes a row's vector takes in a scan.
func vectorBytes(spec *index.Spec) int {
	switch spec.Precision {
	case index.Fp16:
		return 2 * spec.Dim
	case index.Fp32:
		return 4 * spec.Dim
	case index.Binary:
		return simd.BinaryBytes(spec.Dim)
	}
	return spec.Dim
}

// RowBytes is about how many bytes of memory a live row of a short id takes in a
// table, the growth of what holds it included: see the package's comment.
func RowBytes(spec index.Spec) int64 {
	n := int64(72 + vectorBytes(&spec))
	for _, c := range spec.Columns {
		switch {
		case c.Kind.Numeric():
			n += 8
		case c.Kind == index.Category:
			n += 4
		default:
			n += 48 // a header, and a few codes
		}
	}
	return n
}

// dict numbers the categories of one column in order of arrival.
type dict struct {
	names []string
	codes map[string]int32
}

func (d *dict) code(s string) int32 {
	if c, ok := d.codes[s]; ok {
		return c
	}
	s = strings.Clone(s) // it may be a piece of a whole request
	c := int32(len(d.names))
	d.codes[s] = c
	d.names = append(d.names, s)
	return c
}
