// Package lint holds the rules of the house as tests: each failure names the
// rule and the remedy.
package lint

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kindred-search/kindred"

// layer is a package tree's height. A package may import trees that are lower,
// and packages of its own tree; never one as high or higher.
var layer = map[string]int{
	"internal":   0,
	"cuda":       1,
	"index":      2,
	"profile":    3,
	"embed":      3,
	"phrases":    3,
	"ingest":     4,
	"audience":   5,
	"export":     6,
	"report":     6,
	"collection": 6,
	"demo":       6,
	"api":        7,
	"cmd":        8,
	"bench":      8,
}

// maxLines keeps a file readable in one sitting. Generated files and tests'
// data are exempt.
const maxLines = 650

type source struct {
	file string // slash-separated, from the module's root
	path string // on this machine
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(rel, ".go") {
			out = append(out, source{rel, p})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d Go files found: the walk is broken", len(out))
	}
	return out
}

func tree(pkg string) string { return strings.SplitN(pkg, "/", 2)[0] }

func TestImportsPointDown(t *testing.T) {
	checked := 0
	for _, src := range sources(t) {
		f, err := parser.ParseFile(token.NewFileSet(), src.path, nil, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", src.file, err)
			continue
		}
		from := tree(path.Dir(src.file))
		height, known := layer[from]
		if !known {
			t.Errorf("%s: the folder %q has no layer: give it one in internal/lint and in docs/architecture.md", src.file, from)
			continue
		}
		for _, imp := range f.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(name, module+"/") {
				continue
			}
			checked++
			to := tree(strings.TrimPrefix(name, module+"/"))
			if to == from {
				continue
			}
			if layer[to] >= height && !strings.HasSuffix(src.file, "_test.go") {
				t.Errorf("%s imports %s: imports point down (%s is layer %d, %s layer %d): move the shared part lower, or declare the small interface needed here", src.file, name, from, height, to, layer[to])
			}
		}
	}
	if checked == 0 {
		t.Fatal("no import was checked")
	}
}

func TestOnlyCudaTouchesC(t *testing.T) {
	for _, src := range sources(t) {
		f, err := parser.ParseFile(token.NewFileSet(), src.path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			if (imp.Path.Value == `"C"` || strings.Contains(imp.Path.Value, "gorgonia.org/cu")) && tree(src.file) != "cuda" {
				t.Errorf("%s imports %s: only package cuda may: declare an interface where it is needed", src.file, imp.Path.Value)
			}
		}
	}
}

// TestTestsOfDevicesAreTagged: `make test` is of a program without CUDA, and must pass there.
func TestTestsOfDevicesAreTagged(t *testing.T) {
	checked := 0
	for _, src := range sources(t) {
		raw, err := os.ReadFile(src.path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(src.file, "_test.go") || !strings.Contains(string(raw), `"`+module+`/cuda/cudatest"`) {
			continue
		}
		checked++
		if !strings.HasPrefix(string(raw), "//go:build cuda\n") {
			t.Errorf("%s opens a device, and is built without CUDA too: begin it with //go:build cuda", src.file)
		}
	}
	if checked == 0 {
		t.Fatal("no test opens a device: the search is broken")
	}
}

func TestFilesStaySmall(t *testing.T) {
	for _, src := range sources(t) {
		raw, err := os.ReadFile(src.path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		if strings.Contains(text[:min(len(text), 300)], "Code generated") {
			continue
		}
		if n := strings.Count(text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by what it does", src.file, n, maxLines)
		}
	}
}

func TestPackageNamesSayWhatTheyHold(t *testing.T) {
	for _, src := range sources(t) {
		switch base := path.Base(path.Dir(src.file)); base {
		case "util", "utils", "common", "helpers", "logics", "misc":
			t.Errorf("%s: a package called %q says nothing: name it after what it holds", src.file, base)
		}
	}
}

func TestEveryPackageHasAGuide(t *testing.T) {
	guides := map[string]bool{}
	for _, src := range sources(t) {
		dir := path.Dir(src.file)
		if strings.HasSuffix(src.file, "_test.go") && guides[dir] {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), src.path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		guides[dir] = guides[dir] || f.Doc != nil
	}
	for dir, has := range guides {
		if !has {
			t.Errorf("%s: no package comment: say what it is for, its place in the flow and its main types", dir)
		}
	}
}
