package audience

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

type liftGolden struct {
	Tables []struct {
		Treated, Control     [2]int
		Difference, Relative []float64
		Rates                [2][2]float64
	}
	Values []struct {
		Treated, Control, Difference []float64
		Freedom                      float64
	}
	Sigmoids []struct {
		Evidence  []float64
		Converted []bool
		A, B      float64
	}
}

func readLift(t *testing.T) (g liftGolden) {
	t.Helper()
	raw, err := os.ReadFile("testdata/lift.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Tables) < 5 || len(g.Values) < 3 || len(g.Sigmoids) < 3 {
		t.Fatalf("%d tables, %d values, %d sigmoids", len(g.Tables), len(g.Values), len(g.Sigmoids))
	}
	return g
}

func wantInterval(t *testing.T, what string, got Interval, want []float64, tolerance float64) {
	t.Helper()
	for i, x := range []float64{got.Value, got.Low, got.High} {
		if !(math.Abs(x-want[i]) <= tolerance*(1+math.Abs(want[i]))) {
			t.Errorf("%s: %+v, want %v", what, got, want)
			return
		}
	}
}

func groupOf(k, n int) (g Group) {
	for i := range n {
		g.Add(i < k, 0)
	}
	return g
}

func TestLiftAgainstStatsmodels(t *testing.T) {
	g := readLift(t)
	for _, c := range g.Tables {
		l := MeasureLift(groupOf(c.Treated[0], c.Treated[1]), groupOf(c.Control[0], c.Control[1]), false)
		wantInterval(t, "difference", l.Difference, c.Difference, 1e-9)
		wantInterval(t, "treated", l.Treated.Rate, []float64{float64(c.Treated[0]) / float64(c.Treated[1]), c.Rates[0][0], c.Rates[0][1]}, 1e-9)
		wantInterval(t, "control", l.Control.Rate, []float64{float64(c.Control[0]) / float64(c.Control[1]), c.Rates[1][0], c.Rates[1][1]}, 1e-9)
		if (l.Relative != nil) != (c.Relative != nil) {
			t.Errorf("relative %v, want %v", l.Relative, c.Relative)
		} else if c.Relative != nil {
			wantInterval(t, "relative", *l.Relative, c.Relative, 1e-9)
		}
		want := LiftNone
		if c.Difference[1] > 0 {
			want = LiftMore
		}
		if l.Verdict != want || l.Value != nil {
			t.Errorf("%+v: %s", c, l.Words)
		}
		if want == LiftNone && !strings.Contains(l.Words, "four times of five") {
			t.Errorf("no word of what would be shown: %s", l.Words)
		}
	}
	for _, c := range g.Values {
		var a, b Group
		for _, x := range c.Treated {
			a.Add(x > 0, x)
		}
		for _, x := range c.Control {
			b.Add(x > 0, x)
		}
		l := MeasureLift(a, b, true)
		wantInterval(t, "value", l.Value.Difference, c.Difference, 1e-7)
		if !(math.Abs(l.Value.Freedom-c.Freedom) < 1e-6*c.Freedom) {
			t.Errorf("%v degrees of freedom, want %v", l.Value.Freedom, c.Freedom)
		}
	}
}

