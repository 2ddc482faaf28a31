package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
)

// chart is one picture: a row a bar, with the same scale for all.
type chart struct {
	file, title, about string
	bars               []bar
}

// charts groups the bars by picture, in a fixed order; one without bars is left out.
func charts(bars []bar) []chart {
	all := []chart{
		{file: "encoder", title: "Encoder against ONNX Runtime", about: "times as fast on the same cores, weights and ids; all-MiniLM-L6-v2"},
		{file: "encoder-one-thread", title: "Encoder against ONNX Runtime, one thread each", about: "times as fast on one core, same weights and ids; all-MiniLM-L6-v2"},
		{file: "encoder-amx", title: "Encoder against ONNX Runtime, on a processor with tile registers", about: "times as fast on the same cores, weights and ids; all-MiniLM-L6-v2; the products by AMX"},
		{file: "tokenizer", title: "Tokenizer against Hugging Face tokenizers", about: "times as fast on the same texts, ids identical"},
		{file: "service", title: "HTTP service against its own engine", about: "share of the rate of the engine called directly with all texts at once, 64 texts a request"},
		{file: "http", title: "HTTP service against a Python server around ONNX Runtime", about: "times as fast on the same cores, weights and texts, 64 a request"},
		{file: "hnsw", title: "Look-ups by graph", about: "times the queries a second at equal recall"},
		{file: "lookalike", title: "Lookalike audience from everyone", about: "times as fast: score all, take the best"},
		{file: "ceiling", title: "Share of a ceiling measured in the same run", about: "the line at 100 % is the ceiling"},
	}
	var out []chart
	for _, c := range all {
		for _, b := range bars {
			if b.chart == c.file {
				c.bars = append(c.bars, b)
			}
		}
		if len(c.bars) > 0 {
			out = append(out, c)
		}
	}
	return out
}

const (
	width    = 900
	left     = 372 // where the plot begins
	right    = 778 // where it ends; values stand to the right
	rowHigh  = 28
	top      = 84
	barThick = 12
)

// style holds for light and dark; the picture has its own ground, so that it
// can be read on any page.
const style = `
.ground{fill:#fcfcfb}text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#33322f}
.title{font-size:16px;font-weight:600;fill:#0b0b0b}.small{font-size:11px;fill:#6b6a65}.value{font-weight:600;fill:#0b0b0b}
.grid{stroke:#e4e3de;stroke-width:1}.one{stroke:#6b6a65;stroke-width:1.5}
.bar{fill:#2a78d6}.whisker{stroke:#0b0b0b;stroke-width:1.5;fill:none;opacity:.65}.goal{fill:#eb6834}.stretch{fill:none;stroke:#eb6834;stroke-width:1.5}
@media (prefers-color-scheme:dark){
.ground{fill:#1a1a19}text{fill:#d5d4cf}.title,.value{fill:#fff}.small{fill:#a3a29c}
.grid{stroke:#383835}.one{stroke:#a3a29c}.bar{fill:#3987e5}.whisker{stroke:#fff}.goal{fill:#f08a5d}.stretch{stroke:#f08a5d}}
`

// scale maps a value to a place: ratios by their logarithm, so that half and
// twice are as far from 1; shares as they are.
type scale struct {
	lo, hi float64
	log    bool
}

func (s scale) x(v float64) float64 {
	if s.log {
		v = math.Log2(max(v, 1e-6))
	}
	return left + (right-left)*(min(max(v, s.lo), s.hi)-s.lo)/(s.hi-s.lo)
}

func (c chart) scale() (s scale, ticks []float64) {
	lo, hi := 1.0, 1.0
	for _, b := range c.bars {
		lo, hi = min(lo, b.min), max(hi, b.max, b.stretch, b.target)
	}
	if c.bars[0].share {
		s.hi = math.Ceil(hi*4) / 4
		for v := 0.0; v <= s.hi; v += 0.25 {
			ticks = append(ticks, v)
		}
		return s, ticks
	}
	s = scale{lo: math.Floor(math.Log2(max(lo, 0.01))), hi: max(1, math.Ceil(math.Log2(hi))), log: true}
	for e := s.lo; e <= s.hi; e++ {
		ticks = append(ticks, math.Exp2(e))
	}
	return s, ticks
}

func (c chart) svg() []byte {
	s, ticks := c.scale()
	bottom := top + rowHigh*len(c.bars)
	high := bottom + 48
	var w bytes.Buffer
	text := func(x, y float64, class, anchor, value string) {
		fmt.Fprintf(&w, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">`, x, y, class, anchor)
		_ = xml.EscapeText(&w, []byte(value)) // a buffer takes everything
		fmt.Fprintln(&w, "</text>")
	}
	line := func(x1, y1, x2, y2 float64, class string) {
		fmt.Fprintf(&w, `<path d="M%.1f %.1fL%.1f %.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
	}
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="t">`+"\n<title id=\"t\">", width, high, width, high)
	_ = xml.EscapeText(&w, []byte(c.title+": "+c.about))
	fmt.Fprintf(&w, "</title>\n<style>%s</style>\n<rect width=\"%d\" height=\"%d\" rx=\"8\" class=\"ground\"/>\n", style, width, high)
	text(20, 30, "title", "start", c.title)
	text(20, 50, "small", "start", c.about)
	for _, t := range ticks {
		class := "grid"
		if t == 1 {
			class = "one"
		}
		line(s.x(t), top-6, s.x(t), float64(bottom), class)
		label := fmt.Sprintf("%gx", t)
		if !s.log {
			label = fmt.Sprintf("%g %%", 100*t)
		}
		if !s.log || t >= 0.125 {
			text(s.x(t), top-12, "small", "middle", label)
		}
	}
	zero := s.x(1)
	if !s.log {
		zero = s.x(0)
	}
	for i, b := range c.bars {
		mid := float64(top + rowHigh*i + rowHigh/2)
		text(20, mid+4, "", "start", b.id+"  "+b.what)
		from, to := min(zero, s.x(b.median)), max(zero, s.x(b.median))
		fmt.Fprintf(&w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" class="bar"/>`+"\n", from, mid-barThick/2, max(1, to-from), barThick)
		line(s.x(b.min), mid, s.x(b.max), mid, "whisker")
		line(s.x(b.min), mid-4, s.x(b.min), mid+4, "whisker")
		line(s.x(b.max), mid-4, s.x(b.max), mid+4, "whisker")
		for _, g := range []struct {
			at    float64
			class string
		}{{b.target, "goal"}, {b.stretch, "stretch"}} {
			if g.at > 0 {
				x := s.x(g.at)
				fmt.Fprintf(&w, `<path d="M%.1f %.1fl5 6l-5 6l-5 -6z" class="%s"/>`+"\n", x, mid-6, g.class)
			}
		}
		text(right+12, mid+4, "value", "start", b.number(b.median))
	}
	text(20, float64(bottom)+28, "small", "start", "bar: median; line: least to most; full diamond: target; open diamond: stretch target; the rival or the ceiling is the strong line")
	fmt.Fprintln(&w, "</svg>")
	return w.Bytes()
}
