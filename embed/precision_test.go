package embed

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var precisions = []Precision{FP32, Int16, Int8}

func TestPrecisionIsSettled(t *testing.T) {
	for _, c := range []struct {
		opt, env string
		want     Precision
		says     string
	}{
		{"", "", DefaultPrecision, ""},
		{"", "fp32", FP32, ""},
		{"int8", "fp32", Int8, ""},
		{"", "fp8", "", "KINDRED_PRECISION"},
		{"half", "", "", "choose fp32, int16 or int8, or fp16"},
	} {
		t.Setenv(precisionVariable, c.env)
		m, err := Open("testdata/tiny", Options{Precision: Precision(c.opt)})
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, environment %q: %v, want it to say %s", c.opt, c.env, err, c.says)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Info().Precision != c.want {
			t.Errorf("%q, environment %q: %s, want %s", c.opt, c.env, m.Info().Precision, c.want)
		}
	}
}

// Vectors of two precisions must never share a collection, so the stamps
// differ, and a stamp says which precision goes on with it.
func TestStampTellsThePrecision(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range precisions {
		stamp := openTiny(t, "tiny", Options{Precision: p}).Info().Stamp
		if seen[stamp] {
			t.Errorf("two precisions have the stamp %s", stamp)
		}
		seen[stamp] = true
		for _, s := range []string{stamp, stamp + "/0123456789ab"} {
			if got, err := StampPrecision(s); err != nil || got != p {
				t.Errorf("StampPrecision(%q) = %q, %v", s, got, err)
			}
		}
	}
	for _, bad := range []string{"", "tiny", "tiny@0123+int4"} {
		if p, err := StampPrecision(bad); err == nil {
			t.Errorf("StampPrecision(%q) = %q", bad, p)
		}
	}
}

