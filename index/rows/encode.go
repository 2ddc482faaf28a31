package rows

import (
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// Vector is one vector as it is held: Codes and Scale for Int8, Half (binary16
// bits) for Fp16, Full for Fp32, Bits for Binary: bit i&7 of byte i>>3 is 1 where
// number i is not negative, in whole words of 32, zeros behind. The zero Vector
// is "no vector".
type Vector struct {
	Codes []int8
	Scale float32
	Half  []uint16
	Full  []float32
	Bits  []byte
}

// None says whether there is no vector.
func (v *Vector) None() bool {
	return v.Codes == nil && v.Half == nil && v.Full == nil && v.Bits == nil
}

// Prepared is a row ready to be stored. Values are by position in the spec's
// columns; a shorter slice leaves the rest missing. Sets are sorted, without
// repeats, and an empty one is missing.
type Prepared struct {
	ID     string
	Vec    Vector
	Values []index.Value
}

// Prepare encodes a checked row. Nothing of the row is kept but strings.
func Prepare(spec *index.Spec, r *index.Row) Prepared {
	p := Prepared{ID: r.ID, Vec: EncodeVector(spec.Precision, r.Vector), Values: make([]index.Value, len(spec.Columns))}
	for i, c := range spec.Columns {
		v := r.Values[c.Name]
		if v.Kind == index.Set {
			v.Set = slices.Clone(v.Set)
			slices.Sort(v.Set)
			v.Set = slices.Compact(v.Set)
			if len(v.Set) == 0 {
				v = index.Value{}
			}
		}
		p.Values[i] = v
	}
	return p
}

// EncodeVector makes v unit length and encodes it. nil and the zero vector
// become "no vector". v is not changed.
//
// Int8: codes are round(x * 127 / max|x|), and the scale is one over the
// codes' length rather than max|x|/127, so that what is held is unit length
// too and a score of two rows is a cosine.
func EncodeVector(p index.Precision, v []float32) Vector {
	unit, ok := Unit(v)
	if !ok {
		return Vector{}
	}
	return EncodeUnit(p, unit)
}

// EncodeUnit is EncodeVector of what Unit returned, which it keeps where p is Fp32:
// vectors that were made unit length elsewhere are not rounded twice.
func EncodeUnit(p index.Precision, unit []float32) Vector {
	switch p {
	case index.Fp32:
		return Vector{Full: unit}
	case index.Fp16:
		h := make([]uint16, len(unit))
		simd.Fp32ToFp16(h, unit)
		return Vector{Half: h}
	case index.Binary:
		b := make([]byte, simd.BinaryBytes(len(unit)))
		for i, x := range unit {
			if x >= 0 {
				b[i>>3] |= 1 << (i & 7)
			}
		}
		return Vector{Bits: b}
	}
	top := float32(0)
	for _, x := range unit {
		top = max(top, float32(math.Abs(float64(x))))
	}
	codes := make([]int8, len(unit))
	sum := 0.0
	for i, x := range unit {
		c := math.RoundToEven(float64(x) * 127 / float64(top))
		codes[i] = int8(c)
		sum += float64(c * c)
	}
	return Vector{Codes: codes, Scale: float32(1 / math.Sqrt(sum))}
}

// Unit returns v at unit length, and false for nil and zero vectors. Vectors
// whose squares would overflow or vanish are scaled first.
func Unit(v []float32) ([]float32, bool) {
	top := 0.0
	for _, x := range v {
		top = max(top, math.Abs(float64(x)))
	}
	if top == 0 {
		return nil, false
	}
	sum := 0.0
	for _, x := range v {
		f := float64(x) / top
		sum += float64(f * f)
	}
	norm := math.Sqrt(sum)
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(float64(x) / top / norm)
	}
	return out, true
}

// binaryScale is what a set bit of a row of dim dimensions stands for.
func binaryScale(dim int) float32 { return float32(1 / math.Sqrt(float64(dim))) }

