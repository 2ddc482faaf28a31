package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed/models"
)

// demoModel skips where the demo would have to fetch its model.
func demoModel(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("encoding takes seconds")
	}
	if _, ok := models.Find("all-MiniLM-L6-v2"); !ok {
		absent(t, "the model all-MiniLM-L6-v2")
	}
}

var truthLine = regexp.MustCompile(`planted truth +AUC ([0-9.]+)`)

// TestDemo runs the demo as a newcomer does and pastes what it says to try.
func TestDemo(t *testing.T) {
	demoModel(t)
	dir := filepath.Join(t.TempDir(), "it's new")
	said, err := exec.CommandContext(t.Context(), "kindred", "demo", "--customers", "700", "--out", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if strings.ContainsAny(string(said), "\r\x1b") {
		t.Errorf("a bar is drawn in a pipe:\n%q", said)
	}
	for _, want := range []string{"generated customers (no real person)", "planted truth", "verdict: "} {
		if !strings.Contains(string(said), want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	// A truth that anything finds, or nothing, would show nothing.
	var auc float64
	if m := truthLine.FindStringSubmatch(string(said)); m == nil {
		t.Errorf("no AUC against the truth:\n%s", said)
	} else if auc, err = strconv.ParseFloat(m[1], 64); err != nil || auc < 0.65 || auc > 0.95 {
		t.Errorf("AUC %v against the truth, want 0.65 to 0.95 (%v)", auc, err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`id="notice"`, `id="truth"`, `id="reach"`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the report has no %s", want)
		}
	}
	out := paste(t, string(said))
	if !strings.Contains(out[0], "gen-") || !strings.Contains(out[1], "gen-") || !strings.Contains(out[2], "mine: done") {
		t.Errorf("the commands to try answer %q", out)
	}
}

// TestDemoKeep leaves the server running, asks it what is said to be tried, and
// stops it with Ctrl-C.
func TestDemoKeep(t *testing.T) {
	demoModel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kindred", "demo", "--customers", "700", "--keep", "--listen", "127.0.0.1:0", "--out", t.TempDir())
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	left := -1
	lines := bufio.NewScanner(pipe)
	for left != 0 && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if left > 0 {
			left--
		}
		if strings.HasPrefix(lines.Text(), "Try next") {
			left = 3
		}
	}
	if left != 0 {
		t.Fatalf("the server does not come up: %v\n%s", cmd.Wait(), said.String())
	}
	out := paste(t, said.String())
	var hits collection.Answer
	if err := json.Unmarshal([]byte(out[0]), &hits); err != nil || len(hits.Hits) != 3 {
		t.Errorf("search answers %q", out[0])
	}
	if !strings.Contains(out[1], `"rank":3`) || !strings.Contains(out[2], "mine: done") {
		t.Errorf("the commands to try answer %q", out[1:])
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, said.String())
	}
}

// paste runs the three commands that end the demo's words, in a shell.
func paste(t *testing.T, said string) []string {
	t.Helper()
	_, list, ok := strings.Cut(said, "Try next")
	rows := strings.Split(strings.TrimSpace(list), "\n")
	if !ok || len(rows) != 4 {
		t.Fatalf("no three commands to try next:\n%s", said)
	}
	var out []string
	for _, row := range rows[1:] {
		answer, err := exec.CommandContext(t.Context(), "sh", "-c", row).CombinedOutput()
		if err != nil {
			t.Errorf("%s\n%v\n%s", row, err, answer)
		}
		out = append(out, string(answer))
	}
	return out
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b-1.csv": "/a/b-1.csv", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "客户.csv": "客户.csv"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
