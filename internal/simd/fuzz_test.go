package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The fuzz targets hold every variant that this machine runs to the twin, over
// arbitrary bytes, sizes and offsets. Their seeds run with the ordinary tests.

// numbers returns n fp32 numbers made of the fuzzer's bytes: the first bits as they
// stand (NaNs, infinities and subnormals among them where odd is set), then
// pseudo-random ones, offset elements into their memory.
func numbers(r *rand.Rand, raw []byte, n, offset int, odd bool) []float32 {
	x := make([]float32, n+offset)[offset:]
	for i := range x {
		if 4*i+4 > len(raw) {
			x[i] = float32(r.NormFloat64())
			continue
		}
		bits := uint32(raw[4*i]) | uint32(raw[4*i+1])<<8 | uint32(raw[4*i+2])<<16 | uint32(raw[4*i+3])<<24
		if !odd { // 2⁻³² to 2³², so that no sum is out of range
			bits = bits&0x807fffff | (95+bits>>23&63)<<23
		}
		x[i] = math.Float32frombits(bits)
	}
	return x
}

func fuzzRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 11)) }

// addSeeds adds sizes on either side of every block.
func addSeeds(f *testing.F) {
	raw := []byte{0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0x7f, 0x7f, 0x80, 0x80, 0x80, 0x80}
	for i, n := range []uint16{1, 7, 8, 15, 16, 17, 33, 65, 384, 385} {
		f.Add(uint64(i), raw[:i*2], uint8(i*3), n, uint8(i))
	}
}

// close32 holds got to want within tol. What overflows or is not a number in one
// of them is so in both.
func close32(t *testing.T, what string, got, want float32, tol float64) {
	t.Helper()
	g, w := float64(got), float64(want)
	if math.IsNaN(w) || math.IsInf(w, 0) {
		if math.IsNaN(g) != math.IsNaN(w) || math.IsInf(w, 1) != math.IsInf(g, 1) || math.IsInf(w, -1) != math.IsInf(g, -1) {
			t.Fatalf("%s: got %g, the twin %g", what, g, w)
		}
		return
	}
	if !(math.Abs(g-w) <= tol) {
		t.Fatalf("%s: got %g, the twin %g, bound %g", what, g, w, tol)
	}
}

// FuzzMatMul: fp32 products, packed and small, with every part of the epilogue.
func FuzzMatMul(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, rows uint8, depth uint16, cols uint8) {
		r := fuzzRand(seed)
		m, k, n := 1+int(rows)%30, int(depth)%800, 1+int(cols)%80
		a := Matrix{Data: numbers(r, raw, m*(k+1), int(seed%4), false), Rows: m, Cols: k, Stride: k + 1}
		b := numbers(r, raw, k*n, int(seed/4%4), false)
		var epi Epilogue
		if seed&16 != 0 {
			epi.Bias = numbers(r, nil, n, 1, false)
		}
		if seed&32 != 0 {
			epi.Residual = Matrix{Data: numbers(r, nil, m*(n+2), 3, false), Rows: m, Cols: n, Stride: n + 2}
		}
		want := twinProduct(a, b, n, epi)
		size := make([]float64, m*n)
		for i := range m {
			for j := range n {
				if epi.Bias != nil {
					size[i*n+j] += math.Abs(float64(epi.Bias[j]))
				}
				if epi.Residual.Data != nil {
					size[i*n+j] += math.Abs(float64(epi.Residual.Row(i)[j]))
				}
				for l := range k {
					size[i*n+j] += math.Abs(float64(a.Row(i)[l]) * float64(b[l*n+j]))
				}
			}
		}
		inEachVariant(t, func(t *testing.T) {
			c, small := guarded(m, n), guarded(m, n)
			MatMul(c, a, PackB(b, k, n, false), epi)
			checkGuards(t, c)
			MatMulNN(small, a, Dense(b, k, n))
			checkGuards(t, small)
			plain := twinProduct(a, b, n, Epilogue{})
			for i := range m {
				for j := range n {
					tol := (float64(k) + 4) * size[i*n+j] * 0x1p-23
					close32(t, fmt.Sprintf("%dx%dx%d C[%d,%d]", m, k, n, i, j), c.Row(i)[j], want.Row(i)[j], tol)
					close32(t, fmt.Sprintf("%dx%dx%d small C[%d,%d]", m, k, n, i, j), small.Row(i)[j], plain.Row(i)[j], tol)
				}
			}
		})
	})
}

