package profile

import (
	"math"
	"slices"
	"testing"
	"time"
)

var day = time.Date(2011, 12, 1, 0, 0, 0, 0, time.UTC)

func daysBefore(n float64) float64 { return float64(day.Unix()) - 86400*n }

func TestDecayWeight(t *testing.T) {
	d := &Decay{HalfLife: 30, Reference: day}
	for age, want := range map[float64]float64{0: 1, 30: 0.5, 60: 0.25, 15: math.Sqrt(0.5), -10: 1, 1e9: math.Exp2(-30)} {
		if got := d.Weight(daysBefore(age)); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v days before: %v, want %v", age, got, want)
		}
	}
	var none *Decay
	if d.Weight(0) != 1 || none.Weight(daysBefore(99)) != 1 {
		t.Error("what is not dated, or has no decay, must keep its weight")
	}
}

func TestElementsMarkRecentAndForgetOld(t *testing.T) {
	d := &Decay{HalfLife: 30, Reference: day}
	events := []Event{
		{Item: "tea", At: daysBefore(10)}, {Item: "jam", At: daysBefore(45)}, {Item: "ham", At: daysBefore(220)},
		{Item: "often", At: daysBefore(45)}, {Item: "often", At: daysBefore(50)}, // 0.354 + 0.315
		{Item: "heavy", At: daysBefore(60), Weight: 2}, {Item: "undated"},
	}
	want := []string{"heavy", "heavy (recent)", "jam", "often", "often (recent)", "tea", "tea (recent)", "undated", "undated (recent)"}
	if got := d.Elements(events); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	slices.Reverse(events)
	if got := d.Elements(events); !slices.Equal(got, want) {
		t.Errorf("in another order: %q", got)
	}
	var none *Decay
	if got := none.Elements(events); !slices.Equal(got, []string{"ham", "heavy", "jam", "often", "tea", "undated"}) {
		t.Errorf("without a decay: %q", got)
	}
}

// Recent texts weigh more in a profile, by the half-life, and are the ones kept of many.
func TestComposeDecays(t *testing.T) {
	s := Schema{Fields: []Field{{Name: "note", Type: TypeText, Weight: 2, Decay: &Decay{HalfLife: 30, Reference: day}}, {Name: "about", Type: TypeText}}}
	r := Record{Texts: []Text{
		{Field: "note", Body: "old", At: daysBefore(60)}, {Field: "note", Body: "new", At: daysBefore(0)}, {Field: "note", Body: "half", At: daysBefore(30), Weight: 3},
		{Field: "about", Body: "plain", At: daysBefore(900)}, {Body: "free"},
	}}
	got := s.Compose(r, ComposeOptions{})
	want := []Passage{{"old", 0.5, "note"}, {"new", 2, "note"}, {"half", 3, "note"}, {"plain", 1, "about"}, {"free", 1, ""}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = s.Compose(r, ComposeOptions{MaxPassages: 2})
	if !slices.Equal(got, want[1:3]) {
		t.Errorf("two of them: %v", got)
	}
	a := Pool([]float32{1, 0, 0, 1}, []float64{0.5, 2}, 2)
	if !(a[1] > 3*a[0]) {
		t.Errorf("the profile %v does not lean to the recent text", a)
	}
	without := Schema{Fields: []Field{{Name: "note", Type: TypeText, Weight: 2}, {Name: "about", Type: TypeText}}}
	if CompositionStamp(s) == CompositionStamp(without) {
		t.Error("the decay of a text is not in the stamp")
	}
	for name, d := range map[string]*Decay{"no half-life": {Reference: day}, "no reference": {HalfLife: 3}, "negative": {HalfLife: -1, Reference: day}, "NaN": {HalfLife: math.NaN(), Reference: day}} {
		if err := (Schema{Fields: []Field{{Name: "x", Type: TypeSet, Decay: d}}}).Validate(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := (Schema{Fields: []Field{{Name: "x", Type: TypeNumber, Decay: &Decay{HalfLife: 3, Reference: day}}}}).Validate(); err == nil {
		t.Error("a number with a decay is taken")
	}
}
