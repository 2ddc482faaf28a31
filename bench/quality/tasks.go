package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

const idColumn = "customer_id"

// task is a table with an outcome. Rows are customers, numbered from 1.
type task struct {
	name    string
	what    string // the outcome, and what was left out
	file    string
	comma   rune
	build   func(data string) ([][]string, error) // instead of file: rows, header first
	sets    []string                              // columns of several values, divided by bars
	header  []string                              // for a file without one
	outcome string
	is      string              // value of the outcome that is positive
	has     func(string) bool   // instead of is
	drop    []string            // columns that no side sees: ids, the outcome's leaks
	text    []string            // columns to encode
	model   string              // of the texts
	keep    func([]string) bool // nil: all rows; sees the raw row
	sample  int                 // 0: all
}

const (
	english = "all-MiniLM-L6-v2"
	chinese = "bge-small-zh-v1.5"
)

var tasks = slices.Concat(tableTasks, behaviourTasks)

var tableTasks = []task{
	{
		name: "adult", what: "income over 50K; race and sex are ordinary columns here", file: "adult/adult.data.csv.gz", comma: ',',
		header: []string{
			"age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race", "sex",
			"capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
		},
		outcome: "income", is: ">50K",
	},
	{name: "bank_marketing", what: "took a term deposit; without duration, known only after the call", file: "bank_marketing/bank-full.csv.gz", comma: ';', outcome: "y", is: "yes", drop: []string{"duration"}},
	{name: "telco_churn", what: "churned", file: "telco_churn/telco_customer_churn.csv.gz", comma: ',', outcome: "Churn", is: "Yes", drop: []string{"customerID"}},
	{name: "customer_personality", what: "took the last campaign's offer", file: "customer_personality/marketing_campaign.csv", comma: ';', outcome: "Response", is: "1", drop: []string{"ID"}},
	{
		name: "hillstrom_visit", what: "visited the shop after the e-mail; 20,000 rows drawn", file: "hillstrom_email/hillstrom.csv.gz", comma: ',', outcome: "visit", is: "1",
		drop: []string{"conversion", "spend"}, sample: 20000,
	},
	{name: "ecommerce_churn_zh", what: "churned; Chinese names of columns", file: "ecommerce_churn_zh/ecommerce_churn.csv.gz", comma: ',', outcome: "Churn（用户流失）", is: "1", drop: []string{"CustomerID"}},
	{
		name: "banking77_top_up", what: "asks about topping up (9 of 77 intents); text only", file: "banking77/train.csv.gz", comma: ',', outcome: "category",
		has: func(v string) bool { return strings.Contains(v, "top_up") || strings.Contains(v, "topping_up") }, text: []string{"text"}, model: english,
	},
	{
		name: "womens_clothing", what: "does not recommend; text and columns, without the rating, which says the same; 12,000 rows drawn", file: "womens_clothing/reviews.csv.gz", comma: ',',
		outcome: "Recommended IND", is: "0", drop: []string{"", "Rating"}, text: []string{"Title", "Review Text"}, model: english, sample: 12000,
	},
	{
		name: "airline_negative", what: "negative tweet; text only; 10,000 rows drawn", file: "airline_tweets/tweets.csv.gz", comma: ',', outcome: "airline_sentiment", is: "negative",
		drop: []string{"user", "tweet_id", "tweet_created", "user_timezone"}, text: []string{"text"}, model: english, sample: 10000,
	},
	{
		name: "shop_fruit", what: "review of fruit, among ten goods; Chinese text only; 12,000 rows drawn", file: "online_shopping_10_cats/online_shopping_10_cats.csv.gz", comma: ',', outcome: "cat", is: "水果",
		drop: []string{"label"}, text: []string{"review"}, model: chinese, sample: 12000,
	},
	{
		name: "shop_hotel_negative", what: "negative review of a hotel, among hotels'; Chinese text only; 6,000 rows drawn", file: "online_shopping_10_cats/online_shopping_10_cats.csv.gz", comma: ',', outcome: "label", is: "0",
		drop: []string{"cat"}, text: []string{"review"}, model: chinese, sample: 6000, keep: func(row []string) bool { return row[0] == "酒店" },
	},
}

// reading says how ingest takes customers.csv.
func (t *task) reading() ingest.Options {
	opt := ingest.Options{IDColumn: idColumn, TextColumns: t.text, Types: map[string]profile.FieldType{}}
	for _, name := range t.sets {
		opt.Types[name] = profile.TypeSet
	}
	return opt
}

func names() []string {
	var out []string
	for _, t := range tasks {
		out = append(out, t.name)
	}
	return out
}

// load reads the file, or builds the table, header first.
func (t *task) load(data string) ([][]string, error) {
	if t.build != nil {
		return t.build(data)
	}
	raw, err := unpacked(data, t.file)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(bytes.NewReader(raw))
	r.Comma, r.LazyQuotes = t.comma, true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.file, err)
	}
	if t.header != nil {
		rows = slices.Insert(rows, 0, t.header)
	}
	return rows, nil
}

// table is what both sides see, with a number for an id, and the truth by id.
// A sample is drawn with a fixed seed and keeps the order of the file.
func (t *task) table(rows [][]string) ([][]string, map[string]bool, error) {
	outcome := slices.Index(rows[0], t.outcome)
	if outcome < 0 {
		return nil, nil, fmt.Errorf("%s has no column %q", t.file, t.outcome)
	}
	head, cols := []string{idColumn}, []int(nil)
	for i, name := range rows[0] {
		if i != outcome && !slices.Contains(t.drop, name) {
			head, cols = append(head, name), append(cols, i)
		}
	}
	if len(cols)+len(t.drop)+1 != len(rows[0]) {
		return nil, nil, fmt.Errorf("%s lacks one of the columns to leave out: %q", t.file, t.drop)
	}
	var kept []int
	for i, row := range rows[1:] {
		if t.keep == nil || t.keep(row) {
			kept = append(kept, i+1)
		}
	}
	if t.sample > 0 && t.sample < len(kept) {
		rng := rand.New(rand.NewPCG(1, uint64(t.sample)))
		rng.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
		kept = kept[:t.sample]
		slices.Sort(kept)
	}
	table, truth := [][]string{head}, map[string]bool{}
	for _, i := range kept {
		id := strconv.Itoa(i)
		row := []string{id}
		for _, c := range cols {
			row = append(row, strings.TrimSpace(rows[i][c]))
		}
		table = append(table, row)
		value := strings.TrimSpace(rows[i][outcome])
		truth[id] = value == t.is
		if t.has != nil {
			truth[id] = t.has(value)
		}
	}
	return table, truth, nil
}

func writeCSV(path string, rows [][]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	return errors.Join(w.WriteAll(rows), f.Close())
}
