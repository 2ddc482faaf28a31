package audience

import (
	"context"
	"fmt"
	"math"

	"github.com/kindred-search/kindred/index"
)

// base is one way to fit heads. Its heads are on deviations from the mean.
type base struct {
	name  string
	use   use
	plain bool // what few seeds of text alone shrink to, see shrinkage
	fit   func(ctx context.Context, m *material, s subset) (index.HeadSet, error)
}

// description is the base that is the seeds' text, and leastDescription its
// least weight: who describes and gives ids wants to see both.
const (
	description      = "description"
	leastDescription = 0.25
)

// negativeWeight is how much of the negatives' centre is taken from the seeds'.
const negativeWeight = 0.5

// basesOf lists what a method compares, by what features there are, and the
// description of the seeds where there is one.
func basesOf(method string, m *material, w *whitener, described []float32) ([]base, error) {
	f := m.f
	text, columns := f.dim > 0, len(f.bins) > 0
	var out []base
	one := func(name string, u use, fit func(m *material, s subset) index.Head) {
		out = append(out, base{name: name, use: u, fit: func(_ context.Context, m *material, s subset) (index.HeadSet, error) {
			return index.HeadSet{Heads: []index.Head{fit(m, s)}}, nil
		}})
	}
	logit := func(name string, u use, p penalty, lines bool) {
		out = append(out, base{name: name, use: u, fit: func(ctx context.Context, m *material, s subset) (index.HeadSet, error) {
			h, err := newLogistic(m, s, u, p, lines).fit(ctx)
			return index.HeadSet{Heads: []index.Head{h}}, err
		}})
	}
	if method == Auto || method == Centroid {
		if text {
			one("centroid of text", use{text: true}, func(m *material, s subset) index.Head {
				return index.Head{Vector: fitCentroid(m, s, negativeWeight)}
			})
			out[len(out)-1].plain = true
			if w != nil {
				one("whitened centroid of text", use{text: true}, func(m *material, s subset) index.Head {
					return index.Head{Vector: normalised(w.solve(meanLess(m, s)))}
				})
			}
		}
		if columns {
			one("evidence of columns", use{columns: true}, func(m *material, s subset) index.Head {
				return index.Head{Tables: fitEvidence(m, s)}
			})
			one("centroid of columns", use{columns: true}, func(m *material, s subset) index.Head {
				return index.Head{Tables: fitMeans(m, s)}
			})
		}
	}
	if method == Auto || method == Classifier {
		if text {
			logit("classifier on text, penalty 10", use{text: true}, penalty{text: 10}, false)
			logit("classifier on text, penalty 100", use{text: true}, penalty{text: 100}, false)
			logit("classifier on text, penalty 1000", use{text: true}, penalty{text: 1000}, false)
		}
		if columns {
			logit("curves of columns, penalty 4", use{columns: true}, penalty{columns: 4}, false)
			logit("curves of columns, penalty 20", use{columns: true}, penalty{columns: 20}, false)
			logit("lines of columns", use{columns: true}, penalty{columns: 10}, true)
		}
		if text && columns {
			logit("classifier on both", use{true, true}, penalty{text: 300, columns: 2}, false)
		}
	}
	if columns && (method == Auto || method == Trees || method == Classifier) {
		boosts := []struct {
			name string
			boost
		}{
			{"boosted trees of depth 2", boost{trees: 100, depth: 2, rate: 0.1, lambda: 10, share: 0.5}},
			{"boosted trees of depth 4", boost{trees: 160, depth: 4, rate: 0.1, lambda: 10, share: 0.5}},
		}
		if method == Classifier {
			// A tree of depth 2 is a function of two columns: beside the additive bases this
			// one brings their interactions, of the pairs that tell most, and weighs what
			// hold-out gives it.
			boosts = boosts[:1]
			boosts[0].name = "pairs of columns"
		}
		for _, b := range boosts {
			out = append(out, base{name: b.name, use: use{columns: true}, fit: func(ctx context.Context, m *material, s subset) (index.HeadSet, error) {
				h, err := b.fit(ctx, m, s)
				return index.HeadSet{Heads: []index.Head{h}}, err
			}})
		}
	}
	if text && (method == Auto || method == Clusters) {
		out = append(out, base{name: "clusters of text", use: use{true, columns}, fit: fitClusters})
	}
	if method == Neighbours {
		out = append(out, base{name: "nearest seeds", use: use{text, columns}, fit: fitNeighbours})
	}
	if method == Description && (described == nil || !text) {
		return nil, fmt.Errorf("method %q needs a description in seeds.text: give one, or choose another method: %w", method, index.ErrInvalid)
	}
	if len(out) == 0 && method != Description {
		return nil, fmt.Errorf("method %q needs %s, and there is none: choose centroid, classifier or auto: %w", method, map[string]string{Trees: "columns", Clusters: "text"}[method], index.ErrInvalid)
	}
	if described != nil && text {
		one(description, use{text: true}, func(*material, subset) index.Head { return index.Head{Vector: described} })
	}
	return out, nil
}

