package report

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/phrases"
)

var update = flag.Bool("update", false, "write the golden page anew")

func iv(v, d float64) audience.Interval { return audience.Interval{Value: v, Low: v - d, High: v + d} }

func measure(name string, auc, lift float64) audience.Measure {
	m := audience.Measure{Name: name, AUC: iv(auc, 0.02)}
	for _, share := range []float64{0.04, 0.01, 0.02, 0.05, 0.1, 0.2} {
		l := 1 + (lift-1)*(1-share)
		m.Sizes = append(m.Sizes, audience.AtSize{Share: share, Recall: iv(l*share, 0.01), Lift: iv(l, 0.4)})
	}
	return m
}

func sample() *audience.Result {
	r := &audience.Result{
		Manifest: audience.Manifest{Name: "spring", Method: "0.6 classifier + 0.4 centroid", Asked: "auto", Customers: 5000, Eligible: 4800, Seeds: 200, Size: 192, Columns: []string{"age", "region"}, Text: true, Left: []string{"gender"}, Folds: 5, SeedsHash: "ab12"},
		Quality: audience.Quality{
			Verdict: audience.Signal, Words: "Held-out seeds rank well above chance.", HeldOut: 200, Measure: measure("auto", 0.88, 6.2),
			Baselines: []audience.Measure{measure("random", 0.5, 1), measure("text only", 0.83, 4.9), measure("columns only", 0.74, 3)},
			Null:      measure("null", 0.51, 1.1),
		},
		Doctor:     audience.Doctor{Verdict: "go", Notes: []string{"the seeds are alike"}, Given: 203, Matched: 200, Duplicates: 1, Unmatched: []string{"c9", "c10"}, Coherence: 0.41, Background: 0.22},
		Reasons:    []audience.Reason{{Column: "interests", Label: "running", Audience: 0.52, Population: 0.09, Lift: 5.8, Z: 12}, {Column: "plan", Label: "free", Audience: 0.08, Population: 0.2, Lift: 0.4, Z: -4}},
		Candidates: []audience.Candidate{{Name: "classifier", AUC: 0.87, Weight: 0.6, Chosen: true}, {Name: "clusters", AUC: 0.84}},
		Warnings:   []string{"2 of 203 seeds match no customer"},
		Histograms: audience.Histograms{Low: -3, High: 4},
		Phrases:    audience.Phrases{Audience: []phrases.Phrase{{Text: "marathon", Count: 60, Share: 0.3, Population: 0.05, Lift: 6, Z: 9}}, Seeds: []phrases.Phrase{{Text: "跑鞋", Count: 50, Share: 0.25, Population: 0.04, Lift: 6.2, Z: 8}}, Read: audience.Readers{Audience: 192, Seeds: 200, Everyone: 5000}},
		Map:        audience.Map{Axes: []audience.Axis{{Share: 0.3, Toward: []string{"higher age"}}, {Share: 0.2, Toward: []string{}}}},
		Fairness: []audience.Disparity{{Column: "gender", Groups: []audience.GroupRate{
			{Label: "f", Eligible: 2400, Members: 60, Rate: iv(0.025, 0.006), Ratio: iv(0.45, 0.1), FourFifths: true},
			{Label: "m", Eligible: 2300, Members: 130, Rate: iv(0.057, 0.01), Ratio: audience.Interval{Value: 1, Low: 0.8, High: 1.3}},
		}, Proxies: []audience.Proxy{{Column: "interests", Value: "running", Strength: 0.4}, {Column: "text", Value: "m", Strength: 0.2}}, Cost: &audience.Cost{MinRatio: 0.4, Precision: 0.5, Without: 0.53, Changed: 12}}},
	}
	r.Quality.Reliability = audience.Reliability{Brier: 0.06, Climate: 0.09, Error: 0.02, Prevalence: 0.1}
	for i := range 8 {
		p := float64(i) / 10
		r.Quality.Reliability.Bins = append(r.Quality.Reliability.Bins, audience.ReliabilityBin{Low: p, High: p + 0.1, Predicted: p + 0.05, Observed: iv(p+0.03, 0.03), Customers: 900 - 100*i, Seeds: 25})
	}
	for i := range 300 {
		x, y := float32(math.Sin(float64(i)*12.9898)), float32(math.Cos(float64(i)*78.233))
		r.Map.Population = append(r.Map.Population, [2]float32{x, y})
		if i%6 == 0 {
			r.Map.Audience = append(r.Map.Audience, [2]float32{0.5 + x/2, y / 2})
			r.Map.Seeds = append(r.Map.Seeds, [2]float32{0.6 + y/3, x / 3})
		}
	}
	for i := range 30 {
		r.Histograms.Population = append(r.Histograms.Population, (30-i)*i)
		r.Histograms.Audience = append(r.Histograms.Audience, max(0, i-20)*5)
		r.Histograms.Seeds = append(r.Histograms.Seeds, max(0, i-12)*(30-i)/9)
	}
	for i := range 25 {
		x := float64(i+1) / 25
		r.Curve = append(r.Curve, audience.Point{Size: int(4800 * x), Score: float32(4 - 7*x), Precision: 0.7*(1-x) + 0.05, Low: 0.6*(1-x) + 0.04, High: 0.8*(1-x) + 0.07, Recall: 1 - (1-x)*(1-x)*(1-x)})
	}
	for i := range 40 {
		r.Members = append(r.Members, audience.Member{ID: "c" + string(rune('a'+i%26)) + "7", Rank: i + 1, Score: 3 - float32(i)/20, Probability: 0.9, Parts: []audience.Part{{Of: "intercept", Value: -9}, {Of: "text", Value: 2}, {Of: "age", Value: -0.5}, {Of: "region", Value: 0.8}}})
	}
	return r
}

