package audience

import (
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Disparity is how evenly the list falls on the groups of one sensitive column,
// which no head looks at unless it was allowed in writing. Leaving a column out
// does not make a list even: other columns stand in for it (proxies), so what
// comes out is measured (Sapiezynski and others, arXiv 1912.07579).
type Disparity struct {
	Column  string      `json:"column"`
	Groups  []GroupRate `json:"groups"`            // in order of their bins
	Proxies []Proxy     `json:"proxies,omitempty"` // strongest first
	// Cost is there when the selection was bound to be even on this column.
	Cost *Cost `json:"cost,omitempty"`
}

// GroupRate is how often members of one group are selected.
type GroupRate struct {
	Label    string   `json:"label"`
	Eligible int      `json:"eligible"`
	Members  int      `json:"members"`
	Rate     Interval `json:"rate"`  // members of eligible, Wilson's interval
	Ratio    Interval `json:"ratio"` // to the group of the highest rate
	// FourFifths flags a ratio below 0.8 that is not below it by chance: the
	// interval ends below 0.8 (the rule of thumb of 29 CFR 1607.4 D).
	FourFifths bool `json:"below_four_fifths"`
}

// Proxy is something the heads look at that tells the groups apart.
type Proxy struct {
	Column string `json:"column"` // "text" for a direction of the text
	// Value is the element of a set, or the group that the text tells from the others.
	Value string `json:"value,omitempty"`
	// Strength is 0 when it tells nothing and 1 when it tells everything: Cramer's V
	// between the column's bins and the groups, corrected for chance (Bergsma 2013);
	// of the text, 2 AUC - 1.
	Strength float64 `json:"strength"`
	// AUC is how well the text tells the group, on customers that it was not learned from.
	AUC *Interval `json:"auc,omitempty"`
}

// Cost is what evenness takes: the expected share of the seeds' kind on the list
// with and without it, see Calibration.
type Cost struct {
	MinRatio  float64 `json:"min_ratio"`
	Precision float64 `json:"precision"` // of this list
	Without   float64 `json:"without"`   // of the list by score alone
	Changed   int     `json:"changed"`   // members who would not be on that one
}

// Fairness bounds how uneven a list may be.
type Fairness struct {
	Column string `json:"column" doc:"a category or yes-no column"`
	// MinRatio is the least that any group's selection rate may be of the highest
	// group's, such as 0.8.
	MinRatio float64 `json:"min_ratio" exclusiveMinimum:"0" maximum:"1"`
}

const (
	leastGroup = 30   // eligible customers: smaller groups are no group of their own
	weakProxy  = 0.10 // proxies of this strength and more are named
	maxProxies = 5
)

// divided is a column cut into groups.
type divided struct {
	column string
	groups []group
	codes  profile.BinCodes
	of     []int // group of each bin
}

// divide cuts a column into groups of eligible customers. Sets have no groups: a
// customer can be in several.
func (b *build) divide(name string) (*divided, error) {
	i := slices.IndexFunc(b.pop.Spec.Columns, func(c index.Column) bool { return c.Name == name })
	if i < 0 || b.pop.Spec.Columns[i].Kind == index.Set {
		return nil, fmt.Errorf("fairness: %q is not a category, yes-no or number column of the collection: %w", name, index.ErrInvalid)
	}
	col := b.pop.Spec.Columns[i]
	data, err := b.pop.Snap.Column(name)
	if err != nil {
		return nil, err
	}
	bins := profile.FitBins(col, data, b.r.eligible, profile.BinOptions{MaxValues: 50, MinCount: leastGroup})
	d := &divided{column: name, codes: profile.Codes(bins, data)}
	count := make([]float64, bins.Count())
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		count[d.codes.Codes[it.Next()]]++
	}
	share := slices.Clone(count)
	for j := range share {
		share[j] /= float64(b.r.eligible.GetCardinality())
	}
	d.of = slices.Repeat([]int{-1}, len(count))
	for _, g := range groups(bins, share) {
		n := 0.0
		for j := g.from; j <= g.to; j++ {
			n += count[j]
		}
		if n == 0 {
			continue
		}
		for j := g.from; j <= g.to; j++ {
			d.of[j] = len(d.groups)
		}
		d.groups = append(d.groups, g)
	}
	return d, nil
}

