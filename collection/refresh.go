package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// A refresh builds an audience's list anew, from its definition on the customers
// of the moment, as a job. The list before stays the one that counts until the
// new one is whole, and stays as an earlier version after that. A refresh that
// fails changes nothing but the audience's last_refresh.

// Version is one earlier list of an audience.
type Version struct {
	Version int       `json:"version"`
	Job     string    `json:"job"`
	Built   time.Time `json:"built"`
	Size    int       `json:"size"`
}

// RefreshOutcome is how the last refresh ended.
type RefreshOutcome struct {
	At      time.Time       `json:"at"`
	Job     string          `json:"job"`
	State   JobState        `json:"state"`
	Problem string          `json:"problem,omitempty"`
	Churn   *audience.Churn `json:"churn,omitempty"`
}

// RefreshRequest asks for a refresh now.
type RefreshRequest struct {
	Churn     *float64 `json:"churn,omitempty"` // most members replaced, as a share; absent: as the audience says
	Scheduled bool     `json:"-"`               // advance the timetable, and be silent where there is nothing to do
}

// version is the number of the list that counts.
func (info *AudienceInfo) version() int { return max(info.Version, 1) }

// jobs are those whose lists are kept: the one that counts and earlier ones.
func (info *AudienceInfo) jobs() []string {
	var out []string
	if info.State == JobDone {
		out = append(out, info.Job)
	}
	for _, v := range info.Versions {
		out = append(out, v.Job)
	}
	return out
}

func versionKey(coll, name string, version int) string {
	return fmt.Sprintf("%sversion/%08d", audienceKey(coll, name), version)
}

// at is one version of a finished audience; 0 is the one that counts.
func (s *Service) at(coll, name string, version int) (AudienceInfo, error) {
	info, err := s.finished(coll, name)
	if err != nil || version == 0 || version == info.version() {
		return info, err
	}
	if !slices.ContainsFunc(info.Versions, func(v Version) bool { return v.Version == version }) {
		return info, fmt.Errorf("audience %q has no version %d: it keeps %s: %w", name, version, info.kept(), index.ErrNotFound)
	}
	raw, err := s.opt.KV.Get(versionKey(coll, name, version))
	if err != nil {
		return info, fmt.Errorf("audience %q, version %d: %w", name, version, err)
	}
	var old AudienceInfo
	if err := json.Unmarshal(raw, &old); err != nil {
		return info, fmt.Errorf("audience %q, version %d: its description cannot be read: %w", name, version, errors.Join(err, index.ErrCorrupt))
	}
	return old, nil
}

// AudienceAt is one version of a finished audience, 0 being the one that counts. The
// definition stands in the latter alone.
func (s *Service) AudienceAt(_ context.Context, coll, name string, version int) (*AudienceInfo, error) {
	info, err := s.at(coll, name, version)
	info.Version = info.version()
	return &info, err
}

// MinAudience is the fewest members that a list which is handed out may have.
func (s *Service) MinAudience() int { return s.opt.Limits.MinAudience }

func (info *AudienceInfo) kept() string {
	list := []string{}
	for _, v := range info.Versions {
		list = append(list, fmt.Sprint(v.Version))
	}
	return strings.Join(append(list, fmt.Sprint(info.version())), ", ")
}

// old is the description as an earlier version keeps it: without the definition,
// which may name customers.
func (info AudienceInfo) old() AudienceInfo {
	info.Request, info.Named, info.Versions, info.Refresh = audience.Request{Name: info.Name}, nil, nil, nil
	info.Version = info.version()
	return info
}

