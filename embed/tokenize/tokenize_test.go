package tokenize

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// sharedModels is the folder of the real vocabularies; tests that need it say so when it is absent.
func sharedModels(t testing.TB) string {
	t.Helper()
	root := os.Getenv("KINDRED_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared")
	}
	dir := filepath.Join(root, "models", "tokenizers")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the vocabularies are needed in CI: %v", err)
		}
		t.Skipf("no real vocabularies: %v (set KINDRED_SHARED)", err)
	}
	return dir
}

func openVocab(t testing.TB, path string, lower bool) *Tokenizer {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	tok, err := FromVocab(f, lower)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func openDir(t testing.TB, dir string) *Tokenizer {
	t.Helper()
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func mini(t testing.TB) *Tokenizer {
	t.Helper()
	return openVocab(t, filepath.Join("testdata", "mini-vocab.txt"), true)
}

type golden struct {
	Texts   []string   `json:"texts"` // hex
	IDs     [][]int32  `json:"ids"`
	Decoded []string   `json:"decoded"`
	Spans   [][][2]int `json:"spans"`
}

func readGolden(t *testing.T, name string) golden {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	if len(g.Texts) < 1000 || len(g.IDs) != len(g.Texts) {
		t.Fatalf("golden %s has %d texts and %d answers", name, len(g.Texts), len(g.IDs))
	}
	return g
}

func TestGolden(t *testing.T) {
	cases := []struct {
		name  string
		model string // folder of shared models, "" for the committed vocabulary
		vocab bool
		lower bool
	}{
		{"mini-vocab", "", true, true},
		{"mini-cased", "", true, false},
		{"uncased-json", "bert-base-uncased", false, true},
		{"uncased-vocab", "bert-base-uncased", true, true},
		{"chinese-vocab", "bert-base-chinese", true, true},
		{"chinese-cased", "bert-base-chinese", true, false},
		{"bge-json", "bge-large-zh-v1.5", false, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var tok *Tokenizer
			switch {
			case c.model == "":
				tok = openVocab(t, filepath.Join("testdata", "mini-vocab.txt"), c.lower)
			case c.vocab:
				tok = openVocab(t, filepath.Join(sharedModels(t), c.model, "vocab.txt"), c.lower)
			default:
				tok = openDir(t, filepath.Join(sharedModels(t), c.model))
			}
			g := readGolden(t, c.name)
			bad, spans := 0, 0
			for i, h := range g.Texts {
				raw, err := hex.DecodeString(h)
				if err != nil {
					t.Fatal(err)
				}
				text := string(raw)
				got, cut := tok.Encode(text, 0, nil)
				if cut {
					t.Errorf("text %d: truncated without a limit", i)
				}
				if !slices.Equal(got, g.IDs[i]) {
					if bad++; bad < 6 {
						t.Errorf("text %d %q:\n got %v %q\nwant %v %q", i, text, got, tok.Tokens(got), g.IDs[i], tok.Tokens(g.IDs[i]))
					}
				}
				if i < len(g.Decoded) {
					if d := tok.Decode(g.IDs[i]); d != g.Decoded[i] {
						t.Errorf("text %d: decoded %q, want %q", i, d, g.Decoded[i])
					}
				}
				// The reference gives the places, not the sources, of marks that it reorders: not compared.
				if i < len(g.Spans) && g.Spans[i] != nil && !strings.ContainsFunc(text, reorders) {
					_, sp, _ := tok.EncodeOffsets(text, 0, nil, nil)
					want := make([]Span, len(g.Spans[i]))
					for k, s := range g.Spans[i] {
						want[k] = Span{s[0], s[1]}
					}
					if !slices.Equal(sp, want) {
						t.Errorf("text %d %q: spans %v, want %v", i, text, sp, want)
					}
					spans++
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d texts differ", bad, len(g.Texts))
			}
			if g.Spans != nil && spans < 200 {
				t.Errorf("only %d texts were compared by span", spans)
			}
			t.Logf("%d texts, %d decoded, %d with spans", len(g.Texts), len(g.Decoded), spans)
		})
	}
}

func reorders(r rune) bool {
	return slices.ContainsFunc(keptMarks, func(m classedRune) bool { return m.r == r })
}

// TestCompare checks the answers written by oracle.py's compare or fuzz; KINDRED_TOKENIZE_COMPARE is its OUT.
// The general pass, which EncodeOffsets uses, is held to them as well.
func TestCompare(t *testing.T) {
	out := os.Getenv("KINDRED_TOKENIZE_COMPARE")
	if out == "" {
		t.Skip("KINDRED_TOKENIZE_COMPARE is not set")
	}
	dir := sharedModels(t)
	toks := map[string]*Tokenizer{
		"uncased-json":  openDir(t, filepath.Join(dir, "bert-base-uncased")),
		"uncased-vocab": openVocab(t, filepath.Join(dir, "bert-base-uncased", "vocab.txt"), true),
		"bge-json":      openDir(t, filepath.Join(dir, "bge-large-zh-v1.5")),
		"chinese-vocab": openVocab(t, filepath.Join(dir, "bert-base-chinese", "vocab.txt"), true),
		"chinese-cased": openVocab(t, filepath.Join(dir, "bert-base-chinese", "vocab.txt"), false),
		"mini-vocab":    mini(t),
	}
	open := func(name string) *bufio.Reader {
		f, err := os.Open(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return bufio.NewReaderSize(f, 1<<20)
	}
	record := func(r io.Reader, size int) ([]byte, error) {
		var n int32
		if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
			return nil, err
		}
		raw := make([]byte, size*int(n))
		_, err := io.ReadFull(r, raw)
		return raw, err
	}
	for name, tok := range toks {
		t.Run(name, func(t *testing.T) {
			texts, answers := open("texts"), open(name+".ids")
			n, total, bad := 0, 0, 0
			var got, slow []int32
			var spans []Span
			for {
				line, err := record(texts, 1)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				raw, err := record(answers, 4)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]int32, len(raw)/4)
				for i := range want {
					want[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
				}
				text := string(line)
				got, _ = tok.Encode(text, 0, got[:0])
				slow, spans, _ = tok.EncodeOffsets(text, 0, slow[:0], spans[:0])
				if !slices.Equal(got, want) || !slices.Equal(slow, want) {
					if bad++; bad < 6 {
						t.Errorf("text %d %q:\ngot  %q\nwant %q", n, text, tok.Tokens(got), tok.Tokens(want))
					}
				}
				n++
				total += len(got)
			}
			t.Logf("%d texts, %d ids, %d mismatches", n, total, bad)
			if n == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

func TestLimit(t *testing.T) {
	tok := mini(t)
	for _, text := range []string{"", "a", "hello world", "[MASK] x [SEP]", strings.Repeat("客户 abc! ", 50), strings.Repeat("z", 10000)} {
		full, cut := tok.Encode(text, 0, nil)
		if cut || tok.Count(text) != len(full) {
			t.Errorf("%.20q: Count %d, Encode %d", text, tok.Count(text), len(full))
		}
		for limit := 1; limit <= len(full)+2; limit++ {
			dst := []int32{-7}
			got, cut := tok.Encode(text, limit, dst)
			if got[0] != -7 {
				t.Fatal("Encode changed what was in dst")
			}
			got = got[1:]
			_, spans, cut2 := tok.EncodeOffsets(text, limit, nil, nil)
			want := slices.Clone(full)
			if limit < len(full) {
				want = append(slices.Clone(full[:max(limit-1, 1)]), tok.sep)[:max(limit, 1)]
			}
			if !slices.Equal(got, want) || cut != (limit < len(full) && len(full) > 2) || cut2 != cut || len(spans) != len(got) {
				t.Errorf("%.20q limit %d: got %v %v (%d spans), want %v", text, limit, got, cut, len(spans), want)
			}
		}
	}
}

func TestWithinLimitEarlyStop(t *testing.T) {
	tok := mini(t)
	text := strings.Repeat("a b c ", 1<<20)
	ids := make([]int32, 0, 600)
	n := testing.AllocsPerRun(20, func() { ids, _ = tok.Encode(text, 512, ids[:0]) })
	// The race detector makes the pool drop some scanners, which costs a handful; one a token would be 510.
	if n > 8 || len(ids) != 512 {
		t.Errorf("%v allocations and %d ids, want 0 and 512", n, len(ids))
	}
	if n := testing.AllocsPerRun(20, func() { tok.Count(strings.Repeat("客户 hello über 서울 !", 20)) }); n > 8 {
		t.Errorf("Count allocates %v times", n)
	}
}

func TestRefusals(t *testing.T) {
	const good = `{"added_tokens":[{"id":0,"content":"[UNK]","special":true}],"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
	"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]"}},{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"[SEP]"}}],
	"special_tokens":{"[CLS]":{"ids":[1]},"[SEP]":{"ids":[2]}}},"decoder":{"type":"WordPiece"},"model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"hi":3}}}`
	tok, err := FromJSON(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if ids, _ := tok.Encode("Hí [UNK]", 0, nil); !slices.Equal(ids, []int32{1, 3, 0, 2}) {
		t.Errorf("ids %v", ids)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"model":{"type":"WordPiece"`, `"model":{"type":"BPE"`, "BPE"},
		{`"model":{"type":"WordPiece"`, `"model":{"type":"Unigram"`, "Unigram"},
		{`"BertNormalizer"`, `"NFKC"`, "NFKC"},
		{`"BertPreTokenizer"`, `"ByteLevel"`, "ByteLevel"},
		{`"TemplateProcessing"`, `"RobertaProcessing"`, "RobertaProcessing"},
		{`{"Sequence":{"id":"A"}},`, ``, "template"},
		{`"[CLS]":{"ids":[1]}`, `"[CLS]":{"ids":[3]}`, "[CLS]"},
		{`"special":true`, `"special":true,"lstrip":true`, "lstrip"},
	} {
		_, err := FromJSON(strings.NewReader(strings.Replace(good, c.old, c.new, 1)))
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", c.new, err)
		}
	}
	for _, c := range []struct{ old, new, want string }{
		{`"[UNK]":0,`, ``, ""},
		{`"hi":3`, `"hi":2000000000`, "dense"},
		{`"hi":3`, `"hi":-3`, "negative"},
		{`"vocab"`, `"other"`, "empty"},
		{good, `{`, "JSON"},
	} {
		if c.want == "" { // an added token makes up for the missing entry
			if _, err := FromJSON(strings.NewReader(strings.Replace(good, c.old, c.new, 1))); err != nil {
				t.Error(err)
			}
			continue
		}
		if _, err := FromJSON(strings.NewReader(strings.Replace(good, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.new, err, c.want)
		}
	}
	if _, err := FromVocab(strings.NewReader("a\nb\n"), true); err == nil || !strings.Contains(err.Error(), "[CLS]") {
		t.Errorf("vocabulary without special tokens: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty folder: %v", err)
	}
}

// TestLoadVocab checks that both files of one model give the same ids, and that the switches are read.
func TestLoadVocab(t *testing.T) {
	dir := t.TempDir()
	raw, err := os.ReadFile(filepath.Join("testdata", "mini-vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("vocab.txt", bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")))
	const text = "Café É 客户"
	want, _ := mini(t).Encode(text, 0, nil)
	if got, _ := openDir(t, dir).Encode(text, 0, nil); !slices.Equal(got, want) {
		t.Errorf("uncased: %v, want %v", got, want)
	}
	write("tokenizer_config.json", []byte(`{"do_lower_case": false}`))
	want, _ = openVocab(t, filepath.Join("testdata", "mini-vocab.txt"), false).Encode(text, 0, nil)
	if got, _ := openDir(t, dir).Encode(text, 0, nil); !slices.Equal(got, want) {
		t.Errorf("cased: %v, want %v", got, want)
	}
}

func TestDecodeRune(t *testing.T) {
	// Counts from the table of Unicode 3.9 (best practice of replacement) and Python.
	for _, c := range []struct {
		in   string
		want int
	}{
		{"\xff", 1}, {"\xc0\xaf", 2}, {"\xe0\x80\xbf", 3}, {"\xed\xa0\x80", 3}, {"\xf0\x9f\x98", 1}, {"\xf0\x9f", 1},
		{"\xe4\xbd", 1}, {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf", 4}, {"\xf4\x91\x80\x80", 4}, {"\xc3", 1},
	} {
		n := 0
		for i := 0; i < len(c.in); {
			r, w := decodeRune(c.in[i:])
			if r != utf8.RuneError {
				t.Errorf("%x: rune %x", c.in, r)
			}
			i += w
			n++
		}
		if n != c.want {
			t.Errorf("%x: %d replacements, want %d", c.in, n, c.want)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"", "[CLS]", "a\u0301\u302e\u0334", "\xff\xf0\x9f", "客户 hello 서울", "\U0001D15F\u0f73"} {
		f.Add(s, 16)
	}
	toks := []*Tokenizer{mini(f), openVocab(f, filepath.Join("testdata", "mini-vocab.txt"), false)}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		for _, tok := range toks {
			ids, spans, cut := tok.EncodeOffsets(text, limit, nil, nil)
			plain, cut2 := tok.Encode(text, limit, nil)
			if !slices.Equal(ids, plain) || cut != cut2 || len(spans) != len(ids) {
				t.Fatalf("EncodeOffsets and Encode differ: %v %v", ids, plain)
			}
			if limit > 0 && len(ids) > limit || limit != 1 && len(ids) < 2 {
				t.Fatalf("%d ids with limit %d", len(ids), limit)
			}
			for i, id := range ids {
				if id < 0 || int(id) >= tok.VocabSize() {
					t.Fatalf("id %d", id)
				}
				if s := spans[i]; s.Start < 0 || s.End < s.Start || s.End > len(text) {
					t.Fatalf("span %v of %d bytes", s, len(text))
				}
			}
			if limit <= 0 && tok.Count(text) != len(ids) {
				t.Fatalf("Count %d, Encode %d", tok.Count(text), len(ids))
			}
			tok.Decode(ids)
		}
	})
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"WordPiece","vocab":{"[UNK]":0}}}`))
	f.Add([]byte(`{"added_tokens":[{"id":9,"content":""}],"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","cls":["a",1],"sep":["b",0]},"model":{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"","vocab":{"b":0,"a":1}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := FromJSON(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if ids, _ := tok.Encode("a b \u00e9 客", 8, nil); len(ids) > 8 {
			t.Fatalf("%d ids", len(ids))
		}
	})
}

func FuzzFromVocab(f *testing.F) {
	f.Add([]byte("[UNK]\n[CLS]\n[SEP]\na\n##b\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := FromVocab(bytes.NewReader(raw), true)
		if err != nil {
			return
		}
		tok.Count("a ab abc \u00e9")
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := openDir(b, filepath.Join(sharedModels(b), "bge-large-zh-v1.5"))
	for name, text := range map[string]string{
		"english": strings.Repeat("The customer asked twice about her international transfer. ", 8),
		"chinese": strings.Repeat("客户两次询问她的国际转账，非常不满意。", 8),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var ids []int32
			for b.Loop() {
				ids, _ = tok.Encode(text, 512, ids[:0])
			}
			b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "ids/s")
		})
	}
}
