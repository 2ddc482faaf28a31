package audience

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// simulated is how many seed lists TestIntervalsCover draws of each kind. The
// default keeps the test short; -lists=1000 is the whole simulation, whose result
// is in docs/quality.md.
var simulated = flag.Int("lists", 120, "seed lists that the test of intervals draws of each size and method")

// firstList lets a simulation draw lists that another has not seen.
var firstList = flag.Int("first-list", 0, "number of the first seed list that the test of intervals draws")

// The sheet's intervals are for what is not known at the time: how the model
// ranks the rest of the kind that the seeds were drawn from. Over many lists they
// must hold it about 95 times in 100, no fewer and not many more.
func TestIntervalsCover(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred audiences")
	}
	both := newWorld(t, worldOptions{n: 8000, dim: 16, columns: true})
	for _, n := range []int{40, 160} {
		t.Run(fmt.Sprintf("text and columns, %d seeds", n), func(t *testing.T) { coverage(t, both, Centroid, n) })
	}
	if *simulated <= 120 {
		return
	}
	columns := biased(t, 8000)
	for _, n := range []int{40, 160} {
		t.Run(fmt.Sprintf("columns alone, %d seeds", n), func(t *testing.T) { coverage(t, columns, Centroid, n) })
	}
	text := newWorld(t, worldOptions{n: 6000, dim: 24}) // had no say in how wide intervals are
	for _, n := range []int{40, 160} {
		t.Run(fmt.Sprintf("text alone, %d seeds", n), func(t *testing.T) { coverage(t, text, Centroid, n) })
	}
}

func coverage(t *testing.T, w *world, method string, n int) {
	lists := *simulated
	held, band := map[string]int{}, 0
	for d := *firstList; d < *firstList+lists; d++ {
		rng := rand.New(rand.NewPCG(uint64(d), uint64(n)))
		isSeed := map[string]bool{}
		var seeds []string
		for _, i := range rng.Perm(len(w.kind))[:n] {
			seeds = append(seeds, w.kind[i])
			isSeed[w.kind[i]] = true
		}
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(400), Method: method, Seed: uint64(d)})
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
		holds := func(what string, i Interval, truth float64) {
			if _, there := held[what]; !there {
				held[what] = 0
			}
			if i.Low <= truth && truth <= i.High {
				held[what]++
			}
		}
		holds("AUC", res.Quality.Measure.AUC, aucOf(kind, everyone))
		slices.SortFunc(everyone, func(a, b float64) int { return int(math.Copysign(1, b-a)) })
		for i, at := range res.Quality.Measure.Sizes {
			least := everyone[max(1, int(math.Round(at.Share*float64(len(everyone)))))-1]
			// Of customers at the last score so many fit on the list, whoever they are.
			above, ties := 0, 0
			for _, s := range everyone {
				if s > least {
					above++
				} else if s == least {
					ties++
				}
			}
			fit := (at.Share*float64(len(everyone)) - float64(above)) / float64(ties)
			hit := 0.0
			for _, s := range kind {
				if s > least {
					hit += 1 / float64(len(kind))
				} else if s == least {
					hit += fit / float64(len(kind))
				}
			}
			name := fmt.Sprintf("recall of the best %g %%", 100*at.Share)
			if i == 0 {
				name = "recall of the list"
			}
			holds(name, at.Recall, hit)
		}
		// The expected precision leans on the form of the calibration: it is told here,
		// and held to in TestExpectedPrecision.
		for _, p := range res.Curve {
			if p.Size < len(everyone)/5 || p.Size > len(everyone)/5+30 {
				continue
			}
			is := 0.0
			for _, s := range kind {
				if s >= float64(p.Score) {
					is += 1 / float64(p.Size)
				}
			}
			if p.Low <= is && is <= p.High {
				band++
			}
			break
		}
	}
	// 93 to 97 of 100, give or take two and a half standard errors of so many lists.
	slack := 0.02 + 2.5*math.Sqrt(0.95*0.05/float64(lists))
	t.Logf("expected precision of the best fifth: band held in %d of %d", band, lists)
	for _, what := range slices.Sorted(maps.Keys(held)) {
		share := float64(held[what]) / float64(lists)
		if math.Abs(share-0.95) > slack {
			t.Errorf("intervals of the %s hold the truth in %.1f %% of lists", what, 100*share)
		}
		t.Logf("%s: held in %d of %d (%.1f %%)", what, held[what], lists, 100*share)
	}
}
