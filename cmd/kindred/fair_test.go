package main

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// adultList runs lookalike on adult with sex (c10) and race (c9) marked as sensitive.
func adultList(t *testing.T, file, seeds string, more ...string) audience.Result {
	t.Helper()
	out := &strings.Builder{}
	a := &app{out: out, err: io.Discard}
	root := a.root()
	root.SetArgs(append([]string{"lookalike", file, "--no-header", "--exclude-column", "c15", "--sensitive", "c10,c9", "--model", "none", "--seeds", seeds, "--size", "3000", "--method", "classifier", "--json"}, more...))
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	var res audience.Result
	if err := json.Unmarshal([]byte(out.String()), &res); err != nil {
		t.Fatal(err)
	}
	return res
}

// On adult, a list of those who earn much leaves women out, and husbands and wives
// give the sex away though nobody looks at it. Bound to be even it is even, and costs
// what it says, judged by the truth.
func TestAdultIsFairAtTheStatedCost(t *testing.T) {
	if testing.Short() {
		t.Skip("three audiences of 32,561 customers")
	}
	file := shared(t, "adult/adult.data.csv.gz")
	rows := rowsOf(t, file, ',')
	truth := labels(rows, 0, 14, ">50K")
	var positives []string
	for i := range rows {
		if id := strconv.Itoa(i + 1); truth[id] {
			positives = append(positives, id)
		}
	}
	var seeds [][]string
	for i := range 500 {
		seeds = append(seeds, []string{positives[i*len(positives)/500]})
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "seeds.csv")
	writeRows(t, path, append([][]string{{"id"}}, seeds...))
	prevalence := strconv.FormatFloat(float64(len(positives))/float64(len(truth)), 'f', 4, 64)
	plain := adultList(t, file, path, "--prevalence", prevalence)
	even := adultList(t, file, path, "--prevalence", prevalence, "--fair", "c10=0.8")

	// Recounted here from the file.
	precision := func(res *audience.Result) (p float64) {
		for _, m := range res.Members {
			if truth[m.ID] {
				p += 1 / float64(len(res.Members))
			}
		}
		return p
	}
	rates := func(res *audience.Result, column int) map[string]float64 {
		all, in := map[string]float64{}, map[string]float64{}
		isSeed := map[string]bool{}
		for _, s := range seeds {
			isSeed[s[0]] = true
		}
		for i, row := range rows {
			if !isSeed[strconv.Itoa(i+1)] {
				all[strings.TrimSpace(row[column])]++
			}
		}
		for _, m := range res.Members {
			i, err := strconv.Atoi(m.ID)
			if err != nil {
				t.Fatal(err)
			}
			in[strings.TrimSpace(rows[i-1][column])]++
		}
		for g := range all {
			all[g] = in[g] / all[g]
		}
		return all
	}
	disparity := func(res *audience.Result, column string) *audience.Disparity {
		i := slices.IndexFunc(res.Fairness, func(d audience.Disparity) bool { return d.Column == column })
		if i < 0 {
			t.Fatalf("no disparity of %s", column)
		}
		return &res.Fairness[i]
	}
	for _, res := range []*audience.Result{&plain, &even} {
		for column, at := range map[string]int{"c10": 9, "c9": 8} {
			counted := rates(res, at)
			for _, g := range disparity(res, column).Groups {
				if math.Abs(counted[g.Label]-g.Rate.Value) > 1e-9 || g.Rate.Low > g.Rate.Value || g.Rate.High < g.Rate.Value {
					t.Errorf("%s %s: rate %+v, counted %v", column, g.Label, g.Rate, counted[g.Label])
				}
			}
		}
		for _, b := range res.Model.Bins {
			if b.Column == "c9" || b.Column == "c10" {
				t.Errorf("the heads look at %s", b.Column)
			}
		}
	}
	before, after := rates(&plain, 9), rates(&even, 9)
	t.Logf("women to men: %.3f before, %.3f after", before["Female"]/before["Male"], after["Female"]/after["Male"])
	if before["Female"]/before["Male"] > 0.5 || after["Female"]/after["Male"] < 0.8-0.005 {
		t.Errorf("women are selected at %.3f of men's rate, bound at %.3f", before["Female"]/before["Male"], after["Female"]/after["Male"])
	}
	d := disparity(&plain, "c10")
	if i := slices.IndexFunc(d.Proxies, func(p audience.Proxy) bool { return p.Column == "c8" }); i != 0 || d.Proxies[0].Strength < 0.5 {
		t.Errorf("who is a husband tells the sex first of all; proxies %+v", d.Proxies)
	}
	cost := disparity(&even, "c10").Cost
	if cost == nil {
		t.Fatal("no cost is stated")
	}
	was, is := precision(&plain), precision(&even)
	t.Logf("precision %.3f and %.3f, stated %.3f and %.3f", was, is, cost.Without, cost.Precision)
	if math.Abs((was-is)-(cost.Without-cost.Precision)) > 0.03 || math.Abs(was-cost.Without) > 0.05 {
		t.Errorf("evenness costs %.3f of %.3f, stated are %.3f of %.3f", was-is, was, cost.Without-cost.Precision, cost.Without)
	}
	allowed := adultList(t, file, path, "--allow-sensitive", "c10")
	if !slices.ContainsFunc(allowed.Model.Bins, func(x index.Bins) bool { return x.Column == "c10" }) {
		t.Error("what is allowed in writing is not looked at")
	}
}

// What stands in for a sensitive column is named to who reads only the terminal. The
// planted one tells the groups of 19 in 20 customers; another column tells nothing.
func TestTerminalNamesPlantedStandIn(t *testing.T) {
	dir := t.TempDir()
	rows, seeds := [][]string{{"id", "sex", "dept", "region"}}, [][]string{{"id"}}
	for i := range 1000 {
		sex, id := i%2, "c"+strconv.Itoa(i)
		dept := sex
		if i/2%20 == 0 {
			dept = 1 - sex
		}
		rows = append(rows, []string{id, []string{"f", "m"}[sex], []string{"dresses", "suits"}[dept], []string{"north", "south", "west"}[i/2%3]})
		if dept == 1 && i%5 == 0 {
			seeds = append(seeds, []string{id})
		}
	}
	customers, list := filepath.Join(dir, "customers.csv"), filepath.Join(dir, "seeds.csv")
	writeRows(t, customers, rows)
	writeRows(t, list, seeds)
	said := &strings.Builder{}
	a := &app{out: io.Discard, err: said}
	root := a.root()
	args := []string{"lookalike", customers, "--seeds", list, "--model", "none", "--method", "centroid", "--size", "200"}
	root.SetArgs(args)
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	if note := "note: customers are scored by sex: --sensitive sex keeps that out"; !strings.Contains(said.String(), note) {
		t.Errorf("nothing is said of a column of such a name that nobody marked: %s", said)
	}
	said.Reset()
	root = a.root()
	root.SetArgs(append(args, "--sensitive", "sex"))
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said.String(), "are scored by sex") {
		t.Errorf("a marked column is not scored by: %s", said)
	}
	if !strings.Contains(said.String(), "sex stand-ins          dept 0.9") || strings.Contains(said.String(), "region 0.") {
		t.Error(said.String())
	}
}
