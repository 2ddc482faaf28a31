package ingest

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// canonicalEncoding maps the usual names to ours.
func canonicalEncoding(name string) string {
	switch n := strings.ToLower(strings.TrimSpace(name)); n {
	case "utf8", "utf-8-sig", "ascii", "us-ascii":
		return "utf-8"
	case "gbk", "gb2312", "cp936", "gb-18030":
		return "gb18030"
	case "utf16", "utf-16", "utf16le", "ucs-2":
		return "utf-16le" // a byte order mark still wins
	case "utf16be":
		return "utf-16be"
	case "latin1", "latin-1", "iso-8859-1", "cp1252", "windows1252":
		return "windows-1252"
	default:
		return n
	}
}

// sniffEncoding guesses the encoding of a file from its beginning; note is a
// sentence when the guess is weak. whole says that data is all there is.
//
// Order: byte order marks; zero bytes, which only UTF-16 has in text; UTF-8,
// which other encodings hardly imitate; GB18030, when the pairs of high bytes
// are the characters that people write (GB 2312's rows); Windows-1252 last,
// because nothing can contradict it.
func sniffEncoding(data []byte, whole bool) (enc, note string) {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return "utf-8", ""
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return "utf-16le", ""
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return "utf-16be", ""
	}
	if zeros := bytes.Count(data, []byte{0}); zeros > 0 && zeros*200 >= len(data) {
		var even int
		for i := 0; i < len(data); i += 2 {
			if data[i] == 0 {
				even++
			}
		}
		switch odd := zeros - even; {
		case even > 4*odd:
			return "utf-16be", "no byte order mark: taken for UTF-16, high byte first"
		case odd > 4*even:
			return "utf-16le", "no byte order mark: taken for UTF-16, low byte first"
		}
	}
	good, bad := 0, 0
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			if !whole && !utf8.FullRune(data[i:]) {
				break // cut by the end of the sample
			}
			bad++
		} else {
			good++
		}
		i += n
	}
	if bad == 0 {
		return "utf-8", ""
	}
	if good > 20*bad {
		return "utf-8", "some bytes are not valid UTF-8: their rows are refused"
	}
	if pairs, common, broken := gbPairs(data, whole); pairs > 0 && broken*50 <= pairs && common*10 >= pairs*8 {
		return "gb18030", "no byte order mark and not UTF-8: taken for GB18030"
	}
	return "windows-1252", "neither UTF-8 nor GB18030: taken for Windows-1252; set the encoding if letters look wrong"
}

// gbPairs counts characters of GB18030 beyond ASCII, those of them in the rows
// of GB 2312 that hold punctuation and the 6,763 common characters, and broken
// sequences.
func gbPairs(data []byte, whole bool) (pairs, common, broken int) {
	for i := 0; i < len(data); {
		c := data[i]
		if c < 0x80 {
			i++
			continue
		}
		if i+1 >= len(data) {
			if whole {
				broken++
			}
			return pairs, common, broken
		}
		d := data[i+1]
		switch {
		case c == 0x80 || c == 0xff:
			broken++
			i++
		case d >= 0x30 && d <= 0x39: // four bytes
			if i+3 >= len(data) {
				return pairs, common, broken
			}
			if e, f := data[i+2], data[i+3]; e >= 0x81 && e <= 0xfe && f >= 0x30 && f <= 0x39 {
				pairs++
				i += 4
			} else {
				broken++
				i++
			}
		case d >= 0x40 && d <= 0xfe && d != 0x7f:
			pairs++
			if d >= 0xa1 && (c >= 0xa1 && c <= 0xa3 || c >= 0xb0 && c <= 0xf7) {
				common++
			}
			i += 2
		default:
			broken++
			i++
		}
	}
	return pairs, common, broken
}
