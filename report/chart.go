package report

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/audience"
)

// Charts are laid out in SVG units, 640 wide; y grows downwards.
const (
	chartWidth = 640.0
	labelWidth = 190.0
	barStep    = 30.0
)

// bars is a horizontal bar chart with whiskers for the intervals.
type bars struct {
	Height float64
	Bars   []bar
	Ticks  []tick
	OneX   float64 // where a lift of one, chance, is
	Bottom float64
}

type bar struct {
	Label, Value string
	Kind         string
	Y, W, Mid    float64
	LowX, HighX  float64
	TextX        float64
}

type tick struct {
	X     float64
	Label string
}

func rivalBars(rows []row) bars {
	var items []bar
	var lifts []audience.Interval
	for _, r := range rows {
		items = append(items, bar{Label: r.Name, Kind: r.Kind})
		lifts = append(lifts, r.Lift)
	}
	return layOut(items, lifts)
}

func sizeBars(m audience.Measure) bars {
	var items []bar
	var lifts []audience.Interval
	for i, s := range m.Sizes {
		label, kind := "best "+pct(s.Share), "baseline"
		if i == 0 {
			label, kind = "your list ("+pct(s.Share)+")", "main"
		}
		items = append(items, bar{Label: label, Kind: kind})
		lifts = append(lifts, s.Lift)
	}
	return layOut(items, lifts)
}

func layOut(items []bar, lifts []audience.Interval) bars {
	top := 1.0
	for _, l := range lifts {
		for _, v := range []float64{l.Value, l.High} {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				top = max(top, v)
			}
		}
	}
	step := niceStep(top / 5)
	top = step * math.Ceil(top/step)
	room := chartWidth - labelWidth - 60
	at := func(v float64) float64 {
		if math.IsNaN(v) || v < 0 {
			v = 0
		}
		return labelWidth + room*min(v, top)/top
	}
	out := bars{Height: barStep*float64(len(items)) + 26, Bottom: barStep * float64(len(items)), OneX: at(1)}
	for i, b := range items {
		l := lifts[i]
		b.Y = barStep*float64(i) + 5
		b.Mid = b.Y + (barStep-10)/2
		b.W = at(l.Value) - labelWidth
		b.LowX, b.HighX = at(l.Low), at(l.High)
		b.TextX = max(b.HighX, labelWidth+b.W) + 8
		b.Value = num(l.Value) + "×"
		out.Bars = append(out.Bars, b)
	}
	for v := 0.0; v <= top+step/2; v += step {
		out.Ticks = append(out.Ticks, tick{at(v), strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".") + "×"})
	}
	return out
}

// niceStep is the next 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*p >= v {
			return m * p
		}
	}
	return 10 * p
}

// curve is a line chart: Recall and Precision against the size of a list.
type curve struct {
	MineX             float64 // where the list of this report stands
	Recall, Precision string  // SVG point lists
	Band              string  // of the precision, a polygon
	X, Y              []tick
	Draw              bool
}

const (
	curveLeft, curveRight = 46.0, 608.0
	curveTop, curveBottom = 12.0, 216.0
)

func reachCurve(points []audience.Point, eligible, mine int) curve {
	out := curve{}
	if len(points) < 2 || eligible < 1 {
		return out
	}
	x := func(share float64) float64 { return curveLeft + (curveRight-curveLeft)*clamp(share) }
	y := func(share float64) float64 { return curveBottom - (curveBottom-curveTop)*clamp(share) }
	var recall, precision strings.Builder
	var upper, lower []string
	recall.WriteString(coordinate(x(0)) + "," + coordinate(y(0)))
	for _, p := range points {
		at := x(float64(p.Size) / float64(eligible))
		recall.WriteString(" " + coordinate(at) + "," + coordinate(y(p.Recall)))
		precision.WriteString(" " + coordinate(at) + "," + coordinate(y(p.Precision)))
		if p.High > 0 {
			upper = append(upper, coordinate(at)+","+coordinate(y(p.High)))
			lower = append(lower, coordinate(at)+","+coordinate(y(p.Low)))
		}
	}
	slices.Reverse(lower)
	out.Band = strings.Join(slices.Concat(upper, lower), " ")
	out.Recall, out.Precision, out.Draw = recall.String(), strings.TrimSpace(precision.String()), true
	out.MineX = x(float64(mine) / float64(eligible))
	step := max(niceStep(float64(eligible)/6), 1)
	for v := 0.0; v <= float64(eligible); v += step {
		out.X = append(out.X, tick{x(v / float64(eligible)), grouped(int(v))})
	}
	for i := range 6 {
		out.Y = append(out.Y, tick{y(float64(i) / 5), strconv.Itoa(20*i) + " %"})
	}
	return out
}

func clamp(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return min(max(v, 0), 1)
}

// histogram is three outlines over the same scores, each scaled to its own
// height: the groups' sizes differ by orders of magnitude.
type histogram struct {
	Population, Audience, Seeds string
	X                           []tick
	Draw                        bool
}

func scoreHistogram(h audience.Histograms) histogram {
	n := len(h.Population)
	if n == 0 || !(h.High > h.Low) {
		return histogram{}
	}
	out := histogram{Population: outline(h.Population), Audience: outline(h.Audience), Seeds: outline(h.Seeds), Draw: true}
	step := niceStep((h.High - h.Low) / 6)
	decimals := max(0, int(math.Ceil(-math.Log10(step))))
	for k := math.Ceil(h.Low / step); k*step <= h.High && len(out.X) < 20; k++ {
		label := strconv.FormatFloat(k*step+0, 'f', decimals, 64)
		out.X = append(out.X, tick{curveLeft + (curveRight-curveLeft)*(k*step-h.Low)/(h.High-h.Low), label})
	}
	return out
}

func outline(counts []int) string {
	top := 0
	for _, c := range counts {
		top = max(top, c)
	}
	if top == 0 {
		return ""
	}
	step := (curveRight - curveLeft) / float64(len(counts))
	var b strings.Builder
	b.WriteString(coordinate(curveLeft) + "," + coordinate(curveBottom))
	for i, c := range counts {
		y := coordinate(curveBottom - (curveBottom-curveTop)*float64(max(c, 0))/float64(top))
		b.WriteString(" " + coordinate(curveLeft+step*float64(i)) + "," + y)
		b.WriteString(" " + coordinate(curveLeft+step*float64(i+1)) + "," + y)
	}
	b.WriteString(" " + coordinate(curveRight) + "," + coordinate(curveBottom))
	return b.String()
}

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
