package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLadder: each source opens with a comment that names all of its kernels; those of a
// family, whose names differ by what stands at their end, may share a line.
func TestLadder(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("kernels", "*.cu"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	kernel, variant := regexp.MustCompile(`(?m)^KERNEL(?:_BOUNDS)?\((\w+)`), regexp.MustCompile(`(_\d+)?(_bf16)?$`)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(raw), "\n\n")
		found := kernel.FindAllStringSubmatch(string(raw), -1)
		if len(found) == 0 || !strings.HasPrefix(head, "//") || !strings.Contains(head, "// The ladder") {
			t.Errorf("%s has no kernel, or no ladder at its head", file)
		}
		for _, m := range found {
			family := variant.ReplaceAllString(m[1], "")
			if !regexp.MustCompile(`(?i)\b` + family + `(_\d+)*\b`).MatchString(head) {
				t.Errorf("%s: the ladder at its head does not name %s", file, m[1])
			}
		}
	}
}

// TestManifest: the committed manifest is of the committed sources, and what the
// compiler said of them is bearable.
func TestManifest(t *testing.T) {
	var m struct {
		NVCC          string
		Architectures []string
		Sources       map[string]string
		Kernels       map[string]map[string]map[string]struct {
			Registers   int
			SpillStores int `json:"spill_stores"`
			SpillLoads  int `json:"spill_loads"`
		}
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, pattern := range []string{"*.cu", "*.cuh"} {
		files, err := filepath.Glob(filepath.Join("kernels", pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, files...)
	}
	for _, file := range found {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(raw)
		if m.Sources[filepath.Base(file)] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s was changed since `make kernels`: run it and commit kernels/manifest.json", file)
		}
	}
	if len(found) != len(m.Sources) {
		t.Errorf("the manifest is of %v, and there are %v", slices.Sorted(maps.Keys(m.Sources)), found)
	}
	if a := Architectures(); len(a) < 2 || slices.Contains(a, "") {
		t.Errorf("architectures %q", a)
	}
	for file, kernels := range m.Kernels {
		for kernel, by := range kernels {
			if len(by) != len(m.Architectures) {
				t.Errorf("%s: %s was compiled for %d architectures", file, kernel, len(by))
			}
			for architecture, k := range by {
				if k.Registers < 1 || k.Registers > 255 || k.SpillStores+k.SpillLoads > 0 {
					t.Errorf("%s: %s for %s: %+v", file, kernel, architecture, k)
				}
			}
		}
	}
}