func meanLess(m *material, s subset) []float64 {
	mean := meanOf(m, s.pos)
	if m.negatives > 0 {
		for j, x := range meanOf(m, span(m.seeds, m.seeds+m.negatives)) {
			mean[j] -= negativeWeight * x
		}
	}
	return mean
}

const (
	maxClusters     = 8    // the most interests kept apart
	leastSilhouette = 0.05 // of text, from which on they are
)

// fitClusters is spherical k-means on the seeds' deviations, k by the simplified
// silhouette, a head each and the best counts. Each head gets the same weights
// of evidence from the columns, which are logarithms of odds as well.
func fitClusters(ctx context.Context, m *material, s subset) (index.HeadSet, error) {
	units := make([][]float32, len(s.pos))
	for i, p := range s.pos {
		v := make([]float64, m.f.dim)
		for j, x := range m.vec(p) {
			v[j] = float64(x)
		}
		units[i] = normalised(v)
	}
	best, bestScore := [][]float32{fitCentroid(m, s, negativeWeight)}, leastSilhouette
	for k := 2; k <= min(maxClusters, len(units)/5); k++ {
		if err := ctx.Err(); err != nil {
			return index.HeadSet{}, err
		}
		centers := kmeans(units, k)
		if score := silhouette(units, centers); score > bestScore {
			best, bestScore = centers, score
		}
	}
	var tables [][]float32
	if len(m.f.bins) > 0 {
		tables = fitEvidence(m, s)
	}
	set := index.HeadSet{Reduce: index.Max}
	for _, h := range oddsOf(m, s, units, best) {
		h.Tables = tables
		set.Heads = append(set.Heads, h)
	}
	return set, nil
}

// oddsOf are heads of centres on one scale: how much likelier a customer so near is a
// seed of this cluster than one of everyone, as a logarithm, plus that of the cluster's
// share of the seeds. As bare cosines, the tightest cluster would win whoever else is as
// near to it, and those without text are the tightest of all. A seed is held against the
// centre of the others of its cluster: it drew its own to itself.
func oddsOf(m *material, s subset, units, centers [][]float32) []index.Head {
	sums := make([][]float64, len(centers))
	for c := range sums {
		sums[c] = make([]float64, m.f.dim)
	}
	of := make([]int, len(units))
	for i, u := range units {
		of[i], _ = closest(u, centers)
		for j, x := range u {
			sums[of[i]][j] += float64(x)
		}
	}
	near, weight := make([][]float64, len(centers)), make([][]float64, len(centers))
	held, total := make([]float64, len(centers)), 0.0
	rest := make([]float64, m.f.dim)
	for i, u := range units {
		c, w := of[i], m.weight[s.pos[i]]
		for j, x := range u {
			rest[j] = sums[c][j] - float64(x)
		}
		near[c], weight[c] = append(near[c], dot(normalised(rest), m.vec(s.pos[i]))), append(weight[c], w)
		held[c] += w
		total += w
	}
	heads, far := make([]index.Head, len(centers)), make([]float64, len(s.neg))
	for c, center := range centers {
		for k, i := range s.neg {
			far[k] = dot(center, m.vec(i))
		}
		slope, bias := logOdds(near[c], weight[c], far)
		heads[c] = index.Head{Vector: make([]float32, m.f.dim)}
		for j, x := range center {
			heads[c].Vector[j] = float32(slope) * x
		}
		heads[c].Bias = float32(bias + math.Log((held[c]+0.5)/(total+0.5*float64(len(centers)))))
	}
	return heads
}

