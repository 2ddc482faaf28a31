package audience

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// Change is one column set to another value, or one element added to a set or
// removed from it. A time is written as RFC 3339; From is null where the value is
// missing.
type Change struct {
	Column string `json:"column"`
	From   any    `json:"from,omitempty"`
	To     any    `json:"to,omitempty"`
	Add    string `json:"add,omitempty"`    // to a set
	Remove string `json:"remove,omitempty"` // from a set

	value index.Value // what the column then holds
}

// Counterfactual is a change of few columns that takes a member out of an audience,
// or brings another customer in.
type Counterfactual struct {
	Changes []Change `json:"changes"` // one or two
	// Distance adds up how far each column moves: for a number or a time the share
	// of its bins, which hold about equally many customers, for anything else 1.
	Distance float64 `json:"distance"`
	Score    float32 `json:"score"` // of the changed customer
}

// Alternatives says what Counterfactuals may propose.
type Alternatives struct {
	// Least is the score from which a customer is in.
	Least float64
	// Fixed says which columns are never changed; nil: none.
	Fixed func(column string) bool
	// Allowed says whether a customer with these values may be a member; nil: any.
	// It is asked only of changes that bring a customer in.
	Allowed func(values map[string]index.Value) bool
	Max     int // how many are returned; 0 means 5
}

const (
	// Of two columns, only so many columns and moves of each are combined: those
	// that alone go furthest towards the threshold, and of a column's moves those
	// that no shorter one outdoes.
	pairColumns = 12
	pairMoves   = 16
)

// move is one possible change of one column.
type move struct {
	column   int
	codes    []uint16
	distance float64
	change   Change
	score    float64 // with this move alone
}

// Counterfactuals returns the smallest changes of columns that move a customer to
// the other side of the threshold: of one column where there is such a change, else
// of two; none where two columns do not suffice. Each column, or pair, is there once,
// with its shortest change. They are in order of distance, then of how far beyond the
// threshold they lead, then of the columns' order. Values of other customers' bins are
// proposed, never a missing value. Every one is scored again as the changed customer
// would be, by Value.
func (m *Model) Counterfactuals(vector []float32, values map[string]index.Value, opt Alternatives) []Counterfactual {
	if opt.Max <= 0 {
		opt.Max = 5
	}
	p := m.poise(vector, values)
	in := float64(p.score()) >= opt.Least
	crosses := func(score float64) bool { return (score >= opt.Least) != in }
	var moves [][]move
	for c := range m.Bins {
		if opt.Fixed != nil && opt.Fixed(m.Bins[c].Column) {
			continue
		}
		list := m.moves(c, values[m.Bins[c].Column], p.codes[c])
		for i := range list {
			list[i].score = float64(p.with(&list[i]))
		}
		if len(list) > 0 {
			moves = append(moves, list)
		}
	}
	search := search{m: m, vector: vector, values: values, opt: &opt, in: in, crosses: crosses}
	for _, list := range moves {
		search.column(list)
	}
	if len(search.found) == 0 {
		search.pairs(p, moves)
	}
	slices.SortStableFunc(search.found, func(a, b Counterfactual) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(search.beyond(float64(b.Score)), search.beyond(float64(a.Score))))
	})
	return slices.Clip(search.found[:min(len(search.found), opt.Max)])
}

// search collects what crosses the threshold.
type search struct {
	m       *Model
	vector  []float32
	values  map[string]index.Value
	opt     *Alternatives
	in      bool
	crosses func(score float64) bool
	found   []Counterfactual
}

// beyond is how far a score is on the other side.
func (s *search) beyond(score float64) float64 {
	if s.in {
		return s.opt.Least - score
	}
	return score - s.opt.Least
}

// column adds the shortest of one column's moves that cross, if one does.
func (s *search) column(list []move) {
	order := slices.Clone(list)
	slices.SortStableFunc(order, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(s.beyond(b.score), s.beyond(a.score)))
	})
	for i := range order {
		if s.crosses(order[i].score) && s.add(&order[i]) {
			return
		}
	}
}

