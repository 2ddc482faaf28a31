package simd

import "math"

// The plain Go twins. Each follows the shape of its assembly kernel closely
// enough to be its oracle, and is what runs where there is no assembly.

const (
	goPanelWidth = 16
	goTileRows   = 6
)

func runTileGo(t *tile) {
	w := t.width
	var acc [32]float32
	for r := range t.rows {
		s := acc[:w]
		if len(t.init) > 0 {
			copy(s, t.init[r*t.ldi:r*t.ldi+w])
		} else {
			clear(s)
		}
		if len(t.bias) > 0 {
			for j := range s {
				s[j] += t.bias[j]
			}
		}
		for l := range t.k {
			av := t.a[r*t.lda+l]
			row := t.b[l*t.ldb : l*t.ldb+w]
			for j, bv := range row {
				s[j] += av * bv
			}
		}
		copy(t.c[r*t.ldc:r*t.ldc+w], s)
	}
}

// packTransposedGo writes src[j*stride+l], j < cols, l < depth, to
// dst[l*width+j].
func packTransposedGo(dst, src []float32, stride, cols, depth, width int) {
	for j := range cols {
		for l, v := range src[j*stride : j*stride+depth] {
			dst[l*width+j] = v
		}
	}
}

func dotBodyGo(a, b []float32) float32 {
	var acc [8]float32
	for i, v := range a {
		acc[i&7] += v * b[i]
	}
	return foldLanes(&acc)
}

// foldLanes adds eight lanes in the order the assembly does.
func foldLanes(v *[8]float32) float32 {
	a, b, c, d := v[0]+v[4], v[1]+v[5], v[2]+v[6], v[3]+v[7]
	return (a + c) + (b + d)
}

func axpyGo(alpha float32, x, y []float32) {
	for i, v := range x {
		y[i] += alpha * v
	}
}

func sumBodyGo(x []float32) float32 {
	var acc [8]float32
	for i, v := range x {
		acc[i&7] += v
	}
	return foldLanes(&acc)
}

func sumSqBodyGo(x []float32, mean float32) float32 {
	var acc [8]float32
	for i, v := range x {
		d := v - mean
		acc[i&7] += d * d
	}
	return foldLanes(&acc)
}

func normBodyGo(n *normArgs) {
	for i, v := range n.x {
		n.dst[i] = (v-n.mean)*n.inv*n.gamma[i] + n.beta[i]
	}
}

func geluGo(x []float32) {
	for i, v := range x {
		f := float64(v)
		if math.IsInf(f, -1) {
			x[i] = 0
			continue
		}
		// erfc keeps the small results of large negative x.
		x[i] = float32(0.5 * f * math.Erfc(-f*math.Sqrt2/2))
	}
}

func softmaxGo(x []float32, scale float32) {
	top := float32(math.Inf(-1))
	for i, v := range x {
		v *= scale
		x[i] = v
		if v > top {
			top = v
		}
	}
	var sum float64
	for i, v := range x {
		e := math.Exp(float64(v - top))
		if e < minNormal {
			e = 0
		}
		x[i] = float32(e)
		sum += e
	}
	inv := float32(1 / sum)
	for i := range x {
		x[i] *= inv
	}
}

// minNormal is where the exponentials flush to zero: the smallest normal fp32.
const minNormal = 0x1p-126

func dotInt8Go(rows []int8, dim int, head []int16, out []int32) {
	head = head[:dim]
	for i := range out {
		row := rows[i*dim : i*dim+dim]
		var s int32
		for j, h := range head {
			s += int32(row[j]) * int32(h)
		}
		out[i] = s
	}
}

func dotFp32Go(rows []float32, dim int, head, out []float32) {
	body := dim &^ 7
	for i := range out {
		row := rows[i*dim : i*dim+dim]
		s := dotBodyGo(row[:body], head[:body])
		for j := body; j < dim; j++ {
			s += row[j] * head[j]
		}
		out[i] = s
	}
}

func dotFp16Go(rows []uint16, dim int, head, out []float32) {
	for i := range out {
		var acc [8]float32
		row := rows[i*dim : i*dim+dim]
		body := dim &^ 7
		for j, v := range row[:body] {
			acc[j&7] += halfToFloat(v) * head[j]
		}
		s := foldLanes(&acc)
		for j := body; j < dim; j++ {
			s += halfToFloat(row[j]) * head[j]
		}
		out[i] = s
	}
}

func fp16ToFp32Go(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = halfToFloat(v)
	}
}

func fp32ToFp16Go(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = floatToHalf(v)
	}
}

// halfToFloat decodes IEEE 754-2008 binary16; a signalling NaN comes out quiet,
// as the hardware conversion does.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h >> 10 & 31)
	frac := uint32(h & 0x3ff)
	switch {
	case exp == 31 && frac != 0:
		return math.Float32frombits(sign | 0x7fc00000 | frac<<13)
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000)
	case exp == 0:
		// Subnormal: frac·2⁻²⁴, exact in fp32.
		f := float32(frac) * 0x1p-24
		return math.Float32frombits(math.Float32bits(f) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// floatToHalf rounds to nearest even.
func floatToHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // 65520, halfway to the first value out of range
		return sign | 0x7c00
	case b >= 0x38800000: // normal in binary16
		b += 0xfff + b>>13&1
		return sign | uint16((b-(112<<23))>>13)
	}
	// Subnormal: count units of 2⁻²⁴; the product is exact.
	return sign | uint16(math.RoundToEven(float64(math.Float32frombits(b))*0x1p24))
}
