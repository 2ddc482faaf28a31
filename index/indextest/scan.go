package indextest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// grown returns an engine with about 600 live rows, some of them replaced and
// some deleted, and the model of it.
func grown(t *testing.T, s index.Store, p index.Precision, seed uint64) (index.Engine, map[string]index.Row) {
	t.Helper()
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 2))
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "scan", Dim: dim, Precision: p, Columns: columns}))
	model := map[string]index.Row{}
	for range 6 {
		var batch []index.Row
		for _, i := range rng.Perm(700)[:300] {
			batch = append(batch, randomRow(rng, fmt.Sprintf("c%d", i)))
		}
		check(t, e.Upsert(ctx, batch))
		for _, r := range batch {
			model[r.ID] = r
		}
		var gone []string
		for _, i := range rng.Perm(700)[:20] {
			id := fmt.Sprintf("c%d", i)
			gone = append(gone, id)
			delete(model, id)
		}
		_, err := e.Delete(ctx, gone)
		check(t, err)
	}
	return e, model
}

var scanBins = []index.Bins{
	{Column: "age", Kind: index.Number, Edges: []float64{-3, 20, 40, 41, 79}},
	{Column: "city", Kind: index.Category, Values: []string{"", "Bergen", "北京"}},
	{Column: "tags", Kind: index.Set, Values: []string{"b", "d", "z"}},
	{Column: "vip", Kind: index.Bool, Edges: []float64{0.5}},
	{Column: "seen", Kind: index.Time},
}

// randomRequest draws bins, one to four sets of one to five heads, and a mask.
func randomRequest(rng *rand.Rand, live *roaring.Bitmap) index.ScanRequest {
	var req index.ScanRequest
	for _, i := range rng.Perm(len(scanBins))[:rng.IntN(len(scanBins)+1)] {
		req.Bins = append(req.Bins, scanBins[i])
	}
	for range 1 + rng.IntN(4) {
		set := index.HeadSet{Reduce: []index.Reduce{"", index.Max, index.Mean, index.LogSumExp, index.TopMean}[rng.IntN(5)], Top: 1 + rng.IntN(6)}
		for range 1 + rng.IntN(5) {
			h := index.Head{Bias: float32(rng.IntN(3)) * 0.75}
			if rng.IntN(4) > 0 {
				h.Vector = make([]float32, dim)
				for i := range h.Vector {
					h.Vector[i] = float32(rng.NormFloat64())
				}
			}
			if rng.IntN(4) > 0 {
				h.Tables = make([][]float32, len(req.Bins))
				for i := range h.Tables {
					if rng.IntN(4) == 0 {
						continue
					}
					h.Tables[i] = make([]float32, req.Bins[i].Count())
					for j := range h.Tables[i] {
						h.Tables[i][j] = float32(rng.NormFloat64())
					}
				}
			}
			if len(req.Bins) > 0 && rng.IntN(3) == 0 {
				for range 1 + rng.IntN(6) {
					h.Trees = append(h.Trees, randomTree(rng, req.Bins))
				}
			}
			set.Heads = append(set.Heads, h)
		}
		if n := len(set.Heads); n > 1 && rng.IntN(2) == 0 {
			set.Common, set.Heads = &set.Heads[n-1], set.Heads[:n-1]
		}
		req.Sets = append(req.Sets, set)
	}
	if share := []int{0, 1, 2, 30, 1000}[rng.IntN(5)]; share > 0 { // all; every; every other; few; hardly any
		req.Mask = roaring.New()
		for _, row := range live.ToArray() {
			if rng.IntN(share) == 0 {
				req.Mask.Add(row)
			}
		}
		req.Mask.Add(1 << 30) // beyond the rows: no fault
	}
	return req
}

func randomTree(rng *rand.Rand, bins []index.Bins) index.Tree {
	var t index.Tree
	for range 1 + rng.IntN(index.MaxSplits) {
		s := index.Split{Bins: rng.IntN(len(bins))}
		s.Right = make([]byte, (bins[s.Bins].Count()+7)/8)
		for i := range s.Right {
			s.Right[i] = byte(rng.Uint32())
		}
		t.Splits = append(t.Splits, s)
	}
	for range 1 << len(t.Splits) {
		t.Leaves = append(t.Leaves, float32(rng.NormFloat64()))
	}
	return t
}

