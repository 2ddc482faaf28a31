//go:build amd64 && !noasm

package simd

import "testing"

// everyVariant sets impl to each variant this machine supports while f runs.
func everyVariant(f func()) {
	saved := impl
	defer func() { impl = saved }()
	for impl = variantGo; impl <= best(); impl++ {
		f()
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		wish string
		have variant
		want variant
	}{
		{"", variantAVX512, variantAVX512},
		{"go", variantAVX512, variantGo},
		{"avx2", variantAVX512, variantAVX2},
		{"avx2", variantGo, variantGo},
		{"avx512", variantAMX, variantAVX512},
		{"vnni", variantAMX, variantVNNI},
		{"vnni", variantAVX2, variantAVX2},
		{"nonsense", variantAVX2, variantAVX2},
	} {
		if got := choose(c.wish, c.have); got != c.want {
			t.Errorf("choose(%q, %v) = %v, want %v", c.wish, c.have, got, c.want)
		}
	}
}

// TestWideAndNarrowTilesAgree holds the two matrix kernels to the same bits.
func TestWideAndNarrowTilesAgree(t *testing.T) {
	if best() < variantAVX512 {
		t.Skip("no AVX-512 on this machine")
	}
	saved := impl
	defer func() { impl = saved }()
	r := newRand(t, 5)
	a, w, bias := Dense(floats(r, 25*400), 25, 400), floats(r, 400*70), floats(r, 70)
	var got [2]Matrix
	for i, v := range []variant{variantAVX2, variantAVX512} {
		impl = v
		got[i] = Dense(make([]float32, 25*70), 25, 70)
		MatMul(got[i], a, PackB(w, 400, 70, true), Epilogue{Bias: bias, GELU: true})
	}
	equalBits(t, "C", got[0].Data, got[1].Data)
}

func BenchmarkCeiling(b *testing.B) {
	for _, kind := range []string{"fp32", "int16", "int8"} {
		b.Run(kind, func(b *testing.B) {
			const rounds = 100000
			var products int64
			for b.Loop() {
				products += Ceiling(kind, rounds)
			}
			b.ReportMetric(2*float64(products)/b.Elapsed().Seconds()/1e9, "GOP/s")
		})
	}
}
