package audience

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// SeedValue weighs seeds by what they are worth: the audience becomes like those
// who brought most. The weights multiply those given with ids.
type SeedValue struct {
	Column   string `json:"column,omitempty"`   // a number or bool of the customers
	Outcomes string `json:"outcomes,omitempty"` // or the values (else the outcomes, 1 or 0) of a stored audience
	// Damping keeps the few largest from being the whole audience: by default the
	// logarithm of 1 + value; "rank" the place among the seeds; "none" the value.
	Damping string `json:"damping,omitempty" enum:"log,rank,none"`
}

// leastWeight is the weight of a seed of no value against the mean of 1: nobody
// is left out by a value, which is what negatives and filters are for.
const leastWeight = 0.01

// Validate reports what is wrong.
func (v *SeedValue) Validate() error {
	switch {
	case v == nil:
	case (v.Column == "") == (v.Outcomes == ""):
		return fmt.Errorf("seeds.value: give one of column and outcomes: %w", index.ErrInvalid)
	case !slices.Contains([]string{"", "log", "rank", "none"}, v.Damping):
		return fmt.Errorf("seeds.value.damping %q: want log, rank or none: %w", v.Damping, index.ErrInvalid)
	}
	return nil
}

// weigh multiplies the seeds' weights by their values, damped and divided by
// their mean. A seed without a value counts as the mean.
func (r *resolved) weigh(ctx context.Context, pop Population, v *SeedValue) error {
	if v == nil || len(r.seeds) == 0 {
		return nil
	}
	value, err := valuesOf(ctx, pop, v)
	if err != nil {
		return err
	}
	known, unknown, below := []int{}, 0, 0
	worth := make([]float64, len(r.seeds))
	for i, s := range r.seeds {
		x, ok := value(s.row)
		switch {
		case !ok || math.IsNaN(x) || math.IsInf(x, 0):
			unknown++
			continue
		case x < 0:
			below++
			x = 0
		}
		worth[i] = x
		known = append(known, i)
	}
	if len(known) == 0 {
		return fmt.Errorf("seeds.value: none of %d seeds has a value: %w", len(r.seeds), index.ErrInvalid)
	}
	damp(v.Damping, worth, known)
	mean := 0.0
	for _, i := range known {
		mean += worth[i] / float64(len(known))
	}
	if mean == 0 {
		return fmt.Errorf("seeds.value: every seed's value is 0: %w", index.ErrInvalid)
	}
	top := 0.0
	for _, i := range known {
		w := math.Max(worth[i]/mean, leastWeight)
		r.seeds[i].weight *= w
		top = math.Max(top, w)
	}
	r.doctor.note("seeds weigh by value: the most valuable %.1f times the mean", top)
	if unknown > 0 {
		r.doctor.note("%d of %d seeds have no value and count as the mean", unknown, len(r.seeds))
	}
	if below > 0 {
		r.doctor.note("%d seeds have a value below 0 and count as 0", below)
	}
	return nil
}

func damp(how string, worth []float64, known []int) {
	switch how {
	case "", "log":
		for _, i := range known {
			worth[i] = math.Log1p(worth[i])
		}
	case "rank":
		order := slices.Clone(known)
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(worth[a], worth[b]) })
		place := make([]float64, len(worth))
		for from := 0; from < len(order); { // equal values have the mean of their places
			to := from + 1
			for to < len(order) && worth[order[to]] == worth[order[from]] {
				to++
			}
			for _, i := range order[from:to] {
				place[i] = float64(from+to+1) / 2
			}
			from = to
		}
		copy(worth, place)
	}
}

// valuesOf returns the value of a row, and whether there is one.
func valuesOf(ctx context.Context, pop Population, v *SeedValue) (func(row uint32) (float64, bool), error) {
	if v.Outcomes != "" {
		if pop.ValuesOf == nil {
			return nil, fmt.Errorf("seeds.value.outcomes: no stored audiences here: %w", index.ErrInvalid)
		}
		values, err := pop.ValuesOf(ctx, v.Outcomes)
		if err != nil {
			return nil, fmt.Errorf("seeds.value.outcomes: %w", err)
		}
		return func(row uint32) (float64, bool) {
			x, ok := values[pop.Snap.ID(row)]
			return x, ok
		}, nil
	}
	col, err := pop.Snap.Column(v.Column)
	if err != nil {
		return nil, fmt.Errorf("seeds.value.column: %w", err)
	}
	if col.Kind != index.Number && col.Kind != index.Bool {
		return nil, fmt.Errorf("seeds.value.column: %q is of type %s: want a number or a bool: %w", v.Column, col.Kind, index.ErrInvalid)
	}
	return func(row uint32) (float64, bool) { return col.Numbers[row], true }, nil
}
