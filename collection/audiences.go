package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// AudienceInfo is a stored audience without its members.
type AudienceInfo struct {
	Name    string           `json:"name"`
	State   JobState         `json:"state"`
	Job     string           `json:"job"`
	Problem string           `json:"problem,omitempty"`
	Size    int              `json:"size"`
	Request audience.Request `json:"request"`
	Result  *audience.Result `json:"result,omitempty"` // Members left out
	Created time.Time        `json:"created"`
	// Built is when the customers of the list were looked at. Who was written
	// since is judged anew by the stored model; see live.go.
	Built time.Time `json:"built,omitzero"`
	// Version counts the lists: 1 as first built, one more with each refresh.
	Version  int             `json:"version,omitempty"`
	Versions []Version       `json:"versions,omitempty"` // earlier lists that are kept, oldest first
	Refresh  *RefreshOutcome `json:"last_refresh,omitempty"`
	Next     time.Time       `json:"next_refresh,omitzero"`
	Expires  time.Time       `json:"expires,omitzero"`  // then the audience is deleted
	Combine  *CombineRequest `json:"combine,omitempty"` // how it was made, if not from seeds
	// Named counts the ids that the request named; an info that was read lists none of
	// them, see AudienceIDs.
	Named *NamedIDs `json:"named,omitempty" doc:"ids of the request, which lists none here: /ids does"`
	// Sheet is there where Brief has shown the audience; never stored.
	Sheet *QualityLine `json:"sheet,omitempty" doc:"the result in a line, where the result is left out"`
}

// Membership says whether a customer is in an audience.
type Membership struct {
	ID    string  `json:"id"`
	Known bool    `json:"known"` // the customer is in the collection now
	In    bool    `json:"in"`
	Score float32 `json:"score"` // as selected, or by the stored model for who is not listed or was written since
}

var nameRule = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// CreateAudience checks a request and builds the audience as a job.
func (s *Service) CreateAudience(ctx context.Context, coll string, req audience.Request) (Job, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Job{}, err
	}
	var faults []error
	if !nameRule.MatchString(req.Name) {
		faults = append(faults, faultf("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", req.Name))
	}
	if err := req.Validate(); err != nil {
		faults = append(faults, err)
	}
	spec := cfg.spec()
	faults = append(faults, filterFaults("seeds.filter", req.Seeds.Filter, spec), filterFaults("filter", req.Filter, spec), s.groupFaults(cfg, "seeds", req.Seeds))
	faults = append(faults, req.Within.Each(func(group audience.Seeds) error { return s.groupFaults(cfg, "within", group) }), columnFaults(&req, cfg.Schema))
	if err := errors.Join(faults...); err != nil {
		return Job{}, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	return s.beginAudience(ctx, coll, AudienceInfo{Name: req.Name, Request: req}, &storedJob{Audience: &req})
}

// columnFaults names the columns of a request that the collection does not have.
func columnFaults(req *audience.Request, schema profile.Schema) error {
	var faults []error
	for i, name := range req.Features.Columns {
		if f, ok := schema.Field(name); !ok || f.Type == profile.TypeText {
			faults = append(faults, faultf(fmt.Sprintf("features.columns[%d]", i), "%q is not a column of the collection", name))
		}
	}
	for i, name := range req.Features.AllowSensitive {
		if _, ok := schema.Field(name); !ok {
			faults = append(faults, faultf(fmt.Sprintf("features.allow_sensitive[%d]", i), "%q is not a field of the collection", name))
		}
	}
	if f := req.Fairness; f != nil && f.Column != "" {
		if field, ok := schema.Field(f.Column); !ok || field.Type == profile.TypeText || field.Type == profile.TypeSet {
			faults = append(faults, faultf("fairness.column", "%q is not a category, yes-no or number column of the collection", f.Column))
		}
	}
	return errors.Join(faults...)
}

