package audience

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"golang.org/x/sync/errgroup"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// Selection asks for the members of one audience by a model that exists.
type Selection struct {
	Model *Model
	Size  int
	// Allowed are who may be a member; nil: everyone.
	Allowed *roaring.Bitmap
}

// SelectMany chooses the members of many audiences in one pass over everyone: for each
// the Size best of Allowed by its model, by score descending, then id. The lists are
// those that passes of their own would give. It is what a refresh of stored audiences
// takes, and far cheaper for all together than one by one.
func SelectMany(ctx context.Context, snap index.Snapshot, list []Selection, progress func(done, total int)) ([]index.Ranked, error) {
	req := index.BestRequest{ScanRequest: index.ScanRequest{Progress: progress}}
	known := map[string]int{}
	sets := make([]index.HeadSet, len(list))
	at := make([][]int, len(list)) // of each model's bins among the request's
	for i, s := range list {
		if s.Model == nil {
			return nil, fmt.Errorf("selection %d has no model: %w", i, index.ErrInvalid)
		}
		for k := range s.Model.Bins {
			b := &s.Model.Bins[k]
			key := binsKey(b)
			n, ok := known[key]
			if !ok {
				n = len(req.Bins)
				known[key] = n
				req.Bins = append(req.Bins, *b)
			}
			at[i] = append(at[i], n)
		}
		req.Size = append(req.Size, s.Size)
		req.Allowed = append(req.Allowed, s.Allowed)
	}
	for i, s := range list {
		sets[i] = s.Model.Set
		sets[i].Heads = slices.Clone(s.Model.Set.Heads)
		for h := range sets[i].Heads {
			if err := rebin(&sets[i].Heads[h], at[i], len(req.Bins)); err != nil {
				return nil, fmt.Errorf("selection %d: head %d: %w", i, h, err)
			}
		}
		if c := s.Model.Set.Common; c != nil {
			common := *c
			if err := rebin(&common, at[i], len(req.Bins)); err != nil {
				return nil, fmt.Errorf("selection %d: common head: %w", i, err)
			}
			sets[i].Common = &common
		}
	}
	req.Sets = sets
	return snap.Best(ctx, req)
}

// binsKey is the same for bins that cut a column alike.
func binsKey(b *index.Bins) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%q %q", b.Column, b.Kind)
	for _, e := range b.Edges {
		fmt.Fprintf(&s, " %x", math.Float64bits(e))
	}
	for _, v := range b.Values {
		fmt.Fprintf(&s, " %q", v)
	}
	return s.String()
}

// rebin has a head refer to n bins, among which its own are at the given places. What it
// refers to is copied, not changed.
func rebin(h *index.Head, at []int, n int) error {
	if h.Tables != nil {
		if len(h.Tables) != len(at) {
			return fmt.Errorf("%d tables for %d bins: %w", len(h.Tables), len(at), index.ErrInvalid)
		}
		tables := make([][]float32, n)
		for k, t := range h.Tables {
			tables[at[k]] = t
		}
		h.Tables = tables
	}
	h.Trees = slices.Clone(h.Trees)
	for i := range h.Trees {
		t := &h.Trees[i]
		t.Splits = slices.Clone(t.Splits)
		for j, s := range t.Splits {
			if s.Bins < 0 || s.Bins >= len(at) {
				return fmt.Errorf("tree %d: split %d: bins %d of %d: %w", i, j, s.Bins, len(at), index.ErrInvalid)
			}
			t.Splits[j].Bins = at[s.Bins]
		}
	}
	return nil
}

// Draft is a list without a quality sheet: the plain centroid of its seeds, which Build
// gives as a baseline beside what it chose.
type Draft struct {
	Model     Model
	Members   []Member // without probabilities and reasons
	Threshold float32  // the last member's score
	Given     int
	Matched   int
}

// draftSeeds is how many seeds a draft is made of at most; the others stay off its list.
const draftSeeds = mostSeeds

