package audience

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/kindred-search/kindred/index"
)

// even selects as many members as rows, best first, so that every group's
// selection rate is at least MinRatio of the highest, to within a customer of each
// group. Within a group the best scores are taken, so what is to be found is how
// many of each group: with the highest rate at t, the rates that one threshold on
// the score would give are held between MinRatio t and t, and of all t the one
// with the highest sum of probabilities is kept.
func (b *build) even(scores []float32, rows []uint32) ([]uint32, *Cost, error) {
	f := b.req.Fairness
	d, err := b.divide(f.Column)
	if err != nil {
		return nil, nil, err
	}
	k := len(rows)
	if k == 0 || len(d.groups) < 2 {
		return rows, &Cost{MinRatio: f.MinRatio}, nil
	}
	better := func(x, y uint32) int {
		return cmp.Or(cmp.Compare(scores[y], scores[x]), cmp.Compare(b.pop.Snap.ID(x), b.pop.Snap.ID(y)))
	}
	byGroup := make([][]uint32, len(d.groups)) // eligible, best first
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		row := it.Next()
		byGroup[d.group(row)] = append(byGroup[d.group(row)], row)
	}
	gain := make([][]float64, len(byGroup)) // probability of a group's best n, summed
	for g, list := range byGroup {
		slices.SortFunc(list, better)
		gain[g] = make([]float64, len(list)+1)
		for i, row := range list {
			gain[g][i+1] = gain[g][i] + b.res.Quality.Platt.Probability(scores[row])
		}
	}
	var best []int
	bestGain := math.Inf(-1)
	lowest := float64(k) / float64(b.r.eligible.GetCardinality())
	// A step finer than one customer of the largest group finds nothing new.
	const steps = 400
	for i := range steps + 1 {
		t := lowest + (1-lowest)*float64(i)/steps*float64(i)/steps // finer where lists are small
		take, ok := quotas(scores, byGroup, k, t, f.MinRatio)
		if !ok {
			continue
		}
		sum := 0.0
		for g, n := range take {
			sum += gain[g][n]
		}
		if sum > bestGain {
			best, bestGain = take, sum
		}
	}
	if best == nil {
		return nil, nil, fmt.Errorf("fairness: no list of %d members gives every group of %s a rate of %g of the highest: groups are too small: lower min_ratio or choose another size: %w", k, f.Column, f.MinRatio, index.ErrInvalid)
	}
	var out []uint32
	for g, n := range best {
		out = append(out, byGroup[g][:n]...)
	}
	slices.SortFunc(out, better)
	without := 0.0
	was := map[uint32]bool{}
	for _, row := range rows {
		was[row] = true
		without += b.res.Quality.Platt.Probability(scores[row])
	}
	changed := 0
	for _, row := range out {
		if !was[row] {
			changed++
		}
	}
	return out, &Cost{MinRatio: f.MinRatio, Precision: bestGain / float64(k), Without: without / float64(k), Changed: changed}, nil
}

// quotas finds how many of each group make k in all, none above rate t and none
// below r t, both to within one customer; false when there is no such list.
func quotas(scores []float32, byGroup [][]uint32, k int, t, r float64) ([]int, bool) {
	least, most := make([]int, len(byGroup)), make([]int, len(byGroup))
	sumLeast, sumMost := 0, 0
	for g, list := range byGroup {
		n := float64(len(list))
		most[g] = min(int(math.Ceil(t*n-1e-9)), len(list))
		least[g] = int(math.Floor(r*t*n + 1e-9))
		sumLeast += least[g]
		sumMost += most[g]
	}
	if k < sumLeast || k > sumMost {
		return nil, false
	}
	// Above its least, everyone competes by score. The threshold is the largest
	// score that enough of them reach, found bit by bit.
	take := slices.Clone(least)
	free := k - sumLeast
	if free == 0 {
		return take, true
	}
	above := func(list []uint32, key uint32) int { // how many of a list, best first, have this key or more
		return sort.Search(len(list), func(i int) bool { return scoreKey(scores[list[i]]) < key })
	}
	cut := uint32(0)
	for bit := uint32(1 << 31); bit > 0; bit >>= 1 {
		reach := 0
		for g, list := range byGroup {
			reach += above(list[least[g]:most[g]], cut|bit)
		}
		if reach >= free {
			cut |= bit
		}
	}
	for g, list := range byGroup {
		n := 0
		if cut < math.MaxUint32 {
			n = above(list[least[g]:most[g]], cut+1)
		}
		take[g] += n
		free -= n
	}
	for g, list := range byGroup { // ties at the threshold, group by group
		for take[g] < most[g] && free > 0 && scoreKey(scores[list[take[g]]]) == cut {
			take[g]++
			free--
		}
	}
	return take, free == 0
}

// scoreKey is an integer that orders as the scores do.
func scoreKey(s float32) uint32 {
	bits := math.Float32bits(s)
	if bits>>31 == 1 {
		return ^bits
	}
	return bits | 1<<31
}
