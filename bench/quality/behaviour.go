package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// outcomeColumn is the outcome's name in tables that are put together here.
const outcomeColumn = "outcome"

// behaviourTasks are those whose customers are put together from what they did.
var behaviourTasks = []task{
	{
		name: "movielens_female", what: "is a woman, by age, occupation and the films rated", build: movielens("gender", "F"),
		outcome: outcomeColumn, is: "1", sets: []string{"films"},
	},
	{
		name: "movielens_student", what: "is a student, by age, sex and the films rated", build: movielens("occupation", "student"),
		outcome: outcomeColumn, is: "1", sets: []string{"films"},
	},
	{
		name: "lastfm_listeners", what: "listens to the artist whom most listen to, by the other artists", build: lastfm(1),
		outcome: outcomeColumn, is: "1", sets: []string{"artists"},
	},
	{
		name: "retail_top_spend", what: "spends most (a tenth) after 1 September 2011, by what they bought before", build: retail,
		outcome: outcomeColumn, is: "1", sets: []string{"items"},
	},
	{
		name: "groceries_yogurt", what: "buys yogurt in 2015, by the baskets of 2014", build: groceries("yogurt"),
		outcome: outcomeColumn, is: "1", sets: []string{"items"},
	},
	{
		name: "restaurant_crayfish", what: "the order has spicy crayfish on it, by the other dishes; Chinese", build: restaurant("麻辣小龙虾"),
		outcome: outcomeColumn, is: "1", sets: []string{"dishes"},
	},
}

// developTasks are for choosing between methods; they are measured when named, and
// never reported. None shares an outcome with a task that is.
var developTasks = []task{
	{name: "develop_lastfm_2", what: "listens to the second artist", build: lastfm(2), outcome: outcomeColumn, is: "1", sets: []string{"artists"}},
	{name: "develop_lastfm_5", what: "listens to the fifth artist", build: lastfm(5), outcome: outcomeColumn, is: "1", sets: []string{"artists"}},
	{name: "develop_groceries_sausage", what: "buys sausage in 2015", build: groceries("sausage"), outcome: outcomeColumn, is: "1", sets: []string{"items"}},
	{name: "develop_restaurant_spinach", what: "spinach is on the order", build: restaurant("凉拌菠菜"), outcome: outcomeColumn, is: "1", sets: []string{"dishes"}},
	{
		name: "develop_dianping", what: "positive review of a restaurant", file: "dianping_2k/dianping.csv.gz", comma: ',', outcome: "sentiment", is: "1",
		text: []string{"comment"}, model: chinese,
	},
	{
		name: "develop_weibo", what: "positive post; 3,000 rows drawn", file: "weibo_senti_devtest/dev.tsv.gz", comma: '\t', outcome: "label", is: "1",
		text: []string{"x_valid"}, model: chinese, sample: 3000,
	},
	{
		name: "develop_yelp", what: "five stars; 3,000 rows drawn", file: "yelp_10k/yelp.csv.gz", comma: ',', outcome: "stars", is: "5",
		drop: []string{"business_id", "date", "review_id", "type", "user_id", "cool", "useful", "funny"}, text: []string{"text"}, model: english, sample: 3000,
	},
}

// unpacked reads a file, gzip or plain, as UTF-8 without its byte order mark.
func unpacked(data, file string) (raw []byte, err error) {
	f, err := os.Open(filepath.Join(data, filepath.FromSlash(file)))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var in io.Reader = bufio.NewReader(f)
	if strings.HasSuffix(file, ".gz") {
		if in, err = gzip.NewReader(in); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	raw, err = io.ReadAll(in)
	return bytes.TrimPrefix(raw, []byte("\ufeff")), err
}

// cells cuts a file into rows by a separator, without quotes.
func cells(data, file, sep string) ([][]string, error) {
	raw, err := unpacked(data, file)
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			rows = append(rows, strings.Split(line, sep))
		}
	}
	return rows, nil
}

// records reads a CSV file and returns its rows and where each column stands.
func records(data, file string) ([][]string, map[string]int, error) {
	raw, err := unpacked(data, file)
	if err != nil {
		return nil, nil, err
	}
	r := csv.NewReader(bytes.NewReader(raw))
	r.LazyQuotes = true
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, nil, fmt.Errorf("%s: %d rows: %w", file, len(rows), errors.Join(err, io.ErrUnexpectedEOF))
	}
	at := map[string]int{}
	for i, name := range rows[0] {
		at[name] = i
	}
	return rows[1:], at, nil
}

