package milvus_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

// barbs are what expressions, JSON, LIKE and paths could take for more than a value.
var barbs = []string{
	`" or 1==1`, `" or 1==1 or "" == "`, `"] or id != "`, `' or '1'=='1`, `\`, `\\`, `\"`, `\\"`, `"`, `""`, `'`, "`", `"; drop collection`, `%`, `_`, `100%`, `a_c`, `%%`, `\%`, `\_`,
	"\n", "\r\n", "\t", "\b\f\v", "\x01", "\x1f", "\x7f", "\x00", "a\x00b", "\u2028\u2029", "\ufeff", "\u202e", "\u200d", "é", "e\u0301", "ß", "İ", "漢字", "漢\n字", "漢\x01\"字", `漢\字`, "日本語 '\"", "🙂", "👩‍👩‍👧", "\U0010ffff", "\ud7ff", "\ue000",
	`cols["plain"]`, `$meta["x"]`, `["a"]["b"]`, `{"a":1}`, `[1,2]`, `/a/b`, `~0~1`, `a.b.c`, `$.a[0]`, `\u0041`, `\x41`, `\101`, `\n`, `\N{DASH}`, `{x}`, `{{.}}`, `${HOME}`, `$(id)`, `%s%n%d`, `%00`, `&quot;`, `<script>`, `--`, `/*`, `#`, `//`,
	`true`, `null`, `NaN`, `1`, `-1`, `1e309`, `0x10`, ` `, `  a  `, `and`, `or`, `not`, `in`, `like`, `exists x`, `json_contains(cols["tags"], "a")`, `TextMatch`, `hash >= 0`, `id`, `)`, `(`, `((`, `]`, `[`, `,`, `;`, `:`, `==`, `!=`,
}

