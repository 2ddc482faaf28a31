package rows

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// TestBestOfMany: lists that are made while everyone is scored, one or many at once, are
// those that all scores give; with rows that a mask, a list or a delete leaves out, ties,
// biases, floors that are no good, and a last block that is not whole.
func TestBestOfMany(t *testing.T) {
	const n, dim = 16*sampleRows + 77, 64
	rng := rand.New(rand.NewPCG(7, 7))
	v := gaussian(t, rng, index.Spec{Name: "s", Dim: dim}, Options{}, n, func(i int) bool { return i%50 != 0 })
	mask := roaring.New()
	mask.AddRange(100, n-10)
	for _, heads := range []int{1, 15, 16, 33, 64, 70} {
		req := index.BestRequest{ScanRequest: index.ScanRequest{Mask: mask}}
		for k := range heads {
			head := make([]float32, dim)
			for j := range head {
				head[j] = float32(rng.NormFloat64())
				if k%7 == 3 { // many ties
					head[j] = float32(j / (dim - 1))
				}
			}
			bias := float32(0)
			if k%3 == 0 {
				bias = -0.7
			}
			req.Sets = append(req.Sets, index.HeadSet{Heads: []index.Head{{Vector: head, Bias: bias}}})
			req.Size = append(req.Size, []int{2000, 1, 300, n}[k%4])
			var allowed *roaring.Bitmap
			if k%5 == 2 {
				allowed = roaring.New()
				allowed.AddRange(uint64(1000*k), n/2)
			}
			req.Allowed = append(req.Allowed, allowed)
		}
		got, err := v.Best(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		for k := range req.Sets { // alone, so that no panel is used
			scores, err := v.Scan(context.Background(), index.ScanRequest{Mask: mask, Sets: req.Sets[k : k+1]})
			if err != nil {
				t.Fatal(err)
			}
			x := scores[0]
			for r := range x {
				if a := req.Allowed[k]; a != nil && !a.Contains(uint32(r)) {
					x[r] = negInf
				}
			}
			want := selection.Select(x, req.Size[k], selection.Options{Tie: v.Tie})
			if !slices.Equal(got[k].Rows, want) {
				t.Fatalf("list %d of %d: %d rows, want %d, or not the same", k, heads, len(got[k].Rows), len(want))
			}
			for i, r := range want {
				if math.Float32bits(got[k].Scores[i]) != math.Float32bits(x[r]) {
					t.Fatalf("list %d of %d: row %d has score %v, want %v", k, heads, r, got[k].Scores[i], x[r])
				}
			}
		}
	}
}