// add verifies a change on the customer's values and keeps it.
func (s *search) add(moves ...*move) bool {
	changed := make(map[string]index.Value, len(s.values))
	for name, v := range s.values {
		changed[name] = v
	}
	out := Counterfactual{}
	for _, mv := range moves {
		changed[mv.change.Column] = mv.change.value
		out.Changes = append(out.Changes, mv.change)
		out.Distance += mv.distance
	}
	out.Score = s.m.Value(s.vector, changed)
	if !s.crosses(float64(out.Score)) || !s.in && s.opt.Allowed != nil && !s.opt.Allowed(changed) {
		return false
	}
	s.found = append(s.found, out)
	return true
}

// pairs tries the moves of two columns together.
func (s *search) pairs(p *poised, moves [][]move) {
	var lists [][]move
	for _, list := range moves {
		if front := s.front(list); len(front) > 0 {
			lists = append(lists, front)
		}
	}
	furthest := func(list []move) float64 { return s.beyond(list[len(list)-1].score) }
	slices.SortStableFunc(lists, func(a, b []move) int { return cmp.Compare(furthest(b), furthest(a)) })
	lists = lists[:min(len(lists), pairColumns)]
	type pair struct {
		a, b            *move
		distance, score float64
	}
	for i, list := range lists {
		for _, other := range lists[i+1:] {
			var across []pair
			for a := range list {
				for b := range other {
					if score := float64(p.with(&list[a], &other[b])); s.crosses(score) {
						across = append(across, pair{&list[a], &other[b], list[a].distance + other[b].distance, score})
					}
				}
			}
			slices.SortStableFunc(across, func(x, y pair) int {
				return cmp.Or(cmp.Compare(x.distance, y.distance), cmp.Compare(s.beyond(y.score), s.beyond(x.score)))
			})
			for _, c := range across {
				first, second := c.a, c.b
				if first.column > second.column {
					first, second = second, first
				}
				if s.add(first, second) {
					break
				}
			}
		}
	}
}

// front are the moves that get further than every shorter one, by distance.
func (s *search) front(list []move) []move {
	order := slices.Clone(list)
	slices.SortStableFunc(order, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(s.beyond(b.score), s.beyond(a.score)))
	})
	var out []move
	far := math.Inf(-1)
	for _, mv := range order {
		if d := s.beyond(mv.score); d > far {
			out, far = append(out, mv), d
		}
	}
	for len(out) > pairMoves { // every second, keeping the last
		thin := out[:0]
		for i := range out {
			if (len(out)-1-i)%2 == 0 {
				thin = append(thin, out[i])
			}
		}
		out = thin
	}
	return out
}

// moves lists what a column may become: a number the nearest value of each other
// bin, a category each value with a bin of its own, a set one element more or less.
func (m *Model) moves(c int, v index.Value, codes []uint16) []move {
	b := &m.Bins[c]
	var out []move
	add := func(to index.Value, distance float64, change Change) {
		change.Column, change.value = b.Column, to
		out = append(out, move{column: c, codes: valueCodes(*b, to), distance: distance, change: change})
	}
	switch {
	case b.Kind == index.Set:
		for _, e := range b.Values {
			if !slices.Contains(v.Set, e) {
				more := append(slices.Clone(v.Set), e)
				slices.Sort(more)
				add(index.Value{Kind: index.Set, Set: more}, 1, Change{Add: e})
			}
		}
		for i, e := range v.Set {
			add(index.Value{Kind: index.Set, Set: slices.Delete(slices.Clone(v.Set), i, i+1)}, 1, Change{Remove: e})
		}
	case b.Kind.Numeric():
		at := int(codes[0])
		for to := 1; to < b.Count(); to++ {
			if to == at {
				continue
			}
			distance := 1.0
			if at > 0 && b.Kind != index.Bool {
				distance = math.Abs(float64(to-at)) / float64(b.Count()-1)
			}
			next := index.Value{Kind: b.Kind, Num: inBin(b.Edges, to, to < at)}
			add(next, distance, Change{From: shown(v), To: shown(next)})
		}
	default:
		for _, e := range b.Values {
			if v.Kind == "" || v.Str != e {
				next := index.Value{Kind: b.Kind, Str: e}
				add(next, 1, Change{From: shown(v), To: e})
			}
		}
	}
	return out
}