func (d *divided) group(row uint32) int { return d.of[d.codes.Codes[row]] }

// tally counts eligible customers and members by group.
func (d *divided) tally(b *build, rows []uint32) (eligible, members []int) {
	eligible, members = make([]int, len(d.groups)), make([]int, len(d.groups))
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		eligible[d.group(it.Next())]++
	}
	for _, row := range rows {
		members[d.group(row)]++
	}
	return eligible, members
}

// disparities reports on every sensitive column that has groups.
func (b *build) disparities(rows []uint32) ([]Disparity, error) {
	out := []Disparity{}
	for _, field := range b.pop.Schema.Fields {
		asked := b.req.Fairness != nil && b.req.Fairness.Column == field.Name
		known := slices.ContainsFunc(b.pop.Spec.Columns, func(c index.Column) bool { return c.Name == field.Name && c.Kind != index.Set })
		if !known || !field.Sensitive && !asked {
			continue
		}
		d, err := b.divide(field.Name)
		if err != nil {
			return nil, err
		}
		if len(d.groups) < 2 {
			continue
		}
		eligible, members := d.tally(b, rows)
		proxies, err := b.proxies(d)
		if err != nil {
			return nil, err
		}
		out = append(out, Disparity{Column: field.Name, Groups: d.rates(eligible, members), Proxies: proxies})
	}
	return out, nil
}

// rates compares each group with that of the highest rate among those large
// enough to be called a group.
func (d *divided) rates(eligible, members []int) []GroupRate {
	best := -1
	rate := func(g int) float64 { return float64(members[g]) / float64(eligible[g]) }
	for g := range eligible {
		if eligible[g] >= leastGroup && (best < 0 || rate(g) > rate(best)) {
			best = g
		}
	}
	out := make([]GroupRate, len(eligible))
	for g := range out {
		out[g] = GroupRate{Label: d.groups[g].label, Eligible: eligible[g], Members: members[g], Rate: wilson(float64(members[g]), eligible[g], 1)}
		if best >= 0 {
			out[g].Ratio = ratio(members[g], eligible[g], members[best], eligible[best])
			out[g].FourFifths = g != best && eligible[g] >= leastGroup && out[g].Ratio.High < 0.8
		}
	}
	return out
}

// ratio is that of two shares with its interval on the log scale (Katz and others,
// Biometrics 1978), half a customer added to each count so that none is zero.
func ratio(k, n, bestK, bestN int) Interval {
	if bestK == 0 {
		return Interval{Value: 1, Low: 0, High: math.MaxFloat32}
	}
	a, b := float64(k)+0.5, float64(bestK)+0.5
	at := math.Log(a / (float64(n) + 0.5) / (b / (float64(bestN) + 0.5)))
	half := 1.96 * math.Sqrt(1/a-1/(float64(n)+0.5)+1/b-1/(float64(bestN)+0.5))
	value := float64(k) / float64(n) / (float64(bestK) / float64(bestN))
	return Interval{Value: value, Low: math.Exp(at - half), High: math.Exp(at + half)}
}

// cramer is Bergsma's corrected V of a table of counts.
func cramer(table, byRow, byCol []float64, n float64) float64 {
	chi, r, c := 0.0, 0.0, 0.0
	for _, x := range byRow {
		if x > 0 {
			r++
		}
	}
	for _, x := range byCol {
		if x > 0 {
			c++
		}
	}
	for i, x := range byRow {
		for j, y := range byCol {
			if want := x * y / n; want > 0 {
				d := table[i*len(byCol)+j] - want
				chi += d * d / want
			}
		}
	}
	if n < 2 || r < 2 || c < 2 {
		return 0
	}
	phi := math.Max(0, chi/n-(r-1)*(c-1)/(n-1))
	rows, cols := r-(r-1)*(r-1)/(n-1), c-(c-1)*(c-1)/(n-1)
	least := math.Min(rows-1, cols-1)
	if least <= 0 {
		return 0
	}
	return math.Sqrt(phi / least)
}
