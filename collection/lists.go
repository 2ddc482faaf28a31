package collection

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// Audiences are stored under audience/<collection>/<name>/: the description at
// info, and the list in pages of pageSize by rank under page/<job>/. A member's
// rank lies under in/<collection>/<length of the id>:<id>/<name>/<job>, so that
// all lists which hold one customer lie side by side. The description names the
// job whose list counts: a list becomes visible, whole, when its description is
// written, and what a killed job left behind is no list of anybody's.
const pageSize = 1000

func audienceKey(coll, name string) string {
	if name == "" {
		return "audience/" + coll + "/"
	}
	return "audience/" + coll + "/" + name + "/"
}

func infoKey(coll, name string) string { return audienceKey(coll, name) + "info" }

func pagesKey(coll, name, job string) string { return audienceKey(coll, name) + "page/" + job + "/" }

func pageKey(coll, name, job string, page int) string {
	return fmt.Sprintf("%s%08d", pagesKey(coll, name, job), page)
}

func listsKey(coll, id string) string {
	return "in/" + coll + "/" + strconv.Itoa(len(id)) + ":" + id + "/"
}

func memberKey(coll, id, name, job string) string {
	return listsKey(coll, id) + name + "/" + job
}

// memberValue is a member's rank and, after it, the score as the bits of a float32.
// Lists that were stored by earlier versions have the rank alone.
func memberValue(m *audience.Member) []byte {
	out := binary.AppendUvarint(make([]byte, 0, 9), uint64(m.Rank))
	return binary.LittleEndian.AppendUint32(out, math.Float32bits(m.Score))
}

// list is a list to be stored: n members by rank, and the answer that goes with them.
type list struct {
	res   *audience.Result // Members are not looked at
	built time.Time
	n     int
	page  func(from, to int) []audience.Member
}

func (s *Service) storeAudience(ctx context.Context, job *storedJob, res *audience.Result, built time.Time) error {
	return s.storeList(ctx, job, list{res, built, len(res.Members), func(from, to int) []audience.Member { return res.Members[from:to] }})
}

// storeList writes a list beside the one that counts and then, in one durable
// step, makes it the one that counts; the one before becomes an earlier version.
func (s *Service) storeList(ctx context.Context, job *storedJob, l list) error {
	coll, name := job.Collection, job.Target
	info, err := s.info(coll, name)
	if err != nil {
		return err
	}
	if err := s.sweep(ctx, coll, name, info.jobs()...); err != nil {
		return err
	}
	s.jobs.update(job, func(v *Job) { v.Stage, v.Done, v.Total = "storing", 0, int64(l.n) })
	for from := 0; from < l.n; from += pageSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		page := l.page(from, min(from+pageSize, l.n))
		raw, err := json.Marshal(page)
		if err != nil {
			return err
		}
		pairs := map[string][]byte{pageKey(coll, name, job.ID, from/pageSize): raw}
		for _, m := range page {
			pairs[memberKey(coll, m.ID, name, job.ID)] = memberValue(&m)
		}
		if err := s.opt.KV.Put(ctx, pairs); err != nil {
			return err
		}
		s.jobs.update(job, func(v *Job) { v.Done = int64(from + len(page)) })
	}
	var keep []string
	err = s.exclusively(ctx, audienceKey(coll, name)+"info", func(ctx context.Context) (err error) {
		keep, err = s.publish(ctx, job, l)
		return err
	})
	if err != nil {
		return err
	}
	return s.sweep(context.WithoutCancel(ctx), coll, name, keep...)
}

