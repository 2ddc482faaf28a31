package demo

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

func TestSameOptionsGiveTheSameCustomers(t *testing.T) {
	opt := Options{Customers: 300, Language: "mixed", Seed: 7}
	a, b := slices.Collect(Generate(opt)), slices.Collect(Generate(opt))
	if len(a) != 300 || !reflect.DeepEqual(a, b) {
		t.Fatalf("%d customers, equal: %v", len(a), reflect.DeepEqual(a, b))
	}
	opt.Customers = 400
	if more := slices.Collect(Generate(opt)); !reflect.DeepEqual(a, more[:300]) {
		t.Error("a larger base does not begin with the smaller one")
	}
	opt.Seed = 8
	if other := slices.Collect(Generate(opt)); reflect.DeepEqual(a, other[:300]) {
		t.Error("another seed gave the same customers")
	}
}

func TestCustomersFitTheirSchema(t *testing.T) {
	if err := Schema().Validate(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]index.Kind{}
	for _, c := range Schema().Columns() {
		kinds[c.Name] = c.Kind
	}
	seen := map[string]int{}
	for c := range Generate(Options{Customers: 3000, Seed: 1}) {
		seen[c.Segment]++
		if !strings.HasPrefix(c.Record.ID, "gen-") {
			t.Fatalf("id %q does not say that it is generated", c.Record.ID)
		}
		for name, v := range c.Record.Fields {
			if kinds[name] != v.Kind {
				t.Fatalf("%s: %s is %q, the schema has %q", c.Record.ID, name, v.Kind, kinds[name])
			}
		}
		if n := len(c.Record.Texts); n < 1 || n > 4 {
			t.Fatalf("%s has %d texts", c.Record.ID, n)
		}
	}
	for _, name := range Segments() {
		if seen[name] < 100 {
			t.Errorf("segment %s has %d of 3,000 customers", name, seen[name])
		}
	}
	if len(seen) != len(Segments()) || len(seen) < 10 {
		t.Errorf("%d segments seen, %d planted", len(seen), len(Segments()))
	}
}

func TestLanguages(t *testing.T) {
	for lang, want := range map[string][2]int{"en": {0, 0}, "zh": {500, 500}, "mixed": {150, 350}} {
		chinese := 0
		for c := range Generate(Options{Customers: 500, Language: lang, Seed: 3}) {
			var all []string
			for _, text := range c.Record.Texts {
				all = append(all, text.Body)
			}
			if profile.IsChinese(strings.Join(all, " ")) {
				chinese++
			}
		}
		if chinese < want[0] || chinese > want[1] {
			t.Errorf("%s: %d of 500 customers write Chinese, want %d to %d", lang, chinese, want[0], want[1])
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, opt := range []Options{{}, {Customers: MaxCustomers + 1}, {Customers: 1, Language: "fr"}} {
		if err := opt.Validate(); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%+v: error %v does not match ErrInvalid", opt, err)
		}
		for range Generate(opt) {
			t.Errorf("%+v: a customer was yielded", opt)
		}
	}
}

// A single column must not give a segment away, or the demo would prove nothing.
func TestNoColumnGivesASegmentAway(t *testing.T) {
	all := slices.Collect(Generate(Options{Customers: 4000, Seed: 2}))
	for _, col := range []string{"region", "plan", "channel", "gender"} {
		count := map[string]map[string]int{}
		total := map[string]int{}
		for _, c := range all {
			v := c.Record.Fields[col].Str
			if count[v] == nil {
				count[v] = map[string]int{}
			}
			count[v][c.Segment]++
			total[v]++
		}
		for v, by := range count {
			for seg, n := range by {
				if total[v] >= 50 && float64(n)/float64(total[v]) > 0.6 {
					t.Errorf("%s=%s is %s in %d of %d", col, v, seg, n, total[v])
				}
			}
		}
	}
}
