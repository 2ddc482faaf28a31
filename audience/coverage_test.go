package audience

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// The sheet's intervals are for what is not known at the time: how the model
// ranks the rest of the kind that the seeds were drawn from. Over many lists they
// must hold it about 95 times in 100, no fewer and not many more.
func TestIntervalsCover(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred audiences")
	}
	w := newWorld(t, worldOptions{n: 8000, dim: 16, columns: true})
	const lists = 120
	for _, n := range []int{40, 160} {
		auc, recall := 0, 0
		for d := range lists {
			rng := rand.New(rand.NewPCG(uint64(d), uint64(n)))
			isSeed := map[string]bool{}
			var seeds []string
			for _, i := range rng.Perm(len(w.kind))[:n] {
				seeds = append(seeds, w.kind[i])
				isSeed[w.kind[i]] = true
			}
			res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(400), Method: Centroid, Seed: uint64(d)})
			scores, err := w.pop.Snap.Scan(t.Context(), index.ScanRequest{Bins: res.Model.Bins, Sets: []index.HeadSet{res.Model.Set}})
			if err != nil {
				t.Fatal(err)
			}
			var everyone, kind []float64
			for row, s := range scores[0] {
				if id := w.pop.Snap.ID(uint32(row)); !isSeed[id] {
					everyone = append(everyone, float64(s))
					if w.truth[id] {
						kind = append(kind, float64(s))
					}
				}
			}
			holds := func(i Interval, truth float64) int {
				if i.Low <= truth && truth <= i.High {
					return 1
				}
				return 0
			}
			auc += holds(res.Quality.Measure.AUC, aucOf(kind, everyone))
			hit := 0.0
			for _, s := range kind {
				if s >= float64(res.Threshold) {
					hit += 1 / float64(len(kind))
				}
			}
			recall += holds(res.Quality.Measure.Sizes[0].Recall, hit)
		}
		// 95 of 100, give or take two and a half standard errors of 120 lists.
		for what, got := range map[string]int{"AUC": auc, "recall": recall} {
			if share := float64(got) / lists; math.Abs(share-0.95) > 0.05 {
				t.Errorf("%d seeds: intervals of the %s hold the truth in %.0f %% of lists", n, what, 100*share)
			}
			t.Logf("%d seeds: %s held in %d of %d", n, what, got, lists)
		}
	}
}
