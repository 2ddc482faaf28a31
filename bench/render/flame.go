package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// profileResult is bench/flame's: whose work a server under load does.
type profileResult struct {
	CPU     float64            `json:"processor_seconds"`
	Samples int                `json:"samples"`
	Shares  map[string]float64 `json:"shares"`
	Tree    *frame             `json:"tree"`
}

// frame is a call, its share of all samples with its callees, and whose work it
// mostly is.
type frame struct {
	Name  string   `json:"n"`
	Work  string   `json:"w"`
	Share float64  `json:"s"`
	Calls []*frame `json:"c"`
}

func (f *frame) depth() int {
	most := 0
	for _, c := range f.Calls {
		most = max(most, c.depth())
	}
	return most + 1
}

// byShare are the kinds of work, the largest first.
func (p *profileResult) byShare() []string {
	names := slices.Sorted(maps.Keys(p.Shares))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case p.Shares[a] > p.Shares[b]:
			return -1
		case p.Shares[a] < p.Shares[b]:
			return 1
		}
		return 0
	})
	return names
}

// said is the shares in words.
func (p *profileResult) said() string {
	var parts []string
	for _, name := range p.byShare() {
		if share := p.Shares[name]; share >= 0.0005 {
			parts = append(parts, fmt.Sprintf("%s %.1f %%", name, 100*share))
		}
	}
	return strings.Join(parts, ", ")
}

// profile reads the result; nil when there is none.
func (r results) profile() (*profileResult, error) {
	var p profileResult
	ok, err := r.into("profile", &p)
	if !ok || err != nil {
		return nil, err
	}
	if p.Tree == nil {
		return nil, fmt.Errorf("bench/results/profile.json has no tree: measure it again")
	}
	return &p, nil
}

const (
	flameHigh  = 19 // of a call
	flameLeft  = 20
	flameWide  = width - 2*flameLeft
	flameTop   = 92
	letterWide = 6.1 // of the small monospace text
)

// colours of work have two shades each, so that neighbours can be told apart.
const flameStyle = `
.call{font:10.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#fff}.edge{stroke:#fcfcfb;stroke-width:1}
.w0{fill:#2a78d6}.w1{fill:#3f88dd}.t0{fill:#c2571c}.t1{fill:#cf6426}.b0{fill:#2e7d4f}.b1{fill:#398a5a}.o0{fill:#77756f}.o1{fill:#85837d}
@media (prefers-color-scheme:dark){.edge{stroke:#1a1a19}.w0{fill:#2b6cbd}.w1{fill:#3a7bc9}.t0{fill:#b5541f}.t1{fill:#c0602a}.b0{fill:#2f7a4f}.b1{fill:#3a865a}.o0{fill:#5f5e59}.o1{fill:#6b6a64}}
`

// shade is the colour's class of a kind of work.
func shade(work string) string {
	switch work {
	case "encoder":
		return "w"
	case "tokenizer":
		return "t"
	case "bodies and routes":
		return "b"
	}
	return "o"
}

// svg draws the calls, the outermost at the bottom and as wide as its share.
func (p *profileResult) svg() []byte {
	deep := p.Tree.depth()
	high := flameTop + deep*flameHigh + 44
	var w bytes.Buffer
	escape := func(s string) string {
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
		return b.String()
	}
	about := fmt.Sprintf("%.0f processor seconds, %d samples; all-MiniLM-L6-v2, 64 texts a request on four connections, base64, JSON and /embed in turn", p.CPU, p.Samples)
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="t">`+"\n", width, high, width, high)
	fmt.Fprintf(&w, "<title id=\"t\">%s</title>\n<style>%s%s</style>\n<rect width=\"%d\" height=\"%d\" rx=\"8\" class=\"ground\"/>\n", escape("Where a server under load spends its time: "+p.said()), style, flameStyle, width, high)
	fmt.Fprintf(&w, `<text x="20" y="30" class="title">Where a server under load spends its time</text>`+"\n"+`<text x="20" y="50" class="small">%s</text>`+"\n", escape(about))
	x := float64(flameLeft)
	for _, name := range p.byShare() {
		if p.Shares[name] < 0.0005 {
			continue
		}
		label := fmt.Sprintf("%s %.1f %%", name, 100*p.Shares[name])
		fmt.Fprintf(&w, `<rect x="%.1f" y="64" width="11" height="11" rx="2" class="%s0"/><text x="%.1f" y="74">%s</text>`+"\n", x, shade(name), x+16, escape(label))
		x += 16 + 7*float64(len(label)) + 14
	}
	var draw func(f *frame, x float64, level, turn int)
	draw = func(f *frame, x float64, level, turn int) {
		y := flameTop + (deep-1-level)*flameHigh
		wide := flameWide * f.Share
		fmt.Fprintf(&w, `<g><title>%s, %.2f %%</title><rect x="%.2f" y="%d" width="%.2f" height="%d" class="edge %s%d"/>`, escape(f.Name), 100*f.Share, x, y, wide, flameHigh, shade(f.Work), turn%2)
		if letters := int((wide - 8) / letterWide); letters >= 4 {
			fmt.Fprintf(&w, `<text x="%.2f" y="%d" class="call">%s</text>`, x+4, y+13, escape(fitted(f.Name, letters)))
		}
		w.WriteString("</g>\n")
		for i, c := range f.Calls {
			draw(c, x, level+1, turn+i+1)
			x += flameWide * c.Share
		}
	}
	draw(p.Tree, flameLeft, 0, 0)
	fmt.Fprintf(&w, `<text x="20" y="%d" class="small">a bar is a call, as wide as the share of samples in it; it stands on its caller; long chains within net/http, gin and huma are folded</text>`+"\n</svg>\n", flameTop+deep*flameHigh+28)
	return w.Bytes()
}

// fitted cuts a name to so many letters, at first the package, which the bar below
// mostly has too.
func fitted(name string, letters int) string {
	if len(name) > letters {
		if _, short, ok := strings.Cut(name[strings.LastIndex(name, "/")+1:], "."); ok {
			name = short
		}
	}
	if len(name) > letters {
		name = name[:letters-1] + "…"
	}
	return name
}