// twinProduct is A·B with bias and residual by the twin's tile alone.
func twinProduct(a Matrix, b []float32, n int, epi Epilogue) Matrix {
	c := Dense(make([]float32, a.Rows*n), a.Rows, n)
	for i := range a.Rows {
		for j := range n {
			t := tile{c: c.Row(i)[j : j+1], b: b[min(j, len(b)):], rows: 1, width: 1, k: a.Cols, ldb: n, lda: a.Stride, ldc: n, ldi: n, a: a.Row(i)}
			if epi.Residual.Data != nil {
				t.init = epi.Residual.Row(i)[j : j+1]
			}
			if epi.Bias != nil {
				t.bias = epi.Bias[j : j+1]
			}
			runTileGo(&t)
		}
	}
	return c
}

// FuzzMatMulInt: the products of integers, int16 and int8, bit for bit against a
// reference from the definition.
func FuzzMatMulInt(f *testing.F) {
	f.Add(uint64(1), []byte{}, uint8(13), uint16(400), uint8(33), false)
	f.Add(uint64(2), []byte{0, 0, 0x80, 0x7f}, uint8(1), uint16(1), uint8(1), true)
	f.Add(uint64(6), []byte{1, 2, 3, 4, 5, 6, 7, 8}, uint8(6), uint16(17), uint8(16), true)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, m uint8, k uint16, n uint8, narrow bool) {
		c := gemmCase{m: 1 + int(m)%30, k: 1 + int(k)%900, n: 1 + int(n)%80, bias: seed%2 == 0, resid: seed%3 == 0}
		r := fuzzRand(seed)
		a, b, stride, epi := intOperands(r, c)
		copy(a.Data, numbers(r, raw, min(len(raw)/4, len(a.Data)), 0, false))
		pack, kind := PackInt16, "int16"
		if narrow {
			pack, kind = PackInt8, "int8"
		}
		inEachVariant(t, func(t *testing.T) {
			p, err := pack(b, c.k, c.n, stride)
			if err != nil {
				t.Fatal(err)
			}
			var q Quantised
			q.From(a, p)
			got := guarded(c.m, c.n)
			MatMulInt(got, &q, p, epi)
			checkGuards(t, got)
			for i := range c.m {
				for j := range c.n {
					want := intElement(p, a.Row(i), b[j*stride:], epi, i, j, kind)
					equalBits(t, fmt.Sprintf("%s %v C[%d,%d]", kind, c, i, j), got.Row(i)[j:j+1], []float32{want})
				}
			}
		})
	})
}

// FuzzQuantise: activations in integers are the same bits in every variant.
func FuzzQuantise(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, _ uint8, length uint16, offset uint8) {
		n := 1 + int(length)%900
		x := numbers(fuzzRand(seed), raw, n, int(offset)%8, true)
		inEachVariant(t, func(t *testing.T) {
			if got, want := absMax(x[:n&^15]), absMaxGo(x[:n&^15]); got != want {
				t.Fatalf("absMax of %d: %08x, the twin %08x", n, got, want)
			}
			for _, c := range []struct {
				f   intFormat
				top int32
			}{{formatInt16, int16Activation}, {int16Format(), int16Activation}, {int8Format(), int8Activation}} {
				got, want := make([]uint32, c.f.groups(n)), make([]uint32, c.f.groups(n))
				scale := quantiseSlice(got, x, c.f, c.top)
				inv := float32(c.top) / math.Float32frombits(absMaxGo(x))
				if scale != scale || scale == 0 {
					continue // nothing was multiplied
				}
				quantGo(want, x, c.f, inv)
				if !slices.Equal(got, want) {
					t.Fatalf("%d elements, top %d: %08x, the twin %08x", n, c.top, got, want)
				}
			}
		})
	})
}