// beginAudience stores the description of a new audience and its job. The caller
// holds creating.
func (s *Service) beginAudience(ctx context.Context, coll string, info AudienceInfo, job *storedJob) (Job, error) {
	had, err := s.load(coll, info.Name)
	switch {
	case err == nil && s.expired(&had):
		if err := s.drop(ctx, coll, info.Name, "expired"); err != nil {
			return Job{}, err
		}
	case err == nil:
		return Job{}, fmt.Errorf("audience %q of collection %q: delete it first or choose another name: %w", info.Name, coll, index.ErrExists)
	case !errors.Is(err, index.ErrNotFound):
		return Job{}, err
	}
	info.State, info.Created = JobQueued, s.opt.Clock().UTC()
	info.Expires = info.Request.Expires(info.Created)
	if s.expired(&info) {
		return Job{}, faultf("expires_at", "%s has passed", info.Expires.Format(time.RFC3339))
	}
	info.Next = s.due(coll, &info, info.Created)
	pairs := map[string][]byte{}
	if err := describe(coll, info, pairs); err != nil {
		return Job{}, err
	}
	job.Kind, job.Collection, job.Target = "audience", coll, info.Name
	// In one step with its job: an audience without one would wait for ever.
	out, err := s.jobs.add(ctx, job, pairs)
	if err == nil {
		s.timetable.set(coll, &info)
	}
	return out, err
}

// filterFaults compiles a filter only to hear what is wrong with it.
func filterFaults(at string, f *index.Filter, spec index.Spec) error {
	_, err := f.Compile(spec.Columns)
	var faults []error
	for _, fault := range Faults(err) {
		where, what, _ := strings.Cut(strings.TrimPrefix(fault.Message, "filter"), ": ")
		faults = append(faults, faultf(at+where, "%s", what))
	}
	return errors.Join(faults...)
}

func (s *Service) putInfo(ctx context.Context, coll string, info AudienceInfo) error {
	pairs := map[string][]byte{}
	if err := describe(coll, info, pairs); err != nil {
		return err
	}
	defer s.forgetJudge(coll, info.Name)
	if err := s.opt.KV.Put(ctx, pairs); err != nil {
		return err
	}
	s.timetable.set(coll, &info)
	return nil
}

// runAudience is the body of an audience job. A resumed job starts over: what a
// killed one left is removed first, and the same request on the same customers
// gives the same list.
func (s *Service) runAudience(ctx context.Context, job *storedJob) error {
	coll, name := job.Collection, job.Target
	// A process may die between the list's last write and the job's: then the
	// list is whole and may have been read.
	if info, err := s.load(coll, name); err == nil && info.State == JobDone && info.Job == job.ID {
		return nil
	}
	s.watchErasures(coll)
	built := s.now(coll)
	if job.Combine != nil {
		return s.ended(ctx, job, s.runCombine(ctx, job, built))
	}
	_, req := s.jobs.requests(job)
	res, err := s.Run(ctx, coll, *req, s.reporter(job))
	if err == nil {
		err = s.storeAudience(ctx, job, res, built)
	}
	return s.ended(ctx, job, err)
}

// reporter shows a build's progress in its job.
func (s *Service) reporter(job *storedJob) func(stage string, done, total int) {
	stage := ""
	start, last := s.opt.Clock(), s.opt.Clock()
	return func(now string, done, total int) {
		t := s.opt.Clock()
		if now == stage && t.Sub(last) < 50*time.Millisecond && done < total {
			return
		}
		if now != stage {
			stage, start = now, t
		}
		last = t
		s.jobs.update(job, func(v *Job) {
			v.Stage, v.Total = now, int64(total)
			pace(v, int64(done), 0, t.Sub(start))
		})
	}
}

// ended writes how the job that first builds an audience ended, where it has not
// ended well.
func (s *Service) ended(ctx context.Context, job *storedJob, err error) error {
	coll, name := job.Collection, job.Target
	if err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), errCancelled) {
		return err // stopping: the audience stays queued
	}
	if err != nil {
		info, ierr := s.load(coll, name)
		if ierr != nil {
			return errors.Join(err, ierr)
		}
		info.Job = job.ID
		info.State, info.Problem = JobFailed, reason(err)
		if errors.Is(context.Cause(ctx), errCancelled) {
			info.State, info.Problem = JobCancelled, ""
		}
		return errors.Join(err, s.putInfo(context.WithoutCancel(ctx), coll, info))
	}
	return nil
}

