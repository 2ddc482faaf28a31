package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// readImages are the compiled kernels of a folder, by the name of their source. They have to be
// those that its manifest names, to the byte, and compiled from the sources of this program,
// which the committed manifest names: others would load, and compute something else.
func readImages(folder fs.FS, committed []byte) (map[string][]byte, error) {
	var ours, built struct {
		Sources map[string]string
		Images  map[string]string // by name, of its bytes: SHA-256 in hexadecimal
	}
	if err := json.Unmarshal(committed, &ours); err != nil {
		return nil, fmt.Errorf("cuda/kernels/manifest.json: %w", err)
	}
	raw, err := fs.ReadFile(folder, "manifest.json")
	if err == nil {
		err = json.Unmarshal(raw, &built)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: their manifest: %w", ErrImage, err)
	}
	const again = "run `make kernels` and build again"
	if len(built.Images) == 0 || !maps.Equal(built.Sources, ours.Sources) {
		return nil, fmt.Errorf("%w: they are not of this program's sources: %s", ErrImage, again)
	}
	files, err := fs.Glob(folder, "*.fatbin")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, file := range files {
		raw, err := fs.ReadFile(folder, file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(raw)
		if built.Images[file] != hex.EncodeToString(sum[:]) {
			return nil, fmt.Errorf("%w: %s is damaged: %s", ErrImage, file, again)
		}
		out[file[:len(file)-len(path.Ext(file))]] = raw
	}
	for _, file := range slices.Sorted(maps.Keys(built.Images)) {
		if !slices.Contains(files, file) {
			return nil, fmt.Errorf("%w: %s is missing: %s", ErrImage, file, again)
		}
	}
	return out, nil
}
