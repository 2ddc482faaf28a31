package audience

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// weightedRow is a customer of the snapshot with a weight.
type weightedRow struct {
	row    uint32
	weight float64
}

// resolved is a request on a snapshot.
type resolved struct {
	seeds     []weightedRow // in order of id
	negatives []weightedRow
	text      []float32       // of Seeds.Text, unit length; nil without
	everyone  *roaring.Bitmap // live and within the filter
	eligible  *roaring.Bitmap // may be a member
	hash      string
	doctor    Doctor
}

// resolve finds the request's customers. With an error, the doctor has what was seen
// until then.
func resolve(ctx context.Context, pop Population, req *Request) (*resolved, error) {
	r := &resolved{doctor: Doctor{Verdict: "go", Notes: []string{}}}
	var err error
	if r.everyone, err = pop.Snap.Match(req.Filter); err != nil {
		return r, fmt.Errorf("filter: %w", err)
	}
	err = req.Within.Each(func(group Seeds) error {
		if pop.Grouped == nil {
			return fmt.Errorf("within: no segments and tags here: they are of a stored collection: %w", index.ErrInvalid)
		}
		rows, err := pop.Grouped(ctx, group)
		if err != nil {
			return fmt.Errorf("within.%w", err)
		}
		r.everyone.And(roaring.BitmapOf(rows...))
		return nil
	})
	if err != nil {
		return r, err
	}
	if r.everyone.IsEmpty() {
		return r, fmt.Errorf("nobody satisfies the filter, so there is nobody to choose from: %w", index.ErrInvalid)
	}
	if err := r.resolveSeeds(ctx, pop, req); err != nil {
		return r, err
	}
	both, err := r.resolveNegatives(pop, req)
	if err != nil {
		return r, err
	}
	if err := r.settle(pop, req); err != nil {
		return r, err
	}
	r.eligible = r.everyone.Clone()
	for _, row := range both {
		r.eligible.Remove(row)
	}
	if req.Exclude.Seeds == nil || *req.Exclude.Seeds {
		for _, s := range r.seeds {
			r.eligible.Remove(s.row)
		}
	}
	for _, n := range r.negatives {
		r.eligible.Remove(n.row)
	}
	unknown := 0
	for _, id := range req.Exclude.IDs {
		if row, ok := pop.Snap.Find(id); ok {
			r.eligible.Remove(row)
		} else {
			unknown++
		}
	}
	if unknown > 0 {
		r.doctor.note("%d of %d ids to exclude match no customer", unknown, len(req.Exclude.IDs))
	}
	for _, name := range req.Exclude.Audiences {
		ids, err := membersOf(ctx, pop, name)
		if err != nil {
			return r, fmt.Errorf("exclude.audiences: %w", err)
		}
		for _, id := range ids {
			if row, ok := pop.Snap.Find(id); ok {
				r.eligible.Remove(row)
			}
		}
	}
	if err := r.suppress(ctx, pop, req); err != nil {
		return r, fmt.Errorf("exclude.lists: %w", err)
	}
	if r.eligible.IsEmpty() {
		return r, fmt.Errorf("nobody is left to choose from: the filter, the exclusions and the seeds cover all %d customers: %w", pop.Snap.Live().GetCardinality(), index.ErrInvalid)
	}
	return r, nil
}