// FuzzScanInt8: scores of int8 rows under several heads, of rows picked by number,
// and their conversion are exact.
func FuzzScanInt8(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, count uint8, dims uint16, offset uint8) {
		r := fuzzRand(seed)
		n, dim, off := int(count)%40, 1+int(dims)%1200, int(offset)%16
		rows := make([]int8, 64*dim+off)[off:] // 32 chunks of two rows
		for i := range rows {
			rows[i] = int8(r.IntN(256) - 128)
			if i < len(raw) {
				rows[i] = int8(raw[i])
			}
		}
		heads, got, want := make([][]int16, 5), make([][]int32, 5), make([][]int32, 5)
		limit := min(32767, math.MaxInt32/128/dim)
		for h := range heads {
			heads[h], got[h], want[h] = make([]int16, dim+off)[off:], make([]int32, n), make([]int32, n)
			for j := range heads[h] {
				heads[h][j] = int16([]int{r.IntN(2*limit+1) - limit, limit, -limit}[int(seed)%3])
			}
			dotInt8Go(rows, dim, heads[h], want[h])
		}
		chunks := make([][]int8, 32)
		for i := range chunks {
			chunks[i] = rows[i*2*dim:][:2*dim]
		}
		table, at, atGot, atWant := NewInt8Rows(chunks, 1, dim), make([]uint32, n), make([]int32, n), make([]int32, n)
		codes := make([]int8, dim+off)[off:]
		for i := range codes {
			codes[i] = int8(r.IntN(256) - 128)
		}
		for i := range at {
			at[i] = uint32(r.IntN(64))
			for j, c := range table.Row(at[i]) {
				atWant[i] += int32(c) * int32(codes[j])
			}
		}
		scales, out, outWant := numbers(r, nil, n, off%4, false), make([]float32, n+off)[off:], make([]float32, n)
		scoresGo(outWant, want[0], scales, 0.37, 1.5)
		inEachVariant(t, func(t *testing.T) {
			DotInt8Heads(rows, dim, heads, got)
			for h := range heads {
				if !slices.Equal(got[h], want[h]) {
					t.Fatalf("%d rows of dim %d, head %d: %v, the twin %v", n, dim, h, got[h], want[h])
				}
			}
			var q Int8Query
			q.Set(codes)
			DotInt8At(table, at, &q, atGot)
			if !slices.Equal(atGot, atWant) {
				t.Fatalf("rows %v of dim %d: %v, want %v", at, dim, atGot, atWant)
			}
			Scores(out, want[0], scales, 0.37, 1.5)
			equalBits(t, "scores", out, outWant)
		})
	})
}

// FuzzScanFloat: scores of fp32 and fp16 rows and the conversions between the two.
func FuzzScanFloat(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, count uint8, dims uint16, offset uint8) {
		r := fuzzRand(seed)
		n, dim, off := int(count)%12, 1+int(dims)%900, int(offset)%8
		head := numbers(r, raw, dim, off, false)
		half, wide := make([]uint16, n*dim+off)[off:], make([]float32, n*dim+off)[off:]
		for i := range half {
			half[i] = uint16(r.Uint32())
			if half[i]>>10&31 == 31 {
				half[i] ^= 0x4000 // no infinities and NaNs in sums
			}
		}
		odd := numbers(r, raw, dim, off, true)
		oddWant, patterns := make([]uint16, dim), make([]uint16, dim+off)[off:]
		fp32ToFp16Go(oddWant, odd)
		fp16ToFp32Go(wide, half)
		inEachVariant(t, func(t *testing.T) {
			got := make([]float32, len(wide))
			Fp16ToFp32(got, half)
			equalBits(t, "fp16 to fp32", got, wide)
			Fp32ToFp16(patterns, odd)
			if !slices.Equal(patterns, oddWant) {
				t.Fatalf("fp32 to fp16 of %v: %04x, the twin %04x", odd, patterns, oddWant)
			}
			full, short, want := make([]float32, n), make([]float32, n), make([]float32, n)
			DotFp32(wide, dim, head, full)
			DotFp16(half, dim, head, short)
			equalBits(t, "fp16 against fp32", short, full)
			dotFp32Go(wide, dim, head, want)
			for i := range n {
				size := 0.0
				for j, h := range head {
					size += math.Abs(float64(wide[i*dim+j]) * float64(h))
				}
				close32(t, fmt.Sprintf("row %d of %d, dim %d", i, n, dim), full[i], want[i], float64(dim)*size*0x1p-23)
			}
		})
	})
}

// FuzzScanBinary: scores of binary rows are exact.
func FuzzScanBinary(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, count uint8, dims uint16, offset uint8) {
		r := fuzzRand(seed)
		n, dim, off := int(count)%150, 1+int(dims)%2500, int(offset)%8
		rows := make([]byte, (n+BinaryBlock-1)/BinaryBlock*BinaryBlock*BinaryBytes(dim)+off)[off:]
		for i := range rows {
			rows[i] = byte(r.Uint32())
		}
		copy(rows, raw)
		heads, got, want := make([]*BinaryHead, 2), make([][]int32, 2), make([][]int32, 2)
		for h := range heads {
			q := make([]int16, dim)
			for j := range q {
				q[j] = int16(r.IntN(2*8191+1) - 8191)
			}
			heads[h], got[h], want[h] = NewBinaryHead(q), make([]int32, n), make([]int32, n)
			dotBinaryGo(rows, heads[h], want[h])
		}
		inEachVariant(t, func(t *testing.T) {
			DotBinary(rows, heads, got)
			for h := range heads {
				if !slices.Equal(got[h], want[h]) {
					t.Fatalf("%d rows of dim %d, head %d: %v, the twin %v", n, dim, h, got[h], want[h])
				}
			}
		})
	})
}