func TestObserveAgainstScikitLearn(t *testing.T) {
	for _, c := range readLift(t).Sigmoids {
		o, err := Observe(c.Evidence, c.Converted)
		if err != nil {
			t.Fatal(err)
		}
		if !(math.Abs(o.A-c.A) < 2e-3 && math.Abs(o.B-c.B) < 2e-3) || o.Used != len(c.Evidence) {
			t.Errorf("%+v, want a %v and b %v", o, c.A, c.B)
		}
	}
	// Outcomes that fall with the score say nothing of who is better.
	var e []float64
	var y []bool
	for i := range 200 {
		e, y = append(e, float64(i)), append(y, i < 50)
	}
	if o, err := Observe(e, y); err != nil || o.B != 0 || math.Abs(o.Probability(7)-51.0/202) > 1e-12 {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := Observe(e[:20], y[:20]); err == nil || !strings.Contains(err.Error(), "at least 10 of both") {
		t.Errorf("twenty conversions and nobody else: %v", err)
	}
}

// Of many experiments, 95 in a hundred have the planted lift within the interval,
// and where there is none, about five claim one.
func TestLiftCovers(t *testing.T) {
	const runs = 4000
	for _, c := range []struct {
		nt, nc     int
		pt, pc     float64
		shownAbove float64 // power
		shownBelow float64
	}{
		{2000, 300, 0.10, 0.05, 0.7, 1},
		{3000, 3000, 0.02, 0.02, 0, 0.065},
		{900, 100, 0.2, 0.2, 0, 0.065},
		{500, 60, 0.01, 0.01, 0, 0.065},
	} {
		rng := rand.New(rand.NewPCG(11, uint64(c.nt)))
		draw := func(n int, p float64) (g Group) {
			for range n {
				v := 0.0
				hit := rng.Float64() < p
				if hit {
					v = math.Exp(rng.NormFloat64()*0.5 + 3)
				}
				g.Add(hit, v)
			}
			return g
		}
		mean := math.Exp(3 + 0.125)
		covered, valued, shown := 0, 0, 0
		for range runs {
			l := MeasureLift(draw(c.nt, c.pt), draw(c.nc, c.pc), true)
			if l.Difference.Low <= c.pt-c.pc && c.pt-c.pc <= l.Difference.High {
				covered++
			}
			if d := mean * (c.pt - c.pc); l.Value.Difference.Low <= d && d <= l.Value.Difference.High {
				valued++
			}
			if l.Verdict != LiftNone {
				shown++
			}
		}
		cover, value, power := float64(covered)/runs, float64(valued)/runs, float64(shown)/runs
		t.Logf("%+v: rates covered %.3f, values %.3f, shown %.3f", c, cover, value, power)
		if cover < 0.935 || cover > 0.985 || power < c.shownAbove || power > c.shownBelow {
			t.Errorf("%+v: covered %.3f, shown %.3f", c, cover, power)
		}
		// Welch needs some dozens of conversions in each group.
		if float64(c.nc)*c.pc >= 20 && (value < 0.925 || value > 0.97) {
			t.Errorf("%+v: values covered %.3f", c, value)
		}
	}
}

func TestControlGroup(t *testing.T) {
	const n = 20_000
	list := make([]string, n)
	for i := range list {
		list[i] = idOf(i)
	}
	h, err := HoldBack(&Control{Count: 1234}, "spring", 5, list)
	if err != nil || h.Members != 1234 {
		t.Fatalf("%+v, %v", h, err)
	}
	// The rule is the id's: another list, in another order, changes nobody's side.
	half, err := HoldBack(&Control{Share: h.Below, Seed: &h.Seed}, "another", 0, list[:n/2])
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range list {
		if h.Holds(id) != half.Holds(id) {
			t.Fatalf("%s changes sides", id)
		}
	}
	share, err := HoldBack(&Control{Share: 0.1}, "summer", 5, list)
	if err != nil || math.Abs(float64(share.Members)-0.1*n) > 4*math.Sqrt(n*0.09) {
		t.Errorf("%+v, %v", share, err)
	}
	both := 0
	for _, id := range list {
		if h.Holds(id) && share.Holds(id) {
			both++
		}
	}
	if want := float64(h.Members) * 0.1; math.Abs(float64(both)-want) > 4*math.Sqrt(want) {
		t.Errorf("%d in both groups, want about %.0f: the draws depend on each other", both, want)
	}
	raw, err := json.Marshal(h)
	var back Holdback
	if err != nil || json.Unmarshal(raw, &back) != nil || back.Below != h.Below || back.Seed != h.Seed {
		t.Errorf("%+v became %+v in JSON", h, back)
	}
	several := Holdback{Several: []Holdback{*h, *share}}
	if want := 1 - (1-h.Below)*0.9; math.Abs(several.Share()-want) > 1e-12 {
		t.Errorf("share of both %v, want %v", several.Share(), want)
	}
	if _, err := HoldBack(&Control{Count: n}, "all", 0, list); err == nil {
		t.Error("everybody is held back")
	}
}
