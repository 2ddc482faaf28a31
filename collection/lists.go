package collection

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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

func (s *Service) storeAudience(ctx context.Context, job *storedJob, res *audience.Result, built time.Time) error {
	coll, name := job.Collection, job.Target
	info, err := s.info(coll, name)
	if err != nil {
		return err
	}
	had := ""
	if info.State == JobDone {
		had = info.Job
	}
	if err := s.sweep(ctx, coll, name, had); err != nil {
		return err
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
		pairs := map[string][]byte{pageKey(coll, name, job.ID, from/pageSize): raw}
		for _, m := range page {
			pairs[memberKey(coll, m.ID, name, job.ID)] = binary.AppendUvarint(nil, uint64(m.Rank))
		}
		if err := s.opt.KV.Put(ctx, pairs); err != nil {
			return err
		}
		s.jobs.update(job, func(v *Job) { v.Done = int64(from + len(page)) })
	}
	info.State, info.Job, info.Problem, info.Size, info.Built = JobDone, job.ID, "", len(res.Members), built
	light := *res
	light.Members = nil
	info.Result = &light
	if err := s.putInfo(ctx, coll, info); err != nil {
		return err
	}
	return s.sweep(context.WithoutCancel(ctx), coll, name, job.ID)
}

// sweep removes every list of an audience but that of one job ("": all).
func (s *Service) sweep(ctx context.Context, coll, name, keep string) error {
	prefix := audienceKey(coll, name) + "page/"
	after := ""
	for {
		page, err := s.opt.KV.List(prefix, 1, after)
		if err != nil || len(page) == 0 {
			return err
		}
		key := page[0].Key
		job, _, _ := strings.Cut(key[len(prefix):], "/")
		if job == keep {
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
func (s *Service) Members(_ context.Context, coll, name string, after, limit int) ([]audience.Member, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	if after < 0 || limit < 1 {
		return nil, faultf("limit", "want a limit of 1 or more and a rank of 0 or more")
	}
	off, err := s.suppressedBy(coll, info.Request.Exclude.Lists, true)
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
		members, err := s.membersPage(coll, &info, page)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			ids = append(ids, m.ID)
		}
	}
	return ids, nil
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

// eraseMember takes a customer off every stored list, keeping the others'
// ranks, and returns how many lists held it. Seed lists that name the customer
// lose the name too.
func (s *Service) eraseMember(ctx context.Context, coll, id string) (int, error) {
	known, err := s.judges(coll)
	if err != nil {
		return 0, err
	}
	ranks, err := s.listed(coll, id, known)
	if err != nil {
		return 0, err
	}
	for name, rank := range ranks {
		info, err := s.info(coll, name)
		if err != nil {
			return 0, err
		}
		page := (rank - 1) / pageSize
		members, err := s.membersPage(coll, &info, page)
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
		if err := s.opt.KV.Put(ctx, map[string][]byte{pageKey(coll, name, info.Job, page): raw}); err != nil {
			return 0, err
		}
	}
	if err := s.opt.KV.DeletePrefix(ctx, listsKey(coll, id)); err != nil {
		return 0, err
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
	return len(ranks), nil
}
