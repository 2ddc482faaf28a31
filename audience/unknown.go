package audience

import (
	"strings"
	"unicode/utf8"

	unicodenorm "golang.org/x/text/unicode/norm"

	"github.com/kindred-search/kindred/index"
)

const (
	maxUnmatched = 10    // unknown ids that the doctor names
	maxNamed     = 64    // bytes of each
	maxTried     = 10000 // unknown ids that other spellings are tried of
)

// unknown collects ids that match nobody.
type unknown struct {
	named []string
	tried int
	by    [len(spellings)]int // how many another spelling of would match
}

// spellings are ways in which lists from other programs spell the same id.
var spellings = [...]struct {
	words string
	of    func(string) string
}{
	{"without the white space around them", strings.TrimSpace},
	{"in another Unicode form (NFC)", unicodenorm.NFC.String},
	{"in another Unicode form (NFD)", unicodenorm.NFD.String},
	{"without \".0\" at the end", func(id string) string { return strings.TrimSuffix(id, ".0") }},
	{"without zeros in front", func(id string) string { return strings.TrimLeft(id, "0") }},
	{"in lower case", strings.ToLower},
	{"in upper case", strings.ToUpper},
}

func (u *unknown) add(snap index.Rows, id string) {
	if len(u.named) < maxUnmatched {
		u.named = append(u.named, clipped(id))
	}
	if u.tried++; u.tried > maxTried {
		return
	}
	for i, s := range spellings {
		if other := s.of(id); other != id && other != "" {
			if _, ok := snap.Find(other); ok {
				u.by[i]++
				return
			}
		}
	}
}

// advise notes what spelling would match.
func (u *unknown) advise(d *Doctor) {
	for i, n := range u.by {
		if n > 0 {
			d.warn("%d of the unknown ids would match %s", n, spellings[i].words)
		}
	}
}

// clipped is an id short enough to be shown.
func clipped(id string) string {
	if len(id) <= maxNamed {
		return id
	}
	end := maxNamed
	for end > 0 && !utf8.RuneStart(id[end]) {
		end--
	}
	return id[:end] + "…"
}
