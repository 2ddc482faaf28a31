package report

import (
	"math"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/phrases"
)

// scatter is a map: one SVG path a group, of points without length, which round line
// ends make dots.
type scatter struct {
	Population, Audience, Seeds string
	Right, Upper                string // what lies there
	Shares                      [2]float64
	Draw                        bool
}

const (
	mapWidth, mapHeight = 640.0, 420.0
	mapMargin           = 16.0
)

func seedMap(m audience.Map) scatter {
	if len(m.Axes) != 2 || len(m.Population) == 0 {
		return scatter{}
	}
	// The outermost hundredth on each side would make a dot of all the others: such
	// points are drawn on the edge.
	var low, high [2]float64
	for d := range 2 {
		var v []float64
		for _, p := range m.Population {
			v = append(v, float64(p[d]))
		}
		low[d], high[d] = quantile(v, 0.005), quantile(v, 0.995)
		for _, of := range [][][2]float32{m.Seeds, m.Audience} {
			v = v[:0]
			for _, p := range of {
				v = append(v, float64(p[d]))
			}
			if len(v) > 0 {
				low[d], high[d] = min(low[d], quantile(v, 0.02)), max(high[d], quantile(v, 0.98))
			}
		}
		if !(high[d] > low[d]) {
			high[d] = low[d] + 1
		}
	}
	dots := func(points [][2]float32) string {
		var b strings.Builder
		for _, p := range points {
			x := mapMargin + (mapWidth-2*mapMargin)*clamp((float64(p[0])-low[0])/(high[0]-low[0]))
			y := mapHeight - mapMargin - (mapHeight-2*mapMargin)*clamp((float64(p[1])-low[1])/(high[1]-low[1]))
			b.WriteString("M" + coordinate(x) + "," + coordinate(y) + "h0")
		}
		return b.String()
	}
	return scatter{
		Population: dots(m.Population), Audience: dots(m.Audience), Seeds: dots(m.Seeds), Draw: true,
		Right: strings.Join(m.Axes[0].Toward, ", "), Upper: strings.Join(m.Axes[1].Toward, ", "),
		Shares: [2]float64{m.Axes[0].Share, m.Axes[1].Share},
	}
}

// reliability is a square chart of observed against predicted shares, with whiskers.
type reliability struct {
	Points []reliablePoint
	Line   string
	Ticks  []tick // of both axes; X is of the horizontal one
	YTicks []tick
	Diag   [4]float64
	Draw   bool
}

type reliablePoint struct{ X, Y, Low, High, R float64 }

const (
	squareLeft, squareRight = 52.0, 372.0
	squareTop, squareBottom = 12.0, 332.0
)

func reliabilityChart(r audience.Reliability) reliability {
	if len(r.Bins) < 2 {
		return reliability{}
	}
	top := 0.0
	for _, b := range r.Bins {
		top = max(top, b.Predicted, b.Observed.Value, b.Observed.High)
	}
	step := niceStep(top / 5)
	top = min(1, step*math.Ceil(top/step-1e-9))
	x := func(v float64) float64 { return squareLeft + (squareRight-squareLeft)*clamp(v/top) }
	y := func(v float64) float64 { return squareBottom - (squareBottom-squareTop)*clamp(v/top) }
	out := reliability{Draw: true, Diag: [4]float64{x(0), y(0), x(top), y(top)}}
	var line strings.Builder
	for _, b := range r.Bins {
		out.Points = append(out.Points, reliablePoint{X: x(b.Predicted), Y: y(b.Observed.Value), Low: y(b.Observed.Low), High: y(b.Observed.High), R: 4})
		line.WriteString(coordinate(x(b.Predicted)) + "," + coordinate(y(b.Observed.Value)) + " ")
	}
	out.Line = strings.TrimSpace(line.String())
	for v := 0.0; v <= top+step/2; v += step {
		label := pct(v)
		out.Ticks = append(out.Ticks, tick{x(v), label})
		out.YTicks = append(out.YTicks, tick{y(v), label})
	}
	return out
}

// phraseRow is a phrase with its bars.
type phraseRow struct {
	phrases.Phrase
	W, PopulationW float64 // of 100
}

func phraseRows(in []phrases.Phrase) []phraseRow {
	const most = 10
	in = in[:min(len(in), most)]
	top := 0.0
	for _, p := range in {
		top = max(top, p.Share, p.Population)
	}
	out := make([]phraseRow, len(in))
	for i, p := range in {
		out[i] = phraseRow{p, 100 * p.Share / top, 100 * p.Population / top}
	}
	return out
}

// fairRow is one group of a sensitive column.
type fairRow struct {
	Column string
	audience.GroupRate
}

func fairRows(in []audience.Disparity) []fairRow {
	var out []fairRow
	for _, d := range in {
		for _, g := range d.Groups {
			out = append(out, fairRow{d.Column, g})
		}
	}
	return out
}

// whyRow is one explained member.
type whyRow struct {
	audience.Explanation
	Parts    []partBar
	Passages []audience.PassagePart
	Changes  []string // each a counterfactual in words
}

// mostChanges are shown of each member.
const mostChanges = 3

func whyRows(in []audience.Explanation) []whyRow {
	out := make([]whyRow, len(in))
	for i, e := range in {
		out[i] = whyRow{Explanation: e, Parts: partBars(e.Reasons, 6)}
		for _, p := range e.Passages[:min(len(e.Passages), 3)] {
			if text := []rune(p.Text); len(text) > 240 {
				p.Text = string(text[:240]) + "…"
			}
			if p.Text != "" {
				out[i].Passages = append(out[i].Passages, p)
			}
		}
		for _, c := range e.Counterfactuals[:min(len(e.Counterfactuals), mostChanges)] {
			var words []string
			for _, change := range c.Changes {
				words = append(words, change.String())
			}
			out[i].Changes = append(out[i].Changes, strings.Join(words, " and "))
		}
	}
	return out
}

// partBars are the largest addends but the intercept, each against the largest.
func partBars(in []audience.Part, most int) []partBar {
	var out []partBar
	top := 0.0
	for _, p := range in {
		if p.Of != "intercept" && len(out) < most {
			out = append(out, partBar{Part: p, Down: p.Value < 0})
			top = max(top, math.Abs(float64(p.Value)))
		}
	}
	for i := range out {
		if top > 0 {
			out[i].Share = 100 * math.Abs(float64(out[i].Value)) / top
		}
	}
	return out
}

// quantile of values, which it sorts.
func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	return v[int(q*float64(len(v)-1))]
}