// hostile returns n different texts: the barbs, alone and in one another.
func hostile(n int) []string {
	r := rand.New(rand.NewPCG(7, 7))
	out := slices.Clone(barbs)
	seen := map[string]bool{}
	for _, s := range out {
		seen[s] = true
	}
	for len(out) < n {
		var s string
		switch r.IntN(12) {
		case 0: // any runes
			for range 1 + r.IntN(20) {
				if c := rune(r.IntN(0x11000)); utf8.ValidRune(c) {
					s += string(c)
				}
			}
		case 1: // ASCII with much that is punctuation
			for range 1 + r.IntN(30) {
				s += string(rune(r.IntN(128)))
			}
		default:
			for range 1 + r.IntN(4) {
				s += barbs[r.IntN(len(barbs))]
			}
		}
		if s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for i, k := range []int{60_000, 40_000, 20_000, 10_000} { // as JSON each of them fits a row
		out[len(out)-1-i] = strings.Repeat([]string{"x", "é", `"`, "\x01"}[i], k)[:k]
	}
	return out[:n]
}

// name makes an id or a column's name of a text.
func name(s string, i, most int) string {
	s = strings.ReplaceAll(s, "\x00", "0")
	end := fmt.Sprintf("#%d", i)
	for len(s)+len(end) > most {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s + end
}

var oddNumbers = []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1e300, -1e300, 5e-324, 1 << 53, 1<<53 - 1, 1e20, 1e21, 123456789.25, 1700000000, -0.5, math.MaxFloat64}

// hostileWorld is the same rows in a Milvus and in an engine in memory.
func hostileWorld(t testing.TB, s *milvus.Store, texts []string) (index.Spec, index.Snapshot, index.Snapshot) {
	t.Helper()
	ctx := context.Background()
	spec := index.Spec{Name: "hostile", Dim: 2, Columns: []index.Column{
		{Name: "plain", Kind: index.Category}, {Name: "tags", Kind: index.Set}, {Name: "num", Kind: index.Number}, {Name: "a b-c_9", Kind: index.Category}, {Name: "0", Kind: index.Category}, {Name: "flag", Kind: index.Bool},
	}}
	own := len(spec.Columns)
	for i, b := range barbs {
		spec.Columns = append(spec.Columns, index.Column{Name: name(b, i, index.MaxColName), Kind: index.Category})
	}
	e, err := s.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	m := memory.Open()
	t.Cleanup(func() { m.Close() })
	f, err := m.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	cat := func(s string) index.Value { return index.Value{Kind: index.Category, Str: s} }
	for from := 0; from < len(texts); from += 500 {
		var batch []index.Row
		for i := from; i < min(from+500, len(texts)); i++ {
			v := texts[i]
			r := index.Row{ID: name(v, i, index.MaxID), Vector: []float32{1, float32(i)}, Record: []byte(v)}
			if len(r.Record) > 40_000 {
				r.Record = nil
			}
			if i%7 != 0 {
				r.Values = map[string]index.Value{"plain": cat(v)}
				if len(v) < 1000 {
					r.Values["tags"] = index.Value{Kind: index.Set, Set: []string{v, barbs[i%len(barbs)]}}
					r.Values["a b-c_9"], r.Values["0"] = cat(v), cat(v)
					r.Values["num"] = index.Value{Kind: index.Number, Num: oddNumbers[i%len(oddNumbers)]}
					r.Values["flag"] = index.Value{Kind: index.Bool, Num: float64(i % 2)}
					r.Values[spec.Columns[own+i%len(barbs)].Name] = cat(v)
				}
			}
			batch = append(batch, r)
		}
		if err := e.Upsert(ctx, batch); err != nil {
			t.Fatal(err)
		}
		if err := f.Upsert(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	mine, err := e.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.Close(); want.Close() })
	return spec, mine, want
}

// questions are filters around one text.
func questions(spec index.Spec, v string, i int, r *rand.Rand) []index.Filter {
	some := v
	for range r.IntN(3) {
		if _, n := utf8.DecodeLastRuneInString(some); len(some) > n {
			some = some[:len(some)-n]
		}
	}
	yes := true
	other := spec.Columns[6+i%len(barbs)].Name
	x := oddNumbers[i%len(oddNumbers)]
	return []index.Filter{
		{Field: "plain", Eq: v}, {Field: "tags", Eq: v}, {Field: "id", Eq: name(v, i, index.MaxID)}, {Field: other, Eq: v},
		{Field: "plain", Prefix: &some}, {Field: "id", Prefix: &some}, {Field: "a b-c_9", Gte: v, Lt: v + "~"}, {Field: "id", Gt: v},
		{Field: "num", Eq: x}, {Field: "num", Gt: x}, {Field: "num", Lte: x}, {Field: "num", In: []any{x, 0.1, 7}},
		{Must: []index.Filter{{Field: "plain", In: []any{v, "nobody", some}}}, MustNot: []index.Filter{{Field: "id", Eq: name(v, i, index.MaxID)}, {Field: "0", Lt: some}}},
		{Should: []index.Filter{{Field: "tags", In: []any{some, "x"}}, {Field: "num", Exists: &yes}, {Field: other, Exists: &yes}}, MustNot: []index.Filter{{Field: "flag", Eq: true}}},
		{MustNot: []index.Filter{{Field: "plain", Eq: v}}}, {Field: "tags", Prefix: &some},
	}
}

func ids(t testing.TB, snap index.Snapshot, f *index.Filter) []string {
	t.Helper()
	mask, err := snap.Match(f)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, 0, mask.GetCardinality())
	for it := mask.Iterator(); it.HasNext(); {
		out = append(out, snap.ID(it.Next()))
	}
	slices.Sort(out)
	return out
}

// askMilvus filters inside Milvus.
func askMilvus(t testing.TB, s *milvus.Store, expr string) []string {
	t.Helper()
	if expr == "" {
		expr = "hash >= 0"
	}
	got, err := s.Client().Query(context.Background(), client.QueryRequest{Collection: prefixes[s] + "_c_hostile", Expr: expr, Fields: []string{"id"}, Consistency: client.Session})
	if err != nil {
		t.Fatalf("%.300s: %v", expr, err)
	}
	if got.Rows == 0 {
		return []string{}
	}
	out := got.Column("id").Strings
	slices.Sort(out)
	return out
}

