package audience

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// presence draws scores of everyone and of seeds whose probability is logistic in the
// score, so that the truth is known.
func presence(rng *rand.Rand, a, b float64, everyone, seeds int) (h *heldScores, z []float64, is []bool) {
	h = &heldScores{pos: make([][]float64, 5), neg: make([][]float64, 5), sd: 1}
	for range everyone {
		x := rng.NormFloat64()
		z, is = append(z, x), append(is, rng.Float64() < sigmoid(a+b*x))
	}
	for n := 0; n < seeds; {
		i := rng.IntN(everyone)
		if is[i] {
			h.pos[n%5] = append(h.pos[n%5], z[i])
			n++
		}
	}
	for i, x := range z {
		h.neg[i%5] = append(h.neg[i%5], x)
	}
	return h, z, is
}

// The fit is the best of a fine grid, and finds what was put in.
func TestCalibrationIsTheBestOfAGrid(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	h, z, is := presence(rng, -2, 2.5, 20_000, 2000)
	pos, neg := ones(slices.Concat(h.pos...)), grouped(slices.Concat(h.neg...))
	like := func(r density) float64 {
		l, m, n := certainSeeds*math.Log(r.probability(neg[len(neg)-1].z)), 0.0, 0.0
		for _, w := range neg {
			m, n = m+w.n*r.probability(w.z), n+w.n
		}
		for _, w := range pos {
			l += math.Log(r.probability(w.z) / (m / n))
		}
		return l
	}
	got := h.fit(pos, neg)
	best := like(got)
	for a := -5.0; a <= 1; a += 0.05 {
		for b := 0.5; b <= 5; b += 0.05 {
			if l := like(density{a, b}); l > best+1e-6 {
				t.Fatalf("%v has likelihood %v, the fit %+v has %v", density{a, b}, l, got, best)
			}
		}
	}
	if math.Abs(got.a+2) > 0.4 || math.Abs(got.b-2.5) > 0.4 {
		t.Errorf("put in -2 + 2.5 z, found %+v", got)
	}
	share := 0.0
	for _, x := range is {
		if x {
			share += 1 / float64(len(is))
		}
	}
	r := h.reliability()
	if r.Known || math.Abs(r.Prevalence-share) > 0.05 {
		t.Errorf("prevalence %+v, it is %v", r, share)
	}
	// With the prevalence known everyone's mean is it, and the Brier score of seeds and
	// everyone is the one that the truth gives.
	h.prevalence = share
	known := h.fit(pos, neg)
	mean, brier := 0.0, 0.0
	for i, x := range z {
		p := known.probability(x)
		mean += p / float64(len(z))
		y := 0.0
		if is[i] {
			y = 1
		}
		brier += (p - y) * (p - y) / float64(len(z))
	}
	if math.Abs(mean-share) > 0.002 {
		t.Errorf("mean probability %v, prevalence %v", mean, share)
	}
	r = h.reliability()
	if math.Abs(r.Brier-brier) > 0.01 || r.Brier > r.Climate || r.Error > 0.03 || !r.Known {
		t.Errorf("reliability %+v; Brier of the truth %v", r, brier)
	}
	// The bins are counted again, each against the truth.
	seeds, customers := 0, 0
	for i, b := range r.Bins {
		seeds, customers = seeds+b.Seeds, customers+b.Customers
		var n, hit float64
		for k, x := range z {
			if p := known.probability(x); p >= b.Low && p < b.High {
				n++
				if is[k] {
					hit++
				}
			}
		}
		if math.Abs(hit/n-b.Observed.Value) > 0.08 || b.Observed.Low > b.Observed.Value || b.Observed.High < b.Observed.Value {
			t.Errorf("bin %d %+v: the truth is %v", i, b, hit/n)
		}
		if i > 0 && (b.Low != r.Bins[i-1].High || b.Predicted <= r.Bins[i-1].Predicted) {
			t.Errorf("bin %d does not follow on the one before: %+v", i, r.Bins)
		}
	}
	if seeds != 2000 || customers != 20_000 || len(r.Bins) != mostReliabilityBins {
		t.Errorf("%d seeds and %d customers in %d bins", seeds, customers, len(r.Bins))
	}
}