// suppress takes off the customers of suppression lists.
func (r *resolved) suppress(ctx context.Context, pop Population, req *Request) error {
	if pop.Suppressed == nil {
		if len(req.Exclude.Lists) > 0 {
			return fmt.Errorf("%q: no stored lists here: %w", req.Exclude.Lists, index.ErrInvalid)
		}
		return nil
	}
	on, err := pop.Suppressed(ctx, req.Exclude.Lists)
	if err != nil || on == nil {
		return err
	}
	var rows []uint32
	for it := r.eligible.Iterator(); it.HasNext(); {
		if row := it.Next(); on(pop.Snap.ID(row)) {
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		r.eligible.Remove(row)
	}
	if len(rows) > 0 {
		r.doctor.note("%d customers are on suppression lists and cannot be members", len(rows))
	}
	return nil
}

// resolveNegatives returns the rows that are seeds and negatives: they count as neither
// and cannot be members, for nobody can say which was meant.
func (r *resolved) resolveNegatives(pop Population, req *Request) (both []uint32, err error) {
	isSeed := map[uint32]bool{}
	for _, s := range r.seeds {
		isSeed[s.row] = true
	}
	weights := map[uint32]float64{}
	var unknown, contradict []string
	given, twice := len(req.Negatives.IDs), 0
	for _, ref := range req.Negatives.IDs {
		row, ok := pop.Snap.Find(ref.ID)
		if !ok {
			unknown = append(unknown, clipped(ref.ID))
			continue
		}
		if _, had := weights[row]; had {
			twice++
		} else if isSeed[row] {
			both, contradict = append(both, row), append(contradict, clipped(ref.ID))
		}
		weights[row] = math.Max(weights[row], weightOf(ref))
	}
	if given > 0 && len(weights) == 0 {
		return nil, fmt.Errorf("negatives.ids: none of %d match a customer%s: %w", given, sample(unknown), index.ErrInvalid)
	}
	r.doctor.Both = len(both)
	if n := len(both); n > 0 && (2*n >= len(weights) || 2*n >= len(r.seeds)) {
		return nil, fmt.Errorf("negatives.ids: %d of %d negatives are seeds too, such as %q: one of the lists is the wrong one: %w", n, len(weights), contradict[:min(3, n)], index.ErrInvalid)
	} else if n > 0 {
		r.doctor.warn("%d customers are seeds and negatives: they count as neither and cannot be members", n)
	}
	if len(unknown) > 0 {
		r.doctor.warn("%d of %d negatives match no customer%s", len(unknown), given, sample(unknown))
	}
	if twice > 0 {
		r.doctor.note("%d negatives were given more than once and count once", twice)
	}
	for _, row := range both {
		delete(weights, row)
		isSeed[row] = false
	}
	r.seeds = slices.DeleteFunc(r.seeds, func(s weightedRow) bool { return !isSeed[s.row] })
	for row, w := range weights {
		r.negatives = append(r.negatives, weightedRow{row, w})
	}
	r.negatives = byID(pop.Snap, r.negatives)
	return both, nil
}

func weightOf(ref SeedRef) float64 {
	if ref.Weight == 0 {
		return 1
	}
	return ref.Weight
}

func membersOf(ctx context.Context, pop Population, name string) ([]string, error) {
	if pop.MembersOf == nil {
		return nil, fmt.Errorf("audience %q: no stored audiences here: %w", name, index.ErrInvalid)
	}
	return pop.MembersOf(ctx, name)
}

func (r *resolved) resolveSeeds(ctx context.Context, pop Population, req *Request) error {
	weights := map[uint32]float64{}
	d := &r.doctor
	var strangers unknown
	add := func(id string, weight float64) {
		d.Given++
		row, ok := pop.Snap.Find(id)
		if !ok {
			strangers.add(pop.Snap, id)
			return
		}
		if had, twice := weights[row]; twice {
			d.Duplicates++
			weight = math.Max(weight, had)
		}
		weights[row] = weight
	}
	for _, ref := range req.Seeds.IDs {
		add(ref.ID, weightOf(ref))
	}
	if req.Seeds.Audience != "" {
		ids, err := membersOf(ctx, pop, req.Seeds.Audience)
		if err != nil {
			return fmt.Errorf("seeds.audience: %w", err)
		}
		for _, id := range ids {
			add(id, 1)
		}
	}
	if req.Seeds.Segment != 0 || req.Seeds.Tag != nil {
		if pop.Grouped == nil {
			return fmt.Errorf("seeds: no segments and tags here: they are of a stored collection: %w", index.ErrInvalid)
		}
		rows, err := pop.Grouped(ctx, req.Seeds)
		if err != nil {
			return fmt.Errorf("seeds.%w", err)
		}
		for _, row := range rows {
			add(pop.Snap.ID(row), 1)
		}
	}
	if req.Seeds.Filter != nil {
		rows, err := pop.Snap.Match(req.Seeds.Filter)
		if err != nil {
			return fmt.Errorf("seeds.filter: %w", err)
		}
		for it := rows.Iterator(); it.HasNext(); {
			add(pop.Snap.ID(it.Next()), 1)
		}
	}
	if req.Seeds.Text != "" {
		if pop.Encode == nil {
			return fmt.Errorf("seeds.text: the collection has no model to encode it: %w", index.ErrInvalid)
		}
		v, err := pop.Encode(ctx, req.Seeds.Text)
		if err != nil {
			return fmt.Errorf("seeds.text: %w", err)
		}
		if pop.Spec.Dim > 0 && len(v) != pop.Spec.Dim {
			return fmt.Errorf("seeds.text: the model gives vectors of %d, the collection has %d: open it with the model that it was made with: %w", len(v), pop.Spec.Dim, index.ErrInvalid)
		}
		r.text = v
	}
	d.Matched, d.Unmatched = len(weights), strangers.named
	strangers.advise(d)
	for row, w := range weights {
		r.seeds = append(r.seeds, weightedRow{row, w})
	}
	r.seeds = byID(pop.Snap, r.seeds)
	if err := r.enough(pop); err != nil {
		return err
	}
	return r.weigh(ctx, pop, req.Seeds.Value)
}

// enough refuses too few seeds.
func (r *resolved) enough(pop Population) error {
	least, d := pop.Limits.MinSeeds, &r.doctor
	if least <= 0 {
		least = 20
	}
	if len(r.seeds) >= least || r.text != nil && d.Given == 0 {
		return nil
	}
	rest := ""
	if d.Both > 0 {
		rest = fmt.Sprintf(", %d of them negatives too", d.Both)
	}
	return fmt.Errorf("%w: %d of %d given ids match customers%s, at least %d are needed%s: %w",
		ErrTooFewSeeds, d.Matched, d.Given, rest, least, sample(d.Unmatched), index.ErrInvalid)
}

// relative divides weights by their mean: they say what a customer counts against the
// others of its list, and not how many customers the list stands for, which methods would
// trust the more. Divided by the largest before that, no sum of them overflows.
func relative(rows []weightedRow) {
	largest, mean := 0.0, 0.0
	for _, s := range rows {
		largest = math.Max(largest, s.weight)
	}
	for i := range rows {
		mean += rows[i].weight / largest / float64(len(rows))
	}
	for i := range rows {
		rows[i].weight = rows[i].weight / largest / mean
	}
}

// settle refuses what seeds and negatives leave nothing of, and names the seeds.
func (r *resolved) settle(pop Population, req *Request) error {
	if err := r.enough(pop); err != nil {
		return err
	}
	if n := pop.Snap.Live().GetCardinality(); uint64(len(r.seeds)) >= n && n > 0 {
		return fmt.Errorf("all %d customers are seeds: nobody is left to find: %w", n, index.ErrInvalid)
	}
	relative(r.seeds)
	relative(r.negatives)
	h := sha256.New()
	for _, s := range r.seeds {
		id := pop.Snap.ID(s.row)
		var buf []byte
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(id)))
		buf = append(buf, id...)
		buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(s.weight))
		h.Write(buf)
	}
	h.Write([]byte(req.Seeds.Text))
	r.hash = hex.EncodeToString(h.Sum(nil))
	r.diagnose(len(r.seeds))
	return nil
}

