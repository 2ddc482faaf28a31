package audience

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// subject reads a customer of the world as the heads see it.
func (w *world) subject(t *testing.T, id string) *Subject {
	t.Helper()
	got, err := w.engine.Get(t.Context(), []string{id})
	if err != nil || got[0] == nil {
		t.Fatalf("%s: %v, %v", id, got, err)
	}
	s := &Subject{ID: id, Values: got[0].Values}
	if w.pop.Spec.Dim > 0 {
		row, _ := w.pop.Snap.Find(id)
		s.Vector = make([]float32, w.pop.Spec.Dim)
		if err := w.pop.Snap.Vectors([]uint32{row}, s.Vector); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Every change is made on the customer and scored again; and every change of one
// column that could have been proposed is tried: none that crosses is smaller.
func TestCounterfactualsCrossAndAreSmallest(t *testing.T) {
	w := newWorld(t, worldOptions{n: 3000, dim: 8, columns: true})
	one, two, none := 0, 0, 0
	for _, method := range []string{Centroid, Classifier, Trees, Neighbours, Auto} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:100])}, Size: count(300), Method: method})
		members := map[string]bool{}
		for _, m := range res.Members {
			members[m.ID] = true
		}
		var ids []string
		for i := 0; i < 300; i += 12 {
			ids = append(ids, res.Members[i].ID, idOf(7*i+1))
		}
		fixed := func(column string) bool { return column == "region" }
		for _, id := range ids {
			s := w.subject(t, id)
			least := float64(res.Threshold)
			in := float64(res.Model.Value(s.Vector, s.Values)) >= least
			got := res.Model.Counterfactuals(s.Vector, s.Values, Alternatives{Least: least, Fixed: fixed, Max: 100})
			distance, last := math.Inf(1), 0.0
			for i, c := range got {
				changed := maps.Clone(s.Values)
				for _, change := range c.Changes {
					if fixed(change.Column) || change.Column == "gender" {
						t.Fatalf("%s: %s is proposed", id, change.Column)
					}
					apply(t, w, changed, change)
				}
				score := res.Model.Value(s.Vector, changed)
				if score != c.Score || (float64(score) >= least) == in {
					t.Errorf("%s %s: %v leads to %v, said %v, threshold %v, in %v", method, id, c.Changes, score, c.Score, least, in)
				}
				if c.Distance < last {
					t.Errorf("%s: not in order: %v", id, got)
				}
				last = c.Distance
				if i == 0 && len(c.Changes) == 1 {
					distance = c.Distance
				}
			}
			switch {
			case len(got) == 0:
				none++
			case len(got[0].Changes) == 1:
				one++
			default:
				two++
			}
			if best := smallestOfOne(res, s, least, in, fixed); math.Abs(best-distance) > 1e-9 && best != distance {
				t.Errorf("%s %s: the smallest change of one column found by trying all is %v, here %v", method, id, best, distance)
			}
		}
	}
	t.Logf("one column %d, two %d, none %d", one, two, none)
	if one < 20 || two < 5 {
		t.Error("the world does not try both")
	}
}

// apply makes a change by hand, from what JSON would say of it.
func apply(t *testing.T, w *world, values map[string]index.Value, c Change) {
	t.Helper()
	field, _ := w.pop.Schema.Field(c.Column)
	was := values[c.Column]
	switch field.Type {
	case profile.TypeNumber:
		if was.Num != c.From {
			t.Errorf("%v: the customer has %v", c, was.Num)
		}
		values[c.Column] = index.Value{Kind: index.Number, Num: c.To.(float64)}
	case profile.TypeCategory:
		values[c.Column] = index.Value{Kind: index.Category, Str: c.To.(string)}
	case profile.TypeSet:
		set := slices.DeleteFunc(slices.Clone(was.Set), func(e string) bool { return e == c.Remove })
		if c.Remove != "" && len(set) != len(was.Set)-1 {
			t.Errorf("%v: the customer has %v", c, was.Set)
		}
		if c.Add != "" {
			set = append(set, c.Add)
		}
		values[c.Column] = index.Value{Kind: index.Set, Set: set}
	default:
		t.Fatalf("a change of %s", c.Column)
	}
}

// smallestOfOne tries the middle of every bin, every category and every element.
func smallestOfOne(res *Result, s *Subject, least float64, in bool, fixed func(string) bool) float64 {
	best := math.Inf(1)
	try := func(column string, v index.Value, distance float64) {
		changed := maps.Clone(s.Values)
		changed[column] = v
		if (float64(res.Model.Value(s.Vector, changed)) >= least) != in {
			best = math.Min(best, distance)
		}
	}
	for _, b := range res.Model.Bins {
		if fixed(b.Column) {
			continue
		}
		v := s.Values[b.Column]
		switch b.Kind {
		case index.Number:
			at := binsOf(b, v)[0]
			for to := 1; to < b.Count(); to++ {
				x := b.Edges[0] - 1
				if to > len(b.Edges) {
					x = b.Edges[len(b.Edges)-1] + 1
				} else if to > 1 {
					x = (b.Edges[to-2] + b.Edges[to-1]) / 2
				}
				try(b.Column, index.Value{Kind: index.Number, Num: x}, math.Abs(float64(to-at))/float64(b.Count()-1))
			}
		case index.Category:
			for _, e := range b.Values {
				try(b.Column, index.Value{Kind: index.Category, Str: e}, 1)
			}
		case index.Set:
			for _, e := range b.Values {
				if !slices.Contains(v.Set, e) {
					try(b.Column, index.Value{Kind: index.Set, Set: append(slices.Clone(v.Set), e)}, 1)
				}
			}
			for i := range v.Set {
				try(b.Column, index.Value{Kind: index.Set, Set: slices.Delete(slices.Clone(v.Set), i, i+1)}, 1)
			}
		}
	}
	return best
}

