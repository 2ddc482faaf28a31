package audience

import (
	"cmp"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Subject is a customer to be explained.
type Subject struct {
	ID     string
	Vector []float32 // as stored; nil or zeros: no text
	Values map[string]index.Value
	// Passages are what the vector was made of, and Encoded their vectors,
	// [len(Passages), dim] row-major. Without them no passage is named.
	Passages []profile.Passage
	Encoded  []float32
}

// Explanation is why a customer is in an audience, or not.
type Explanation struct {
	ID          string  `json:"id"`
	In          bool    `json:"in"`
	Rank        int     `json:"rank,omitempty"` // on the list
	Score       float32 `json:"score"`
	Threshold   float32 `json:"threshold"` // from which a score is in
	Probability float32 `json:"probability"`
	Reasons     []Part  `json:"reasons"` // add up to Score
	// Passages are the customer's texts with what each gives to the text's part, the
	// largest first. With Rounding they add up to it.
	Passages []PassagePart `json:"passages"`
	// Rounding is what the stored vector, which has fewer digits, gives more than the
	// passages as they are encoded now.
	Rounding float32 `json:"rounding,omitempty"`
	// Nearest are the seeds most like the customer.
	Nearest []Neighbour `json:"nearest_seeds"`
	// Counterfactuals are the smallest changes that would take the customer out, or in.
	Counterfactuals []Counterfactual `json:"counterfactuals"`
	Notes           []string         `json:"notes"` // what could not be said, and why
}

// PassagePart is one passage's addend of the text's part.
type PassagePart struct {
	Field string  `json:"field,omitempty"`
	Text  string  `json:"text,omitempty"` // empty: of a sensitive or personal field
	Share float64 `json:"share"`          // weight in the mean of the passages, adds up to 1
	Value float32 `json:"value"`
}

// Neighbour is a seed with its likeness to a customer.
type Neighbour struct {
	ID         string  `json:"id"`
	Similarity float64 `json:"similarity"`        // mean of the two that are there
	Text       float64 `json:"text,omitempty"`    // cosine, seen from everyone's mean text
	Columns    float64 `json:"columns,omitempty"` // Gower's: 1 the same in every column of the heads, 0 in none
}

// Explain is why a customer has its score. In, Rank, Nearest and Counterfactuals are
// the caller's to fill in.
func (r *Result) Explain(s *Subject) Explanation {
	m := &r.Model
	score, parts := m.Score(s.Vector, s.Values)
	out := Explanation{ID: s.ID, Score: score, Threshold: r.Threshold, Probability: float32(r.Quality.Platt.Probability(score)), Reasons: parts, Passages: []PassagePart{}, Nearest: []Neighbour{}, Counterfactuals: []Counterfactual{}, Notes: []string{}}
	text := 0.0
	for _, p := range parts {
		if p.Of == "text" {
			text = float64(p.Value)
		}
	}
	if dim := m.dim(); dim > 0 && len(s.Passages) > 0 && len(s.Encoded) == len(s.Passages)*dim {
		values := m.passages(s)
		sum := 0.0
		total := 0.0
		for _, p := range s.Passages {
			total += p.Weight
		}
		for i, p := range s.Passages {
			out.Passages = append(out.Passages, PassagePart{Field: p.Field, Text: p.Body, Share: p.Weight / total, Value: float32(values[i])})
			sum += values[i]
		}
		out.Rounding = float32(text - sum)
		slices.SortStableFunc(out.Passages, func(a, b PassagePart) int { return cmp.Compare(b.Value, a.Value) })
	}
	return out
}

// passages divides the text's part among the passages. The customer's vector is
// their weighted mean, made unit length, so each has its share of the product with
// the heads; of everyone's mean, which is subtracted, each carries its weight.
func (m *Model) passages(s *Subject) []float64 {
	dim, w := m.dim(), m.direction(s)
	sum, total := make([]float64, dim), 0.0
	for i, p := range s.Passages {
		total += p.Weight
		for j, x := range s.Encoded[i*dim : (i+1)*dim] {
			sum[j] += p.Weight * float64(x)
		}
	}
	norm := 0.0
	for _, x := range sum {
		norm += x * x
	}
	norm = math.Sqrt(norm)
	out := make([]float64, len(s.Passages))
	if norm == 0 || total == 0 {
		return out
	}
	mean := 0.0
	for j := range m.Center {
		mean += w[j] * float64(m.Center[j])
	}
	for i, p := range s.Passages {
		for j, x := range s.Encoded[i*dim : (i+1)*dim] {
			out[i] += w[j] * float64(x)
		}
		out[i] = p.Weight * (out[i]/norm - mean/total)
	}
	return out
}

// direction is the vector that a customer's text is multiplied with: the mean of the
// heads that count for it, and the common one.
func (m *Model) direction(s *Subject) []float64 {
	out := make([]float64, m.dim())
	add := func(h *index.Head, share float64) {
		for j, x := range h.Vector {
			out[j] += share * float64(x)
		}
	}
	p := m.poise(s.Vector, s.Values)
	scores := make([]float64, len(m.Set.Heads))
	for i := range scores {
		one := poised{m: &Model{Bins: m.Bins, Set: index.HeadSet{Heads: m.Set.Heads[i : i+1]}}, text: p.text[i : i+1], codes: p.codes}
		scores[i] = float64(one.score())
	}
	best := nearest(scores, tops(&m.Set))
	for _, i := range best {
		add(&m.Set.Heads[i], 1/float64(len(best)))
	}
	if m.Set.Common != nil {
		add(m.Set.Common, 1)
	}
	return out
}

// Neighbours returns the n seeds most like a customer by what the heads look at,
// ties in order of id. The customer itself is left out.
func (m *Model) Neighbours(s *Subject, seeds []Subject, n int) []Neighbour {
	mine := m.standpoint(s)
	out := make([]Neighbour, 0, len(seeds))
	for i := range seeds {
		if seeds[i].ID == s.ID {
			continue
		}
		its := m.standpoint(&seeds[i])
		one := Neighbour{ID: seeds[i].ID}
		parts := 0.0
		if mine.text != nil && its.text != nil {
			for j, x := range mine.text {
				one.Text += x * its.text[j]
			}
			one.Similarity, parts = one.Text, 1
		}
		if len(m.Bins) > 0 {
			for c := range m.Bins {
				one.Columns += gower(&m.Bins[c], mine.codes[c], its.codes[c]) / float64(len(m.Bins))
			}
			one.Similarity += one.Columns
			parts++
		}
		if parts > 0 {
			one.Similarity /= parts
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(b.Similarity, a.Similarity), cmp.Compare(a.ID, b.ID))
	})
	return slices.Clip(out[:min(len(out), n)])
}

