package profile

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
)

func TestValidateReportsAll(t *testing.T) {
	s := Schema{Fields: []Field{{Name: "a", Type: "odd"}, {Name: "a", Type: TypeText}, {Name: "n", Type: TypeNumber, Weight: 2}}, Template: "{x}"}
	err := s.Validate()
	if !errors.Is(err, index.ErrInvalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"unknown type", "twice", "weight", "{x}"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err := (Schema{Fields: []Field{{Name: "a", Type: TypeSet}}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestCompose(t *testing.T) {
	s := Schema{Fields: []Field{{Name: "title", Type: TypeText}, {Name: "review", Type: TypeText, Weight: 3}, {Name: "age", Type: TypeNumber}}}
	r := Record{Texts: []Text{{Field: "title", Body: " a\u0000\tb\n"}, {Field: "review", Body: "\ufeff"}, {Field: "review", Body: strings.Repeat("很好。", 10)}}}
	got := s.Compose(r, ComposeOptions{MaxChars: 40})
	if len(got) != 4 || got[0].Body != "a b" || got[1].Body != "很好。很好。很好。很好。" || got[1].Weight != 3 || got[0].Weight != 1 {
		t.Fatalf("%v", got)
	}
	omitted := 0
	if got := s.Compose(r, ComposeOptions{MaxChars: 40, MaxPassages: 2, Omitted: &omitted}); len(got) != 2 || omitted != 2 || got[0].Body != "a b" {
		t.Fatalf("%v, %d omitted", got, omitted)
	}
	plain := CompositionStamp(s)
	s.Template = "{title}. {review} ({age})"
	if CompositionStamp(s) == plain {
		t.Error("the template is not in the stamp")
	}
	r = Record{Fields: map[string]index.Value{"age": {Kind: index.Number, Num: 3}}, Texts: []Text{{Field: "review", Body: "ok"}}}
	if got := s.Compose(r, ComposeOptions{}); len(got) != 1 || got[0].Body != "ok (3)" {
		t.Fatalf("%v", got)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("One. Two! 三。四？ 3.14", 8)
	f.Fuzz(func(t *testing.T, body string, limit int) {
		limit = 4 + (limit&0x7fffffff)%500
		var joined strings.Builder
		for _, p := range (Schema{}).Compose(Record{Texts: []Text{{Body: body}}}, ComposeOptions{MaxChars: limit, MaxPassages: 1 << 30}) {
			n := 0
			for _, r := range p.Body {
				n += width(r)
			}
			if p.Body == "" || n > limit || !utf8.ValidString(p.Body) {
				t.Fatalf("%q: %d of %d", p.Body, n, limit)
			}
			joined.WriteString(p.Body)
		}
		strip := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if strip(joined.String()) != strip(clean(body)) {
			t.Fatalf("%q lost something of %q", joined.String(), body)
		}
	})
}

func TestPool(t *testing.T) {
	got := Pool([]float32{1, 0, 0, 1}, []float64{3, 4}, 2)
	if len(got) != 2 || math.Abs(float64(got[0])-0.6) > 1e-6 || math.Abs(float64(got[1])-0.8) > 1e-6 {
		t.Fatal(got)
	}
	if Pool([]float32{1, -1}, []float64{1, 1}, 1) != nil || Pool(nil, nil, 3) != nil {
		t.Error("a mean of nothing")
	}
}

func TestBins(t *testing.T) {
	n := 10000
	d := index.ColumnData{Kind: index.Number, Numbers: make([]float64, n)}
	for i := range d.Numbers {
		d.Numbers[i] = float64(i)
		if i%2 == 0 {
			d.Numbers[i] = 5000
		}
		if i%10 == 1 {
			d.Numbers[i] = math.NaN()
		}
	}
	b := FitBins(index.Column{Name: "x", Kind: index.Number}, d, nil, BinOptions{})
	if !slices.IsSorted(b.Edges) || len(slices.Compact(slices.Clone(b.Edges))) != len(b.Edges) {
		t.Fatal(b.Edges)
	}
	codes := Codes(b, d).Codes
	tied := codes[0]
	for i, c := range codes {
		edges := 0
		for _, e := range b.Edges {
			if e <= d.Numbers[i] {
				edges++
			}
		}
		want := edges + 1
		if math.IsNaN(d.Numbers[i]) {
			want = 0
		}
		if int(c) != want || int(c) >= b.Count() {
			t.Fatalf("row %d: %d, want %d", i, c, want)
		}
		if c == tied && d.Numbers[i] != 5000 && d.Numbers[i] != 5001 {
			t.Fatalf("%v shares the bin of the tie", d.Numbers[i])
		}
	}
	small := index.ColumnData{Kind: index.Number, Numbers: []float64{3, 1, 2, 1}}
	if b := FitBins(index.Column{Kind: index.Number}, small, nil, BinOptions{}); !slices.Equal(b.Edges, []float64{2, 3}) {
		t.Fatal(b.Edges)
	}
	set := index.ColumnData{Kind: index.Set, Dict: []string{"z", "a", "rare"}, Offsets: []uint32{0}}
	for i := range 20 {
		set.Codes = append(set.Codes, 0, 1)
		if i == 0 {
			set.Codes = append(set.Codes, 2)
		}
		set.Offsets = append(set.Offsets, uint32(len(set.Codes)))
	}
	set.Offsets = append(set.Offsets, uint32(len(set.Codes))) // an empty one
	b = FitBins(index.Column{Kind: index.Set}, set, nil, BinOptions{})
	got := Codes(b, set)
	if !slices.Equal(b.Values, []string{"a", "z"}) || !slices.Equal(got.Codes[:3], []uint16{1, 2, 3}) || got.Codes[len(got.Codes)-1] != 0 || len(got.Offsets) != 22 {
		t.Fatal(b.Values, got)
	}
}

func TestIsChinese(t *testing.T) {
	for text, want := range map[string]bool{"很好 good": true, "hello": false, "": false, "これはとてもいいです漢字": false, "long english text with one 好": false} {
		if IsChinese(text) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}