func TestCounterfactualValues(t *testing.T) {
	for _, c := range []struct {
		edges     []float64
		bin       int
		fromAbove bool
		want      float64
	}{
		{[]float64{10, 20, 30}, 1, true, 9}, {[]float64{10, 20, 30}, 2, true, 19}, {[]float64{10, 20, 30}, 2, false, 10},
		{[]float64{10, 20, 30}, 4, false, 30}, {[]float64{1}, 1, true, 0}, {[]float64{1}, 2, false, 1},
		{[]float64{0.5, 1.5}, 2, true, 1.4}, {[]float64{0.5, 1.5}, 1, true, 0.4}, {[]float64{0.5, 1.5}, 2, false, 0.5}, {nil, 1, false, 0},
	} {
		if got := inBin(c.edges, c.bin, c.fromAbove); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("bin %d of %v: %v, want %v", c.bin, c.edges, got, c.want)
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		edges := make([]float64, 1+rng.IntN(5))
		for i := range edges {
			edges[i] = math.Exp(rng.NormFloat64()*8) * float64(rng.IntN(3)-1)
		}
		slices.Sort(edges)
		edges = slices.Compact(edges)
		b := index.Bins{Column: "x", Kind: index.Number, Edges: edges}
		for to := 1; to < b.Count(); to++ {
			for _, above := range []bool{false, true} {
				if v := inBin(edges, to, above); valueCodes(b, index.Value{Kind: index.Number, Num: v})[0] != uint16(to) {
					t.Fatalf("%v is not in bin %d of %v", v, to, edges)
				}
			}
		}
	}
}

// A change that would be refused is not proposed, and who is on the other side of
// the filter is not brought in.
func TestCounterfactualsKeepToTheFilter(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, columns: true})
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:100])}, Size: count(200), Method: Centroid})
	free, kept := 0, 0
	for i := 1; i < 400; i += 3 {
		s := w.subject(t, idOf(i))
		if res.Model.Value(s.Vector, s.Values) >= res.Threshold {
			continue
		}
		opt := Alternatives{Least: float64(res.Threshold)}
		free += len(res.Model.Counterfactuals(s.Vector, s.Values, opt))
		opt.Allowed = func(values map[string]index.Value) bool { return values["age"].Num < 40 }
		for _, c := range res.Model.Counterfactuals(s.Vector, s.Values, opt) {
			kept++
			for _, change := range c.Changes {
				if to, ok := change.To.(float64); ok && change.Column == "age" && to >= 40 {
					t.Errorf("%v", c)
				}
			}
			if s.Values["age"].Num >= 40 && !slices.ContainsFunc(c.Changes, func(x Change) bool { return x.Column == "age" }) {
				t.Errorf("%v leaves age at %v", c, s.Values["age"].Num)
			}
		}
	}
	if free == 0 || kept == 0 || kept >= free {
		t.Errorf("%d without the filter, %d with it", free, kept)
	}
}

