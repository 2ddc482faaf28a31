package main

import (
	"slices"
	"testing"

	"github.com/google/pprof/profile"
)

// stacks builds a profile of calls, outermost first.
func stacks(values map[string]int64, calls map[string][]string) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples"}, {Type: "cpu"}}}
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range calls {
			if !yield(k) {
				return
			}
		}
	}) {
		s := &profile.Sample{Value: []int64{1, values[k]}}
		for _, name := range slices.Backward(calls[k]) {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

// TestSummary: a sample belongs to the innermost function of ours, shares add up,
// the plumbing is folded and what is small is not drawn.
func TestSummary(t *testing.T) {
	calls := map[string][]string{
		"gemm":     {"runtime.goexit", module + "embed.(*crew).work", module + "internal/simd.gemm"},
		"copy":     {"runtime.goexit", module + "embed.(*crew).work", "runtime.growslice", "runtime.memmove"},
		"tokens":   {"runtime.goexit", "net/http.(*conn).serve", "net/http.serverHandler.ServeHTTP", "github.com/gin-gonic/gin.(*Context).Next", module + "api.(*Server).embeddings", module + "embed.(*Queue).Encode", module + "embed/tokenize.(*Tokenizer).Encode"},
		"json":     {"net/http.(*conn).serve", module + "api.(*Server).embeddings", "encoding/json.Unmarshal"},
		"accept":   {"net/http.(*conn).serve", "internal/poll.(*FD).Read"},
		"mark":     {"runtime.gcBgMarkWorker", "runtime.gcDrain"},
		"schedule": {"runtime.mcall"},
	}
	got, err := summary(stacks(map[string]int64{"gemm": 8000, "copy": 1000, "tokens": 500, "json": 300, "accept": 100, "mark": 99, "schedule": 1}, calls))
	if err != nil {
		t.Fatal(err)
	}
	for work, want := range map[string]float64{"encoder": 0.9, "tokenizer": 0.05, "bodies and routes": 0.03, "net/http": 0.01, "collector": 0.0099, "scheduler": 0.0001} {
		if got.Shares[work] != want {
			t.Errorf("%s: %v, want %v", work, got.Shares[work], want)
		}
	}
	if got.Samples != 7 || got.CPU != 10000e-9 {
		t.Errorf("%d samples of %v s", got.Samples, got.CPU)
	}
	if c := got.Tree.Calls; len(c) != 3 || c[0].Name != "embed.(*crew).work" || c[0].Share != 0.9 || c[0].Work != "encoder" || c[0].Calls[0].Share != 0.8 {
		t.Errorf("the tree begins with %+v", c)
	}
	if c := got.Tree.Calls[0].Calls; len(c) != 2 || c[1].Name != "runtime.growslice" || len(c[1].Calls) != 0 {
		t.Errorf("below the crew: %+v", c)
	}
	var path []string
	for f := got.Tree.Calls[1]; ; f = f.Calls[0] {
		if path = append(path, f.Name); len(f.Calls) == 0 {
			break
		}
	}
	if want := []string{"net/http.(*conn).serve", "api.(*Server).embeddings", "embed.(*Queue).Encode", "embed/tokenize.(*Tokenizer).Encode"}; !slices.Equal(path, want) {
		t.Errorf("folded to %q, want %q", path, want)
	}
	if _, err := summary(&profile.Profile{SampleType: []*profile.ValueType{{Type: "inuse_space"}}}); err == nil {
		t.Error("a profile of memory is taken")
	}
	if _, err := summary(&profile.Profile{SampleType: []*profile.ValueType{{Type: "cpu"}}}); err == nil {
		t.Error("a profile without samples is taken")
	}
}