// standpoint is a customer as neighbours are compared: the unit deviation of its text
// from everyone's, nil without text, and its bins.
type standpoint struct {
	text  []float64
	codes [][]uint16
}

func (m *Model) standpoint(s *Subject) standpoint {
	out := standpoint{codes: make([][]uint16, len(m.Bins))}
	for c := range m.Bins {
		out.codes[c] = valueCodes(m.Bins[c], s.Values[m.Bins[c].Column])
	}
	if dim := m.dim(); dim > 0 && len(s.Vector) == dim && !blank(s.Vector) {
		v := make([]float64, dim)
		for j, x := range s.Vector {
			v[j] = float64(x)
			if m.Center != nil {
				v[j] -= float64(m.Center[j])
			}
		}
		out.text = make([]float64, dim)
		for j, x := range normalised(v) {
			out.text[j] = float64(x)
		}
	}
	return out
}

// gower is how alike two customers are in one column (Gower, Biometrics 1971): of a
// number one less the distance in bins, of a set the share of common elements. Missing
// is like missing alone.
func gower(b *index.Bins, x, y []uint16) float64 {
	switch {
	case b.Kind == index.Set:
		both := 0
		for _, c := range x {
			if slices.Contains(y, c) {
				both++
			}
		}
		return float64(both) / float64(len(x)+len(y)-both)
	case x[0] == y[0]:
		return 1
	case b.Kind.Numeric() && x[0] > 0 && y[0] > 0:
		return 1 - math.Abs(float64(x[0])-float64(y[0]))/float64(b.Count()-1)
	}
	return 0
}
