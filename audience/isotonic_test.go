package audience

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// The curve is scikit-learn's, everywhere: at ties, in pools, between and beyond them.
func TestIsotonicAgainstScikitLearn(t *testing.T) {
	raw, err := os.ReadFile("testdata/isotonic.json") // by testdata/isotonic.py
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		X, At, P []float64
		Hit      []bool
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		curve := isotonic(c.X, c.Hit)
		for k, x := range c.At {
			if got := alongKnots(curve, x); math.Abs(got-c.P[k]) > 1e-9 {
				t.Errorf("case %d: %v at %v, want %v", i, got, x, c.P[k])
			}
		}
	}
}

// The form follows the outcomes: logistic ones are left logistic, a step is not, and of
// few outcomes nothing freer is learned.
func TestObserveChoosesItsForm(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	drawn := func(n int, p func(float64) float64) *Observed {
		e, y := make([]float64, n), make([]bool, n)
		for i := range e {
			e[i] = 1.5 * rng.NormFloat64()
			y[i] = rng.Float64() < p(e[i])
		}
		o, err := Observe(e, y)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	step := func(x float64) float64 {
		if x > 0.5 {
			return 0.6
		}
		return 0.05
	}
	const lists = 40
	steps, lines := 0, 0
	for range lists {
		o := drawn(3000, step)
		if len(o.Curve) > 0 && o.HeldOut.Isotonic > o.HeldOut.Logistic {
			steps++
			for x := -5.0; x < 5; x += 0.1 {
				if p := o.Probability(x); !(p > 0 && p < 1) || o.Probability(x+0.1) < p {
					t.Fatalf("%v at %v, then %v", p, x, o.Probability(x+0.1))
				}
				// Far from the step the curve has the step's levels.
				if p := o.Probability(x); math.Abs(x-0.5) > 0.3 && math.Abs(x) < 2 && math.Abs(p-step(x)) > 0.15 {
					t.Errorf("%v at %v, want %v", p, x, step(x))
				}
			}
		}
		if o := drawn(3000, func(x float64) float64 { return sigmoid(x - 1) }); len(o.Curve) == 0 && o.HeldOut.Logistic > o.HeldOut.Isotonic {
			lines++
		}
		if o := drawn(150, step); len(o.Curve) > 0 || o.HeldOut != nil {
			t.Errorf("of 150 outcomes a curve was made: %+v", o)
		}
	}
	if steps != lists || lines < lists-4 {
		t.Errorf("of %d lists each, the curve was chosen for %d steps and not for %d logistic ones", lists, steps, lines)
	}
	// What never rises has one probability whatever the form.
	if o := drawn(4000, func(float64) float64 { return 0.3 }); math.Abs(o.Probability(-3)-0.3) > 0.12 || math.Abs(o.Probability(3)-0.3) > 0.12 {
		t.Errorf("%v and %v of an even rate", o.Probability(-3), o.Probability(3))
	}
}
