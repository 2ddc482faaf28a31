// Package report renders an audience as one HTML page that a marketer can read
// and that needs nothing else: no script, no font, no picture from outside. It
// opens from a disk, prints, and follows the reader's light or dark setting.
//
// Write takes the result of package audience and a Meta with what the result
// does not know: where the customers came from, a truth to compare with, some
// members explained. Charts are computed here as coordinates
// (chart.go) and drawn by the template as SVG, so that every word of a
// customer's data passes html/template's escaping.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
)

// Meta is what the report says beside the result. All of it may be zero.
type Meta struct {
	Title   string // "" makes one from the audience's name
	Notice  string // shown above everything, such as that the customers are generated
	Source  string // the file or collection
	Model   string // the encoder, "" for none
	Tool    string // program and version
	Created time.Time
	Truth   *Truth
	Why     []audience.Explanation // of some members
	Samples int                    // members shown; 0 means 12
}

// Truth is the list judged by a known outcome.
type Truth struct {
	What      string // of what: "planted segment runners"
	AUC       float64
	Lift5     float64 // lift of the best 5 %
	Precision float64 // share of the list that has the outcome
	Base      float64 // share of everyone (but the seeds) that has it
	Size      int     // members
}

//go:embed report.html.tmpl
var pageText string

// page parses the template anew; it is ours, so a fault is a programming error
// that the tests find.
func page() (*template.Template, error) {
	return template.New("report").Funcs(template.FuncMap{
		"num": num, "pct": pct, "int": grouped, "ci": interval, "f": coordinate, "cicon": ciPercent,
		"join": strings.Join, "nth": func(i int) int { return i + 1 }, "min": math.Min,
	}).Parse(pageText)
}

// view is what the template sees.
type view struct {
	R        *audience.Result
	M        Meta
	Title    string
	Created  string
	Headline string
	Tone     string // "good", "bad" or "unsure"
	Facts    []fact
	Rows     []row
	Rivals   bars
	Sizes    bars
	Reach    curve
	Hist     histogram
	Reasons  []reasonRow
	Members  []memberRow
	Fair     []fairRow
	Why      []whyRow
	Map      scatter
	Reliable reliability
	Phrases  []phraseRow
	SeedsSay []phraseRow
	More     int // members not shown
}

type fact struct{ Value, Label string }

type row struct {
	Name        string
	Kind        string // "main", "baseline" or "null"
	AUC         audience.Interval
	Recall      audience.Interval
	Lift, Lift5 audience.Interval
}

type reasonRow struct {
	audience.Reason
	AudienceW, PopulationW float64 // of 100
	More                   bool
}

type memberRow struct {
	audience.Member
	Parts []partBar
}

type partBar struct {
	audience.Part
	Share float64 // of 100, of the largest addend on the page
	Down  bool
}

// Write renders the page. The result is not changed.
func Write(w io.Writer, r *audience.Result, meta Meta) error {
	if r == nil {
		return fmt.Errorf("report: no result")
	}
	tmpl, err := page()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return tmpl.Execute(w, build(r, meta))
}

func build(r *audience.Result, meta Meta) view {
	v := view{R: r, M: meta, Title: meta.Title}
	if v.Title == "" {
		v.Title = "Lookalike audience"
		if r.Manifest.Name != "" {
			v.Title += " “" + r.Manifest.Name + "”"
		}
	}
	if !meta.Created.IsZero() {
		v.Created = meta.Created.Format("2 January 2006, 15:04 MST")
	}
	v.Headline, v.Tone = headline(r)
	v.Facts = []fact{
		{grouped(r.Manifest.Size), "in the audience"},
		{grouped(r.Manifest.Customers), "customers in all"},
		{grouped(r.Manifest.Seeds), "seeds"},
	}
	if r.Quality.Verdict != audience.NotMeasured {
		v.Facts = append(v.Facts, fact{num(r.Quality.Measure.AUC.Value), "held-out AUC (0.5 is chance)"})
	}
	v.Rows = append(v.Rows, rowOf(r.Quality.Measure, "main"))
	for _, m := range r.Quality.Baselines {
		v.Rows = append(v.Rows, rowOf(m, "baseline"))
	}
	if r.Quality.Null.Name != "" || len(r.Quality.Null.Sizes) > 0 {
		null := rowOf(r.Quality.Null, "null")
		null.Name = "random seeds (null)"
		v.Rows = append(v.Rows, null)
	}
	if r.Quality.Verdict == audience.NotMeasured {
		v.Rows = nil
	} else {
		v.Rows[0].Name = "this audience"
		v.Rivals = rivalBars(v.Rows)
		v.Sizes = sizeBars(r.Quality.Measure)
	}
	v.Reach = reachCurve(r.Curve, r.Manifest.Eligible, r.Manifest.Size)
	v.Hist = scoreHistogram(r.Histograms)
	v.Reasons = reasonRows(r.Reasons)
	v.Members = memberRows(r.Members, meta.Samples)
	v.More = len(r.Members) - len(v.Members)
	v.Fair, v.Why = fairRows(r.Fairness), whyRows(meta.Why)
	v.Map, v.Reliable = seedMap(r.Map), reliabilityChart(r.Quality.Reliability)
	v.Phrases, v.SeedsSay = phraseRows(r.Phrases.Audience), phraseRows(r.Phrases.Seeds)
	return v
}