// listed writes a set as a cell: names in order, divided by bars.
func listed(set map[string]bool) string {
	var names []string
	for name := range set {
		names = append(names, strings.ReplaceAll(name, "|", "/"))
	}
	slices.Sort(names)
	return strings.Join(names, "|")
}

func yes(is bool) string {
	if is {
		return "1"
	}
	return "0"
}

// put adds an element to a key's set.
func put(sets map[string]map[string]bool, key, element string) {
	if sets[key] == nil {
		sets[key] = map[string]bool{}
	}
	sets[key][element] = true
}

// movielens is the users; the column that is the outcome is left out.
func movielens(outcome, is string) func(string) ([][]string, error) {
	return func(data string) ([][]string, error) {
		users, err := cells(data, "movielens_100k/u.user", "|")
		if err != nil {
			return nil, err
		}
		films, err := cells(data, "movielens_100k/u.item", "|")
		if err != nil {
			return nil, err
		}
		ratings, err := cells(data, "movielens_100k/u.data.gz", "\t")
		if err != nil {
			return nil, err
		}
		title := map[string]string{}
		for _, f := range films {
			title[f[0]] = f[1]
		}
		rated, sum, n := map[string]map[string]bool{}, map[string]float64{}, map[string]int{}
		for _, r := range ratings {
			put(rated, r[0], title[r[1]])
			stars, err := strconv.ParseFloat(r[2], 64)
			if err != nil {
				return nil, err
			}
			sum[r[0]] += stars
			n[r[0]]++
		}
		of := map[string]int{"age": 1, "gender": 2, "occupation": 3}
		head := []string{outcomeColumn}
		for _, name := range []string{"age", "gender", "occupation"} {
			if name != outcome {
				head = append(head, name)
			}
		}
		rows := [][]string{append(head, "ratings", "mean_rating", "films")}
		for _, u := range users {
			row := []string{yes(u[of[outcome]] == is)}
			for _, name := range head[1:] {
				row = append(row, u[of[name]])
			}
			rows = append(rows, append(row, strconv.Itoa(n[u[0]]), fmt.Sprintf("%.2f", sum[u[0]]/float64(n[u[0]])), listed(rated[u[0]])))
		}
		return rows, nil
	}
}

// lastfm is the listeners; the artist with the rank-th most of them is the outcome.
func lastfm(rank int) func(string) ([][]string, error) {
	return func(data string) ([][]string, error) { return listeners(data, rank) }
}

func listeners(data string, rank int) ([][]string, error) {
	lines, err := cells(data, "lastfm_hetrec_2k/user_artists.dat.gz", "\t")
	if err != nil {
		return nil, err
	}
	names, err := cells(data, "lastfm_hetrec_2k/artists.dat.gz", "\t")
	if err != nil {
		return nil, err
	}
	name := map[string]string{}
	for _, n := range names[1:] {
		name[n[0]] = n[1]
	}
	count := map[string]int{}
	for _, l := range lines[1:] {
		count[l[1]]++
	}
	byCount := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	top := byCount[rank-1]
	artists, plays, fan := map[string]map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, l := range lines[1:] {
		if l[1] == top {
			fan[l[0]] = true
			continue
		}
		put(artists, l[0], name[l[1]])
		n, err := strconv.Atoi(strings.TrimSpace(l[2]))
		if err != nil {
			return nil, err
		}
		plays[l[0]] += n
	}
	rows := [][]string{{outcomeColumn, "plays", "artists"}}
	for _, u := range slices.Sorted(maps.Keys(artists)) {
		rows = append(rows, []string{yes(fan[u]), strconv.Itoa(plays[u]), listed(artists[u])})
	}
	return rows, nil
}

