package embed

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openTiny(t testing.TB, folder string, opt Options) *Model {
	t.Helper()
	m, err := Open(filepath.Join("testdata", folder), opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readGz(t testing.TB, path string, v any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(f)
	if err == nil {
		err = json.NewDecoder(z).Decode(v)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		ab += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	return ab / math.Sqrt(aa*bb)
}

// The tiny models have random weights; PyTorch computed the goldens in fp64
// (testdata/oracle.py tiny). fp32 through two layers stays within 1e-5.
func TestTinyGolden(t *testing.T) {
	var golden struct {
		IDs     [][]int32              `json:"ids"`
		Vectors map[string][][]float32 `json:"vectors"`
	}
	readGz(t, "testdata/golden-tiny.json.gz", &golden)
	if len(golden.IDs) < 10 || len(golden.Vectors) != 4 {
		t.Fatalf("golden has %d texts and %d poolings", len(golden.IDs), len(golden.Vectors))
	}
	for _, folder := range []string{"tiny", "tiny-onnx"} {
		for mode, want := range golden.Vectors {
			t.Run(folder+"/"+mode, func(t *testing.T) {
				m := openTiny(t, folder, Options{Pooling: mode, Precision: FP32})
				got, err := m.EncodeTokens(t.Context(), golden.IDs, EncodeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for i := range golden.IDs {
					for j, w := range want[i] {
						if d := math.Abs(float64(got.Row(i)[j] - w)); !(d <= 1e-5) {
							t.Fatalf("text %d of %d tokens: element %d is %v, want %v", i, len(golden.IDs[i]), j, got.Row(i)[j], w)
						}
					}
				}
			})
		}
	}
}

// randomTexts gives n token lists of 1 to limit tokens, some of them equal.
func randomTexts(rng *rand.Rand, n, vocab, limit int) [][]int32 {
	ids := make([][]int32, n)
	for i := range ids {
		if i > 0 && rng.IntN(8) == 0 {
			ids[i] = slices.Clone(ids[rng.IntN(i)])
			continue
		}
		ids[i] = make([]int32, 1+rng.IntN(limit))
		for j := range ids[i] {
			ids[i][j] = int32(rng.IntN(vocab))
		}
	}
	return ids
}

func checkInvariance(t *testing.T, open func(threads int) *Model, ids [][]int32) {
	t.Helper()
	one := open(1)
	alone := make([][]float32, len(ids))
	for i := range ids {
		r, err := one.EncodeTokens(t.Context(), ids[i:i+1], EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		alone[i] = r.Vectors
	}
	for _, threads := range []int{1, 2, 5} {
		m := open(threads)
		for _, cut := range []int{len(ids), len(ids)/2 + 1, 7, 2} {
			for from := 0; from < len(ids); from += cut {
				to := min(from+cut, len(ids))
				r, err := m.EncodeTokens(t.Context(), ids[from:to], EncodeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for i := from; i < to; i++ {
					for j, v := range r.Row(i - from) {
						if math.Float32bits(v) != math.Float32bits(alone[i][j]) {
							t.Fatalf("%d threads, batch of %d: text %d (%d tokens) element %d is %v, alone %v", threads, to-from, i, len(ids[i]), j, v, alone[i][j])
						}
					}
				}
			}
		}
	}
}

func TestSameTextSameBits(t *testing.T) {
	const seed = 11
	ids := randomTexts(rand.New(rand.NewPCG(seed, 1)), 90, 100, 48)
	for _, precision := range precisions {
		for _, pooling := range []string{"mean", "first", "last", "max"} {
			t.Run(string(precision)+"/"+pooling, func(t *testing.T) {
				checkInvariance(t, func(n int) *Model {
					return openTiny(t, "tiny", Options{Threads: n, Pooling: pooling, Precision: precision})
				}, ids)
			})
		}
	}
}

func TestEncodeTexts(t *testing.T) {
	m := openTiny(t, "tiny", Options{})
	long := strings.Repeat("customer ", 60)
	texts := []string{"", "the customer", long, "the customer", "我的订单", "!"}
	var calls []int
	r, err := m.Encode(t.Context(), texts, EncodeOptions{Progress: func(done, total int) {
		if total != len(texts) {
			t.Errorf("total %d", total)
		}
		calls = append(calls, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{2, 4, 48, 4, 6, 3}; !slices.Equal(r.Tokens, want) {
		t.Errorf("tokens %v, want %v", r.Tokens, want)
	}
	if want := []bool{false, false, true, false, false, false}; !slices.Equal(r.Truncated, want) {
		t.Errorf("truncated %v, want %v", r.Truncated, want)
	}
	if len(calls) == 0 || calls[len(calls)-1] != len(texts) || !slices.IsSorted(calls) {
		t.Errorf("progress %v", calls)
	}
	if !slices.Equal(r.Row(1), r.Row(3)) {
		t.Error("equal texts differ")
	}
	for i := range texts {
		var n float64
		for _, v := range r.Row(i) {
			n += float64(v) * float64(v)
		}
		if !(math.Abs(n-1) < 1e-6) {
			t.Errorf("text %d has length %v", i, n)
		}
	}
	prompted, err := m.Encode(t.Context(), []string{"customer"}, EncodeOptions{Prompt: "the "})
	if err != nil || !slices.Equal(prompted.Vectors, r.Row(1)) {
		t.Errorf("a prompt is not the text in front of the text: %v", err)
	}
	empty, err := m.Encode(t.Context(), nil, EncodeOptions{})
	if err != nil || len(empty.Vectors) != 0 {
		t.Errorf("no texts: %v, %v", empty, err)
	}
	info := m.Info()
	if info.Dim != 24 || info.Layers != 2 || info.MaxTokens != 48 || info.Pooling != "mean" || !strings.HasPrefix(info.Stamp, "tiny@") || len(info.Stamp) != 17+len("+int16") {
		t.Errorf("info %+v", info)
	}
}

func TestEncodeTokensRefuses(t *testing.T) {
	m := openTiny(t, "tiny", Options{})
	for _, ids := range [][][]int32{{{}}, {{2, 3}, {-1}}, {{2, 108, 3}}, {{math.MaxInt32}}} {
		if r, err := m.EncodeTokens(t.Context(), ids, EncodeOptions{}); !errors.Is(err, ErrInput) {
			t.Errorf("%v: %v, %v", ids, r, err)
		}
	}
	r, err := m.EncodeTokens(t.Context(), [][]int32{make([]int32, 49), make([]int32, 48)}, EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Truncated[0] || r.Truncated[1] || !slices.Equal(r.Row(0), r.Row(1)) {
		t.Errorf("49 tokens in a model of 48: truncated %v", r.Truncated)
	}
}

// countdown is a context that is cancelled after it was asked n times.
type countdown struct {
	context.Context
	n int
}

func (c *countdown) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelWithinATile(t *testing.T) {
	m := openTiny(t, "tiny", Options{Threads: 1})
	ids := randomTexts(rand.New(rand.NewPCG(3, 1)), 4, 100, 8) // one tile
	asked := 0
	for n := range 100 {
		_, err := m.EncodeTokens(t.Context(), ids, EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.EncodeTokens(&countdown{t.Context(), n}, ids, EncodeOptions{})
		if err == nil {
			asked = n
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if asked < 1+2 { // before the tile and before each of its two layers
		t.Errorf("the context was looked at %d times", asked)
	}
}

// looks counts how often a context is asked, and cancels it at the stop-th time.
type looks struct {
	context.Context
	n, stop atomic.Int64
}

func (c *looks) Err() error {
	if c.n.Add(1) >= c.stop.Load() {
		return context.Canceled
	}
	return nil
}

// TestCancelCountsTiles: wherever a call over many tiles is cancelled, each
// goroutine asks once more at most, and so begins no tile and no layer. A tile of
// the tiny model asks three times: before it begins and before its two layers.
func TestCancelCountsTiles(t *testing.T) {
	const threads, texts = 2, 400
	m := openTiny(t, "tiny", Options{Threads: threads})
	ids := randomTexts(rand.New(rand.NewPCG(12, 1)), texts, 100, 48)
	encode := func(stop int64) int64 {
		ctx := &looks{Context: t.Context()}
		ctx.stop.Store(stop)
		if _, err := m.EncodeTokens(ctx, ids, EncodeOptions{}); (err == nil) != (ctx.n.Load() < stop) || (err != nil && !errors.Is(err, context.Canceled)) {
			t.Fatalf("cancelled at look %d of %d: %v", stop, ctx.n.Load(), err)
		}
		return ctx.n.Load()
	}
	all := encode(math.MaxInt64)
	if all < 3*20 {
		t.Fatalf("the whole call looks %d times: too few tiles for this test", all)
	}
	for stop := int64(1); stop < all; stop += 7 {
		// The others' next look, and the one after all have ended.
		if n := encode(stop); n > stop+threads {
			t.Errorf("cancelled at look %d, looked %d times more", stop, n-stop)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	whole := map[string]any{
		"model_type": "bert", "hidden_act": "gelu", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
		"intermediate_size": 48, "max_position_embeddings": 48, "type_vocab_size": 2, "vocab_size": 108,
	}
	for _, c := range []struct {
		key   string
		value any
		says  string
	}{
		{"", nil, ""}, // as it is, it opens
		{"model_type", "xlm-roberta", `model_type "xlm-roberta"`},
		{"hidden_act", "gelu_new", `hidden_act "gelu_new"`},
		{"hidden_act", "relu", `hidden_act "relu"`},
		{"position_embedding_type", "relative_key", `position_embedding_type "relative_key"`},
		{"is_decoder", true, "is_decoder"},
		{"num_attention_heads", 5, "num_attention_heads 5"},
		{"num_attention_heads", 0, "num_attention_heads 0"},
		{"hidden_size", 1 << 40, "hidden_size"},
		{"num_hidden_layers", 3, "encoder.layer.2.attention.self.query.weight"},
		{"vocab_size", 50, "vocab_size 50"},
		{"vocab_size", 120, "embeddings.word_embeddings.weight"},
		{"max_position_embeddings", 40, "48"},
		{"layer_norm_eps", -1, "layer_norm_eps"},
	} {
		t.Run(fmt.Sprintf("%s=%v", c.key, c.value), func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"vocab.txt", "tokenizer_config.json", "model.safetensors", "kindred-model.json"} {
				data, err := os.ReadFile(filepath.Join("testdata/tiny", name))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			cfg := make(map[string]any)
			for k, v := range whole {
				cfg[k] = v
			}
			if c.key != "" {
				cfg[c.key] = c.value
			}
			data, err := json.Marshal(cfg)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, Options{})
			if c.key == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to name %s", err, c.says)
			}
		})
	}
	if _, err := Open(t.TempDir(), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	for _, opt := range []Options{{Pooling: "sum"}, {MaxTokens: 49}, {MaxTokens: 1}, {MaxTokens: -3}} {
		if _, err := Open("testdata/tiny", opt); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	data, err := os.ReadFile("testdata/tiny/config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"model_type":"bert","hidden_size":1e3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var fc fileConfig
		if json.Unmarshal(data, &fc) != nil {
			return
		}
		cfg, err := fc.check()
		if err == nil && (cfg.Dim < 1 || cfg.Dim > maxDim || cfg.Dim%cfg.Heads != 0 || cfg.Vocab > maxVocab || cfg.Positions > maxPositions) {
			t.Fatalf("accepted %+v", cfg)
		}
	})
}