func sample(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return fmt.Sprintf(" (unknown, for instance: %q)", ids[:min(3, len(ids))])
}

func (d *Doctor) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

func (d *Doctor) warn(format string, args ...any) {
	d.Verdict = "warn"
	d.note(format, args...)
}

func (r *resolved) diagnose(matched int) {
	d := &r.doctor
	if lost := d.Given - d.Matched - d.Duplicates; lost > 0 {
		note := fmt.Sprintf("%d of %d given ids match no customer", lost, d.Given)
		if lost*10 >= d.Given {
			d.warn("%s: check that they are ids of this collection", note)
		} else {
			d.note("%s", note)
		}
	}
	if d.Duplicates > 0 {
		d.note("%d ids were given more than once and count once, with the largest weight", d.Duplicates)
	}
	if matched > 0 && matched < 50 {
		d.warn("%d seeds are few: expect wide intervals; 200 and more are better", matched)
	}
}

// byID orders rows by id, so that nothing depends on the order of insertion.
func byID(snap index.Rows, rows []weightedRow) []weightedRow {
	ids := make(map[uint32]string, len(rows))
	for _, r := range rows {
		ids[r.row] = snap.ID(r.row)
	}
	slices.SortFunc(rows, func(a, b weightedRow) int { return cmp.Compare(ids[a.row], ids[b.row]) })
	return rows
}

// draw returns up to n rows of a set, chosen by a hash of the id and seed and
// in order of that hash: a random sample that does not depend on row numbers.
func draw(snap index.Rows, from *roaring.Bitmap, n int, seed uint64) []uint32 {
	type keyed struct {
		key uint64
		row uint32
	}
	size := int(from.GetCardinality())
	// Hashes are even: of many customers only those below a bound that about a quarter
	// more than n stay under need be sorted. Too few, and all are.
	bound := uint64(math.MaxUint64)
	if want := 1.25*float64(n) + 1000; want < float64(size) {
		bound = uint64(want / float64(size) * (1 << 63) * 2)
	}
	rows := from.ToArray()
	var all []keyed
	for {
		parts := make([][]keyed, runtime.GOMAXPROCS(0))
		var wg sync.WaitGroup
		for p := range parts {
			wg.Go(func() {
				for _, row := range rows[size*p/len(parts) : size*(p+1)/len(parts)] {
					if key := hashID(snap.ID(row), seed); key <= bound {
						parts[p] = append(parts[p], keyed{key, row})
					}
				}
			})
		}
		wg.Wait()
		if all = slices.Concat(parts...); len(all) >= min(n, size) {
			break
		}
		bound = math.MaxUint64
	}
	slices.SortFunc(all, func(a, b keyed) int {
		if a.key != b.key {
			return cmp.Compare(a.key, b.key)
		}
		return cmp.Compare(snap.ID(a.row), snap.ID(b.row))
	})
	all = all[:min(n, len(all))]
	out := make([]uint32, len(all))
	for i, k := range all {
		out[i] = k.row
	}
	return out
}

// hashID is FNV-1a over the id with the seed in front, mixed at the end as
// SplitMix64 does: FNV alone leaves similar ids near each other.
func hashID(id string, seed uint64) uint64 {
	h := uint64(14695981039346656037) ^ (seed * 0x9e3779b97f4a7c15)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
