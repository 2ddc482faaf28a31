package embed

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkEncode is for profiles; bench/encoder compares with others.
func BenchmarkEncode(b *testing.B) {
	for _, c := range []struct {
		name          string
		texts, tokens int
	}{{"32x128", 32, 128}, {"1x16", 1, 16}} {
		rng := rand.New(rand.NewPCG(1, 1))
		ids := make([][]int32, c.texts)
		for i := range ids {
			for range c.tokens {
				ids[i] = append(ids[i], int32(1000+rng.IntN(20000)))
			}
		}
		for _, p := range precisions {
			b.Run(c.name+"/"+string(p), func(b *testing.B) {
				m := openReal(b, "all-MiniLM-L6-v2", "mean", Options{Precision: p})
				for b.Loop() {
					if _, err := m.EncodeTokens(b.Context(), ids, EncodeOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(c.texts*c.tokens*b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
