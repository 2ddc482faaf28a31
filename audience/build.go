package audience

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/index/selection"
)

// Background is how many customers stand for everyone in training: enough that
// they are not the noise, few enough to fit in seconds.
const (
	leastBackground = 5_000
	mostBackground  = 20_000
)

// mostSeeds is how many seeds are learned from and held out: beyond, another seed
// tells nothing new. Of a longer list the first by the hash of their id stand for all;
// all of it stays off the list, and out of everyone whom held-out seeds are ranked among.
const mostSeeds = 20_000

// Build makes an audience. progress may be nil; its stages are "resolving",
// "comparing", "measuring", "scoring" and "explaining".
func Build(ctx context.Context, pop Population, req Request, progress func(stage string, done, total int)) (*Result, error) {
	if progress == nil {
		progress = func(string, int, int) {}
	}
	if err := req.Validate(); err != nil {
		return nil, err
	}
	if req.Method == "" {
		req.Method = Auto
	}
	if req.Holdout.Folds == 0 {
		req.Holdout.Folds = 5
	}
	progress("resolving", 0, 1)
	r, err := resolve(ctx, pop, &req)
	if err != nil {
		return nil, err
	}
	eligible := int(r.eligible.GetCardinality())
	if req.Size.Count != nil && *req.Size.Count > eligible {
		return nil, fmt.Errorf("size.count %d: only %d customers can be members (of %d, less seeds, exclusions and whom the filter leaves out): %w",
			*req.Size.Count, eligible, pop.Snap.Live().GetCardinality(), index.ErrInvalid)
	}
	f, err := prepare(pop, &req, r)
	if err != nil {
		return nil, err
	}
	if r.text != nil && f.dim == 0 {
		return nil, fmt.Errorf("seeds.text: the customers have no text to compare it with, or features leaves it out: %w", index.ErrInvalid)
	}
	b := &build{pop: pop, req: &req, r: r, f: f, progress: progress}
	res, err := b.run(ctx)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// build is one run of Build.
type build struct {
	pop      Population
	req      *Request
	r        *resolved
	f        *features
	progress func(stage string, done, total int)
	res      *Result
	held     *heldScores // nil: nothing was held out
	m        *material
	like     *likeness
	centers  [][]float32 // of the seeds' interests; nil: not looked for
}

func (b *build) run(ctx context.Context) (*Result, error) {
	b.res = &Result{
		Doctor: b.r.doctor, Warnings: []string{}, Interests: []Interest{}, Candidates: []Candidate{},
		Manifest: Manifest{
			Name: b.req.Name, Asked: b.req.Method, Stamp: b.pop.Spec.Stamp, Version: b.pop.Snap.Version(),
			SeedsHash: b.r.hash, Customers: int(b.pop.Snap.Live().GetCardinality()), Eligible: int(b.r.eligible.GetCardinality()),
			Seeds: len(b.r.seeds), Negatives: len(b.r.negatives), Columns: []string{}, Left: b.f.left,
			Folds: b.req.Holdout.Folds, Seed: b.req.Seed, Text: b.f.dim > 0,
		},
	}
	for _, bins := range b.f.bins {
		b.res.Manifest.Columns = append(b.res.Manifest.Columns, bins.Column)
	}
	b.res.Warnings = append(b.res.Warnings, b.f.missed(b.req.Features.Columns)...)
	if len(b.r.seeds) == 0 {
		return b.byText(ctx)
	}
	m, err := b.material(b.r.seeds, b.r.negatives)
	if err != nil {
		return nil, err
	}
	if m.seeds < len(b.r.seeds) {
		b.res.Doctor.note("%d of %d seeds, drawn at random, are learned from and judged by; none of the others is on the list", m.seeds, len(b.r.seeds))
	}
	b.m = m
	b.examine(m)
	c, err := compare(ctx, m, b.req.Method, b.r.text, b.req.Holdout.Folds, func(done, total int) { b.progress("comparing", done, total) })
	if err != nil {
		return nil, err
	}
	b.res.Candidates = c.candidates()
	b.res.Manifest.Method = c.words()
	b.res.Model = b.model(c.set(c.folds, c.weights))
	scores, err := b.scan(ctx)
	if err != nil {
		return nil, err
	}
	background := span(m.seeds+m.negatives, len(m.rows))
	prevalence, err := b.prevalence()
	if err != nil {
		return nil, err
	}
	b.held = c.heldScores(scores, background, prevalence)
	b.res.Quality.Platt = b.held.calibrate()
	b.res.Quality.Platt.Observed = b.pop.Observed
	rows, err := b.members(ctx, scores)
	if err != nil {
		return nil, err
	}
	null, err := b.null(ctx, len(b.r.seeds))
	if err != nil {
		return nil, err
	}
	b.progress("measuring", 1, 2)
	platt := b.res.Quality.Platt
	asked := float64(max(len(rows), 1)) / float64(max(b.res.Manifest.Eligible, 1))
	if b.res.Quality, err = judge(ctx, b.pop, b.req, b.r, c, null, math.Min(asked, 1)); err != nil {
		return nil, err
	}
	b.res.Quality.Platt, b.res.Quality.Reliability = platt, b.held.reliability()
	if b.res.Quality.Verdict == NoSignal {
		b.res.Warnings = append(b.res.Warnings, b.res.Quality.Words)
	}
	return b.finish(ctx, scores, rows)
}

// members are the rows of the list, found here or, where the customers are kept outside,
// there.
func (b *build) members(ctx context.Context, scores []float32) ([]uint32, error) {
	rows, err := b.choose(scores)
	if err != nil {
		return nil, err
	}
	return b.outside(ctx, scores, rows)
}

// prevalence is the asked one without the seeds, who are all of the kind; 0: not
// asked.
func (b *build) prevalence() (float64, error) {
	if b.req.Prevalence == nil {
		return 0, nil
	}
	everyone, seeds := b.r.everyone.Clone(), 0
	for _, s := range b.r.seeds {
		if everyone.CheckedRemove(s.row) {
			seeds++
		}
	}
	n := float64(everyone.GetCardinality())
	rest := (*b.req.Prevalence*(n+float64(seeds)) - float64(seeds)) / n
	if !(rest > 0) {
		return 0, fmt.Errorf("prevalence %g: of %d customers that is no more than the %d seeds, so nobody would be left to find: %w", *b.req.Prevalence, int(n)+seeds, seeds, index.ErrInvalid)
	}
	return rest, nil
}

// model keeps the heads as a scan of this collection sees them.
func (b *build) model(set index.HeadSet) Model {
	for i := range set.Heads {
		if v := set.Heads[i].Vector; v != nil {
			set.Heads[i].Vector = rows.AsScanned(v, b.pop.Spec.Precision)
		}
	}
	if set.Common != nil && set.Common.Vector != nil {
		set.Common.Vector = rows.AsScanned(set.Common.Vector, b.pop.Spec.Precision)
	}
	return Model{Bins: b.f.bins, Set: set, Center: b.f.center}
}

// byText is an audience from a description alone: the text is the head, and
// there is nothing to hold out.
func (b *build) byText(ctx context.Context) (*Result, error) {
	b.res.Manifest.Method = "text"
	b.res.Manifest.Columns = []string{}
	b.res.Model = b.model(index.HeadSet{Heads: []index.Head{{Vector: b.r.text}}})
	b.res.Model.Bins = []index.Bins{}
	scores, err := b.scan(ctx)
	if err != nil {
		return nil, err
	}
	if b.req.Size.MinPrecision != nil {
		return nil, fmt.Errorf("size.min_precision needs seeds to learn from: give a count, a ratio or a threshold: %w", index.ErrInvalid)
	}
	b.res.Quality = Quality{Verdict: NotMeasured, Words: "Not measured: an audience from a description has no seeds to hold out.", Baselines: []Measure{}, Platt: Calibration{Observed: b.pop.Observed}}
	rows, err := b.members(ctx, scores)
	if err != nil {
		return nil, err
	}
	return b.finish(ctx, scores, rows)
}

// material reads the rows of training. Seeds are dealt out to folds by the hash
// of their id, so that a list sorted by value does not make uneven folds.
func (b *build) material(seeds, negatives []weightedRow) (*material, error) {
	m := &material{f: b.f, negatives: len(negatives)}
	pool := b.r.everyone.Clone()
	shuffled := slices.Clone(seeds)
	key := func(w weightedRow) uint64 { return hashID(b.pop.Snap.ID(w.row), b.req.Seed+17) }
	slices.SortFunc(shuffled, func(x, y weightedRow) int { return cmp.Compare(key(x), key(y)) })
	for _, s := range slices.Concat(seeds, negatives) {
		pool.Remove(s.row)
	}
	shuffled = shuffled[:min(len(shuffled), mostSeeds)]
	m.seeds = len(shuffled)
	for _, list := range [][]weightedRow{shuffled, negatives} {
		for _, s := range list {
			m.rows = append(m.rows, s.row)
			m.weight = append(m.weight, s.weight)
		}
	}
	want := min(max(10*m.seeds, leastBackground), mostBackground)
	back := draw(b.pop.Snap, pool, want, b.req.Seed+1)
	if len(back) < 10 {
		return nil, fmt.Errorf("only %d customers are neither seeds nor filtered out: too few to tell the seeds from: %w", len(back), index.ErrInvalid)
	}
	for _, row := range back {
		m.rows = append(m.rows, row)
		m.weight = append(m.weight, 1)
	}
	m.gather()
	var err error
	m.x, err = b.f.vectors(m.rows)
	return m, err
}

// null runs the same pipeline on as many random customers.
func (b *build) null(ctx context.Context, n int) (*comparison, error) {
	pool := b.r.everyone.Clone()
	rows := draw(b.pop.Snap, pool, min(n, mostSeeds), b.req.Seed+2)
	random := make([]weightedRow, len(rows))
	for i, row := range rows {
		random[i] = weightedRow{row, 1}
	}
	random = byID(b.pop.Snap, random)
	m, err := b.material(random, nil)
	if err != nil {
		return nil, err
	}
	return compare(ctx, m, b.req.Method, nil, b.req.Holdout.Folds, func(done, total int) { b.progress("measuring", done, 2*total) })
}

func (b *build) scan(ctx context.Context) ([]float32, error) {
	everyone := b.r.everyone.Clone()
	for _, s := range b.r.seeds {
		everyone.Add(s.row) // for the histogram of seeds, and for calibration
	}
	scores, err := b.pop.Snap.Scan(ctx, index.ScanRequest{
		Bins: b.res.Model.Bins, Sets: []index.HeadSet{b.res.Model.Set}, Mask: everyone,
		Progress: func(done, total int) { b.progress("scoring", done, total) },
	})
	if err != nil {
		return nil, err
	}
	return scores[0], nil
}

// choose resolves the size and selects, best first.
func (b *build) choose(scores []float32) ([]uint32, error) {
	allowed := b.allowed(scores)
	n := int(b.r.eligible.GetCardinality())
	k := 0
	switch size := b.req.Size; {
	case size.Count != nil:
		k = *size.Count
	case size.Ratio != nil:
		k = max(1, int(math.Round(*size.Ratio*float64(n))))
	case size.Threshold != nil:
		k = selection.CountAbove(allowed, float32(*size.Threshold))
	case size.MinPrecision != nil:
		var err error
		if k, err = b.byPrecision(allowed, *size.MinPrecision); err != nil {
			return nil, err
		}
	}
	return selection.Select(allowed, min(k, n), selection.Options{Tie: func(x, y uint32) int {
		return cmp.Compare(b.pop.Snap.ID(x), b.pop.Snap.ID(y))
	}}), nil
}

// allowed masks who cannot be a member.
func (b *build) allowed(scores []float32) []float32 {
	out := slices.Repeat([]float32{float32(math.Inf(-1))}, len(scores))
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		row := it.Next()
		out[row] = scores[row]
	}
	return out
}

