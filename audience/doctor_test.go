package audience

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// topics is a world of customers about ten topics, a direction each.
func topics(t *testing.T, n, dim int) (w *world, of map[string]int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	of = map[string]int{}
	rows := make([]index.Row, n)
	for i := range rows {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rng.NormFloat64()) * 0.15
		}
		v[i%10] += 1.5
		rows[i] = index.Row{ID: idOf(i), Vector: v}
		of[idOf(i)] = i % 10
	}
	return worldOf(t, index.Spec{Name: "w", Dim: dim}, rows), of
}

func about(of map[string]int, topic, n int) (out []string) {
	for i := 0; len(out) < n; i++ {
		if of[idOf(i)] == topic {
			out = append(out, idOf(i))
		}
	}
	return out
}

// Two interests of 80 and 40 seeds are told apart, with their shares of seeds, of
// everyone and of the list, and typical customers of each.
func TestInterestsAreKeptApart(t *testing.T) {
	w, of := topics(t, 3000, 24)
	seeds := slices.Concat(about(of, 2, 80), about(of, 7, 40))
	for _, method := range []string{Auto, Clusters} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Size: count(300), Method: method})
		if len(res.Interests) != 2 {
			t.Fatalf("%s: %d interests: %+v", method, len(res.Interests), res.Interests)
		}
		for i, want := range []struct {
			topic, seeds int
			share        float64
		}{{2, 80, 2.0 / 3}, {7, 40, 1.0 / 3}} {
			in := res.Interests[i]
			if in.Seeds != want.seeds || math.Abs(in.SeedShare-want.share) > 1e-9 || !(in.AudienceShare > 0.15) || !(in.PopulationShare > 0.2) {
				t.Errorf("%s: interest %d is %+v", method, i, in)
			}
			if len(in.Seed) != 3 || len(in.Member) != 3 {
				t.Fatalf("%s: typical customers %v and %v", method, in.Seed, in.Member)
			}
			for _, id := range slices.Concat(in.Seed, in.Member) {
				if of[id] != want.topic {
					t.Errorf("%s: %s is about %d, not %d", method, id, of[id], want.topic)
				}
			}
		}
		if sum := res.Interests[0].AudienceShare + res.Interests[1].AudienceShare; math.Abs(sum-1) > 1e-9 {
			t.Errorf("%s: shares of the audience add up to %v", method, sum)
		}
	}
	one := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(about(of, 2, 80))}, Size: count(100)})
	if len(one.Interests) != 1 || one.Interests[0].Seeds != 80 {
		t.Errorf("seeds of one topic: %+v", one.Interests)
	}
	var random []string
	for _, i := range rand.New(rand.NewPCG(8, 8)).Perm(3000)[:150] {
		random = append(random, idOf(i))
	}
	if res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(random)}, Size: count(100), Method: Centroid}); len(res.Interests) != 1 {
		t.Errorf("seeds that fall apart as everyone does: %d interests", len(res.Interests))
	}
	planted := newWorld(t, worldOptions{n: 1000, columns: true})
	if res := mustBuild(t, planted, Request{Seeds: Seeds{IDs: refs(planted.kind[:60])}, Size: count(100), Method: Centroid}); len(res.Interests) == 0 || len(res.Interests[0].Member) != 3 || res.Doctor.Coherence <= res.Doctor.BackgroundHigh {
		t.Errorf("columns alone: %+v, %+v", res.Interests, res.Doctor)
	}
}

