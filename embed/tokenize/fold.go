package tokenize

import "unicode/utf8"

type runeRange struct{ lo, hi rune }

type classedRune struct {
	r     rune
	class uint8
}

type lowerRun struct{ lo, hi, stride, delta rune }

type runeString struct {
	r rune
	s string
}

// foldOptions are the four switches of the reference's BertNormalizer.
type foldOptions struct {
	clean, chinese, strip, lower bool
}

// What happens to one input rune. A single lookup also tells what the output rune is.
const (
	runeMask  = 1<<21 - 1
	flagMap   = 1 << 21 // the output is the rune of the low bits
	flagMulti = 1 << 22 // the output is multi[low bits]
	flagDrop  = 1 << 23 // nothing comes out
	flagFlush = 1 << 24 // dropped, but marks are not reordered across it
	flagApart = 1 << 25 // a word of its own, with whatever it maps to
	flagWhite = 1 << 26 // the output separates words
	flagPunct = 1 << 27 // the output is a word of its own
	flagMark  = 1 << 28 // the output is a non-starter: it waits for canonical ordering
)

type foldPage [256]uint32

// foldTable maps every code point under one set of options. Equal pages are shared, so it takes
// some hundred kilobytes.
type foldTable struct {
	pages  [0x1100]*foldPage // by input rune
	props  [0x1100]*foldPage // by output rune: only white, punct and mark
	multi  []string
	class  map[rune]uint8 // combining classes of the runes with flagMark
	hangul bool           // decompose syllables
	ascii  [128]uint32
}

func newFoldTable(o foldOptions) *foldTable {
	f := &foldTable{class: map[rune]uint8{}, hangul: o.strip}
	props := make([]uint32, 0x110000)
	each(whiteRanges, func(r rune) { props[r] |= flagWhite })
	each(punctRanges, func(r rune) { props[r] |= flagPunct })
	lower := map[rune]string{}
	if o.lower {
		for _, l := range lowerRuns {
			for r := l.lo; r <= l.hi; r += l.stride {
				lower[r] = string(r + l.delta)
			}
		}
		for _, l := range lowerStrings {
			lower[l.r] = l.s
		}
	}
	out := map[rune]string{}
	for r, s := range lower {
		out[r] = s
	}
	if o.strip {
		for _, m := range keptMarks {
			props[m.r] |= flagMark
			f.class[m.r] = m.class
		}
		for _, d := range decompositions {
			s := ""
			for _, r := range d.s {
				if l, ok := lower[r]; ok {
					s += l
				} else {
					s += string(r)
				}
			}
			out[d.r] = s
		}
	}
	ops := make([]uint32, 0x110000)
	copy(ops, props)
	for r, s := range out {
		first, n := utf8.DecodeRuneInString(s)
		if n == len(s) {
			ops[r] = flagMap | uint32(first) | props[first]
		}
	}
	for _, d := range decompositions { // in table order, so that equal options give equal tables
		f.addMulti(ops, d.r, out[d.r])
	}
	for _, l := range lowerStrings {
		f.addMulti(ops, l.r, out[l.r])
	}
	if o.strip {
		each(markRanges, func(r rune) { ops[r] = flagDrop })
		each(starterMarkRanges, func(r rune) { ops[r] = flagDrop | flagFlush })
	}
	if o.chinese {
		each(chineseRanges, func(r rune) { ops[r] |= flagApart })
	}
	if o.clean {
		each(dropRanges, func(r rune) { ops[r] = flagDrop })
	}
	copy(f.ascii[:], ops[:128])
	intern := map[foldPage]*foldPage{}
	for p := range f.pages {
		f.pages[p] = page(intern, ops[p<<8:])
		f.props[p] = page(intern, props[p<<8:])
	}
	return f
}

func (f *foldTable) addMulti(ops []uint32, r rune, s string) {
	if s == "" || utf8.RuneCountInString(s) < 2 || ops[r]&flagMulti != 0 {
		return
	}
	ops[r] = flagMulti | uint32(len(f.multi))
	f.multi = append(f.multi, s)
}

func page(intern map[foldPage]*foldPage, from []uint32) *foldPage {
	var p foldPage
	copy(p[:], from[:256])
	if old, ok := intern[p]; ok {
		return old
	}
	intern[p] = &p
	return &p
}

func each(rs []runeRange, do func(rune)) {
	for _, r := range rs {
		for c := r.lo; c <= r.hi; c++ {
			do(c)
		}
	}
}

// decodeRune is utf8.DecodeRuneInString, except that one U+FFFD stands for a whole maximal subpart of
// an ill-formed sequence (Unicode 3.9, as Python and browsers replace), not for each of its bytes.
func decodeRune(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r != utf8.RuneError || n != 1 {
		return r, n
	}
	lo, hi, want := byte(0x80), byte(0xBF), 0
	switch b := s[0]; {
	case b >= 0xC2 && b <= 0xDF:
		want = 1
	case b >= 0xE0 && b <= 0xEF:
		want = 2
		if b == 0xE0 {
			lo = 0xA0
		} else if b == 0xED {
			hi = 0x9F
		}
	case b >= 0xF0 && b <= 0xF4:
		want = 3
		if b == 0xF0 {
			lo = 0x90
		} else if b == 0xF4 {
			hi = 0x8F
		}
	}
	n = 1
	for n <= want && n < len(s) && s[n] >= lo && s[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return utf8.RuneError, n
}
