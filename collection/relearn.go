package collection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// What was learned from the vectors before a switch is learned again after it: tags and
// segments first, since audiences may be made from them. Until then an audience is its
// list, and segments and tags are refused. The work is that of ordinary jobs, which this
// one queues one by one.

// relearning is how far it is.
type relearning struct {
	After string `json:"after,omitempty"`
}

// relearn queues the job where there is something to do.
func (s *Service) relearn(ctx context.Context, coll string) error {
	list, err := s.outdated(ctx, coll)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, job := range s.jobs.list() {
		if job.Kind == "relearn" && job.Collection == coll && !job.State.Final() {
			return nil
		}
	}
	_, err = s.jobs.add(ctx, &storedJob{Job: Job{Kind: "relearn", Collection: coll, Total: int64(len(list))}, Relearn: &relearning{}}, nil)
	return err
}

// outdated are what has to be learned again, in order.
func (s *Service) outdated(ctx context.Context, coll string) ([]string, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	var out []string
	tags, err := s.Tags(ctx, coll)
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		if cfg.learned("", t.Stamp) != nil {
			out = append(out, "1 tag/"+t.Name)
		}
	}
	switch set, err := s.Segments(ctx, coll); {
	case err == nil && cfg.learned("", set.Stamp) != nil:
		out = append(out, "2 segments/")
	case err != nil && !errors.Is(err, index.ErrNotFound):
		return nil, err
	}
	all, err := s.Audiences(ctx, coll)
	if err != nil {
		return nil, err
	}
	for _, info := range all {
		if info.State == JobDone && info.Result != nil && info.Combine == nil && otherVectors(&info.Result.Manifest, cfg.Stamp) {
			out = append(out, "3 audience/"+info.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// runRelearn queues the job of the next that is outdated, and itself behind it.
func (s *Service) runRelearn(ctx context.Context, job *storedJob) error {
	list, err := s.outdated(ctx, job.Collection)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearch(list, job.Relearn.After)
	if found {
		at++
	}
	if at == len(list) {
		return nil
	}
	err = s.learnAgain(ctx, job.Collection, list[at])
	switch {
	case errors.Is(err, ErrBusy): // those that wait come first
		return errTurn
	case ctx.Err() != nil:
		return err
	case errors.Is(err, index.ErrNotFound), errors.Is(err, index.ErrExists): // deleted, or on its way
	case err != nil:
		s.jobs.update(job, func(v *Job) {
			if v.Refused++; len(v.Errors) < maxSample {
				v.Errors = append(v.Errors, Verdict{ID: list[at][2:], Reason: reason(err)})
			}
		})
	}
	s.jobs.mu.Lock()
	job.Relearn = &relearning{After: list[at]}
	job.Done++
	s.jobs.mu.Unlock()
	return errTurn
}

func (s *Service) learnAgain(ctx context.Context, coll, what string) error {
	kind, name := what[2:5], what[slices.Index([]byte(what), '/')+1:]
	switch kind {
	case "tag":
		info, err := s.Tag(ctx, coll, name)
		if err != nil {
			return err
		}
		_, err = s.jobs.add(ctx, &storedJob{Job: Job{Kind: "tag", Collection: coll, Target: name}, Tag: &info.Request, Again: true}, nil)
		return err
	case "seg":
		set, err := s.Segments(ctx, coll)
		if err != nil {
			return err
		}
		_, err = s.jobs.add(ctx, &storedJob{Job: Job{Kind: "segments", Collection: coll}, Segments: &set.Request}, nil)
		return err
	case "aud":
		_, err := s.Refresh(ctx, coll, name, RefreshRequest{})
		return err
	}
	return fmt.Errorf("%q cannot be learned again: %w", what, index.ErrInvalid)
}
