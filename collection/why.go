package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

const (
	// comparedSeeds bounds the seeds that a customer is compared with.
	comparedSeeds = 5000
	nearestSeeds  = 3
)

// Why says whether a customer is in an audience now, and why: the parts of its
// score, its own passages, the nearest seeds and what would change it.
func (s *Service) Why(ctx context.Context, coll, name, id string) (*audience.Explanation, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	all, err := s.judges(coll)
	if err != nil {
		return nil, err
	}
	j := all.named[name]
	if j == nil {
		return nil, fmt.Errorf("audience %q of collection %q: %w", name, coll, index.ErrNotFound)
	}
	if err := s.whole(coll, &info); err != nil {
		return nil, err
	}
	out, err := s.explain(ctx, coll, &info.Request, info.Result, []string{id}, func(row *index.Row, spec index.Spec) (*judge, bool, int, error) {
		at, err := s.standing(coll, id, row, spec, all)
		return j, err == nil && j.in(&at, all), at.listed[name], err
	})
	if err != nil {
		return nil, err
	}
	return &out[0], nil
}

// Explain explains customers with a result of Run, as Why does with a stored one.
func (s *Service) Explain(ctx context.Context, coll string, req audience.Request, res *audience.Result, ids []string) ([]audience.Explanation, error) {
	// newJudge wants to know that there is a list, not when it was built.
	j, err := s.newJudge(coll, &AudienceInfo{Request: req, Result: res, Size: res.Manifest.Size, Built: s.opt.Clock()})
	if err != nil {
		return nil, err
	}
	ranks := make(map[string]int, len(res.Members))
	for _, m := range res.Members {
		ranks[m.ID] = m.Rank
	}
	return s.explain(ctx, coll, &req, res, ids, func(row *index.Row, _ index.Spec) (*judge, bool, int, error) {
		rank := ranks[row.ID]
		return j, rank > 0, rank, nil
	})
}

