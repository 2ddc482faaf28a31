package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// makeLists writes lists of customers.csv beside seeds.csv: negatives.csv of 40 who are
// young, exclude.csv of 30 and complaints.csv of 60 who are old, each with a few ids
// that nobody has. None is a seed. random.csv names 80 customers drawn by a hash.
func makeLists(ts *testscript.TestScript, _ bool, args []string) {
	seed := map[string]bool{}
	for _, line := range strings.Fields(ts.ReadFile("seeds.csv")) {
		seed[line] = true
	}
	var young, old, chance []string
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")[1:] {
		cells := strings.Split(line, ",")
		if h := fnv.New32a(); len(chance) < 80 {
			if _, err := io.WriteString(h, cells[0]+"?"); err == nil && h.Sum32()>>16%10 == 0 {
				chance = append(chance, cells[0])
			}
		}
		switch {
		case seed[cells[0]]:
		case cells[1] < "30" && len(cells[1]) == 2:
			young = append(young, cells[0])
		case cells[1] > "50" && len(cells[1]) == 2:
			old = append(old, cells[0])
		}
	}
	for name, list := range map[string][]string{
		"negatives.csv":  append(append([]string{}, young[:40]...), "x1", "x2"),
		"exclude.csv":    append(append([]string{}, old[:30]...), "x3"),
		"complaints.csv": append(append([]string{}, old[30:90]...), "x4"),
		"random.csv":     chance,
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte("id\n"+strings.Join(list, "\n")+"\n"), 0o644))
	}
}

// lacks wants no id of a second file in the first.
func lacks(ts *testscript.TestScript, _ bool, args []string) {
	ids := func(name string) map[string]bool {
		out := map[string]bool{}
		for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(name)), "\n")[1:] {
			id, _, _ := strings.Cut(line, ",")
			out[id] = true
		}
		return out
	}
	in, not := ids(args[0]), ids(args[1])
	if len(in) == 0 || len(not) == 0 {
		ts.Fatalf("%d and %d ids", len(in), len(not))
	}
	for id := range in {
		if not[id] {
			ts.Fatalf("%s", fmt.Sprintf("%s of %s is in %s", id, args[1], args[0]))
		}
	}
}
