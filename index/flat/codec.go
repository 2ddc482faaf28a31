package flat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/internal/simd"
)

// Keys. One letter says what it is; rows and records are ordered by
// collection, then id.
//
//	c <name>          collection: JSON of its number and spec
//	n                 the next collection's number
//	r <number> <id>   a row: vector and columns
//	d <number> <id>   a row's record, where there is one
//	s <number>        the version: how many batches the collection has seen
//	k <key>           an entry of the KV
//
// Every value begins with the CRC-32C of its key and the rest of it.
const (
	tagCollection = 'c'
	tagNext       = 'n'
	tagRow        = 'r'
	tagRecord     = 'd'
	tagVersion    = 's'
	tagKV         = 'k'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func collKey(tag byte, number uint32, id string) []byte {
	k := make([]byte, 5, 5+len(id))
	k[0] = tag
	binary.BigEndian.PutUint32(k[1:], number)
	return append(k, id...)
}

func nameKey(tag byte, name string) []byte { return append([]byte{tag}, name...) }

// prefixEnd is the least key above every key that begins with prefix, nil when
// there is none.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// seal puts the checksum in the first four bytes of value, which are reserved.
func seal(key, value []byte) []byte {
	binary.LittleEndian.PutUint32(value, sum(key, value[4:]))
	return value
}

func sum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// unseal checks a value and returns what follows the checksum.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 4 || binary.LittleEndian.Uint32(value) != sum(key, value[4:]) {
		return nil, index.ErrCorrupt
	}
	return value[4:], nil
}

// Forms of a vector in a row.
const (
	formNone = iota
	formInt8
	formFp16
	formFp32
	formBinary
)

const rowFormat = 1

// encodeRow returns a sealed row: format, form, vector, then the columns that
// are present as position and value.
func encodeRow(key []byte, p *rows.Prepared) []byte {
	b := make([]byte, 4, 32+len(p.Vec.Codes)+2*len(p.Vec.Half)+4*len(p.Vec.Full)+len(p.Vec.Bits)+16*len(p.Values))
	b = append(b, rowFormat)
	switch {
	case p.Vec.Codes != nil:
		b = append(b, formInt8)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(p.Vec.Scale))
		for _, c := range p.Vec.Codes {
			b = append(b, byte(c))
		}
	case p.Vec.Half != nil:
		b = append(b, formFp16)
		for _, h := range p.Vec.Half {
			b = binary.LittleEndian.AppendUint16(b, h)
		}
	case p.Vec.Full != nil:
		b = append(b, formFp32)
		for _, f := range p.Vec.Full {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
	case p.Vec.Bits != nil:
		b = append(b, formBinary)
		b = append(b, p.Vec.Bits...)
	default:
		b = append(b, formNone)
	}
	for i, v := range p.Values {
		if v.Kind == "" {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i))
		switch {
		case v.Kind.Numeric():
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Num))
		case v.Kind == index.Category:
			b = binary.AppendUvarint(b, uint64(len(v.Str)))
			b = append(b, v.Str...)
		default:
			b = binary.AppendUvarint(b, uint64(len(v.Set)))
			for _, s := range v.Set {
				b = binary.AppendUvarint(b, uint64(len(s)))
				b = append(b, s...)
			}
		}
	}
	return seal(key, b)
}

var errShort = errors.New("row ends early")

// decodeRow reads the body of a row (after the checksum). The result keeps
// nothing of b.
func decodeRow(spec *index.Spec, id string, b []byte) (rows.Prepared, error) {
	p := rows.Prepared{ID: id}
	if len(b) < 2 {
		return p, errShort
	}
	if b[0] != rowFormat {
		return p, fmt.Errorf("row format %d is not known to this version; use a newer one", b[0])
	}
	form := b[1]
	b, err := decodeVector(spec, form, b[2:], &p.Vec)
	if err != nil {
		return p, err
	}
	if len(b) > 0 {
		p.Values = make([]index.Value, len(spec.Columns))
	}
	for len(b) > 0 {
		i, n := binary.Uvarint(b)
		if n <= 0 || i >= uint64(len(spec.Columns)) {
			return p, fmt.Errorf("column %d of %d", i, len(spec.Columns))
		}
		b = b[n:]
		v := &p.Values[i]
		v.Kind = spec.Columns[i].Kind
		switch {
		case v.Kind.Numeric():
			if len(b) < 8 {
				return p, errShort
			}
			v.Num = math.Float64frombits(binary.LittleEndian.Uint64(b))
			b = b[8:]
		case v.Kind == index.Category:
			if v.Str, b, err = cutString(b); err != nil {
				return p, err
			}
		default:
			count, n := binary.Uvarint(b)
			if n <= 0 || count > uint64(len(b)) || count > index.MaxElements {
				return p, errShort
			}
			b = b[n:]
			v.Set = make([]string, count)
			for j := range v.Set {
				if v.Set[j], b, err = cutString(b); err != nil {
					return p, err
				}
			}
		}
	}
	return p, nil
}

func cutString(b []byte) (string, []byte, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return "", nil, errShort
	}
	return string(b[n : n+int(size)]), b[n+int(size):], nil
}

func decodeVector(spec *index.Spec, form byte, b []byte, v *rows.Vector) ([]byte, error) {
	want := map[index.Precision]byte{index.Int8: formInt8, index.Fp16: formFp16, index.Fp32: formFp32, index.Binary: formBinary}
	if form == formNone {
		return b, nil
	}
	if form != want[spec.Precision] {
		return nil, fmt.Errorf("vector form %d in a collection of precision %q", form, spec.Precision)
	}
	size := map[byte]int{formInt8: 4 + spec.Dim, formFp16: 2 * spec.Dim, formFp32: 4 * spec.Dim, formBinary: simd.BinaryBytes(spec.Dim)}[form]
	if len(b) < size {
		return nil, errShort
	}
	src := b[:size]
	switch form {
	case formInt8:
		v.Scale = math.Float32frombits(binary.LittleEndian.Uint32(src))
		v.Codes = make([]int8, spec.Dim)
		for i, c := range src[4:] {
			v.Codes[i] = int8(c)
		}
	case formFp16:
		v.Half = make([]uint16, spec.Dim)
		for i := range v.Half {
			v.Half[i] = binary.LittleEndian.Uint16(src[2*i:])
		}
	case formFp32:
		v.Full = make([]float32, spec.Dim)
		for i := range v.Full {
			v.Full[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case formBinary:
		v.Bits = append([]byte(nil), src...)
	}
	return b[size:], nil
}