// finish writes members, reasons, curve, histograms and what the list means for
// groups.
func (b *build) finish(ctx context.Context, scores []float32, rows []uint32) (*Result, error) {
	res := b.res
	var cost *Cost
	var err error
	if b.req.Fairness != nil {
		if rows, cost, err = b.even(scores, rows); err != nil {
			return nil, err
		}
	}
	if len(rows) > 0 {
		res.Threshold = scores[rows[len(rows)-1]]
	}
	if rows, err = b.retain(scores, rows); err != nil {
		return nil, err
	}
	if n := len(rows); n > 0 && scores[rows[n-1]] < res.Threshold {
		floor := scores[rows[n-1]]
		res.Floor = &floor
	}
	if res.Fairness, err = b.disparities(rows); err != nil {
		return nil, err
	}
	for i := range res.Fairness {
		if cost != nil && res.Fairness[i].Column == b.req.Fairness.Column {
			res.Fairness[i].Cost = cost
		}
		for _, g := range res.Fairness[i].Groups {
			if g.FourFifths {
				res.Warnings = append(res.Warnings, fmt.Sprintf("%s %q is selected at %.2f of the highest group's rate (95 %% up to %.2f), below four fifths", res.Fairness[i].Column, g.Label, g.Ratio.Value, g.Ratio.High))
			}
		}
	}
	res.Manifest.Size = len(rows)
	if len(rows) == 0 {
		res.Warnings = append(res.Warnings, "the list is empty: nobody reaches the asked threshold or precision")
	}
	least := b.pop.Limits.MinAudience
	if least <= 0 {
		least = 100
	}
	if len(rows) > 0 && len(rows) < least {
		res.Warnings = append(res.Warnings, fmt.Sprintf("the list has %d members, fewer than the minimum audience of %d", len(rows), least))
	}
	explain := b.req.Explain.Members == nil || *b.req.Explain.Members
	explainer := newExplainer(b.f, b.f.bins, res.Model.Set)
	res.Members = make([]Member, len(rows))
	const block = 4096
	for from := 0; from < len(rows); from += block {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.progress("explaining", from, len(rows))
		part := rows[from:min(from+block, len(rows))]
		var x []float32
		if explain {
			var err error
			if x, err = b.f.vectors(part); err != nil {
				return nil, err
			}
		}
		for i, row := range part {
			m := Member{ID: b.pop.Snap.ID(row), Score: scores[row], Rank: from + i + 1}
			m.Probability = float32(res.Quality.Platt.Probability(m.Score))
			if explain {
				var v []float32
				if b.f.dim > 0 {
					v = x[i*b.f.dim : (i+1)*b.f.dim]
				}
				m.Parts = explainer.reasonsFor(row, v)
			}
			res.Members[from+i] = m
		}
	}
	if err := b.holdBack(rows); err != nil {
		return nil, err
	}
	res.Reasons = b.f.reasons(rows, b.r.everyone)
	if res.Interests, err = b.interests(rows); err != nil {
		return nil, err
	}
	if err := b.phrases(ctx, rows); err != nil {
		return nil, err
	}
	if err := b.draw(rows); err != nil {
		return nil, err
	}
	b.curve(scores)
	b.histograms(scores, rows)
	b.progress("explaining", len(rows), len(rows))
	return res, nil
}

