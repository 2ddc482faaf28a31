package audience

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// The shares of a tree against the definition of Shapley values: the mean over
// all orders in which columns become known of what each adds.
func TestShapleyAgainstTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 50 {
		tree := index.Tree{}
		depth := 1 + rng.IntN(4)
		for range depth {
			tree.Splits = append(tree.Splits, index.Split{Bins: rng.IntN(3)})
		}
		total := float32(0)
		for range 1 << depth {
			tree.Leaves = append(tree.Leaves, float32(rng.NormFloat64()))
			tree.Cover = append(tree.Cover, rng.Float32())
			total += tree.Cover[len(tree.Cover)-1]
		}
		for i := range tree.Cover {
			tree.Cover[i] /= total
		}
		mean, shares := shapley(&tree)
		for leaf := range tree.Leaves {
			want := map[int]float64{}
			orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
			for _, order := range orders {
				known := map[int]bool{}
				for _, c := range order {
					before := meanLeaf(&tree, leaf, known)
					known[c] = true
					want[c] += (meanLeaf(&tree, leaf, known) - before) / 6
				}
			}
			sum := mean
			for _, s := range shares {
				sum += s.byLeaf[leaf]
				if math.Abs(s.byLeaf[leaf]-want[s.column]) > 1e-6 {
					t.Fatalf("leaf %d, column %d: share %v, want %v", leaf, s.column, s.byLeaf[leaf], want[s.column])
				}
			}
			if math.Abs(sum-float64(tree.Leaves[leaf])) > 1e-6 {
				t.Fatalf("leaf %d: shares and mean add up to %v, not %v", leaf, sum, tree.Leaves[leaf])
			}
		}
	}
}

// Trees find what no sum over columns can: the kind is where exactly one of two
// columns is high.
func TestTreesFindAnInteraction(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var rows []index.Row
	truth := map[string]bool{}
	var seeds []string
	for i := range 3000 {
		a, b := rng.Float64(), rng.Float64()
		id := idOf(i)
		truth[id] = (a > 0.5) != (b > 0.5)
		if truth[id] && len(seeds) < 300 {
			seeds = append(seeds, id)
		}
		rows = append(rows, index.Row{ID: id, Values: map[string]index.Value{
			"a": {Kind: index.Number, Num: a}, "b": {Kind: index.Number, Num: b},
		}})
	}
	w := worldOf(t, index.Spec{Name: "w", Columns: []index.Column{{Name: "a", Kind: index.Number}, {Name: "b", Kind: index.Number}}}, rows)
	w.truth = truth
	auc := map[string]float64{}
	for _, method := range []string{Centroid, Classifier, Trees, Auto} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(200), Method: method})
		auc[method] = w.auc(t, res, seeds)
	}
	if auc[Centroid] > 0.65 || auc[Classifier] < 0.85 || auc[Trees] < 0.85 || auc[Auto] < 0.85 {
		t.Errorf("AUC %v", auc)
	}
}

// Of three columns each level is shown half, and one time in eight none: that must not
// end the fit.
func TestFewColumnsGrowAllTrees(t *testing.T) {
	w := pairWorld(t, true)
	for _, seeds := range []int{100, 250} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:seeds])}, Size: count(200), Method: Trees})
		if n := len(res.Model.Set.Heads[0].Trees); n < 100 {
			t.Errorf("%d seeds: %d trees", seeds, n)
		}
	}
}