// publish makes a written list the one that counts, without those who were erased
// meanwhile, and returns the jobs whose lists are kept.
func (s *Service) publish(ctx context.Context, job *storedJob, l list) ([]string, error) {
	coll, name := job.Collection, job.Target
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	info, err := s.info(coll, name)
	if err != nil {
		return nil, err
	}
	for _, id := range s.erasedSince(coll) {
		if _, err := s.takeOff(ctx, coll, id); err != nil {
			return nil, err
		}
	}
	pairs := map[string][]byte{}
	now, version := s.opt.Clock().UTC(), 1
	if info.State == JobDone {
		if pairs[versionKey(coll, name, info.version())], err = json.Marshal(info.old()); err != nil {
			return nil, err
		}
		version = info.version() + 1
		info.Versions = append(info.Versions, Version{info.version(), info.Job, info.Built, info.Size})
		info.Versions = info.Versions[max(0, len(info.Versions)-info.Request.Refresh.Kept()):]
		info.Refresh = &RefreshOutcome{At: now, Job: job.ID, State: JobDone, Churn: l.res.Churn}
	}
	info.State, info.Job, info.Problem, info.Size, info.Built, info.Version = JobDone, job.ID, "", l.n, l.built, version
	light := *l.res
	light.Members = nil
	info.Result = &light
	if err := describe(coll, info, pairs); err != nil {
		return nil, err
	}
	defer s.forgetJudge(coll, name)
	if err := s.opt.KV.Put(ctx, pairs); err != nil {
		return nil, err
	}
	s.timetable.set(coll, &info)
	if info.Version > 1 {
		c := Change{Audience: name, Change: "refreshed", At: now, Version: info.Version}
		if l.res.Churn != nil {
			c.Entered, c.Left = l.res.Churn.Entered, l.res.Churn.Left
		}
		s.changes.tell(coll, c)
	}
	return info.jobs(), s.forgetVersions(context.WithoutCancel(ctx), coll, &info)
}

// sweep removes every list of an audience but those of some jobs.
func (s *Service) sweep(ctx context.Context, coll, name string, keep ...string) error {
	prefix := audienceKey(coll, name) + "page/"
	after := ""
	for {
		page, err := s.opt.KV.List(prefix, 1, after)
		if err != nil || len(page) == 0 {
			return err
		}
		key := page[0].Key
		job, _, _ := strings.Cut(key[len(prefix):], "/")
		if slices.Contains(keep, job) {
			after = pagesKey(coll, name, job) + "\xff"
			continue
		}
		var members []audience.Member
		if err := json.Unmarshal(page[0].Value, &members); err != nil {
			return fmt.Errorf("audience %q, a page of its members: %w", name, errors.Join(err, index.ErrCorrupt))
		}
		keys := make([]string, 0, len(members))
		for _, m := range members {
			keys = append(keys, memberKey(coll, m.ID, name, job))
		}
		// The page last: it says where the others are.
		if len(keys) > 0 {
			if err := s.opt.KV.Delete(ctx, keys...); err != nil {
				return err
			}
		}
		if err := s.opt.KV.Delete(ctx, key); err != nil {
			return err
		}
		after = key
	}
}

// Members returns up to limit members with a rank above after, in order of rank.
// Those of the control group are marked, for who exports to leave them out.
func (s *Service) Members(ctx context.Context, coll, name string, after, limit int) ([]audience.Member, error) {
	return s.MembersAt(ctx, coll, name, 0, after, limit)
}

// MembersAt is Members of one version of the list; 0 is the one that counts.
func (s *Service) MembersAt(_ context.Context, coll, name string, version, after, limit int) ([]audience.Member, error) {
	info, err := s.at(coll, name, version)
	if err != nil {
		return nil, err
	}
	if after < 0 || limit < 1 {
		return nil, faultf("limit", "want a limit of 1 or more and a rank of 0 or more")
	}
	off, err := s.suppressedFrom(coll, name)
	if err != nil {
		return nil, err
	}
	out := []audience.Member{}
	for page := after / pageSize; page*pageSize < info.Size && len(out) < limit; page++ {
		members, err := s.membersPage(coll, &info, page)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.Rank > after && len(out) < limit && (off == nil || !off(m.ID)) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func (s *Service) membersPage(coll string, info *AudienceInfo, page int) ([]audience.Member, error) {
	raw, err := s.opt.KV.Get(pageKey(coll, info.Name, info.Job, page))
	if err != nil {
		return nil, fmt.Errorf("audience %q, page %d of its members: %w", info.Name, page, err)
	}
	var members []audience.Member
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("audience %q, page %d of its members: %w", info.Name, page, errors.Join(err, index.ErrCorrupt))
	}
	if info.Result == nil {
		return members, nil
	}
	held, seen := info.Result.Manifest.Control, &info.Result.Quality.Platt
	for i := range members {
		m := &members[i]
		m.Control = held.Holds(m.ID)
		if seen.Observed != nil {
			m.Probability = float32(seen.Probability(m.Score))
		}
	}
	return members, nil
}

func (s *Service) memberIDs(ctx context.Context, coll, name string) ([]string, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	return s.idsOf(ctx, coll, &info)
}

// idsOf are the ids of one version of a list by rank.
func (s *Service) idsOf(ctx context.Context, coll string, info *AudienceInfo) ([]string, error) {
	ids := make([]string, 0, info.Size)
	for page := 0; page*pageSize < info.Size; page++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		members, err := s.membersPage(coll, info, page)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			ids = append(ids, m.ID)
		}
	}
	return ids, nil
}

