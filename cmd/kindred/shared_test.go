package main

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed/models"
)

// shared finds a data set, or skips; with CI=true its absence is a failure.
func shared(t *testing.T, path string) string {
	t.Helper()
	root := os.Getenv("KINDRED_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared")
	}
	file := filepath.Join(root, "data", path)
	if _, err := os.Stat(file); err != nil {
		absent(t, "the data set "+path)
	}
	return file
}

func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is absent", what)
	}
	t.Skipf("%s is absent", what)
}

// rowsOf reads a gzip CSV file.
func rowsOf(t *testing.T, path string, comma rune) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = comma, -1, true
	var out [][]string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
}

// writeRows writes a CSV file with a header.
func writeRows(t *testing.T, path string, rows [][]string) {
	t.Helper()
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outcome is one data set with its truth and what the whole command must reach.
type outcome struct {
	name  string
	file  string // as lookalike reads it; "" when rows is given
	rows  [][]string
	truth map[string]bool // by id; ids of files without one are row numbers from 1
	seeds int
	args  []string
	auc   float64 // floor
	lift5 float64 // floor
}

// check draws seeds evenly from the positives, asks for everyone in order and
// judges the order by the truth.
func (o outcome) check(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if o.rows != nil {
		o.file = filepath.Join(dir, "customers.csv")
		writeRows(t, o.file, o.rows)
	}
	var positives []string
	for i := 1; i <= len(o.truth); i++ {
		if id := strconv.Itoa(i); o.truth[id] {
			positives = append(positives, id)
		}
	}
	if len(positives) < 2*o.seeds {
		t.Fatalf("%d positives for %d seeds: the truth is not read right", len(positives), o.seeds)
	}
	seeds := [][]string{{"id"}}
	for i := range o.seeds {
		seeds = append(seeds, []string{positives[i*len(positives)/o.seeds]})
	}
	seedFile, out := filepath.Join(dir, "seeds.csv"), filepath.Join(dir, "order.csv")
	writeRows(t, seedFile, seeds)
	log := &strings.Builder{}
	a := &app{out: io.Discard, err: log}
	root := a.root()
	root.SetArgs(append([]string{"lookalike", o.file, "--seeds", seedFile, "--size", "100%", "--reasons=false", "-o", out}, o.args...))
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	order, err := csv.NewReader(f).ReadAll()
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	var scores []float32
	var truth []bool
	for _, row := range order[1:] {
		score, err := strconv.ParseFloat(row[2], 32)
		if err != nil {
			t.Fatal(err)
		}
		is, known := o.truth[row[0]]
		if !known {
			t.Fatalf("customer %q has no truth", row[0])
		}
		scores, truth = append(scores, float32(score)), append(truth, is)
	}
	if len(scores)+o.seeds != len(o.truth) {
		t.Fatalf("%d customers in order and %d seeds, of %d", len(scores), o.seeds, len(o.truth))
	}
	e := audience.Evaluate(scores, truth)
	t.Logf("%s: %d customers, AUC %.3f, lift at 5 %% %.2f", o.name, e.N, e.AUC, e.Lift[5])
	if !(e.AUC >= o.auc) || !(e.Lift[5] >= o.lift5) {
		t.Errorf("AUC %.3f (want %.3f or more), lift at 5 %% %.2f (want %.2f or more)\n%s", e.AUC, o.auc, e.Lift[5], o.lift5, log)
	}
}

// labels reads the truth of a table whose rows are customers, from row first.
func labels(rows [][]string, first, column int, positive string) map[string]bool {
	truth := make(map[string]bool, len(rows))
	for i, row := range rows[first:] {
		truth[strconv.Itoa(i+1)] = strings.TrimSpace(row[column]) == positive
	}
	return truth
}

func TestAdult(t *testing.T) {
	file := shared(t, "adult/adult.data.csv.gz")
	outcome{
		name: "adult", file: file, truth: labels(rowsOf(t, file, ','), 0, 14, ">50K"), seeds: 200, auc: 0.85, lift5: 2.9,
		args: []string{"--no-header", "--exclude-column", "c15", "--model", "none"},
	}.check(t)
}

func TestBankMarketing(t *testing.T) {
	file := shared(t, "bank_marketing/bank-full.csv.gz")
	rows := rowsOf(t, file, ';')
	// The duration of the call is known only after it.
	outcome{
		name: "bank", file: file, truth: labels(rows, 1, len(rows[0])-1, "yes"), seeds: 200, auc: 0.70, lift5: 3.5,
		args: []string{"--exclude-column", "y,duration", "--model", "none"},
	}.check(t)
}

func TestWomensClothingColumns(t *testing.T) {
	rows := rowsOf(t, shared(t, "womens_clothing/reviews.csv.gz"), ',')
	truth := map[string]bool{}
	keep := [][]string{{"customer_id", "age", "rating", "feedback", "division", "class"}}
	for i, row := range rows[1:] {
		id := strconv.Itoa(i + 1)
		truth[id] = row[9] == "Dresses"
		keep = append(keep, []string{id, row[2], row[5], row[7], row[8], row[10]})
	}
	// The class of a garment gives its department away: what is tested is that
	// the pipeline finds it on 23,486 rows.
	outcome{name: "womens_clothing", rows: keep, truth: truth, seeds: 200, auc: 0.95, lift5: 3, args: []string{"--model", "none"}}.check(t)
}

func TestOnlineRetailOrders(t *testing.T) {
	rows := rowsOf(t, shared(t, "online_retail/online_retail.csv.gz"), ',')
	// From the orders until the end of August, who buys again in the last three
	// months (the file ends on 9 December 2011)? Only customers of the first part
	// are ranked, and nothing of the second is shown.
	const cut = "2011-09-01"
	numbers := map[string]string{}
	truth := map[string]bool{}
	keep := [][]string{{"customer", "invoice", "item", "quantity", "price", "when", "country"}}
	for _, row := range rows[1:] { // in order of time
		id := row[6]
		if id == "" || strings.HasPrefix(row[0], "C") {
			continue
		}
		if row[4] >= cut {
			if n := numbers[id]; n != "" {
				truth[n] = true
			}
			continue
		}
		if numbers[id] == "" {
			numbers[id] = strconv.Itoa(len(numbers) + 1)
			truth[numbers[id]] = false
		}
		keep = append(keep, []string{numbers[id], row[0], row[1], row[3], row[5], row[4], row[7]})
	}
	outcome{name: "online_retail", rows: keep, truth: truth, seeds: 100, auc: 0.70, lift5: 1.3, args: []string{"--group-by", "customer", "--model", "none"}}.check(t)
	// With orders that lose weight it is no worse.
	outcome{name: "online_retail, half-life", rows: keep, truth: truth, seeds: 100, auc: 0.70, lift5: 1.3, args: []string{"--group-by", "customer", "--model", "none", "--half-life", "60d", "--as-of", cut}}.check(t)
}

// textOutcome takes every step-th row of a text set.
func textOutcome(t *testing.T, model string, o outcome) {
	t.Helper()
	if testing.Short() {
		t.Skip("encoding takes seconds")
	}
	if _, ok := models.Find(model); !ok {
		absent(t, "the model "+model)
	}
	o.args = append(o.args, "--model", model, "--text", "review")
	o.check(t)
}

func TestWomensClothingText(t *testing.T) {
	rows := rowsOf(t, shared(t, "womens_clothing/reviews.csv.gz"), ',')
	truth := map[string]bool{}
	keep := [][]string{{"customer_id", "age", "review"}}
	for i := 1; i < len(rows); i += 20 {
		id := strconv.Itoa(len(keep))
		truth[id] = rows[i][9] == "Dresses"
		keep = append(keep, []string{id, rows[i][2], rows[i][4]})
	}
	textOutcome(t, "all-MiniLM-L6-v2", outcome{name: "womens_clothing text", rows: keep, truth: truth, seeds: 100, auc: 0.84, lift5: 3})
}

func TestOnlineShoppingFruit(t *testing.T) {
	rows := rowsOf(t, shared(t, "online_shopping_10_cats/online_shopping_10_cats.csv.gz"), ',')
	truth := map[string]bool{}
	keep := [][]string{{"customer_id", "review"}}
	for i := 1; i < len(rows); i += 54 {
		id := strconv.Itoa(len(keep))
		truth[id] = rows[i][0] == "水果"
		keep = append(keep, []string{id, rows[i][2]})
	}
	textOutcome(t, "bge-small-zh-v1.5", outcome{name: "fruit", rows: keep, truth: truth, seeds: 80, auc: 0.94, lift5: 6})
}
