package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Seed is one customer of a seed list.
type Seed struct {
	ID     string
	Weight float64 // 1 when the list has no weights
}

// maxSeedFaults is how many bad lines an error names.
const maxSeedFaults = 20

// ReadSeeds reads a seed list: ids one a line, CSV, NDJSON or Parquet. The id is
// the column IDColumn, else the first of like (such as the name of the
// customers' own id column) that is there, else the one named like an id, else
// the first; weights are in a column named weight, if there is one. A header is known by an id-like
// name, or given by opt.Header. All bad lines are reported, joined: empty ids,
// weights that are not finite or below zero.
func ReadSeeds(ctx context.Context, path string, opt Options, like ...string) ([]Seed, error) {
	p := &Plan{Path: path, opt: opt, Encoding: "utf-8"}
	s, err := openStream(path)
	if err != nil {
		return nil, fmt.Errorf("read seeds: %w", err)
	}
	head, whole, err := s.head()
	if err == nil {
		p.Compression = s.compression
		err = p.sniff(append([]byte(nil), head...), whole)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return nil, fmt.Errorf("read seeds from %s: %w", path, err)
	}
	src, err := p.source(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("read seeds from %s: %w", path, err)
	}
	seeds, err := readSeeds(ctx, src.rows, opt, like)
	if err = errors.Join(err, src.rows.Close()); err != nil {
		return nil, fmt.Errorf("read seeds from %s: %w", path, err)
	}
	return seeds, nil
}

func readSeeds(ctx context.Context, rows rowSource, opt Options, like []string) ([]Seed, error) {
	named, hasNames := rows.(interface{ columnNames() []string })
	id, weight := 0, -1
	first := !hasNames
	var seeds []Seed
	var faults []error
	fault := func(err error) {
		if len(faults) < maxSeedFaults {
			faults = append(faults, err)
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *RowError
		if errors.As(err, &bad) {
			fault(bad)
			continue
		}
		if err != nil {
			return nil, err
		}
		if hasNames {
			if id, weight, err = seedColumns(named.columnNames(), wanted(named.columnNames(), opt.IDColumn, like)); err != nil {
				return nil, err
			}
		} else if first {
			first = false
			names := make([]string, len(r.cells))
			for i, c := range r.cells {
				names[i] = string(c.raw)
			}
			want := wanted(names, opt.IDColumn, like)
			header := want != "" || slices.ContainsFunc(names, func(n string) bool { return idScore(n) > 0 })
			if opt.Header != nil {
				header = *opt.Header
			}
			if header {
				if id, weight, err = seedColumns(names, want); err != nil {
					return nil, err
				}
				continue
			}
		}
		seed := Seed{Weight: 1}
		if id < len(r.cells) {
			seed.ID = idText(&r.cells[id])
		}
		switch {
		case seed.ID == "":
			fault(&RowError{Line: r.line, Reason: "no id"})
			continue
		case len(seed.ID) > maxIDBytes:
			fault(&RowError{Line: r.line, ID: seed.ID[:32], Reason: "the id is longer than 256 bytes"})
			continue
		}
		if weight >= 0 && weight < len(r.cells) && len(r.cells[weight].raw) > 0 {
			w, ok := parseNumber(r.cells[weight].raw)
			if !ok || w < 0 {
				fault(&RowError{Line: r.line, ID: seed.ID, Reason: fmt.Sprintf("weight %q: use a finite number from 0 upwards", r.cells[weight].raw)})
				continue
			}
			seed.Weight = w
		}
		seeds = append(seeds, seed)
	}
	return seeds, errors.Join(faults...)
}

// wanted is the column asked for, else the first of like among names, else "".
func wanted(names []string, asked string, like []string) string {
	if asked != "" {
		return asked
	}
	for _, l := range like {
		if l != "" && slices.Contains(names, l) {
			return l
		}
	}
	return ""
}

// seedColumns finds the id and the weight among names.
func seedColumns(names []string, want string) (id, weight int, err error) {
	id, weight = -1, -1
	score := -1
	for i, n := range names {
		switch flat := FlatName(n); {
		case want == "" && idScore(n) > score && flat != "weight":
			id, score = i, idScore(n)
		case want != "" && n == want:
			id = i
		}
		if flat := FlatName(n); flat == "weight" || n == "权重" {
			weight = i
		}
	}
	if id < 0 {
		if want == "" {
			want = "id"
		}
		return 0, 0, fmt.Errorf("no column %q: the list has %s", want, strings.Join(names, ", "))
	}
	return id, weight, nil
}
