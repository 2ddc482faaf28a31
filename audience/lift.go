package audience

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// The verdicts of a Lift.
const (
	LiftMore  = "more"
	LiftLess  = "less"
	LiftNone  = "no difference shown"
	LiftUnfit = "not measured"
)

// Group is what became of one group of customers.
type Group struct {
	Customers int
	Converted int
	Sum       float64 // of values
	Squares   float64 // of values
}

// Add takes one customer in.
func (g *Group) Add(converted bool, value float64) {
	g.Customers++
	if converted {
		g.Converted++
	}
	g.Sum += value
	g.Squares += value * value
}

func (g *Group) moments() (mean, variance float64) {
	n := float64(g.Customers)
	mean = g.Sum / n
	if g.Customers > 1 {
		variance = math.Max(0, (g.Squares-n*mean*mean)/(n-1))
	}
	return mean, variance
}

// Arm is one side of an experiment.
type Arm struct {
	Customers int      `json:"customers"`
	Converted int      `json:"converted"`
	Rate      Interval `json:"rate"`           // Wilson
	Mean      *float64 `json:"mean,omitempty"` // value a customer
}

// ValueLift is the difference of mean values, Welch's interval.
type ValueLift struct {
	Difference Interval `json:"difference"` // a customer
	Total      Interval `json:"total"`      // brought about among the treated
	Freedom    float64  `json:"degrees_of_freedom"`
}

// Lift is what a campaign brought about: the treated against a control group that
// chance held back. All intervals are of 95 %.
type Lift struct {
	Verdict     string     `json:"verdict" enum:"more,less,no difference shown,not measured"`
	Words       string     `json:"words"`
	Treated     Arm        `json:"treated"`
	Control     Arm        `json:"control"`
	Difference  Interval   `json:"difference"`         // of rates; Newcombe's hybrid score interval
	Relative    *Interval  `json:"relative,omitempty"` // of rates, treated over control less 1; absent when nobody of the control converted
	Incremental Interval   `json:"incremental"`        // conversions brought about among the treated
	Value       *ValueLift `json:"value,omitempty"`
	// Detectable is the difference of rates that groups of these sizes would show
	// four times of five.
	Detectable float64  `json:"detectable"`
	Notes      []string `json:"notes"`
}

// z975 and z80 are quantiles of the normal distribution.
var (
	z975 = distuv.UnitNormal.Quantile(0.975)
	z80  = distuv.UnitNormal.Quantile(0.8)
)

// rate is a share with Wilson's score interval (JASA 1927).
func rate(k, n int) Interval {
	p, m, z2 := float64(k)/float64(n), float64(n), z975*z975
	center := (p + z2/(2*m)) / (1 + z2/m)
	half := z975 / (1 + z2/m) * math.Sqrt(p*(1-p)/m+z2/(4*m*m))
	return Interval{Value: p, Low: math.Max(0, center-half), High: math.Min(1, center+half)}
}

// MeasureLift compares two groups. withValue says whether values were recorded.
//
// The interval of the difference is Newcombe's (Statistics in Medicine 17, 1998,
// method 10), that of the relative lift comes from the logarithm of the ratio
// with half a customer added to each count.
func MeasureLift(treated, control Group, withValue bool) Lift {
	out := Lift{Verdict: LiftUnfit, Notes: []string{}}
	out.Treated.Customers, out.Treated.Converted = treated.Customers, treated.Converted
	out.Control.Customers, out.Control.Converted = control.Customers, control.Converted
	if treated.Customers == 0 || control.Customers == 0 {
		out.Words = fmt.Sprintf("Not measured: outcomes of %d treated and %d held back; both groups are needed.", treated.Customers, control.Customers)
		return out
	}
	a, b := rate(treated.Converted, treated.Customers), rate(control.Converted, control.Customers)
	out.Treated.Rate, out.Control.Rate = a, b
	d := a.Value - b.Value
	out.Difference = Interval{d, d - math.Hypot(a.Value-a.Low, b.High-b.Value), d + math.Hypot(a.High-a.Value, b.Value-b.Low)}
	nt, nc := float64(treated.Customers), float64(control.Customers)
	out.Incremental = Interval{d * nt, out.Difference.Low * nt, out.Difference.High * nt}
	if control.Converted > 0 {
		x, y := float64(treated.Converted)+0.5, float64(control.Converted)+0.5
		log := math.Log(x / (nt + 0.5) / (y / (nc + 0.5)))
		half := z975 * math.Sqrt(math.Max(0, 1/x-1/(nt+0.5)+1/y-1/(nc+0.5)))
		out.Relative = &Interval{a.Value/b.Value - 1, math.Exp(log-half) - 1, math.Exp(log+half) - 1}
	}
	p := (float64(treated.Converted+control.Converted) + 0.5) / (nt + nc + 1)
	out.Detectable = (z975 + z80) * math.Sqrt(p*(1-p)*(1/nt+1/nc))
	if withValue && treated.Customers > 1 && control.Customers > 1 {
		out.Value = welch(&treated, &control)
		mt, mc := treated.Sum/nt, control.Sum/nc
		out.Treated.Mean, out.Control.Mean = &mt, &mc
	}
	out.judge()
	return out
}

