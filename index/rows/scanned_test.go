package rows

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// A head and what AsScanned makes of it give the same scores, bit for bit; and
// these are the products, summed here in float64, of the latter with the vectors
// that a snapshot gives out.
func TestAsScanned(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	for _, p := range []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary} {
		for _, dim := range []int{1, 13, 384, 1024} {
			spec := index.Spec{Name: "s", Dim: dim, Precision: p}
			v := gaussian(t, rng, spec, Options{}, 100, func(int) bool { return true })
			x := make([]float32, 100*dim)
			rows := make([]uint32, 100)
			for i := range rows {
				rows[i] = uint32(i)
			}
			if err := v.Vectors(rows, x); err != nil {
				t.Fatal(err)
			}
			for round := range 4 {
				head := make([]float32, dim)
				for j := range head {
					head[j] = float32(rng.NormFloat64() * math.Pow(10, float64(3*round-4)))
					if round == 3 { // all alike: the sum is as large as it can be
						head[j] = 1000
					}
				}
				kept := AsScanned(head, p)
				if again := AsScanned(kept, p); !slices.Equal(again, kept) {
					t.Errorf("%s, dim %d: a rounded head does not round to itself", p, dim)
				}
				scores, err := v.Scan(context.Background(), index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: head}}}, {Heads: []index.Head{{Vector: kept}}}}})
				if err != nil {
					t.Fatal(err)
				}
				norm := 0.0
				for _, w := range head {
					norm += float64(w) * float64(w)
				}
				for i := range rows {
					if math.Float32bits(scores[0][i]) != math.Float32bits(scores[1][i]) {
						t.Fatalf("%s, dim %d: score %v, with the rounded head %v", p, dim, scores[0][i], scores[1][i])
					}
					want := 0.0
					for j := range dim {
						want += float64(kept[j]) * float64(x[i*dim+j])
					}
					if off := math.Abs(want - float64(scores[0][i])); off > 1e-6*math.Sqrt(norm) {
						t.Fatalf("%s, dim %d: score %v, the product is %v", p, dim, scores[0][i], want)
					}
				}
			}
		}
	}
}
