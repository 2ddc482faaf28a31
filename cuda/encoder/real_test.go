//go:build cuda

package encoder_test

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
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
			var ids [][]int32
			for _, text := range texts {
				one, _ := cpu.Tokenizer().Encode(text, cpu.Info().MaxTokens, nil)
				ids = append(ids, one)
			}
			want, err := cpu.EncodeTokens(t.Context(), ids, embed.EncodeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"fp16", "bf16", "fp16 with the kernels of every device"} {
				place := &placer{d: d, products: map[bool]string{true: "gemm"}[kind != "fp16" && kind != "bf16"]}
				precision := embed.FP16
				if kind != "fp16" { // two texts are enough
					ids = ids[:2]
				}
				if kind == "bf16" {
					precision = embed.BF16
				}
				model, err := embed.Open(dir, embed.Options{Precision: precision, Device: place})
				if err != nil {
					t.Fatal(err)
				}
				m := place.placed
				got, err := m.Encode(t.Context(), ids)
				if err = errors.Join(err, model.Close()); err != nil {
					t.Fatal(err)
				}
				dim, worst := cpu.Info().Dim, 1.0
				for i := range ids {
					cos := 0.0
					for j, x := range want.Row(i) {
						cos += float64(x) * float64(got[i*dim+j])
					}
					if worst = math.Min(worst, cos); !(cos >= least) {
						t.Errorf("%q, %s: cosine %.6f to fp32 on the CPU", texts[i], kind, cos)
					}
				}
				t.Logf("%s: least cosine to fp32 on the CPU %.7f", kind, worst)
			}
		})
	}
}

// placer is a device of models that keeps the one that embed places on it.
type placer struct {
	d        *cuda.Device
	products string
	placed   *encoder.Model
}

func (p *placer) NewModel(ctx context.Context, cfg encoder.Config, get encoder.Tensors) (embed.DeviceModel, error) {
	cfg.Products = p.products
	m, err := encoder.New(ctx, p.d, cfg, get)
	p.placed = m
	return m, err
}

func (p *placer) NoteModel(error) {}
