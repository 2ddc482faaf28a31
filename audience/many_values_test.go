package audience

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// A category and a set of 100,000 values each, nearly all of them rare, stand beside a
// column that says something: the list is still of the kind.
func TestHundredThousandCategories(t *testing.T) {
	const n, values = 110_000, 100_000
	schema := profile.Schema{Fields: []profile.Field{
		{Name: "street", Type: profile.TypeCategory}, {Name: "bought", Type: profile.TypeSet}, {Name: "age", Type: profile.TypeNumber},
	}}
	rng := rand.New(rand.NewPCG(3, 3))
	rows, truth := make([]index.Row, n), map[string]bool{}
	var kind []string
	for i := range rows {
		is := i%10 == 0
		age, street := 30+10*rng.NormFloat64(), fmt.Sprintf("s%d", i%values)
		if is {
			age += 30
			kind = append(kind, idOf(i))
		}
		if is && rng.IntN(2) == 0 {
			street = "harbour"
		}
		truth[idOf(i)] = is
		rows[i] = index.Row{ID: idOf(i), Values: map[string]index.Value{
			"street": {Kind: index.Category, Str: street}, "age": {Kind: index.Number, Num: age},
			"bought": {Kind: index.Set, Set: []string{fmt.Sprintf("b%d", rng.IntN(values)), fmt.Sprintf("c%d", i%values)}},
		}}
	}
	w := worldOf(t, index.Spec{Name: "w", Columns: schema.Columns()}, rows)
	w.pop.Schema, w.truth = schema, truth
	seeds := kind[:200]
	for _, method := range []string{Auto, Classifier, Trees} {
		res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(seeds)}, Method: method, Size: count(1000)})
		if auc := w.auc(t, res, seeds); auc < 0.97 {
			t.Errorf("%s: AUC %.3f", method, auc)
		}
		if len(res.Members) != 1000 {
			t.Errorf("%s: %d members", method, len(res.Members))
		}
	}
}
