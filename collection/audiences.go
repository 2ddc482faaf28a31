package collection

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
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
}

// Membership says whether a customer is in an audience.
type Membership struct {
	ID    string  `json:"id"`
	Known bool    `json:"known"` // the customer is in the collection now
	In    bool    `json:"in"`
	Score float32 `json:"score"` // as selected, or by the stored model for who is not in
}

// Audiences are stored under audience/<collection>/<name>: the description
// under /info, members in pages of pageSize by rank under /page/, and each
// member's rank under /member/<id>. The description says done only after the
// rest is on disk.
const pageSize = 1000

func audienceKey(coll, name string) string {
	if name == "" {
		return "audience/" + coll + "/"
	}
	return "audience/" + coll + "/" + name + "/"
}

func infoKey(coll, name string) string { return audienceKey(coll, name) + "info" }

func pageKey(coll, name string, page int) string {
	return fmt.Sprintf("%spage/%08d", audienceKey(coll, name), page)
}

func memberKey(coll, name, id string) string { return audienceKey(coll, name) + "member/" + id }

var nameRule = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// CreateAudience checks a request and builds the audience as a job.
func (s *Service) CreateAudience(ctx context.Context, coll string, req audience.Request) (Job, error) {
	if _, err := s.config(coll); err != nil {
		return Job{}, err
	}
	var faults []error
	if !nameRule.MatchString(req.Name) {
		faults = append(faults, faultf("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", req.Name))
	}
	if err := req.Validate(); err != nil {
		faults = append(faults, err)
	}
	spec, err := s.spec(ctx, coll)
	if err != nil {
		return Job{}, err
	}
	faults = append(faults, filterFaults("seeds.filter", req.Seeds.Filter, spec), filterFaults("filter", req.Filter, spec))
	if err := errors.Join(faults...); err != nil {
		return Job{}, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	if _, err := s.opt.KV.Get(infoKey(coll, req.Name)); err == nil {
		return Job{}, fmt.Errorf("audience %q of collection %q: delete it first or choose another name: %w", req.Name, coll, index.ErrExists)
	} else if !errors.Is(err, index.ErrNotFound) {
		return Job{}, err
	}
	info := AudienceInfo{Name: req.Name, State: JobQueued, Request: req, Created: s.opt.Clock().UTC()}
	raw, err := json.Marshal(info)
	if err != nil {
		return Job{}, err
	}
	// In one step with its job: an audience without one would wait for ever.
	return s.jobs.add(ctx, &storedJob{
		Job:      Job{Kind: "audience", Collection: coll, Target: req.Name},
		Audience: &req,
	}, map[string][]byte{infoKey(coll, req.Name): raw})
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

func (s *Service) spec(ctx context.Context, coll string) (index.Spec, error) {
	eng, err := s.opt.Store.Open(ctx, coll)
	if err != nil {
		return index.Spec{}, err
	}
	return eng.Spec(), nil
}

func (s *Service) putInfo(ctx context.Context, coll string, info AudienceInfo) error {
	raw, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return s.opt.KV.Put(ctx, map[string][]byte{infoKey(coll, info.Name): raw})
}

// runAudience is the body of an audience job. A resumed job starts over: what a
// killed one left is removed first, and the same request on the same customers
// gives the same list.
func (s *Service) runAudience(ctx context.Context, job *storedJob) error {
	coll, name := job.Collection, job.Target
	// A process may die between the list's last write and the job's: then the
	// list is whole and may have been read.
	if info, err := s.info(coll, name); err == nil && info.State == JobDone && info.Job == job.ID {
		return nil
	}
	stage := ""
	start, last := s.opt.Clock(), s.opt.Clock()
	res, err := s.Run(ctx, coll, *job.Audience, func(now string, done, total int) {
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
	})
	if err == nil {
		s.jobs.update(job, func(v *Job) { v.Stage, v.Done, v.Total = "storing", 0, int64(len(res.Members)) })
		err = s.storeAudience(ctx, job, res)
	}
	if err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), errCancelled) {
		return err // stopping: the audience stays queued
	}
	if err != nil {
		info, ierr := s.info(coll, name)
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

func (s *Service) storeAudience(ctx context.Context, job *storedJob, res *audience.Result) error {
	coll, name := job.Collection, job.Target
	info, err := s.info(coll, name)
	if err != nil {
		return err
	}
	for _, part := range []string{"page/", "member/"} {
		if err := s.opt.KV.DeletePrefix(ctx, audienceKey(coll, name)+part); err != nil {
			return err
		}
	}
	for from := 0; from < len(res.Members); from += pageSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		page := res.Members[from:min(from+pageSize, len(res.Members))]
		raw, err := json.Marshal(page)
		if err != nil {
			return err
		}
		pairs := map[string][]byte{pageKey(coll, name, from/pageSize): raw}
		for _, m := range page {
			pairs[memberKey(coll, name, m.ID)] = binary.AppendUvarint(nil, uint64(m.Rank))
		}
		if err := s.opt.KV.Put(ctx, pairs); err != nil {
			return err
		}
		s.jobs.update(job, func(v *Job) { v.Done = int64(from + len(page)) })
	}
	info.State, info.Job, info.Problem, info.Size = JobDone, job.ID, "", len(res.Members)
	light := *res
	light.Members = nil
	info.Result = &light
	return s.putInfo(ctx, coll, info)
}

// Run builds an audience and returns it without storing it.
func (s *Service) Run(ctx context.Context, coll string, req audience.Request, progress func(stage string, done, total int)) (*audience.Result, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	eng, err := s.opt.Store.Open(ctx, coll)
	if err != nil {
		return nil, err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	pop := audience.Population{
		Snap: snap, Spec: eng.Spec(), Schema: cfg.Schema,
		Limits: audience.Limits{MinSeeds: s.opt.Limits.MinSeeds, MinAudience: s.opt.Limits.MinAudience},
		MembersOf: func(ctx context.Context, name string) ([]string, error) {
			return s.memberIDs(ctx, coll, name)
		},
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
	return audience.Build(ctx, pop, req, progress)
}

func (s *Service) info(coll, name string) (AudienceInfo, error) {
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
	for _, job := range s.jobs.list() {
		if job.Collection == coll && job.Kind == "audience" && job.Target == name && !job.State.Final() {
			if err := s.jobs.cancelAndWait(ctx, job.ID); err != nil {
				return err
			}
		}
	}
	return s.opt.KV.DeletePrefix(ctx, audienceKey(coll, name))
}

// Members returns up to limit members with a rank above after, in order of rank.
func (s *Service) Members(_ context.Context, coll, name string, after, limit int) ([]audience.Member, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	if after < 0 || limit < 1 {
		return nil, faultf("limit", "want a limit of 1 or more and a rank of 0 or more")
	}
	out := []audience.Member{}
	for page := after / pageSize; page*pageSize < info.Size && len(out) < limit; page++ {
		members, err := s.membersPage(coll, name, page)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.Rank > after && len(out) < limit {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func (s *Service) membersPage(coll, name string, page int) ([]audience.Member, error) {
	raw, err := s.opt.KV.Get(pageKey(coll, name, page))
	if err != nil {
		return nil, fmt.Errorf("audience %q, page %d of its members: %w", name, page, err)
	}
	var members []audience.Member
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("audience %q, page %d of its members: %w", name, page, errors.Join(err, index.ErrCorrupt))
	}
	return members, nil
}

func (s *Service) memberIDs(ctx context.Context, coll, name string) ([]string, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, info.Size)
	for page := 0; page*pageSize < info.Size; page++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		members, err := s.membersPage(coll, name, page)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			ids = append(ids, m.ID)
		}
	}
	return ids, nil
}

// Check says for each id whether it is in the audience. Who is not in is
// scored by the stored model.
func (s *Service) Check(ctx context.Context, coll, name string, ids []string) ([]Membership, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	if len(ids) > s.opt.Limits.MaxBatch {
		return nil, faultf("ids", "%d ids: at most %d", len(ids), s.opt.Limits.MaxBatch)
	}
	eng, err := s.opt.Store.Open(ctx, coll)
	if err != nil {
		return nil, err
	}
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Membership, len(ids))
	for i, id := range ids {
		out[i] = Membership{ID: id, Known: rows[i] != nil}
		m, in, err := s.member(coll, name, id)
		if err != nil {
			return nil, err
		}
		switch {
		case in:
			out[i].In, out[i].Score = true, m.Score
		case rows[i] != nil:
			out[i].Score, _ = info.Result.Model.Score(rows[i].Vector, rows[i].Values)
		}
	}
	return out, nil
}

// member looks a customer up in an audience's list.
func (s *Service) member(coll, name, id string) (audience.Member, bool, error) {
	raw, err := s.opt.KV.Get(memberKey(coll, name, id))
	if errors.Is(err, index.ErrNotFound) {
		return audience.Member{}, false, nil
	}
	if err != nil {
		return audience.Member{}, false, err
	}
	rank, n := binary.Uvarint(raw)
	if n <= 0 || rank == 0 {
		return audience.Member{}, false, fmt.Errorf("audience %q, member %q: %w", name, clip(id), index.ErrCorrupt)
	}
	members, err := s.membersPage(coll, name, int(rank-1)/pageSize)
	if err != nil {
		return audience.Member{}, false, err
	}
	for _, m := range members {
		if m.ID == id {
			return m, true, nil
		}
	}
	return audience.Member{}, false, fmt.Errorf("audience %q, member %q: not on its page: %w", name, clip(id), index.ErrCorrupt)
}

// AudiencesOf returns the names of the audiences that hold a customer.
func (s *Service) AudiencesOf(ctx context.Context, coll, id string) ([]string, error) {
	if _, _, err := s.get(ctx, coll, id); err != nil {
		return nil, err
	}
	return s.audiencesWith(coll, id)
}

func (s *Service) audiencesWith(coll, id string) ([]string, error) {
	names, err := s.audienceNames(coll)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, name := range names {
		switch _, err := s.opt.KV.Get(memberKey(coll, name, id)); {
		case err == nil:
			out = append(out, name)
		case !errors.Is(err, index.ErrNotFound):
			return nil, err
		}
	}
	return out, nil
}

// eraseMember takes a customer off every stored list, keeping the others'
// ranks, and returns how many lists held it. Seed lists that name the customer
// lose the name too.
func (s *Service) eraseMember(ctx context.Context, coll, id string) (int, error) {
	names, err := s.audiencesWith(coll, id)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		m, in, err := s.member(coll, name, id)
		if err != nil || !in {
			return 0, err
		}
		page := (m.Rank - 1) / pageSize
		members, err := s.membersPage(coll, name, page)
		if err != nil {
			return 0, err
		}
		kept := members[:0]
		for _, other := range members {
			if other.ID != id {
				kept = append(kept, other)
			}
		}
		raw, err := json.Marshal(kept)
		if err != nil {
			return 0, err
		}
		if err := s.opt.KV.Put(ctx, map[string][]byte{pageKey(coll, name, page): raw}); err != nil {
			return 0, err
		}
		if err := s.opt.KV.Delete(ctx, memberKey(coll, name, id)); err != nil {
			return 0, err
		}
	}
	all, err := s.audienceNames(coll)
	if err != nil {
		return 0, err
	}
	for _, name := range all {
		if err := s.eraseSeed(ctx, coll, name, id); err != nil {
			return 0, err
		}
	}
	return len(names), nil
}

func (s *Service) eraseSeed(ctx context.Context, coll, name, id string) error {
	info, err := s.info(coll, name)
	if err != nil {
		return err
	}
	changed := false
	drop := func(list []audience.SeedRef) []audience.SeedRef {
		kept := list[:0]
		for _, ref := range list {
			if ref.ID == id {
				changed = true
				continue
			}
			kept = append(kept, ref)
		}
		return kept
	}
	info.Request.Seeds.IDs = drop(info.Request.Seeds.IDs)
	info.Request.Negatives.IDs = drop(info.Request.Negatives.IDs)
	if !changed {
		return nil
	}
	return s.putInfo(ctx, coll, info)
}
