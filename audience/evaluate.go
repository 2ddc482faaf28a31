package audience

import (
	"cmp"
	"math"
	"slices"
)

// Evaluation is how scores order a known truth.
type Evaluation struct {
	N         int             `json:"n"`
	Positives int             `json:"positives"`
	AUC       float64         `json:"auc"`
	Lift      map[int]float64 `json:"lift"`      // at 1, 5 and 10 %
	Precision map[int]float64 `json:"precision"` // at k
}

// Evaluate measures scores against a truth, row by row; rows whose score is -Inf
// or NaN are left out. AUC counts ties half. Lift at q % is the positives' share
// among the best q % over their share among all; ties across a boundary count by
// their expected number. k gives the sizes of precision at k.
func Evaluate(scores []float32, truth []bool, k ...int) Evaluation {
	type item struct {
		score float32
		is    bool
	}
	var items []item
	e := Evaluation{Lift: map[int]float64{}, Precision: map[int]float64{}}
	for i, s := range scores {
		if math.IsNaN(float64(s)) || math.IsInf(float64(s), -1) {
			continue
		}
		items = append(items, item{s, truth[i]})
		if truth[i] {
			e.Positives++
		}
	}
	e.N = len(items)
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(b.score, a.score) })
	// hits[n] is the expected number of positives among the best n.
	hits := make([]float64, len(items)+1)
	pairs, seen := 0.0, 0.0
	for from := 0; from < len(items); {
		to, pos := from, 0.0
		for to < len(items) && items[to].score == items[from].score {
			if items[to].is {
				pos++
			}
			to++
		}
		size := float64(to - from)
		for i := from; i < to; i++ {
			hits[i+1] = seen + pos*float64(i+1-from)/size
		}
		neg := size - pos
		below := float64(len(items)-to) - (float64(e.Positives) - seen - pos)
		pairs += pos * (below + neg/2)
		seen += pos
		from = to
	}
	negatives := float64(e.N - e.Positives)
	e.AUC = math.NaN()
	if e.Positives > 0 && negatives > 0 {
		e.AUC = pairs / (float64(e.Positives) * negatives)
	}
	for _, q := range []int{1, 5, 10} {
		n := max(1, int(math.Round(float64(q)/100*float64(e.N))))
		if e.N > 0 && e.Positives > 0 {
			e.Lift[q] = hits[min(n, e.N)] / float64(n) / (float64(e.Positives) / float64(e.N))
		}
	}
	for _, n := range k {
		if n >= 1 && n <= e.N {
			e.Precision[n] = hits[n] / float64(n)
		}
	}
	return e
}
