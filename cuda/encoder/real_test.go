//go:build cuda

package encoder_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/embed/weights"
)

// least is the cosine to fp32 on the CPU that every text has to reach, in halves and in
// bfloat16.
const least = 0.9999

// TestRealModels encodes real texts with real weights on the device and in fp32 on the
// CPU, which is held to PyTorch and ONNX Runtime elsewhere.
func TestRealModels(t *testing.T) {
	if testing.Short() || strings.Contains(os.Getenv("LD_PRELOAD"), "asan") {
		t.Skip("hundreds of millions of products are too many for this build of the simulator")
	}
	d, err := cuda.Open(0)
	if err != nil {
		t.Skipf("TestEncode says why: %v", err)
	}
	defer d.Close()
	for name, texts := range map[string][]string{
		"all-MiniLM-L6-v2": {
			"The zip broke on the second day and the shop did not answer.",
			"Lovely fabric, true to size; I ordered it in three colours.",
			"", "returns",
		},
		"bge-small-zh-v1.5": {
			"酒店位置很好，离地铁站只有五分钟，前台服务也很热情。",
			"屏幕有坏点，客服一直不处理，非常失望！", "还行",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ok := models.Find(name)
			if !ok {
				if os.Getenv("CI") != "" {
					t.Fatalf("%s is missing: kindred models pull %s", name, name)
				}
				t.Skipf("%s is not here: kindred models pull %s", name, name)
			}
			cpu, err := embed.Open(dir, embed.Options{Precision: "fp32"})
			if err != nil {
				t.Fatal(err)
			}
			defer cpu.Close()
			tensors := openTensors(t, dir)
			var ids [][]int32
			for _, text := range texts {
				one, _ := cpu.Tokenizer().Encode(text, cpu.Info().MaxTokens, nil)
				ids = append(ids, one)
			}
			want, err := cpu.EncodeTokens(t.Context(), ids, embed.EncodeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, bf := range []bool{false, true} {
				cfg := readConfig(t, dir, cpu.Info().Pooling)
				if cfg.Bfloat16 = bf; bf { // two texts are enough
					ids = ids[:2]
				}
				m, err := encoder.New(t.Context(), d, cfg, func(name string, shape ...int) ([]float32, error) { return tensors.Want(name, shape...) })
				if err != nil {
					t.Fatal(err)
				}
				got, err := m.Encode(t.Context(), ids)
				if err = errors.Join(err, m.Close()); err != nil {
					t.Fatal(err)
				}
				dim, worst := cpu.Info().Dim, 1.0
				for i := range ids {
					cos := 0.0
					for j, x := range want.Row(i) {
						cos += float64(x) * float64(got[i*dim+j])
					}
					if worst = math.Min(worst, cos); !(cos >= least) {
						t.Errorf("%q, bfloat16 %v: cosine %.6f to fp32 on the CPU", texts[i], bf, cos)
					}
				}
				t.Logf("bfloat16 %v: least cosine to fp32 on the CPU %.7f", bf, worst)
			}
		})
	}
}

func openTensors(t *testing.T, dir string) *weights.Tensors {
	t.Helper()
	for _, name := range []string{"model.safetensors", "model.onnx", filepath.Join("onnx", "model.onnx")} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		tensors, err := weights.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return tensors
	}
	t.Fatalf("%s holds no weights", dir)
	return nil
}

func readConfig(t *testing.T, dir, pooling string) encoder.Config {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Hidden    int     `json:"hidden_size"`
		Inner     int     `json:"intermediate_size"`
		Layers    int     `json:"num_hidden_layers"`
		Heads     int     `json:"num_attention_heads"`
		Vocab     int     `json:"vocab_size"`
		Positions int     `json:"max_position_embeddings"`
		Types     int     `json:"type_vocab_size"`
		Eps       float32 `json:"layer_norm_eps"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return encoder.Config{Dim: c.Hidden, Inner: c.Inner, Layers: c.Layers, Heads: c.Heads, Vocab: c.Vocab, Positions: c.Positions, TokenTypes: c.Types, Eps: c.Eps, Pooling: pooling}
}