func headline(r *audience.Result) (words, tone string) {
	q := r.Quality
	if q.Verdict != audience.Signal {
		tone = "unsure"
		if q.Verdict == audience.NoSignal {
			tone = "bad"
			words = "No signal: these seeds are not told apart from chance."
		} else {
			words = "Not measured: too few seeds to hold some back."
		}
		return words, tone
	}
	words = "The audience holds more people like your seeds than chance would."
	if len(q.Measure.Sizes) > 0 {
		at := q.Measure.Sizes[0]
		words = fmt.Sprintf("This list finds people like your seeds %s times as often as chance (95 %% interval %s to %s).",
			num(at.Lift.Value), num(at.Lift.Low), num(at.Lift.High))
	}
	return words, "good"
}

func rowOf(m audience.Measure, kind string) row {
	out := row{Name: m.Name, Kind: kind, AUC: m.AUC}
	if len(m.Sizes) > 0 {
		out.Recall, out.Lift = m.Sizes[0].Recall, m.Sizes[0].Lift
	}
	for _, s := range m.Sizes[min(1, len(m.Sizes)):] {
		if math.Abs(s.Share-0.05) < 1e-9 {
			out.Lift5 = s.Lift
		}
	}
	return out
}

// maxReasons keeps the table to what fits on a screen.
const maxReasons = 16

func reasonRows(in []audience.Reason) []reasonRow {
	top := 0.0
	in = in[:min(len(in), maxReasons)]
	for _, r := range in {
		top = max(top, r.Audience, r.Population)
	}
	out := make([]reasonRow, len(in))
	for i, r := range in {
		out[i] = reasonRow{Reason: r, More: r.Audience >= r.Population}
		if top > 0 {
			out[i].AudienceW, out[i].PopulationW = 100*r.Audience/top, 100*r.Population/top
		}
	}
	return out
}

func memberRows(in []audience.Member, limit int) []memberRow {
	if limit <= 0 {
		limit = 12
	}
	in = in[:min(len(in), limit)]
	top := 0.0
	for _, m := range in {
		for _, p := range m.Parts {
			if p.Of != "intercept" {
				top = max(top, math.Abs(float64(p.Value)))
			}
		}
	}
	out := make([]memberRow, len(in))
	for i, m := range in {
		out[i].Member = m
		parts := slices.DeleteFunc(slices.Clone(m.Parts), func(p audience.Part) bool { return p.Of == "intercept" })
		slices.SortStableFunc(parts, func(a, b audience.Part) int {
			return int(math.Copysign(1, math.Abs(float64(b.Value))-math.Abs(float64(a.Value))))
		})
		for _, p := range parts[:min(len(parts), 4)] {
			bar := partBar{Part: p, Down: p.Value < 0}
			if top > 0 {
				bar.Share = 100 * math.Abs(float64(p.Value)) / top
			}
			out[i].Parts = append(out[i].Parts, bar)
		}
	}
	return out
}

func num(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func pct(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	digits := 1
	if v >= 0.1 {
		digits = 0
	}
	return strconv.FormatFloat(100*v, 'f', digits, 64) + " %"
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func interval(v audience.Interval) string {
	if v == (audience.Interval{}) {
		return "–"
	}
	return num(v.Value) + " (" + num(v.Low) + " to " + num(v.High) + ")"
}

func ciPercent(v audience.Interval) string {
	if v == (audience.Interval{}) {
		return "–"
	}
	return pct(v.Value) + " (" + pct(v.Low) + " to " + pct(v.High) + ")"
}