// A passage's value is what the text's part loses when the passage's own addend is
// taken out of the sum of vectors: computed here from the mean, by other code.
func TestPassagesAddUp(t *testing.T) {
	for _, method := range []string{Centroid, Clusters, Neighbours, Auto} {
		w := newWorld(t, worldOptions{n: 2000, dim: 12, columns: true, precision: index.Fp32})
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:80])}, Size: count(60), Method: method})
		rng := rand.New(rand.NewPCG(1, 1))
		for i := range 40 {
			s := w.subject(t, idOf(i))
			n := 1 + rng.IntN(5)
			var weights []float64
			for k := range n {
				weights = append(weights, 0.5+rng.Float64())
				s.Passages = append(s.Passages, profile.Passage{Body: fmt.Sprint("text ", k), Weight: weights[k]})
				v := make([]float64, 12)
				for j := range v {
					v[j] = rng.NormFloat64()
				}
				s.Encoded = append(s.Encoded, normalised(v)...)
			}
			s.Vector = profile.Pool(s.Encoded, weights, 12)
			e := res.Explain(s)
			text, sum, score := 0.0, float64(e.Rounding), 0.0
			for _, p := range e.Reasons {
				if score += float64(p.Value); p.Of == "text" {
					text = float64(p.Value)
				}
			}
			if math.Abs(score-float64(e.Score)) > 1e-5 || math.Abs(float64(e.Rounding)) > 1e-5 {
				t.Errorf("%s: parts add up to %v, the score is %v; rounding %v", method, score, e.Score, e.Rounding)
			}
			shares := 0.0
			for k, p := range e.Passages {
				sum += float64(p.Value)
				shares += p.Share
				if k > 0 && p.Value > e.Passages[k-1].Value {
					t.Error("passages are out of order")
				}
			}
			if len(e.Passages) != n || math.Abs(sum-text) > 1e-5 || math.Abs(shares-1) > 1e-9 {
				t.Errorf("%s: %d passages add up to %v with shares of %v, the text's part is %v", method, len(e.Passages), sum, shares, text)
			}
			// With one passage alone the difference of two values is the difference of
			// their products with the head that counts; the head is found by finite
			// differences of the score.
			const h = 1e-2
			w1, total, norm := make([]float64, 12), 0.0, 0.0
			for j := range 12 {
				up, down := slices.Clone(s.Vector), slices.Clone(s.Vector)
				up[j] += h
				down[j] -= h
				w1[j] = (float64(res.Model.Value(up, s.Values)) - float64(res.Model.Value(down, s.Values))) / (2 * h)
				mean := 0.0
				for k := range n {
					mean += weights[k] * float64(s.Encoded[k*12+j])
				}
				norm += mean * mean
			}
			for _, x := range weights {
				total += x
			}
			if len(res.Model.Set.Heads) > 1 {
				continue // which head counts may change within the step
			}
			for _, p := range e.Passages {
				var k int
				if _, err := fmt.Sscanf(p.Text, "text %d", &k); err != nil {
					t.Fatal(err)
				}
				want := 0.0
				for j := range 12 {
					want += w1[j] * weights[k] * (float64(s.Encoded[k*12+j])/math.Sqrt(norm) - float64(res.Model.Center[j])/total)
				}
				if math.Abs(want-float64(p.Value)) > 2e-3*math.Max(1, math.Abs(want)) {
					t.Errorf("%s: passage %d gives %v, computed here %v", method, k, p.Value, want)
				}
			}
		}
	}
}

func TestNeighboursAreNearest(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, dim: 12, columns: true})
	res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:80])}, Size: count(60), Method: Centroid})
	var seeds []Subject
	for _, id := range w.kind[:80] {
		seeds = append(seeds, *w.subject(t, id))
	}
	s := w.subject(t, w.kind[3])
	got := res.Model.Neighbours(s, seeds, 3)
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	// By hand: cosine of deviations, and each column alone.
	similar := func(o *Subject) float64 {
		var xy, xx, yy float64
		for j := range s.Vector {
			x, y := float64(s.Vector[j]-res.Model.Center[j]), float64(o.Vector[j]-res.Model.Center[j])
			xy, xx, yy = xy+x*y, xx+x*x, yy+y*y
		}
		columns := 0.0
		for _, b := range res.Model.Bins {
			x, y := s.Values[b.Column], o.Values[b.Column]
			switch b.Column {
			case "age":
				columns += 1 - math.Abs(float64(binsOf(b, x)[0]-binsOf(b, y)[0]))/float64(len(b.Edges)+1)
			case "region":
				if x.Str == y.Str {
					columns++
				}
			case "tags":
				both := 0
				for _, e := range x.Set {
					if slices.Contains(y.Set, e) {
						both++
					}
				}
				columns += float64(both) / float64(len(x.Set)+len(y.Set)-both)
			default:
				t.Fatalf("column %s", b.Column)
			}
		}
		return (xy/math.Sqrt(xx*yy) + columns/float64(len(res.Model.Bins))) / 2
	}
	for i, n := range got {
		if n.ID == s.ID {
			t.Error("a seed is its own neighbour")
		}
		if i > 0 && n.Similarity > got[i-1].Similarity {
			t.Error("out of order")
		}
		if want := similar(w.subject(t, n.ID)); math.Abs(want-n.Similarity) > 1e-5 {
			t.Errorf("%s: %v, by hand %v", n.ID, n.Similarity, want)
		}
	}
	for i := range seeds {
		if seeds[i].ID != s.ID && similar(&seeds[i]) > got[2].Similarity+1e-9 && !slices.ContainsFunc(got, func(n Neighbour) bool { return n.ID == seeds[i].ID }) {
			t.Errorf("%s is nearer", seeds[i].ID)
		}
	}
}

func TestChangeInWords(t *testing.T) {
	for _, c := range []struct {
		change Change
		want   string
	}{
		{Change{Column: "age", From: 52.0, To: 34.0}, "age 52 becomes 34"},
		{Change{Column: "age", To: 34.5}, "age missing becomes 34.5"},
		{Change{Column: "vip", From: true, To: false}, "vip yes becomes no"},
		{Change{Column: "region", From: "南", To: "北"}, `region "南" becomes "北"`},
		{Change{Column: "tags", Add: "sails"}, `tags also has "sails"`},
		{Change{Column: "tags", Remove: "sails"}, `tags is without "sails"`},
	} {
		if got := c.change.String(); !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