// Run builds an audience and returns it without storing it.
func (s *Service) Run(ctx context.Context, coll string, req audience.Request, progress func(stage string, done, total int)) (*audience.Result, error) {
	return s.build(ctx, coll, req, nil, nil, progress)
}

// build is Run for an audience that may have a list and outcomes already.
func (s *Service) build(ctx context.Context, coll string, req audience.Request, old *audience.Incumbent, seen *audience.Observed, progress func(stage string, done, total int)) (*audience.Result, error) {
	pop, done, err := s.population(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer done()
	pop.Incumbent, pop.Observed = old, seen
	return audience.Build(ctx, pop, req, progress)
}

// Reach tells what lists of some sizes of a stored audience would hold now.
func (s *Service) Reach(ctx context.Context, coll, name string, sizes []int) ([]audience.Point, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	pop, done, err := s.population(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := s.whole(coll, &info); err != nil {
		return nil, err
	}
	if otherVectors(&info.Result.Manifest, pop.Spec.Stamp) {
		return nil, fmt.Errorf("audience %q: the list's model %w: refresh the audience", name, ErrOtherModel)
	}
	return audience.Reach(ctx, pop, info.Request, info.Result, sizes)
}

// population is a collection as package audience sees it, until done is called.
func (s *Service) population(ctx context.Context, coll string) (pop audience.Population, done func(), err error) {
	cfg, err := s.config(coll)
	if err != nil {
		return pop, nil, err
	}
	return s.populationOf(ctx, cfg)
}

func (s *Service) populationOf(ctx context.Context, cfg Config) (pop audience.Population, done func(), err error) {
	coll := cfg.Name
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return pop, nil, err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return pop, nil, err
	}
	pop = audience.Population{
		Snap: snap, Spec: eng.Spec(), Schema: cfg.Schema,
		Limits: audience.Limits{MinSeeds: s.opt.Limits.MinSeeds, MinAudience: s.opt.Limits.MinAudience},
		MembersOf: func(ctx context.Context, name string) ([]string, error) {
			return s.memberIDs(ctx, coll, name)
		},
		Grouped: func(ctx context.Context, seeds audience.Seeds) ([]uint32, error) {
			return s.grouped(ctx, cfg, snap, seeds)
		},
		Texts: readTexts(eng, cfg.Schema),
		Suppressed: func(_ context.Context, names []string) (func(string) bool, error) {
			return s.suppressedBy(coll, names, false)
		},
		ValuesOf: func(ctx context.Context, name string) (map[string]float64, error) {
			return s.outcomeValues(ctx, coll, name)
		},
	}
	if s.opt.Outside != nil {
		pop.Outside = s.opt.Outside(cfg.held())
	}
	if cfg.Model != "" {
		pop.Encode = func(ctx context.Context, text string) ([]float32, error) {
			res, err := s.encode(ctx, cfg, []string{text}, embed.EncodeOptions{})
			if err != nil {
				return nil, err
			}
			return res.Vectors, nil
		}
	}
	return pop, func() { closeSnapshot(snap, s.log) }, nil
}

// info is a stored audience; one that has expired is not there.
func (s *Service) info(coll, name string) (AudienceInfo, error) {
	info, err := s.load(coll, name)
	if err == nil && s.expired(&info) {
		return AudienceInfo{}, fmt.Errorf("audience %q of collection %q expired on %s: %w", name, coll, info.Expires.Format(time.RFC3339), index.ErrNotFound)
	}
	return info, err
}

// load is info whether expired or not.
func (s *Service) load(coll, name string) (AudienceInfo, error) {
	var info AudienceInfo
	raw, err := s.opt.KV.Get(infoKey(coll, name))
	if errors.Is(err, index.ErrNotFound) {
		return info, fmt.Errorf("audience %q of collection %q: %w", name, coll, index.ErrNotFound)
	}
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, fmt.Errorf("audience %q: its description cannot be read: %w", name, errors.Join(err, index.ErrCorrupt))
	}
	return info, nil
}

// finished is info, refused until the list is there.
func (s *Service) finished(coll, name string) (AudienceInfo, error) {
	info, err := s.info(coll, name)
	if err != nil {
		return info, err
	}
	if info.State != JobDone {
		return info, faultf("audience", "%q is %s: its list is there when the state is done", name, info.State)
	}
	return info, nil
}

