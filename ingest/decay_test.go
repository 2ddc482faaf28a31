package ingest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Rows folded with a half-life: recent items are marked, old ones forgotten, later ones
// left out and said, recent texts weigh more; sums stay sums.
func TestFoldedRowsDecay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.csv")
	text := "who,when,item,amount,remark\n" +
		"a,2011-11-21,tea,2,a long remark about the tea that she bought\n" +
		"a,2011-09-15,jam,3,an older remark about the jam of last summer\n" +
		"a,2010-09-15,ham,5,an ancient remark about a ham nobody remembers\n" +
		"b,2011-10-20,jam,1,he says that the jam is good enough to buy it\n" +
		"b,2011-10-10,jam,1,he says that the jam is good enough to buy it\n" +
		"b,2012-01-01,later,99,what he will only say next year and nobody knows\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := Options{GroupBy: "who", HalfLife: 30, AsOf: time.Date(2011, 12, 1, 0, 0, 0, 0, time.UTC), TextColumns: []string{"remark"}, Types: map[string]profile.FieldType{"item": profile.TypeCategory}}
	plan, err := Inspect(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	if plan.TimeColumn != "when" || !strings.Contains(plan.String(), "half of a row's weight goes every 30 days before 2011-12-01T00:00:00Z, by when") {
		t.Errorf("the plan does not say it:\n%s", plan)
	}
	src, err := plan.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := map[string]profile.Record{}
	said := ""
	for {
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *RowError
		if errors.As(err, &bad) {
			said += bad.Reason
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got[rec.ID] = rec
	}
	if !strings.Contains(said, "1 rows are later than 2011-12-01") {
		t.Errorf("said %q", said)
	}
	a, b := got["a"], got["b"]
	if want := []string{"jam", "tea", "tea (recent)"}; !slices.Equal(a.Fields["item"].Set, want) {
		t.Errorf("items of a %q, want %q", a.Fields["item"].Set, want)
	}
	if want := []string{"jam", "jam (recent)"}; !slices.Equal(b.Fields["item"].Set, want) { // 0.38 + 0.30
		t.Errorf("items of b %q, want %q", b.Fields["item"].Set, want)
	}
	if a.Fields["amount_sum"].Num != 10 || b.Fields["amount_sum"].Num != 2 || a.Fields["lines"].Num != 3 {
		t.Errorf("sums %v and %v", a.Fields, b.Fields)
	}
	if x := a.Fields["lines_decayed"].Num; !(x > 0.9 && x < 1) {
		t.Errorf("decayed lines of a: %v", x)
	}
	weights := map[string]float64{}
	for _, text := range a.Texts {
		weights[text.Body[:8]] = text.Weight
	}
	if !(weights["a long r"] > 4*weights["an older"] && weights["an older"] > 100*weights["an ancie"] && weights["an ancie"] > 0) {
		t.Errorf("weights of texts %v", weights)
	}
	schema := plan.Schema()
	for name := range a.Fields {
		if _, ok := schema.Field(name); !ok {
			t.Errorf("%s is not in the schema", name)
		}
	}
	for name, bad := range map[string]Options{
		"no group":    {HalfLife: 30, AsOf: opt.AsOf},
		"no as-of":    {GroupBy: "who", HalfLife: 30},
		"negative":    {GroupBy: "who", HalfLife: -1, AsOf: opt.AsOf},
		"not a time":  {GroupBy: "who", HalfLife: 30, AsOf: opt.AsOf, TimeColumn: "item"},
		"not there":   {GroupBy: "who", HalfLife: 30, AsOf: opt.AsOf, TimeColumn: "date"},
		"no such use": {GroupBy: "who", HalfLife: 30, AsOf: opt.AsOf, Ignore: []string{"when"}},
	} {
		if _, err := Inspect(t.Context(), path, bad); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
