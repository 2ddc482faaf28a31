//go:build cuda

package selftest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
	"github.com/kindred-search/kindred/cuda/selftest"
)

func TestRun(t *testing.T) {
	d := cudatest.Open(t)
	start := time.Now()
	if err := selftest.Run(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	m := d.Metrics()
	t.Logf("%v, %v of the device, %d launches, %d bytes at most", time.Since(start), m.Kernels, m.Launches, m.Peak)
	if m.Allocated != 0 {
		t.Errorf("held: %v", m.Held)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := selftest.Run(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAll: what devices are asked and the simulator otherwise is not.
func TestAll(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long; one schedule runs it")
	}
	for _, f := range []func(context.Context, *cuda.Device) (string, error){selftest.ScansLong, selftest.EncodesAll} {
		if what, err := f(t.Context(), cudatest.Open(t)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestWrong: a device of which one kernel does nothing is refused, with the family of that
// kernel.
func TestWrong(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator is wrong when asked to")
	}
	for kernel, family := range map[string]string{
		"to_half": selftest.Convert, "from_half": selftest.Convert, "crc_parts": selftest.Convert, "quantise": selftest.Convert,
		"scan_int8": selftest.Scan, "scan_many": selftest.Scan, "refine": selftest.Scan, "collect": selftest.Scan,
		"dots_int8": selftest.Scan, "dots_many": selftest.Scan, "finish": selftest.Scan,
		"seeds_top":  selftest.Seeds,
		"embed_norm": selftest.Encoder, "layer_norm": selftest.Encoder, "gemm": selftest.Encoder, "gemm_large": selftest.Encoder,
		"gemm_90": selftest.Encoder, "gemm_90_128": selftest.Encoder, "gemm_90_192": selftest.Encoder,
		"attention_32": selftest.Encoder, "attention_64": selftest.Encoder, "attention_128": selftest.Encoder, "attention_64_bf16": selftest.Encoder, "pool": selftest.Encoder,
	} {
		t.Run(kernel, func(t *testing.T) {
			if testing.Short() && family == selftest.Encoder && kernel != "gemm_90" {
				t.Skip("takes long; one schedule runs it")
			}
			t.Setenv("KINDRED_SIM_SKIP", kernel)
			d, err := cuda.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			err = selftest.Run(t.Context(), d)
			var wrong *selftest.Error
			if !errors.As(err, &wrong) || !errors.Is(err, cuda.ErrWrong) || wrong.Family != family || !strings.Contains(err.Error(), "family "+family) {
				t.Errorf("%v, want one of family %s", err, family)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLost: a device that fails in its test is not called wrong.
func TestLost(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	for _, c := range []struct {
		name, value string
		kind        error
	}{{"KINDRED_SIM_LOSE", "3", cuda.ErrLost}, {"KINDRED_SIM_MEMORY", "1000", cuda.ErrOutOfMemory}} {
		t.Setenv(c.name, c.value)
		d, err := cuda.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := selftest.Run(t.Context(), d); !errors.Is(err, c.kind) || errors.Is(err, cuda.ErrWrong) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		t.Setenv(c.name, "")
	}
}
