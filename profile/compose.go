package profile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
)

// Passage is one piece of a customer's text, encoded on its own.
type Passage struct {
	Body   string  // normalised, not empty
	Weight float64 // in the mean of the customer's passages
	Field  string  // the field it came from; "" for a free text or a template
}

// ComposeOptions bounds what one customer costs. Zero values take the defaults.
type ComposeOptions struct {
	// MaxChars is the target length of a passage, in Latin letters; a Han,
	// Hangul or Kana character counts as four. 0 means 1000, which is about
	// 250 tokens of an English model: most models were trained below 512.
	MaxChars int
	// MaxPassages is how many are kept, sampled evenly from first to last, or, where
	// texts have weights or decay, the heaviest.
	// 0 means 32: the mean of more moves little.
	MaxPassages int
	// Omitted, if not nil, receives how many passages MaxPassages left out.
	Omitted *int
}

// Compose turns a record into passages, in the order of its texts.
//
// White space is folded, control characters and byte order marks are dropped,
// empty texts are skipped. A text longer than MaxChars is split at ends of
// sentences, English and Chinese.
//
// With a Template such as "{title}. {review}" the fields make one text. A
// placeholder without a value is dropped with what follows it up to the next.
// Texts without a field keep passages of their own; text fields that the
// template does not name are left out.
func (s Schema) Compose(r Record, opt ComposeOptions) []Passage {
	if opt.MaxChars <= 0 {
		opt.MaxChars = 1000
	}
	if opt.MaxPassages <= 0 {
		opt.MaxPassages = 32
	}
	var out []Passage
	add := func(body, field string, weight float64) {
		for _, piece := range split(clean(body), opt.MaxChars) {
			out = append(out, Passage{Body: piece, Weight: weight, Field: field})
		}
	}
	parts, err := parseTemplate(s.Template)
	if err != nil { // Validate refuses it; a record is still better with its texts
		parts = nil
	}
	if len(parts) > 0 {
		add(fill(parts, r), "", 1)
	}
	fields := make(map[string]Field, 4)
	for _, f := range s.Fields {
		if f.Type == TypeText {
			fields[f.Name] = f
		}
	}
	weighed := false
	for _, t := range r.Texts {
		if len(parts) > 0 && t.Field != "" {
			continue
		}
		w := 1.0
		if f, ok := fields[t.Field]; ok {
			w = weightOf(f) * f.Decay.Weight(t.At)
			weighed = weighed || f.Decay != nil
		}
		if t.Weight != 0 {
			w *= t.Weight
			weighed = true
		}
		add(t.Body, t.Field, w)
	}
	kept := out
	if n := len(out); n > opt.MaxPassages && weighed {
		kept = heaviest(out, opt.MaxPassages)
	} else if n := len(out); n > opt.MaxPassages {
		kept = make([]Passage, opt.MaxPassages)
		for i := range kept {
			at := 0
			if opt.MaxPassages > 1 {
				at = i * (n - 1) / (opt.MaxPassages - 1)
			}
			kept[i] = out[at]
		}
	}
	if opt.Omitted != nil {
		*opt.Omitted = len(out) - len(kept)
	}
	return kept
}

// TemplateFields returns the fields that the template names, in order.
func (s Schema) TemplateFields() []string {
	parts, err := parseTemplate(s.Template)
	if err != nil { // as in Compose
		return nil
	}
	var names []string
	for _, p := range parts {
		if p.field != "" {
			names = append(names, p.field)
		}
	}
	return names
}

// heaviest are the n passages of the most weight, in the order given; of the same
// weight, the earlier.
func heaviest(all []Passage, n int) []Passage {
	at := make([]int, len(all))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int { return cmp.Compare(all[j].Weight, all[i].Weight) })
	at = at[:n]
	slices.Sort(at)
	out := make([]Passage, n)
	for i, k := range at {
		out[i] = all[k]
	}
	return out
}

// part is either literal text or a field's placeholder.
type part struct{ literal, field string }

var errTemplate = errors.New("a { without its }: write {field}, or drop the brace")

// parseTemplate cuts "{a}. {b}" into parts; nil for an empty template.
func parseTemplate(t string) ([]part, error) {
	var parts []part
	for t != "" {
		open := strings.IndexByte(t, '{')
		if open < 0 {
			return append(parts, part{literal: t}), nil
		}
		if open > 0 {
			parts = append(parts, part{literal: t[:open]})
		}
		end := strings.IndexByte(t[open:], '}')
		if end < 0 {
			return nil, errTemplate
		}
		name := strings.TrimSpace(t[open+1 : open+end])
		if name == "" {
			return nil, errors.New("{} names no field: write {field}")
		}
		parts = append(parts, part{field: name})
		t = t[open+end+1:]
	}
	return parts, nil
}

// fill writes a record into a template; "" when no placeholder has a value.
func fill(parts []part, r Record) string {
	var b strings.Builder
	found, skip := false, false
	for _, p := range parts {
		if p.field == "" {
			if !skip {
				b.WriteString(p.literal)
			}
			continue
		}
		v := valueText(r, p.field)
		skip = v == ""
		found = found || v != ""
		b.WriteString(v)
	}
	if !found {
		return ""
	}
	return b.String()
}

