package index

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

var faultColumns = []Column{
	{Name: "age", Kind: Number}, {Name: "city", Kind: Category}, {Name: "tags", Kind: Set},
	{Name: "vip", Kind: Bool}, {Name: "seen", Kind: Time},
}

func nested(depth int) *Filter {
	f := Filter{Field: "age", Eq: 1}
	for range depth - 1 {
		f = Filter{Must: []Filter{f}}
	}
	return &f
}

// TestFilterFaults: every filter that cannot be meant is refused, with where in
// the tree it is wrong and what would be right.
func TestFilterFaults(t *testing.T) {
	p := "x"
	many := make([]any, maxFilterIn+1)
	for i := range many {
		many[i] = i
	}
	for want, f := range map[string]*Filter{
		`filter: column "nope" does not exist`:                    {Field: "nope", Eq: 1},
		"filter: a condition without a field":                     {Gt: 1},
		"filter (age): no condition":                              {Field: "age"},
		`filter (age).eq: "a" is no number`:                       {Field: "age", Eq: "a"},
		"filter (age).in: +Inf is not finite":                     {Field: "age", In: []any{1, math.Inf(1)}},
		"filter (age): prefix needs text":                         {Field: "age", Prefix: &p},
		"filter (age): gt and gte together":                       {Field: "age", Gt: 1, Gte: 2},
		"filter (age): lt and lte together":                       {Field: "age", Lt: 1, Lte: 2},
		"filter (city).eq: 7 is no text":                          {Field: "city", Eq: 7},
		"filter (tags): a range needs numbers":                    {Field: "tags", Lt: "b"},
		"filter (vip).eq: 2 is no bool":                           {Field: "vip", Eq: 2},
		`filter (seen).gt: "tomorrow" is no time; give RFC 3339`:  {Field: "seen", Gt: "tomorrow"},
		"filter (age): in has 100001 values":                      {Field: "age", In: many},
		"nested more than 32 deep":                                nested(MaxFilterDepth + 1),
		"more than 4096 nodes":                                    {Should: make([]Filter, MaxFilterNodes)},
		"filter.must[1].must_not[0] (vip).eq: \"yes\" is no bool": {Must: []Filter{{Field: "age", Eq: 1}, {MustNot: []Filter{{Field: "vip", Eq: "yes"}}}}},
	} {
		_, err := f.Compile(faultColumns)
		if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
	if _, err := nested(MaxFilterDepth).Compile(faultColumns); err != nil {
		t.Errorf("a filter as deep as allowed: %v", err)
	}
	both := &Filter{Must: []Filter{{Field: "a", Eq: 1}, {Field: "b", Eq: 1}}}
	if _, err := both.Compile(faultColumns); err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("both faults of a filter are reported: %v", err)
	}
}