// Drafts makes many audiences of count members from lists of seeds, in one pass over
// everyone: a first look at many ideas. What it leaves out, against Build, is the choice
// of a method, its judgement and the reasons. Seeds of a list are not on it. The columns
// are cut and the background drawn once for all.
func Drafts(ctx context.Context, pop Population, lists [][]SeedRef, count int) ([]Draft, error) {
	if count < 1 {
		return nil, fmt.Errorf("count %d: want 1 or more: %w", count, index.ErrInvalid)
	}
	everyone := &resolved{everyone: pop.Snap.Live(), doctor: Doctor{Notes: []string{}}}
	if everyone.everyone.IsEmpty() {
		return nil, fmt.Errorf("there are no customers to choose from: %w", index.ErrInvalid)
	}
	f, err := prepare(pop, &Request{}, everyone)
	if err != nil {
		return nil, err
	}
	background := draw(pop.Snap, everyone.everyone, leastBackground, 1)
	x, err := f.vectors(background)
	if err != nil {
		return nil, err
	}
	out, selections := make([]Draft, len(lists)), make([]Selection, len(lists))
	group, ctx2 := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, list := range lists {
		group.Go(func() error {
			if err := ctx2.Err(); err != nil {
				return err
			}
			var r resolved
			if err := r.resolveSeeds(ctx2, pop, &Request{Seeds: Seeds{IDs: list}}); err != nil {
				return fmt.Errorf("list %d: %w", i, err)
			}
			seeds := r.seeds[:min(len(r.seeds), draftSeeds)]
			m := &material{f: f, seeds: len(seeds)}
			for _, s := range seeds {
				m.rows, m.weight = append(m.rows, s.row), append(m.weight, s.weight)
			}
			own, err := f.vectors(m.rows)
			if err != nil {
				return err
			}
			m.rows, m.x = append(m.rows, background...), append(own, x...)
			for range background {
				m.weight = append(m.weight, 1)
			}
			allowed := everyone.everyone.Clone()
			for _, s := range r.seeds {
				allowed.Remove(s.row)
			}
			d := &out[i]
			d.Given, d.Matched = r.doctor.Given, r.doctor.Matched
			d.Model = Model{Bins: f.bins, Set: plainCentroid(m), Center: f.center}
			for h := range d.Model.Set.Heads {
				if v := d.Model.Set.Heads[h].Vector; v != nil {
					d.Model.Set.Heads[h].Vector = rows.AsScanned(v, pop.Spec.Precision)
				}
			}
			selections[i] = Selection{Model: &d.Model, Size: count, Allowed: allowed}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	ranked, err := SelectMany(ctx, pop.Snap, selections, nil)
	if err != nil {
		return nil, err
	}
	for i, r := range ranked {
		d := &out[i]
		d.Members = make([]Member, len(r.Rows))
		for k, row := range r.Rows {
			d.Members[k] = Member{ID: pop.Snap.ID(row), Score: r.Scores[k], Rank: k + 1}
		}
		if len(r.Scores) > 0 {
			d.Threshold = r.Scores[len(r.Scores)-1]
		}
	}
	return out, nil
}

// plainCentroid is the seeds' mean and their columns' weights of evidence, each with
// deviation 1 over the background, added up equally: what comparison.plain weighs.
func plainCentroid(m *material) index.HeadSet {
	var heads []index.Head
	all := subset{pos: span(0, m.seeds)}
	if m.f.dim > 0 {
		heads = append(heads, index.Head{Vector: fitCentroid(m, all, 0)})
	}
	if len(m.f.bins) > 0 {
		heads = append(heads, index.Head{Tables: fitEvidence(m, all)})
	}
	sum := newSum(m.f)
	for h := range heads {
		raw := make([]float64, 0, len(m.rows)-m.seeds)
		for i := m.seeds; i < len(m.rows); i++ {
			raw = append(raw, m.f.score(&heads[h], m.vec(i), m.rows[i]))
		}
		_, sd := moments(raw)
		if sd == 0 {
			sd = 1
		}
		sum.add(&heads[h], 1/(sd*float64(len(heads))))
	}
	return index.HeadSet{Heads: []index.Head{sum.head()}}
}
