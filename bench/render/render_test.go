package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The documents in the repository are those of the results in it.
func TestCommittedDocumentsMatchResults(t *testing.T) {
	root := filepath.Join("..", "..")
	want, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range want {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s is not what bench/results says (%v): run `make bench-render` and commit it", path, err)
		}
	}
	images, err := filepath.Glob(filepath.Join(root, "docs", "img", "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(want[filepath.Join("docs", "performance.md")])
	for _, path := range images {
		if name := filepath.Base(path); want[filepath.Join("docs", "img", name)] == nil && !strings.Contains(doc, "img/"+name) {
			t.Errorf("docs/img/%s is not drawn any more and no text of docs/performance.md shows it: delete it", name)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		b    bar
		want string
	}{
		{bar{median: 2}, ""},
		{bar{median: 1.99, target: 2, stretch: 3}, "missed by 0.5 %"},
		{bar{median: 2, target: 2, stretch: 3}, "hit"},
		{bar{median: 3, target: 2, stretch: 3}, "hit, stretch too"},
		{bar{median: 3, target: 2}, "hit"},
		{bar{median: 0.68, target: 0.85, share: true}, "missed by 20.0 %"},
	} {
		if got := c.b.verdict(); got != c.want {
			t.Errorf("verdict of %+v is %q, want %q", c.b, got, c.want)
		}
	}
}

func TestBetween(t *testing.T) {
	got, err := between([]byte("a\n"+begin+"\nold\n"+end+"\nz\n"), []byte("new\n"))
	if want := "a\n" + begin + "\n\nnew\n\n" + end + "\nz\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, text := range []string{"", begin, end + begin} {
		if _, err := between([]byte(text), nil); err == nil {
			t.Errorf("%q has no pair of markers, and there is no error", text)
		}
	}
}

func TestSource(t *testing.T) {
	for _, c := range []struct {
		data string
		want origin
	}{
		{`{"cpu":"X","cores":2,"load_average":{"start":1,"end":2.5},"date":"d","versions":{"numpy":"1","go":"go1.26","commit":"0123456789"}}`,
			origin{"d", "0123456", "X, 2 cores", "1 to 2.5", []string{"go 1.26", "numpy 1"}}},
		{`{"cpu":"X","build":{"commit":"0123456789","go":"go1"},"load_average":["3.5 1 1","4 1 1"],"modules":{"a.b/c/pebble/v2":"v2.1"}}`,
			origin{"not stated", "0123456", "X", "3.5 to 4", []string{"go 1", "pebble/v2 v2.1"}}},
		{`{"machine":"m","git_revision":["abcdefghi with changes"],"load_average":11}`,
			origin{"not stated", "abcdefg with changes", "m", "11 at the end", nil}},
		{`{"commit":"abc","load_1min":9}`, origin{"not stated", "abc", "not stated", "9 at the start", nil}},
	} {
		got := source(json.RawMessage(c.data))
		if got.date != c.want.date || got.commit != c.want.commit || got.hardware != c.want.hardware || got.load != c.want.load ||
			strings.Join(got.versions, ";") != strings.Join(c.want.versions, ";") {
			t.Errorf("source of %s is %+v, want %+v", c.data, got, c.want)
		}
	}
}

// A picture is well-formed whatever its names hold, and a bar is as long as its
// value says.
func TestSVG(t *testing.T) {
	c := chart{file: "x", title: `a <b> & "c"`, bars: []bar{
		{what: "<&>", median: 2, min: 0.5, max: 4, target: 3, stretch: 4},
		{what: "less", median: 0.5, min: 0.5, max: 0.5},
	}}
	data := c.svg()
	d := xml.NewDecoder(bytes.NewReader(data))
	var wide []string
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
		if attr["class"] == "bar" {
			wide = append(wide, attr["width"])
		}
	}
	// Three octaves from 0.5 to 4: each bar is one of them.
	if len(wide) != 2 || wide[0] != wide[1] || wide[0] != "135.3" {
		t.Errorf("bars of twice and half are %v wide, want one third of the plot each, 135.3", wide)
	}
	if strings.Contains(strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", ""), "http") {
		t.Error("the picture names something outside of it")
	}
}