func fullMeta() Meta {
	return Meta{
		Notice: "generated customers", Source: "customers.csv", Model: "all-MiniLM-L6-v2", Tool: "kindred dev",
		Created: time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC),
		Truth:   &Truth{What: "runners", AUC: 0.9, Lift5: 6, Precision: 0.55, Base: 0.09, Size: 192},
		Why:     []audience.Explanation{{ID: "ca7", In: true, Rank: 1, Score: 3, Probability: 0.9, Reasons: []audience.Part{{Of: "text", Value: 2}, {Of: "age", Value: -0.5}, {Of: "intercept", Value: 1.5}}, Passages: []audience.PassagePart{{Field: "review", Text: "my second marathon", Share: 0.5, Value: 1.9}, {Text: "the invoice", Share: 0.5, Value: -0.1}}, Nearest: []audience.Neighbour{{ID: "c9", Similarity: 0.8}}, Counterfactuals: []audience.Counterfactual{{Changes: []audience.Change{{Column: "age", From: 31.0, To: 64.0}}}}}},
	}
}

func render(t *testing.T, r *audience.Result, m Meta) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, r, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	got := render(t, sample(), fullMeta())
	path := filepath.Join("testdata", "report.html")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("the page differs from testdata/report.html: look at it, then go test ./report -update")
	}
}

func TestEveryPartIsThere(t *testing.T) {
	got := render(t, sample(), fullMeta())
	for _, id := range []string{"notice", "verdict", "warnings", "truth", "quality", "sizes", "map", "reach", "reliability", "phrases", "why", "histogram", "reasons", "members", "doctor", "fairness", "methods", "manifest"} {
		if !strings.Contains(got, `id="`+id+`"`) {
			t.Errorf("section %s is missing", id)
		}
	}
	for _, words := range []string{"5.99 (5.59 to 6.39)", "random seeds (null)", "28 more are in the list", "look closer", "interests (running) 0.400", "跑鞋", "my second marathon", "age 31 becomes 64", "To the right: higher age", "prefers-color-scheme:dark", "@media print"} {
		if !strings.Contains(got, words) {
			t.Errorf("%q is missing", words)
		}
	}
	if n := strings.Count(got, "look closer</td>"); n != 1 {
		t.Errorf("%d groups are flagged, want only the large one below four fifths", n)
	}
}

func TestNothingComesFromOutside(t *testing.T) {
	got := render(t, sample(), fullMeta())
	for _, rule := range []string{`https?://`, `<script`, `<link`, `<img`, `@import`, `url\(`, `src=`} {
		if m := regexp.MustCompile(rule).FindString(got); m != "" {
			t.Errorf("the page has %q", m)
		}
	}
	if strings.Contains(got, "ZgotmplZ") {
		t.Error("the template put a value where it is not safe")
	}
}

func TestMarkupInDataStaysText(t *testing.T) {
	const evil = `</title></td><script>alert(1)</script><img src=x onerror=alert(1)>" onload="alert(1)`
	r, m := sample(), fullMeta()
	r.Manifest.Name, r.Manifest.Method, r.Manifest.Columns = evil, evil, []string{evil}
	r.Quality.Words, r.Warnings, r.Doctor.Notes, r.Doctor.Unmatched = evil, []string{evil}, []string{evil}, []string{evil}
	r.Quality.Baselines[0].Name, r.Candidates[0].Name = evil, evil
	r.Reasons[0].Column, r.Reasons[0].Label = evil, evil
	r.Members[0].ID, r.Members[0].Parts[1].Of = evil, evil
	m.Notice, m.Source, m.Tool, m.Truth.What = evil, evil, evil, evil
	r.Fairness[0].Column, r.Fairness[0].Groups[0].Label, r.Fairness[0].Proxies[0].Value = evil, evil, evil
	r.Phrases.Audience[0].Text, r.Map.Axes[0].Toward[0] = evil, evil
	m.Why[0].ID, m.Why[0].Passages[0].Text, m.Why[0].Nearest[0].ID, m.Why[0].Counterfactuals[0].Changes[0].Column = evil, evil, evil, evil
	got := render(t, r, m)
	for _, bad := range []string{"<script", "<img", `" onload=`} {
		if strings.Contains(got, bad) {
			t.Errorf("%q got through", bad)
		}
	}
	if n := strings.Count(got, "&lt;script&gt;"); n < 24 {
		t.Errorf("the data appears %d times as text, want every one of them", n)
	}
}

func TestThinResultsStillRender(t *testing.T) {
	for name, verdict := range map[string]string{"not measured": audience.NotMeasured, "no signal": audience.NoSignal, "zero": ""} {
		got := render(t, &audience.Result{Quality: audience.Quality{Verdict: verdict}}, Meta{})
		if strings.Contains(got, "NaN") || strings.Contains(got, "Inf") || !strings.Contains(got, "</html>") {
			t.Errorf("%s: the page has numbers that are none", name)
		}
	}
	if err := Write(&bytes.Buffer{}, nil, Meta{}); err == nil {
		t.Error("no result: no error")
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
}
