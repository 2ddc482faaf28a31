package main

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/ingest"
)

func TestParseSize(t *testing.T) {
	count, ratio, threshold := 500, 0.05, -1.5
	for in, want := range map[string]audience.Size{"500": {Count: &count}, "5%": {Ratio: &ratio}, "threshold=-1.5": {Threshold: &threshold}} {
		got, err := parseSize(in)
		if err != nil || !sameSize(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "0%", "101%", "NaN%", "five", "5 %%", "1e3", "threshold=", "threshold=NaN", "99999999999999999999"} {
		var usage *usageError
		if got, err := parseSize(in); !errors.As(err, &usage) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func sameSize(a, b audience.Size) bool {
	return same(a.Count, b.Count) && same(a.Ratio, b.Ratio) && same(a.Threshold, b.Threshold)
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// FuzzFlags gives each small parser of the command line any words: it takes
// them into something that can be meant, or calls the usage wrong.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{"5%", "500", "threshold=0.5", "1,0.5,-2", `{"field":"age","gte":40}`, `{"must":[{"field":"a","in":["x"]}]}`, "age=number", "tab", "é", "NaN", "1e400"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		usage := func(err error) bool {
			var u *usageError
			if err != nil && !errors.As(err, &u) {
				t.Fatalf("%q is not called wrong usage: %v", in, err)
			}
			return err != nil
		}
		if size, err := parseSize(in); !usage(err) {
			req := audience.Request{Seeds: audience.Seeds{Text: "x"}, Size: size}
			if err := req.Validate(); err != nil {
				t.Fatalf("--size %q: taken, then refused: %v", in, err)
			}
		}
		if v, err := parseVector(in); !usage(err) {
			if (in == "") != (v == nil) || slices.ContainsFunc(v, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
				t.Fatalf("--vector %q: %v", in, v)
			}
		}
		_, err := (&pageFlags{filter: in}).tree()
		usage(err)
		_, err = (&fileFlags{delimiter: in, types: []string{in}}).options()
		usage(err)
		if out := inline(in); strings.ContainsAny(out, "\x1b\r\n\x00") {
			t.Fatalf("inline(%q) = %q", in, out)
		}
	})
}

// TestMeter draws over one line on a terminal, and says little in a pipe.
func TestMeter(t *testing.T) {
	var pipe, screen strings.Builder
	for _, c := range []struct {
		to   *strings.Builder
		live bool
	}{{&pipe, false}, {&screen, true}} {
		m := (&app{out: io.Discard, err: c.to}).meter()
		m.live = c.live
		m.show("counting", 1, 100)
		m.drawn = m.drawn.Add(-time.Minute)
		m.show("counting", 50, 100)
		m.show("counting", 51, 100) // too soon for another
		m.show("sorting", 1, 2)
		m.end()
	}
	if got := pipe.String(); got != "counting: 50 of 100 (50 %)\n" {
		t.Errorf("a pipe hears %q", got)
	}
	if got := screen.String(); strings.Count(got, "\r\x1b[K") != 4 || strings.Contains(got, "\n") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("a terminal shows %q", got)
	}
}

// A device is written to; a file that cannot be finished leaves the old one.
func TestWriteAtomic(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/a.csv"
	write := func(text string, err error) error {
		return writeAtomic(path, func(w *os.File) error {
			_, werr := w.WriteString(text)
			return errors.Join(werr, err)
		})
	}
	if err := write("old", nil); err != nil {
		t.Fatal(err)
	}
	if err := write("ne", io.ErrShortWrite); !errors.Is(err, io.ErrShortWrite) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || string(raw) != "old" {
		t.Errorf("%q, %v", raw, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
}

// Seeds that are not in the file are noticed before its texts are encoded.
func TestEnoughSeeds(t *testing.T) {
	path := t.TempDir() + "/customers.csv"
	if err := os.WriteFile(path, []byte("id,age\na,1\nb,2\nc,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := ingest.Inspect(t.Context(), path, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	refs := []audience.SeedRef{{ID: "a"}, {ID: "c"}, {ID: "x"}, {ID: "a"}}
	if err := enoughSeeds(t.Context(), plan, refs, 2); err != nil {
		t.Error(err)
	}
	if err := enoughSeeds(t.Context(), plan, refs, 3); err == nil || !strings.Contains(err.Error(), `2 of 3 given ids match`) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("error %v", err)
	}
}
