package audience

import (
	"math"
	"math/rand/v2"
	"slices"
)

// likeness is the space in which seeds are compared with each other: unit vectors of
// the text's deviations, or, where there is no text, of the columns' places among
// everyone. It looks at nothing that heads may not look at.
type likeness struct {
	f      *features
	dim    int
	offset []int       // of each column's part, without text
	place  [][]float64 // of numbers, by bin
}

func newLikeness(f *features) *likeness {
	l := &likeness{f: f, dim: f.dim}
	if f.dim > 0 {
		return l
	}
	for c := range f.bins {
		l.offset = append(l.offset, l.dim)
		if f.bins[c].Kind.Numeric() {
			l.place = append(l.place, places(f.share[c]))
			l.dim++
		} else {
			l.place = append(l.place, nil)
			l.dim += f.bins[c].Count()
		}
	}
	return l
}

// by names what is compared.
func (l *likeness) by() string {
	if l.f.dim > 0 {
		return "text"
	}
	return "columns"
}

// unit is a row's place; x is its deviation, nil without text. Nil for a row that
// says nothing: without text, or average in every column.
func (l *likeness) unit(row uint32, x []float32) []float32 {
	v := make([]float64, l.dim)
	if l.f.dim > 0 {
		cold := true
		for j, a := range x {
			v[j] = float64(a)
			cold = cold && a == -l.f.center[j]
		}
		if cold {
			return nil
		}
	}
	for c, at := range l.offset {
		codes := codesOf(l.f.codes[c], row)
		if l.place[c] != nil {
			v[at] = l.place[c][codes[0]]
			continue
		}
		for j, p := range l.f.share[c] {
			v[at+j] = -p
		}
		for _, code := range codes {
			v[at+int(code)] += 1 / math.Sqrt(float64(len(codes)))
		}
	}
	if out := normalised(v); !blank(out) {
		return out
	}
	return nil
}

// units are the places of rows of a material that say something, and which they are.
func (l *likeness) units(m *material, which []int) (units [][]float32, at []int) {
	for _, i := range which {
		if u := l.unit(m.rows[i], m.vec(i)); u != nil {
			units, at = append(units, u), append(at, i)
		}
	}
	return units, at
}

// concentration is the length of the mean of unit vectors: 1 when all are alike.
func concentration(units [][]float32) float64 {
	if len(units) == 0 {
		return 0
	}
	sum := make([]float64, len(units[0]))
	for _, u := range units {
		for j, x := range u {
			sum[j] += float64(x)
		}
	}
	n := 0.0
	for _, x := range sum {
		n += x * x
	}
	return math.Sqrt(n) / float64(len(units))
}

const (
	references = 3 // sets of points without clusters that seeds are compared with
	// sets of random customers likewise
	randomCustomers = 2
	leastExcess     = 0.02 // of the seeds' silhouette over theirs
	restarts        = 2    // of k-means, the best counts
	mostToSplit     = 200  // units that the number of clusters is found by
	leastCluster    = 5    // units, fewer are outliers
)

// centers are one centre, or those of clusters where units fall apart into some: where
// their silhouette is above that of points without clusters that spread the same way
// (as in SigClust: Liu and others, JASA 2008), and above that of as many random
// customers, others, whose own clusters are nobody's interest. A cluster of fewer than 5 units or a
// fiftieth of them is no interest.
func (l *likeness) centers(units, others [][]float32, seed uint64) [][]float32 {
	sum := make([]float64, l.dim)
	for _, u := range units {
		for j, x := range u {
			sum[j] += float64(x)
		}
	}
	center := normalised(sum)
	best, top := [][]float32{center}, leastExcess
	some := units[:min(len(units), mostToSplit)]
	if len(some) < 4*leastCluster {
		return best
	}
	var without [][][]float32
	for k := 2; k <= min(maxClusters, len(some)/5); k++ {
		centers, _ := bestMeans(some, k, seed)
		counts := make([]int, k)
		for _, u := range some {
			at, _ := closest(u, centers)
			counts[at]++
		}
		if slices.Min(counts) < max(leastCluster, len(some)/50) {
			continue
		}
		score := silhouette(some, centers)
		if score <= top { // a silhouette is not below 0, so neither is the references'
			continue
		}
		if without == nil {
			for r := range uint64(references) {
				without = append(without, spreadLike(some, seed+r))
			}
			for n := len(some); len(others) >= n && len(without) < references+randomCustomers; others = others[n:] {
				without = append(without, others[:n])
			}
		}
		mean, highest := 0.0, math.Inf(-1)
		for _, points := range without {
			c, _ := bestMeans(points, k, seed)
			s := silhouette(points, c)
			mean, highest = mean+s/float64(len(without)), math.Max(highest, s)
		}
		if score-highest > leastExcess && score-mean > top {
			best, top = centers, score-mean
		}
	}
	return best
}

// spreadLike are as many unit vectors as given with their mean and covariance and
// without clusters: normal, by random sums of the given ones' deviations.
func spreadLike(units [][]float32, seed uint64) [][]float32 {
	n, dim := len(units), len(units[0])
	mean := make([]float64, dim)
	for _, u := range units {
		for j, x := range u {
			mean[j] += float64(x) / float64(n)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0x73707265))
	out := make([][]float32, n)
	for i := range out {
		v := slices.Clone(mean)
		for _, u := range units {
			g := rng.NormFloat64() / math.Sqrt(float64(n))
			for j, x := range u {
				v[j] += g * (float64(x) - mean[j])
			}
		}
		out[i] = normalised(v)
	}
	return out
}

// bestMeans is the best of several runs of spherical k-means: one from the farthest-first
// traversal, the others from centres drawn by their distance to those before
// (k-means++). The second result is the sum of 1 - cosine, which it makes small.
func bestMeans(units [][]float32, k int, seed uint64) (centers [][]float32, loss float64) {
	lossOf := func(centers [][]float32) (sum float64) {
		for _, u := range units {
			_, cos := closest(u, centers)
			sum += 1 - cos
		}
		return sum
	}
	centers = kmeans(units, k)
	loss = lossOf(centers)
	rng := rand.New(rand.NewPCG(seed, uint64(k)))
	for range restarts - 1 {
		begin := [][]float32{units[rng.IntN(len(units))]}
		far := slices.Repeat([]float64{math.Inf(1)}, len(units))
		for len(begin) < k {
			total := 0.0
			for i, u := range units {
				far[i] = math.Min(far[i], math.Max(0, 1-dot(u, begin[len(begin)-1])))
				total += far[i]
			}
			at, r := 0, rng.Float64()*total
			for ; at < len(units)-1 && r >= far[at]; at++ {
				r -= far[at]
			}
			begin = append(begin, units[at])
		}
		if c := moved(units, begin); lossOf(c) < loss {
			centers, loss = c, lossOf(c)
		}
	}
	return centers, loss
}

// closest is the nearest centre and the cosine to it.
func closest(u []float32, centers [][]float32) (at int, cos float64) {
	cos = math.Inf(-1)
	for c := range centers {
		if d := dot(u, centers[c]); d > cos {
			at, cos = c, d
		}
	}
	return at, cos
}

// median of values, which it sorts.
func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}
