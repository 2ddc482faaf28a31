package simd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGenerated runs the generators and wants the committed files, byte for byte.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generators")
	}
	for _, g := range []struct {
		source, text, stubs string
		args                []string
	}{
		{"./gen", "kernels_amd64.s", "kernels_amd64.go", []string{"-pkg", "simd"}},
		{"./gen/neon", "kernels_arm64.s", "kernels_arm64.go", nil},
	} {
		for _, f := range []string{g.text, g.stubs} {
			if _, err := os.Stat(f); err != nil {
				t.Fatalf("%v: run go generate", err)
			}
		}
		dir := t.TempDir()
		bin := filepath.Join(dir, "main")
		if out, err := exec.Command("go", "build", "-o", bin, g.source).CombinedOutput(); err != nil {
			t.Fatalf("building the generator %s: %v\n%s", g.source, err, out)
		}
		cmd := exec.Command(bin, append([]string{"-out", g.text, "-stubs", g.stubs}, g.args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("generating: %v\n%s", err, out)
		}
		for _, f := range []string{g.text, g.stubs} {
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
}

// body drops the first line, which quotes the command.
func body(file []byte) string {
	_, rest, _ := bytes.Cut(file, []byte("\n"))
	return string(rest)
}