// naiveBin is the definition of Bins, one step at a time.
func naiveBin(b *index.Bins, v index.Value) []int {
	if v.Kind == "" {
		return []int{0}
	}
	bin := 1
	switch {
	case b.Kind.Numeric():
		for _, e := range b.Edges {
			if e <= v.Num {
				bin++
			}
		}
		return []int{bin}
	case b.Kind == index.Category:
		v.Set = []string{v.Str}
	case len(v.Set) == 0:
		return []int{0}
	}
	var out []int
	for _, s := range v.Set {
		if i := slices.Index(b.Values, s); i >= 0 {
			out = append(out, i+2)
		} else {
			out = append(out, 1)
		}
	}
	return out
}

// naiveScore is the definition of a head set's score in float64. room is by how
// much rounding a head to the engine's arithmetic may move it.
func naiveScore(set *index.HeadSet, bins []index.Bins, r *index.Row, vec []float32) (score, room float64) {
	var all []float64
	heads := slices.Clone(set.Heads)
	if set.Common != nil {
		heads = append(heads, *set.Common)
	}
	for _, h := range heads {
		sum, top := float64(h.Bias), 0.0
		for i, x := range h.Vector {
			sum += float64(x) * float64(vec[i])
			top = max(top, math.Abs(float64(x)))
		}
		for k, table := range h.Tables {
			if table == nil {
				continue
			}
			part := 0.0
			in := naiveBin(&bins[k], r.Values[bins[k].Column])
			for _, bin := range in {
				part += float64(table[bin])
			}
			sum += part / math.Sqrt(float64(len(in)))
		}
		for _, t := range h.Trees {
			leaf := 0
			for i, s := range t.Splits {
				for _, bin := range naiveBin(&bins[s.Bins], r.Values[bins[s.Bins].Column]) {
					if s.Right[bin/8]&(1<<(bin%8)) != 0 {
						leaf |= 1 << i
					}
				}
			}
			sum += float64(t.Leaves[leaf])
		}
		all = append(all, sum)
		// Half a step of 2^-14 of the largest number, at each of dim places.
		room = max(room, top/32768*math.Sqrt(dim), 1e-6*math.Abs(sum))
	}
	common := 0.0
	if set.Common != nil {
		common, all = all[len(all)-1], all[:len(all)-1]
		room *= 2
	}
	switch set.Reduce {
	case index.TopMean:
		slices.Sort(all)
		slices.Reverse(all)
		all = all[:min(set.Top, len(all))]
		for _, x := range all {
			score += x / float64(len(all))
		}
	case index.Mean:
		for _, x := range all {
			score += x / float64(len(all))
		}
	case index.LogSumExp:
		for _, x := range all {
			score += math.Exp(x)
		}
		score = math.Log(score)
	default:
		score = slices.Max(all)
	}
	return score + common, room + 1e-6
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// testScan compares scans with the naive score, and with each other: a set
// alone, another mask and another number of cores give the same bytes.
func testScan(t *testing.T, cfg Config, p index.Precision) {
	const seed = 31
	ctx := context.Background()
	s := cfg.Open(t)
	e, model := grown(t, s, p, seed)
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	rng := rand.New(rand.NewPCG(seed, 3))
	scan := func(req index.ScanRequest) [][]float32 {
		t.Helper()
		return must[[][]float32](t)(snap.Scan(ctx, req))
	}
	compared := 0
	vec := make([]float32, dim)
	for round := range 40 {
		req := randomRequest(rng, snap.Live())
		scores := scan(req)
		if len(scores) != len(req.Sets) {
			t.Fatalf("seed %d round %d: %d results for %d sets", seed, round, len(scores), len(req.Sets))
		}
		for k := range req.Sets {
			if len(scores[k]) != snap.Len() {
				t.Fatalf("seed %d round %d: %d scores for %d rows", seed, round, len(scores[k]), snap.Len())
			}
			for row, got := range scores[k] {
				if !snap.Live().Contains(uint32(row)) || req.Mask != nil && !req.Mask.Contains(uint32(row)) {
					if !math.IsInf(float64(got), -1) {
						t.Fatalf("seed %d round %d set %d: row %d is masked or dead and scores %v", seed, round, k, row, got)
					}
					continue
				}
				r := model[snap.ID(uint32(row))]
				check(t, snap.Vectors([]uint32{uint32(row)}, vec))
				want, room := naiveScore(&req.Sets[k], req.Bins, &r, vec)
				if p == index.Binary { // four numbers of a head share the range that one has elsewhere
					room *= 4
				}
				if !(math.Abs(float64(got)-want) <= room) {
					t.Fatalf("seed %d round %d set %d (%d heads, reduce %q): id %q scores %v, want %v within %v", seed, round, k, len(req.Sets[k].Heads), req.Sets[k].Reduce, r.ID, got, want, room)
				}
				compared++
			}
			alone := req
			alone.Sets = req.Sets[k : k+1]
			if !sameBits(scan(alone)[0], scores[k]) {
				t.Fatalf("seed %d round %d: set %d of %d scores other bytes alone", seed, round, k, len(req.Sets))
			}
			alone.Mask = nil
			for row, x := range scan(alone)[0] {
				if got := scores[k][row]; !math.IsInf(float64(got), -1) && math.Float32bits(got) != math.Float32bits(x) {
					t.Fatalf("seed %d round %d set %d: row %d scores %v under a mask and %v without", seed, round, k, row, got, x)
				}
			}
		}
		if round%8 == 0 {
			was := runtime.GOMAXPROCS(1 + round/8%3)
			again := scan(req)
			runtime.GOMAXPROCS(was)
			for k := range again {
				if !sameBits(again[k], scores[k]) {
					t.Fatalf("seed %d round %d: another number of cores scores other bytes", seed, round)
				}
			}
		}
	}
	if compared < 5000 {
		t.Fatalf("only %d scores were compared", compared)
	}
	testExtremeHeads(t, snap)
	testBadTrees(t, snap)
	check(t, snap.Close())
	check(t, s.Close())
}

// testBadTrees: a tree that does not fit its bins is refused, not scanned.
func testBadTrees(t *testing.T, snap index.Snapshot) {
	t.Helper()
	good := func() index.Tree {
		return index.Tree{Splits: []index.Split{{Bins: 0, Right: []byte{3}}}, Leaves: []float32{0, 1}}
	}
	for name, spoil := range map[string]func(*index.Tree){
		"nothing":      nil,
		"no splits":    func(x *index.Tree) { x.Splits, x.Leaves = nil, x.Leaves[:1] },
		"too deep":     func(x *index.Tree) { x.Splits = slices.Repeat(x.Splits, 9); x.Leaves = make([]float32, 512) },
		"unknown bins": func(x *index.Tree) { x.Splits[0].Bins = len(scanBins) },
		"negative":     func(x *index.Tree) { x.Splits[0].Bins = -1 },
		"short answer": func(x *index.Tree) { x.Splits[0].Right = nil },
		"long answer":  func(x *index.Tree) { x.Splits[0].Right = []byte{1, 2} },
		"few leaves":   func(x *index.Tree) { x.Leaves = x.Leaves[:1] },
		"NaN":          func(x *index.Tree) { x.Leaves[1] = float32(math.NaN()) },
		"cover":        func(x *index.Tree) { x.Cover = []float32{1} },
	} {
		tree := good()
		if spoil != nil {
			spoil(&tree)
		}
		_, err := snap.Scan(context.Background(), index.ScanRequest{Bins: scanBins, Sets: []index.HeadSet{{Heads: []index.Head{{Trees: []index.Tree{tree}}}}}})
		if (spoil == nil) != (err == nil) || err != nil && !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// testExtremeHeads: a head at the ends of float32 still scores a finite number
// in every row of the mask, and of the right sign.
func testExtremeHeads(t *testing.T, snap index.Snapshot) {
	t.Helper()
	const huge = math.MaxFloat32
	for _, sign := range []float32{1, -1} {
		wild := index.Head{Vector: make([]float32, dim)}
		tiny := index.Head{Vector: make([]float32, dim)}
		for i := range wild.Vector {
			wild.Vector[i] = huge * sign * float32(1-2*(i&1))
			tiny.Vector[i] = sign * math.SmallestNonzeroFloat32
		}
		far := index.Head{Bias: sign * huge, Tables: make([][]float32, len(scanBins))}
		for k := range scanBins {
			far.Tables[k] = make([]float32, scanBins[k].Count())
			for j := range far.Tables[k] {
				far.Tables[k][j] = sign * huge
			}
		}
		for name, heads := range map[string][]index.Head{"vector": {wild}, "tiny": {tiny}, "sum": {far}, "all": {wild, far, tiny}} {
			for _, how := range []index.Reduce{index.Max, index.Mean, index.LogSumExp} {
				scores := must[[][]float32](t)(snap.Scan(context.Background(), index.ScanRequest{Bins: scanBins, Sets: []index.HeadSet{{Heads: heads, Reduce: how}}}))[0]
				for _, row := range snap.Live().ToArray() {
					x := float64(scores[row])
					if math.IsNaN(x) || math.IsInf(x, 0) {
						t.Fatalf("head %s, reduce %s: row %d scores %v: must be finite", name, how, row, x)
					}
					if name == "sum" && x != float64(sign)*huge {
						t.Fatalf("head %s, reduce %s: row %d scores %v, want the largest number", name, how, row, x)
					}
				}
			}
		}
	}
}

// testRoundTrip compares what Get, Column and Vectors give back with the model.
func testRoundTrip(t *testing.T, cfg Config, p index.Precision) {
	ctx := context.Background()
	s := cfg.Open(t)
	e, model := grown(t, s, p, 17)
	odd := map[string][]float32{"zero": make([]float32, dim), "huge": make([]float32, dim), "small": make([]float32, dim), "none": nil}
	for i := range dim {
		odd["huge"][i] = math.MaxFloat32 * float32(1-2*(i&1))
		odd["small"][i] = math.SmallestNonzeroFloat32 * float32(i+1)
	}
	for id, v := range odd {
		r := index.Row{ID: id, Vector: v}
		check(t, e.Upsert(ctx, []index.Row{r}))
		model[id] = r
	}
	if cfg.Reopen != nil {
		s = cfg.Reopen(t, s)
		e = must[index.Engine](t)(s.Open(ctx, "scan"))
	}
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	near := map[index.Precision]float64{index.Int8: 0.9999, index.Fp16: 0.999999, index.Fp32: 0.9999999, index.Binary: 1 / math.Sqrt(dim)}[p] // no vector is farther from its signs
	unit := map[index.Precision]float64{index.Int8: 1e-6, index.Fp16: 5e-4, index.Fp32: 1e-6, index.Binary: 1e-6}[p]                          // half a step of fp16's 11 bits
	vec, without := make([]float32, dim), 0
	for id, want := range model {
		got := must[[]*index.Row](t)(e.Get(ctx, []string{id}))[0]
		if got == nil || got.ID != id || string(got.Record) != string(want.Record) {
			t.Fatalf("id %q: got %+v", id, got)
		}
		row, _ := snap.Find(id)
		check(t, snap.Vectors([]uint32{row}, vec))
		if norm(want.Vector) == 0 { // no text, or nothing in it
			without++
			if got.Vector != nil || norm(vec) != 0 {
				t.Fatalf("id %q has no vector; got %v and %v", id, got.Vector, vec)
			}
		} else {
			dot := 0.0
			for i, x := range want.Vector {
				dot += float64(x) / norm(want.Vector) * float64(vec[i])
				sign := float32(1 / math.Sqrt(dim))
				if x < 0 {
					sign = -sign
				}
				if p == index.Binary && vec[i] != sign {
					t.Fatalf("id %q: number %d of %v is held as %v, want its sign: %v", id, i, want.Vector, vec[i], sign)
				}
			}
			if !slices.Equal(got.Vector, vec) || !(dot >= near*norm(vec)) || !(math.Abs(norm(vec)-1) <= unit) {
				t.Fatalf("id %q: vector %v (cosine %v, length %v), Get gives %v", id, vec, dot, norm(vec), got.Vector)
			}
		}
		for _, c := range columns {
			a, b := want.Values[c.Name], got.Values[c.Name]
			if c.Kind == index.Set {
				a.Set, b.Set = slices.Sorted(slices.Values(a.Set)), slices.Sorted(slices.Values(b.Set))
				if len(a.Set) == 0 {
					a.Kind = ""
				}
			}
			if a.Kind != b.Kind || a.Num != b.Num || a.Str != b.Str || !slices.Equal(a.Set, b.Set) {
				t.Fatalf("id %q column %q: %+v, stored %+v", id, c.Name, b, a)
			}
			if d := columnValue(t, snap, c, row); d.Num != a.Num || d.Kind != a.Kind || d.Str != a.Str || !slices.Equal(d.Set, a.Set) {
				t.Fatalf("id %q: Column(%q) gives %+v, stored %+v", id, c.Name, d, a)
			}
		}
	}
	if without < 20 {
		t.Fatalf("only %d rows without a vector", without)
	}
	if _, err := snap.Column("nope"); !errors.Is(err, index.ErrNotFound) {
		t.Fatalf("an absent column: %v", err)
	}
	for _, rows := range [][]uint32{{uint32(snap.Len())}, {0, 0}} {
		if err := snap.Vectors(rows, vec); !errors.Is(err, index.ErrInvalid) {
			t.Fatalf("vectors of rows %v into room for one: %v", rows, err)
		}
	}
	check(t, snap.Close())
	check(t, snap.Close()) // twice is safe
	check(t, s.Close())
}

func norm(v []float32) float64 {
	top, sum := 0.0, 0.0
	for _, x := range v {
		top = max(top, math.Abs(float64(x)))
	}
	if top == 0 {
		return 0
	}
	for _, x := range v {
		sum += float64(x) / top * float64(x) / top
	}
	return top * math.Sqrt(sum)
}

// columnValue reads one row out of Column's form, checking the form.
func columnValue(t *testing.T, snap index.Snapshot, c index.Column, row uint32) index.Value {
	t.Helper()
	d := must[index.ColumnData](t)(snap.Column(c.Name))
	if d.Kind != c.Kind {
		t.Fatalf("column %q is a %s, given as a %s", c.Name, c.Kind, d.Kind)
	}
	v := index.Value{Kind: c.Kind}
	switch {
	case c.Kind.Numeric():
		if len(d.Numbers) != snap.Len() {
			t.Fatalf("column %q: %d numbers for %d rows", c.Name, len(d.Numbers), snap.Len())
		}
		if v.Num = d.Numbers[row]; v.Num == v.Num {
			return v
		}
	case c.Kind == index.Category:
		if len(d.Codes) != snap.Len() {
			t.Fatalf("column %q: %d codes for %d rows", c.Name, len(d.Codes), snap.Len())
		}
		if code := d.Codes[row]; code >= 0 {
			v.Str = d.Dict[code]
			return v
		}
	default:
		if len(d.Offsets) != snap.Len()+1 || int(d.Offsets[snap.Len()]) != len(d.Codes) {
			t.Fatalf("column %q: %d offsets for %d rows", c.Name, len(d.Offsets), snap.Len())
		}
		codes := d.Codes[d.Offsets[row]:d.Offsets[row+1]]
		if !slices.IsSorted(codes) {
			t.Fatalf("column %q row %d: codes %v do not ascend", c.Name, row, codes)
		}
		for _, code := range codes {
			v.Set = append(v.Set, d.Dict[code])
		}
		slices.Sort(v.Set)
		if len(v.Set) > 0 {
			return v
		}
	}
	return index.Value{}
}

// testProgress: progress ascends to the end, one call at a time; a scan whose
// context ends stops before the end.
func testProgress(t *testing.T, cfg Config) {
	const rows = 40_000
	ctx := context.Background()
	s := cfg.Open(t)
	e := must[index.Engine](t)(s.Create(ctx, index.Spec{Name: "p", Dim: 2}))
	batch := make([]index.Row, rows)
	for i := range batch {
		batch[i] = index.Row{ID: fmt.Sprintf("c%05d", i), Vector: []float32{1, float32(i)}}
	}
	check(t, e.Upsert(ctx, batch))
	snap := must[index.Snapshot](t)(e.Snapshot(ctx))
	var inside atomic.Int32
	last, calls := 0, 0
	req := index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: []float32{1, 0}}}}}}
	req.Progress = func(done, total int) {
		if inside.Add(1) != 1 {
			t.Error("progress is called by two at once")
		}
		if done <= last || done > total || total != snap.Len() {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		calls++
		inside.Add(-1)
	}
	must[[][]float32](t)(snap.Scan(ctx, req))
	if last != snap.Len() || calls < 2 {
		t.Errorf("progress ended at %d of %d after %d calls", last, snap.Len(), calls)
	}
	stop, cancel := context.WithCancel(ctx)
	req.Progress = func(done, _ int) {
		cancel()
		last = done
	}
	scores, err := snap.Scan(stop, req)
	if !errors.Is(err, context.Canceled) || scores != nil {
		t.Errorf("a scan cancelled half-way: %d results, %v", len(scores), err)
	}
	if last > snap.Len()/2 {
		t.Errorf("a scan cancelled at its first progress went on to %d of %d rows", last, snap.Len())
	}
	req.Progress = func(int, int) { t.Error("a scan that was cancelled before it began makes progress") }
	if _, err := snap.Scan(stop, req); !errors.Is(err, context.Canceled) {
		t.Errorf("a scan cancelled before: %v", err)
	}
	if err := e.Upsert(stop, batch[:1]); !errors.Is(err, context.Canceled) {
		t.Errorf("an upsert cancelled before: %v", err)
	}
	check(t, snap.Close())
	check(t, s.Close())
}
