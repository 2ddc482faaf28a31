package ingest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/kindred-search/kindred/profile"
)

// stats is what a sample says about one column.
type stats struct {
	present, numbers, ints, lists int
	commas                        int   // numbers with a decimal comma
	fraction                      bool  // one of them has not three digits after it, as thousands have
	bools                         []int // by pair
	times                         []bool
	anyTime                       bool
	distinct                      map[string]int
	chars, words, han             int
	bars, semis                   int
	parts                         map[string]struct{}
	partCount                     int
	sequence                      bool // 0, 1, 2, ... or 1, 2, 3, ...
	low, high                     float64
	samples                       []string
	dated, odd                    int // lists of events; lists with elements that are none
}

func newStats() *stats {
	s := &stats{bools: make([]int, len(boolPairs)), times: make([]bool, len(layouts)), distinct: map[string]int{}, parts: map[string]struct{}{}, sequence: true, anyTime: true}
	for i := range s.times {
		s.times[i] = true
	}
	return s
}

func (s *stats) see(c *cell) {
	if c.kind == cellAbsent || c.kind == cellText && missing(c.raw) {
		return
	}
	s.present++
	if c.kind == cellList {
		s.lists++
		if c.events != nil {
			s.dated++
		}
		if c.odd != "" {
			s.odd++
		}
		for _, e := range c.list {
			s.parts[e] = struct{}{}
			s.partCount++
			s.chars += len(e)
		}
		s.sample(strings.Join(c.list, ", "))
		return
	}
	text := string(c.raw)
	s.sample(text)
	key := text
	if len(key) > 256 {
		key = key[:256]
	}
	s.distinct[key]++
	if f, ok := parseNumber(c.raw); ok && c.kind != cellBool {
		s.numbers++
		if f == float64(int64(f)) {
			s.ints++
		}
		if s.present == 1 {
			s.low, s.high = f, f
		} else if f != s.high+1 {
			s.sequence = false
		}
		s.low, s.high = min(s.low, f), max(s.high, f)
	}
	if at := bytes.IndexByte(c.raw, ','); at > 0 {
		if _, ok := commaNumber(c.raw); ok {
			s.commas++
			s.fraction = s.fraction || len(c.raw)-at != 4
		}
	}
	if _, pair, ok := parseBool(c.raw); ok {
		s.bools[pair]++
	}
	if s.anyTime {
		s.anyTime = false
		for i, ok := range s.times {
			if ok {
				_, s.times[i] = parseTime(layouts[i], c.raw)
				s.anyTime = s.anyTime || s.times[i]
			}
		}
	}
	inWord := false
	for _, r := range text {
		s.chars++
		if r >= 0x2e80 && unicode.Is(unicode.Han, r) {
			s.han++
		}
		if r == ' ' {
			inWord = false
		} else if !inWord {
			inWord = true
			s.words++
		}
	}
	for i, sep := range []string{"|", ";"} {
		if !strings.Contains(text, sep) {
			continue
		}
		if i == 0 {
			s.bars++
		} else {
			s.semis++
		}
		for p := range strings.SplitSeq(text, sep) {
			s.parts[strings.TrimSpace(p)] = struct{}{}
			s.partCount++
		}
		break
	}
}

func (s *stats) sample(text string) {
	text = cut(text, 80)
	if len(s.samples) < 3 && !slices.Contains(s.samples, text) {
		s.samples = append(s.samples, text)
	}
}

func (s *stats) unique() bool { return s.present > 0 && len(s.distinct) == s.present }

// textual says whether values read like sentences rather than labels.
func (s *stats) textual(grouped bool) bool {
	n := float64(s.present)
	if n == 0 || s.numbers == s.present {
		return false
	}
	variety := float64(len(s.distinct)) / n
	length := float64(s.chars+3*s.han) / n // a Han character is about four letters
	words := (float64(s.words) + float64(s.han)/2) / n
	switch {
	case len(s.distinct) < 10 && s.present > 20:
		return false
	case length >= 60 && words >= 6 && variety >= 0.05:
		return true
	case variety >= 0.3 && words >= 2.5 && length >= 12:
		return true
	}
	// Order lines repeat the same description for many customers.
	return grouped && len(s.distinct) > 200 && words >= 3 && length >= 15
}