func TestOutliersAreNamed(t *testing.T) {
	w, of := topics(t, 3000, 24)
	seeds := about(of, 2, 100)
	clean, err := Check(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(seeds)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if clean.Doctor.OutlierCount > 2 || clean.Doctor.Verdict != "go" {
		t.Errorf("seeds of one topic: %+v", clean.Doctor)
	}
	strange := about(of, 5, 3)
	got, err := Check(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(slices.Concat(seeds, strange))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, o := range got.Doctor.Outliers[:min(3, len(got.Doctor.Outliers))] {
		named = append(named, o.ID)
		if !(o.Deviations > outlierBeyond) || o.Similarity > 0.5 {
			t.Errorf("outlier %+v", o)
		}
	}
	slices.Sort(named)
	slices.Sort(strange)
	if !slices.Equal(named, strange) || !strings.Contains(strings.Join(got.Doctor.Notes, "\n"), "unlike the others") {
		t.Errorf("outliers %v, want %v; notes %q", named, strange, got.Doctor.Notes)
	}
}

// What Build refuses, Check says with the same words, and never as an error.
func TestCheckRefusesAsBuildDoes(t *testing.T) {
	w := newWorld(t, worldOptions{n: 600, dim: 8, columns: true})
	var everyone []string
	for i := range 600 {
		everyone = append(everyone, idOf(i))
	}
	nobody := &index.Filter{Field: "region", Eq: "west"}
	for name, req := range map[string]Request{
		"unknown":       {Seeds: Seeds{IDs: refs([]string{"a", "b"})}},
		"one seed":      {Seeds: Seeds{IDs: refs(w.kind[:1])}},
		"everyone":      {Seeds: Seeds{IDs: refs(everyone)}},
		"nobody to be":  {Seeds: Seeds{IDs: refs(w.kind[:40])}, Filter: nobody},
		"swapped lists": {Seeds: Seeds{IDs: refs(w.kind[:40])}, Negatives: Negatives{IDs: refs(w.kind[:40])}},
		"all excluded":  {Seeds: Seeds{IDs: refs(w.kind[:40])}, Exclude: Exclude{IDs: everyone}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Check(t.Context(), w.pop, req, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Size = count(1)
			_, err = Build(t.Context(), w.pop, req, nil)
			if got.Doctor.Verdict != Refuse || err == nil || !strings.HasPrefix(err.Error(), got.Doctor.Notes[len(got.Doctor.Notes)-1]) {
				t.Errorf("check says %q %q, build %v", got.Doctor.Verdict, got.Doctor.Notes, err)
			}
		})
	}
	if _, err := Check(t.Context(), w.pop, Request{}, nil); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("no seeds at all: %v", err)
	}
	got, err := Check(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(everyone[:120])}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Doctor.Verdict != "warn" || !strings.Contains(strings.Join(got.Doctor.Notes, "\n"), "no better than random") {
		t.Errorf("seeds like everyone: %+v", got.Doctor)
	}
}

// A customer in both lists counts as neither, and this is said; the rest goes on.
func TestContradictionsAreSetAside(t *testing.T) {
	w := newWorld(t, worldOptions{n: 1000, columns: true})
	var others []string
	for i := range 1000 {
		if !w.truth[idOf(i)] {
			others = append(others, idOf(i))
		}
	}
	req := Request{Seeds: Seeds{IDs: refs(slices.Concat(w.kind[:60], w.kind[:5]))}, Size: count(900), Method: Centroid,
		Negatives: Negatives{IDs: refs(slices.Concat(others[:30], w.kind[:2], others[:1]))}}
	res := mustBuild(t, w, req)
	notes := strings.Join(res.Doctor.Notes, "\n")
	if res.Manifest.Seeds != 58 || res.Manifest.Negatives != 30 || res.Doctor.Both != 2 || res.Doctor.Verdict != "warn" {
		t.Errorf("manifest %+v, doctor %+v", res.Manifest, res.Doctor)
	}
	for _, want := range []string{"2 customers are seeds and negatives", "5 ids were given more than once", "1 negatives were given more than once"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not among the notes:\n%s", want, notes)
		}
	}
	for _, id := range ids(res) {
		if id == w.kind[0] || id == w.kind[1] {
			t.Errorf("%s was a seed and a negative and is a member", id)
		}
	}
}