// Decode writes the vector's dim numbers to dst, zeros when there is none.
func (v *Vector) Decode(dst []float32) {
	switch {
	case v.Codes != nil:
		for i, c := range v.Codes {
			dst[i] = float32(c) * v.Scale
		}
	case v.Half != nil:
		simd.Fp16ToFp32(dst, v.Half)
	case v.Full != nil:
		copy(dst, v.Full)
	case v.Bits != nil:
		x := binaryScale(len(dst))
		for i := range dst {
			if dst[i] = -x; v.Bits[i>>3]>>(i&7)&1 != 0 {
				dst[i] = x
			}
		}
	default:
		clear(dst)
	}
}

// scaleHead divides a head by the power of two that brings its largest number
// to [0.5, 1), so that no product or sum with unit vectors overflows a float32.
// Nothing is rounded but numbers 2^100 times smaller than the largest.
func scaleHead(h []float32) (f []float32, scale float64) {
	top := 0.0
	for _, x := range h {
		top = max(top, math.Abs(float64(x)))
	}
	_, exp := math.Frexp(top)
	f = make([]float32, len(h))
	for i, x := range h {
		f[i] = float32(math.Ldexp(float64(x), -exp))
	}
	return f, math.Ldexp(1, exp)
}

// quantiseHead rounds a head to int16 with one scale, such that
// 127 * sum|q| < 2^31: no sum over int8 codes can overflow an int32.
func quantiseHead(h []float32) (q []int16, scale float64) {
	top := 0.0
	for _, x := range h {
		top = max(top, math.Abs(float64(x)))
	}
	const room = (1<<31 - 1) / 127
	return roundHead(h, top, func(whole []float64) bool {
		sum := 0.0
		for _, x := range whole {
			if math.Abs(x) > math.MaxInt16 {
				return false
			}
			sum += math.Abs(x)
		}
		return sum <= room
	})
}

// binaryHead rounds a head to whole numbers with one scale, such that every four
// in a row stay within what the tables of binary rows hold.
func binaryHead(h []float32) (q *simd.BinaryHead, scale float64) {
	q16, scale := roundBinary(h)
	return simd.NewBinaryHead(q16), scale
}

func roundBinary(h []float32) (q []int16, scale float64) {
	four := func(at func(i int) float64) float64 {
		top := 0.0
		for i := 0; i < len(h); i += 4 {
			sum := 0.0
			for j := i; j < min(i+4, len(h)); j++ {
				sum += math.Abs(at(j))
			}
			top = max(top, sum)
		}
		return top
	}
	return roundHead(h, four(func(i int) float64 { return float64(h[i]) }), func(whole []float64) bool {
		return four(func(i int) float64 { return whole[i] }) <= math.MaxInt16
	})
}

// roundHead rounds a head to whole numbers of the least power of two, from
// top / 2^15, at which they fit. With a power of two a rounded head is a head of
// float32 that rounds to itself, so what was scanned with can be kept and explained
// exactly (AsScanned); any other scale would be finer by less than a bit, of which a
// row of 8 bits sees nothing.
func roundHead(h []float32, top float64, fits func(whole []float64) bool) (q []int16, scale float64) {
	q = make([]int16, len(h))
	if top == 0 {
		return q, 0
	}
	_, exp := math.Frexp(top)
	whole := make([]float64, len(h))
	for exp -= 15; ; exp++ {
		inverse := math.Ldexp(1, -exp)
		for i, x := range h {
			whole[i] = math.RoundToEven(float64(x) * inverse)
		}
		if fits(whole) {
			break
		}
	}
	for i, x := range whole {
		q[i] = int16(x)
	}
	return q, math.Ldexp(1, exp)
}

// AsScanned returns the head's vector as a scan of rows of this precision sees it.
// It scans to the same scores, bit for bit, and its products with stored vectors
// are those of the scan but for the rounding of sums.
func AsScanned(head []float32, p index.Precision) []float32 {
	var q []int16
	var scale float64
	switch p {
	case index.Int8:
		q, scale = quantiseHead(head)
	case index.Binary:
		q, scale = roundBinary(head)
	default:
		return slices.Clone(head)
	}
	out := make([]float32, len(head))
	for i, x := range q {
		out[i] = float32(float64(x) * scale)
	}
	return out
}
