package audience

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// Lists made together are those made one by one; they find the kind, leave seeds out,
// and their scores are what the model says.
func TestDrafts(t *testing.T) {
	w := newWorld(t, worldOptions{n: 4000, dim: 8, columns: true})
	var lists [][]SeedRef
	for i := range 24 {
		var list []SeedRef
		for k := range 30 {
			list = append(list, SeedRef{ID: w.kind[(i*31+k*7)%len(w.kind)], Weight: float64(1 + k%3)})
		}
		lists = append(lists, list)
	}
	const count = 200
	got, err := Drafts(t.Context(), w.pop, lists, count)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range got {
		if len(d.Members) != count || d.Matched != 30 || d.Threshold != d.Members[count-1].Score {
			t.Fatalf("list %d: %d members, %d matched, threshold %v", i, len(d.Members), d.Matched, d.Threshold)
		}
		hit := 0
		seed := map[string]bool{}
		for _, s := range lists[i] {
			seed[s.ID] = true
		}
		for k, m := range d.Members {
			if seed[m.ID] {
				t.Fatalf("list %d: seed %s is a member", i, m.ID)
			}
			if w.truth[m.ID] {
				hit++
			}
			if k%50 == 0 {
				row, _ := w.pop.Snap.Find(m.ID)
				v := make([]float32, 8)
				if err := w.pop.Snap.Vectors([]uint32{row}, v); err != nil {
					t.Fatal(err)
				}
				rec, err := w.engine.Get(t.Context(), []string{m.ID})
				if err != nil {
					t.Fatal(err)
				}
				if s, _ := d.Model.Score(v, rec[0].Values); math.Abs(float64(s-m.Score)) > 1e-5 {
					t.Fatalf("list %d: %s scores %v, by its model %v", i, m.ID, m.Score, s)
				}
			}
		}
		if hit < count/2 { // a fifth by chance
			t.Errorf("list %d: %d of %d members are of the kind", i, hit, count)
		}
		if i%6 == 0 {
			alone, err := Drafts(t.Context(), w.pop, lists[i:i+1], count)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(alone[0], d) {
				t.Errorf("list %d is another one alone", i)
			}
		}
	}
	if _, err := Drafts(t.Context(), w.pop, [][]SeedRef{{{ID: "nobody"}}}, 10); !errors.Is(err, ErrTooFewSeeds) {
		t.Errorf("unknown seeds: %v", err)
	}
	if _, err := Drafts(t.Context(), w.pop, lists[:1], 0); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("no count: %v", err)
	}
}

// SelectMany gives the members of whole audiences again, byte for byte, from their
// models alone and beside others whose bins differ.
func TestSelectMany(t *testing.T) {
	w := newWorld(t, worldOptions{n: 3000, dim: 8, columns: true})
	var built []*Result
	var list []Selection
	for i, method := range []string{Auto, Trees, Clusters, Centroid} {
		count := 150 + i
		req := Request{Method: method, Size: Size{Count: &count}}
		if i == 1 {
			req.Features.Columns = []string{"region", "age"}
		}
		allowed := roaring.Or(w.pop.Snap.Live(), roaring.New())
		for _, id := range w.kind[i*40 : i*40+60] {
			req.Seeds.IDs = append(req.Seeds.IDs, SeedRef{ID: id})
			row, _ := w.pop.Snap.Find(id)
			allowed.Remove(row)
		}
		res, err := Build(t.Context(), w.pop, req, nil)
		if err != nil {
			t.Fatal(err)
		}
		built = append(built, res)
		list = append(list, Selection{Model: &res.Model, Size: len(res.Members), Allowed: allowed})
	}
	got, err := SelectMany(t.Context(), w.pop.Snap, list, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if len(r.Rows) != len(built[i].Members) {
			t.Fatalf("audience %d: %d members, want %d", i, len(r.Rows), len(built[i].Members))
		}
		for k, m := range built[i].Members {
			if id := w.pop.Snap.ID(r.Rows[k]); id != m.ID || r.Scores[k] != m.Score {
				t.Fatalf("audience %d, rank %d: %s with %v, want %s with %v", i, k+1, id, r.Scores[k], m.ID, m.Score)
			}
		}
	}
	broken := *list[1].Model
	broken.Bins = broken.Bins[:1]
	if _, err := SelectMany(t.Context(), w.pop.Snap, []Selection{{Model: &broken, Size: 1}}, nil); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("a model without its bins: %v", err)
	}
	if _, err := SelectMany(t.Context(), w.pop.Snap, []Selection{{Size: 1}}, nil); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("no model: %v", err)
	}
}
