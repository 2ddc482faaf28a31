package audience

import (
	"fmt"
	"math"

	"github.com/kindred-search/kindred/index"
)

// Observed is what outcomes say about scores: the probability of the outcome is
// 1 / (1 + exp(-(A + B e))), e being the score's Evidence, or where that form does not
// fit, what Curve says of e. Evidence means the same in each version of an audience, so
// that later lists are read by it too.
type Observed struct {
	A float64 `json:"a"`
	B float64 `json:"b"`
	// Curve is the isotonic fit, where there are outcomes enough and it is ahead on those
	// held out; else there is none.
	Curve     []Knot   `json:"curve,omitempty"`
	HeldOut   *HeldOut `json:"held_out,omitempty"` // both forms compared; nil: too few outcomes
	Used      int      `json:"used"`               // outcomes
	Converted int      `json:"converted"`          // of them
	Low       float64  `json:"low"`                // least evidence among them
	High      float64  `json:"high"`               // most
	Words     string   `json:"words"`
}

// minObserved is how many of either outcome it takes to fit a line.
const minObserved = 10

// Evidence is the logarithm of a score's odds as held-out seeds have them; without
// seeds, the score itself.
func (c Calibration) Evidence(score float32) float64 {
	if c.Norm <= 0 {
		return float64(score)
	}
	return c.A + c.B*float64(score) - math.Log(c.Norm)
}

// Observe fits the probability of an outcome on evidence, on outcomes of customers who
// were treated alike: by Platt's form with his targets or, where both outcomes are many
// and those held out are the likelier by it, by a curve that only never falls.
func Observe(evidence []float64, converted []bool) (*Observed, error) {
	out := &Observed{Used: len(evidence), Low: math.Inf(1), High: math.Inf(-1)}
	for i, e := range evidence {
		if converted[i] {
			out.Converted++
		}
		out.Low, out.High = math.Min(out.Low, e), math.Max(out.High, e)
	}
	if not := out.Used - out.Converted; out.Converted < minObserved || not < minObserved {
		return nil, fmt.Errorf("outcomes: %d converted and %d did not: at least %d of both are needed to calibrate: %w", out.Converted, not, minObserved, index.ErrInvalid)
	}
	line := logisticOf(evidence, converted, out.Converted)
	out.A, out.B = line.A, line.B
	out.Words = fmt.Sprintf("Calibrated on %d outcomes, %d of them conversions.", out.Used, out.Converted)
	if min(out.Converted, out.Used-out.Converted) >= leastIsotonic {
		held, ahead := better(evidence, converted)
		out.HeldOut = &held
		if ahead {
			out.Curve = within(isotonic(evidence, converted), out.Used)
			out.Words += " A curve that only never falls fits outcomes held out better than a logistic one, and is used."
			return out, nil
		}
	}
	if out.B == 0 {
		out.Words += " The outcomes do not rise with the score: every member has the same probability."
	}
	return out, nil
}

// logisticOf is Platt's fit; where the outcomes do not rise with x, their rate.
func logisticOf(x []float64, hit []bool, hits int) *Observed {
	a, b := plattFit(x, hit, hits)
	if b <= 0 {
		rate := (float64(hits) + 1) / (float64(len(x)) + 2)
		a, b = math.Log(rate/(1-rate)), 0
	}
	return &Observed{A: a, B: b}
}

// plattFit is Platt's fit (Advances in Large Margin Classifiers, 1999; Lin, Lin
// and Weng, Machine Learning 68, 2007): maximum likelihood of a + b x with targets
// of (k+1)/(k+2) and 1/(n-k+2), by Newton's method with halved steps.
func plattFit(x []float64, hit []bool, hits int) (a, b float64) {
	yes, no := (float64(hits)+1)/(float64(hits)+2), 1/(float64(len(x)-hits)+2)
	target := func(i int) float64 {
		if hit[i] {
			return yes
		}
		return no
	}
	mean, sd := moments(x) // of unit size, Newton's steps are of unit size
	if sd == 0 {
		sd = 1
	}
	loss := func(a, b float64) float64 {
		sum := 0.0
		for i := range x {
			f := a + b*(x[i]-mean)/sd
			sum += math.Max(f, 0) + math.Log1p(math.Exp(-math.Abs(f))) - target(i)*f
		}
		return sum
	}
	rate := float64(hits) / float64(len(x))
	a = math.Log(rate / (1 - rate))
	at := loss(a, b)
	for range 100 {
		g0, g1, h00, h01, h11 := 0.0, 0.0, 1e-12, 0.0, 1e-12
		for i := range x {
			z := (x[i] - mean) / sd
			p := 1 / (1 + math.Exp(-(a + b*z)))
			d, v := p-target(i), p*(1-p)
			g0, g1, h00, h01, h11 = g0+d, g1+d*z, h00+v, h01+v*z, h11+v*z*z
		}
		det := h00*h11 - h01*h01
		if math.Abs(g0)+math.Abs(g1) < 1e-9 || det <= 0 {
			break
		}
		da, db := -(h11*g0-h01*g1)/det, -(h00*g1-h01*g0)/det
		step, better := 1.0, false
		for range 40 {
			if next := loss(a+step*da, b+step*db); next < at {
				a, b, at, better = a+step*da, b+step*db, next, true
				break
			}
			step /= 2
		}
		if !better {
			break
		}
	}
	return a - b*mean/sd, b / sd
}

// Probability estimates the outcome at an evidence.
func (o *Observed) Probability(evidence float64) float64 {
	if len(o.Curve) > 0 {
		return alongKnots(o.Curve, evidence)
	}
	return 1 / (1 + math.Exp(-(o.A + o.B*evidence)))
}

// Recalibrate writes what outcomes say into a finished audience: its calibration
// and the expected precision and recall of its curve. Between the curve's points
// the probability is taken to change evenly.
func (r *Result) Recalibrate(o *Observed) {
	r.Quality.Platt.Observed = o
	total, sums := 0.0, make([]float64, len(r.Curve))
	size, before := 0, 0.0
	for i, p := range r.Curve {
		now := r.Quality.Platt.Probability(p.Score)
		if i == 0 {
			before = now
		}
		total += float64(p.Size-size) * (before + now) / 2
		sums[i], size, before = total, p.Size, now
	}
	for i := range r.Curve {
		if p := &r.Curve[i]; p.Size > 0 && total > 0 {
			p.Precision, p.Recall = sums[i]/float64(p.Size), sums[i]/total
		}
	}
	withoutBand(r.Curve)
}

// withoutBand takes the band off a curve: it is of probabilities that seeds have, and
// says nothing of those that outcomes have.
func withoutBand(curve []Point) {
	for i := range curve {
		curve[i].Low, curve[i].High = curve[i].Precision, curve[i].Precision
	}
}
