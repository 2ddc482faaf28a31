package collection

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// SegmentSet is a collection's stored segments.
type SegmentSet struct {
	segment.Set
	Request segment.Params `json:"request"`
	Job     string         `json:"job"`
	Created time.Time      `json:"created"`
}

// CustomerSegment is where a customer belongs.
type CustomerSegment struct {
	Number     int     `json:"number"`
	Label      string  `json:"label"`
	Silhouette float64 `json:"silhouette" doc:"how clearly: 1 less the distance to the centre over that to the next segment's"`
}

// SimilarSegmentsRequest asks by exactly one of its first four fields.
type SimilarSegmentsRequest struct {
	Segment  int    `json:"segment,omitempty" minimum:"0" doc:"a segment's number; it is left out of the answer"`
	Customer string `json:"customer,omitempty"`
	Text     string `json:"text,omitempty" doc:"compared with the segments' texts alone"`
	Audience string `json:"audience,omitempty" doc:"a stored audience: its members' mean"`
	Limit    int    `json:"limit,omitempty" minimum:"0" maximum:"128" doc:"default 10"`
}

// NearSegment is a segment with its likeness to what was asked for.
type NearSegment struct {
	Number int     `json:"number"`
	Label  string  `json:"label"`
	Size   int     `json:"size"`
	Score  float64 `json:"score" doc:"cosine, seen from everyone's centre"`
}

// ListRequest asks for a page of the customers of a segment or with a tag.
type ListRequest struct {
	Filter *index.Filter `json:"filter,omitempty"`
	Limit  int           `json:"limit,omitempty" minimum:"0" doc:"default 10"`
	Offset int           `json:"offset,omitempty" minimum:"0"`
	Fields []string      `json:"fields,omitempty" doc:"to return; absent: all"`
}

// Listed is a page of customers and how many there are in all.
type Listed struct {
	Count int   `json:"count"`
	Hits  []Hit `json:"hits"`
}

// Segments are stored under segments/<collection>/: the set and the model in one
// step.
func segmentsKey(coll, part string) string { return "segments/" + coll + "/" + part }

// audienceSample is how many members of an audience its mean is taken from.
const audienceSample = 5000

