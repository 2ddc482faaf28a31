package audience

import (
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// Of eight interests one is that of half the seeds, and its customers lie less close
// together than the others do. It comes first all the same, though customers of the other
// interests are nearer to theirs.
func TestClustersAreWeighedNotTheTightestFirst(t *testing.T) {
	const n, groups = 800, 8
	rng := rand.New(rand.NewPCG(5, 5))
	rows := make([]index.Row, n)
	for i := range rows {
		v := make([]float32, groups)
		spread := 0.02
		if i%groups == 0 {
			spread = 0.3
		}
		for j := range v {
			v[j] = float32(rng.NormFloat64() * spread)
		}
		v[i%groups]++
		rows[i] = index.Row{ID: idOf(i), Vector: v, Values: map[string]index.Value{}}
	}
	w := worldOf(t, index.Spec{Name: "groups", Dim: groups}, rows)
	var seeds []SeedRef
	for i := range n {
		if i%groups == 0 && i/groups < 42 || i%groups != 0 && i/groups < 6 {
			seeds = append(seeds, SeedRef{ID: idOf(i)})
		}
	}
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: seeds}, Size: count(58), Method: Clusters})
	if len(res.Model.Set.Heads) < 2 {
		t.Fatalf("%d heads: the seeds are of several interests", len(res.Model.Set.Heads))
	}
	of := 0
	for _, m := range res.Members {
		i := -1
		for j := range n {
			if idOf(j) == m.ID {
				i = j
			}
		}
		if i%groups == 0 {
			of++
		}
	}
	t.Logf("%d of %d members are of the interest of half the seeds", of, len(res.Members))
	if of < 50 {
		t.Errorf("%d of %d members are of the interest of half the seeds, want 50 and more", of, len(res.Members))
	}
}
