package audience

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/index"
)

// Outlier is a seed that is unlike the other seeds.
type Outlier struct {
	ID         string  `json:"id"`
	Similarity float64 `json:"similarity"` // cosine to the nearest centre of the seeds
	Deviations float64 `json:"deviations"` // how far below the median, in robust standard deviations
}

// Interest is a cluster of seeds. There is one when the seeds do not fall apart.
type Interest struct {
	Seeds           int      `json:"seeds"`            // of those compared
	SeedShare       float64  `json:"seed_share"`       // of them
	PopulationShare float64  `json:"population_share"` // of everyone, who are nearest to this cluster
	AudienceShare   float64  `json:"audience_share"`   // of the members likewise; 0 before a list is built
	Coherence       float64  `json:"coherence"`        // mean cosine of its seeds to its centre
	Seed            []string `json:"typical_seeds"`    // nearest to the centre, nearest first
	Member          []string `json:"typical_members,omitempty"`
}

// SeedCheck is what can be said of seeds before an audience is built from them.
type SeedCheck struct {
	Doctor    Doctor     `json:"doctor"`
	Hash      string     `json:"seeds_hash,omitempty"`
	Negatives int        `json:"negatives"`
	Customers int        `json:"customers"` // live and within the filter
	Eligible  int        `json:"eligible"`  // could be members
	Interests []Interest `json:"interests"`
	Learning  *Learning  `json:"learning,omitempty"` // absent of fewer than 40 seeds
}

// Refuse is the doctor's verdict when an audience cannot be built from the seeds.
// The others are "go" and "warn".
const Refuse = "refuse"

const (
	// outlierBeyond is the modified z-score from which on a seed is an outlier
	// (Iglewicz and Hoaglin, 1993).
	outlierBeyond = 3.5
	maxOutliers   = 10   // named
	mostLikened   = 1000 // seeds that clusters are found among
	randomSets    = 20
	typical       = 3
)

// Check looks at the seeds of a request without building anything: what Build would
// refuse is the verdict Refuse, with the reason among the notes. The request's size
// and method are passed over. Errors are for requests that cannot be read and for
// stored audiences that are not there.
func Check(ctx context.Context, pop Population, req Request, progress func(stage string, done, total int)) (*SeedCheck, error) {
	one := 1
	req.Size, req.Method = Size{Count: &one}, Auto
	if progress == nil {
		progress = func(string, int, int) {}
	}
	if err := req.Validate(); err != nil {
		return nil, err
	}
	if req.Holdout.Folds == 0 {
		req.Holdout.Folds = 5
	}
	progress("resolving", 0, 1)
	r, err := resolve(ctx, pop, &req)
	out := &SeedCheck{Doctor: r.doctor, Interests: []Interest{}}
	refuse := func(err error) (*SeedCheck, error) {
		if !errors.Is(err, index.ErrInvalid) {
			return nil, err
		}
		out.Doctor.Verdict = Refuse
		out.Doctor.note("%s", strings.TrimSuffix(err.Error(), ": "+index.ErrInvalid.Error()))
		return out, nil
	}
	if err != nil {
		return refuse(err)
	}
	out.Hash, out.Negatives = r.hash, len(r.negatives)
	out.Customers, out.Eligible = int(r.everyone.GetCardinality()), int(r.eligible.GetCardinality())
	if len(r.seeds) == 0 {
		out.Doctor.note("a description alone: there are no customers to look at")
		return out, nil
	}
	f, err := prepare(pop, &req, r)
	if err != nil {
		return refuse(err)
	}
	b := &build{pop: pop, req: &req, r: r, f: f, progress: progress, res: &Result{Doctor: r.doctor}}
	m, err := b.material(r.seeds, r.negatives)
	if err != nil {
		return refuse(err)
	}
	b.examine(m)
	b.m = m
	if out.Interests, err = b.interests(nil); err != nil {
		return nil, err
	}
	if out.Learning, err = learn(ctx, m, req.Holdout.Folds, func(done, total int) { progress("comparing", done, total) }); err != nil {
		return nil, err
	}
	if l := out.Learning; l != nil {
		if last := l.Points[len(l.Points)-1].AUC; last.Low <= 0.5 {
			b.res.Doctor.warn("held-out seeds rank no better than random customers would (AUC %.3f, 95 %% from %.3f to %.3f): a list from them would be close to a random one", last.Value, last.Low, last.High)
		}
	}
	out.Doctor = b.res.Doctor
	return out, nil
}

// examine compares the seeds with each other and with random sets of customers.
func (b *build) examine(m *material) {
	d, l := &b.res.Doctor, newLikeness(b.f)
	b.like = l
	first := m.seeds + m.negatives
	seeds, at := l.units(m, span(0, m.seeds))
	if b.f.dim > 0 {
		d.Cold = m.seeds - len(seeds)
		if d.Cold*5 >= m.seeds {
			d.warn("%d of %d seeds have no text: only their columns speak", d.Cold, m.seeds)
		}
	}
	others := len(m.rows) - first
	n := min(len(seeds), mostLikened, max(others/4, 2))
	if n < 2 {
		return
	}
	d.Coherence = concentration(seeds[:n])
	var sets []float64
	for set := range uint64(randomSets) {
		rng := rand.New(rand.NewPCG(b.req.Seed+3, set))
		which := rng.Perm(others)
		if units, _ := l.units(m, shifted(which[:n], first)); len(units) > 0 {
			sets = append(sets, concentration(units))
		}
	}
	if len(sets) > 0 {
		mean, _ := moments(sets)
		d.Background, d.BackgroundLow, d.BackgroundHigh = mean, slices.Min(sets), slices.Max(sets)
		if d.Coherence <= d.BackgroundHigh {
			d.note("by their %s the seeds are no more alike than random customers are (%.3f; %d random sets: %.3f to %.3f)", l.by(), d.Coherence, len(sets), d.BackgroundLow, d.BackgroundHigh)
		}
	}
	random, _ := l.units(m, span(first, min(len(m.rows), first+randomCustomers*mostToSplit)))
	b.centers = l.centers(seeds[:min(len(seeds), mostLikened)], random, b.req.Seed+4)
	b.outliers(m, seeds, at)
}

