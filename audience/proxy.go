package audience

import (
	"cmp"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// proxySample is how many eligible customers the search for a text direction reads.
const proxySample = 6000

// proxies ranks what the heads look at by how well it tells the groups apart: columns,
// elements of sets, and a direction of the text.
func (b *build) proxies(d *divided) ([]Proxy, error) {
	out := []Proxy{}
	n := float64(b.r.eligible.GetCardinality())
	for c := range b.f.bins {
		if b.f.bins[c].Column == d.column {
			continue
		}
		p := Proxy{Column: b.f.bins[c].Column}
		if b.f.bins[c].Kind == index.Set {
			p.Value, p.Strength = b.elementProxy(d, c)
		} else {
			p.Strength = b.columnProxy(d, c, n)
		}
		if p.Strength >= weakProxy {
			out = append(out, p)
		}
	}
	text, err := b.textProxy(d)
	if err != nil {
		return nil, err
	}
	if text != nil {
		out = append(out, *text)
	}
	slices.SortStableFunc(out, func(x, y Proxy) int { return cmp.Compare(y.Strength, x.Strength) })
	return out[:min(len(out), maxProxies)], nil
}

func (b *build) columnProxy(d *divided, c int, n float64) float64 {
	rows, cols := b.f.bins[c].Count(), len(d.groups)
	table := make([]float64, rows*cols)
	byRow, byCol := make([]float64, rows), make([]float64, cols)
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		row := it.Next()
		i, j := int(b.f.codes[c].Codes[row]), d.group(row)
		table[i*cols+j]++
		byRow[i]++
		byCol[j]++
	}
	return cramer(table, byRow, byCol, n)
}

// elementProxy is the element of a set that tells the groups apart best: having it
// against not.
func (b *build) elementProxy(d *divided, c int) (element string, strength float64) {
	elements, cols := b.f.bins[c].Count(), len(d.groups)
	with, byCol := make([]float64, elements*cols), make([]float64, cols)
	for it := b.r.eligible.Iterator(); it.HasNext(); {
		row := it.Next()
		g := d.group(row)
		byCol[g]++
		for _, code := range codesOf(b.f.codes[c], row) {
			with[int(code)*cols+g]++
		}
	}
	n := float64(b.r.eligible.GetCardinality())
	for _, g := range groups(b.f.bins[c], b.f.share[c]) {
		table, byRow := make([]float64, 2*cols), make([]float64, 2)
		for j := range cols {
			k := with[g.from*cols+j]
			table[j], table[cols+j] = k, byCol[j]-k
			byRow[0], byRow[1] = byRow[0]+k, byRow[1]+byCol[j]-k
		}
		if v := cramer(table, byRow, byCol, n); v > strength {
			element, strength = g.label, v
		}
	}
	return element, strength
}

// textProxy looks for a direction of the text that tells one group from the others:
// the difference of their means, each coordinate over its variance, learned on half of
// a sample and judged on the other half. Nil when the heads do not read the text, or no
// group can be told better than by chance.
func (b *build) textProxy(d *divided) (*Proxy, error) {
	if b.f.dim == 0 {
		return nil, nil
	}
	rows := draw(b.pop.Snap, b.r.eligible, proxySample, b.req.Seed+11)
	x, err := b.f.vectors(rows)
	if err != nil {
		return nil, err
	}
	dim := b.f.dim
	half := len(rows) / 2
	var best *Proxy
	for g := range d.groups {
		var n [2]float64
		mean := [2][]float64{make([]float64, dim), make([]float64, dim)}
		square := make([]float64, dim)
		for i := range half {
			side := 0
			if d.group(rows[i]) == g {
				side = 1
			}
			n[side]++
			for j, v := range x[i*dim : (i+1)*dim] {
				mean[side][j] += float64(v)
				square[j] += float64(v) * float64(v)
			}
		}
		if min(n[0], n[1]) < leastGroup {
			continue
		}
		w := make([]float64, dim)
		for j := range w {
			all := (mean[0][j] + mean[1][j]) / float64(half)
			w[j] = (mean[1][j]/n[1] - mean[0][j]/n[0]) / (square[j]/float64(half) - all*all + 1e-9)
		}
		var in, out []float64
		for i := half; i < len(rows); i++ {
			s := 0.0
			for j, v := range x[i*dim : (i+1)*dim] {
				s += w[j] * float64(v)
			}
			if d.group(rows[i]) == g {
				in = append(in, s)
			} else {
				out = append(out, s)
			}
		}
		if min(len(in), len(out)) < leastGroup {
			continue
		}
		auc := delong(in, out)
		if strength := 2*auc.Value - 1; auc.Low > 0.5 && strength >= weakProxy && (best == nil || strength > best.Strength) {
			best = &Proxy{Column: "text", Value: d.groups[g].label, Strength: strength, AUC: &auc}
		}
	}
	return best, nil
}

// delong is the share of pairs that are in order, ties half, with its interval in
// log-odds (DeLong and others, Biometrics 1988).
func delong(in, out []float64) Interval {
	in, out = slices.Clone(in), slices.Clone(out)
	slices.Sort(in)
	slices.Sort(out)
	below := func(of []float64, x float64) float64 { // share of of below x, ties half
		lo, _ := slices.BinarySearch(of, x)
		hi := lo
		for hi < len(of) && of[hi] == x {
			hi++
		}
		return (float64(lo) + float64(hi-lo)/2) / float64(len(of))
	}
	auc := 0.0
	vIn, vOut := make([]float64, len(in)), make([]float64, len(out))
	for i, x := range in {
		vIn[i] = below(out, x)
		auc += vIn[i] / float64(len(in))
	}
	for i, x := range out {
		vOut[i] = 1 - below(in, x)
	}
	variance := func(v []float64) float64 {
		sum := 0.0
		for _, a := range v {
			sum += (a - auc) * (a - auc)
		}
		return sum / float64(max(len(v)-1, 1)) / float64(len(v))
	}
	if auc <= 0 || auc >= 1 {
		return Interval{Value: auc, Low: auc, High: auc}
	}
	half := 1.96 * math.Sqrt(variance(vIn)+variance(vOut)) / (auc * (1 - auc))
	return Interval{Value: auc, Low: sigmoid(logit(auc) - half), High: sigmoid(logit(auc) + half)}
}