// TestFilterFromJSON: what arrives as JSON keeps its type.
func TestFilterFromJSON(t *testing.T) {
	var f Filter
	err := json.Unmarshal([]byte(`{"must":[{"field":"age","gte":20,"lt":40.5},{"field":"vip","eq":true},{"field":"seen","gt":"1970-01-02T00:00:00+01:00"},{"field":"id","prefix":"c"}]}`), &f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Compile(faultColumns)
	if err != nil {
		t.Fatal(err)
	}
	age, vip, seen, id := p.Must[0].Conds[0], p.Must[1].Conds[0], p.Must[2].Conds[0], p.Must[3].Conds[0]
	if !age.HoldsNum(20) || age.HoldsNum(19.99) || age.HoldsNum(40.5) || !age.HoldsNum(40.49) {
		t.Errorf("range %+v", age)
	}
	if !vip.HoldsNum(1) || vip.HoldsNum(0) {
		t.Errorf("bool %+v", vip)
	}
	if seen.Lo.Num != 23*3600 || seen.HoldsNum(23*3600) || !seen.HoldsNum(23*3600+1) {
		t.Errorf("time %+v", seen)
	}
	if id.Column != -1 || !id.HoldsStr("c1") || id.HoldsStr("d") {
		t.Errorf("id %+v", id)
	}
}

// TestSpecAndScanFaults: all faults are reported together.
func TestSpecAndScanFaults(t *testing.T) {
	bad := Spec{Name: "Big Name", Dim: MaxDim + 1, Precision: "fp64", Columns: []Column{{Name: "id", Kind: Number}, {Name: "a", Kind: "text"}, {Name: "a", Kind: Number}, {Name: "\xff", Kind: Bool}}}
	expect(t, bad.Validate(), `"Big Name"`, "dim 32769", `"fp64"`, `the name "id" is taken`, `kind "text"`, `"a" is used twice`, "must be 1 to 256 bytes of UTF-8")
	if err := (Spec{Name: "ok", Columns: faultColumns}).Validate(); err != nil {
		t.Errorf("a sound spec: %v", err)
	}
	expect(t, Spec{Columns: faultColumns}.ValidateAlter([]Column{{Name: "age", Kind: Number}}), `"age" is used twice`)
	spec := Spec{Name: "s", Dim: 2, Columns: faultColumns}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	bins := []Bins{{Column: "age", Kind: Number, Edges: []float64{1, 2}}}
	expect(t, ScanRequest{
		Bins: []Bins{{Column: "nope", Kind: Number}, {Column: "age", Kind: Category}, {Column: "age", Kind: Number, Edges: []float64{2, 2}}, {Column: "city", Kind: Category, Values: []string{"b", "a"}}, {Column: "age", Kind: Number, Edges: []float64{math.NaN()}}},
		Sets: []HeadSet{{Reduce: "median", Heads: []Head{{}}}, {}},
	}.Validate(spec), `"nope" is not in collection`, `column "age" is a number, not a "category"`, "edges must ascend strictly (position 1)", "values must ascend strictly (position 1)", "edges must ascend strictly (position 0)", `reduce "median"`, "head set 1 has no heads")
	expect(t, ScanRequest{Bins: bins, Sets: []HeadSet{{Heads: []Head{
		{Vector: []float32{1}}, {Vector: []float32{nan, 0}}, {Bias: inf}, {Tables: [][]float32{nil, nil}}, {Tables: [][]float32{{1}}}, {Tables: [][]float32{{0, 0, 0, nan}}},
	}}}}.Validate(spec), "head 0 of set 0: vector has 1 numbers", "head 1 of set 0: vector[0] is NaN", "head 2 of set 0: bias is +Inf", "head 3 of set 0: 2 tables for 1 bins", "head 4 of set 0: table 0 has 1 entries", "head 5 of set 0: table 0: entry 3 is NaN")
	if err := (ScanRequest{Bins: bins, Sets: []HeadSet{{Heads: []Head{{Vector: []float32{1, 0}, Tables: [][]float32{{0, 0, 0, 0}}}}}}}).Validate(spec); err != nil {
		t.Errorf("a sound request: %v", err)
	}
}

// TestRowFaults: the columns' faults of a batch, in order of row and name.
func TestRowFaults(t *testing.T) {
	spec := Spec{Name: "s", Columns: faultColumns}
	err := spec.CheckRows([]Row{
		{ID: "a", Values: map[string]Value{"vip": {Kind: Bool, Num: 2}, "age": {Kind: Number, Num: math.Inf(-1)}, "gone": {}}},
		{ID: "b", Values: map[string]Value{"city": {Kind: Category, Str: "\xff"}, "tags": {Kind: Set, Set: []string{strings.Repeat("x", MaxString+1)}}}},
		{ID: strings.Repeat("i", MaxID+1), Vector: []float32{1}, Record: make([]byte, MaxRecord+1)},
		{ID: "c", Values: map[string]Value{"tags": {Kind: Set, Set: make([]string, MaxElements+1)}, "age": {}}},
	})
	expect(t, err, `column "age" is -Inf`, `column "gone" is not in collection "s"`, `column "vip" is 2; a bool is 0 or 1`,
		`column "city" is not valid UTF-8`, `column "tags" holds a text of 65537 bytes`, "the id has 257 bytes", "holds no vectors", "the record has 16777217 bytes", "has 65537 elements")
	var first *RowError
	if !errors.As(err, &first) || first.Row != 0 || !strings.Contains(first.Reason, "age") {
		t.Errorf("the first fault is %+v", first)
	}
	expect(t, spec.CheckRows(make([]Row, MaxBatch+1)), "100001 rows in one batch")
	expect(t, CheckIDs([]string{"ok", "", "\xff"}), "row 1", "row 2")
}

// expect checks that err is ErrInvalid and says all of these, in this order.
func expect(t *testing.T, err error, say ...string) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
		return
	}
	text := err.Error()
	for _, s := range say {
		i := strings.Index(text, s)
		if i < 0 {
			t.Errorf("want %q in, or later in: %v", s, err)
			continue
		}
		text = text[i:]
	}
}
