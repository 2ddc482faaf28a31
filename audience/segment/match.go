package segment

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

func rngOf(seed uint64, parts ...uint64) *rand.Rand {
	x := seed
	for _, p := range parts {
		x = (x ^ p) * 0x9e3779b97f4a7c15
		x ^= x >> 29
	}
	return rand.New(rand.NewPCG(x, 0x7365676d656e74))
}

// leastOverlap is what part of the customers of either segment must be in both
// for the new one to take the number of the old.
const leastOverlap = 0.3

// number gives segments their numbers, which stand for the same people from run to
// run: a segment that shares most customers with one of the model before takes its
// number; others get numbers that were never used, the largest first. of is each
// row's segment, rows the sample on which both are compared. Segments that nobody
// is in are dropped.
func (m *Model) number(ctx context.Context, pop Population, rows []uint32, of []int16) error {
	size := make([]int, len(m.Centers))
	for _, c := range of {
		if c >= 0 {
			size[c]++
		}
	}
	m.Numbers, m.Next = make([]int, len(m.Centers)), 1
	if before := pop.Before; before != nil && before.Space.fits(pop) {
		m.Next = before.Next
		mask := roaring.BitmapOf(rows...)
		was, _, err := before.scan(ctx, pop.Snap, mask, nil)
		if err != nil {
			return err
		}
		m.take(before, rows, of, was)
	}
	order := make([]int, len(size))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size[b], size[a]) })
	for _, c := range order {
		if m.Numbers[c] == 0 && size[c] > 0 {
			m.Numbers[c] = m.Next
			m.Next++
		}
	}
	return nil
}

// take hands on numbers, the greatest overlap (Jaccard) first.
func (m *Model) take(before *Model, rows []uint32, of, was []int16) {
	type pair struct {
		now, then int
		overlap   float64
	}
	now, then := make([]float64, len(m.Centers)), make([]float64, len(before.Centers))
	both := make([]float64, len(now)*len(then))
	for _, row := range rows {
		a, b := int(of[row]), int(was[row])
		now[a]++
		then[b]++
		both[a*len(then)+b]++
	}
	var pairs []pair
	for a := range now {
		for b := range then {
			if x := both[a*len(then)+b]; x > 0 {
				if j := x / (now[a] + then[b] - x); j >= leastOverlap {
					pairs = append(pairs, pair{a, b, j})
				}
			}
		}
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		return cmp.Or(cmp.Compare(y.overlap, x.overlap), cmp.Compare(x.now, y.now), cmp.Compare(x.then, y.then))
	})
	taken := map[int]bool{}
	for _, p := range pairs {
		if m.Numbers[p.now] == 0 && !taken[p.then] {
			m.Numbers[p.now], taken[p.then] = before.Numbers[p.then], true
		}
	}
}

// fits says whether a space can place the customers of a population.
func (s *Space) fits(pop Population) bool {
	if s.Dim > 0 && s.Dim != pop.Spec.Dim {
		return false
	}
	for _, b := range s.Bins {
		if !slices.ContainsFunc(pop.Spec.Columns, func(c index.Column) bool { return c.Name == b.Column && c.Kind == b.Kind }) {
			return false
		}
	}
	return true
}
