package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// A definition may name a million ids. They lie apart from the rest of it, which every
// question about an audience reads: namedKey has them, and the description counts them.

// namedIDs are the ids of a definition as they are stored.
type namedIDs struct {
	Seeds     idList   `json:"seeds,omitzero"`
	Negatives idList   `json:"negatives,omitzero"`
	Excluded  []string `json:"excluded,omitempty"`
}

// idList is ids with weights, in two lists: a million read ten times as fast as one by one.
type idList struct {
	IDs     []string  `json:"ids,omitempty"`
	Weights []float64 `json:"weights,omitempty"` // none where none was given; 0 where one was not
}

func listOf(refs []audience.SeedRef) idList {
	out := idList{IDs: make([]string, len(refs))}
	for i, ref := range refs {
		out.IDs[i] = ref.ID
		if ref.Weight != 0 {
			if out.Weights == nil {
				out.Weights = make([]float64, len(refs))
			}
			out.Weights[i] = ref.Weight
		}
	}
	return out
}

func (l *idList) refs() []audience.SeedRef {
	if len(l.IDs) == 0 {
		return nil
	}
	out := make([]audience.SeedRef, len(l.IDs))
	for i, id := range l.IDs {
		out[i].ID = id
		if i < len(l.Weights) {
			out[i].Weight = l.Weights[i]
		}
	}
	return out
}

func namedKey(coll, name string) string { return audienceKey(coll, name) + "named" }

// describe adds to pairs what is stored of an audience's definition, state and result.
// The ids are written where the definition has them, which one that was read has not, or
// where it counts none.
func describe(coll string, info AudienceInfo, pairs map[string][]byte) error {
	req := &info.Request // of this copy
	var err error
	n := NamedIDs{len(req.Seeds.IDs), len(req.Negatives.IDs), len(req.Exclude.IDs)}
	if n != (NamedIDs{}) || info.Named != nil && *info.Named == n {
		ids := namedIDs{listOf(req.Seeds.IDs), listOf(req.Negatives.IDs), req.Exclude.IDs}
		if pairs[namedKey(coll, info.Name)], err = json.Marshal(ids); err != nil {
			return err
		}
	}
	info = info.Shown()
	info.Sheet = nil
	pairs[infoKey(coll, info.Name)], err = json.Marshal(info)
	return err
}

// whole reads the ids of a definition that was read without them.
func (s *Service) whole(coll string, info *AudienceInfo) error {
	if info.Named == nil || *info.Named == (NamedIDs{}) {
		return nil
	}
	raw, err := s.opt.KV.Get(namedKey(coll, info.Name))
	if err != nil {
		return fmt.Errorf("audience %q: the ids of its definition: %w", info.Name, err)
	}
	var ids namedIDs
	if err := json.Unmarshal(raw, &ids); err != nil {
		return fmt.Errorf("audience %q: the ids of its definition cannot be read: %w", info.Name, errors.Join(err, index.ErrCorrupt))
	}
	req := &info.Request
	req.Seeds.IDs, req.Negatives.IDs, req.Exclude.IDs = ids.Seeds.refs(), ids.Negatives.refs(), ids.Excluded
	return nil
}

// NamedIDs counts the ids that an audience's definition names.
type NamedIDs struct {
	Seeds     int `json:"seeds"`
	Negatives int `json:"negatives"`
	Excluded  int `json:"excluded"`
}

// QualityLine is an audience's quality in a line.
type QualityLine struct {
	Method  string            `json:"method"`
	Verdict string            `json:"verdict"`
	AUC     audience.Interval `json:"auc"`
	Words   string            `json:"words"`
}

// Shown is the audience with its definition's ids counted instead of listed: they may be
// a million. AudienceIDs lists them.
func (info AudienceInfo) Shown() AudienceInfo {
	req := &info.Request // of this copy
	if n := (NamedIDs{len(req.Seeds.IDs), len(req.Negatives.IDs), len(req.Exclude.IDs)}); n != (NamedIDs{}) {
		info.Named = &n
	}
	req.Seeds.IDs, req.Negatives.IDs, req.Exclude.IDs = nil, nil, nil
	return info
}

// Brief is Shown with one line of the result.
func (info AudienceInfo) Brief() AudienceInfo {
	info = info.Shown()
	if r := info.Result; r != nil {
		info.Sheet = &QualityLine{Method: r.Manifest.Method, Verdict: r.Quality.Verdict, AUC: r.Quality.Measure.AUC, Words: r.Quality.Words}
		info.Result = nil
	}
	return info
}

// The lists of ids that a definition may have.
const (
	NamedSeeds     = "seeds"
	NamedNegatives = "negatives"
	NamedExcluded  = "excluded"
)

// AudienceIDs returns up to limit of the ids that a definition names in one of its
// lists, as they were given, from a place on; and how many the list has. Who was erased
// is on none of them.
func (s *Service) AudienceIDs(_ context.Context, coll, name, which string, from, limit int) ([]audience.SeedRef, int, error) {
	if from < 0 || limit < 1 {
		return nil, 0, faultf("limit", "want a limit of 1 or more and a place of 0 or more")
	}
	if _, err := s.config(coll); err != nil {
		return nil, 0, err
	}
	info, err := s.info(coll, name)
	if err == nil {
		err = s.whole(coll, &info)
	}
	if err != nil {
		return nil, 0, err
	}
	var all []audience.SeedRef
	switch which {
	case NamedSeeds:
		all = info.Request.Seeds.IDs
	case NamedNegatives:
		all = info.Request.Negatives.IDs
	case NamedExcluded:
		for _, id := range info.Request.Exclude.IDs {
			all = append(all, audience.SeedRef{ID: id})
		}
	default:
		return nil, 0, faultf("of", "%q: want %s, %s or %s", which, NamedSeeds, NamedNegatives, NamedExcluded)
	}
	from = min(from, len(all))
	return all[from : from+min(limit, len(all)-from)], len(all), nil
}
