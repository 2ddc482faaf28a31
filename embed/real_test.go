package embed

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The real models are where `kindred models pull` puts them. Without them these
// tests skip by name, but never in CI: there the pull is part of the run.
func openReal(t testing.TB, name, pooling string, opt Options) *Model {
	t.Helper()
	root := os.Getenv("KINDRED_MODELS")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "kindred", "models")
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err != nil {
		absent(t, "model "+name+" is not at "+dir+"; run `kindred models pull "+name+"`")
	}
	opt.Pooling = pooling
	m, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func absent(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

var realModels = []struct{ name, pooling, stamp string }{
	{"all-MiniLM-L6-v2", "mean", "all-MiniLM-L6-v2@"},
	{"bge-small-zh-v1.5", "first", "bge-small-zh-v1.5@"},
}

// The goldens are by sentence-transformers on PyTorch (MiniLM) and by ONNX
// Runtime (bge), see testdata/oracle.py.
func TestRealGolden(t *testing.T) {
	for _, c := range realModels {
		t.Run(c.name, func(t *testing.T) {
			var golden struct {
				Texts   []string    `json:"texts"`
				Vectors [][]float32 `json:"vectors"`
			}
			readGz(t, filepath.Join("testdata", "golden-"+c.name+".json.gz"), &golden)
			if len(golden.Texts) < 40 {
				t.Fatalf("%d texts", len(golden.Texts))
			}
			m := openReal(t, c.name, c.pooling, Options{Precision: FP32})
			got, err := m.Encode(t.Context(), golden.Texts, EncodeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			worst := 1.0
			for i, text := range golden.Texts {
				cos := cosine(got.Row(i), golden.Vectors[i])
				worst = min(worst, cos)
				if !(cos >= 0.99999) {
					t.Errorf("text %d %.40q: cosine %v", i, text, cos)
				}
			}
			t.Logf("minimum cosine %.9f", worst)
			if !slices.Contains(got.Truncated, true) {
				t.Error("no text was truncated; the goldens lack a long one")
			}
			if s := m.Info().Stamp; !strings.HasPrefix(s, c.stamp) {
				t.Errorf("stamp %q", s)
			}
		})
	}
}

// The 100 reference vectors come from the published model, found in another
// project; the texts are English questions.
func TestRealReference(t *testing.T) {
	shared := os.Getenv("KINDRED_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	path := filepath.Join(shared, "models", "all-MiniLM-L6-v2-no-weights", "reference_embeddings.json.gz")
	if _, err := os.Stat(path); err != nil {
		absent(t, "reference vectors are not at "+path)
	}
	var refs []struct {
		Text   string    `json:"text"`
		Vector []float32 `json:"teacher_emb"`
	}
	readGz(t, path, &refs)
	if len(refs) != 100 {
		t.Fatalf("%d references", len(refs))
	}
	m := openReal(t, "all-MiniLM-L6-v2", "mean", Options{})
	texts := make([]string, len(refs))
	for i, r := range refs {
		texts[i] = r.Text
	}
	got, err := m.Encode(t.Context(), texts, EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	worst := 1.0
	for i, r := range refs {
		worst = min(worst, cosine(got.Row(i), r.Vector))
	}
	t.Logf("minimum cosine %.9f", worst)
	if !(worst > 0.99) {
		t.Errorf("minimum cosine %v", worst)
	}
}

func TestRealSameTextSameBits(t *testing.T) {
	for _, c := range realModels {
		for _, precision := range precisions {
			t.Run(c.name+"/"+string(precision), func(t *testing.T) {
				open := map[int]*Model{}
				ids := randomTexts(rand.New(rand.NewPCG(21, 1)), 6, 20000, 40)
				checkInvariance(t, func(threads int) *Model {
					if open[threads] == nil {
						open[threads] = openReal(t, c.name, c.pooling, Options{Threads: threads, Precision: precision})
					}
					return open[threads]
				}, ids)
			})
		}
	}
}

func TestRealLimits(t *testing.T) {
	for _, c := range realModels {
		t.Run(c.name, func(t *testing.T) {
			m := openReal(t, c.name, c.pooling, Options{MaxTokens: 512})
			// "a" is one token in both vocabularies; two specials go around.
			of := func(n int) string { return strings.TrimSpace(strings.Repeat("a ", n-2)) }
			r, err := m.Encode(t.Context(), []string{of(512), of(513), "", "a"}, EncodeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if want := []int{512, 512, 2, 3}; !slices.Equal(r.Tokens, want) {
				t.Errorf("tokens %v, want %v", r.Tokens, want)
			}
			if want := []bool{false, true, false, false}; !slices.Equal(r.Truncated, want) {
				t.Errorf("truncated %v, want %v", r.Truncated, want)
			}
			if !slices.Equal(r.Row(0), r.Row(1)) {
				t.Error("513 tokens are not encoded as their first 512")
			}
		})
	}
}
