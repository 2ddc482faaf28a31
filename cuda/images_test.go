package cuda

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// TestReadImages: kernels that are damaged anywhere, missing, or of other sources than the
// program's are refused.
func TestReadImages(t *testing.T) {
	manifestOf := func(sources map[string]string, images map[string][]byte) []byte {
		sums := map[string]string{}
		for name, raw := range images {
			sum := sha256.Sum256(raw)
			sums[name] = hex.EncodeToString(sum[:])
		}
		raw, err := json.Marshal(map[string]any{"sources": sources, "images": sums})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	sources := map[string]string{"a.cu": "1", "b.cuh": "2"}
	images := map[string][]byte{"a.fatbin": bytes.Repeat([]byte{7}, 1000), "b.fatbin": bytes.Repeat([]byte{9}, 10)}
	committed := manifestOf(sources, nil)
	folder := func() fstest.MapFS {
		f := fstest.MapFS{"manifest.json": {Data: manifestOf(sources, images)}}
		for name, raw := range images {
			f[name] = &fstest.MapFile{Data: bytes.Clone(raw)}
		}
		return f
	}
	got, err := readImages(folder(), committed)
	if err != nil || !maps.EqualFunc(got, map[string][]byte{"a": images["a.fatbin"], "b": images["b.fatbin"]}, bytes.Equal) {
		t.Fatalf("%d images: %v", len(got), err)
	}
	other := maps.Clone(sources)
	other["a.cu"] = "3"
	for says, change := range map[string]func(f fstest.MapFS){
		"a.fatbin is damaged":           func(f fstest.MapFS) { f["a.fatbin"].Data[500] ^= 1 },
		"b.fatbin is damaged":           func(f fstest.MapFS) { f["b.fatbin"].Data = f["b.fatbin"].Data[:9] },
		"a.fatbin is missing":           func(f fstest.MapFS) { delete(f, "a.fatbin") },
		"c.fatbin is damaged":           func(f fstest.MapFS) { f["c.fatbin"] = f["a.fatbin"] },
		"manifest.json: file does not":  func(f fstest.MapFS) { delete(f, "manifest.json") },
		"not of this program's sources": func(f fstest.MapFS) { f["manifest.json"].Data = manifestOf(other, images) },
		"invalid character":             func(f fstest.MapFS) { f["manifest.json"].Data = []byte("x") },
	} {
		f := folder()
		change(f)
		if _, err := readImages(f, committed); !errors.Is(err, ErrImage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