// FuzzSoftmax holds every variant within the errors that Softmax states, of both.
func FuzzSoftmax(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, spread uint8, length uint16, offset uint8) {
		n := 1 + int(length)%700
		x := numbers(fuzzRand(seed), raw, n, int(offset)%8, true)
		scale := float32(spread) / 16
		want := slices.Clone(x)
		softmaxGo(want, scale)
		top := float32(math.Inf(-1))
		for _, v := range x {
			top = max(top, v*scale)
		}
		inEachVariant(t, func(t *testing.T) {
			got := append(make([]float32, offset%8), x...)[offset%8:]
			Softmax(got, scale)
			for i, v := range x {
				d := math.Min(200, math.Abs(float64(v*scale)-float64(top)))
				tol := 2e-38 + (4e-6+2*d*0x1p-23)*math.Abs(float64(want[i]))
				close32(t, fmt.Sprintf("softmax of %v·%g, scale %g, at %d of %d", v, top, scale, i, n), got[i], want[i], tol)
			}
		})
	})
}

// FuzzGELU holds every variant within the errors that GELU states.
func FuzzGELU(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, _ uint8, length uint16, offset uint8) {
		n := 1 + int(length)%200
		x := numbers(fuzzRand(seed), raw, n, int(offset)%8, true)
		want := slices.Clone(x)
		geluGo(want)
		inEachVariant(t, func(t *testing.T) {
			got := append(make([]float32, offset%8), x...)[offset%8:]
			GELU(got)
			for i, v := range x {
				close32(t, fmt.Sprintf("GELU(%g) at %d of %d", v, i, n), got[i], want[i], 5e-7+0x1p-22*math.Abs(float64(want[i])))
			}
		})
	})
}

// FuzzLayerNorm holds every variant, and the element-wise operations that it
// stands for, to the twin.
func FuzzLayerNorm(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, _ uint8, length uint16, offset uint8) {
		r := fuzzRand(seed)
		n, off := 1+int(length)%900, int(offset)%8
		x, gamma, beta := numbers(r, raw, n, off, false), numbers(r, nil, n, off/2, false), numbers(r, nil, n, 1, false)
		var sum, sq, size, most float64
		for i, v := range x {
			sum += float64(v)
			size += math.Abs(float64(v) * float64(gamma[i]))
			most = max(most, math.Abs(float64(v)))
		}
		mean := sum / float64(n)
		for _, v := range x {
			sq += (float64(v) - mean) * (float64(v) - mean)
		}
		sd := math.Sqrt(sq/float64(n) + 1e-12)
		inEachVariant(t, func(t *testing.T) {
			got := append(make([]float32, off), x...)[off:]
			LayerNorm(got, got, gamma, beta, 1e-12)
			if math.Abs(mean)/sd < 1e3 { // beyond it the bound says nothing
				for i, v := range x {
					z := (float64(v) - mean) / sd
					want := z*float64(gamma[i]) + float64(beta[i])
					bound := (4+4*math.Abs(mean)/sd)*0x1p-22*(1+math.Abs(z))*math.Abs(float64(gamma[i])) + 0x1p-22*(math.Abs(float64(beta[i]))+math.Abs(want))
					close32(t, fmt.Sprintf("LayerNorm at %d of %d", i, n), got[i], float32(want), bound)
				}
			}
			body := n &^ 7
			want := dotBodyGo(x[:body], gamma[:body])
			for i := body; i < n; i++ {
				want += x[i] * gamma[i]
			}
			close32(t, fmt.Sprintf("Dot of %d", n), Dot(x, gamma), want, float64(n)*size*0x1p-23)
			y := slices.Clone(beta)
			Axpy(0.75, x, y)
			for i, v := range x {
				close32(t, fmt.Sprintf("Axpy at %d of %d", i, n), y[i], float32(0.75*float64(v)+float64(beta[i])), 0x1p-22*(math.Abs(float64(v))+math.Abs(float64(beta[i]))))
			}
		})
	})
}
