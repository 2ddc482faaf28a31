package audience

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Planted stand-ins for a sensitive column are found in columns, in sets and in the
// text; what says nothing of the groups is not named.
func TestPlantedProxiesAreFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 2))
	schema := profile.Schema{Fields: []profile.Field{
		{Name: "income", Type: profile.TypeNumber}, {Name: "postcode", Type: profile.TypeCategory}, {Name: "hobby", Type: profile.TypeCategory},
		{Name: "bought", Type: profile.TypeSet}, {Name: "noise", Type: profile.TypeSet}, {Name: "group", Type: profile.TypeCategory, Sensitive: true},
	}}
	for _, leak := range []bool{true, false} {
		var rows []index.Row
		var kind []string
		for i := range 4000 {
			group, postcode, side := "a", "north", 0.0
			if rng.IntN(3) == 0 {
				group = "b"
				if leak {
					postcode, side = "south", 1
				}
			}
			if !leak && rng.IntN(2) == 0 {
				postcode = "south"
			}
			v := make([]float32, 16)
			for j := range v {
				v[j] = float32(rng.NormFloat64())
			}
			v[5] += float32(1.2 * side)
			bought := []string{"bread"}
			if leak && group == "b" && rng.IntN(2) == 0 {
				bought = append(bought, "skirt")
			}
			income := rng.NormFloat64()
			if income > 1 {
				kind = append(kind, idOf(i))
			}
			rows = append(rows, index.Row{ID: idOf(i), Vector: v, Values: map[string]index.Value{
				"income": {Kind: index.Number, Num: income}, "postcode": {Kind: index.Category, Str: postcode},
				"hobby":  {Kind: index.Category, Str: []string{"chess", "boxing"}[rng.IntN(2)]},
				"bought": {Kind: index.Set, Set: bought}, "noise": {Kind: index.Set, Set: []string{[]string{"x", "y"}[rng.IntN(2)]}},
				"group": {Kind: index.Category, Str: group},
			}})
		}
		w := worldOf(t, index.Spec{Name: "w", Dim: 16, Columns: schema.Columns()}, rows)
		w.pop.Schema = schema
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(kind[:100])}, Size: count(300), Method: Centroid})
		proxies := res.Fairness[0].Proxies
		named := func(column string) *Proxy {
			i := slices.IndexFunc(proxies, func(p Proxy) bool { return p.Column == column })
			if i < 0 {
				return nil
			}
			return &proxies[i]
		}
		if !leak {
			if len(proxies) != 0 {
				t.Errorf("nothing was planted: %+v", proxies)
			}
			continue
		}
		postcode, bought, text := named("postcode"), named("bought"), named("text")
		if postcode == nil || postcode.Strength < 0.99 || bought == nil || bought.Value != "skirt" || text == nil || named("hobby") != nil || named("noise") != nil {
			t.Fatalf("proxies %+v", proxies)
		}
		// Two normal distributions 1.2 apart: AUC is the normal probability of 1.2 over the
		// root of two, 0.80, less what the unit length of vectors takes.
		if want := 0.5 * math.Erfc(-1.2/2); math.Abs(text.AUC.Value-want) > 0.05 || text.AUC.Low > want || math.Abs(text.Strength-(2*text.AUC.Value-1)) > 1e-12 {
			t.Errorf("text tells the group with AUC %+v, want about %.3f", text.AUC, want)
		}
	}
}

// The interval of DeLong holds the truth in 93 to 97 of 100 draws.
func TestDeLongCovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	want, held := 0.5*math.Erfc(-0.5), 0
	const draws = 2000
	for range draws {
		in, out := make([]float64, 60), make([]float64, 200)
		for i := range in {
			in[i] = rng.NormFloat64() + 1
		}
		for i := range out {
			out[i] = rng.NormFloat64()
		}
		if i := delong(in, out); i.Low <= want && want <= i.High {
			held++
		}
	}
	if share := float64(held) / draws; share < 0.93 || share > 0.97 {
		t.Errorf("holds the truth in %.1f %%", 100*share)
	}
}