// valueText is a field of a record as words.
func valueText(r Record, field string) string {
	var words []string
	for _, t := range r.Texts {
		if t.Field == field {
			if body := clean(t.Body); body != "" {
				words = append(words, body)
			}
		}
	}
	if len(words) > 0 {
		return strings.Join(words, " ")
	}
	v, ok := r.Fields[field]
	if !ok {
		return ""
	}
	switch v.Kind {
	case index.Number:
		return strconv.FormatFloat(v.Num, 'g', -1, 64)
	case index.Bool:
		if v.Num != 0 {
			return "yes"
		}
		return "no"
	case index.Time:
		if math.Abs(v.Num) > 1e12 {
			return ""
		}
		return time.Unix(int64(v.Num), 0).UTC().Format(time.DateOnly)
	case index.Category:
		return v.Str
	case index.Set:
		return strings.Join(v.Set, ", ")
	}
	return ""
}

// clean folds white space and drops what is not seen: control and format
// characters (byte order marks, direction marks) and broken bytes. Joiners
// stay: they spell words in some scripts and make up emoji.
func clean(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r) || r == 0:
			space = true
		case r == '\u200c' || r == '\u200d':
			b.WriteRune(r)
		case r == utf8.RuneError || unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r):
		default:
			if space && b.Len() > 0 {
				b.WriteByte(' ')
			}
			space = false
			b.WriteRune(r)
		}
	}
	return b.String()
}

// width is a character's share of a passage: a Han, Kana or Hangul character
// is about a token, an English token about four letters.
func width(r rune) int {
	if r >= 0x1100 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) {
		return 4
	}
	return 1
}

// split cuts clean text into pieces of at most limit, at the last end of a
// sentence in the piece, else at the last comma or space, else anywhere.
func split(s string, limit int) []string {
	if s == "" {
		return nil
	}
	if len(s) <= limit { // a byte is at least a quarter of a wide character
		if !strings.ContainsFunc(s, func(r rune) bool { return width(r) > 1 }) {
			return []string{s}
		}
	}
	limit = max(limit, 4)
	var out []string
	start, used := 0, 0
	sentence, clause := -1, -1 // byte positions after which a cut is good
	for at := 0; at < len(s); {
		r, n := utf8.DecodeRuneInString(s[at:])
		if used+width(r) > limit && at > start {
			cut := at
			switch {
			case sentence > start+(at-start)/4: // a tiny head is not worth it
				cut = sentence
			case clause > start+(at-start)/4:
				cut = clause
			case sentence > start:
				cut = sentence
			}
			out = appendTrimmed(out, s[start:cut])
			start, used, sentence, clause = cut, 0, -1, -1
			at = cut
			continue
		}
		used += width(r)
		at += n
		switch r {
		case '。', '！', '？', '；', '…':
			sentence = at
		case '.', '!', '?':
			if at == len(s) || s[at] == ' ' { // not the point of 3.14
				sentence = at
			}
		case '，', '、', ' ', ',', ';', ':', '：':
			clause = at
		}
	}
	return appendTrimmed(out, s[start:])
}

func appendTrimmed(out []string, s string) []string {
	if s = strings.TrimSpace(s); s != "" {
		out = append(out, s)
	}
	return out
}

// Pool returns the weighted mean of vectors ([len(weights), dim], row-major),
// made unit length. Nil when there is nothing to average: no vectors, weights
// that add up to nothing, a mean of zero, or arguments that do not fit.
// Sums are taken in order in float64, so equal input gives equal bits.
func Pool(vectors []float32, weights []float64, dim int) []float32 {
	if dim <= 0 || len(weights) == 0 || len(vectors) != len(weights)*dim {
		return nil
	}
	sum := make([]float64, dim)
	for i, w := range weights {
		row := vectors[i*dim : (i+1)*dim]
		for j, x := range row {
			sum[j] += w * float64(x)
		}
	}
	var norm float64
	for _, x := range sum {
		norm += x * x
	}
	norm = math.Sqrt(norm)
	if !(norm > 1e-12) || math.IsInf(norm, 0) { // NaN too
		return nil
	}
	out := make([]float32, dim)
	for j, x := range sum {
		out[j] = float32(x / norm)
	}
	return out
}

// IsChinese says whether a text calls for a Chinese model: at least a fifth of
// its letters are Han and Kana does not say Japanese. A Han character carries
// about as much as an English word, so a fifth of the letters is half the
// matter. Give it a sample of the collection's texts joined together.
func IsChinese(text string) bool {
	var letters, han, kana int
	for _, r := range text {
		switch {
		case r < 0x80:
			if 'a' <= r|0x20 && r|0x20 <= 'z' {
				letters++
			}
		case unicode.Is(unicode.Han, r):
			letters++
			han++
		case unicode.In(r, unicode.Hiragana, unicode.Katakana):
			letters++
			kana++
		case unicode.IsLetter(r):
			letters++
		}
	}
	return han > 0 && 5*han >= letters && 4*kana < han
}

// String writes a passage for a report or a test.
func (p Passage) String() string {
	return fmt.Sprintf("%s(%g): %s", p.Field, p.Weight, p.Body)
}

// TextFields returns the names of the text fields, in order.
func (s Schema) TextFields() []string {
	var names []string
	for _, f := range s.Fields {
		if f.Type == TypeText {
			names = append(names, f.Name)
		}
	}
	return slices.Clip(names)
}
