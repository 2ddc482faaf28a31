package ingest

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/profile"
)

// missing says whether a cell's text stands for no value.
func missing(b []byte) bool {
	switch len(b) {
	case 0:
		return true
	case 1:
		return b[0] == '?'
	case 2, 3, 4:
		switch string(b) {
		case "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "Null", `\N`, "#N/A":
			return true
		}
	}
	return false
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseNumber reads a decimal number. Up to 15 digits the quotient of two exact
// numbers is the nearest one; the rest goes to strconv.
func parseNumber(b []byte) (float64, bool) {
	var mant uint64
	digits, frac, at := 0, 0, 0
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		at = 1
	}
	point := false
	for ; at < len(b); at++ {
		c := b[at]
		if c >= '0' && c <= '9' {
			mant = mant*10 + uint64(c-'0')
			digits++
			if point {
				frac++
			}
			if digits > 15 {
				return slowNumber(b)
			}
			continue
		}
		if c == '.' && !point {
			point = true
			continue
		}
		if c == 'e' || c == 'E' {
			return slowNumber(b)
		}
		return 0, false
	}
	if digits == 0 {
		return 0, false
	}
	f := float64(mant)
	if frac > 0 {
		f /= pow10[frac]
	}
	if b[0] == '-' {
		f = -f
	}
	return f, true
}

// commaNumber reads a number written with a decimal comma, or a plain one.
func commaNumber(b []byte) (float64, bool) {
	at := bytes.IndexByte(b, ',')
	if at < 1 || at == len(b)-1 || len(b) > 40 || bytes.IndexByte(b, '.') >= 0 {
		return parseNumber(b)
	}
	var buf [40]byte
	n := copy(buf[:], b)
	buf[at] = '.'
	return parseNumber(buf[:n])
}

func slowNumber(b []byte) (float64, bool) {
	for _, c := range b {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false // hexadecimal, inf, underscores
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// boolPairs are the spellings of a Bool column: false, true.
var boolPairs = [][2]string{{"0", "1"}, {"no", "yes"}, {"false", "true"}, {"n", "y"}, {"f", "t"}, {"否", "是"}}

func parseBool(b []byte) (v float64, pair int, ok bool) {
	if len(b) == 0 || len(b) > 5 {
		return 0, 0, false
	}
	for i, p := range boolPairs {
		for j := range p {
			if len(b) == len(p[j]) && bytes.EqualFold(b, []byte(p[j])) {
				return float64(j), i, true
			}
		}
	}
	return 0, 0, false
}

// layouts are tried in this order; a column takes the first that reads all of
// its values. With slashes the month comes first unless a value says otherwise.
var layouts = []string{
	time.DateTime, time.RFC3339, time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02 15:04:05.999999999-07:00",
	"2006/1/2 15:04:05", "2006/1/2 15:04", "2006/1/2",
	"1/2/2006 15:04:05", "1/2/2006 15:04", "1/2/2006", "2/1/2006 15:04:05", "2/1/2006 15:04", "2/1/2006",
	"02-01-2006 15:04:05", "02-01-2006 15:04", "02-01-2006", "01-02-2006", "2.1.2006 15:04", "2.1.2006",
	"01 2, 2006", "Jan 2, 2006", "2 Jan 2006", "2006年1月2日",
}

// layoutUnix marks seconds since 1970.
const layoutUnix = "unix"

func parseTime(layout string, b []byte) (float64, bool) {
	if layout == layoutUnix {
		return parseNumber(b)
	}
	if len(b) < 6 || len(b) > 40 {
		return 0, false
	}
	t, err := time.Parse(layout, string(b))
	if err != nil {
		return 0, false
	}
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9, true
}

// splitSet cuts a set's cell into distinct elements, ascending.
func splitSet(c *cell, sep string) []string {
	var set []string
	if c.kind == cellList {
		for _, e := range c.list {
			if e = strings.TrimSpace(e); e != "" {
				set = append(set, e)
			}
		}
	} else {
		text := string(c.raw)
		parts := []string{text}
		if sep != "" {
			parts = strings.Split(text, sep)
		}
		for _, e := range parts {
			if e = strings.TrimSpace(e); e != "" {
				set = append(set, e)
			}
		}
	}
	slices.Sort(set)
	return slices.Compact(set)
}

// eventsOf are a list's elements as events, those of a set without space around them;
// nil where none has a time or a weight.
func eventsOf(c *cell) []profile.Event {
	var out []profile.Event
	for _, e := range c.events {
		if e.Item = strings.TrimSpace(e.Item); e.Item != "" {
			out = append(out, e)
		}
	}
	return out
}

// idText is an id as text: "17850.0", as spreadsheets and data frames write
// whole numbers, is "17850".
func idText(c *cell) string {
	if c.kind == cellAbsent || c.kind == cellList {
		return ""
	}
	raw := c.raw
	if head, ok := bytes.CutSuffix(raw, []byte(".0")); ok && len(head) > 0 {
		if !slices.ContainsFunc(head, func(b byte) bool { return b < '0' || b > '9' }) {
			raw = head
		}
	}
	return string(raw)
}