// scoreIn is a customer's score in one list, and whether it is there.
func (s *Service) scoreIn(coll, id string, info *AudienceInfo) (score float32, in bool, err error) {
	value, err := s.opt.KV.Get(memberKey(coll, id, info.Name, info.Job))
	if errors.Is(err, index.ErrNotFound) || errors.Is(err, index.ErrInvalid) { // no key can be as odd as some ids
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	rank, n := binary.Uvarint(value)
	if n <= 0 || rank == 0 {
		return 0, false, fmt.Errorf("audience %q, member %q: %w", info.Name, clip(id), index.ErrCorrupt)
	}
	if len(value) == n+4 {
		return math.Float32frombits(binary.LittleEndian.Uint32(value[n:])), true, nil
	}
	members, err := s.membersPage(coll, info, int(rank-1)/pageSize)
	if err != nil {
		return 0, false, err
	}
	at := slices.IndexFunc(members, func(m audience.Member) bool { return m.ID == id })
	if at < 0 {
		return 0, false, nil
	}
	return members[at].Score, true, nil
}

// listed returns the rank of a customer in each list that counts, by audience:
// one short walk over neighbouring keys, however many audiences there are.
func (s *Service) listed(coll, id string, all *judges) (map[string]int, error) {
	out := map[string]int{}
	prefix := listsKey(coll, id)
	err := s.each(prefix, func(key string, value []byte) error {
		name, job, _ := strings.Cut(key[len(prefix):], "/")
		if j := all.named[name]; j == nil || j.job != job {
			return nil
		}
		rank, n := binary.Uvarint(value)
		if n <= 0 || rank == 0 {
			return fmt.Errorf("audience %q, member %q: %w", name, clip(id), index.ErrCorrupt)
		}
		out[name] = int(rank)
		return nil
	})
	return out, err
}

// eraseMember takes a customer off every stored list, of every version, keeping
// the others' ranks, and returns how many audiences held it and how many outcomes
// there were. Seed lists that name the customer lose the name too.
func (s *Service) eraseMember(ctx context.Context, coll, id string) (held, outcomes int, err error) {
	if held, err = s.takeOff(ctx, coll, id); err != nil {
		return 0, 0, err
	}
	all, err := s.audienceNames(coll)
	if err != nil {
		return 0, 0, err
	}
	var keys []string
	for _, name := range all {
		key := outcomeKey(coll, name, id)
		if _, err := s.opt.KV.Get(key); err == nil {
			keys = append(keys, key)
		} else if !errors.Is(err, index.ErrNotFound) && !errors.Is(err, index.ErrInvalid) {
			return 0, 0, err
		}
		if err := s.eraseSeed(ctx, coll, name, id); err != nil {
			return 0, 0, err
		}
	}
	if len(keys) > 0 {
		if err := s.opt.KV.Delete(ctx, keys...); err != nil {
			return 0, 0, err
		}
	}
	s.noteErased(coll, id)
	return held, len(keys), nil
}

// takeOff rewrites every page that holds a customer, and returns how many
// audiences they belong to.
func (s *Service) takeOff(ctx context.Context, coll, id string) (int, error) {
	prefix := listsKey(coll, id)
	held := map[string]bool{}
	err := s.each(prefix, func(key string, value []byte) error {
		name, job, _ := strings.Cut(key[len(prefix):], "/")
		rank, n := binary.Uvarint(value)
		if n <= 0 || rank == 0 {
			return fmt.Errorf("audience %q, member %q: %w", name, clip(id), index.ErrCorrupt)
		}
		at := pageKey(coll, name, job, int(rank-1)/pageSize)
		raw, err := s.opt.KV.Get(at)
		if errors.Is(err, index.ErrNotFound) {
			return nil // what a killed job left behind
		}
		if err != nil {
			return err
		}
		var members []audience.Member
		if err := json.Unmarshal(raw, &members); err != nil {
			return fmt.Errorf("audience %q, a page of its members: %w", name, errors.Join(err, index.ErrCorrupt))
		}
		kept := slices.DeleteFunc(members, func(m audience.Member) bool { return m.ID == id })
		if raw, err = json.Marshal(kept); err != nil {
			return err
		}
		held[name] = true
		return s.opt.KV.Put(ctx, map[string][]byte{at: raw})
	})
	if err != nil {
		return 0, err
	}
	return len(held), s.opt.KV.DeletePrefix(ctx, prefix)
}
