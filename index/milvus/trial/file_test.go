package trial

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// TestReadFile reads what NumPy wrote: testdata/vectors.py.
func TestReadFile(t *testing.T) {
	for _, name := range []string{"v1.npy", "v2.npy", "v.fvecs"} {
		got, err := ReadFile(filepath.Join("testdata", name), 100)
		if err != nil {
			t.Fatal(err)
		}
		// Five vectors of three; the third is zero.
		if len(got) != 4 || !slices.Equal(got[0], []float32{0.5, -1, 2}) || !slices.Equal(got[3], []float32{12.5, 11, 14}) {
			t.Errorf("%s: %v", name, got)
		}
		if got, err := ReadFile(filepath.Join("testdata", name), 2); err != nil || len(got) != 2 {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	whole := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	npy, fvecs := whole("v1.npy"), whole("v.fvecs")
	nan := slices.Clone(npy)
	copy(nan[len(nan)-4:], "\x00\x00\xc0\x7f")
	other := slices.Clone(fvecs)
	other[16] = 4
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"a.csv", npy, ".npy or .fvecs"},
		{"a.npy", fvecs, "no .npy"},
		{"b.npy", npy[:len(npy)-1], "within vector 4"},
		{"c.npy", npy[:20], "ends in its header"},
		{"d.npy", nan, "vector 4 has NaN in dimension 2"},
		{"e.npy", whole("f8.npy"), "float32"},
		{"f.npy", whole("fortran.npy"), "C order"},
		{"g.npy", whole("line.npy"), "matrix"},
		{"a.fvecs", npy, "dimensions"},
		{"b.fvecs", fvecs[:len(fvecs)-1], "within vector 4"},
		{"c.fvecs", fvecs[:len(fvecs)-13], "within vector 4"},
		{"d.fvecs", other, "vector 1 has 4 dimensions"},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path, 100); !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "none.npy"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"v1.npy", "v2.npy", "v.fvecs", "fortran.npy"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func(io.Reader, int) ([][]float32, error){readNPY, readFvecs} {
			got, err := read(bytes.NewReader(data), 50)
			if err != nil && !errors.Is(err, index.ErrInvalid) {
				t.Errorf("%v is of no kind", err)
			}
			for _, v := range got {
				if len(v) != len(got[0]) {
					t.Errorf("%d and %d dimensions", len(v), len(got[0]))
				}
			}
		}
	})
}
