package audience

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// biased is a world in which income decides who is of the kind, group "b" earns
// less, and the postcode gives the group away.
func biased(t *testing.T, n int) *world {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 4))
	schema := profile.Schema{Fields: []profile.Field{
		{Name: "income", Type: profile.TypeNumber}, {Name: "postcode", Type: profile.TypeCategory},
		{Name: "hobby", Type: profile.TypeCategory}, {Name: "group", Type: profile.TypeCategory, Sensitive: true},
	}}
	truth := map[string]bool{}
	var kind []string
	var rows []index.Row
	for i := range n {
		group, postcode, income := "a", "north", rng.NormFloat64()
		if rng.IntN(3) == 0 {
			group, postcode, income = "b", "south", income-0.8
		}
		if rng.IntN(10) == 0 {
			postcode = "middle"
		}
		id := idOf(i)
		if income+0.3*rng.NormFloat64() > 1 {
			truth[id] = true
			kind = append(kind, id)
		}
		rows = append(rows, index.Row{ID: id, Values: map[string]index.Value{
			"income": {Kind: index.Number, Num: income}, "postcode": {Kind: index.Category, Str: postcode},
			"hobby": {Kind: index.Category, Str: []string{"chess", "boxing"}[rng.IntN(2)]}, "group": {Kind: index.Category, Str: group},
		}})
	}
	w := worldOf(t, index.Spec{Name: "w", Columns: schema.Columns()}, rows)
	w.pop.Schema, w.truth, w.kind = schema, truth, kind
	return w
}

func TestDisparityIsReported(t *testing.T) {
	w := biased(t, 4000)
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:150])}, Size: count(400)})
	if len(res.Fairness) != 1 || res.Fairness[0].Column != "group" || len(res.Fairness[0].Groups) != 2 {
		t.Fatalf("fairness %+v", res.Fairness)
	}
	d := res.Fairness[0]
	data, err := w.pop.Snap.Column("group")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range d.Groups {
		members := 0
		for _, m := range res.Members {
			row, _ := w.pop.Snap.Find(m.ID)
			if data.Dict[data.Codes[row]] == g.Label {
				members++
			}
		}
		if g.Members != members || g.Rate.Value != float64(members)/float64(g.Eligible) {
			t.Errorf("%s: %d members of %d at rate %v, counted %d", g.Label, g.Members, g.Eligible, g.Rate.Value, members)
		}
	}
	a, b := d.Groups[0], d.Groups[1]
	if a.Label != "a" || a.Ratio.Value != 1 || a.FourFifths || !b.FourFifths || b.Ratio.Value > 0.6 {
		t.Errorf("groups %+v", d.Groups)
	}
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "below four fifths") {
		t.Errorf("no warning in %q", res.Warnings)
	}
	if len(d.Proxies) == 0 || d.Proxies[0].Column != "postcode" || slices.ContainsFunc(d.Proxies, func(p Proxy) bool { return p.Column == "hobby" }) {
		t.Errorf("proxies %+v", d.Proxies)
	}
}

func TestEvenSelectionHoldsItsBound(t *testing.T) {
	w := biased(t, 4000)
	req := Request{Seeds: Seeds{IDs: refs(w.kind[:150])}, Size: count(400)}
	plain := mustBuild(t, w, req)
	last := 0.0
	for _, least := range []float64{0.3, 0.6, 0.8, 1} {
		req.Fairness = &Fairness{Column: "group", MinRatio: least}
		res := mustBuild(t, w, req)
		d := res.Fairness[0]
		if len(res.Members) != 400 || d.Cost == nil {
			t.Fatalf("%d members, %+v", len(res.Members), d)
		}
		low, high := math.Inf(1), 0.0
		for _, g := range d.Groups {
			low, high = math.Min(low, g.Rate.Value), math.Max(high, g.Rate.Value)
		}
		// A customer more or less is what rounding may cost.
		if low/high < least-0.01 {
			t.Errorf("bound %v: rates %v and %v", least, low, high)
		}
		if loss := d.Cost.Without - d.Cost.Precision; loss < last-1e-9 {
			t.Errorf("bound %v costs %v, a weaker one cost %v", least, loss, last)
		} else {
			last = loss
		}
		for i := 1; i < len(res.Members); i++ {
			if res.Members[i].Score > res.Members[i-1].Score {
				t.Fatalf("member %d is out of order", i)
			}
		}
		was := ids(plain)
		changed := 0
		for _, id := range ids(res) {
			if !slices.Contains(was, id) {
				changed++
			}
		}
		if changed != d.Cost.Changed {
			t.Errorf("%d members changed, said %d", changed, d.Cost.Changed)
		}
	}
	if last <= 0 {
		t.Error("evenness is free in a biased world")
	}
}