// curve is size against score, expected precision with its band and recall.
func (b *build) curve(scores []float32) {
	r := newReach(b.allowed(scores), b.res.Quality.Platt)
	b.res.Curve = []Point{}
	for _, size := range curveSizes(len(r.sorted)) {
		b.res.Curve = append(b.res.Curve, r.at(size))
	}
	switch {
	case b.pop.Observed != nil:
		withoutBand(b.res.Curve)
	case b.held != nil:
		r.band(b.res.Curve, b.held.refits(refitted, b.req.Seed), b.res.Quality.HeldOut)
	}
}

// histograms counts scores over forty equal steps.
func (b *build) histograms(scores []float32, members []uint32) {
	const steps = 40
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, s := range scores {
		if !math.IsInf(float64(s), 0) {
			lo, hi = math.Min(lo, float64(s)), math.Max(hi, float64(s))
		}
	}
	h := Histograms{Low: lo, High: hi, Seeds: make([]int, steps), Population: make([]int, steps), Audience: make([]int, steps)}
	if !(hi > lo) {
		hi = lo + 1
		h.High = hi
	}
	step := func(row uint32) int {
		return min(steps-1, int((float64(scores[row])-lo)/(hi-lo)*steps))
	}
	for it := b.r.everyone.Iterator(); it.HasNext(); {
		h.Population[step(it.Next())]++
	}
	for _, s := range b.r.seeds {
		h.Seeds[step(s.row)]++
	}
	for _, row := range members {
		h.Audience[step(row)]++
	}
	b.res.Histograms = h
}
