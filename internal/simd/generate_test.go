package simd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGenerated runs the generator and wants the committed files, byte for byte.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	dir := t.TempDir()
	for _, f := range []string{"kernels_amd64.s", "kernels_amd64.go"} {
		if _, err := os.Stat(f); err != nil {
			t.Fatalf("%v: run go generate", err)
		}
	}
	bin := filepath.Join(dir, "main")
	if out, err := exec.Command("go", "build", "-o", bin, "./gen").CombinedOutput(); err != nil {
		t.Fatalf("building the generator: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "-out", "kernels_amd64.s", "-stubs", "kernels_amd64.go", "-pkg", "simd")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generating: %v\n%s", err, out)
	}
	for _, f := range []string{"kernels_amd64.s", "kernels_amd64.go"} {
		want, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if body(want) != body(got) {
			t.Errorf("%s is stale or edited by hand: run go generate ./internal/simd", f)
		}
	}
}

// body drops the first line, which quotes the command.
func body(file []byte) string {
	_, rest, _ := bytes.Cut(file, []byte("\n"))
	return string(rest)
}
