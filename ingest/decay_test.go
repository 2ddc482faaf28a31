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

// NDJSON whose lists have dated events: without a half-life they are items and dated
// texts, with one the plan's fields decay; what folds rows weighs each event by its own time.
func TestDatedElementsOfLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "customers.ndjson")
	text := `{"who":"a","items":[{"item":" tea ","at":"2011-11-20"},"jam",{"item":"ham","at":1262304000,"weight":3}],"notes":[{"text":"a long remark about the tea that she bought and drank on a long and sunny day in the garden","at":"2011-11-21"},{"text":"an older remark about the jam of last summer, which was good enough to be eaten by all of us","weight":2}],"odd":[{"sku":7}],"same":[{"item":"x"}]}
{"who":"b","items":["jam"],"notes":["he says that the jam is good enough to buy it, and that he will do so when he comes back"],"odd":[{"sku":8}],"same":["x"]}
{"who":"c","items":[{"item":"tea","at":"2011-01-20"}],"notes":[],"odd":[[1]],"same":["x"]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(opt Options) (*Plan, map[string]profile.Record) {
		t.Helper()
		plan, err := Inspect(t.Context(), path, opt)
		if err != nil {
			t.Fatal(err)
		}
		src, err := plan.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]profile.Record{}
		for {
			rec, err := src.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got[rec.ID] = rec
		}
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		return plan, got
	}
	plan, got := read(Options{IDColumn: "who"})
	a := got["a"]
	if want := []string{"ham", "jam", "tea"}; !slices.Equal(a.Fields["items"].Set, want) || len(a.Events["items"]) != 3 || a.Events["items"][0] != (profile.Event{Item: "tea", At: 1321747200}) || a.Events["items"][2].Weight != 3 {
		t.Errorf("%q, %+v", a.Fields["items"].Set, a.Events)
	}
	if len(a.Texts) != 2 || a.Texts[0].At != 1321833600 || a.Texts[1].Weight != 2 || a.Texts[0].Field != "notes" {
		t.Errorf("texts %+v", a.Texts)
	}
	if got["b"].Events != nil || len(got["b"].Texts) != 1 || got["a"].Events["same"] != nil {
		t.Errorf("b %+v", got["b"])
	}
	if c := plan.Column("odd"); c.Use != UseIgnore || !strings.Contains(c.Why, "no events") || !plan.Column("items").Dated || plan.Column("same").Dated {
		t.Errorf("%+v", plan.Columns)
	}
	opt := Options{IDColumn: "who", HalfLife: 30, AsOf: time.Date(2011, 12, 1, 0, 0, 0, 0, time.UTC)}
	plan, _ = read(opt)
	for _, f := range plan.Schema().Fields {
		if (f.Decay != nil) != (f.Name == "items" || f.Name == "notes") {
			t.Errorf("field %+v", f)
		}
	}
	if !strings.Contains(plan.String(), "half of the weight of what is dated in items goes every 30 days before 2011-12-01") {
		t.Errorf("the plan does not say it:\n%s", plan)
	}
	// As rows: no column has the rows' times, so there is none to fold by.
	opt.IDColumn, opt.GroupBy = "", "who"
	if _, err := Inspect(t.Context(), path, opt); err == nil || !strings.Contains(err.Error(), "0 columns are times") {
		t.Errorf("%v", err)
	}
	opt = Options{GroupBy: "who"}
	if _, got = read(opt); !slices.Equal(got["a"].Fields["items"].Set, []string{"ham", "jam", "tea"}) {
		t.Errorf("folded %+v", got["a"])
	}
	flat := filepath.Join(t.TempDir(), "flat.csv")
	if err := os.WriteFile(flat, []byte("id,n\n1,2\n2,3\n3,5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), flat, Options{HalfLife: 30, AsOf: opt.AsOf}); err == nil || !strings.Contains(err.Error(), "which this file has none of") {
		t.Errorf("%v", err)
	}
}
