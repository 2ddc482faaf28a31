package collection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/audience/tag"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
)

type bitmap = *roaring.Bitmap

// TagRequest teaches a tag: labels with a few examples each.
type TagRequest struct {
	Name          string     `json:"name" pattern:"^[a-z0-9_-]{1,64}$" example:"mood"`
	Labels        []TagLabel `json:"labels" minItems:"2" maxItems:"256"`
	MinConfidence float64    `json:"min_confidence,omitempty" minimum:"0" maximum:"1" doc:"least confidence of a customer that is counted; default 0.5"`
	Seed          uint64     `json:"seed,omitempty" maximum:"9007199254740991" doc:"of the folds"`
}

// TagLabel is one label with its examples: customers' ids, texts, or both.
type TagLabel struct {
	Label string   `json:"label" minLength:"1" maxLength:"256" example:"happy"`
	IDs   []string `json:"ids,omitempty"`
	Texts []string `json:"texts,omitempty"`
}

// TagInfo is a stored tag without its model.
type TagInfo struct {
	Name      string     `json:"name"`
	Quality   tag.Sheet  `json:"quality"`
	Counts    []TagCount `json:"counts"`  // of all customers, in order of the labels
	Unsure    int        `json:"unsure"`  // customers below the least confidence
	Without   int        `json:"without"` // customers without text
	Unmatched []string   `json:"unmatched,omitempty" doc:"example ids that match no customer with text; the first ten"`
	Request   TagRequest `json:"request"`
	Version   uint64     `json:"version" doc:"of the data that was counted"`
	Stamp     string     `json:"stamp,omitempty" doc:"of the vectors that it was learned from"`
	Job       string     `json:"job"`
	Created   time.Time  `json:"created"`
}

// TagCount is how many customers have a label.
type TagCount struct {
	Label     string  `json:"label"`
	Customers int     `json:"customers"` // with at least the least confidence
	Share     float64 `json:"share"`     // of all customers
}

// CustomerTag is one tag of a customer: the likeliest label and the next four.
type CustomerTag struct {
	Tag        string    `json:"tag"`
	Label      string    `json:"label"`
	Confidence float64   `json:"confidence"`
	Labels     []tag.Tag `json:"labels"` // the likeliest five
}

// TaggedRequest asks for the customers of a label.
type TaggedRequest struct {
	Label string   `json:"label"`
	Above *float64 `json:"above,omitempty" minimum:"0" maximum:"1" doc:"least confidence; default the tag's"`
	ListRequest
}

// Tags are stored under tag/<collection>/<name>/, description and model.
func tagKey(coll, name, part string) string {
	if name == "" {
		return "tag/" + coll + "/"
	}
	return "tag/" + coll + "/" + name + "/" + part
}

const (
	defaultConfidence = 0.5
	maxTags           = 256 // of a collection: a customer is asked for all at once
)

func (r *TagRequest) validate(limits Limits, cfg Config) error {
	var faults []error
	bad := func(at, format string, args ...any) { faults = append(faults, faultf(at, format, args...)) }
	if !nameRule.MatchString(r.Name) {
		bad("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", r.Name)
	}
	if len(r.Labels) < 2 || len(r.Labels) > tag.MaxLabels {
		bad("labels", "%d: want 2 to %d", len(r.Labels), tag.MaxLabels)
	}
	if !(r.MinConfidence >= 0 && r.MinConfidence <= 1) {
		bad("min_confidence", "%v: want 0 to 1", r.MinConfidence)
	}
	if cfg.Dim == 0 {
		bad("collection", "%q has no vectors to learn from: create it with a model", cfg.Name)
	}
	names, ids, examples := map[string]bool{}, map[string]int{}, 0
	for i, l := range r.Labels {
		at := fmt.Sprintf("labels[%d]", i)
		if l.Label == "" || len(l.Label) > 256 {
			bad(at+".label", "want 1 to 256 bytes")
		}
		if names[l.Label] {
			bad(at+".label", "%q is there twice", l.Label)
		}
		names[l.Label] = true
		examples += len(l.IDs) + len(l.Texts)
		for j, id := range l.IDs {
			if was, twice := ids[id]; twice && was != i && len(faults) < 100 {
				bad(fmt.Sprintf("%s.ids[%d]", at, j), "%q is an example of %q too: keep it in one", clip(id), r.Labels[was].Label)
			}
			ids[id] = i
		}
		if len(l.Texts) > 0 && cfg.Model == "" {
			bad(at+".texts", "collection %q has no model to encode a text with: give ids", cfg.Name)
		}
		for j, t := range l.Texts {
			if (len(t) > limits.MaxTextLen || strings.TrimSpace(t) == "") && len(faults) < 100 {
				bad(fmt.Sprintf("%s.texts[%d]", at, j), "%d bytes: want 1 to %d, not all spaces", len(t), limits.MaxTextLen)
			}
		}
	}
	if examples > tag.MaxExamples {
		bad("labels", "%d examples: at most %d", examples, tag.MaxExamples)
	}
	return errors.Join(faults...)
}

