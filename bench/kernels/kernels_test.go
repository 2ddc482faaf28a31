package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestDocument: the committed tables are of the committed manifest, and every kernel has a line.
func TestDocument(t *testing.T) {
	want, err := render(read(t, manifestPath))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, documentPath); !bytes.Equal(got, want) {
		t.Errorf("%s is not of %s and costs.go: run `make kernels`, or `go run ./bench/kernels`, and commit it", documentPath, manifestPath)
	}
	var m manifest
	if err := json.Unmarshal(read(t, manifestPath), &m); err != nil {
		t.Fatal(err)
	}
	for _, kernels := range m.Kernels {
		for name := range kernels {
			if n := strings.Count(string(want), "| `"+name+"` |"); n != 2 && !(n == 1 && strings.HasSuffix(name, "_bf16")) {
				t.Errorf("%s has %d lines", name, n)
			}
		}
	}
}

func TestUnknownKernel(t *testing.T) {
	for manifest, says := range map[string]string{
		`{"kernels": {"a.cu": {"nobody": {}}}}`:     "costs.go is of kernel nobody",
		`{"kernels": {"a.cu": {"embed_norm": {}}}}`: "says nothing of embed_norm for sm_80",
		`{}`: "names no kernels",
		`x`:  "invalid character",
	} {
		if _, err := render([]byte(manifest)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %s", manifest, err, says)
		}
	}
}

// TestOccupancy is held to what NVIDIA's occupancy calculator says.
func TestOccupancy(t *testing.T) {
	for _, c := range []struct {
		of                         architecture
		threads, registers, shared int
		want                       int // blocks
	}{
		{architectures[0], 256, 32, 0, 8},              // 64 warps
		{architectures[0], 32, 32, 0, 32},              // as many blocks as there are
		{architectures[0], 128, 70, 24576, 6},          // shared memory
		{architectures[1], 128, 70, 24576, 7},          // registers
		{architectures[1], 1024, 65, 0, 0},             // too many registers for one
		{architectures[1], 256, 255, 0, 1},             // registers
		{architectures[2], 128, 16, 227 << 10, 1},      // all that a block can have
		{architectures[0], 128, 16, 164<<10 - 1023, 0}, // more than it can
		{architectures[0], 100, 32, 0, 16},             // three warps and a part
		{architectures[1], 256, 64, 71680, 3},          // shared memory
		{architectures[2], 256, 122, 48 << 10, 2},      // registers
	} {
		if got := c.of.blocks(c.threads, c.registers, c.shared); got != c.want {
			t.Errorf("%+v: %d blocks", c, got)
		}
	}
}

func TestEvaluate(t *testing.T) {
	at := map[string]float64{"dim": 384, "share": 0.5}
	for expression, want := range map[string]float64{"2*(dim+1)": 770, "1.0/8": 0.125, "dim/128": 3, "8*share": 4, "60e-9": 60e-9} {
		if got, err := evaluate(expression, at); err != nil || !(math.Abs(got-want) < 1e-12) {
			t.Errorf("%s is %v: %v", expression, got, err)
		}
	}
	for _, expression := range []string{"", "dims", "2*", `"a"+`} {
		if got, err := evaluate(expression, at); err == nil {
			t.Errorf("%q is %v", expression, got)
		}
	}
}
