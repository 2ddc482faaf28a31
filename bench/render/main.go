// Command render turns bench/results/*.json into the tables of
// docs/performance.md, between its two markers, and the charts of docs/img. It
// computes nothing that is not in the results but shares and verdicts, and its
// test holds the committed documents to the committed results.
//
// Flow: load reads every result; bars (results.go) picks the ratios that cpu.md
// sets targets for, facts the figures without a rival; tables, charts (svg.go) and
// the profile of a server (flame.go) write them down.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	begin = "<!-- bench: written by `make bench-render` from bench/results, do not edit by hand -->"
	end   = "<!-- bench: end -->"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := render(root)
	if err != nil {
		return err
	}
	for path, data := range files {
		full := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// render returns what the documents must hold: path below root to content.
func render(root string) (map[string][]byte, error) {
	all, err := load(filepath.Join(root, "bench", "results"))
	if err != nil {
		return nil, err
	}
	doc := filepath.Join("docs", "performance.md")
	text, err := os.ReadFile(filepath.Join(root, doc))
	if err != nil {
		return nil, err
	}
	bars, err := all.bars()
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	var body bytes.Buffer
	writeTargets(&body, bars)
	for _, c := range charts(bars) {
		path := filepath.Join("docs", "img", c.file+".svg")
		out[path] = c.svg()
		fmt.Fprintf(&body, "![%s](img/%s.svg)\n\n", c.title, c.file)
	}
	profile, err := all.profile()
	if err != nil {
		return nil, err
	}
	if profile != nil {
		out[filepath.Join("docs", "img", "flame.svg")] = profile.svg()
		fmt.Fprintf(&body, "Of a server under load, the processors work for: %s.\n\n![Where a server under load spends its time](img/flame.svg)\n\n", profile.said())
	}
	facts, err := all.facts()
	if err != nil {
		return nil, err
	}
	writeFacts(&body, facts)
	all.writeSources(&body)
	if out[doc], err = between(text, body.Bytes()); err != nil {
		return nil, fmt.Errorf("%s: %w", doc, err)
	}
	return out, nil
}

// between replaces what stands between the markers.
func between(text, body []byte) ([]byte, error) {
	head, rest, ok := bytes.Cut(text, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the lines %q and %q are wanted, in this order", begin, end)
	}
	return slices.Concat(head, []byte(begin+"\n\n"), bytes.TrimSpace(body), []byte("\n\n"+end), tail), nil
}

// wanted are the ids of cpu.md, so that one without a result is named.
var wanted = []string{"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"}

func writeTargets(w *bytes.Buffer, bars []bar) {
	fmt.Fprintln(w, "| | compared | median (least to most, pairs) | target / stretch | |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
	for _, id := range wanted {
		found := false
		for _, b := range bars {
			if b.id != id {
				continue
			}
			found = true
			goal := "none"
			if b.target > 0 {
				goal = b.number(b.target)
				if b.stretch > 0 {
					goal += " / " + b.number(b.stretch)
				}
			}
			fmt.Fprintf(w, "| %s | %s | **%s** (%s to %s, %d) | %s | %s |\n", b.id, b.name(), b.number(b.median), b.number(b.min), b.number(b.max), b.pairs, goal, b.verdict())
		}
		if !found {
			fmt.Fprintf(w, "| %s | | no result in bench/results | | not measured |\n", id)
		}
	}
	fmt.Fprintln(w)
}

func writeFacts(w *bytes.Buffer, facts [][2]string) {
	fmt.Fprintf(w, "| beside | measured |\n|---|---|\n")
	for _, f := range facts {
		fmt.Fprintf(w, "| %s | %s |\n", f[0], f[1])
	}
	fmt.Fprintln(w)
}

func (r results) writeSources(w *bytes.Buffer) {
	fmt.Fprintf(w, "| result | date | commit | hardware | load average | versions |\n|---|---|---|---|---|---|\n")
	for _, name := range r.names() {
		s := source(r[name])
		fmt.Fprintf(w, "| [%s](../bench/results/%s.json) | %s | %s | %s | %s | %s |\n", name, name, s.date, s.commit, s.hardware, s.load, strings.Join(s.versions, ", "))
	}
}
