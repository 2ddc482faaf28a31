package tokenize

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	noLimit      = math.MaxInt
	maxWordChars = 1000 // largest max_input_chars_per_word accepted
)

// scanner is the state of one pass over one text.
type scanner struct {
	t     *Tokenizer
	ids   []int32
	base  int // ids from here on belong to the text
	limit int // of ids of the text
	most  int // len(ids) beyond which the fast pass stops for check

	track    bool // spans are wanted
	spans    []Span
	baseSpan int
	from     []Span // source of each byte of word

	counting bool
	counted  int
	own      []int32 // buffer for ids when the caller gave none

	word      []byte // the folded word so far, at most maxChars characters of it
	chars     int    // its characters, also beyond maxChars
	wordSpan  Span
	pending   []pendingMark
	stop      bool
	truncated bool
}

type pendingMark struct {
	r     rune
	class uint8
	src   Span
}

// countBatch is how many ids pile up before a count takes them.
const countBatch = 4096

// begin appends what stands before the text.
func (s *scanner) begin(ids ...int32) {
	s.ids = append(s.ids, ids...)
	s.base = len(s.ids)
	switch {
	case s.counting:
		s.most = countBatch
	case s.limit == noLimit:
		s.most = noLimit
	default:
		s.most = s.base + s.limit
	}
}

func (s *scanner) run(text string) {
	t, f := s.t, s.t.fold
	for i := 0; i < len(text) && !s.stop; {
		if s.chars == 0 && len(s.pending) == 0 && !s.track {
			if i = s.fast(text, i); i == len(text) || s.stop {
				break
			}
		}
		b := text[i]
		if t.first[b] {
			if n := s.addedAt(text, i); n > 0 {
				i += n
				continue
			}
		}
		if b < utf8.RuneSelf {
			op := f.ascii[b]
			i++
			switch {
			case op&(flagDrop|flagWhite|flagPunct) == 0:
				if len(s.pending) > 0 {
					s.flush()
				}
				if op&flagMap != 0 {
					b = byte(op)
				}
				s.chars++
				if s.chars <= t.maxChars {
					s.word = append(s.word, b)
				}
				if s.track {
					s.note(Span{i - 1, i}, 1)
				}
			case op&flagDrop != 0:
			case op&flagWhite != 0:
				s.endWord()
			default:
				s.put(rune(b), op, Span{i - 1, i})
			}
			continue
		}
		r, n := decodeRune(text[i:])
		src := Span{i, i + n}
		i += n
		op := f.pages[r>>8][r&0xFF]
		if op&flagDrop != 0 {
			if op&flagFlush != 0 {
				s.flush()
			}
			continue
		}
		if op&flagApart != 0 {
			s.endWord()
		}
		switch {
		case op&flagMulti != 0:
			for _, m := range f.multi[op&runeMask] {
				s.put(m, f.props[m>>8][m&0xFF], src)
			}
		case op&flagMap != 0:
			s.put(rune(op&runeMask), op, src)
		case f.hangul && r >= 0xAC00 && r <= 0xD7A3:
			h := r - 0xAC00
			s.put(0x1100+h/588, 0, src)
			s.put(0x1161+h%588/28, 0, src)
			if h%28 != 0 {
				s.put(0x11A7+h%28, 0, src)
			}
		default:
			s.put(r, op, src)
		}
		if op&flagApart != 0 {
			s.endWord()
		}
	}
	if !s.stop {
		s.endWord()
	}
}

// addedAt takes the longest added token that begins at text[i] and returns its length, or 0.
func (s *scanner) addedAt(text string, i int) int {
	for _, a := range s.t.added {
		if strings.HasPrefix(text[i:], a.content) {
			s.endWord()
			if s.stop {
				return len(a.content)
			}
			s.ids = append(s.ids, a.id)
			if s.track {
				s.spans = append(s.spans, Span{i, i + len(a.content)})
			}
			s.check()
			return len(a.content)
		}
	}
	return 0
}

// put takes one folded rune whose properties are in op.
func (s *scanner) put(r rune, op uint32, src Span) {
	if op&flagMark != 0 {
		s.pending = append(s.pending, pendingMark{r, s.t.fold.class[r], src})
		return
	}
	if len(s.pending) > 0 {
		s.flush()
	}
	switch {
	case op&flagWhite != 0:
		s.endWord()
	case op&flagPunct != 0:
		s.endWord()
		s.add(r, src)
		s.endWord()
	default:
		s.add(r, src)
	}
}

// flush adds the waiting marks in canonical order: by class, marks of one class as they came.
func (s *scanner) flush() {
	if len(s.pending) == 0 {
		return
	}
	slices.SortStableFunc(s.pending, func(a, b pendingMark) int { return int(a.class) - int(b.class) })
	for _, m := range s.pending {
		s.add(m.r, m.src)
	}
	s.pending = s.pending[:0]
}

func (s *scanner) add(r rune, src Span) {
	s.chars++
	n := len(s.word)
	if s.chars <= s.t.maxChars {
		s.word = utf8.AppendRune(s.word, r)
	}
	if s.track {
		s.note(src, len(s.word)-n)
	}
}

// note keeps the source of the last n bytes of the word.
func (s *scanner) note(src Span, n int) {
	if s.chars == 1 {
		s.wordSpan, s.from = src, s.from[:0]
	}
	s.wordSpan.End = src.End
	for range n {
		s.from = append(s.from, src)
	}
}

// endWord turns the word into pieces.
func (s *scanner) endWord() {
	s.flush()
	if s.chars == 0 || s.stop {
		return
	}
	t, w, at := s.t, s.word, len(s.ids)
	if s.chars > t.maxChars {
		s.unknown(at)
	} else {
		for node := uint32(0); len(w) > 0; node = t.cont {
			id, end := int32(0), 0
			if node != noNode {
				id, end = t.trie.longest(node, w)
			}
			if end == 0 {
				s.unknown(at)
				break
			}
			s.ids = append(s.ids, id)
			if s.track {
				k := len(s.word) - len(w)
				s.spans = append(s.spans, Span{s.from[k].Start, s.from[k+end-1].End})
			}
			w = w[end:]
		}
	}
	s.word, s.chars = s.word[:0], 0
	s.check()
}

// unknown replaces what the word gave since ids[at] by one unknown token.
func (s *scanner) unknown(at int) {
	if s.track {
		s.spans = append(s.spans[:len(s.spans)-(len(s.ids)-at)], s.wordSpan)
	}
	s.ids = append(s.ids[:at], s.t.unk)
}

// check stops the pass when the limit is passed.
func (s *scanner) check() {
	if s.counting {
		s.counted += len(s.ids)
		s.ids = s.ids[:0]
		return
	}
	if len(s.ids)-s.base > s.limit {
		s.ids = s.ids[:s.base+s.limit]
		if s.track {
			s.spans = s.spans[:s.baseSpan+s.limit]
		}
		s.stop, s.truncated = true, true
	}
}