// welch is the difference of means with unequal variances.
func welch(treated, control *Group) *ValueLift {
	mt, vt := treated.moments()
	mc, vc := control.moments()
	nt, nc := float64(treated.Customers), float64(control.Customers)
	st, sc := vt/nt, vc/nc
	out := &ValueLift{Difference: Interval{mt - mc, mt - mc, mt - mc}}
	if se := math.Sqrt(st + sc); se > 0 {
		out.Freedom = (st + sc) * (st + sc) / (st*st/(nt-1) + sc*sc/(nc-1))
		half := se * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: out.Freedom}.Quantile(0.975)
		out.Difference.Low, out.Difference.High = mt-mc-half, mt-mc+half
	}
	out.Total = Interval{out.Difference.Value * nt, out.Difference.Low * nt, out.Difference.High * nt}
	return out
}

// judge says what the interval allows to say.
func (l *Lift) judge() {
	rates := fmt.Sprintf("%.2f %% of %d treated and %.2f %% of %d held back converted", 100*l.Treated.Rate.Value, l.Treated.Customers, 100*l.Control.Rate.Value, l.Control.Customers)
	between := fmt.Sprintf("the difference is %+.2f points (95 %% between %+.2f and %+.2f)", 100*l.Difference.Value, 100*l.Difference.Low, 100*l.Difference.High)
	switch {
	case l.Difference.Low > 0:
		l.Verdict = LiftMore
		l.Words = fmt.Sprintf("More: %s; %s, about %.0f conversions (%.0f to %.0f) that would not have been.", rates, between, l.Incremental.Value, l.Incremental.Low, l.Incremental.High)
	case l.Difference.High < 0:
		l.Verdict = LiftLess
		l.Words = fmt.Sprintf("Less: %s; %s.", rates, between)
	default:
		l.Verdict = LiftNone
		l.Words = fmt.Sprintf("No difference shown: %s; %s. Groups of these sizes show a difference of %.2f points four times of five.", rates, between, 100*l.Detectable)
	}
	if few := min(l.Treated.Converted, l.Control.Converted); few < 5 {
		l.Notes = append(l.Notes, fmt.Sprintf("one group has %d conversions only: expect wide intervals", few))
	}
}

// CheckSplit warns when the groups' sizes are not what the draw makes: outcomes
// of one of them are then likely to be missing, and the comparison is biased.
func (l *Lift) CheckSplit(share float64) {
	n := float64(l.Treated.Customers + l.Control.Customers)
	if n == 0 || share <= 0 || share >= 1 {
		return
	}
	z := (float64(l.Control.Customers) - n*share) / math.Sqrt(n*share*(1-share))
	if math.Abs(z) > 3.89 { // once in 10,000
		l.Notes = append(l.Notes, fmt.Sprintf("%.1f %% of the outcomes are of the control group, %.1f %% were drawn: outcomes of one group seem to be missing, which biases the comparison", 100*float64(l.Control.Customers)/n, 100*share))
	}
}