// quotas against all ways to make up a list of two groups.
func TestQuotasAgainstAllWays(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for trial := range 300 {
		scores := make([]float32, 24)
		for i := range scores {
			scores[i] = float32(rng.IntN(9)) - 4
		}
		byGroup := make([][]uint32, 2)
		for i := range scores {
			g := rng.IntN(2)
			byGroup[g] = append(byGroup[g], uint32(i))
		}
		if len(byGroup[0]) == 0 || len(byGroup[1]) == 0 {
			continue
		}
		for _, list := range byGroup {
			slices.SortFunc(list, func(x, y uint32) int { return int(scores[y] - scores[x]) })
		}
		k, top, r := 1+rng.IntN(20), rng.Float64(), rng.Float64()
		take, ok := quotas(scores, byGroup, k, top, r)
		total := func(a, b int) (sum float32) {
			for _, row := range byGroup[0][:a] {
				sum += scores[row]
			}
			for _, row := range byGroup[1][:b] {
				sum += scores[row]
			}
			return sum
		}
		best, any := float32(math.Inf(-1)), false
		for a := range len(byGroup[0]) + 1 {
			b := k - a
			if b < 0 || b > len(byGroup[1]) {
				continue
			}
			inside := func(n, of int) bool {
				return float64(n) < top*float64(of)+1-1e-9 && float64(n) > r*top*float64(of)-1+1e-9
			}
			if inside(a, len(byGroup[0])) && inside(b, len(byGroup[1])) {
				any = true
				best = max(best, total(a, b))
			}
		}
		if ok != any {
			t.Fatalf("trial %d: found %v, there is one: %v", trial, ok, any)
		}
		if ok && (take[0]+take[1] != k || total(take[0], take[1]) != best) {
			t.Fatalf("trial %d: took %v with sum %v, best is %v", trial, take, total(take[0], take[1]), best)
		}
	}
}

func TestFairnessRefusals(t *testing.T) {
	w := biased(t, 1000)
	for name, f := range map[string]Fairness{
		"unknown column": {Column: "nope", MinRatio: 0.8},
		"no column":      {MinRatio: 0.8},
		"no ratio":       {Column: "group"},
		"above one":      {Column: "group", MinRatio: 1.5},
		"NaN":            {Column: "group", MinRatio: math.NaN()},
	} {
		req := Request{Seeds: Seeds{IDs: refs(w.kind[:40])}, Size: count(50), Fairness: &f, Method: Centroid}
		if _, err := Build(t.Context(), w.pop, req, nil); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCramer(t *testing.T) {
	// scipy.stats.contingency.association has no correction; these are Bergsma's
	// formula worked by hand for a table that says all and one that says nothing.
	all := cramer([]float64{50, 0, 0, 50}, []float64{50, 50}, []float64{50, 50}, 100)
	none := cramer([]float64{25, 25, 25, 25}, []float64{50, 50}, []float64{50, 50}, 100)
	if math.Abs(all-1) > 1e-9 || none != 0 {
		t.Errorf("V is %v and %v, want 1 and 0", all, none)
	}
	// 100 customers, chi squared 16, phi squared less 1/99, over 1 less 1/99.
	some := cramer([]float64{35, 15, 15, 35}, []float64{50, 50}, []float64{50, 50}, 100)
	if want := math.Sqrt((0.16 - 1.0/99) / (1 - 1.0/99)); math.Abs(some-want) > 1e-9 {
		t.Errorf("V is %v, want %v", some, want)
	}
}

// A column that is asked for by name and may not be used is said to be left out.
func TestColumnsAskedForAndLeftOutAreSaid(t *testing.T) {
	w := biased(t, 1500)
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: count(150), Method: Centroid, Features: Features{Columns: []string{"income", "group"}}})
	if said := strings.Join(res.Warnings, "\n"); !strings.Contains(said, `"group", which is left out: sensitive, and features.allow_sensitive does not name it`) || strings.Contains(said, `"income"`) {
		t.Errorf("warnings %q", res.Warnings)
	}
	res = mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:60])}, Size: count(150), Method: Centroid})
	if said := strings.Join(res.Warnings, "\n"); strings.Contains(said, "left out") {
		t.Errorf("nothing was asked for by name: %q", said)
	}
}