// The gain that is foretold of more seeds, against the gain when they are given: the
// AUC against everyone is known here. Over many draws the mean is near, and the
// intervals hold nearly all.
func TestLearningCurveForetells(t *testing.T) {
	if testing.Short() {
		t.Skip("twelve checks and twenty-four audiences")
	}
	w := newWorld(t, worldOptions{n: 3000, dim: 24})
	const lists, now = 12, 60
	foretold, got, within := 0.0, 0.0, 0
	for d := range lists {
		rng := rand.New(rand.NewPCG(uint64(d), 5))
		perm := rng.Perm(len(w.kind))
		pick := func(n int) (out []string) {
			for _, i := range perm[:n] {
				out = append(out, w.kind[i])
			}
			return out
		}
		check, err := Check(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(pick(now))}, Seed: uint64(d)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		l := check.Learning
		if l == nil || len(l.Points) != 4 || l.More != 120 || l.Points[3].Seeds != 48 {
			t.Fatalf("learning %+v", l)
		}
		auc := func(n int) float64 {
			res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(pick(n))}, Size: count(100), Method: Classifier, Seed: uint64(d)})
			return w.auc(t, res, pick(n))
		}
		gain := auc(now+l.More) - auc(now)
		foretold, got = foretold+l.Gain.Value/lists, got+gain/lists
		if gain >= l.Gain.Low && gain <= l.Gain.High {
			within++
		}
	}
	t.Logf("foretold %.4f, came %.4f, within the interval %d of %d", foretold, got, within, lists)
	if math.Abs(foretold-got) > 0.02 {
		t.Errorf("foretold a gain of %.4f, %.4f came", foretold, got)
	}
	if within < lists*3/4 {
		t.Errorf("%d of %d gains are within their intervals", within, lists)
	}
	// A law that holds exactly is found: AUC = 0.9 - 1/n.
	exact := &Learning{More: 100}
	by := make([][]float64, 4)
	sizes := []float64{20, 40, 60, 80}
	for p, n := range sizes {
		by[p] = slices.Repeat([]float64{0.9 - 1/n}, 50)
	}
	exact.extrapolate(by, slices.Repeat([]int{0, 1}, 25), sizes, 100)
	if want := 1.0/100 - 1.0/200; math.Abs(exact.Gain.Low-want) > 1e-9 || exact.Gain.High < want {
		t.Errorf("gain %+v, want its lower end at %v", exact.Gain, want)
	}
}

func TestExplicitZeroWeightIsRefused(t *testing.T) {
	var r SeedRef
	if err := r.UnmarshalJSON([]byte(`{"id":"a","weight":0}`)); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("weight 0: %v, %+v", err, r)
	}
	if err := r.UnmarshalJSON([]byte(`{"id":"a"}`)); err != nil || r.ID != "a" {
		t.Errorf("no weight: %v, %+v", err, r)
	}
	if err := r.UnmarshalJSON([]byte(`{"id":"a","wieght":2}`)); err == nil {
		t.Error("an unknown name is taken")
	}
}

// Lists from spreadsheets spell ids in their own way: the doctor says which.
func TestOtherSpellingsAreFound(t *testing.T) {
	var rows []index.Row
	for i := range 200 {
		rows = append(rows, index.Row{ID: fmt.Sprintf("%d", 1000+i), Values: map[string]index.Value{"age": {Kind: index.Number, Num: float64(i % 50)}}})
	}
	rows = append(rows, index.Row{ID: "caf\u00e9"}, index.Row{ID: "ab"})
	w := worldOf(t, index.Spec{Name: "w", Columns: []index.Column{{Name: "age", Kind: index.Number}}}, rows)
	given := []string{"1000.0", "01001", " 1002 ", "cafe\u0301", "AB", "nobody"}
	for i := range 30 {
		given = append(given, fmt.Sprintf("%d", 1010+i))
	}
	got, err := Check(t.Context(), w.pop, Request{Seeds: Seeds{IDs: refs(given)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(got.Doctor.Notes, "\n")
	for _, want := range []string{"6 of 36 given ids", "1 of the unknown ids would match without the white space", "another Unicode form (NFC)", `without ".0"`, "without zeros in front", "in lower case"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not among the notes:\n%s", want, notes)
		}
	}
}