func TestCalibrationOfNoSignal(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	h := &heldScores{pos: make([][]float64, 5), neg: make([][]float64, 5), sd: 1, prevalence: 0.2}
	for i := range 500 {
		h.pos[i%5] = append(h.pos[i%5], -math.Abs(rng.NormFloat64())) // lower than everyone
	}
	for i := range 5000 {
		h.neg[i%5] = append(h.neg[i%5], rng.NormFloat64())
	}
	c := h.calibrate()
	if low, high := c.Probability(-3), c.Probability(3); math.Abs(low-0.2) > 1e-6 || low != high {
		t.Errorf("seeds that score low: %v and %v, want the prevalence", low, high)
	}
	if (Calibration{}).Probability(1) != 0 {
		t.Error("no calibration gives a probability")
	}
}

// What the curve expects of lists is what they hold, and the band holds it.
func TestExpectedPrecision(t *testing.T) {
	w := newWorld(t, worldOptions{n: 6000, dim: 12, columns: true})
	seeds := w.kind[:150]
	pi := 0.2
	for name, prevalence := range map[string]*float64{"given": &pi, "estimated": nil} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(400), Method: Centroid, Prevalence: prevalence})
		scores, err := w.pop.Snap.Scan(t.Context(), index.ScanRequest{Bins: res.Model.Bins, Sets: []index.HeadSet{res.Model.Set}})
		if err != nil {
			t.Fatal(err)
		}
		last := Point{}
		for _, p := range res.Curve {
			if p.Size <= last.Size || p.Precision > last.Precision && last.Size > 0 || p.Recall < last.Recall || p.Low > p.Precision || p.High < p.Precision {
				t.Fatalf("%s: after %+v comes %+v", name, last, p)
			}
			last = p
			if p.Size < 200 {
				continue
			}
			n, hit := 0.0, 0.0
			for row, s := range scores[0] {
				if id := w.pop.Snap.ID(uint32(row)); s >= p.Score && !slices.Contains(seeds, id) {
					n++
					if w.truth[id] {
						hit++
					}
				}
			}
			if math.Abs(hit/n-p.Precision) > 0.06 {
				t.Errorf("%s: of the best %d %v are of the kind, expected %v (%v to %v)", name, p.Size, hit/n, p.Precision, p.Low, p.High)
			}
		}
		if last.Size != res.Manifest.Eligible || math.Abs(last.Recall-1) > 1e-9 {
			t.Errorf("the curve ends at %+v of %d", last, res.Manifest.Eligible)
		}
		// Any size, exactly.
		sizes := []int{1, 17, 399, 400, 3333, res.Manifest.Eligible}
		points, err := Reach(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(400)}, res, sizes)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range points {
			at := 0
			for row, s := range scores[0] {
				if s >= p.Score && !slices.Contains(seeds, w.pop.Snap.ID(uint32(row))) {
					at++
				}
			}
			if p.Size != sizes[i] || at < p.Size || at > p.Size+3 || p.Low > p.Precision || p.High < p.Precision {
				t.Errorf("size %d: %+v, and %d reach its score", sizes[i], p, at)
			}
		}
		if points[3].Score != res.Threshold {
			t.Errorf("the list of 400 ends at %v, the curve says %v", res.Threshold, points[3].Score)
		}
		if _, err := Reach(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(1)}, res, []int{0}); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("size 0: %v", err)
		}
		// The largest list of a precision holds it, and one more does not.
		least := 0.7
		list := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: Size{MinPrecision: &least}, Method: Centroid, Prevalence: prevalence})
		sum := 0.0
		for _, m := range list.Members {
			sum += float64(m.Probability)
		}
		n := float64(len(list.Members))
		if sum/n < least-1e-6 || (sum+float64(list.Members[len(list.Members)-1].Probability))/(n+1) >= least+1e-3 {
			t.Errorf("%s: %v members of expected precision %v, asked for %v", name, n, sum/n, least)
		}
	}
}

func TestPrecisionOutOfReach(t *testing.T) {
	w := biased(t, 3000)
	least, pi := 0.9999, 0.13
	_, err := Build(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: Size{MinPrecision: &least}, Method: Centroid, Prevalence: &pi}, nil)
	if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "cannot be reached") || !strings.Contains(err.Error(), "of the best 100") {
		t.Errorf("%v", err)
	}
	tiny := 0.001
	_, err = Build(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: count(100), Method: Centroid, Prevalence: &tiny}, nil)
	if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "nobody would be left") {
		t.Errorf("%v", err)
	}
	for _, bad := range []float64{0, 1, -1, math.NaN()} {
		req := Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: count(100), Prevalence: &bad}
		if err := req.Validate(); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("prevalence %v: %v", bad, err)
		}
	}
}
