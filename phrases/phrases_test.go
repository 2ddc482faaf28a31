package phrases

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func golden(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// Our words are jieba's, but for ties and for how the two weigh characters that
// are no words.
func TestChineseWordsAreJiebas(t *testing.T) {
	var cases []struct {
		Text  string
		Words []string
	}
	golden(t, "cut.json", &cases)
	c := NewCutter()
	same, all := 0, 0
	for _, one := range cases {
		got := c.Words(one.Text)
		if strings.Join(got, "") != strings.Join(one.Words, "") {
			t.Errorf("%s: characters were lost: %q", one.Text, got)
		}
		ends := map[int]bool{}
		for i, at := 0, 0; i < len(one.Words); i++ {
			at += len(one.Words[i])
			ends[at] = true
		}
		for i, at := 0, 0; i < len(got); i++ {
			at += len(got[i])
			all++
			if ends[at] {
				same++
			}
		}
	}
	if len(cases) < 20 || float64(same) < 0.97*float64(all) {
		t.Fatalf("%d of %d ends of words in %d sentences are jieba's", same, all, len(cases))
	}
	t.Logf("%d of %d ends of words are jieba's", same, all)
}

func TestContrastIsNumPys(t *testing.T) {
	var cases []struct {
		K, N, All, Total int
		Z, Lift          float64
	}
	golden(t, "contrast.json", &cases)
	positive := 0
	for _, c := range cases {
		group := &Counter{docs: c.N, terms: map[string]int32{"x": int32(c.K)}}
		everyone := &Counter{docs: c.Total, terms: map[string]int32{"x": int32(c.All)}}
		got := Contrast(group, everyone, Options{Z: 1e-9})
		if c.Z <= 0 {
			if len(got) != 0 {
				t.Errorf("%+v: %v", c, got)
			}
			continue
		}
		positive++
		if len(got) != 1 || math.Abs(got[0].Z-c.Z) > 1e-9*c.Z || math.Abs(got[0].Lift-c.Lift) > 1e-9*c.Lift {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if positive < 20 {
		t.Fatalf("only %d cases are above 0", positive)
	}
}

func terms(text string) []string {
	out := []string{}
	NewCutter().phrases(text, 1000, func(s string) { out = append(out, s) })
	slices.Sort(out)
	return slices.Compact(out)
}

func TestPhrases(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"The battery life is great", []string{"battery", "battery life", "great", "life", "life is great"}},
		{"a waste of money", []string{"money", "waste", "waste of money"}},
		{"not worth it", []string{"not worth", "worth"}},
		{"late. Flight", []string{"flight", "late"}},
		{"@united mail me@x.com or https://t.co/a.b?c www.x.org #fail", []string{"fail", "mail"}},
		{"John’s wi-fi", []string{"john", "john wi-fi", "wi-fi"}},
		{"12 34", []string{}},
		{"屏幕有划痕，差", []string{"划痕", "屏幕", "屏幕有划痕"}},
		{"不新鲜", []string{"不新鲜", "新鲜"}},
		{"用iPhone手机", []string{"iphone", "iphone 手机", "手机"}},
		{"", []string{}},
		{"\xff\xfe' - . @ # ’", []string{}},
		{strings.Repeat("x", 500), []string{}},
	} {
		if got := terms(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestContrastNamesWhatIsDifferent(t *testing.T) {
	group, everyone := NewCounter(), NewCounter()
	for i := range 400 {
		text := fmt.Sprintf("customer%d bought a lamp. fast delivery", i)
		if i%4 == 0 {
			text += ". The battery life is poor"
			group.Add(text, "again battery life")
		}
		everyone.Add(text)
	}
	got := Contrast(group, everyone, Options{})
	if len(got) == 0 || got[0].Count != 100 || got[0].Share != 1 {
		t.Fatalf("%+v", got)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Text)
		if p.Lift < 3.8 || p.Lift > 4.1 {
			t.Errorf("%q has lift %v, want about 4", p.Text, p.Lift)
		}
	}
	if !slices.Contains(names, "battery life") && !slices.ContainsFunc(names, func(s string) bool { return strings.Contains(s, "battery life") }) {
		t.Errorf("no battery life in %q", names)
	}
	for _, not := range []string{"battery", "life", "lamp", "delivery"} {
		if slices.Contains(names, not) {
			t.Errorf("%q is in %q", not, names)
		}
	}
	if again := Contrast(group, everyone, Options{}); !reflect.DeepEqual(got, again) {
		t.Error("the same counts give another answer")
	}
	// Fewer than five customers are not told.
	few := NewCounter()
	for range 4 {
		few.Add("rare unicorn")
	}
	if got := Contrast(few, everyone, Options{}); len(got) != 0 {
		t.Errorf("told of four customers: %v", got)
	}
	if got := Contrast(NewCounter(), NewCounter(), Options{}); len(got) != 0 {
		t.Errorf("of nobody: %v", got)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		short, long string
		want        bool
	}{
		{"art", "art gallery", true}, {"art", "part time", false}, {"art", "a cart art", true},
		{"新鲜", "很新鲜", true}, {"手机", "iphone 手机", true}, {"é", "éa", false},
	} {
		if within(c.short, c.long) != c.want {
			t.Errorf("%q in %q: want %v", c.short, c.long, c.want)
		}
	}
}

// Rare phrases go when there are too many; frequent ones stay.
func TestCounterIsBounded(t *testing.T) {
	old := maxTerms
	maxTerms = 1000
	defer func() { maxTerms = old }()
	c := NewCounter()
	for i := range 5000 {
		c.Add(fmt.Sprintf("steady noise%d", i))
		if len(c.terms) > maxTerms+10 {
			t.Fatalf("%d terms", len(c.terms))
		}
	}
	if n := c.Count("steady"); n+c.Short() < 5000 || n > 5000 {
		t.Errorf("steady was counted %d times, short by %d", n, c.Short())
	}
	long := NewCounter()
	long.Add(strings.Repeat("alpha beta ", 10_000) + "omega")
	if long.Count("omega") != 0 || long.Count("alpha beta") != 1 {
		t.Error("one customer is looked at without end")
	}
}

// The dictionary goes with the last who used it.
func TestDictionaryIsLetGo(t *testing.T) {
	c := NewCutter()
	if got := c.Words("洗发水味道"); !reflect.DeepEqual(got, []string{"洗发水", "味道"}) {
		t.Fatalf("%q", got)
	}
	if shared.seg.Value() == nil {
		t.Fatal("not held while in use")
	}
	runtime.KeepAlive(c)
	c = nil
	for range 5 {
		runtime.GC()
		if shared.seg.Value() == nil {
			return
		}
	}
	t.Fatal("still held")
}

func FuzzWords(f *testing.F) {
	f.Add("房间clean。@a b@c.d http://x '’-")
	c := NewCutter()
	f.Fuzz(func(t *testing.T, text string) {
		for _, w := range c.Words(text) {
			if w == "" || len(w) > 2*len(text) {
				t.Fatalf("%q gives the word %q", text, w)
			}
		}
		c.phrases(text, 100, func(string) {})
	})
}