// CreateTag checks a request and learns the tag as a job. The tag is there when
// the job is done; examples that do not separate fail it.
func (s *Service) CreateTag(ctx context.Context, coll string, req TagRequest) (Job, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Job{}, err
	}
	if err := req.validate(s.opt.Limits, cfg); err != nil {
		return Job{}, err
	}
	if _, err := s.opt.KV.Get(tagKey(coll, req.Name, "info")); err == nil {
		return Job{}, fmt.Errorf("tag %q of collection %q: delete it first or choose another name: %w", req.Name, coll, index.ErrExists)
	} else if !errors.Is(err, index.ErrNotFound) {
		return Job{}, err
	}
	n := 0
	if err := s.tagNames(coll, func(string) error { n++; return nil }); err != nil {
		return Job{}, err
	}
	if n >= maxTags {
		return Job{}, faultf("collection", "%q has %d tags, the most there may be: delete one first", coll, n)
	}
	return s.jobs.add(ctx, &storedJob{Job: Job{Kind: "tag", Collection: coll, Target: req.Name}, Tag: &req}, nil)
}

// runTag is the body of a tag's job.
func (s *Service) runTag(ctx context.Context, job *storedJob) error {
	coll := job.Collection
	req, _ := s.jobs.requests(job)
	cfg, err := s.config(coll)
	if err != nil {
		return err
	}
	if info, err := s.Tag(ctx, coll, req.Name); err == nil {
		if info.Job == job.ID {
			return nil // the process died after the last write
		}
		if !job.Again {
			return fmt.Errorf("tag %q was made by another job meanwhile: %w", req.Name, index.ErrExists)
		}
	} else if job.Again {
		return err // it was deleted meanwhile
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
	stage := s.stages(job)
	info := &TagInfo{Name: req.Name, Request: *req, Stamp: cfg.Stamp, Job: job.ID, Version: snap.Version()}
	stage("reading examples", 0, 1)
	e, err := s.tagExamples(ctx, cfg, eng, req, info)
	if err != nil {
		return err
	}
	m, q, err := tag.Train(ctx, *e, req.Seed, func(done, total int) { stage("learning", done, total) })
	if err != nil {
		if len(info.Unmatched) > 0 {
			err = fmt.Errorf("%w (example ids that match no customer with text, for instance: %q)", err, info.Unmatched[:min(3, len(info.Unmatched))])
		}
		return err
	}
	scored, err := m.Scan(ctx, snap, nil, func(done, total int) { stage("tagging everyone", done, total) })
	if err != nil {
		return err
	}
	info.Quality, info.Created = *q, s.opt.Clock().UTC()
	info.count(m, scored, snap.Live(), cmp.Or(req.MinConfidence, defaultConfidence))
	// Who was erased meanwhile is no example any more: see eraseDerived.
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	now, _ := s.jobs.requests(job)
	info.Request = *now
	named := map[string]bool{}
	for _, l := range info.Request.Labels {
		for _, id := range l.IDs {
			named[id] = true
		}
	}
	info.Unmatched = slices.DeleteFunc(info.Unmatched, func(id string) bool { return !named[id] })
	defer s.forgetJudges(coll)
	return s.putDerived(ctx, tagKey(coll, req.Name, ""), info, m)
}

func (t *TagInfo) count(m *tag.Model, scored *tag.Scored, live bitmap, least float64) {
	t.Counts = make([]TagCount, len(m.Labels))
	for i, l := range m.Labels {
		t.Counts[i].Label = l
	}
	for it := live.Iterator(); it.HasNext(); {
		switch row := it.Next(); {
		case scored.Label[row] < 0:
			t.Without++
		case float64(scored.Confidence[row]) < least:
			t.Unsure++
		default:
			t.Counts[scored.Label[row]].Customers++
		}
	}
	for i := range t.Counts {
		t.Counts[i].Share = float64(t.Counts[i].Customers) / float64(live.GetCardinality())
	}
}

// tagExamples reads the vectors of customers and encodes texts.
func (s *Service) tagExamples(ctx context.Context, cfg Config, eng index.Engine, req *TagRequest, info *TagInfo) (*tag.Examples, error) {
	e := &tag.Examples{Dim: cfg.Dim}
	var texts []string
	var of []int
	for i, l := range req.Labels {
		e.Labels = append(e.Labels, l.Label)
		ids := slices.Clone(l.IDs)
		slices.Sort(ids)
		ids = slices.Compact(ids)
		rows, err := eng.Get(ctx, ids)
		if err != nil {
			return nil, err
		}
		for j, row := range rows {
			if row == nil || isZero(row.Vector) {
				if len(info.Unmatched) < 10 {
					info.Unmatched = append(info.Unmatched, ids[j])
				}
				continue
			}
			e.X, e.Y = append(e.X, row.Vector...), append(e.Y, i)
		}
		for _, t := range l.Texts {
			texts, of = append(texts, t), append(of, i)
		}
	}
	if len(texts) > 0 {
		res, err := s.encode(ctx, cfg, texts, embed.EncodeOptions{})
		if err != nil {
			return nil, err
		}
		e.X, e.Y = append(e.X, res.Vectors...), append(e.Y, of...)
	}
	return e, nil
}

// Tags returns a collection's tags in order of name, without their examples.
func (s *Service) Tags(_ context.Context, coll string) ([]TagInfo, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	out := []TagInfo{}
	err := s.tagNames(coll, func(name string) error {
		var info TagInfo
		err := s.read(tagKey(coll, name, "info"), &info)
		if errors.Is(err, index.ErrNotFound) {
			return nil // deleted since
		}
		for i := range info.Request.Labels {
			l := &info.Request.Labels[i]
			l.IDs, l.Texts = nil, nil
		}
		out = append(out, info)
		return err
	})
	return out, err
}

// tagNames skips from name to name without reading the models between.
func (s *Service) tagNames(coll string, visit func(name string) error) error {
	prefix, after := tagKey(coll, "", ""), ""
	for {
		page, err := s.opt.KV.List(prefix, 1, after)
		if err != nil || len(page) == 0 {
			return err
		}
		name, _, _ := strings.Cut(page[0].Key[len(prefix):], "/")
		if err := visit(name); err != nil {
			return err
		}
		after = tagKey(coll, name, "\xff")
	}
}

// Tag returns one tag.
func (s *Service) Tag(_ context.Context, coll, name string) (*TagInfo, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	var info TagInfo
	if err := s.read(tagKey(coll, name, "info"), &info); err != nil {
		return nil, noTag(coll, name, err)
	}
	return &info, nil
}

func noTag(coll, name string, err error) error {
	if errors.Is(err, index.ErrNotFound) {
		return fmt.Errorf("tag %q of collection %q: %w", name, coll, index.ErrNotFound)
	}
	return err
}

// tag returns a tag's description without its examples and its model. The caller
// must not change them.
func (s *Service) tag(cfg Config, name string) (*keptTag, error) {
	coll := cfg.Name
	if err := s.hearJudges(coll); err != nil {
		return nil, err
	}
	got, err := derived(s, tagKey(coll, name, ""), func() (*keptTag, int, error) {
		var k keptTag
		if err := errors.Join(s.read(tagKey(coll, name, "info"), &k.info), s.read(tagKey(coll, name, "model"), &k.model)); err != nil {
			return nil, 0, err
		}
		k.info.Request.Labels = nil
		return &k, k.model.Size(), nil
	})
	if err != nil {
		return nil, noTag(coll, name, err)
	}
	if err := cfg.learned(fmt.Sprintf("the tag %q is", name), got.info.Stamp); err != nil {
		return nil, fmt.Errorf("%w: delete it and learn it again", err)
	}
	return got, nil
}

// least is the confidence from which on a customer is counted.
func (k *keptTag) least(above *float64) float64 {
	if above != nil {
		return *above
	}
	return cmp.Or(k.info.Request.MinConfidence, defaultConfidence)
}

// DropTag deletes a tag.
func (s *Service) DropTag(ctx context.Context, coll, name string) error {
	if _, err := s.Tag(ctx, coll, name); err != nil {
		return err
	}
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	defer s.forgetJudges(coll)
	return s.dropDerived(ctx, tagKey(coll, name, ""))
}

// CustomerTags returns all tags of a customer as the customer is now, in order of
// the tags' names. A customer without text has none.
func (s *Service) CustomerTags(ctx context.Context, coll, id string) ([]CustomerTag, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	row, _, err := s.get(ctx, cfg, id)
	if err != nil {
		return nil, err
	}
	out := []CustomerTag{}
	err = s.tagNames(coll, func(name string) error {
		k, err := s.tag(cfg, name)
		if errors.Is(err, index.ErrNotFound) || errors.Is(err, ErrOtherModel) {
			return nil // deleted since, or to be learned again
		}
		if err != nil {
			return err
		}
		if tags := k.model.Tags(row.Vector); len(tags) > 0 {
			out = append(out, CustomerTag{Tag: name, Label: tags[0].Label, Confidence: tags[0].Confidence, Labels: tags[:min(5, len(tags))]})
		}
		return nil
	})
	return out, err
}

// Tagged lists the customers that have a label as they are now, the surest first;
// their score is the confidence.
func (s *Service) Tagged(ctx context.Context, coll, name string, q TaggedRequest) (*Listed, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	k, err := s.tag(cfg, name)
	if err != nil {
		return nil, err
	}
	if q.Above != nil && !(*q.Above >= 0 && *q.Above <= 1) {
		return nil, faultf("above", "%v: want 0 to 1", *q.Above)
	}
	at := slices.Index(k.model.Labels, q.Label)
	if at < 0 {
		return nil, faultf("label", "%q is not one of %q", q.Label, k.model.Labels)
	}
	return s.list(ctx, coll, q.ListRequest, func(snap index.Snapshot, mask bitmap) ([]uint32, []float32, error) {
		return k.model.Having(ctx, snap, at, k.least(q.Above), mask)
	})
}
