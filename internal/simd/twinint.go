package simd

import "math"

// The plain Go twins of the integer kernels: the same bits as the assembly.

func runIntTileGo(t *intTile) {
	w := t.width
	var acc [32]int32
	for r := range t.rows {
		s := acc[:w]
		clear(s)
		if len(t.start) > 0 {
			copy(s, t.start)
		}
		for l, g := range t.a[r*t.lda : r*t.lda+t.groups] {
			row := t.b[l*w : l*w+w]
			if t.format != formatInt16 {
				a0, a1, a2, a3 := int32(int8(g)), int32(int8(g>>8)), int32(int8(g>>16)), int32(int8(g>>24))
				if t.format == formatUint8 {
					a0, a1, a2, a3 = a0&255, a1&255, a2&255, a3&255
				}
				for j, b := range row {
					s[j] += a0*int32(int8(b)) + a1*int32(int8(b>>8)) + a2*int32(int8(b>>16)) + a3*int32(int8(b>>24))
				}
				continue
			}
			a0, a1 := int32(int16(g)), int32(int16(g>>16))
			for j, b := range row {
				s[j] += a0*int32(int16(b)) + a1*int32(int16(b>>16))
			}
		}
		sa := t.scaleA[r*t.lds]
		c := t.c[r*t.ldc : r*t.ldc+w]
		for j, v := range s {
			var base float32
			if len(t.bias) > 0 {
				base = t.bias[j]
			}
			if len(t.init) > 0 {
				base += t.init[r*t.ldi+j]
			}
			// The conversions keep a compiler from fusing the last two steps.
			c[j] = base + float32(float32(float32(v)*t.scaleB[j])*sa)
		}
	}
}

func absMaxGo(x []float32) uint32 {
	var top uint32
	for _, v := range x {
		top = max(top, math.Float32bits(v)&0x7fffffff)
	}
	return top
}

// quantGo writes x·inv rounded to nearest even; what is left of dst is filled up
// with zeros.
func quantGo(dst []uint32, x []float32, f intFormat, inv float32) {
	clear(dst)
	var offset int32
	if f.unsigned() {
		offset = 128
	}
	per := f.perGroup()
	for i := range (len(x) + per - 1) / per * per {
		q := offset
		if i < len(x) {
			q += int32(math.RoundToEven(float64(x[i] * inv)))
		}
		f.put(dst, i, 1, q)
	}
}
