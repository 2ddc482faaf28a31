package main

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/demo"
)

// The phrases of a Chinese customer base are words of the dictionary, not bytes or
// single characters, and name what the planted kind writes about.
func TestPhrasesOfAnAudienceInBothLanguages(t *testing.T) {
	for lang, want := range map[string][]string{"en": {"running", "shoes", "marathon"}, "zh": {"跑鞋", "马拉松", "跑步"}} {
		dir := t.TempDir()
		customers := [][]string{{"id", "age", "review"}}
		seeds := [][]string{{"id"}}
		n := 0
		for c := range demo.Generate(demo.Options{Customers: 1500, Language: lang, Seed: 3}) {
			var texts []string
			for _, x := range c.Record.Texts {
				texts = append(texts, x.Body)
			}
			customers = append(customers, []string{c.Record.ID, "40", strings.Join(texts, " ")})
			if c.Segment == demoSegment && n < 60 {
				n++
				seeds = append(seeds, []string{c.Record.ID})
			}
		}
		// An age apart from the seeds' makes a column that a head can go by without a model.
		for i, row := range customers[1:] {
			row[1] = []string{"30", "31", "32", "33"}[i%4]
			if slices.ContainsFunc(seeds, func(s []string) bool { return s[0] == row[0] }) {
				row[1] = "50"
			}
		}
		writeRows(t, filepath.Join(dir, "customers.csv"), customers)
		writeRows(t, filepath.Join(dir, "seeds.csv"), seeds)
		out := &strings.Builder{}
		a := &app{out: out, err: io.Discard}
		root := a.root()
		root.SetArgs([]string{"lookalike", filepath.Join(dir, "customers.csv"), "--seeds", filepath.Join(dir, "seeds.csv"), "--size", "100", "--model", "none", "--text", "review", "--json"})
		if err := root.ExecuteContext(context.Background()); err != nil {
			t.Fatal(err)
		}
		var res audience.Result
		if err := json.Unmarshal([]byte(out.String()), &res); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range res.Phrases.Seeds {
			names = append(names, p.Text)
			if !utf8.ValidString(p.Text) || utf8.RuneCountInString(p.Text) < 2 {
				t.Errorf("%s: %q is no word", lang, p.Text)
			}
			if p.Lift <= 1 || p.Count < 5 {
				t.Errorf("%s: %+v", lang, p)
			}
		}
		t.Logf("%s: %q", lang, names)
		if !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(strings.Join(names, "\n"), w) }) {
			t.Errorf("%s: none of %q among %q", lang, want, names)
		}
	}
}
