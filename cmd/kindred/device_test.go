package main

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/cuda"
)

func TestDeviceNumbers(t *testing.T) {
	for name, want := range map[string][]int{"cuda:0": {0}, "cuda:2,0": {2, 0}, "cuda": nil} {
		got, asked, err := deviceNumbers(name)
		if err != nil || !asked || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, %v", name, got, asked, err)
		}
	}
	for _, name := range []string{"auto", "cpu", "cud", ""} {
		if got, asked, err := deviceNumbers(name); err != nil || asked || got != nil {
			t.Errorf("%s: %v, %v, %v", name, got, asked, err)
		}
	}
	for _, name := range []string{"cuda:", "cuda:x", "cuda:0,0", "cuda:-1", "cuda:1,"} {
		if _, _, err := deviceNumbers(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestDeviceMetrics: what a device that was lost had counted still counts.
func TestDeviceMetrics(t *testing.T) {
	d := &device{populations: map[*sharded]struct{}{}, slots: []slot{{ordinal: 3, opened: 2, past: cuda.Metrics{
		Launches: 7, Peak: 100, Kernels: time.Second, Each: map[string]cuda.Traced{"refine": {Launches: 5, Time: 2 * time.Second}},
	}}}}
	d.Note(nil)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(d); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"kindred_cuda_launches_total device=3": 7, "kindred_cuda_peak_bytes device=3": 100, "kindred_cuda_seconds_total device=3": 1,
		"kindred_cuda_kernel_launches_total device=3 kernel=refine": 5, "kindred_cuda_kernel_seconds_total device=3 kernel=refine": 2,
		"kindred_cuda_opened_total device=3": 2, "kindred_cuda_lists_total": 1, "kindred_cuda_failed_total": 0,
		"kindred_cuda_rows where=device": 0, "kindred_cuda_rows where=host": 0,
	} {
		if x, ok := got[name]; !ok || x != want {
			t.Errorf("%s is %v (%v), want %v", name, x, ok, want)
		}
	}
}
