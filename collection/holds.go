package collection

import (
	"slices"

	"github.com/kindred-search/kindred/index"
)

// holds says whether one customer satisfies a filter, as an engine's Match does
// for all.
func holds(p *index.Predicate, row *index.Row, columns []index.Column) bool {
	of := func(q *index.Predicate) bool { return holds(q, row, columns) }
	for i := range p.Conds {
		if !condHolds(&p.Conds[i], row, columns) {
			return false
		}
	}
	for i := range p.Must {
		if !of(&p.Must[i]) {
			return false
		}
	}
	some := len(p.Should) == 0
	for i := range p.Should {
		some = some || of(&p.Should[i])
	}
	for i := range p.MustNot {
		if of(&p.MustNot[i]) {
			return false
		}
	}
	return some
}

func condHolds(k *index.Cond, row *index.Row, columns []index.Column) bool {
	var v index.Value
	if k.Column < 0 {
		v = index.Value{Kind: index.Category, Str: row.ID}
	} else {
		v = row.Values[columns[k.Column].Name]
	}
	missing := v.Kind == "" || v.Kind == index.Set && len(v.Set) == 0
	if k.Op == index.OpExists || missing {
		return k.Op == index.OpExists && missing != k.Exists
	}
	if v.Kind.Numeric() {
		return k.HoldsNum(v.Num)
	}
	values := v.Set
	if v.Kind != index.Set {
		values = []string{v.Str}
	}
	return slices.ContainsFunc(values, func(x string) bool {
		if k.Op == index.OpIn {
			return slices.Contains(k.Strs, x)
		}
		return k.HoldsStr(x)
	})
}
