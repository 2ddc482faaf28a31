package export

import (
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/audience"
)

// Number writes x with as few digits as give x again when read as a float32: a score of
// a file is then the very threshold that it names.
func Number(x float32) string { return strconv.FormatFloat(float64(x), 'g', -1, 32) }

// Reasons lists the parts of a score, "text +2.125; age -0.3", in the parts' order and
// with digits enough that what is read adds up to the score as the parts do.
func Reasons(parts []audience.Part) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.Of + " ")
		if !(p.Value < 0) {
			b.WriteByte('+')
		}
		b.WriteString(Number(p.Value))
	}
	return b.String()
}

// Cell keeps a spreadsheet from running a cell of a CSV file as a formula: a quote is
// set before what begins like one (full-width forms, which some spreadsheets take for
// the plain ones, included), unless it is a number.
func Cell(s string) string {
	rest := strings.TrimLeft(s, " ")
	if rest == "" || !strings.ContainsAny(rest[:1], "=+-@\t\r\n") && !strings.HasPrefix(rest, "＝") && !strings.HasPrefix(rest, "＋") && !strings.HasPrefix(rest, "－") && !strings.HasPrefix(rest, "＠") {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
}
