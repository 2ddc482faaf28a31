//go:build cuda

package encoder

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda/cudatest"
)

// TestTune times the shapes on the device, and finds the same vectors then; one for which
// there is no memory keeps the rule.
func TestTune(t *testing.T) {
	d := cudatest.Open(t)
	cfg := Config{Dim: 64, Inner: 72, Layers: 1, Heads: 2, Vocab: 50, Positions: 130, TokenTypes: 1, Eps: 1e-12, Pooling: "mean"}
	rng := rand.New(rand.NewPCG(1, 2))
	m, err := New(t.Context(), d, cfg, random(rng, cfg).get)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if d.Info().Simulated && m.Tuned() != nil {
		t.Error("the simulator's time counts")
	}
	in := texts(rng, cfg.Vocab, 3, 70, 1)
	want, err := m.Encode(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.tune(t.Context(), []int{64, 256}); err != nil {
		t.Fatal(err)
	}
	if n := len(m.Tuned()); n != 8 {
		t.Errorf("%d products and sizes were timed, want 4 of 2", n)
	}
	for _, x := range m.Tuned() {
		if len(x.Took) != len(m.shapes) || x.Took[x.Kernel] <= 0 {
			t.Errorf("%+v", x)
		}
		for kernel, took := range x.Took {
			if took < x.Took[x.Kernel] {
				t.Errorf("%s took %v, and %s was chosen: %+v", kernel, took, x.Kernel, x)
			}
		}
	}
	counted := int64(0)
	for _, k := range d.Metrics().Each {
		counted += k.Launches
	}
	if all := d.Metrics().Launches; counted != all {
		t.Errorf("%d launches, of which %d are a kernel's", all, counted)
	}
	got, err := m.Encode(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Error("other vectors by other tiles")
	}
	held := d.Metrics().Allocated
	if err := m.tune(t.Context(), []int{1 << 40 / 400}); err != nil {
		t.Errorf("without memory for it: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.tune(ctx, []int{64}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if now := d.Metrics().Allocated; now != held {
		t.Errorf("%d bytes are held, %d before", now, held)
	}
}

// TestCompare pins what is chosen of what was timed, and for which sizes.
func TestCompare(t *testing.T) {
	m := &Model{cfg: Config{Dim: 384, Inner: 1536, Heads: 12}, shapes: slices.Clone(capability90)}
	tries := map[string]int{}
	err := m.compare([]int{64, 256, 1024}, func(s *shape, p product, tokens int) (time.Duration, error) {
		tries[s.kernel]++
		if tries[s.kernel]%4 == 1 { // the first of each is not what counts
			return time.Hour, nil
		}
		if tokens > 64 && p.n == 1536 {
			return time.Duration(1000 - s.n), nil // the widest
		}
		return time.Duration(s.n), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, up, down := m.products()
	for _, c := range []struct {
		p      product
		tokens int
		want   string
	}{
		{up, 1, "gemm_90"}, {up, 64, "gemm_90"}, {up, 127, "gemm_90"}, {up, 128, "gemm_90_192"}, {up, 512, "gemm_90_192"}, {up, 1 << 20, "gemm_90_192"}, {down, 1 << 20, "gemm_90"},
	} {
		if got := m.shapeOf(c.p, c.tokens).kernel; got != c.want {
			t.Errorf("%+v of %d tokens: %s, want %s", c.p, c.tokens, got, c.want)
		}
	}
	lost := errors.New("lost")
	if err := m.compare([]int{64}, func(*shape, product, int) (time.Duration, error) { return 0, lost }); !errors.Is(err, lost) {
		t.Errorf("a device that fails: %v", err)
	}
}