// logOdds is a line of the logarithm of how much denser weighted values lie at x than
// others do: a logistic regression in which both sides weigh the same. One value shrinks
// the slope: what lies apart would make it infinite. A slope below 0 is none.
func logOdds(values, weights, others []float64) (slope, bias float64) {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	if total <= 0 || len(others) == 0 {
		return 0, 0
	}
	mean, square := 0.0, 0.0
	for _, x := range others {
		mean += x / float64(len(others))
	}
	for _, x := range others {
		square += (x - mean) * (x - mean) / float64(len(others))
	}
	spread := math.Sqrt(square)
	if spread == 0 {
		return 0, 0
	}
	each := total / float64(len(others))
	var a, b float64
	for range 50 {
		ga, gb, aa, ab, bb := -a, 0.0, 1.0, 0.0, 1e-9
		at := func(x, w, y float64) {
			z := (x - mean) / spread
			p := 1 / (1 + math.Exp(-(a*z + b)))
			ga += w * (y - p) * z
			gb += w * (y - p)
			h := w * p * (1 - p)
			aa += h * z * z
			ab += h * z
			bb += h
		}
		for i, x := range values {
			at(x, weights[i], 1)
		}
		for _, x := range others {
			at(x, each, 0)
		}
		det := aa*bb - ab*ab
		da, db := (bb*ga-ab*gb)/det, (aa*gb-ab*ga)/det
		// A step of Newton's from far off may overshoot.
		if far := math.Hypot(da, db); far > 2 {
			da, db = 2*da/far, 2*db/far
		}
		a, b = a+da, b+db
		if math.Hypot(da, db) < 1e-9 {
			break
		}
	}
	if !(a > 0) {
		return 0, 0
	}
	return a / spread, b - a*mean/spread
}

// kmeans starts from the farthest-first traversal, which needs no random
// numbers, and runs until nothing moves.
func kmeans(units [][]float32, k int) [][]float32 {
	centers := [][]float32{units[0]}
	far := make([]float64, len(units))
	for i := range far {
		far[i] = 1 - dot(units[i], centers[0])
	}
	for len(centers) < k {
		pick := 0
		for i := range far {
			if far[i] > far[pick] {
				pick = i
			}
		}
		c := units[pick]
		centers = append(centers, c)
		for i := range far {
			far[i] = math.Min(far[i], 1-dot(units[i], c))
		}
	}
	return moved(units, centers)
}

// moved runs k-means from given centres until nothing moves, which it overwrites.
func moved(units, centers [][]float32) [][]float32 {
	k := len(centers)
	of := make([]int, len(units))
	for range 30 {
		moved := false
		for i, u := range units {
			at := 0
			top := math.Inf(-1)
			for c := range centers {
				if d := dot(u, centers[c]); d > top {
					at, top = c, d
				}
			}
			moved = moved || of[i] != at
			of[i] = at
		}
		sums := make([][]float64, k)
		for c := range sums {
			sums[c] = make([]float64, len(units[0]))
		}
		for i, u := range units {
			for j, x := range u {
				sums[of[i]][j] += float64(x)
			}
		}
		for c := range centers {
			if next := normalised(sums[c]); !blank(next) {
				centers[c] = next
			}
		}
		if !moved {
			break
		}
	}
	return centers
}

// silhouette is the mean of (b - a) / max(a, b), a being the distance to the own
// centre and b to the next.
func silhouette(units, centers [][]float32) float64 {
	sum := 0.0
	for _, u := range units {
		a, b := math.Inf(1), math.Inf(1)
		for _, c := range centers {
			d := 1 - dot(u, c)
			if d < a {
				a, b = d, a
			} else if d < b {
				b = d
			}
		}
		if m := math.Max(a, b); m > 0 {
			sum += (b - a) / m
		}
	}
	return sum / float64(len(units))
}
