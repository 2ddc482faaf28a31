package selection

import "math"

// Histogram counts scores by the upper 13 bits of their images: sign, exponent
// and four bits of fraction, so a bucket is at most 1/16 wide, relatively. It
// is a value to keep with an audience; memory is 32 KB.
type Histogram struct {
	counts *[upperLen]uint32
	total  int
}

// NewHistogram counts the unmasked scores, on all cores.
func NewHistogram(scores []float32) *Histogram {
	h := &Histogram{counts: count(scores, split(len(scores), 0))}
	for _, c := range h.counts {
		h.total += int(c)
	}
	return h
}

// Total is the number of unmasked scores.
func (h *Histogram) Total() int { return h.total }

// AtLeast bounds the number of scores >= s: the count lies in [lo, hi], and
// lo == hi when s is the lower edge of a bucket.
func (h *Histogram) AtLeast(s float32) (lo, hi int) {
	u := Image(s)
	for b := upperLen - 1; b > int(u>>upperShft); b-- {
		lo += int(h.counts[b])
	}
	hi = lo + int(h.counts[u>>upperShft])
	if u&(1<<upperShft-1) == 0 {
		lo = hi
	}
	return lo, hi
}

// CountAbove returns exactly how many unmasked scores are >= s.
func CountAbove(scores []float32, s float32) int {
	floor := max(Image(s), masked+1)
	parts := split(len(scores), 0)
	counts := make([]int, len(parts))
	each(parts, func(i int, p part) {
		n := 0
		for _, x := range scores[p.lo:p.hi] {
			if Image(x) >= floor {
				n++
			}
		}
		counts[i] = n
	})
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// Point is one point of a reach curve: Size customers score at least Score.
type Point struct {
	Size  int     `json:"size"`
	Score float32 `json:"score"`
}

// Curve returns the reach curve at up to points sizes spread evenly on a
// logarithmic scale from 1 to all, ascending in size. The score of a size is
// exact: that of its last member.
func Curve(scores []float32, points int) []Point {
	n := CountAbove(scores, float32(math.Inf(-1)))
	if n == 0 || points <= 0 {
		return nil
	}
	rows := Select(scores, n, Options{})
	out := make([]Point, 0, points)
	for i := range points {
		size := n
		if points > 1 {
			size = int(math.Round(math.Exp(math.Log(float64(n)) * float64(i) / float64(points-1))))
		}
		size = max(1, min(size, n))
		if len(out) > 0 && out[len(out)-1].Size >= size {
			continue
		}
		out = append(out, Point{size, scores[rows[size-1]]})
	}
	return out
}