// DiscoverSegments checks a request and finds the segments as a job. They replace
// the collection's earlier ones when they are there, and keep their numbers where
// they hold the same customers.
func (s *Service) DiscoverSegments(ctx context.Context, coll string, req segment.Params) (Job, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Job{}, err
	}
	faults := []error{req.Validate()}
	for at, list := range map[string][]string{"features.columns": req.Features.Columns, "features.allow_sensitive": req.Features.AllowSensitive} {
		for i, name := range list {
			if _, ok := cfg.Schema.Field(name); !ok {
				faults = append(faults, faultf(fmt.Sprintf("%s[%d]", at, i), "%q is not a field of the collection", name))
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return Job{}, err
	}
	return s.jobs.add(ctx, &storedJob{Job: Job{Kind: "segments", Collection: coll}, Segments: &req}, nil)
}

// runSegments is the body of a job of segments.
func (s *Service) runSegments(ctx context.Context, job *storedJob) error {
	coll := job.Collection
	cfg, err := s.config(coll)
	if err != nil {
		return err
	}
	var before *segment.Model
	switch had, err := s.segments(coll); {
	case err == nil && had.set.Job == job.ID:
		return nil // the process died after the last write
	case err == nil && cfg.learned("", had.set.Stamp) == nil:
		before = had.model
	case err == nil: // another space: nothing to take numbers over from
	case !errors.Is(err, index.ErrNotFound):
		return err
	}
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer closeSnapshot(snap, s.log)
	pop := segment.Population{Snap: snap, Spec: eng.Spec(), Schema: cfg.Schema, Before: before, Texts: s.textsOf(eng, cfg)}
	set, model, err := segment.Discover(ctx, pop, *job.Segments, s.stages(job))
	if err != nil {
		return err
	}
	// Who was erased meanwhile is not named.
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	for i := range set.Segments {
		g := &set.Segments[i]
		is, err := present(ctx, eng, g.Typical)
		if err != nil {
			return err
		}
		g.Typical = slices.DeleteFunc(g.Typical, func(id string) bool { return !is[id] })
	}
	defer s.forgetJudges(coll)
	return s.putDerived(ctx, segmentsKey(coll, ""), &SegmentSet{Set: *set, Request: *job.Segments, Job: job.ID, Created: s.opt.Clock().UTC()}, model)
}

// stages shows a job's stages as they come.
func (s *Service) stages(job *storedJob) func(stage string, done, total int) {
	stage, start := "", s.opt.Clock()
	return func(now string, done, total int) {
		t := s.opt.Clock()
		if now != stage {
			stage, start = now, t
		}
		s.jobs.update(job, func(v *Job) {
			v.Stage, v.Total = now, int64(total)
			pace(v, int64(done), 0, t.Sub(start))
		})
	}
}

// textsOf returns what reads customers' texts, without fields that are sensitive
// or personal: they must not come out as a label.
func (s *Service) textsOf(eng index.Engine, cfg Config) func(ctx context.Context, ids []string) ([][]string, error) {
	hidden := map[string]bool{}
	for _, f := range cfg.Schema.Fields {
		hidden[f.Name] = f.PII || f.Sensitive
	}
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

// Segments returns the collection's segments, the largest first.
func (s *Service) Segments(_ context.Context, coll string) (*SegmentSet, error) {
	k, err := s.segments(coll)
	if err != nil {
		return nil, err
	}
	set := *k.set
	set.Segments = slices.Clone(set.Segments)
	return &set, nil
}

// segments returns set and model together. The caller must not change them.
func (s *Service) segments(coll string) (*keptSegments, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	if err := s.hearJudges(coll); err != nil {
		return nil, err
	}
	got, err := derived(s, segmentsKey(coll, ""), func() (*keptSegments, int, error) {
		var k keptSegments
		if err := errors.Join(s.read(segmentsKey(coll, "info"), &k.set), s.read(segmentsKey(coll, "model"), &k.model)); err != nil {
			return nil, 0, err
		}
		return &k, k.model.Size(), nil
	})
	if errors.Is(err, index.ErrNotFound) {
		return nil, fmt.Errorf("collection %q has no segments yet: discover them first: %w", coll, index.ErrNotFound)
	}
	return got, err
}

// segmentsOf is segments, refused where they are in another space than the customers.
func (s *Service) segmentsOf(cfg Config) (*keptSegments, error) {
	k, err := s.segments(cfg.Name)
	if err == nil {
		if err = cfg.learned("the segments are", k.set.Stamp); err != nil {
			return nil, fmt.Errorf("%w: discover them again", err)
		}
	}
	return k, err
}

func (set *SegmentSet) labels() map[int]segment.Segment {
	out := map[int]segment.Segment{}
	for _, g := range set.Segments {
		out[g.Number] = g
	}
	return out
}

// SegmentOf returns the segment of a customer as the customer is now.
func (s *Service) SegmentOf(ctx context.Context, coll, id string) (*CustomerSegment, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	k, err := s.segmentsOf(cfg)
	if err != nil {
		return nil, err
	}
	row, _, err := s.get(ctx, cfg, id)
	if err != nil {
		return nil, err
	}
	out := &CustomerSegment{}
	out.Number, out.Silhouette = k.model.Assign(row.Vector, row.Values)
	out.Label = k.set.labels()[out.Number].Label
	return out, nil
}

// SegmentCustomers lists a segment's customers as they are now, those most clearly
// in it first; their score says how clearly.
func (s *Service) SegmentCustomers(ctx context.Context, coll string, number int, q ListRequest) (*Listed, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	k, err := s.segmentsOf(cfg)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, coll, q, func(snap index.Snapshot, mask bitmap) ([]uint32, []float32, error) {
		return k.model.Members(ctx, snap, number, mask)
	})
}

// list ranks the rows that pick chooses within the filter by their score, equal
// ones by id, and returns one page.
func (s *Service) list(ctx context.Context, coll string, q ListRequest, pick func(index.Snapshot, bitmap) ([]uint32, []float32, error)) (*Listed, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	limit, err := s.page(cfg, q.Limit, q.Offset, q.Fields)
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
	mask, err := snap.Match(q.Filter)
	if err != nil {
		return nil, err
	}
	rows, scores, err := pick(snap, mask)
	if err != nil {
		return nil, err
	}
	ranked := make([]float32, len(scores))
	for i := range ranked {
		ranked[i] = float32(math.Inf(-1))
	}
	for _, row := range rows {
		ranked[row] = scores[row]
	}
	top := selection.Select(ranked, q.Offset+limit, selection.Options{Tie: func(a, b uint32) int { return strings.Compare(snap.ID(a), snap.ID(b)) }})
	out := &Listed{Count: len(rows)}
	top = top[min(q.Offset, len(top)):]
	hits := make([]index.Hit, len(top))
	for i, row := range top {
		hits[i] = index.Hit{ID: snap.ID(row), Score: scores[row]}
	}
	out.Hits, err = s.dress(ctx, eng, hits, q.Fields)
	return out, err
}

// SimilarSegments ranks segments by their likeness to a segment, a customer, a
// text or an audience.
func (s *Service) SimilarSegments(ctx context.Context, coll string, q SimilarSegmentsRequest) ([]NearSegment, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	k, err := s.segmentsOf(cfg)
	if err != nil {
		return nil, err
	}
	given := 0
	for _, is := range []bool{q.Segment != 0, q.Customer != "", q.Text != "", q.Audience != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, faultf("body", "give exactly one of segment, customer, text and audience")
	}
	if q.Limit < 0 || q.Limit > segment.MaxK {
		return nil, faultf("limit", "%d: want 0 (for 10) to %d", q.Limit, segment.MaxK)
	}
	z, err := s.point(ctx, cfg, k.model, q)
	if err != nil {
		return nil, err
	}
	labels, out := k.set.labels(), []NearSegment{}
	for _, n := range k.model.Nearest(z, q.Text != "") {
		if n.Number != q.Segment && len(out) < cmp.Or(q.Limit, 10) {
			g := labels[n.Number]
			out = append(out, NearSegment{Number: n.Number, Label: g.Label, Size: g.Size, Score: n.Score})
		}
	}
	return out, nil
}

// point is where in the segments' space the question is.
func (s *Service) point(ctx context.Context, cfg Config, m *segment.Model, q SimilarSegmentsRequest) ([]float32, error) {
	switch {
	case q.Segment != 0:
		return m.Center(q.Segment)
	case q.Customer != "":
		row, _, err := s.get(ctx, cfg, q.Customer)
		if err != nil {
			return nil, err
		}
		return m.Space.Place(row.Vector, row.Values), nil
	case q.Text != "":
		if m.Space.Dim == 0 {
			return nil, faultf("text", "these segments are of columns alone: ask by segment, customer or audience")
		}
		v, err := s.encodeQuery(ctx, cfg, q.Text)
		if err != nil {
			return nil, err
		}
		return m.Space.Place(v, nil), nil
	}
	ids, err := s.memberIDs(ctx, cfg.Name, q.Audience)
	if err != nil {
		return nil, err
	}
	step := (len(ids) + audienceSample - 1) / audienceSample // spread over the ranks
	var some []string
	for i := 0; i < len(ids); i += max(1, step) {
		some = append(some, ids[i])
	}
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return nil, err
	}
	rows, err := eng.Get(ctx, some)
	if err != nil {
		return nil, err
	}
	sum, n := make([]float64, m.Space.Width), 0
	for _, row := range rows {
		if row != nil {
			n++
			for j, x := range m.Space.Place(row.Vector, row.Values) {
				sum[j] += float64(x)
			}
		}
	}
	if n == 0 {
		return nil, faultf("audience", "none of the members of %q is in the collection any more", q.Audience)
	}
	z := make([]float32, len(sum))
	for j := range z {
		z[j] = float32(sum[j] / float64(n))
	}
	return z, nil
}

// DropSegments deletes a collection's segments.
func (s *Service) DropSegments(ctx context.Context, coll string) error {
	if _, err := s.Segments(ctx, coll); err != nil {
		return err
	}
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	defer s.forgetJudges(coll)
	return s.dropDerived(ctx, segmentsKey(coll, ""))
}
