package audience

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// refitted is how many calibrations on seeds drawn again make a curve's band.
const refitted = 200

// reach are the scores of all who can be members, best first, with sums of their
// probabilities: what a list of any size holds.
type reach struct {
	sorted []float32
	sum    []float64 // of the best n's probabilities
}

func newReach(allowed []float32, c Calibration) *reach {
	r := &reach{sorted: make([]float32, 0, len(allowed))}
	for _, s := range allowed {
		if !math.IsInf(float64(s), -1) {
			r.sorted = append(r.sorted, s)
		}
	}
	slices.Sort(r.sorted)
	slices.Reverse(r.sorted)
	r.sum = make([]float64, len(r.sorted)+1)
	for i, s := range r.sorted { // in this order: the sum must not depend on row numbers
		r.sum[i+1] = r.sum[i] + c.Probability(s)
	}
	return r
}

// at is the point of a size of 1 to everyone.
func (r *reach) at(size int) Point {
	p := Point{Size: size, Score: r.sorted[size-1]}
	if total := r.sum[len(r.sorted)]; total > 0 {
		p.Precision, p.Recall = r.sum[size]/float64(size), r.sum[size]/total
	}
	return p
}

// largest is the largest size whose expected precision is enough, 0 if even the
// best customer's is not: the mean of the best n falls as n grows.
func (r *reach) largest(precision float64) int {
	best := 0
	for n := 1; n < len(r.sum); n++ {
		if r.sum[n]/float64(n) >= precision {
			best = n
		}
	}
	return best
}

// sizes of a curve: every one up to 20, then at equal steps both of the logarithm
// and of the size, about 400 in all.
func curveSizes(n int) []int {
	var out []int
	for i := range min(n, 20) {
		out = append(out, i+1)
	}
	const steps = 200
	for i := range steps {
		out = append(out,
			int(math.Round(float64(n)*float64(i+1)/steps)),
			int(math.Round(math.Exp(math.Log(float64(n))*float64(i+1)/steps))))
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > 0 && out[0] == 0 {
		out = out[1:]
	}
	return out
}

// band gives the points' precision 95 % intervals: of what the list will turn out to
// hold, with other seeds and by the luck of so few members. Each refit's precision is
// summed over groups of like scores.
func (r *reach) band(points []Point, refits []Calibration, seeds int) {
	if len(refits) == 0 || len(points) == 0 {
		return
	}
	drawn := make([][]float64, len(points))
	for _, c := range refits {
		sum, at := 0.0, 0
		for i, p := range points {
			// Between two points the scores differ little: a few stand for all.
			const few = 8
			if n := p.Size - at; n <= few {
				for _, s := range r.sorted[at:p.Size] {
					sum += c.Probability(s)
				}
			} else {
				for k := range few {
					sum += c.Probability(r.sorted[at+(2*k+1)*n/(2*few)]) * float64(n) / few
				}
			}
			at = p.Size
			drawn[i] = append(drawn[i], sum/float64(p.Size))
		}
	}
	for i := range points {
		points[i].Low, points[i].High = luck(bootstrapped(points[i].Precision, drawn[i], seeds), points[i].Size)
	}
}

// luck adds to the interval of a probability what the share among n draws of it
// varies by. All, or none, is within it where they come in more than one of 40 cases.
func luck(of Interval, n int) (low, high float64) {
	p := of.Value
	sampling := 1.96 * 1.96 * p * (1 - p) / float64(n)
	low = math.Max(0, p-math.Sqrt((p-math.Min(of.Low, p))*(p-math.Min(of.Low, p))+sampling))
	high = math.Min(1, p+math.Sqrt((math.Max(of.High, p)-p)*(math.Max(of.High, p)-p)+sampling))
	if math.Pow(math.Max(of.High, p), float64(n)) > 0.025 {
		high = 1
	}
	if math.Pow(1-math.Min(of.Low, p), float64(n)) > 0.025 {
		low = 0
	}
	return low, high
}

// byPrecision is the largest size whose expected precision is enough.
func (b *build) byPrecision(allowed []float32, least float64) (int, error) {
	r := newReach(allowed, b.res.Quality.Platt)
	if k := r.largest(least); k > 0 {
		return k, nil
	}
	n := len(r.sorted)
	told := ""
	for _, size := range []int{1, 100, 1000, 10_000} {
		if size <= n {
			told += fmt.Sprintf(", %.3f of the best %d", r.sum[size]/float64(size), size)
		}
	}
	return 0, fmt.Errorf("size.min_precision %g cannot be reached: the expected precision is%s: ask for less, or for a count: %w", least, told[1:], index.ErrInvalid)
}

// Reach tells what lists of some sizes would hold, exactly, of the customers as they
// are now: score of the last member, expected precision and recall. The band is read
// off the curve of the result, between its points in proportion to the logarithm of
// the size. Sizes are from 1 to those who can be members.
func Reach(ctx context.Context, pop Population, req Request, res *Result, sizes []int) ([]Point, error) {
	r, err := resolve(ctx, pop, &req)
	if err != nil {
		return nil, err
	}
	n := int(r.eligible.GetCardinality())
	for i, size := range sizes {
		if size < 1 || size > n {
			return nil, fmt.Errorf("sizes[%d]: %d: want 1 to %d, the customers who can be members now: %w", i, size, n, index.ErrInvalid)
		}
	}
	scores, err := pop.Snap.Scan(ctx, index.ScanRequest{Bins: res.Model.Bins, Sets: []index.HeadSet{res.Model.Set}, Mask: r.eligible})
	if err != nil {
		return nil, err
	}
	all := newReach(scores[0], res.Quality.Platt)
	out := make([]Point, len(sizes))
	for i, size := range sizes {
		out[i] = all.at(size)
		out[i].Low, out[i].High = bandAt(res.Curve, out[i])
	}
	return out, nil
}

// bandAt reads the band of a size off a curve.
func bandAt(curve []Point, p Point) (low, high float64) {
	i, _ := slices.BinarySearchFunc(curve, p.Size, func(x Point, size int) int { return x.Size - size })
	if len(curve) == 0 {
		return p.Precision, p.Precision
	}
	a, b := curve[max(0, i-1)], curve[min(i, len(curve)-1)]
	share := 0.0
	if b.Size > a.Size {
		share = min(1, max(0, math.Log(float64(p.Size)/float64(a.Size))/math.Log(float64(b.Size)/float64(a.Size))))
	}
	mid := func(x, y float64) float64 { return x + share*(y-x) }
	return math.Min(p.Precision, mid(a.Low, b.Low)), math.Max(p.Precision, mid(a.High, b.High))
}
