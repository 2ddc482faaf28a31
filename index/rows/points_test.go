package rows

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// gaussian is a table of n rows whose ids are their numbers; those that has holds for
// have a random vector.
func gaussian(t *testing.T, rng *rand.Rand, spec index.Spec, opt Options, n int, has func(i int) bool) *View {
	t.Helper()
	table := New(spec, opt)
	var batch []Prepared
	for i := range n {
		r := index.Row{ID: fmt.Sprint(i)}
		if has(i) {
			r.Vector = make([]float32, spec.Dim)
			for j := range r.Vector {
				r.Vector[j] = float32(rng.NormFloat64())
			}
		}
		batch = append(batch, Prepare(&spec, &r))
	}
	if err := table.Apply(batch, 0); err != nil {
		t.Fatal(err)
	}
	return table.Snapshot()
}

// TestScorer: single rows score the same bits as a search gives them.
func TestScorer(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, p := range []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary} {
		for _, dim := range []int{1, 13, 384} {
			spec := index.Spec{Name: "s", Dim: dim, Precision: p}
			v := gaussian(t, rng, spec, Options{ChunkRows: 64}, 200, func(i int) bool { return i%7 > 0 })
			for round := range 5 {
				q := make([]float32, dim)
				for j := range q {
					q[j] = float32(rng.NormFloat64()) * float32(min(round, 1)) // the first is zero
				}
				hits, err := v.Search(context.Background(), index.Query{Vector: q, Limit: 200})
				if err != nil || len(hits) != 200 {
					t.Fatalf("%d hits, %v", len(hits), err)
				}
				s, err := v.Scorer(q)
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range hits {
					row, _ := v.Find(h.ID)
					if got := s.Score(row); math.Float32bits(got) != math.Float32bits(h.Score) {
						t.Fatalf("%s dim %d row %d: %v alone, %v in a search", p, dim, row, got, h.Score)
					}
				}
			}
			if _, err := v.Scorer(make([]float32, dim+1)); err == nil {
				t.Error("a query of another dimension is taken")
			}
		}
	}
}
