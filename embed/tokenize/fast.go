package tokenize

import (
	"math/bits"
	"unicode/utf8"
)

// What the fast pass does at a byte or character that begins no word in progress: an id to append, or
// one of these.
const (
	actSlow  = int32(-1) // leave it to the general pass
	actWhite = int32(-2)
	actWord  = int32(-3) // an ASCII letter or digit
	actTwo   = int32(-4) // first byte of two
	actThree = int32(-5) // first byte of three
)

// fastTable holds what the fast pass needs: everything about the commonest characters and words in one
// look-up each. It is made once for a tokenizer and never written again.
type fastTable struct {
	byte  [256]int32
	ends  [256]bool // ASCII bytes that end a word
	wide  []int32   // by character below U+10000: an id (the character is a word), actWhite or actSlow
	fold  uint64    // 0x80 in each byte when letters are lowered
	short wordTable // whole words of 1 to 8 ASCII letters and digits
	long  wordTable // of 9 to 15
}

func newFastTable(t *Tokenizer, keys []string, ids []int32, lower bool) *fastTable {
	f := &fastTable{wide: make([]int32, 0x10000)}
	if lower {
		f.fold = highs
	}
	solo := func(r rune, op uint32) int32 {
		switch {
		case op&(flagDrop|flagMulti|flagMark) != 0:
		case op&flagWhite != 0:
			return actWhite
		case op&(flagApart|flagPunct) != 0:
			if op&flagMap != 0 {
				r = rune(op & runeMask)
			}
			if id, ok := t.trie.id(string(r)); ok {
				return id
			}
			return t.unk
		}
		return actSlow
	}
	letters := true // no added token begins inside a run of letters and digits
	for b := range 256 {
		op := uint32(0)
		switch {
		case b < utf8.RuneSelf:
			op = t.fold.ascii[b]
			f.ends[b] = op&flagDrop == 0 && op&(flagWhite|flagPunct) != 0
			f.byte[b] = solo(rune(b), op)
		case b >= 0xC2 && b <= 0xDF:
			f.byte[b] = actTwo
		case b >= 0xE1 && b <= 0xEF: // not E0, whose second byte would have to be checked
			f.byte[b] = actThree
		default:
			f.byte[b] = actSlow
		}
		if t.first[b] {
			f.byte[b] = actSlow
			letters = letters && !isAlnum(byte(b))
		}
	}
	for b := range byte(utf8.RuneSelf) {
		if letters && isAlnum(b) {
			f.byte[b] = actWord
		}
	}
	for r := range f.wide {
		f.wide[r] = actSlow
		if r >= utf8.RuneSelf && (r < 0xD800 || r > 0xDFFF) {
			f.wide[r] = solo(rune(r), t.fold.pages[r>>8][r&0xFF])
		}
	}
	var short, long []word
	for i, k := range keys {
		if k == "" || len(k) > 15 || len(k) > t.maxChars || !allAlnum(k) {
			continue
		}
		w := word{id: ids[i]}
		for j := range len(k) {
			w.key[j>>3] |= uint64(k[j]) << (j & 7 * 8)
		}
		if len(k) <= 8 {
			short = append(short, w)
		} else {
			long = append(long, w)
		}
	}
	f.short, f.long = newWordTable(short), newWordTable(long)
	return f
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z'
}

func allAlnum(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return true
}

// word is up to 16 bytes, the first in the lowest bits, zeros behind.
type word struct {
	key [2]uint64
	id  int32
}

// wordTable is a hash table with linear probing over at most maxProbes slots. A word that finds no slot
// in reach is left out: the trie answers for it.
type wordTable struct {
	slots []word // 1<<(64-shift) and maxProbes more
	shift uint
}

const maxProbes = 16

func newWordTable(words []word) wordTable {
	n := max(2*len(words), 16)
	t := wordTable{shift: uint(64 - bits.Len(uint(n-1)))}
	t.slots = make([]word, 1<<(64-t.shift)+maxProbes)
	for _, w := range words {
		at := t.at(w.key[0], w.key[1])
		for i := at; i < at+maxProbes; i++ {
			if t.slots[i].key[0] == 0 {
				t.slots[i] = w
				break
			}
		}
	}
	return t
}

