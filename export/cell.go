package export

import (
	"strconv"
	"strings"
)

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
