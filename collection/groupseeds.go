package collection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// grouped returns the rows of a snapshot that are in the segment or have the tag
// that seeds name.
func (s *Service) grouped(ctx context.Context, cfg Config, snap index.Snapshot, seeds audience.Seeds) ([]uint32, error) {
	var out []uint32
	if seeds.Segment != 0 {
		k, err := s.segmentsOf(cfg)
		if err != nil {
			return nil, fmt.Errorf("segment: %w", err)
		}
		if out, _, err = k.model.Members(ctx, snap, seeds.Segment, snap.Live()); err != nil {
			return nil, fmt.Errorf("segment: %w", err)
		}
	}
	if t := seeds.Tag; t != nil {
		k, at, err := s.seedTag(cfg, "tag", t)
		if err != nil {
			return nil, err
		}
		rows, _, err := k.model.Having(ctx, snap, at, k.least(t.Above), snap.Live())
		if err != nil {
			return nil, fmt.Errorf("tag: %w", err)
		}
		out = append(out, rows...)
	}
	return out, nil
}

// seedTag returns the tag that seeds name and the place of its label. at is its place in
// the request.
func (s *Service) seedTag(cfg Config, at string, t *audience.SeedTag) (*keptTag, int, error) {
	k, err := s.tag(cfg, t.Name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s.name: %w", at, err)
	}
	label := slices.Index(k.model.Labels, t.Label)
	if label < 0 {
		return nil, 0, faultf(at+".label", "%q is not one of %q", t.Label, k.model.Labels)
	}
	return k, label, nil
}

// groupFaults says what of a request's segment and tag is not there. at is their place.
func (s *Service) groupFaults(cfg Config, at string, seeds audience.Seeds) error {
	var faults []error
	if seeds.Segment > 0 {
		k, err := s.segmentsOf(cfg)
		if err == nil {
			_, err = k.model.Center(seeds.Segment)
		}
		if err != nil {
			faults = append(faults, missing(at+".segment", err))
		}
	}
	if seeds.Tag != nil {
		if _, _, err := s.seedTag(cfg, at+".tag", seeds.Tag); err != nil {
			faults = append(faults, missing(at+".tag", err))
		}
	}
	return errors.Join(faults...)
}

// missing says that what a field of a request names is not there: the fault of the
// request, not of its path.
func missing(at string, err error) error {
	if errors.Is(err, index.ErrNotFound) || errors.Is(err, ErrOtherModel) {
		return faultf(at, "%s", reason(err))
	}
	return err
}

// inGroup says whether a customer, as it is now, is in the segment or has the tag
// that seeds name; nil where they name none, or none that is there any more.
func (s *Service) inGroup(cfg Config, seeds audience.Seeds) (func(row *index.Row) bool, error) {
	var of []func(row *index.Row) bool
	if seeds.Segment != 0 {
		k, err := s.segmentsOf(cfg)
		if err != nil && !errors.Is(err, index.ErrNotFound) && !errors.Is(err, ErrOtherModel) {
			return nil, err
		}
		if err == nil {
			of = append(of, func(row *index.Row) bool {
				number, _ := k.model.Assign(row.Vector, row.Values)
				return number == seeds.Segment
			})
		}
	}
	if t := seeds.Tag; t != nil {
		k, err := s.tag(cfg, t.Name)
		if err != nil && !errors.Is(err, index.ErrNotFound) && !errors.Is(err, ErrOtherModel) {
			return nil, err
		}
		if err == nil {
			of = append(of, func(row *index.Row) bool {
				tags := k.model.Tags(row.Vector)
				return len(tags) > 0 && tags[0].Label == t.Label && tags[0].Confidence >= k.least(t.Above)
			})
		}
	}
	if len(of) == 0 {
		return nil, nil
	}
	return func(row *index.Row) bool {
		return slices.ContainsFunc(of, func(is func(*index.Row) bool) bool { return is(row) })
	}, nil
}
