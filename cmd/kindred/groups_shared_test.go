package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/audience/tag"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

// groups.json says what scikit-learn makes of the same vectors; groups_oracle.py
// made it, and takes its texts and draws its examples as this file does.
type groupsGolden struct {
	Segments []struct {
		Set          string
		Texts, Kinds int
		Rand, Info   float64
	}
	Tags []struct {
		Set           string
		Each          int
		Plain, Chosen float64
	}
}

// labelled is a set of texts with their vectors; labels are parallel.
type labelled struct {
	x            [][]float32
	kind, spirit []string
}

// readSets are the sets that were read: to encode them is most of the work.
var readSets = map[string]labelled{}

func readLabelled(t *testing.T, name string) labelled {
	t.Helper()
	if had, ok := readSets[name]; ok {
		return had
	}
	if testing.Short() {
		t.Skip("encoding takes seconds")
	}
	var out labelled
	var texts []string
	model, n := "all-MiniLM-L6-v2", 0
	take := func(text, kind, spirit string) {
		texts = append(texts, strings.Join(strings.Fields(text), " "))
		out.kind, out.spirit = append(out.kind, kind), append(out.spirit, spirit)
	}
	switch name {
	case "banking77":
		for i, r := range rowsOf(t, shared(t, "banking77/test.csv.gz"), ',')[1:] {
			if i%2 == 0 {
				take(r[0], r[1], "")
			}
		}
	case "airline":
		for _, r := range rowsOf(t, shared(t, "airline_tweets/tweets.csv.gz"), ',')[1:] {
			if r[2] != "positive" && r[2] != "negative" {
				continue
			}
			if n%12 == 0 {
				take(r[3], "", r[2])
			}
			n++
		}
	case "shopping":
		model = "bge-small-zh-v1.5"
		for _, r := range rowsOf(t, shared(t, "online_shopping_10_cats/online_shopping_10_cats.csv.gz"), ',')[1:] {
			if c := utf8.RuneCountInString(strings.Join(strings.Fields(r[2]), " ")); c < 5 || c > 60 {
				continue
			}
			if n%40 == 0 {
				take(r[2], r[0], r[1])
			}
			n++
		}
	}
	if _, ok := models.Find(model); !ok {
		absent(t, "the model "+model)
	}
	m, err := (&app{}).openCached(model)
	if err != nil {
		t.Fatal(err)
	}
	res, err := m.Encode(t.Context(), texts, embed.EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range texts {
		out.x = append(out.x, res.Row(i))
	}
	readSets[name] = out
	return out
}

func readGroupsGolden(t *testing.T) (g groupsGolden) {
	t.Helper()
	raw, err := os.ReadFile("testdata/groups.json")
	if err == nil {
		err = json.Unmarshal(raw, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// On real texts segments are what k-means of scikit-learn finds, or nearer to the
// truth, and their number is about that of the kinds where these are few.
func TestSegmentsOfRealTexts(t *testing.T) {
	for _, want := range readGroupsGolden(t).Segments {
		t.Run(want.Set, func(t *testing.T) {
			d := readLabelled(t, want.Set)
			if len(d.x) != want.Texts {
				t.Fatalf("%d texts, the golden is of %d", len(d.x), want.Texts)
			}
			eng, err := memory.Open().Create(t.Context(), index.Spec{Name: "x", Dim: len(d.x[0]), Precision: index.Fp32})
			if err != nil {
				t.Fatal(err)
			}
			rows := make([]index.Row, len(d.x))
			for i, x := range d.x {
				rows[i] = index.Row{ID: fmt.Sprintf("%05d", i), Vector: x}
			}
			if err := eng.Upsert(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
			snap, err := eng.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := snap.Close(); err != nil {
					t.Error(err)
				}
			}()
			pop := segment.Population{Snap: snap, Spec: eng.Spec()}
			_, m, err := segment.Discover(t.Context(), pop, segment.Params{K: want.Kinds}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, x := range d.x {
				n, _ := m.Assign(x, nil)
				got = append(got, fmt.Sprint(n))
			}
			rand, info := agreement(got, d.kind)
			t.Logf("adjusted Rand %.3f (scikit-learn %.3f), normalised mutual information %.3f (%.3f)", rand, want.Rand, info, want.Info)
			if rand < want.Rand-0.02 || info < want.Info-0.01 {
				t.Errorf("adjusted Rand %.3f, mutual information %.3f; scikit-learn reaches %.3f and %.3f", rand, info, want.Rand, want.Info)
			}
			if want.Kinds > 24 {
				return // more than are thought of unless asked for
			}
			set, _, err := segment.Discover(t.Context(), pop, segment.Params{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d segments were chosen, there are %d kinds", len(set.Segments), want.Kinds)
			if n := len(set.Segments); n < want.Kinds-2 || n > want.Kinds+2 {
				t.Errorf("%d segments of %d kinds: %+v", n, want.Kinds, set.Choices)
			}
		})
	}
}

// agreement is the adjusted Rand index of two ways of grouping and their mutual
// information over the mean of their entropies.
func agreement(a, b []string) (rand, info float64) {
	both, x, y := map[[2]string]float64{}, map[string]float64{}, map[string]float64{}
	for i := range a {
		both[[2]string{a[i], b[i]}]++
		x[a[i]]++
		y[b[i]]++
	}
	n := float64(len(a))
	pairs := func(m float64) float64 { return m * (m - 1) / 2 }
	var xy, xs, ys, hx, hy float64
	for k, m := range both {
		xy += pairs(m)
		info += m / n * math.Log(m*n/(x[k[0]]*y[k[1]]))
	}
	for _, m := range x {
		xs += pairs(m)
		hx -= m / n * math.Log(m/n)
	}
	for _, m := range y {
		ys += pairs(m)
		hy -= m / n * math.Log(m/n)
	}
	chance := xs * ys / pairs(n)
	return (xy - chance) / ((xs+ys)/2 - chance), info / ((hx + hy) / 2)
}

// From a few examples tags are as right as scikit-learn's logistic regression on
// the same vectors and examples, and as sure as they are right.
func TestTagsOfRealTexts(t *testing.T) {
	for _, want := range readGroupsGolden(t).Tags {
		t.Run(fmt.Sprintf("%s %d", want.Set, want.Each), func(t *testing.T) {
			d := readLabelled(t, want.Set)
			const draws = 3
			var right, sure, promised float64
			for draw := range draws {
				train := drawExamples(d.spirit, want.Each, draw)
				e := tag.Examples{Dim: len(d.x[0])}
				for _, i := range train {
					if !slices.Contains(e.Labels, d.spirit[i]) {
						e.Labels = append(e.Labels, d.spirit[i])
					}
				}
				slices.Sort(e.Labels)
				for _, i := range train {
					e.X, e.Y = append(e.X, d.x[i]...), append(e.Y, slices.Index(e.Labels, d.spirit[i]))
				}
				m, sheet, err := tag.Train(t.Context(), e, 0, nil)
				if err != nil {
					t.Fatal(err)
				}
				promised += sheet.Accuracy / draws
				left := float64(draws * (len(d.x) - len(train)))
				for i, x := range d.x {
					if slices.Contains(train, i) {
						continue
					}
					top := m.Tags(x)[0]
					sure += top.Confidence / left
					if top.Label == d.spirit[i] {
						right += 1 / left
					}
				}
			}
			t.Logf("accuracy %.3f (scikit-learn %.3f, with C chosen %.3f), confidence %.3f, promised %.3f", right, want.Plain, want.Chosen, sure, promised)
			if right < math.Max(want.Plain, want.Chosen)-0.01 {
				t.Errorf("accuracy %.3f, scikit-learn reaches %.3f, and %.3f with C chosen", right, want.Plain, want.Chosen)
			}
			// Of sixteen examples nobody knows better how sure to be.
			if gap := math.Abs(sure - right); gap > 0.1 || want.Each >= 100 && gap > 0.04 {
				t.Errorf("mean confidence %.3f, accuracy %.3f", sure, right)
			}
		})
	}
}

// drawExamples takes the first of each label in an order that the script knows too.
func drawExamples(labels []string, each, draw int) []int {
	order := make([]int, len(labels))
	for i := range order {
		order[i] = i
	}
	at := func(i int) int { return ((i+1)*7919 + draw*3001) % 10007 }
	slices.SortStableFunc(order, func(a, b int) int { return at(a) - at(b) })
	took := map[string]int{}
	var out []int
	for _, i := range order {
		if took[labels[i]] < each {
			took[labels[i]]++
			out = append(out, i)
		}
	}
	return out
}