// forgetVersions removes the descriptions of versions that are not kept.
func (s *Service) forgetVersions(ctx context.Context, coll string, info *AudienceInfo) error {
	keep := map[string]bool{}
	for _, v := range info.Versions {
		keep[versionKey(coll, info.Name, v.Version)] = true
	}
	var gone []string
	err := s.each(audienceKey(coll, info.Name)+"version/", func(key string, _ []byte) error {
		if !keep[key] {
			gone = append(gone, key)
		}
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	return s.opt.KV.Delete(ctx, gone...)
}

// Refresh builds an audience anew as a job. One at a time: asked while one is
// under way, it is index.ErrExists.
func (s *Service) Refresh(ctx context.Context, coll, name string, req RefreshRequest) (Job, error) {
	if c := req.Churn; c != nil && !(*c >= 0 && *c <= 1) {
		return Job{}, faultf("churn", "%v: want a share of 0 to 1", *c)
	}
	if _, err := s.config(coll); err != nil {
		return Job{}, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	info, err := s.info(coll, name)
	if err != nil {
		return Job{}, err
	}
	if now := s.opt.Clock().UTC(); req.Scheduled && (info.Next.IsZero() || info.Next.After(now)) {
		s.timetable.set(coll, &info) // another process has refreshed it, or changed when that is due
		return Job{}, nil
	}
	info.Next = s.due(coll, &info, s.opt.Clock().UTC())
	for _, job := range s.jobs.list() {
		if builds(&job, coll, name) && !job.State.Final() {
			if req.Scheduled {
				return job, s.putInfo(ctx, coll, info)
			}
			return Job{}, fmt.Errorf("audience %q is being built already, by job %s: %w", name, job.ID, index.ErrExists)
		}
	}
	if info.State != JobDone {
		if req.Scheduled {
			return Job{}, s.putInfo(ctx, coll, info)
		}
		_, err := s.finished(coll, name)
		return Job{}, err
	}
	pairs := map[string][]byte{}
	if req.Scheduled { // in one step with the job: what was due runs once
		if err := describe(coll, info, pairs); err != nil {
			return Job{}, err
		}
	}
	job, err := s.jobs.add(ctx, &storedJob{Job: Job{Kind: "refresh", Collection: coll, Target: name}, Refresh: &req}, pairs)
	if err == nil && req.Scheduled {
		s.timetable.set(coll, &info)
	}
	return job, err
}

// runRefresh is the body of a refresh job. A resumed one starts over.
func (s *Service) runRefresh(ctx context.Context, job *storedJob) error {
	coll, name := job.Collection, job.Target
	info, err := s.finished(coll, name)
	if err != nil {
		return err
	}
	if info.Job == job.ID {
		return nil // the list was whole before the process died
	}
	s.watchErasures(coll)
	err = s.refresh(ctx, job, &info)
	switch cause := context.Cause(ctx); {
	case err == nil:
		s.timetable.done.Add(1)
		return nil
	case cause != nil && !errors.Is(cause, errCancelled):
		return err // stopping: it resumes
	}
	out := &RefreshOutcome{At: s.opt.Clock().UTC(), Job: job.ID, State: JobFailed, Problem: reason(err)}
	if errors.Is(context.Cause(ctx), errCancelled) {
		out.State, out.Problem = JobCancelled, ""
	} else {
		s.timetable.failed.Add(1)
		s.changes.tell(coll, Change{Audience: name, Change: "refresh_failed", At: out.At, Problem: out.Problem})
	}
	return errors.Join(err, s.edit(context.WithoutCancel(ctx), coll, name, func(info *AudienceInfo) error {
		info.Refresh = out
		return nil
	}))
}

func (s *Service) refresh(ctx context.Context, job *storedJob, info *AudienceInfo) error {
	coll, built := job.Collection, s.now(job.Collection)
	if info.Combine != nil {
		if job.Refresh.Churn != nil {
			return faultf("churn", "%q is combined from other audiences: it has no scores of its own to keep members by", info.Name)
		}
		return s.runCombine(ctx, job, built)
	}
	old := &audience.Incumbent{Churn: 1, Control: info.Result.Manifest.Control}
	if r := info.Request.Refresh; r != nil && r.Churn != nil {
		old.Churn = *r.Churn
	}
	if job.Refresh.Churn != nil {
		old.Churn = *job.Refresh.Churn
	}
	var err error
	if old.IDs, err = s.idsOf(ctx, coll, info); err != nil {
		return err
	}
	if err := s.whole(coll, info); err != nil {
		return err
	}
	res, err := s.build(ctx, coll, info.Request, old, info.Result.Quality.Platt.Observed, s.reporter(job))
	if err != nil {
		return err
	}
	return s.storeAudience(ctx, job, res, built)
}

// edit changes an audience's description in one durable step.
func (s *Service) edit(ctx context.Context, coll, name string, change func(*AudienceInfo) error) error {
	return s.exclusively(ctx, audienceKey(coll, name)+"info", func(ctx context.Context) error {
		return s.editClaimed(ctx, coll, name, change)
	})
}

func (s *Service) editClaimed(ctx context.Context, coll, name string, change func(*AudienceInfo) error) error {
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	info, err := s.info(coll, name)
	if err != nil {
		return err
	}
	if err := change(&info); err != nil {
		return err
	}
	return s.putInfo(ctx, coll, info)
}

// A job looks at customers as they were when it began: who is erased while it
// runs must not come back with its list. Jobs run one at a time and start over
// after a kill, so the names need not outlive the process.

func (s *Service) watchErasures(coll string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erased = map[string][]string{coll: {}}
}

func (s *Service) noteErased(coll, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list, watched := s.erased[coll]; watched {
		s.erased[coll] = append(list, id)
	}
}

func (s *Service) erasedSince(coll string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.erased[coll])
}

// AudienceChange changes what happens to a stored audience. Absent fields stay.
type AudienceChange struct {
	Refresh   *audience.Refresh `json:"refresh,omitempty" doc:"{} ends the schedule"`
	TTL       *string           `json:"ttl,omitempty" doc:"from now; 0s: for ever"`
	ExpiresAt *time.Time        `json:"expires_at,omitempty"`
	Control   *audience.Control `json:"control,omitempty" doc:"holds members back from now on; an audience has one control group for life"`
}

// ChangeAudience applies a change in one durable step.
func (s *Service) ChangeAudience(ctx context.Context, coll, name string, c AudienceChange) (*AudienceInfo, error) {
	next := audience.Lifecycle{Refresh: c.Refresh, Control: c.Control, ExpiresAt: c.ExpiresAt}
	if c.TTL != nil {
		next.TTL = *c.TTL
	}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	err := s.edit(ctx, coll, name, func(info *AudienceInfo) error {
		now := s.opt.Clock().UTC()
		if c.Refresh != nil {
			info.Request.Refresh = c.Refresh
			info.Next = s.due(coll, info, now)
		}
		if c.TTL != nil || c.ExpiresAt != nil {
			info.Request.TTL, info.Request.ExpiresAt = next.TTL, next.ExpiresAt
			if info.Expires = next.Expires(now); s.expired(info) {
				return faultf("expires_at", "%s has passed", info.Expires.Format(time.RFC3339))
			}
		}
		if c.Control != nil {
			return s.holdBack(ctx, coll, info, c.Control)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.Audience(ctx, coll, name)
}

// holdBack draws a control group on a list that has none.
func (s *Service) holdBack(ctx context.Context, coll string, info *AudienceInfo, c *audience.Control) error {
	if info.State != JobDone || info.Result == nil {
		return faultf("control", "audience %q is %s: its list is there when the state is done", info.Name, info.State)
	}
	if info.Result.Manifest.Control != nil {
		return fmt.Errorf("audience %q has a control group already, and who is in it must not change sides: build another audience: %w", info.Name, index.ErrExists)
	}
	ids, err := s.idsOf(ctx, coll, info)
	if err != nil {
		return err
	}
	info.Request.Control = c
	info.Result.Manifest.Control, err = audience.HoldBack(c, info.Name, info.Request.Seed, ids)
	return err
}
