package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/audience/tag"
	"github.com/kindred-search/kindred/index"
)

// Segments and tags are derived from a collection's customers: a description and
// a model, stored side by side in one step. A model is read once and kept.

// maxKept is how many numbers (4 bytes each) of models are kept in memory. Beyond
// it all are forgotten, and read again when they are asked for.
const maxKept = 32 << 20

// keptModels are models and their descriptions by the prefix of their keys.
// Readers share the lock, whoever writes or deletes has it alone, so a model is
// never kept that is not stored, nor beside another's description.
type keptModels struct {
	sync.RWMutex
	by   map[string]any
	size int
}

// keptSegments and keptTag are what is kept. Nobody changes them.
type keptSegments struct {
	set   *SegmentSet
	model *segment.Model
}

type keptTag struct {
	info  *TagInfo // without its examples
	model *tag.Model
}

// keep is called with the lock held.
func (k *keptModels) keep(prefix string, it any, size int) {
	if k.size += size; k.size > maxKept || k.by == nil {
		k.by, k.size = map[string]any{}, size
	}
	k.by[prefix] = it
}

// putDerived stores what describes a model and the model itself, in one step, and
// forgets what was kept of an earlier one.
func (s *Service) putDerived(ctx context.Context, prefix string, info, model any) error {
	pairs := map[string][]byte{}
	for part, v := range map[string]any{"info": info, "model": model} {
		if v == nil {
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		pairs[prefix+part] = raw
	}
	s.kept.Lock()
	defer s.kept.Unlock()
	delete(s.kept.by, prefix)
	return s.opt.KV.Put(ctx, pairs)
}

// dropDerived deletes what is stored under a prefix and what is kept of it.
func (s *Service) dropDerived(ctx context.Context, prefix string) error {
	s.kept.Lock()
	defer s.kept.Unlock()
	for key := range s.kept.by {
		if strings.HasPrefix(key, prefix) {
			delete(s.kept.by, key)
		}
	}
	return s.opt.KV.DeletePrefix(ctx, prefix)
}

// dropAllDerived deletes a collection's segments and tags.
func (s *Service) dropAllDerived(ctx context.Context, coll string) error {
	return errors.Join(s.dropDerived(ctx, segmentsKey(coll, "")), s.dropDerived(ctx, tagKey(coll, "", "")))
}

// derived returns what is kept under a prefix, or what load reads, with its size.
func derived[T any](s *Service, prefix string, load func() (*T, int, error)) (*T, error) {
	s.kept.RLock()
	it, ok := s.kept.by[prefix]
	s.kept.RUnlock()
	if ok {
		return it.(*T), nil
	}
	s.kept.Lock()
	defer s.kept.Unlock()
	got, size, err := load()
	if err != nil {
		return nil, err
	}
	s.kept.keep(prefix, got, size)
	return got, nil
}

// read parses the JSON of a key.
func (s *Service) read(key string, into any) error {
	raw, err := s.opt.KV.Get(key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s cannot be read: %w", key, errors.Join(err, index.ErrCorrupt))
	}
	return nil
}

// eraseDerived takes a customer's id out of segments' typical members, of tags'
// examples, and of the requests of jobs, and returns how many segmentations and tags
// named it. The caller holds the collection's lock, as does whoever stores or
// deletes segments or a tag: see present.
func (s *Service) eraseDerived(ctx context.Context, coll, id string) (named int, err error) {
	is := func(other string) bool { return other == id }
	set, err := s.Segments(ctx, coll)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return 0, err
	}
	if err == nil {
		changed := false
		for i := range set.Segments {
			g := &set.Segments[i]
			if slices.ContainsFunc(g.Typical, is) { // the list is shared with readers
				g.Typical, changed = slices.DeleteFunc(slices.Clone(g.Typical), is), true
			}
		}
		if changed {
			if err := s.putDerived(ctx, segmentsKey(coll, ""), set, nil); err != nil {
				return 0, err
			}
			named++
		}
	}
	s.jobs.eraseNamed(coll, id)
	err = s.tagNames(coll, func(name string) error {
		t, err := s.Tag(ctx, coll, name)
		if errors.Is(err, index.ErrNotFound) {
			return nil // deleted since
		}
		if err != nil {
			return err
		}
		req, changed := t.Request.without(is)
		if !changed && !slices.ContainsFunc(t.Unmatched, is) {
			return nil
		}
		named++
		t.Request, t.Unmatched = *req, slices.DeleteFunc(t.Unmatched, is)
		return s.putDerived(ctx, tagKey(coll, name, ""), t, nil)
	})
	return named, err
}

// without returns the request without the example ids of which gone says so, and
// whether there were any. The request itself stays as it is.
func (r *TagRequest) without(gone func(id string) bool) (*TagRequest, bool) {
	out, changed := *r, false
	out.Labels = slices.Clone(r.Labels)
	for i := range out.Labels {
		l := &out.Labels[i]
		if slices.ContainsFunc(l.IDs, gone) {
			l.IDs, changed = slices.DeleteFunc(slices.Clone(l.IDs), gone), true
		}
	}
	return &out, changed
}

// eraseNamed takes an id out of the requests of a collection's jobs, ended ones
// too: seeds, negatives and exclusions of audiences, examples of tags.
func (j *jobs) eraseNamed(coll, id string) {
	is := func(other string) bool { return other == id }
	j.mu.Lock()
	var changed []*storedJob
	for _, job := range j.all {
		if job.Collection != coll {
			continue
		}
		if job.Tag != nil {
			if req, was := job.Tag.without(is); was {
				job.Tag, changed = req, append(changed, job)
			}
		}
		if job.Audience != nil {
			if req, was := withoutID(job.Audience, id); was {
				job.Audience, changed = req, append(changed, job)
			}
		}
	}
	j.mu.Unlock()
	for _, job := range changed {
		j.checkpoint(job)
	}
}

// withoutID returns the request without an id and whether it named it. The request
// itself stays as it is: a job may be working on it.
func withoutID(r *audience.Request, id string) (*audience.Request, bool) {
	out, changed := *r, false
	for _, list := range []*[]audience.SeedRef{&out.Seeds.IDs, &out.Negatives.IDs} {
		is := func(ref audience.SeedRef) bool { return ref.ID == id }
		if slices.ContainsFunc(*list, is) {
			*list, changed = slices.DeleteFunc(slices.Clone(*list), is), true
		}
	}
	if slices.Contains(out.Exclude.IDs, id) {
		out.Exclude.IDs, changed = slices.DeleteFunc(slices.Clone(out.Exclude.IDs), func(other string) bool { return other == id }), true
	}
	return &out, changed
}

// requests are those of a job that learns a tag or builds an audience, as they are
// now; nil where the job is another.
func (j *jobs) requests(job *storedJob) (*TagRequest, *audience.Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return job.Tag, job.Audience
}

// present returns which of the ids are customers, who cannot be erased before the
// collection's lock, which the caller holds, is let go.
func present(ctx context.Context, eng index.Engine, ids []string) (map[string]bool, error) {
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(ids))
	for i, row := range rows {
		out[ids[i]] = row != nil
	}
	return out, nil
}
