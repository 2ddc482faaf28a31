//go:build arm64 && !noasm

package simd

import (
	"math"
	"unsafe"
)

func geluStrip(m Matrix) {
	vecs := m.Cols / 8
	switch {
	case impl == variantGo:
		for i := range m.Rows {
			geluGo(m.Row(i))
		}
		return
	case m.Rows > 0 && vecs > 0:
		geluNEON(&m.Data[0], m.Rows, vecs, m.Stride)
	}
	if at := vecs * 8; at < m.Cols {
		for i := range m.Rows {
			geluTail(m.Row(i)[at:])
		}
	}
}

func gelu(x []float32) {
	if len(x) > 0 {
		geluStrip(Dense(x, 1, len(x)))
	}
}

// geluTail runs up to seven elements through a whole step of the kernel, so that
// an element's bits do not depend on where it lies.
func geluTail(x []float32) {
	var buf [8]float32
	copy(buf[:], x)
	geluNEON(&buf[0], 1, 1, 8)
	copy(x, buf[:])
}

func expRows(m Matrix, scale float32, _ []float32) (late bool) {
	SoftmaxRows(m, scale)
	return false
}

func scaleRow(x []float32, factor float32) {
	n := len(x) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		scaleNEON(&x[0], n, factor)
	}
	for i := n; i < len(x); i++ {
		x[i] *= factor
	}
}

func softmax(x []float32, scale float32) {
	if impl == variantGo {
		softmaxGo(x, scale)
		return
	}
	n := len(x) &^ 7
	var buf [8]float32
	tail := x[n:]
	for i := range buf {
		buf[i] = float32(math.Inf(-1))
	}
	for i, v := range tail {
		buf[i] = v * scale
	}
	top := float32(math.Inf(-1))
	if n > 0 {
		top = scaleMaxNEON(&x[0], n, scale)
	}
	for _, v := range buf[:len(tail)] {
		top = max(top, v)
	}
	var sum float32
	if n > 0 {
		sum = expSumNEON(&x[0], n, top)
	}
	if len(tail) > 0 {
		sum += expSumNEON(&buf[0], len(buf), top)
	}
	inv := 1 / sum
	if n > 0 {
		scaleNEON(&x[0], n, inv)
	}
	for i := range tail {
		tail[i] = buf[i] * inv
	}
}

func dotBody(a, b []float32) float32 {
	if impl == variantGo || len(a) == 0 {
		return dotBodyGo(a, b)
	}
	return dotNEON(&a[0], &b[0], len(a))
}

func axpy(alpha float32, x, y []float32) {
	n := len(x) &^ 7
	if impl == variantGo {
		n = 0
	}
	if n > 0 {
		axpyNEON(alpha, &x[0], &y[0], n)
	}
	axpyGo(alpha, x[n:], y[n:])
}

func sumBody(x []float32) float32 {
	if impl == variantGo || len(x) == 0 {
		return sumBodyGo(x)
	}
	return sumNEON(&x[0], len(x))
}

func sumSqBody(x []float32, mean float32) float32 {
	if impl == variantGo || len(x) == 0 {
		return sumSqBodyGo(x, mean)
	}
	return sumSqNEON(&x[0], len(x), mean)
}

func normBody(n *normArgs) {
	if impl == variantGo || len(n.x) == 0 {
		normBodyGo(n)
		return
	}
	normNEON((*byte)(unsafe.Pointer(n)), len(n.x))
}