func shifted(list []int, by int) []int {
	out := make([]int, len(list))
	for i, x := range list {
		out[i] = x + by
	}
	return out
}

// outliers are seeds whose cosine to the nearest centre lies far below the median of
// the seeds', measured by the median absolute deviation, which outliers do not move.
func (b *build) outliers(m *material, seeds [][]float32, at []int) {
	d := &b.res.Doctor
	cos := make([]float64, len(seeds))
	for i, u := range seeds {
		_, cos[i] = closest(u, b.centers)
	}
	mid := median(slices.Clone(cos))
	off := make([]float64, len(cos))
	mean := 0.0
	for i, c := range cos {
		off[i] = math.Abs(c - mid)
		mean += off[i] / float64(len(cos))
	}
	sd := 1.4826 * median(off)
	if sd < 1e-9 { // more than half are the same
		sd = 1.2533 * mean
	}
	if sd < 1e-9 {
		return
	}
	var out []Outlier
	for i, c := range cos {
		if z := (mid - c) / sd; z > outlierBeyond {
			out = append(out, Outlier{ID: b.pop.Snap.ID(m.rows[at[i]]), Similarity: c, Deviations: z})
		}
	}
	slices.SortFunc(out, func(x, y Outlier) int {
		return cmp.Or(cmp.Compare(y.Deviations, x.Deviations), cmp.Compare(x.ID, y.ID))
	})
	d.OutlierCount = len(out)
	d.Outliers = out[:min(len(out), maxOutliers)]
	switch { // ids are not for notes: an erased customer's would stay there
	case len(out) == 0:
	case len(out)*20 >= len(seeds):
		d.warn("%d of %d seeds are unlike the others (%.1f deviations and more, by their %s): look at them", len(out), len(seeds), outlierBeyond, b.like.by())
	default:
		d.note("%d of %d seeds are unlike the others (up to %.1f deviations, by their %s)", len(out), len(seeds), out[0].Deviations, b.like.by())
	}
}

// mostMembers bounds the members whose interest is looked for: beyond, every so many
// of the list stand for all.
const mostMembers = 20_000

// interests are the seeds' clusters, largest first; members are rows of the list.
func (b *build) interests(members []uint32) ([]Interest, error) {
	out := []Interest{}
	if b.centers == nil {
		return out, nil
	}
	type near struct {
		id  string
		cos float64
	}
	k := len(b.centers)
	nearest := func(count int, unit func(i int) (uint32, []float32)) (share []float64, coherence []float64, top [][]near, n int) {
		share, coherence, top = make([]float64, k), make([]float64, k), make([][]near, k)
		for i := range count {
			row, u := unit(i)
			if u == nil {
				continue
			}
			n++
			c, cos := closest(u, b.centers)
			share[c]++
			coherence[c] += cos
			if len(top[c]) < typical || cos >= top[c][typical-1].cos {
				top[c] = append(top[c], near{b.pop.Snap.ID(row), cos})
				slices.SortFunc(top[c], func(x, y near) int { return cmp.Or(cmp.Compare(y.cos, x.cos), cmp.Compare(x.id, y.id)) })
				top[c] = top[c][:min(len(top[c]), typical)]
			}
		}
		return share, coherence, top, n
	}
	ids := func(list []near) (out []string) {
		for _, x := range list {
			out = append(out, x.id)
		}
		return out
	}
	of := func(from int) func(int) (uint32, []float32) {
		return func(i int) (uint32, []float32) {
			return b.m.rows[from+i], b.like.unit(b.m.rows[from+i], b.m.vec(from+i))
		}
	}
	seeds, coherence, typicalSeeds, n := nearest(min(b.m.seeds, mostLikened), of(0))
	first := b.m.seeds + b.m.negatives
	everyone, _, _, others := nearest(min(len(b.m.rows)-first, mostLikened*5), of(first))
	step := max(1, (len(members)+mostMembers-1)/mostMembers)
	var some []uint32
	for i := 0; i < len(members); i += step {
		some = append(some, members[i])
	}
	var x []float32
	var err error
	const block = 2048
	listed, _, typicalMembers, listedN := nearest(len(some), func(i int) (uint32, []float32) {
		if b.f.dim == 0 {
			return some[i], b.like.unit(some[i], nil)
		}
		if i%block == 0 && err == nil {
			x, err = b.f.vectors(some[i:min(i+block, len(some))])
		}
		if err != nil {
			return some[i], nil
		}
		at := i % block * b.f.dim
		return some[i], b.like.unit(some[i], x[at:at+b.f.dim])
	})
	if err != nil {
		return nil, err
	}
	for c := range k {
		if seeds[c] == 0 {
			continue
		}
		out = append(out, Interest{
			Seeds: int(seeds[c]), SeedShare: seeds[c] / float64(n), PopulationShare: everyone[c] / float64(max(others, 1)),
			AudienceShare: listed[c] / float64(max(listedN, 1)), Coherence: coherence[c] / seeds[c],
			Seed: ids(typicalSeeds[c]), Member: ids(typicalMembers[c]),
		})
	}
	slices.SortStableFunc(out, func(x, y Interest) int { return cmp.Compare(y.Seeds, x.Seeds) })
	return out, nil
}
