package audience

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Goldens made by scikit-learn: testdata/evaluate.py.
func TestEvaluateAgainstScikitLearn(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "evaluate.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Name      string
			Scores    []float32
			Truth     []int
			N         int
			Positives int
			AUC       float64
			Lift      map[int]float64
			Precision map[int]float64
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) < 7 {
		t.Fatalf("%d cases: the goldens are not whole", len(golden.Cases))
	}
	near := func(t *testing.T, what string, at int, got, want float64) {
		t.Helper()
		if !(math.Abs(got-want) <= 1e-9) {
			t.Errorf("%s %d: %.12f, want %.12f", what, at, got, want)
		}
	}
	for _, c := range golden.Cases {
		t.Run(c.Name, func(t *testing.T) {
			truth := make([]bool, len(c.Truth))
			for i, is := range c.Truth {
				truth[i] = is == 1
			}
			var k []int
			for n := range c.Precision {
				k = append(k, n)
			}
			check := func(t *testing.T, e Evaluation) {
				t.Helper()
				if e.N != c.N || e.Positives != c.Positives {
					t.Errorf("%d rows with %d positives, want %d with %d", e.N, e.Positives, c.N, c.Positives)
				}
				if len(e.Lift) != len(c.Lift) || len(e.Precision) != len(c.Precision) {
					t.Errorf("lift at %v, precision at %v: want as many as %v and %v", e.Lift, e.Precision, c.Lift, c.Precision)
				}
				near(t, "AUC", 0, e.AUC, c.AUC)
				for q, want := range c.Lift {
					near(t, "lift at %", q, e.Lift[q], want)
				}
				for n, want := range c.Precision {
					near(t, "precision at", n, e.Precision[n], want)
				}
			}
			check(t, Evaluate(c.Scores, truth, k...))

			// Neither the order of rows nor rows without a score may matter.
			scores := slices.Concat([]float32{float32(math.NaN()), float32(math.Inf(-1))}, c.Scores)
			truth = slices.Concat([]bool{true, false}, truth)
			slices.Reverse(scores)
			slices.Reverse(truth)
			check(t, Evaluate(scores, truth, k...))
		})
	}
}