// inBin is a value of a number's bin: its lowest, or, coming from above or in the
// lowest bin, one at its upper end. Where all edges are whole, so is the value.
func inBin(edges []float64, bin int, fromAbove bool) float64 {
	if bin >= 2 && (!fromAbove || bin > len(edges)) {
		return edges[bin-2]
	}
	if len(edges) == 0 {
		return 0
	}
	top := edges[bin-1]
	if !slices.ContainsFunc(edges, func(e float64) bool { return e != math.Trunc(e) || math.Abs(e) > 1<<52 }) {
		return top - 1
	}
	width := math.Max(math.Abs(top), 1)
	if bin >= 2 {
		width = top - edges[bin-2]
	}
	step := math.Pow(10, math.Floor(math.Log10(width/10)))
	// The last multiple of the step below the edge is short to write.
	if v := (math.Ceil(top/step) - 1) * step; v < top && (bin < 2 || v >= edges[bin-2]) {
		return v
	}
	return math.Nextafter(top, math.Inf(-1))
}

// shown is a value as JSON has it, nil for a missing one.
func shown(v index.Value) any {
	switch v.Kind {
	case "":
		return nil
	case index.Bool:
		return v.Num != 0
	case index.Time:
		return time.Unix(int64(v.Num), 0).UTC().Format(time.RFC3339)
	case index.Category:
		return v.Str
	case index.Set:
		return slices.Clone(v.Set)
	default:
		return v.Num
	}
}

// poised is a customer whose text has been multiplied with every head, so that a
// change of its columns costs no product of vectors.
type poised struct {
	m     *Model
	text  []float64 // [head], with the bias; the common head's last
	codes [][]uint16
}

func (m *Model) poise(vector []float32, values map[string]index.Value) *poised {
	p := &poised{m: m, codes: make([][]uint16, len(m.Bins))}
	for c := range m.Bins {
		p.codes[c] = valueCodes(m.Bins[c], values[m.Bins[c].Column])
	}
	for _, h := range m.heads() {
		v := float64(h.Bias)
		if len(h.Vector) > 0 && len(vector) == len(h.Vector) {
			v += float64(simd.Dot(h.Vector, vector))
		}
		p.text = append(p.text, v)
	}
	return p
}

// heads are the set's, and the common one last where there is one.
func (m *Model) heads() []*index.Head {
	out := make([]*index.Head, 0, len(m.Set.Heads)+1)
	for i := range m.Set.Heads {
		out = append(out, &m.Set.Heads[i])
	}
	if m.Set.Common != nil {
		out = append(out, m.Set.Common)
	}
	return out
}

// score is Model.Value of the customer, to the bit.
func (p *poised) score() float32 {
	of := func(c int) []uint16 { return p.codes[c] }
	heads := p.m.heads()
	all := make([]float64, len(heads))
	for i, h := range heads {
		v := p.text[i]
		for c, table := range h.Tables {
			if table != nil {
				v += tableScore(table, p.codes[c])
			}
		}
		for t := range h.Trees {
			v += float64(h.Trees[t].Leaves[leafOf(&h.Trees[t], of)])
		}
		all[i] = v
	}
	n, common := len(p.m.Set.Heads), 0.0
	if len(heads) > n {
		common = all[n]
	}
	if n == 1 {
		return float32(common + all[0])
	}
	return float32(common + combined(all[:n], &p.m.Set))
}

// with is the score after some moves.
func (p *poised) with(moves ...*move) float32 {
	kept := make([][]uint16, len(moves))
	for i, mv := range moves {
		kept[i], p.codes[mv.column] = p.codes[mv.column], mv.codes
	}
	s := p.score()
	for i, mv := range moves {
		p.codes[mv.column] = kept[i]
	}
	return s
}

// String writes a change in words, such as "age 52 becomes 34".
func (c Change) String() string {
	switch {
	case c.Add != "":
		return fmt.Sprintf("%s also has %q", c.Column, c.Add)
	case c.Remove != "":
		return fmt.Sprintf("%s is without %q", c.Column, c.Remove)
	}
	word := func(v any) string {
		switch v := v.(type) {
		case nil:
			return "missing"
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		case bool:
			if v {
				return "yes"
			}
			return "no"
		case string:
			return strconv.Quote(v)
		}
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%s %s becomes %s", c.Column, word(c.From), word(c.To))
}
