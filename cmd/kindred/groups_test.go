package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/collection"
)

// kindred is one command that must succeed; its results come back, and what it says.
func kindred(t *testing.T, args ...string) (out, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kindred", args...)
	var a, b strings.Builder
	cmd.Stdout, cmd.Stderr = &a, &b
	if err := cmd.Run(); err != nil {
		t.Fatalf("kindred %s: %v\n%s%s", strings.Join(args, " "), err, a.String(), b.String())
	}
	return a.String(), b.String()
}

// TestTagCommands learns a mood from texts and asks for it in every way.
func TestTagCommands(t *testing.T) {
	demoModel(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	good := []string{"wonderful service", "i love this shop", "great quality", "friendly staff, fast delivery", "best purchase in years"}
	bad := []string{"terrible service", "i want my money back", "it broke at once", "rude staff, late delivery", "worst purchase in years"}
	what := []string{"the lamp", "my shoes", "a kettle", "the tent", "their soap", "the bicycle", "a radio"}
	rng := rand.New(rand.NewPCG(4, 4))
	customers, examples := "id,age,review\n", "label,text\n"
	say := func(list []string) string {
		return fmt.Sprintf("%s, %s", list[rng.IntN(len(list))], what[rng.IntN(len(what))])
	}
	for i := range 300 {
		text := say(good)
		if i%3 == 0 {
			text = say(bad)
		}
		customers += fmt.Sprintf("c%03d,%d,%q\n", i, 20+i%50, text)
	}
	for range 12 {
		examples += fmt.Sprintf("happy,%q\nunhappy,%q\n", say(good), say(bad))
	}
	for name, text := range map[string]string{"customers.csv": customers, "mood.csv": examples} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := []string{"--data", at("data")}
	do := func(args ...string) string {
		t.Helper()
		out, _ := kindred(t, append(args, data...)...)
		return out
	}
	do("import", "shop", at("customers.csv"), "--text", "review")
	out, said := kindred(t, append([]string{"tag", "learn", "shop", "mood", "--examples", at("mood.csv")}, data...)...)
	if !strings.Contains(said, "Of held-out examples") || !strings.HasPrefix(out, "happy ") || !strings.Contains(out, "(not sure)") {
		t.Errorf("%s%s", out, said)
	}
	var info collection.TagInfo
	if err := json.Unmarshal([]byte(do("tag", "show", "shop", "mood", "--json")), &info); err != nil {
		t.Fatal(err)
	}
	if n := info.Counts[1].Customers; info.Quality.Accuracy < 0.9 || n < 90 || n > 110 {
		t.Errorf("%+v", info)
	}
	if out := do("tag", "of", "shop", "c000"); !strings.Contains(out, "mood") || !strings.Contains(out, "unhappy") {
		t.Errorf("%s", out)
	}
	var page collection.Listed
	if err := json.Unmarshal([]byte(do("tag", "customers", "shop", "mood", "unhappy", "--above", "0.5", "--limit", "5", "--json")), &page); err != nil {
		t.Fatal(err)
	}
	if page.Count != info.Counts[1].Customers || len(page.Hits) != 5 || page.Hits[0].Score < page.Hits[4].Score {
		t.Errorf("%+v", page)
	}
	if out := do("tag", "ls", "shop"); !strings.Contains(out, "mood") || !strings.Contains(out, "2 labels") {
		t.Errorf("%s", out)
	}
	// Customers with a label are seeds; their like are not among them.
	if out := do("audience", "create", "shop", "at-risk", "--seeds-tag", "mood=unhappy", "--size", "20", "--method", "centroid"); !strings.Contains(out, "at-risk: done, 20 members") {
		t.Errorf("%s", out)
	}
	if out := do("segments", "shop", "--k", "2"); !strings.Contains(out, "service") && !strings.Contains(out, "staff") && !strings.Contains(out, "purchase") {
		t.Errorf("labels without a phrase:\n%s", out)
	}
	if out := do("segments", "like", "shop", "i love this shop", "--json"); !strings.HasPrefix(out, "[") {
		t.Errorf("%s", out)
	}
	do("tag", "rm", "shop", "mood")
	if out := do("tag", "of", "shop", "c000"); out != "" {
		t.Errorf("after deleting: %s", out)
	}
}

// TestInterruptSegments stops the search for segments with Ctrl-C: nothing of it
// stays, and nothing goes on when the data are opened again.
func TestInterruptSegments(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 5))
	var customers strings.Builder
	customers.WriteString("id,a,b,c,d,e\n")
	for i := range 20_000 {
		fmt.Fprintf(&customers, "c%d,%.3f,%.3f,%.3f,%c,%c\n", i, rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64(), 'a'+rune(rng.IntN(20)), 'a'+rune(rng.IntN(20)))
	}
	file, data := filepath.Join(dir, "customers.csv"), filepath.Join(dir, "data")
	if err := os.WriteFile(file, []byte(customers.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	kindred(t, "import", "shop", file, "--model", "none", "--data", data)
	cmd := exec.CommandContext(t.Context(), "kindred", "segments", "shop", "--max-k", "128", "--data", data)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	asked := false
	for words := bufio.NewScanner(pipe); words.Scan(); {
		said.WriteString(words.Text() + "\n")
		if !asked && strings.HasPrefix(words.Text(), "choosing how many:") {
			asked = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !asked || !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.String(), "stopped") {
		t.Errorf("%v\n%s", err, said.String())
	}
	if out, _ := kindred(t, "jobs", "--data", data); !strings.Contains(out, "segments") || !strings.Contains(out, "cancelled") {
		t.Errorf("jobs: %s", out)
	}
	show := exec.CommandContext(t.Context(), "kindred", "segments", "shop", "--show", "--data", data)
	if out, err := show.CombinedOutput(); err == nil || !strings.Contains(string(out), "has no segments yet") {
		t.Errorf("%v: %s", err, out)
	}
}
