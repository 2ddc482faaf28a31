package collection

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
)

// ReadOutcomes reads a file of outcomes and visits them in order with their line
// (of an array: their number), or with what is wrong with one. The format is
// "csv" (a header with id and outcome and, if there are any, value, at and
// group), "ndjson" or "json", an array. An error of the file itself, or of visit,
// ends the reading.
func ReadOutcomes(r io.Reader, format string, visit func(line int, o CustomerOutcome, err error) error) error {
	switch format {
	case "csv":
		return csvOutcomes(r, visit)
	case "ndjson":
		return lineOutcomes(r, visit)
	case "json":
		var list []json.RawMessage
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &list); err != nil {
			return faultf("body", "not a JSON array of outcomes such as [{\"id\": \"c1\", \"outcome\": 1}]: %s", jsonProblem(err))
		}
		for i, one := range list {
			o, err := parseOutcome(one)
			if err := visit(i+1, o, err); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("outcomes as %q: want csv, ndjson or json: %w", format, index.ErrInvalid)
}

// maxOutcome is the longest line of a file of outcomes, in bytes.
const maxOutcome = 64 << 10

func lineOutcomes(r io.Reader, visit func(line int, o CustomerOutcome, err error) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxOutcome)
	n := 0
	for in.Scan() {
		n++
		raw := bytes.TrimSpace(in.Bytes())
		if len(raw) == 0 {
			continue
		}
		o, err := parseOutcome(raw)
		if err := visit(n, o, err); err != nil {
			return err
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return faultf("body", "line %d has more than %d bytes: that is no outcome", n+1, maxOutcome)
	}
	return in.Err()
}

// parseOutcome reads one outcome from JSON.
func parseOutcome(raw []byte) (CustomerOutcome, error) {
	var out CustomerOutcome
	if !utf8.Valid(raw) {
		return out, faultf("body", "not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return out, faultf("body", "%s", jsonProblem(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return out, faultf("body", "more than one JSON value: send one outcome a line")
	}
	return out, out.check()
}

func csvOutcomes(body io.Reader, visit func(line int, o CustomerOutcome, err error) error) error {
	r := csv.NewReader(body)
	r.FieldsPerRecord, r.ReuseRecord = -1, true
	head, err := r.Read()
	var fault *csv.ParseError
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &fault) {
		return err
	}
	columns := map[string]int{}
	for i, name := range head {
		columns[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	_, hasID := columns["id"]
	_, hasOutcome := columns["outcome"]
	if err != nil || !hasID || !hasOutcome {
		return faultf("body", "the first line must name the columns: id,outcome and, if there are any, value,at,group")
	}
	for {
		row, err := r.Read()
		var o CustomerOutcome
		var line int
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &fault):
			line, err = fault.StartLine, faultf("body", "%s", fault.Err)
		case err != nil:
			return err
		default:
			line, _ = r.FieldPos(0)
			o, err = csvOutcome(row, columns)
		}
		if err := visit(line, o, err); err != nil {
			return err
		}
	}
}

// csvOutcome reads one row; empty cells are absent.
func csvOutcome(row []string, columns map[string]int) (out CustomerOutcome, err error) {
	cell := func(name string) string {
		if at, there := columns[name]; there && at < len(row) {
			return strings.TrimSpace(row[at])
		}
		return ""
	}
	if at := columns["id"]; at < len(row) {
		out.ID = strings.Clone(row[at])
	}
	var faults []error
	if raw := cell("outcome"); raw != "" {
		out.Outcome = new(Converted)
		if out.Outcome.UnmarshalJSON([]byte(strings.ToLower(raw))) != nil {
			faults = append(faults, faultf("outcome", "%.20q: want 0 or 1", raw))
		}
	}
	if raw := cell("value"); raw != "" {
		v, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			faults = append(faults, faultf("value", "%.20q: not a number", raw))
		}
		out.Value = &v
	}
	if raw := cell("at"); raw != "" {
		v, err := time.Parse(time.RFC3339, raw)
		if err != nil {
			faults = append(faults, faultf("at", "%.40q: want a time such as 2026-03-01T12:00:00Z", raw))
		}
		out.At = &v
	}
	out.Group = strings.Clone(cell("group"))
	return out, errors.Join(append(faults, out.check())...)
}