// Audience returns one audience without its members.
func (s *Service) Audience(_ context.Context, coll, name string) (*AudienceInfo, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	info, err := s.info(coll, name)
	if err != nil {
		return nil, err
	}
	s.live(coll, &info)
	return &info, nil
}

// live fills in what the audience's job knows before the list is stored.
func (s *Service) live(coll string, info *AudienceInfo) {
	if info.State.Final() {
		return
	}
	for _, job := range s.jobs.list() { // newest first
		if job.Kind == "audience" && job.Collection == coll && job.Target == info.Name {
			info.State, info.Job, info.Problem = job.State, job.ID, job.Problem
			return
		}
	}
}

// Audiences returns a collection's audiences in order of name.
func (s *Service) Audiences(_ context.Context, coll string) ([]AudienceInfo, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	out := []AudienceInfo{}
	names, err := s.audienceNames(coll)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		info, err := s.info(coll, name)
		if errors.Is(err, index.ErrNotFound) {
			continue // expired, or deleted since
		}
		if err != nil {
			return nil, err
		}
		s.live(coll, &info)
		out = append(out, info)
	}
	return out, nil
}

// audienceNames skips from name to name without reading the members between.
func (s *Service) audienceNames(coll string) ([]string, error) {
	var names []string
	prefix := audienceKey(coll, "")
	after := ""
	for {
		page, err := s.opt.KV.List(prefix, 1, after)
		if err != nil || len(page) == 0 {
			return names, err
		}
		name := page[0].Key[len(prefix):]
		for i := range name {
			if name[i] == '/' {
				name = name[:i]
				break
			}
		}
		names = append(names, name)
		after = audienceKey(coll, name) + "\xff" // past every key of this audience
	}
}

// DropAudience deletes an audience, cancelling its job if it still runs.
func (s *Service) DropAudience(ctx context.Context, coll, name string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	if _, err := s.info(coll, name); err != nil {
		return err
	}
	return s.drop(ctx, coll, name, "deleted")
}

// drop deletes an audience and tells its watchers why. The caller holds creating.
func (s *Service) drop(ctx context.Context, coll, name, why string) error {
	for _, job := range s.jobs.list() {
		if builds(&job, coll, name) && !job.State.Final() {
			if err := s.jobs.cancelAndWait(ctx, job.ID); err != nil {
				return err
			}
		}
	}
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	if err := s.sweep(ctx, coll, name); err != nil {
		return err
	}
	defer s.forgetJudge(coll, name)
	if err := s.opt.KV.DeletePrefix(ctx, audienceKey(coll, name)); err != nil {
		return err
	}
	s.timetable.forget(coll, name)
	s.changes.end(coll, Change{Audience: name, Change: why, At: s.opt.Clock().UTC()})
	return nil
}

// builds says whether a job makes an audience's list.
func builds(job *Job, coll, name string) bool {
	return job.Collection == coll && job.Target == name && (job.Kind == "audience" || job.Kind == "refresh")
}

func (s *Service) eraseSeed(ctx context.Context, coll, name, id string) error {
	info, err := s.load(coll, name)
	if err == nil {
		err = s.whole(coll, &info)
	}
	if err != nil {
		return err
	}
	req, changed := withoutID(&info.Request, id)
	if info.Request = *req; changed {
		info.Named = &NamedIDs{} // counted anew; of the last id nothing stays
	}
	if res := info.Result; res != nil {
		// What the sheet names customers by.
		strike := func(list []string) []string {
			n := len(list)
			list = slices.DeleteFunc(list, func(x string) bool { return x == id })
			changed = changed || len(list) < n
			return list
		}
		for i := range res.Interests {
			in := &res.Interests[i]
			in.Seed, in.Member = strike(in.Seed), strike(in.Member)
		}
		res.Doctor.Unmatched = strike(res.Doctor.Unmatched)
		n := len(res.Doctor.Outliers)
		res.Doctor.Outliers = slices.DeleteFunc(res.Doctor.Outliers, func(o audience.Outlier) bool { return o.ID == id })
		changed = changed || len(res.Doctor.Outliers) < n
	}
	if !changed {
		return nil
	}
	return s.putInfo(ctx, coll, info)
}
