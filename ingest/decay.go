package ingest

import (
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// decays settles how rows lose weight, once columns are planned.
func (p *Plan) decays() error {
	o := &p.opt
	if o.HalfLife == 0 && o.AsOf.IsZero() && o.TimeColumn == "" {
		return nil
	}
	switch {
	case p.GroupBy == "" && (o.TimeColumn != "" || !slices.ContainsFunc(p.Columns, func(c ColumnPlan) bool { return c.Dated })):
		return fmt.Errorf("a half-life is of rows that are folded into customers, or of dated elements of lists in NDJSON, which this file has none of: name the customers' column to group by: %w", index.ErrInvalid)
	case o.HalfLife == 0 || o.AsOf.IsZero():
		return fmt.Errorf("a half-life and the time that ages are counted from go together: give both: %w", index.ErrInvalid)
	case !(o.HalfLife > 0) || math.IsInf(o.HalfLife, 0):
		return fmt.Errorf("half-life %v: want days, above 0: %w", o.HalfLife, index.ErrInvalid)
	}
	if p.GroupBy == "" {
		p.Decay = &profile.Decay{HalfLife: o.HalfLife, Reference: o.AsOf}
		return nil
	}
	var times []string
	for _, c := range p.Columns {
		if c.Use == UseField && c.Type == profile.TypeTime {
			times = append(times, c.Name)
		}
	}
	p.TimeColumn = o.TimeColumn
	switch c := p.Column(o.TimeColumn); {
	case o.TimeColumn == "" && len(times) == 1:
		p.TimeColumn = times[0]
	case o.TimeColumn == "":
		return fmt.Errorf("%d columns are times (%q): name the one of the events: %w", len(times), times, index.ErrInvalid)
	case c == nil || c.Use != UseField || c.Type != profile.TypeTime:
		return fmt.Errorf("column %q is not a time: name one that is (%q): %w", o.TimeColumn, times, index.ErrInvalid)
	}
	p.Decay = &profile.Decay{HalfLife: o.HalfLife, Reference: o.AsOf}
	return nil
}

// decaying says whether a column's dated elements lose weight with age.
func (p *Plan) decaying(c *ColumnPlan) bool {
	return p.Decay != nil && c.Dated && (c.Use == UseText || c.Use == UseField && c.Type == profile.TypeSet)
}

// aged is the weight of a row, and whether it counts: not when it lies after the
// reference. A row without a time keeps its weight.
func (p *Plan) aged(values []index.Value) (weight float64, counts bool) {
	if p.Decay == nil {
		return 1, true
	}
	for i := range values {
		if p.Columns[i].Name == p.TimeColumn && values[i].Kind == index.Time {
			at := values[i].Num
			return p.Decay.Weight(at), at <= float64(p.Decay.Reference.UnixNano())/1e9
		}
	}
	return 1, true
}