func testHostile(t *testing.T, addr string, n int) {
	s := open(t, addr, "")
	texts := hostile(n)
	spec, mine, want := hostileWorld(t, s, texts)
	r := rand.New(rand.NewPCG(1, 2))
	asked, left, found := 0, 0, 0
	for i, v := range texts {
		qs := questions(spec, v, i, r)
		if i >= 150 { // the first alone are asked everything
			r.Shuffle(len(qs), func(a, b int) { qs[a], qs[b] = qs[b], qs[a] })
			qs = qs[:3]
		}
		for _, f := range qs {
			right := ids(t, want, &f)
			if got := ids(t, mine, &f); !slices.Equal(got, right) {
				t.Fatalf("%+v: the mirror has %d rows, flat %d", f, len(got), len(right))
			}
			expr, err := milvus.Expr(&f, spec.Columns)
			if errors.Is(err, milvus.ErrNotExpressed) {
				left++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			asked++
			found += len(right)
			if got := askMilvus(t, s, expr); !slices.Equal(got, right) {
				t.Errorf("text %d: %.300q: Milvus has %d rows, flat %d", i, expr, len(got), len(right))
				if t.Failed() && asked > 3000 {
					t.FailNow()
				}
			}
		}
	}
	if asked < n || found < n {
		t.Errorf("%d filters with %d rows in all: hardly a test", asked, found)
	}
	t.Logf("%d texts: %d filters asked in Milvus too, %d only here; %d rows in all", n, asked, left, found)
}

func TestHostile(t *testing.T) { testHostile(t, fakeServer(t).Addr(), 400) }

// TestRealHostile asks a real server; KINDRED_TEST_MILVUS_FULL with 5,000 texts.
func TestRealHostile(t *testing.T) {
	addr := milvustest.Address(t)
	n := 400
	if os.Getenv("KINDRED_TEST_MILVUS_FULL") != "" {
		n = 5000
	}
	testHostile(t, addr, n)
}

// FuzzExpr asks the same filter of a Milvus (in process) and of an engine in memory.
func FuzzExpr(f *testing.F) {
	for i, b := range barbs {
		f.Add(b, barbs[(i+1)%len(barbs)], float64(i)-3.5, byte(i))
	}
	s := open(f, fakeServer(f).Addr(), "")
	ctx := context.Background()
	spec := index.Spec{Name: "hostile", Dim: 2, Columns: []index.Column{
		{Name: "plain", Kind: index.Category}, {Name: "tags", Kind: index.Set}, {Name: "num", Kind: index.Number}, {Name: `"] == "`, Kind: index.Category},
	}}
	e, err := s.Create(ctx, spec)
	if err != nil {
		f.Fatal(err)
	}
	m := memory.Open()
	f.Cleanup(func() { m.Close() })
	flat, err := m.Create(ctx, spec)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, v, w string, x float64, how byte) {
		if !utf8.ValidString(v) || !utf8.ValidString(w) || len(v)+len(w) > 1000 || x != x || x-x != 0 {
			t.Skip()
		}
		cat := func(s string) index.Value { return index.Value{Kind: index.Category, Str: s} }
		batch := []index.Row{
			{ID: name(v, 0, index.MaxID), Values: map[string]index.Value{"plain": cat(v), "num": {Kind: index.Number, Num: x}, `"] == "`: cat(w)}},
			{ID: name(w, 1, index.MaxID), Values: map[string]index.Value{"plain": cat(w), "tags": {Kind: index.Set, Set: []string{v, w}}}},
			{ID: "third", Values: map[string]index.Value{"tags": {Kind: index.Set, Set: []string{w}}}},
		}
		for _, e := range []index.Engine{e, flat} {
			if err := e.Upsert(ctx, batch); err != nil {
				t.Fatal(err)
			}
		}
		filters := []index.Filter{
			{Field: "plain", Eq: v}, {Field: "tags", In: []any{v, "x"}}, {Field: "plain", Prefix: &v}, {Field: "id", Prefix: &w}, {Field: "id", Gt: v, Lte: w},
			{Field: "plain", Gte: w}, {Field: "num", Lte: x}, {Field: "num", Eq: x}, {Field: `"] == "`, Eq: v},
			{MustNot: []index.Filter{{Field: "plain", Lt: v}}, Should: []index.Filter{{Field: "tags", Eq: w}, {Field: "num", Gt: -x}}},
		}
		q := filters[int(how)%len(filters)]
		var want, mine []string
		for got, e := range map[*[]string]index.Engine{&want: flat, &mine: e} {
			snap, err := e.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			*got = ids(t, snap, &q)
			snap.Close()
		}
		if !slices.Equal(want, mine) {
			t.Fatalf("%+v: the mirror has %d rows, flat %d", q, len(mine), len(want))
		}
		expr, err := milvus.Expr(&q, spec.Columns)
		if errors.Is(err, milvus.ErrNotExpressed) && (strings.ContainsRune(v+w, 0) || q.Field == `"] == "`) {
			t.Skip()
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := askMilvus(t, s, expr); !slices.Equal(got, want) {
			t.Fatalf("%q: Milvus has %q, flat %q", expr, got, want)
		}
		for _, e := range []index.Engine{e, flat} {
			if _, err := e.Delete(ctx, []string{batch[0].ID, batch[1].ID, "third"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
