package phrases

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Cutter cuts texts into words. It is safe for concurrent use.
type Cutter struct {
	zh *chinese
}

// NewCutter returns a Cutter. The Chinese dictionary is read when the first
// Chinese text comes, and let go with the last Cutter that used it.
func NewCutter() *Cutter { return &Cutter{zh: &chinese{}} }

// longest is the length of the longest word, in bytes: what is longer is no word.
const longest = 48

// maxGram is the most words of a phrase.
const maxGram = 3

// word is one token with what it may be in a phrase.
type word struct {
	text string
	role role
	han  bool
	end  bool // punctuation follows: no phrase goes on from here
}

// role is where in a phrase a word may be.
type role uint8

const (
	content role = iota // anywhere
	partner             // at either end, not alone: single characters
	opener              // at the beginning of more: negations and degrees
	filler              // within only
)

// Words returns the words of a text in order, in lower case, without
// punctuation, links, addresses and @names.
func (c *Cutter) Words(text string) []string {
	var out []string
	c.each(text, func(w word) bool {
		if w.text != "" {
			out = append(out, w.text)
		}
		return true
	})
	return out
}

// phrases calls visit for each phrase of a text, repeated ones too, looking at
// up to left words, and returns how many are left.
func (c *Cutter) phrases(text string, left int, visit func(string)) int {
	if left <= 0 {
		return 0
	}
	var run []word // the last words with nothing between
	c.each(text, func(w word) bool {
		if w.text == "" {
			run = run[:0]
			return true
		}
		left--
		run = append(run, w)
		if len(run) > maxGram {
			run = run[len(run)-maxGram:]
		}
		switch w.role {
		case content:
			visit(w.text)
			fallthrough
		case partner:
			for n := 2; n <= len(run); n++ {
				if part := run[len(run)-n:]; part[0].role != filler {
					visit(join(part))
				}
			}
		}
		if w.end {
			run = run[:0]
		}
		return left > 0
	})
	return left
}

func join(part []word) string {
	var b strings.Builder
	for i, w := range part {
		if i > 0 && (!w.han || !part[i-1].han) {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// each cuts a text and hands over its words in order; one without text is a
// break between them. It ends when visit says so.
func (c *Cutter) each(text string, visit func(word) bool) {
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRuneInString(text[at:])
		switch {
		case unicode.IsSpace(r):
			at += n
		case isHan(r):
			end := at + n
			for end < len(text) {
				r, n := utf8.DecodeRuneInString(text[end:])
				if !isHan(r) {
					break
				}
				end += n
			}
			for _, w := range c.zh.cut(text[at:end]) {
				if !visit(word{text: w, role: hanRole(w), han: true}) {
					return
				}
			}
			at = end
		case r == '@' || r == '#' || isWord(r):
			w, end := spaced(text, at)
			if !visit(w) {
				return
			}
			at = end
		default:
			at += n
			if !visit(word{}) {
				return
			}
		}
	}
}

// spaced reads a word of a script with spaces. Links, addresses and @names are
// breaks: they point to someone or somewhere.
func spaced(text string, at int) (word, int) {
	end := at
	mark := text[at] == '@'
	if mark || text[at] == '#' {
		end++
	}
	from := end
	link := false
	for end < len(text) {
		r, n := utf8.DecodeRuneInString(text[end:])
		switch {
		case isWord(r):
		case (r == '\'' || r == '’' || r == '-' || r == '_') && end > from && followed(text[end+n:]):
		case (r == '@' || r == '.' || r == ':' || r == '/') && end > from && (link || linkAt(text[from:end], text[end:])):
			link = true
		default:
			n = 0
		}
		if n == 0 {
			break
		}
		end += n
	}
	if end == from { // a lone @ or #
		return word{}, end
	}
	w := strings.ToLower(strings.ReplaceAll(text[from:end], "’", "'"))
	w = strings.TrimSuffix(w, "'s")
	if mark || link || len(w) > longest || w == "" {
		return word{}, end
	}
	return word{text: w, role: spacedRole(w)}, end
}

// linkAt says whether a dot, colon, slash or @ in the middle makes a link or an
// address of what it joins.
func linkAt(before, rest string) bool {
	switch {
	case strings.HasPrefix(rest, "://"):
		return true
	case rest[0] == '@':
		return followed(rest[1:])
	case rest[0] == '.':
		return strings.EqualFold(before, "www") && followed(rest[1:])
	}
	return false
}

func followed(rest string) bool {
	r, _ := utf8.DecodeRuneInString(rest)
	return isWord(r)
}

func isHan(r rune) bool { return r >= 0x2e80 && unicode.Is(unicode.Han, r) }

func isWord(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.M, r)) && !isHan(r)
}
