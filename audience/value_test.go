package audience

import (
	"math"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// A value is the score without its reasons.
func TestValueIsTheScore(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, dim: 16, columns: true})
	for _, method := range []string{Centroid, Clusters, Classifier, Trees, Neighbours, Auto} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:100])}, Size: count(200), Method: method})
		for _, m := range res.Members[:100] {
			rows, err := w.engine.Get(t.Context(), []string{m.ID})
			if err != nil {
				t.Fatal(err)
			}
			want, _ := res.Model.Score(rows[0].Vector, rows[0].Values)
			if got := res.Model.Value(rows[0].Vector, rows[0].Values); math.Abs(float64(got-want)) > 1e-5 {
				t.Errorf("%s, %s: value %v, score %v", method, m.ID, got, want)
			}
		}
	}
}

func TestBinIsCodes(t *testing.T) {
	for _, b := range []index.Bins{
		{Kind: index.Number, Edges: []float64{-1, 0, 2.5}}, {Kind: index.Number}, {Kind: index.Bool, Edges: []float64{1}},
		{Kind: index.Category, Values: []string{"a", "b"}}, {Kind: index.Category},
	} {
		for _, v := range []index.Value{{}, {Kind: index.Number, Num: -2}, {Kind: index.Number, Num: -1}, {Kind: index.Number}, {Kind: index.Number, Num: 1}, {Kind: index.Number, Num: 9}, {Kind: index.Category, Str: "a"}, {Kind: index.Category, Str: "b"}, {Kind: index.Category, Str: "z"}} {
			if v.Kind != "" && (v.Kind == index.Category) == b.Kind.Numeric() {
				continue
			}
			if v.Kind != "" {
				v.Kind = b.Kind
			}
			if got, want := profile.Bin(&b, v), valueCodes(b, v); len(want) != 1 || got != want[0] {
				t.Errorf("%+v in %+v: bin %d, want %v", v, b, got, want)
			}
		}
	}
}
