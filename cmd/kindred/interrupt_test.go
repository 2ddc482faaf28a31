package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestInterrupt stops long work with Ctrl-C: it ends soon, with exit code 1,
// and no file is half written.
func TestInterrupt(t *testing.T) {
	demoModel(t)
	dir := t.TempDir()
	var customers, lines strings.Builder
	customers.WriteString("id,review\n")
	for i := range 30_000 {
		text := fmt.Sprintf("visit %d was a pleasure and we will come again with the whole family", i*7919)
		fmt.Fprintf(&customers, "c%d,%s\n", i, text)
		lines.WriteString(text + "\n")
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"customers.csv": customers.String(), "lines.txt": lines.String(), "seeds.csv": "c1\nc2\n"} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(at("out"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		sign string // of the work being under way
	}{
		"lookalike": {[]string{"lookalike", at("customers.csv"), "--seeds", at("seeds.csv"), "--min-seeds", "2", "--text", "review", "-o", at("out/a.csv"), "--report", at("out/r.html")}, "reading and encoding:"},
		"import":    {[]string{"import", "shop", at("customers.csv"), "--text", "review", "--data", at("data")}, "reading and encoding:"},
		"embed":     {[]string{"embed"}, "encoding:"},
		"demo":      {[]string{"demo", "--customers", "30000", "--out", at("out/demo")}, "encoding and storing:"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "kindred", c.args...)
			in, err := os.Open(at("lines.txt"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := in.Close(); err != nil {
					t.Error(err)
				}
			}()
			var results strings.Builder
			cmd.Stdin, cmd.Stdout = in, &results
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			var asked time.Time
			for words := bufio.NewScanner(pipe); words.Scan(); {
				said.WriteString(words.Text() + "\n")
				if asked.IsZero() && strings.HasPrefix(words.Text(), c.sign) {
					asked = time.Now()
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
				}
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.String(), "stopped") {
				t.Errorf("%v\n%s", err, said.String())
			}
			if name == "import" && !strings.Contains(said.String(), " customers are stored") {
				t.Errorf("it is not said what is stored:\n%s", said.String())
			}
			if took := time.Since(asked); took > 20*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if results.Len() > 0 {
				t.Errorf("a part of the result was written: %.80q", results.String())
			}
			left, err := filepath.Glob(at("out/*"))
			hidden, herr := filepath.Glob(at("out/.*"))
			if err := errors.Join(err, herr); err != nil {
				t.Fatal(err)
			}
			for _, file := range append(left, hidden...) {
				if name != "demo" || file != at("out/demo") {
					t.Errorf("%s was left behind", file)
				}
			}
			if name == "demo" { // its data stay, its results are not there
				for _, file := range []string{"audience.csv", "report.html"} {
					if _, err := os.Stat(at("out/demo/" + file)); err == nil {
						t.Errorf("%s is there", file)
					}
				}
				again, err := exec.CommandContext(t.Context(), "kindred", "demo", "--customers", "600", "--out", at("out/demo")).CombinedOutput()
				if err != nil || !strings.Contains(string(again), "was not finished: it is begun anew") || !strings.Contains(string(again), "of 600 customers") {
					t.Errorf("the demo again: %v\n%s", err, again)
				}
				if err := os.RemoveAll(at("out/demo")); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	// What was imported before the interruption can be asked.
	found, err := exec.CommandContext(t.Context(), "kindred", "search", "shop", "the whole family", "--limit", "1", "--data", at("data")).CombinedOutput()
	if err != nil || !strings.Contains(string(found), "  c") {
		t.Errorf("after an interrupted import: %v\n%s", err, found)
	}
}
