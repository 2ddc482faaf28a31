package collection

import (
	"context"

	"github.com/kindred-search/kindred/audience"
)

// SeedList is the seeds of one draft.
type SeedList struct {
	IDs []audience.SeedRef `json:"ids" minItems:"1" maxItems:"100000"`
}

// Draft is a list made in passing: not stored, not judged.
type Draft struct {
	Given     int           `json:"given"`
	Matched   int           `json:"matched"`   // of the given seeds
	Threshold float32       `json:"threshold"` // the last member's score
	Members   []DraftMember `json:"members"`   // best first
}

// DraftMember is a customer of a draft.
type DraftMember struct {
	ID    string  `json:"id"`
	Score float32 `json:"score"`
}

// Drafts makes an audience of size members from each list of seeds, all in one pass
// over the customers: the plain centroid of each, whose seeds are left out. Answers are
// in the order of lists.
func (s *Service) Drafts(ctx context.Context, coll string, lists []SeedList, size int) ([]Draft, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return nil, err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	pop := audience.Population{Snap: snap, Spec: eng.Spec(), Schema: cfg.Schema, Limits: audience.Limits{MinSeeds: s.opt.Limits.MinSeeds}}
	seeds := make([][]audience.SeedRef, len(lists))
	for i, list := range lists {
		seeds[i] = list.IDs
	}
	made, err := audience.Drafts(ctx, pop, seeds, size)
	if err != nil {
		return nil, err
	}
	out := make([]Draft, len(made))
	for i, d := range made {
		out[i] = Draft{Given: d.Given, Matched: d.Matched, Threshold: d.Threshold, Members: make([]DraftMember, len(d.Members))}
		for k, m := range d.Members {
			out[i].Members[k] = DraftMember{ID: m.ID, Score: m.Score}
		}
	}
	return out, nil
}
