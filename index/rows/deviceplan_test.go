package rows

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

func (c *copied) sum(h *scan.SumHead, bins [][]uint16, r int) float64 {
	x := 0.0
	if h.Codes != nil {
		sum := 0
		for j, q := range h.Codes {
			sum += int(q) * int(c.codes[r*c.dim+j])
		}
		x = float64(float64(sum) * (float64(c.scales[r]) * h.Scale))
	}
	for _, t := range h.Tables {
		x += t.Values[bins[t.Column][r]]
	}
	for _, t := range h.Trees {
		leaf := byte(0)
		for _, s := range t.Splits {
			leaf |= s.Answer[bins[s.Column][r]]
		}
		x += t.Leaves[leaf]
	}
	return x + h.Bias
}

func (c *copied) Scores(ctx context.Context, n int, mask []uint64, plan *scan.Plan, out [][]float32) error {
	if c.s.fail != nil {
		return c.s.fail
	}
	bins := make([][]uint16, len(plan.Columns))
	for k, col := range plan.Columns {
		bins[k] = make([]uint16, n)
		col.Fill(0, bins[k][:n/2]) // rows come by and by
		col.Fill(n/2, bins[k][n/2:])
	}
	for s := range plan.Sets {
		set := &plan.Sets[s]
		for r := range n {
			if out[s][r] = negInf; mask[r/64]>>(r%64)&1 == 0 {
				continue
			}
			var all []float64
			for h := range set.Heads {
				all = append(all, c.sum(&set.Heads[h], bins, r))
			}
			x, sum := slices.Max(all), 0.0
			if set.Reduce == scan.TopMean {
				slices.SortFunc(all, func(a, b float64) int { return -cmpFloat(a, b) })
				all = all[:set.Top]
			}
			for _, y := range all {
				sum += y
			}
			if set.Reduce != scan.Max {
				x = sum / float64(len(all))
			}
			if set.Common != nil {
				x += c.sum(set.Common, bins, r)
			}
			out[s][r] = toScore(x)
		}
	}
	return ctx.Err()
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (c *copied) BestOf(ctx context.Context, n int, mask []uint64, plan *scan.Plan, size []int) ([][]uint64, error) {
	scores := make([][]float32, len(plan.Sets))
	for s := range scores {
		scores[s] = make([]float32, n)
	}
	if err := c.Scores(ctx, n, mask, plan, scores); err != nil {
		return nil, err
	}
	out := make([][]uint64, len(size))
	for s, k := range size {
		for r, x := range scores[s] {
			if !math.IsInf(float64(x), -1) {
				out[s] = append(out[s], selection.MakeEntry(x, uint32(r)))
			}
		}
		slices.Sort(out[s])
		end := min(k, len(out[s]))
		for end > 0 && end < len(out[s]) && out[s][end]>>32 == out[s][end-1]>>32 {
			end++
		}
		out[s] = out[s][:end]
	}
	return out, nil
}

// columnTables are the same rows with a device and without, with columns.
func columnTables(t *testing.T, s *scorer) (with, without *Table) {
	t.Helper()
	spec := index.Spec{Name: "c", Dim: 8, Columns: []index.Column{{Name: "age", Kind: index.Number}, {Name: "city", Kind: index.Category}, {Name: "tags", Kind: index.Set}}}
	opt := Options{ChunkRows: 64, MinDead: 1 << 20}
	without = New(spec, opt)
	opt.Device, opt.DeviceRows = s, 1
	with = New(spec, opt)
	rng := rand.New(rand.NewPCG(8, 8))
	for part := range 3 {
		var in []Prepared
		for i := range 150 {
			r := index.Row{ID: fmt.Sprintf("id-%d-%d", part, i), Vector: make([]float32, 8), Values: map[string]index.Value{}}
			for j := range r.Vector {
				r.Vector[j] = float32(rng.IntN(3) - 1)
			}
			if i%7 > 0 {
				r.Values["age"] = index.Value{Kind: index.Number, Num: float64(rng.IntN(60))}
				r.Values["city"] = index.Value{Kind: index.Category, Str: fmt.Sprintf("city %d", rng.IntN(5+part))} // new ones come
				r.Values["tags"] = index.Value{Kind: index.Set, Set: []string{"a"}}
			}
			in = append(in, Prepare(&spec, &r))
		}
		for _, table := range []*Table{with, without} {
			if err := table.Apply(in, 0); err != nil {
				t.Fatal(err)
			}
			table.Remove([]string{in[0].ID, in[5].ID}, 0)
		}
		for _, set := range []bool{false, true} {
			sameScores(t, with.Snapshot(), without.Snapshot(), set)
		}
	}
	return with, without
}

// sameScores compares scans and lists of heads with tables, trees and reductions; set
// adds a table of a column of sets, which is not for the device.
func sameScores(t *testing.T, with, without *View, set bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	req := index.BestRequest{ScanRequest: index.ScanRequest{Bins: []index.Bins{
		{Column: "city", Kind: index.Category, Values: []string{"city 1", "city 3", "city 6"}}, {Column: "age", Kind: index.Number, Edges: []float64{20, 30, 45}},
	}}}
	if set {
		req.Bins = append(req.Bins, index.Bins{Column: "tags", Kind: index.Set, Values: []string{"a"}})
	}
	for _, how := range []index.Reduce{"", index.Mean, index.TopMean} {
		s := index.HeadSet{Reduce: how, Top: 2}
		for range 4 {
			h := index.Head{Vector: make([]float32, 8), Bias: float32(rng.IntN(2)), Tables: make([][]float32, len(req.Bins))}
			for j := range h.Vector {
				h.Vector[j] = float32(rng.NormFloat64())
			}
			for k := range req.Bins {
				for range req.Bins[k].Count() {
					h.Tables[k] = append(h.Tables[k], float32(rng.NormFloat64()))
				}
			}
			h.Trees = []index.Tree{{Splits: []index.Split{{Bins: 1, Right: []byte{0b01010}}, {Bins: 0, Right: []byte{0b10010}}}, Leaves: []float32{1, -2, 3.5, 0}}}
			s.Heads = append(s.Heads, h)
		}
		if how == "" {
			s.Common, s.Heads = &s.Heads[3], s.Heads[:3]
		}
		if how != index.TopMean {
			s.Top = 0
		}
		req.Sets = append(req.Sets, s)
		req.Size = append(req.Size, 30)
	}
	want, err := without.Scan(t.Context(), req.ScanRequest)
	if err != nil {
		t.Fatal(err)
	}
	got, err := with.Scan(t.Context(), req.ScanRequest)
	if err != nil {
		t.Fatal(err)
	}
	for s := range want {
		if !slices.Equal(got[s], want[s]) {
			t.Fatalf("set %d: other scores", s)
		}
	}
	wantLists, err := without.Best(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	gotLists, err := with.Best(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for s := range wantLists {
		if !slices.Equal(gotLists[s].Rows, wantLists[s].Rows) || !slices.Equal(gotLists[s].Scores, wantLists[s].Scores) {
			t.Fatalf("set %d: %v, want %v", s, gotLists[s].Rows, wantLists[s].Rows)
		}
	}
}

// TestDeviceColumns: heads with tables and trees are scored on the device, those with
// tables of sets are not, and where it fails the scores are the same.
func TestDeviceColumns(t *testing.T) {
	s := &scorer{}
	with, without := columnTables(t, s)
	for _, err := range s.notes {
		if err != nil {
			t.Error(err)
		}
	}
	if len(s.notes) != 2*3 {
		t.Errorf("the device scored %d times, want 6: a scan and lists three times", len(s.notes))
	}
	s.fail, s.notes = cuda.ErrLost, nil
	sameScores(t, with.Snapshot(), without.Snapshot(), false)
	if len(s.notes) != 1 {
		t.Errorf("noted %v", s.notes)
	}
}
