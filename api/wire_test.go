package api

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/embed"
)

// reflected is what encoding/json would write for /v1/embeddings.
func reflected(t testing.TB, res *embed.Result, info embed.Info, dim int, b64 bool, tokens int) []byte {
	t.Helper()
	type element struct {
		Object    string `json:"object"`
		Index     int    `json:"index"`
		Embedding any    `json:"embedding"`
	}
	var out struct {
		Object string    `json:"object"`
		Data   []element `json:"data"`
		Model  string    `json:"model"`
		Usage  struct {
			Prompt int `json:"prompt_tokens"`
			Total  int `json:"total_tokens"`
		} `json:"usage"`
	}
	out.Object, out.Model, out.Data = "list", info.Name, []element{}
	out.Usage.Prompt, out.Usage.Total = tokens, tokens
	for i := range res.Tokens {
		v := res.Row(i)
		if dim < len(v) {
			v = cut(slices.Clone(v[:dim]))
		}
		e := element{"embedding", i, v}
		if b64 {
			var raw []byte
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			e.Embedding = base64.StdEncoding.EncodeToString(raw)
		}
		out.Data = append(out.Data, e)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func someResult(texts, dim int) *embed.Result {
	r := rand.New(rand.NewPCG(3, 4)) // of many sizes
	res := &embed.Result{Tokens: make([]int, texts), Truncated: make([]bool, texts), Vectors: make([]float32, texts*dim)}
	for i := range res.Vectors {
		res.Vectors[i] = float32(r.NormFloat64() * math.Pow(10, float64(-r.IntN(1+i%384/64*2))))
	}
	return res
}

// What is written by hand is byte for byte what encoding/json writes.
func TestWireIsWhatJSONWrites(t *testing.T) {
	for _, name := range []string{"words", "a\"b\\c\n<&>\u2028é\x7f\xff", ""} {
		for _, dim := range []int{1, 2, 3, 4, 5, 24, 384} {
			for _, texts := range []int{0, 1, 3} {
				res, info := someResult(texts, 384), embed.Info{Name: name, Dim: 384}
				for _, b64 := range []bool{false, true} {
					got, want := writeEmbeddings(res, info, dim, b64, 77), reflected(t, res, info, dim, b64, 77)
					if !bytes.Equal(got, want) {
						t.Fatalf("%d texts, %d numbers, base64 %v:\n%.300s\nwant\n%.300s", texts, dim, b64, got, want)
					}
				}
				rows := [][]float32{}
				for i := range texts {
					rows = append(rows, cutClone(res.Row(i), dim))
				}
				want, err := json.Marshal(rows)
				if err != nil {
					t.Fatal(err)
				}
				if got := writeVectors(res, dim); !bytes.Equal(got, want) {
					t.Fatalf("/embed, %d texts, %d numbers:\n%.300s\nwant\n%.300s", texts, dim, got, want)
				}
			}
		}
	}
}

func cutClone(v []float32, dim int) []float32 {
	if dim == len(v) {
		return v
	}
	return cut(slices.Clone(v[:dim]))
}

// FuzzFloats writes any floats as encoding/json does.
func FuzzFloats(f *testing.F) {
	for _, x := range []uint32{0, 1 << 31, 1, 0x3f800000, math.Float32bits(1e-6), math.Float32bits(9.999999e-7), math.Float32bits(1e21), math.Float32bits(1e-10), math.Float32bits(math.MaxFloat32)} {
		f.Add(x, x+1, x-1)
	}
	f.Fuzz(func(t *testing.T, a, b, c uint32) {
		v := make([]float32, 0, 3)
		for _, bits := range []uint32{a, b, c} {
			if x := math.Float32frombits(bits); x-x == 0 {
				v = append(v, x)
			}
		}
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendFloats(nil, v); !bytes.Equal(got, want) {
			t.Fatalf("%v: %s, want %s", v, got, want)
		}
		var raw []byte
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		if got, want := string(appendBase64([]byte("x"), v)), "x"+base64.StdEncoding.EncodeToString(raw); got != want {
			t.Fatalf("%v: %s, want %s", v, got, want)
		}
	})
}

// FuzzString writes any name as encoding/json does.
func FuzzString(f *testing.F) {
	f.Add("all-MiniLM-L6-v2")
	f.Add("a\x00\"\\<>&\u2029\xff")
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, s); !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

// plainInput is parseInput by encoding/json; ok is false for what is refused.
func plainInput(raw []byte) (texts []string, tokens [][]int32, ok bool) {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return nil, nil, false
	}
	list, is := value.([]any)
	if s, one := value.(string); one {
		return []string{s}, nil, s != ""
	}
	null := func(list []any) bool { return slices.ContainsFunc(list, func(v any) bool { return v == nil }) }
	if !is || len(list) == 0 || null(list) {
		return nil, nil, false
	}
	switch list[0].(type) {
	case string:
		ok = json.Unmarshal(raw, &texts) == nil && !slices.Contains(texts, "")
	case float64:
		tokens = make([][]int32, 1)
		ok = json.Unmarshal(raw, &tokens[0]) == nil
	case []any:
		for _, e := range list {
			if inner, is := e.([]any); is && null(inner) {
				return nil, nil, false
			}
		}
		ok = json.Unmarshal(raw, &tokens) == nil
	}
	return texts, tokens, ok
}

// FuzzInput reads any JSON value as encoding/json does, into the same texts or
// ids, or refuses what that refuses.
func FuzzInput(f *testing.F) {
	for _, s := range []string{
		`"a"`, `""`, ` [ "a" , "b\n\"\\" ] `, `["a\\","b]","\u00e9\ud83d\ude00\ud800"]`, `[]`, `[[]]`, `[[1,2],[ 3 ]]`, `[1,-2,2147483647]`, `[2147483648]`,
		`[1.0]`, `[1e1]`, `[null]`, `["a",null]`, `[[1,null]]`, `["a",1]`, `[1,"a"]`, `[[1],"a"]`, `[{"a":[1,"]"]}]`, `[true]`, `null`, `7`, `{}`, `[[[1]]]`, "[\"\xff\"]", `["",""]`, `[-0]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return // the body as a whole was valid
		}
		texts, tokens, err := parseInput(raw, 1<<20)
		wantTexts, wantTokens, ok := plainInput(raw)
		if (err == nil) != ok {
			t.Fatalf("%q: %v, want it taken: %v", raw, err, ok)
		}
		if !ok {
			return
		}
		if !slices.Equal(texts, wantTexts) || !reflect.DeepEqual(tokens, wantTokens) {
			t.Fatalf("%q: %q %v, want %q %v", raw, texts, tokens, wantTexts, wantTokens)
		}
	})
}

// The number of allocations does not grow with the vectors: one for the answer,
// one for a shortened vector, one for the texts beside the texts themselves.
func TestWireAllocates(t *testing.T) {
	res, info := someResult(64, 384), embed.Info{Name: "words", Dim: 384}
	for i := range res.Tokens { // of the size that an encoder's have
		cut(res.Row(i))
	}
	for _, c := range []struct {
		what string
		most float64
		do   func()
	}{
		{"base64", 1, func() { writeEmbeddings(res, info, 384, true, 1) }},
		{"float", 1, func() { writeEmbeddings(res, info, 384, false, 1) }},
		{"dimensions", 2, func() { writeEmbeddings(res, info, 100, true, 1) }},
		{"/embed", 1, func() { writeVectors(res, 384) }},
	} {
		if got := testing.AllocsPerRun(10, c.do); got > c.most {
			t.Errorf("%s: %v allocations for 64 vectors, want at most %v", c.what, got, c.most)
		}
	}
	for _, n := range []int{64, 2048} {
		raw := json.RawMessage(`["` + strings.TrimSuffix(strings.Repeat(`a good customer who sails","`, n), `,"`) + `]`)
		if got := testing.AllocsPerRun(10, func() {
			if _, _, err := parseInput(raw, n); err != nil {
				t.Fatal(err)
			}
		}); got > float64(n)+20 {
			t.Errorf("reading %d texts: %v allocations", n, got)
		}
	}
}

func BenchmarkWire(b *testing.B) {
	res, info := someResult(64, 384), embed.Info{Name: "words", Dim: 384}
	for i := range res.Tokens {
		cut(res.Row(i))
	}
	for _, b64 := range []bool{false, true} {
		b.Run(fmt.Sprintf("base64=%v/by hand", b64), func(b *testing.B) {
			for b.Loop() {
				writeEmbeddings(res, info, 384, b64, 1)
			}
		})
		b.Run(fmt.Sprintf("base64=%v/encoding/json", b64), func(b *testing.B) {
			for b.Loop() {
				reflected(b, res, info, 384, b64, 1)
			}
		})
	}
	raw := json.RawMessage(`["` + strings.TrimSuffix(strings.Repeat(`a good customer who sails","`, 2048), `,"`) + `]`)
	b.Run("read 2048 texts", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := parseInput(raw, 2048); err != nil {
				b.Fatal(err)
			}
		}
	})
}
