package segment

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/phrases"
)

// How many customers' texts phrases are taken from, and how much of a label.
const (
	everyoneTexts = 4000
	memberTexts   = 500
	labelPhrases  = 3
	labelColumns  = 2
	// A value in a label is held by this much more of the segment than of everyone.
	labelLift = 1.25
)

// describe fills in a set's segments.
func describe(ctx context.Context, pop Population, traits *audience.Traits, m *Model, z *matrix, rows []uint32, of []int16, set *Set, progress func(string, int, int)) error {
	members := make([][]uint32, len(m.Centers))
	for it := pop.Snap.Live().Iterator(); it.HasNext(); {
		row := it.Next()
		members[of[row]] = append(members[of[row]], row)
	}
	sampled := make([][]int, len(m.Centers))
	for i, row := range rows {
		sampled[of[row]] = append(sampled[of[row]], i)
	}
	var everyone *phrases.Counter
	if pop.Texts != nil {
		progress("reading texts", 0, 1)
		everyone = phrases.NewCounter()
		if err := texts(ctx, pop, rows[:min(len(rows), everyoneTexts)], func(_ int, t []string) { everyone.Add(t...) }); err != nil {
			return err
		}
	}
	for c := range m.Centers {
		if len(members[c]) == 0 {
			continue
		}
		s := Segment{
			Number: m.Numbers[c], Size: len(members[c]), Share: float64(len(members[c])) / float64(set.Customers),
			Phrases: []phrases.Phrase{}, Columns: traits.Reasons(members[c]), Typical: []string{},
		}
		m.measure(&s, c, z, rows, sampled[c], pop)
		if everyone != nil {
			var some []uint32
			for _, i := range sampled[c][:min(len(sampled[c]), memberTexts)] {
				some = append(some, rows[i])
			}
			group := phrases.NewCounter()
			if err := texts(ctx, pop, some, func(_ int, t []string) { group.Add(t...) }); err != nil {
				return err
			}
			s.Phrases = phrases.Contrast(group, everyone, phrases.Options{})
		}
		s.Label = label(&s)
		set.Segments = append(set.Segments, s)
		progress("describing", len(set.Segments), len(m.Centers))
	}
	m.drop(members)
	slices.SortFunc(set.Segments, func(a, b Segment) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Number, b.Number)) })
	return nil
}

// measure fills in what the sample knows of a segment.
func (m *Model) measure(s *Segment, c int, z *matrix, rows []uint32, sampled []int, pop Population) {
	type point struct {
		row  uint32
		dist float64
	}
	points := make([]point, len(sampled))
	for n, i := range sampled {
		_, near, next := nearest(z.row(i), m.Centers)
		s.Silhouette += clearness(near, next) / float64(len(sampled))
		s.Cohesion += cosine(z.row(i), m.Centers[c], m.Space.Origin) / float64(len(sampled))
		points[n] = point{rows[i], near}
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.dist, b.dist), cmp.Compare(pop.Snap.ID(a.row), pop.Snap.ID(b.row)))
	})
	for _, p := range points[:min(typicals, len(points))] {
		s.Typical = append(s.Typical, pop.Snap.ID(p.row))
	}
}

// drop removes the centres that nobody is near.
func (m *Model) drop(members [][]uint32) {
	centers, numbers := m.Centers[:0], m.Numbers[:0]
	for c := range members {
		if len(members[c]) > 0 {
			centers, numbers = append(centers, m.Centers[c]), append(numbers, m.Numbers[c])
		}
	}
	m.Centers, m.Numbers = centers, numbers
}

// pieces are what tells that two phrases speak of one thing when both have it:
// words of four letters and more; of scripts without spaces, neighbouring
// characters.
func pieces(phrase string) (out []string) {
	for word := range strings.FieldsSeq(phrase) {
		runes := []rune(word)
		if !strings.ContainsFunc(word, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
			if len(runes) >= 4 {
				out = append(out, word)
			}
			continue
		}
		for i := range len(runes) - 1 {
			out = append(out, string(runes[i:i+2]))
		}
	}
	return out
}

// label is a segment in a few words: what it writes, then what its columns hold.
func label(s *Segment) string {
	var words, values []string
	said := map[string]bool{}
	for _, p := range s.Phrases {
		parts := pieces(p.Text)
		if len(words) == labelPhrases || slices.ContainsFunc(parts, func(w string) bool { return said[w] }) {
			continue // what it would add was said
		}
		words = append(words, p.Text)
		for _, w := range parts {
			said[w] = true
		}
	}
	for _, r := range s.Columns {
		if r.Z > 0 && r.Lift >= labelLift && len(values) < labelColumns {
			values = append(values, r.Column+": "+r.Label)
		}
	}
	parts := slices.DeleteFunc([]string{strings.Join(words, ", "), strings.Join(values, ", ")}, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return "nothing stands out"
	}
	return strings.Join(parts, " · ")
}