func TestMapShowsWhereSeedsAre(t *testing.T) {
	w := newWorld(t, worldOptions{n: 3000, dim: 10, columns: true})
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:120])}, Size: count(200), Method: Centroid})
	m := res.Map
	if len(m.Population) != mapPopulation || len(m.Audience) != 200 || len(m.Seeds) != 120 || len(m.Axes) != 2 {
		t.Fatalf("%d, %d and %d points on %d axes", len(m.Population), len(m.Audience), len(m.Seeds), len(m.Axes))
	}
	mean := func(points [][2]float32, d int) (s float64) {
		for _, p := range points {
			s += float64(p[d]) / float64(len(points))
		}
		return s
	}
	for d, axis := range m.Axes {
		if axis.Share <= 0 || axis.Share >= 1 || d > 0 && axis.Share > m.Axes[0].Share {
			t.Errorf("axes %+v", m.Axes)
		}
		if mean(m.Seeds, d) < mean(m.Population, d)-0.01 {
			t.Errorf("axis %d is turned away from the seeds", d)
		}
	}
	if mean(m.Seeds, 0)+mean(m.Seeds, 1) < 0.1 || mean(m.Audience, 0)+mean(m.Audience, 1) < 0.1 {
		t.Errorf("seeds and audience do not stand apart: %v %v", mean(m.Seeds, 0), mean(m.Seeds, 1))
	}
	same := mustBuild(t, newWorld(t, worldOptions{n: 3000, dim: 10, columns: true, reverse: true}), Request{Seeds: Seeds{IDs: refs(w.kind[:120])}, Size: count(200), Method: Centroid})
	if !slices.Equal(same.Map.Seeds, m.Seeds) || !slices.Equal(same.Map.Population, m.Population) {
		t.Error("another order of insertion draws another map")
	}
}

// The axes are eigenvectors: what the covariance makes of them is a multiple, the
// multiples are the largest that any direction has.
func TestPrincipalAxes(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 8))
	const n, width = 400, 9
	x := make([]float64, n*width)
	for i := range n {
		for j := range width {
			x[i*width+j] = rng.NormFloat64() * math.Pow(0.6, float64(j))
		}
		x[i*width+3] += 2 * x[i*width]
	}
	total := 0.0
	for _, v := range x {
		total += v * v
	}
	variance := func(v []float64) (s float64) {
		for i := range n {
			y := 0.0
			for j := range width {
				y += x[i*width+j] * v[j]
			}
			s += y * y
		}
		return s
	}
	axes, shares := principal(x, width, total)
	for d, v := range axes {
		next := make([]float64, width)
		for i := range n {
			y := 0.0
			for j := range width {
				y += x[i*width+j] * v[j]
			}
			for j := range width {
				next[j] += y * x[i*width+j]
			}
		}
		for j := range width {
			if math.Abs(next[j]-shares[d]*total*v[j]) > 1e-3*total {
				t.Errorf("axis %d is no eigenvector: %v against %v", d, next[j], shares[d]*total*v[j])
			}
		}
		if math.Abs(variance(v)/total-shares[d]) > 1e-6 {
			t.Errorf("axis %d has share %v, said %v", d, variance(v)/total, shares[d])
		}
	}
	for range 3000 {
		v, norm := make([]float64, width), 0.0
		for j := range v {
			v[j] = rng.NormFloat64()
			norm += v[j] * v[j]
		}
		for j := range v {
			v[j] /= math.Sqrt(norm)
		}
		if variance(v) > shares[0]*total*(1+1e-9) {
			t.Fatal("another direction has more variance than the first axis")
		}
	}
	if axes, _ := principal(make([]float64, 90), 9, 0); axes != nil {
		t.Error("axes of nothing")
	}
}