// FlatName is a column's name without case and punctuation, by which names are known.
func FlatName(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

// idScore says how much a name looks like a customer's id: 3 surely, 2 an id of
// something, 0 not.
func idScore(name string) int {
	flat := FlatName(name)
	switch flat {
	case "id", "customerid", "custid", "userid", "memberid", "clientid", "accountid", "uid", "customer", "user", "member",
		"membernumber", "customernumber", "customerno", "clientnum", "reviewerid", "personid", "visitorid",
		"客户id", "客户编号", "客户号", "用户id", "用户编号", "会员id", "会员编号", "会员号", "编号":
		return 3
	}
	for _, end := range []string{"id", "编号", "number", "no", "code", "num"} {
		if strings.HasSuffix(flat, end) && (end != "id" || idEnding(name)) && (end != "no" || strings.HasSuffix(name, "No")) && (end != "num" || strings.HasSuffix(strings.ToLower(name), "_num")) {
			return 2
		}
	}
	return 0
}

// idEnding tells "Clothing ID" and "userId" from "paid".
func idEnding(name string) bool {
	rest := name[:max(0, len(name)-2)]
	if rest == "" || strings.HasSuffix(name, "ID") || strings.HasSuffix(name, "Id") {
		return true
	}
	last := []rune(rest)[len([]rune(rest))-1]
	return !unicode.IsLetter(last) || last > 0x2e80
}

// guessColumn fills a column's use, type and reason from its sample. whole says
// that the sample is the whole file.
func guessColumn(c *ColumnPlan, s *stats, rows int, whole, grouped bool) {
	c.Missing = 1
	if rows > 0 {
		c.Missing = 1 - float64(s.present)/float64(rows)
	}
	c.Samples = s.samples
	set := func(use Use, typ profile.FieldType, format string, args ...any) {
		c.Use, c.Type, c.Why = use, typ, fmt.Sprintf(format, args...)
	}
	n, distinct := s.present, len(s.distinct)
	for i, ok := range s.times {
		if ok && s.anyTime && n > 0 && s.lists == 0 {
			c.Layout = layouts[i]
			break
		}
	}
	c.Split = ""
	if s.bars > s.semis {
		c.Split = "|"
	} else if s.semis > 0 {
		c.Split = ";"
	}
	c.Comma = s.fraction
	c.Dated = s.dated > 0
	isBool := slices.ContainsFunc(s.bools, func(k int) bool { return k == n && n > 0 })
	nearUnique := n > 50 && float64(distinct) > 0.95*float64(n)
	switch {
	case n == 0 && !whole:
		set(UseField, profile.TypeCategory, "no values in the first %d rows", rows)
	case n == 0:
		set(UseIgnore, "", "no values")
	case 2*s.odd > s.lists:
		set(UseIgnore, "", "lists of objects that are no events: {\"item\" or \"text\", \"at\", \"weight\"} are")
	case s.lists > 0 && s.chars > 60*s.partCount:
		set(UseText, profile.TypeText, "lists of long texts")
	case s.lists > 0:
		set(UseField, profile.TypeSet, "lists")
	case distinct == 1 && n > 1 && s.present == rows && whole:
		set(UseIgnore, "", "the same value in every row")
	case c.Layout != "":
		set(UseField, profile.TypeTime, "dates like %s", c.Layout)
	case isBool && distinct <= 4 && (whole || distinct > 1 && s.numbers == 0):
		// Noughts and ones may be counts that go on further down.
		set(UseField, profile.TypeBool, "two values, yes and no")
	case s.numbers == n && timeName(c.Name) && s.low > 5e8 && s.high < 4e9 && s.ints == n:
		c.Layout = layoutUnix
		set(UseField, profile.TypeTime, "seconds since 1970")
	case s.numbers == n && idScore(c.Name) > 0 && s.ints == n && distinct > 20:
		switch {
		case grouped && distinct > 50:
			set(UseCount, "", "codes, %d different: only their number is kept", distinct)
		case distinct*5 <= n:
			set(UseField, profile.TypeCategory, "codes by their name, not quantities")
		default:
			set(UseIgnore, "", "codes, nearly all different")
		}
	case s.numbers == n:
		set(UseField, profile.TypeNumber, "all numbers")
	case c.Comma && s.numbers+s.commas == n:
		set(UseField, profile.TypeNumber, "all numbers, with a decimal comma")
	case (s.bars+s.semis)*10 >= 3*n && s.partCount > 2*len(s.parts) && s.chars < 40*max(1, s.partCount):
		set(UseField, profile.TypeSet, "values divided by %s", c.Split)
	case s.textual(grouped):
		set(UseText, profile.TypeText, "%d different texts of %d words on average", distinct, max(1, (s.words+s.han/2)/n))
	case grouped && distinct > 200 && (idScore(c.Name) > 0 || codeLike(s)):
		set(UseCount, "", "codes, %d different: only their number is kept", distinct)
	case nearUnique:
		set(UseIgnore, "", "nearly all values differ and do not read like text")
	case s.numbers*100 >= 95*n:
		set(UseField, profile.TypeCategory, "not all are numbers (%d of %d): set the type to number to refuse the others", s.numbers, n)
	default:
		set(UseField, profile.TypeCategory, "%d different values", distinct)
	}
}

func timeName(name string) bool {
	flat := FlatName(name)
	return strings.Contains(flat, "time") || strings.Contains(flat, "date") || strings.Contains(name, "时间") || strings.Contains(name, "日期")
}

// codeLike says whether values are single words, mostly with digits.
func codeLike(s *stats) bool {
	digits := 0
	for v := range s.distinct {
		if strings.ContainsAny(v, "0123456789") && !strings.Contains(v, " ") {
			digits++
		}
	}
	return digits*10 >= 8*len(s.distinct)
}

// sniffHeader says whether the first row names the columns: none of its cells
// is a number or a date, and either a column below is one, or no cell of it
// comes again below.
func sniffHeader(first []string, rest [][]string) bool {
	empty := 0
	for _, v := range first {
		if _, ok := parseNumber([]byte(v)); ok {
			return false
		}
		for _, l := range layouts {
			if _, ok := parseTime(l, []byte(v)); ok {
				return false
			}
		}
		if len(v) > maxIDBytes {
			return false
		}
		if v == "" {
			empty++
		}
	}
	if 2*empty > len(first) {
		return false
	}
	again := 0
	for i, v := range first {
		numbers, n := 0, 0
		for _, r := range rest {
			if i >= len(r) || missing([]byte(r[i])) {
				continue
			}
			n++
			if _, ok := parseNumber([]byte(r[i])); ok {
				numbers++
			}
			if r[i] == v {
				again++
			}
		}
		if n > 0 && numbers*10 >= 9*n {
			return true
		}
	}
	return again == 0
}
