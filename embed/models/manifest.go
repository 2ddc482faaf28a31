package models

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// ManifestName is the file that Pull writes beside the weights.
const ManifestName = "kindred-model.json"

const maxManifestBytes = 1 << 20

var (
	// ErrUnknown is in the chain when a name is not in the catalogue.
	ErrUnknown = errors.New("unknown model")
	// ErrCorrupt is in the chain when a file has not the bytes it should have.
	ErrCorrupt = errors.New("wrong bytes")
	// ErrUnavailable is in the chain when no source could be used.
	ErrUnavailable = errors.New("no source of the model could be used")
)

// FileSum is the size and hash of one file as it was pulled.
type FileSum struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Manifest describes a model folder: where it came from, what it holds, how the encoder is to be used.
type Manifest struct {
	Name        string             `json:"name"`
	Source      string             `json:"source"` // "hub:owner/name@revision", "pypi:package@version", "maven:group:artifact@version"
	Files       map[string]FileSum `json:"files"`
	Dim         int                `json:"dim"`
	Pooling     Pooling            `json:"pooling"`
	MaxTokens   int                `json:"max_tokens"`
	Normalize   bool               `json:"normalize"`
	QueryPrompt string             `json:"query_prompt"`
	Licence     string             `json:"licence"`
	Languages   []string           `json:"languages"`
}

// Installed is one folder of the cache.
type Installed struct {
	Dir      string
	Manifest Manifest
}

// CacheDir is the folder that holds one folder for each model: KINDRED_MODELS, or kindred/models in the
// user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("KINDRED_MODELS"); dir != "" {
		return dir, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder for models: %w; set KINDRED_MODELS", err)
	}
	return filepath.Join(base, "kindred", "models"), nil
}

// ReadManifest reads the manifest of a model folder and checks that its names are plain file names.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("opening the manifest: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxManifestBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return Manifest{}, fmt.Errorf("reading %s: %w", path, err)
	}
	m, err := parseManifest(raw)
	if err != nil {
		return Manifest{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return m, nil
}

func parseManifest(raw []byte) (Manifest, error) {
	var m Manifest
	if len(raw) > maxManifestBytes {
		return m, fmt.Errorf("more than %d bytes: %w", maxManifestBytes, ErrCorrupt)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, err
	}
	if len(m.Files) == 0 {
		return m, fmt.Errorf("no files listed: %w", ErrCorrupt)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		if !plainName(name) {
			return m, fmt.Errorf("file name %q is not plain: %w", name, ErrCorrupt)
		}
		if m.Files[name].Size < 0 {
			return m, fmt.Errorf("file %s has a negative size: %w", name, ErrCorrupt)
		}
	}
	return m, nil
}

// plainName tells whether a name stays in its folder on every system.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && filepath.IsLocal(name) &&
		!slices.ContainsFunc([]byte(name), func(b byte) bool { return b == '/' || b == '\\' || b == ':' || b < ' ' })
}

// Find gives the folder of a pulled model. It reads the manifest and the sizes; [Verify] also hashes.
func Find(name string) (dir string, ok bool) {
	root, err := CacheDir()
	if err != nil {
		return "", false
	}
	if e, err := Lookup(name); err == nil {
		name = e.Name
	}
	if !plainName(name) {
		return "", false
	}
	dir = filepath.Join(root, name)
	m, err := ReadManifest(dir)
	if err != nil {
		return "", false
	}
	for file, sum := range m.Files {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Size() != sum.Size {
			return "", false
		}
	}
	return dir, true
}

// List gives the models in the cache folder, by name. Folders without a readable manifest are left out.
func List() ([]Installed, error) {
	root, err := CacheDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	var out []Installed
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		dir := filepath.Join(root, e.Name())
		if m, err := ReadManifest(dir); err == nil {
			out = append(out, Installed{Dir: dir, Manifest: m})
		}
	}
	slices.SortFunc(out, func(a, b Installed) int { return cmp.Compare(a.Dir, b.Dir) })
	return out, nil
}

// Verify hashes every file of a model folder and compares it with the manifest. All faults are reported; they wrap
// [ErrCorrupt] or [fs.ErrNotExist]. Pulling again with Force mends the folder.
func Verify(dir string) error {
	m, err := ReadManifest(dir)
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		sum := m.Files[name]
		faults = append(faults, checkFile(filepath.Join(dir, name), sum.SHA256, sum.Size))
	}
	return errors.Join(faults...)
}

func checkFile(path, sha string, size int64) error {
	got, n, err := hashFile(path)
	if err != nil {
		return fmt.Errorf("hashing: %w", err)
	}
	if n != size {
		return fmt.Errorf("%s has %d bytes, wanted %d: %w", path, n, size, ErrCorrupt)
	}
	if got != sha {
		return fmt.Errorf("%s has the SHA-256 %s, wanted %s: %w", path, got, sha, ErrCorrupt)
	}
	return nil
}

func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, errors.Join(err, f.Close())
}