// retail is the customers who bought before the cut-off. Cancelled lines count as
// what they are: money back.
func retail(data string) ([][]string, error) {
	lines, at, err := records(data, "online_retail/online_retail.csv.gz")
	if err != nil {
		return nil, err
	}
	const cut, layout = "2011-09-01", "2006-01-02 15:04:05"
	end, err := time.Parse(time.DateOnly, cut)
	if err != nil {
		return nil, err
	}
	type person struct {
		country       string
		spent, after  float64
		lines         int
		orders, items map[string]bool
		first, last   time.Time
	}
	people := map[string]*person{}
	for _, l := range lines {
		id := l[at["CustomerID"]]
		if id == "" {
			continue
		}
		when, err1 := time.Parse(layout, l[at["InvoiceDate"]])
		quantity, err2 := strconv.ParseFloat(l[at["Quantity"]], 64)
		price, err3 := strconv.ParseFloat(l[at["UnitPrice"]], 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		p := people[id]
		if p == nil {
			p = &person{orders: map[string]bool{}, items: map[string]bool{}}
			people[id] = p
		}
		if !when.Before(end) {
			p.after += quantity * price
			continue
		}
		p.country = l[at["Country"]]
		p.spent += quantity * price
		p.lines++
		p.orders[l[at["InvoiceNo"]]] = true
		if quantity > 0 {
			p.items[strings.TrimSpace(l[at["Description"]])] = true
		}
		if p.first.IsZero() || when.Before(p.first) {
			p.first = when
		}
		if when.After(p.last) {
			p.last = when
		}
	}
	var known []string
	var after []float64
	for _, id := range slices.Sorted(maps.Keys(people)) {
		if people[id].lines > 0 {
			known = append(known, id)
			after = append(after, people[id].after)
		}
	}
	slices.Sort(after)
	edge := after[len(after)-len(after)/10]
	rows := [][]string{{outcomeColumn, "country", "spent", "lines", "orders", "days_since_last", "days_known", "items"}}
	days := func(from time.Time) string { return strconv.Itoa(int(end.Sub(from).Hours() / 24)) }
	for _, id := range known {
		p := people[id]
		rows = append(rows, []string{
			yes(p.after >= edge), p.country, fmt.Sprintf("%.2f", p.spent), strconv.Itoa(p.lines), strconv.Itoa(len(p.orders)),
			days(p.last), days(p.first), listed(p.items),
		})
	}
	return rows, nil
}

// groceries is the members of 2014; buying the item in 2015 is the outcome.
func groceries(wanted string) func(string) ([][]string, error) {
	return func(data string) ([][]string, error) { return baskets(data, wanted) }
}

func baskets(data, wanted string) ([][]string, error) {
	lines, at, err := records(data, "groceries_members/groceries.csv.gz")
	if err != nil {
		return nil, err
	}
	items, buys, count, days := map[string]map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]map[string]bool{}
	for _, l := range lines {
		id, date, item := l[at["Member_number"]], l[at["Date"]], l[at["itemDescription"]]
		if strings.HasSuffix(date, "2015") {
			buys[id] = buys[id] || item == wanted
			continue
		}
		put(items, id, item)
		put(days, id, date)
		count[id]++
	}
	rows := [][]string{{outcomeColumn, "lines", "visits", "items"}}
	for _, id := range slices.Sorted(maps.Keys(items)) {
		rows = append(rows, []string{yes(buys[id]), strconv.Itoa(count[id]), strconv.Itoa(len(days[id])), listed(items[id])})
	}
	return rows, nil
}

// restaurant is the orders; the dish's being on one is the outcome.
func restaurant(wanted string) func(string) ([][]string, error) {
	return func(data string) ([][]string, error) { return orders(data, wanted) }
}

func orders(data, wanted string) ([][]string, error) {
	lines, at, err := records(data, "restaurant_orders_zh/orders.csv.gz")
	if err != nil {
		return nil, err
	}
	dishes, has, portions, hour := map[string]map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]string{}
	for _, l := range lines {
		id, dish := l[at["order_id"]], l[at["dishes_name"]]
		if dish == wanted {
			has[id] = true
			continue
		}
		put(dishes, id, dish)
		n, err := strconv.Atoi(l[at["counts"]])
		if err != nil {
			return nil, err
		}
		portions[id] += n
		when, err := time.Parse("2006-01-02 15:04:05", l[at["place_order_time"]])
		if err != nil {
			return nil, err
		}
		hour[id] = strconv.Itoa(when.Hour())
	}
	rows := [][]string{{outcomeColumn, "portions", "hour", "dishes"}}
	for _, id := range slices.Sorted(maps.Keys(dishes)) {
		rows = append(rows, []string{yes(has[id]), strconv.Itoa(portions[id]), hour[id], listed(dishes[id])})
	}
	return rows, nil
}
