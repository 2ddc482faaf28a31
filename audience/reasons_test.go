package audience

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// Every part of a member's score is computed again here, from the heads and the
// stored customer, by other code: bins by counting, Shapley values by all orders of
// a tree's columns. Each must be what the reasons say, and their sum the score.
func TestEachPartFromTheHeadsAndTheCustomer(t *testing.T) {
	for _, p := range []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary} {
		for _, o := range []worldOptions{{n: 2000, dim: 24, columns: true, precision: p}, {n: 2000, columns: true, precision: p}, {n: 2000, dim: 24, precision: p}} {
			w := newWorld(t, o)
			for _, method := range []string{Auto, Centroid, Clusters, Classifier, Trees, Neighbours} {
				if method == Clusters && o.dim == 0 || method == Trees && !o.columns {
					continue
				}
				if p != index.Int8 && method != Auto && method != Clusters && method != Neighbours {
					continue
				}
				t.Run(fmt.Sprintf("%s dim=%d columns=%v %s", p, o.dim, o.columns, method), func(t *testing.T) {
					res := mustBuild(t, w, Request{Seeds: Seeds{IDs: refs(w.kind[:80])}, Size: count(60), Method: method})
					for i := range res.Members {
						checkParts(t, w, res, &res.Members[i])
					}
				})
			}
		}
	}
}

func checkParts(t *testing.T, w *world, res *Result, m *Member) {
	t.Helper()
	row, ok := w.pop.Snap.Find(m.ID)
	if !ok {
		t.Fatalf("%s is no customer", m.ID)
	}
	x := make([]float32, w.pop.Spec.Dim)
	if len(x) > 0 {
		if err := w.pop.Snap.Vectors([]uint32{row}, x); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.engine.Get(t.Context(), []string{m.ID})
	if err != nil {
		t.Fatal(err)
	}
	codes := make([][]int, len(res.Model.Bins))
	for c, b := range res.Model.Bins {
		codes[c] = binsOf(b, got[0].Values[b.Column])
	}
	type taken struct {
		parts map[string]float64
		total float64
	}
	take := func(h index.Head) taken {
		out := taken{parts: partsOf(h, res, x, codes)}
		for _, v := range out.parts {
			out.total += v
		}
		return out
	}
	var all []taken
	for _, h := range res.Model.Set.Heads {
		all = append(all, take(h))
	}
	slices.SortStableFunc(all, func(a, b taken) int { return cmp.Compare(b.total, a.total) })
	top := 1
	if res.Model.Set.Reduce == index.TopMean {
		top = min(res.Model.Set.Top, len(all))
	}
	want, best := map[string]float64{}, 0.0
	add := func(t taken, share float64) {
		best += share * t.total
		for of, v := range t.parts {
			want[of] += share * v
		}
	}
	for _, t := range all[:top] {
		add(t, 1/float64(top))
	}
	if res.Model.Set.Common != nil {
		add(take(*res.Model.Set.Common), 1)
	}
	if math.Abs(best-float64(m.Score)) > 1e-5 {
		t.Errorf("%s: parts computed here add up to %v, the score is %v", m.ID, best, m.Score)
	}
	sum := 0.0
	for _, p := range m.Parts {
		sum += float64(p.Value)
		if math.Abs(float64(p.Value)-want[p.Of]) > 1e-5 {
			t.Errorf("%s: the part of %s is %v, computed here %v", m.ID, p.Of, p.Value, want[p.Of])
		}
		delete(want, p.Of)
	}
	if math.Abs(sum-float64(m.Score)) > 1e-5 {
		t.Errorf("%s: parts add up to %v, the score is %v", m.ID, sum, m.Score)
	}
	for of, v := range want {
		if math.Abs(v) > 1e-9 {
			t.Errorf("%s: %s gives %v and is not among the reasons", m.ID, of, v)
		}
	}
}

// binsOf counts edges, and looks values up one by one.
func binsOf(b index.Bins, v index.Value) []int {
	place := func(s string) int {
		for i, known := range b.Values {
			if known == s {
				return i + 2
			}
		}
		return 1
	}
	switch {
	case v.Kind == "":
		return []int{0}
	case b.Kind == index.Set:
		var out []int
		for _, s := range v.Set {
			out = append(out, place(s))
		}
		return out
	case b.Kind == index.Category:
		return []int{place(v.Str)}
	}
	bin := 1
	for _, edge := range b.Edges {
		if v.Num >= edge {
			bin++
		}
	}
	return []int{bin}
}

// partsOf is one head's score of a customer by what it is of.
func partsOf(h index.Head, res *Result, x []float32, codes [][]int) map[string]float64 {
	out := map[string]float64{"intercept": float64(h.Bias)}
	for j, weight := range h.Vector {
		mean := float64(res.Model.Center[j])
		out["text"] += float64(weight) * (float64(x[j]) - mean)
		out["intercept"] += float64(weight) * mean
	}
	for c, table := range h.Tables {
		if table == nil {
			continue
		}
		sum := 0.0
		for _, code := range codes[c] {
			sum += float64(table[code])
		}
		out[res.Model.Bins[c].Column] += sum / math.Sqrt(float64(len(codes[c])))
	}
	for i := range h.Trees {
		tree := &h.Trees[i]
		leaf := 0
		var columns []int
		seen := map[int]bool{}
		for level, s := range tree.Splits {
			for _, code := range codes[s.Bins] {
				if s.Right[code/8]>>(code%8)&1 == 1 {
					leaf |= 1 << level
					break
				}
			}
			if !seen[s.Bins] {
				seen[s.Bins] = true
				columns = append(columns, s.Bins)
			}
		}
		out["intercept"] += meanLeaf(tree, leaf, nil)
		orders := permutations(columns)
		for _, order := range orders {
			known := map[int]bool{}
			for _, c := range order {
				before := meanLeaf(tree, leaf, known)
				known[c] = true
				out[res.Model.Bins[c].Column] += (meanLeaf(tree, leaf, known) - before) / float64(len(orders))
			}
		}
	}
	return out
}

// meanLeaf is the mean over everyone of a tree's leaf where the known columns
// answer as this leaf does.
func meanLeaf(tree *index.Tree, leaf int, known map[int]bool) float64 {
	sum := 0.0
	for other, share := range tree.Cover {
		at := 0
		for level, s := range tree.Splits {
			from := other
			if known[s.Bins] {
				from = leaf
			}
			at |= from & (1 << level)
		}
		sum += float64(share) * float64(tree.Leaves[at])
	}
	return sum
}

func permutations(of []int) [][]int {
	if len(of) == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for i := range of {
		rest := append(append([]int{}, of[:i]...), of[i+1:]...)
		for _, p := range permutations(rest) {
			out = append(out, append([]int{of[i]}, p...))
		}
	}
	return out
}