// The tiny model's weights are random, so its rounding errors are as large as
// they get: these bounds are loose, docs/performance.md has the real ones.
func TestTinyPrecision(t *testing.T) {
	ids := randomTexts(rand.New(rand.NewPCG(5, 1)), 60, 100, 48)
	want, err := openTiny(t, "tiny", Options{Precision: FP32}).EncodeTokens(t.Context(), ids, EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for p, least := range map[Precision]float64{Int16: 0.999999, Int8: 0.995} {
		got, err := openTiny(t, "tiny", Options{Precision: p}).EncodeTokens(t.Context(), ids, EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		worst := 1.0
		for i := range ids {
			worst = min(worst, cosine(got.Row(i), want.Row(i)))
		}
		t.Logf("%s: minimum cosine %.9f", p, worst)
		if !(worst >= least && worst < 1-1e-12) {
			t.Errorf("%s: minimum cosine %v, want %v to below 1", p, worst, least)
		}
	}
}

func TestRealPrecision(t *testing.T) {
	for _, c := range realModels {
		t.Run(c.name, func(t *testing.T) {
			var golden struct {
				Texts   []string    `json:"texts"`
				Vectors [][]float32 `json:"vectors"`
			}
			readGz(t, filepath.Join("testdata", "golden-"+c.name+".json.gz"), &golden)
			for p, least := range map[Precision]float64{Int16: 0.9999, Int8: 0.95} {
				m := openReal(t, c.name, c.pooling, Options{Precision: p})
				if f := m.Info().Full; len(f) > 0 {
					t.Errorf("%s: fp32 layers %v", p, f)
				}
				got, err := m.Encode(t.Context(), golden.Texts, EncodeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				worst := 1.0
				for i := range golden.Texts {
					worst = min(worst, cosine(got.Row(i), golden.Vectors[i]))
				}
				t.Logf("%s: minimum cosine %.7f", p, worst)
				if !(worst >= least) {
					t.Errorf("%s: minimum cosine %v, want %v", p, worst, least)
				}
			}
		})
	}
}

// TestFallback gives one layer weights too small for an fp32 scale: that layer
// runs in fp32 and is named, the others stay in integers.
func TestFallback(t *testing.T) {
	const damaged = "encoder.layer.1.output.dense"
	dir := t.TempDir()
	for _, name := range []string{"config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "kindred-model.json"} {
		data, err := os.ReadFile(filepath.Join("testdata/tiny", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "model.safetensors" {
			setTensor(t, data, "bert."+damaged+".weight", 1e-40)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ids := randomTexts(rand.New(rand.NewPCG(6, 1)), 20, 100, 40)
	full, err := Open(dir, Options{Precision: FP32})
	if err != nil {
		t.Fatal(err)
	}
	if f := full.Info().Full; len(f) != 0 {
		t.Errorf("fp32 names %v", f)
	}
	want, err := full.EncodeTokens(t.Context(), ids, EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Precision{Int16, Int8} {
		m, err := Open(dir, Options{Precision: p})
		if err != nil {
			t.Fatal(err)
		}
		if f := m.Info().Full; len(f) != 1 || !strings.HasPrefix(f[0], damaged+" (") {
			t.Errorf("%s: fp32 layers %q, want %s alone", p, f, damaged)
		}
		got, err := m.EncodeTokens(t.Context(), ids, EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range ids {
			if c := cosine(got.Row(i), want.Row(i)); !(c > 0.995) {
				t.Errorf("%s: text %d has cosine %v", p, i, c)
			}
		}
	}
}

// setTensor fills an fp32 tensor of a safetensors file.
func setTensor(t *testing.T, file []byte, name string, v float32) {
	t.Helper()
	n := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Dtype   string `json:"dtype"`
		Offsets []int  `json:"data_offsets"`
	}
	var raw map[string]json.RawMessage
	err := json.Unmarshal(file[8:8+n], &raw)
	delete(raw, "__metadata__")
	if err == nil {
		var plain []byte
		if plain, err = json.Marshal(raw); err == nil {
			err = json.Unmarshal(plain, &header)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	h, ok := header[name]
	if !ok || h.Dtype != "F32" {
		t.Fatalf("tensor %s: %+v", name, h)
	}
	for at := h.Offsets[0]; at < h.Offsets[1]; at += 4 {
		binary.LittleEndian.PutUint32(file[8+int(n)+at:], math.Float32bits(v))
	}
}

func TestCloseLetsGo(t *testing.T) {
	m := openTiny(t, "tiny", Options{})
	if _, err := m.Encode(t.Context(), []string{"a"}, EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if m.net.Load() != nil {
		t.Error("a closed model holds its weights")
	}
	if _, err := m.Encode(t.Context(), []string{"a"}, EncodeOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Encode after Close: %v", err)
	}
	if _, err := m.EncodeTokens(t.Context(), [][]int32{{1}}, EncodeOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("EncodeTokens after Close: %v", err)
	}
}

// TestCrew counts that each part of each phase is done exactly once, and that
// what a phase wrote is there for the next.
func TestCrew(t *testing.T) {
	for _, helpers := range []int{0, 1, 3} {
		c := newCrew(helpers)
		sum := make([]int, 40)
		var calls atomic.Int64
		for phase := range 2000 {
			n := phase % len(sum)
			c.each(n, func(i int) {
				sum[i] += phase
				calls.Add(1)
			})
		}
		c.stop()
		want, all := make([]int, len(sum)), 0
		for phase := range 2000 {
			for i := range phase % len(sum) {
				want[i] += phase
				all++
			}
		}
		for i := range sum {
			if sum[i] != want[i] {
				t.Errorf("%d helpers: part %d summed %d, want %d", helpers, i, sum[i], want[i])
			}
		}
		if calls.Load() != int64(all) {
			t.Errorf("%d helpers: %d calls, want %d", helpers, calls.Load(), all)
		}
	}
}

// TestTempo: whichever way is faster gets nearly all calls, and a change is
// noticed.
func TestTempo(t *testing.T) {
	var tempo tempo
	share := func(alone, together time.Duration, calls int) (crews int) {
		for range calls {
			way := tempo.together(20)
			took := alone
			if way {
				took = together
				crews++
			}
			tempo.note(20, way, took)
		}
		return crews
	}
	if n := share(2*time.Millisecond, time.Millisecond, 160); n < 145 {
		t.Errorf("a crew is faster: %d of 160 calls got one", n)
	}
	share(2*time.Millisecond, 9*time.Millisecond, 40)
	if n := share(2*time.Millisecond, 9*time.Millisecond, 160); n > 15 {
		t.Errorf("a crew is slower: %d of 160 calls got one", n)
	}
	share(2*time.Millisecond, time.Millisecond, 20*retryEvery)
	if n := share(2*time.Millisecond, time.Millisecond, 160); n < 145 {
		t.Errorf("a crew is faster again: %d of 160 calls got one", n)
	}
	if !tempo.together(500) {
		t.Error("another size is judged by this one")
	}
}
