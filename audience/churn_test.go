package audience

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// The list after a refresh, by a plain rule over all of today's scores.
func TestChurnAgainstThePlainRule(t *testing.T) {
	w := newWorld(t, worldOptions{n: 3000, dim: 8, columns: true})
	req := Request{Seeds: Seeds{IDs: refs(w.kind[:100])}, Method: Centroid, Size: count(2000)}
	all := mustBuild(t, w, req).Members
	size := 300
	req.Size = count(size)
	// A list of before: half of it good by today's scores, half not, and some who
	// may not be members any more.
	for _, shift := range []int{150, 299} {
		for _, was := range []int{200, 300, 400} {
			for _, churn := range []float64{0, 0.05, 0.1, 0.5, 1} {
				old := &Incumbent{Churn: churn}
				for _, m := range all[shift : shift+was-10] {
					old.IDs = append(old.IDs, m.ID)
				}
				old.IDs = append(old.IDs, w.kind[:10]...) // seeds now
				w.pop.Incumbent = old
				res := mustBuild(t, w, req)
				w.pop.Incumbent = nil
				checkChurn(t, res, all, old, size)
				if churn == 0.1 {
					w.pop.Incumbent = old
					if again := ids(mustBuild(t, w, req)); !slices.Equal(again, ids(res)) {
						t.Error("the same refresh gives another list")
					}
					w.pop.Incumbent = nil
				}
			}
		}
	}
}

func checkChurn(t *testing.T, res *Result, all []Member, old *Incumbent, size int) {
	t.Helper()
	c := res.Churn
	if c == nil || len(res.Members) != size {
		t.Fatalf("churn %+v, %d members", c, len(res.Members))
	}
	before := map[string]bool{}
	for _, id := range old.IDs {
		before[id] = true
	}
	kept := 0
	for i, m := range res.Members {
		if m.Rank != i+1 || i > 0 && cmp.Or(cmp.Compare(res.Members[i-1].Score, m.Score), -cmp.Compare(res.Members[i-1].ID, m.ID)) <= 0 {
			t.Fatalf("member %d is out of order", i)
		}
		if before[m.ID] {
			kept++
		}
	}
	common := 0
	for _, m := range all[:size] {
		if before[m.ID] {
			common++
		}
	}
	was := len(old.IDs)
	budget := int(math.Floor(old.Churn*float64(was) + 1e-9))
	replaced := min(size-kept, was-kept)
	if c.Kept != kept || c.Entered != size-kept || c.Left != was-kept || c.Was != was || c.Allowed != budget || c.Retained != kept-common || c.Gone != 10 || c.Wanted != min(size-common, was-common) {
		t.Errorf("%+v, but %d of %d were kept, %d would be", c, kept, was, common)
	}
	if limit := max(budget, 10); replaced > limit { // ten must go in any case
		t.Errorf("%d members replaced, %d allowed", replaced, budget)
	}
	if c.Wanted > c.Allowed && replaced < budget && kept < was-10 {
		t.Errorf("%d replaced although %d may be", replaced, budget)
	}
	// Who stays are the best of before, who enters the best of the others.
	for _, side := range []bool{true, false} {
		var want, got []string
		n := kept
		if !side {
			n = size - kept
		}
		for _, m := range all {
			if before[m.ID] == side && len(want) < n {
				want = append(want, m.ID)
			}
		}
		for _, m := range res.Members {
			if before[m.ID] == side {
				got = append(got, m.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("before %v: other members than the best %d", side, n)
		}
	}
	if res.Threshold != all[size-1].Score {
		t.Errorf("to enter takes %v, want %v", res.Threshold, all[size-1].Score)
	}
	if last := res.Members[size-1].Score; (res.Floor != nil) != (last < res.Threshold) || res.Floor != nil && *res.Floor != last {
		t.Errorf("floor %v, last score %v", res.Floor, last)
	}
}

func TestSeedsWeighByValue(t *testing.T) {
	w := newWorld(t, worldOptions{n: 2000, dim: 8, columns: true})
	r := &resolved{}
	for i := range 6 {
		row, _ := w.pop.Snap.Find(idOf(i))
		r.seeds = append(r.seeds, weightedRow{row, 1 + float64(i%2)})
	}
	values := map[string]float64{idOf(0): 0, idOf(1): 10, idOf(2): 1000, idOf(3): 10, idOf(4): -5}
	w.pop.ValuesOf = func(_ context.Context, _ string) (map[string]float64, error) { return values, nil }
	for _, c := range []struct {
		damping string
		worth   []float64
	}{
		{"none", []float64{0, 10, 1000, 10, 0}},
		{"log", []float64{0, math.Log(11), math.Log(1001), math.Log(11), 0}},
		{"rank", []float64{1.5, 3.5, 5, 3.5, 1.5}},
	} {
		r2 := &resolved{seeds: slices.Clone(r.seeds)}
		if err := r2.weigh(t.Context(), w.pop, &SeedValue{Outcomes: "spring", Damping: c.damping}); err != nil {
			t.Fatal(err)
		}
		mean := 0.0
		for _, x := range c.worth {
			mean += x / 5
		}
		for i, s := range r2.seeds {
			want := r.seeds[i].weight
			if i < 5 {
				want *= max(c.worth[i]/mean, 0.01)
			}
			if math.Abs(s.weight-want) > 1e-9 {
				t.Errorf("%s: seed %d weighs %v, want %v", c.damping, i, s.weight, want)
			}
		}
		if notes := strings.Join(r2.doctor.Notes, "\n"); !strings.Contains(notes, "1 of 6 seeds have no value") || !strings.Contains(notes, "1 seeds have a value below 0") {
			t.Errorf("notes %q", notes)
		}
	}
	// The list leans to the valuable: seeds of two kinds, one of them worth more.
	plain := Request{Seeds: Seeds{IDs: refs(append(slices.Clone(w.kind[:50]), others(w, 50)...))}, Method: Centroid, Size: count(200)}
	hits := func(res *Result) (n int) {
		for _, m := range res.Members {
			if w.truth[m.ID] {
				n++
			}
		}
		return n
	}
	before := hits(mustBuild(t, w, plain))
	clear(values)
	for i, ref := range plain.Seeds.IDs {
		values[ref.ID] = 1
		if i < 50 {
			values[ref.ID] = 100
		}
	}
	plain.Seeds.Value = &SeedValue{Outcomes: "spring"}
	if after := hits(mustBuild(t, w, plain)); after <= before {
		t.Errorf("%d of the valuable kind without values, %d with", before, after)
	}
	for _, bad := range []SeedValue{{}, {Column: "age", Outcomes: "x"}, {Column: "region"}, {Column: "nowhere"}, {Column: "age", Damping: "some"}} {
		req := plain
		req.Seeds.Value = &bad
		if _, err := Build(t.Context(), w.pop, req, nil); !errors.Is(err, index.ErrInvalid) && !errors.Is(err, index.ErrNotFound) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func others(w *world, n int) (out []string) {
	for i := 0; len(out) < n; i++ {
		if id := idOf(i); !w.truth[id] {
			out = append(out, id)
		}
	}
	return out
}
