package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/ingest"
)

// decay reads --half-life, --as-of and --time-column.
func (f *fileFlags) decay(opt *ingest.Options) error {
	if f.halfLife == "" && f.asOf == "" && f.timeColumn == "" {
		return nil
	}
	if f.halfLife == "" || f.asOf == "" {
		return fmt.Errorf("--half-life %q, --as-of %q: they go together: how fast rows, or dated elements of lists, lose weight, and from when", f.halfLife, f.asOf)
	}
	days, err := strconv.ParseFloat(strings.TrimSuffix(f.halfLife, "d"), 64)
	if err != nil || !(days > 0 && days <= 1e6) {
		return fmt.Errorf("--half-life %q: want days, such as 90d", f.halfLife)
	}
	opt.HalfLife, opt.TimeColumn = days, f.timeColumn
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, f.asOf); err == nil {
			opt.AsOf = t
			return nil
		}
	}
	return fmt.Errorf("--as-of %q: want a time such as 2011-12-01 or 2011-12-01T12:00:00Z", f.asOf)
}