func (t *wordTable) at(a, b uint64) uint64 {
	return (a*0x9E3779B97F4A7C15 ^ b*0xD6E8FEB86659FD93) >> (t.shift & 63)
}

// find returns the id of a word, or -1.
func (t *wordTable) find(a, b uint64) int32 {
	at := t.at(a, b)
	slots := t.slots[at : at+maxProbes]
	for i := range slots {
		w := &slots[i]
		if w.key[0] == a && w.key[1] == b {
			return w.id
		}
		if w.key[0] == 0 {
			break
		}
	}
	return -1
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// load8 is the eight bytes of s from i, the first lowest, with zeros beyond its end.
func load8(s string, i int) uint64 {
	if i+8 <= len(s) {
		b := s[i : i+8]
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
	}
	if len(s) >= 8 {
		b := s[len(s)-8:]
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		return x >> uint(8*(i+8-len(s)))
	}
	x := uint64(0)
	for k := i; k < len(s); k++ {
		x |= uint64(s[k]) << uint(8*(k-i))
	}
	return x
}

// alnum8 takes eight bytes at once: n is how many from the lowest on are ASCII letters or digits, key
// those bytes alone, with letters lowered where fold has 0x80.
func alnum8(x, fold uint64) (key uint64, n int) {
	y := x &^ highs
	letter := y | 0x20*ones
	letter = (letter + 0x1F*ones) &^ (letter + 0x05*ones) // 0x80 where it is 'a' to 'z'
	digit := (y + 0x50*ones) &^ (y + 0x46*ones)           // where it is '0' to '9'
	n = bits.TrailingZeros64(^((letter|digit)&^x)&highs) >> 3
	return (x | letter&fold>>2) & (1<<uint(8*n) - 1), n
}

// fast takes text from i on, where no word is in progress, and returns where the general pass must go on
// for one step: at a character that may join its neighbours or vanish, at what may be an added token, or
// at a word that it does not know to end. It wants no spans.
func (s *scanner) fast(text string, i int) int {
	f, ids := s.t.fast, s.ids
loop:
	for i < len(text) && len(ids) <= s.most {
		act := f.byte[text[i]]
		switch {
		case act >= 0:
			ids = append(ids, act)
			i++
		case act == actWhite:
			i++
		case act == actWord:
			a, n := alnum8(load8(text, i), f.fold)
			var b uint64
			var id int32
			if n < 8 {
				id = f.short.find(a, 0)
			} else {
				more := 0
				if b, more = alnum8(load8(text, i+8), f.fold); more == 8 {
					break loop
				}
				if n += more; n == 8 {
					id = f.short.find(a, 0)
				} else {
					id = f.long.find(a, b)
				}
			}
			if end := i + n; end < len(text) && !f.ends[text[end]] && !f.apart(text, end) {
				break loop
			}
			i += n
			if id >= 0 {
				ids = append(ids, id)
				break
			}
			s.ids, s.chars = ids, n
			for k := range n {
				if k == 8 {
					a = b
				}
				s.word = append(s.word, byte(a>>uint(k&7*8)))
			}
			s.endWord()
			ids = s.ids
			if s.stop {
				break loop
			}
		default:
			id, n := f.wideAt(text, i)
			if id == actSlow {
				break loop
			}
			if id >= 0 {
				ids = append(ids, id)
			}
			i += n
		}
	}
	s.ids = ids
	if !s.stop {
		s.check()
	}
	return i
}

// wideAt looks up a character of two or three bytes; actSlow for anything else.
func (f *fastTable) wideAt(text string, i int) (id int32, n int) {
	b := text[i]
	switch f.byte[b] {
	case actThree:
		if i+2 < len(text) && text[i+1]&0xC0 == 0x80 && text[i+2]&0xC0 == 0x80 {
			return f.wide[int(b&0xF)<<12|int(text[i+1]&0x3F)<<6|int(text[i+2]&0x3F)], 3
		}
	case actTwo:
		if i+1 < len(text) && text[i+1]&0xC0 == 0x80 {
			return f.wide[int(b&0x1F)<<6|int(text[i+1]&0x3F)], 2
		}
	}
	return actSlow, 0
}

// apart says that the character at text[i] surely ends the word before it.
func (f *fastTable) apart(text string, i int) bool {
	id, _ := f.wideAt(text, i)
	return id != actSlow
}
