package selection

import "math"

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
// exact: that of its last member. Nothing is sorted: three passes over the
// scores, whatever the number of points, of which there are at most 2048.
func Curve(scores []float32, points int) []Point {
	parts := split(len(scores), 0)
	h := count(scores, parts)
	n := 0
	for _, c := range h {
		n += int(c)
	}
	if n == 0 || points <= 0 {
		return nil
	}
	points = min(points, maxPoints)
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
		out = append(out, Point{Size: size})
	}
	rank(scores, parts, h, out)
	return out
}

const maxPoints = 2048 // each may need 8 KB of counters a core

// The bits of an image below the histogram's, in two digits.
const (
	midBits = 8
	lowBits = upperShft - midBits
)

// rank fills in the score of each size. Sizes ascend and none is above the
// histogram's total. The histogram h says in which bucket the score of a size
// lies; a pass counts the next digit inside those buckets alone, and a last one
// the final digit.
func rank(scores []float32, parts []part, h *[upperLen]uint32, pts []Point) {
	prefix, left := make([]uint32, len(pts)), make([]int, len(pts))
	b, before := upperLen-1, 0
	for i, p := range pts {
		for p.Size > before+int(h[b]) {
			before += int(h[b])
			b--
		}
		prefix[i], left[i] = uint32(b), p.Size-before
	}
	upper := number(prefix, upperLen)
	mids := countEach(scores, parts, (upper.n+1)<<midBits, func(scores []float32, sum []uint32) {
		of := (*[upperLen]int16)(upper.of)
		for _, s := range scores {
			u := Image(s)
			sum[int(of[u>>upperShft])<<midBits|int(u>>lowBits&(1<<midBits-1))]++
		}
	})
	for i := range pts { // from here on a prefix is a place in mids
		k := uint32(upper.of[prefix[i]])
		prefix[i] = k<<midBits | descend(mids[k<<midBits:(k+1)<<midBits], &left[i])
	}
	mid := number(prefix, len(mids))
	lows := countEach(scores, parts, mid.n<<lowBits, func(scores []float32, sum []uint32) {
		of := (*[upperLen]int16)(upper.of)
		for _, s := range scores {
			u := Image(s)
			m := mid.of[int(of[u>>upperShft])<<midBits|int(u>>lowBits&(1<<midBits-1))]
			if int(m) < mid.n { // hardly ever
				sum[int(m)<<lowBits|int(u&(1<<lowBits-1))]++
			}
		}
	})
	buckets := make([]uint32, upper.n)
	for b, k := range upper.of {
		if int(k) < upper.n {
			buckets[k] = uint32(b)
		}
	}
	for i := range pts {
		m := uint32(mid.of[prefix[i]])
		low := descend(lows[m<<lowBits:(m+1)<<lowBits], &left[i])
		bucket, digit := buckets[prefix[i]>>midBits], prefix[i]&(1<<midBits-1)
		pts[i].Score = Float(bucket<<upperShft | digit<<lowBits | low)
	}
}

// descend returns the digit of the left-th best among counts, and takes what is
// better off left.
func descend(counts []uint32, left *int) uint32 {
	d := len(counts) - 1
	for ; *left > int(counts[d]); d-- {
		*left -= int(counts[d])
	}
	return uint32(d)
}

// numbers gives the distinct values of a list consecutive numbers from 0, and
// every other value below a bound the number n: rows there are counted, and not
// looked at, which is faster than to ask. Masked rows are among them: their
// buckets hold nothing else, so no size falls into one.
type numbers struct {
	of []int16
	n  int
}

func number(values []uint32, bound int) numbers {
	out := numbers{of: make([]int16, bound)}
	for i := range out.of {
		out.of[i] = -1
	}
	for _, v := range values {
		if out.of[v] < 0 {
			out.of[v] = int16(out.n)
			out.n++
		}
	}
	for i, k := range out.of {
		if k < 0 {
			out.of[i] = int16(out.n)
		}
	}
	return out
}

// countEach has every part counted into n counters of its own, and adds them up.
func countEach(scores []float32, parts []part, n int, add func(scores []float32, sum []uint32)) []uint32 {
	sums := make([][]uint32, len(parts))
	each(parts, func(i int, p part) {
		sums[i] = make([]uint32, n)
		add(scores[p.lo:p.hi], sums[i])
	})
	for _, s := range sums[1:] {
		for j, c := range s {
			sums[0][j] += c
		}
	}
	return sums[0]
}
