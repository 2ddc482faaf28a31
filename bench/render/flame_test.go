package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// A flame graph is well-formed whatever its names hold; a call is as wide as its
// share, stands on its caller, and has a name only where that fits.
func TestFlame(t *testing.T) {
	p := &profileResult{CPU: 10, Samples: 1000, Shares: map[string]float64{"encoder": 0.9, "tokenizer": 0.0996, "queue": 0.0004}, Tree: &frame{
		Name: "kindred serve", Work: "encoder", Share: 1, Calls: []*frame{
			{Name: "embed.(*crew).work", Work: "encoder", Share: 0.5, Calls: []*frame{{Name: "<&>", Work: "tokenizer", Share: 0.25}}},
			{Name: "x.narrow", Work: "other", Share: 0.01},
		},
	}}
	if got, want := p.said(), "encoder 90.0 %, tokenizer 10.0 %"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	data := p.svg()
	d := xml.NewDecoder(bytes.NewReader(data))
	var wide, x, y []string
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok || e.Name.Local != "rect" {
			continue
		}
		attr := map[string]string{}
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
		}
		if strings.HasPrefix(attr["class"], "edge") {
			wide, x, y = append(wide, attr["width"]), append(x, attr["x"]), append(y, attr["y"])
		}
	}
	if got, want := strings.Join(wide, " "), "860.00 430.00 215.00 8.60"; got != want {
		t.Errorf("widths %q, want %q", got, want)
	}
	if got, want := strings.Join(x, " "), "20.00 20.00 20.00 450.00"; got != want {
		t.Errorf("places %q, want %q", got, want)
	}
	if got, want := strings.Join(y, " "), "130 111 92 111"; got != want {
		t.Errorf("heights %q, want %q", got, want)
	}
	if strings.Contains(string(data), ">x.narrow<") || !strings.Contains(string(data), ">embed.(*crew).work<") {
		t.Error("a name is drawn where it does not fit, or not where it does")
	}
	for _, c := range []struct {
		name    string
		letters int
		want    string
	}{{"embed/tokenize.(*T).Encode", 26, "embed/tokenize.(*T).Encode"}, {"embed/tokenize.(*T).Encode", 12, "(*T).Encode"}, {"embed/tokenize.(*T).Encode", 6, "(*T).…"}, {"kindred serve", 5, "kind…"}} {
		if got := fitted(c.name, c.letters); got != c.want {
			t.Errorf("%s in %d letters: %q, want %q", c.name, c.letters, got, c.want)
		}
	}
}