// explain does it for customers of one audience. judged gives its judge, whether a
// customer is in now, and its rank on the list, 0 for none.
func (s *Service) explain(ctx context.Context, coll string, req *audience.Request, res *audience.Result, ids []string, judged func(*index.Row, index.Spec) (*judge, bool, int, error)) ([]audience.Explanation, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	if err := cfg.learned("the list's model is", res.Manifest.Stamp); err != nil && len(res.Model.Set.Heads) > 0 {
		return nil, fmt.Errorf("%w: refresh the audience", err)
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
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	seeds, of, err := s.seedsOf(ctx, coll, eng, snap, req)
	if err != nil {
		return nil, err
	}
	out := make([]audience.Explanation, len(ids))
	for i, row := range rows {
		if row == nil {
			return nil, fmt.Errorf("customer %q of collection %q: %w", clip(ids[i]), coll, index.ErrNotFound)
		}
		subject, notes, err := s.subject(ctx, cfg, snap, row, res)
		if err != nil {
			return nil, err
		}
		one := res.Explain(subject)
		one.Notes = append(one.Notes, notes...)
		if len(seeds) < of {
			one.Notes = append(one.Notes, fmt.Sprintf("nearest seeds: %d of %d seeds were compared", len(seeds), of))
		}
		one.Nearest = res.Model.Neighbours(subject, seeds, nearestSeeds)
		spec := eng.Spec()
		j, in, rank, err := judged(row, spec)
		if err != nil {
			return nil, err
		}
		one.In, one.Rank = in, rank
		j.counterfactuals(&one, subject, row, spec.Columns, cfg.Schema)
		out[i] = one
	}
	return out, nil
}

// counterfactuals fills them in, or the reason why there are none.
func (j *judge) counterfactuals(e *audience.Explanation, s *audience.Subject, row *index.Row, columns []index.Column, schema profile.Schema) {
	note := func(why string) { e.Notes = append(e.Notes, why) }
	if j.model == nil {
		note("no change is proposed: the list has no one threshold that a score would have to pass")
		return
	}
	least := float64(j.threshold)
	if e.Rank > 0 {
		least -= slack * math.Max(1, math.Abs(least))
	}
	allowed := func(values map[string]index.Value) bool {
		changed := index.Row{ID: row.ID, Vector: row.Vector, Values: values}
		return holds(j.filter, &changed, columns) && j.isWithin(&changed) && (j.seeds == nil || !holds(j.seeds, &changed, columns))
	}
	switch {
	case !e.In && j.out[row.ID]:
		note("the customer is a seed, a negative or excluded by id, so it cannot be a member")
		return
	case !e.In && float64(e.Score) >= least && allowed(row.Values):
		note("the score suffices, but the list does not hold the customer: it is a seed, on an excluded list, or was not chosen among equal scores")
		return
	case !e.In && float64(e.Score) >= least:
		note("the score suffices, but the customer is a seed or the filter of the audience leaves it out")
		return
	case e.In && float64(e.Score) < least:
		note("no change is proposed: the list was built before the score fell below its threshold")
		return
	}
	e.Counterfactuals = j.model.Counterfactuals(s.Vector, s.Values, audience.Alternatives{
		Least: least,
		Fixed: func(column string) bool {
			f, _ := schema.Field(column)
			return f.Sensitive || f.PII || f.Immutable
		},
		Allowed: allowed,
	})
	if len(e.Counterfactuals) == 0 {
		if len(j.model.Bins) == 0 {
			note("no change is proposed: the audience is scored by text alone")
		} else {
			note("no change of one or two columns leads to the other side of the threshold")
		}
	}
}

// subject reads a customer as the heads see it, with its passages encoded.
func (s *Service) subject(ctx context.Context, cfg Config, snap index.Snapshot, row *index.Row, res *audience.Result) (*audience.Subject, []string, error) {
	out := &audience.Subject{ID: row.ID, Values: row.Values, Vector: row.Vector}
	if at, ok := snap.Find(row.ID); ok && cfg.Dim > 0 {
		out.Vector = make([]float32, cfg.Dim)
		if err := snap.Vectors([]uint32{at}, out.Vector); err != nil {
			return nil, nil, err
		}
	}
	if !res.Manifest.Text || isZero(out.Vector) {
		return out, nil, nil
	}
	var st stored
	if len(row.Record) > 0 {
		if err := json.Unmarshal(row.Record, &st); err != nil {
			return nil, nil, fmt.Errorf("customer %q: its record cannot be read: %w", clip(row.ID), errors.Join(err, index.ErrCorrupt))
		}
	}
	if cfg.Model == "" || st.Brought {
		return out, []string{"no passages are named: the vector was not made from texts here"}, nil
	}
	passages := cfg.Schema.Compose(profile.Record{ID: row.ID, Fields: row.Values, Texts: st.Texts}, profile.ComposeOptions{})
	if len(passages) == 0 {
		return out, nil, nil
	}
	bodies := make([]string, len(passages))
	for i, p := range passages {
		bodies[i] = p.Body
	}
	enc, err := s.encode(ctx, cfg, bodies, embed.EncodeOptions{})
	if err != nil {
		return nil, nil, err
	}
	out.Encoded = enc.Vectors
	var notes []string
	hidden := hiddenTexts(cfg.Schema)
	for i := range passages {
		if hidden[passages[i].Field] {
			passages[i].Body = ""
			notes = []string{"passages of personal or sensitive fields are counted and not shown"}
		}
	}
	out.Passages = passages
	return out, notes, nil
}

// hiddenTexts are the fields whose texts are never shown. A template's text, whose
// field is "", is hidden when it names one of them.
func hiddenTexts(schema profile.Schema) map[string]bool {
	hidden := map[string]bool{}
	for _, f := range schema.Fields {
		hidden[f.Name] = f.PII || f.Sensitive
	}
	hidden[""] = slices.ContainsFunc(schema.TemplateFields(), func(name string) bool { return hidden[name] })
	return hidden
}

// readTexts returns what reads customers' texts, without personal and sensitive
// fields.
func readTexts(eng index.Engine, schema profile.Schema) func(ctx context.Context, ids []string) ([][]string, error) {
	hidden := hiddenTexts(profile.Schema{Fields: schema.Fields})
	return func(ctx context.Context, ids []string) ([][]string, error) {
		rows, err := eng.Get(ctx, ids)
		if err != nil {
			return nil, err
		}
		out := make([][]string, len(ids))
		for i, row := range rows {
			if row == nil || len(row.Record) == 0 {
				continue
			}
			var st stored
			if err := json.Unmarshal(row.Record, &st); err != nil {
				return nil, fmt.Errorf("customer %q: its record cannot be read: %w", clip(ids[i]), errors.Join(err, index.ErrCorrupt))
			}
			for _, t := range st.Texts {
				if !hidden[t.Field] {
					out[i] = append(out[i], t.Body)
				}
			}
		}
		return out, nil
	}
}

// seedsOf reads an audience's seeds that are customers now, of a long list so many
// at even distances in order of id, and says how many there are.
func (s *Service) seedsOf(ctx context.Context, coll string, eng index.Engine, snap index.Snapshot, req *audience.Request) ([]audience.Subject, int, error) {
	var ids []string
	for _, ref := range req.Seeds.IDs {
		ids = append(ids, ref.ID)
	}
	if req.Seeds.Filter != nil {
		match, err := snap.Match(req.Seeds.Filter)
		if err != nil {
			return nil, 0, err
		}
		for it := match.Iterator(); it.HasNext(); {
			ids = append(ids, snap.ID(it.Next()))
		}
	}
	if req.Seeds.Audience != "" {
		of, err := s.memberIDs(ctx, coll, req.Seeds.Audience)
		if err != nil && !errors.Is(err, index.ErrNotFound) { // it may have been deleted since
			return nil, 0, err
		}
		ids = append(ids, of...)
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id string) bool {
		_, known := snap.Find(id)
		return !known
	})
	total := len(ids)
	if total > comparedSeeds {
		some := make([]string, comparedSeeds)
		for i := range some {
			some[i] = ids[i*total/comparedSeeds]
		}
		ids = some
	}
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, 0, err
	}
	out := make([]audience.Subject, 0, len(rows))
	for _, row := range rows {
		if row != nil {
			out = append(out, audience.Subject{ID: row.ID, Vector: row.Vector, Values: row.Values})
		}
	}
	return out, total, nil
}
