package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Millisecond) // writes have times of their own
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// mortal is a KV that dies after some writes, as a killed process's does.
type mortal struct {
	index.KV
	mu   sync.Mutex
	left int // writes; below 0: any
}

var errDead = errors.New("the process is dead")

func (m *mortal) spend() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		return errDead
	}
	m.left--
	return nil
}

func (m *mortal) Put(ctx context.Context, pairs map[string][]byte) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.KV.Put(ctx, pairs)
}

func (m *mortal) Delete(ctx context.Context, keys ...string) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.KV.Delete(ctx, keys...)
}

func (m *mortal) DeletePrefix(ctx context.Context, prefix string) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.KV.DeletePrefix(ctx, prefix)
}

func share(x float64) *float64 { return &x }
func number(n int) *int        { return &n }

func springRequest(sailors []string, size int) audience.Request {
	refs := make([]audience.SeedRef, 30)
	for i, id := range sailors[:30] {
		refs[i].ID = id
	}
	return audience.Request{Name: "spring", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &size}, Method: audience.Centroid}
}

func mustRefresh(t *testing.T, s *Service, name string, req RefreshRequest) {
	t.Helper()
	job, err := s.Refresh(t.Context(), "c", name, req)
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
}

func mustMembers(t *testing.T, s *Service, name string, version int) []audience.Member {
	t.Helper()
	out, err := s.MembersAt(t.Context(), "c", name, version, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustInfo(t *testing.T, s *Service, name string) *AudienceInfo {
	t.Helper()
	info, err := s.Audience(t.Context(), "c", name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// arrive writes customers who sail more than anybody.
func arrive(t *testing.T, s *Service, from, n int) {
	t.Helper()
	var in []Input
	for i := from; i < from+n; i++ {
		line := fmt.Sprintf(`{"id":"n%04d","fields":{"age":%d,"region":"r1","note":"likes sailing boats sea book%d"}}`, i, 55+i%10, i%17)
		in = append(in, Input{Line: i + 1, Record: record(t, s, line)})
	}
	if out, err := s.Upsert(t.Context(), "c", in); err != nil || out.Accepted != n {
		t.Fatalf("%+v, %v", out, err)
	}
}

func idSet(members []audience.Member) map[string]int {
	out := map[string]int{}
	for _, m := range members {
		out[m.ID] = m.Rank
	}
	return out
}

func TestRefreshKeepsVersionsAndItsBudget(t *testing.T) {
	tick := &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV(), Clock: tick.now})
	sailors := liveShop(t, s, 1200)
	req := springRequest(sailors, 100)
	req.Refresh = &audience.Refresh{Churn: share(0.1), Keep: number(2)}
	mustAudience(t, s, req)
	first := mustMembers(t, s, "spring", 0)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changes, err := s.Changes(ctx, "c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	arrive(t, s, 0, 200)
	for len(changes) > 0 {
		<-changes // the newcomers entering by their writes
	}
	mustRefresh(t, s, "spring", RefreshRequest{})
	info := mustInfo(t, s, "spring")
	c := info.Result.Churn
	if info.Version != 2 || c == nil || c.Allowed != 10 || c.Entered != 10 || c.Left != 10 || c.Wanted <= 10 || info.Refresh.State != JobDone || len(info.Versions) != 1 {
		t.Fatalf("version %d, churn %+v, %+v, %+v", info.Version, c, info.Refresh, info.Versions)
	}
	select {
	case got := <-changes:
		if got.Change != "refreshed" || got.Version != 2 || got.Entered != 10 || got.Left != 10 {
			t.Errorf("told %+v", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("nobody was told of the refresh")
	}
	if old := mustMembers(t, s, "spring", 1); !sameMembers(old, first) {
		t.Error("the first version is not what it was")
	}
	// A kept member who is written unchanged stays, by the floor.
	last := mustMembers(t, s, "spring", 0)[99]
	row, err := s.Customer(t.Context(), "c", last.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Patch(t.Context(), "c", last.ID, map[string]any{"age": row.Fields["age"]}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Check(t.Context(), "c", "spring", []string{last.ID}); err != nil || !got[0].In {
		t.Errorf("%+v, %v: info %+v", got, err, info.Result.Floor)
	}
	// Asked for more than the budget, by the request.
	mustRefresh(t, s, "spring", RefreshRequest{Churn: share(1)})
	if c := mustInfo(t, s, "spring").Result.Churn; c.Entered <= 10 || c.Retained != 0 {
		t.Errorf("free churn: %+v", c)
	}
	mustRefresh(t, s, "spring", RefreshRequest{})
	info = mustInfo(t, s, "spring")
	if info.Version != 4 || len(info.Versions) != 2 || info.Versions[0].Version != 2 || info.Result.Churn.Entered != 0 {
		t.Errorf("version %d, kept %+v, %+v", info.Version, info.Versions, info.Result.Churn)
	}
	if _, err := s.MembersAt(t.Context(), "c", "spring", 1, 0, 10); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("version 1 is kept: %v", err)
	}
	// Nothing is left of what is not kept.
	lists := map[string]bool{}
	if err := s.each("in/c/", func(key string, _ []byte) error { lists[key[strings.LastIndexByte(key, '/'):]] = true; return nil }); err != nil || len(lists) != 3 {
		t.Errorf("%d lists are stored, %v", len(lists), err)
	}
	d, err := s.Diff(t.Context(), "c", DiffRequest{From: ListRef{"spring", 0}, To: ListRef{"spring", 0}})
	if err != nil || d.From.Version != 3 || d.Entered != 0 || d.Kept != 100 || *d.RankCorrelation != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	for what, err := range map[string]error{
		"churn of 2": func() error {
			_, err := s.Refresh(t.Context(), "c", "spring", RefreshRequest{Churn: share(2)})
			return err
		}(),
	} {
		if !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Refresh(t.Context(), "c", "nobody", RefreshRequest{}); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("refresh of nothing: %v", err)
	}
	if err := s.DropAudience(t.Context(), "c", "spring"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"in/c/", "audience/c/"} {
		if page, err := s.opt.KV.List(prefix, 1, ""); err != nil || len(page) != 0 {
			t.Errorf("left behind: %v, %v", page, err)
		}
	}
	for got := range changes {
		if got.Change == "deleted" {
			return
		}
	}
	t.Error("nobody was told of the deletion")
}

func sameMembers(a, b []audience.Member) bool {
	x, errx := json.Marshal(a)
	y, erry := json.Marshal(b)
	return errx == nil && erry == nil && bytes.Equal(x, y)
}

// A refresh that is killed at any write leaves the list of before whole, and the
// next process ends it with the same list.
func TestRefreshSurvivesAKillAtAnyWrite(t *testing.T) {
	tried := 0
	var want []audience.Member
	for deaths := 0; ; deaths++ {
		store := memory.Open()
		kv := &mortal{KV: store.KV(), left: -1}
		s := newService(t, Options{Store: store, KV: kv})
		sailors := liveShop(t, s, 1500)
		req := springRequest(sailors, 1100) // two pages
		req.Explain.Members = new(bool)
		mustAudience(t, s, req)
		before := mustMembers(t, s, "spring", 0)
		arrive(t, s, 0, 200)
		job, err := s.Refresh(t.Context(), "c", "spring", RefreshRequest{Churn: share(0.02)})
		if err != nil {
			t.Fatal(err)
		}
		kv.mu.Lock()
		kv.left = deaths // of this life, counted from somewhere in the job
		kv.mu.Unlock()
		job = waitFor(t, s, job.ID)
		if err := s.Close(context.Background()); err != nil { // dead until its last breath
			t.Fatal(err)
		}
		kv.mu.Lock()
		survived := kv.left > 0
		kv.left = -1
		kv.mu.Unlock()
		raw, err := kv.Get(infoKey("c", "spring"))
		var info AudienceInfo
		if err != nil || json.Unmarshal(raw, &info) != nil {
			t.Fatal(err)
		}
		s = newService(t, Options{Store: store, KV: kv})
		if info.Version == 1 {
			if now := mustMembers(t, s, "spring", 1); !sameMembers(now, before) {
				t.Fatalf("death at write %d: the list of before is not whole", deaths)
			}
		}
		if again, err := s.Job(job.ID); err == nil && !again.State.Final() {
			waitFor(t, s, job.ID)
		}
		got := mustMembers(t, s, "spring", 0)
		if want == nil {
			want = got
		}
		if info := mustInfo(t, s, "spring"); info.Version != 2 || !sameMembers(got, want) || !sameMembers(mustMembers(t, s, "spring", 1), before) {
			t.Fatalf("death at write %d: version %d, %d members", deaths, info.Version, len(got))
		}
		tried++
		if survived {
			break
		}
	}
	if tried < 4 {
		t.Errorf("only %d deaths were tried", tried)
	}
}

func TestDiffOverlapCombineAgainstMaps(t *testing.T) {
	s := newService(t, Options{})
	sailors := liveShop(t, s, 1600)
	sets := map[string]map[string]int{}
	for i, name := range []string{"a", "b", "d"} {
		req := springRequest(sailors[i*60:], 700-200*i)
		req.Name = name
		mustAudience(t, s, req)
	}
	gone := mustMembers(t, s, "a", 0)[7].ID
	if err := s.Delete(t.Context(), "c", gone); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "d"} {
		sets[name] = idSet(mustMembers(t, s, name, 0))
	}
	for _, pair := range [][2]string{{"a", "b"}, {"b", "a"}, {"a", "d"}} {
		from, to := sets[pair[0]], sets[pair[1]]
		want := map[string][]string{ShowEntered: {}, ShowLeft: {}, ShowKept: {}}
		for id := range to {
			if _, in := from[id]; in {
				want[ShowKept] = append(want[ShowKept], id)
			} else {
				want[ShowEntered] = append(want[ShowEntered], id)
			}
		}
		for id := range from {
			if _, in := to[id]; !in {
				want[ShowLeft] = append(want[ShowLeft], id)
			}
		}
		for show, ids := range want {
			slices.Sort(ids)
			got := []string{}
			after := ""
			var d *Diff
			for page := 0; page == 0 || after != ""; page++ {
				var err error
				d, err = s.Diff(t.Context(), "c", DiffRequest{From: ListRef{pair[0], 0}, To: ListRef{pair[1], 0}, Show: show, After: after, Limit: 17})
				if err != nil {
					t.Fatal(err)
				}
				got, after = append(got, d.IDs...), d.Next
			}
			if !slices.Equal(got, ids) || d.Entered != len(want[ShowEntered]) || d.Left != len(want[ShowLeft]) || d.Kept != len(want[ShowKept]) {
				t.Errorf("%v, %s: %d ids, want %d; %+v", pair, show, len(got), len(ids), d)
			}
			if rho := slowSpearman(from, to, want[ShowKept]); math.Abs(*d.RankCorrelation-rho) > 1e-9 {
				t.Errorf("%v: rank correlation %v, want %v", pair, *d.RankCorrelation, rho)
			}
		}
	}
	o, err := s.Overlap(t.Context(), "c", []string{"a", "b", "d"})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range []string{"a", "b", "d"} {
		for j, y := range []string{"a", "b", "d"} {
			both := 0
			for id := range sets[x] {
				if _, in := sets[y][id]; in {
					both++
				}
			}
			if o.Counts[i][j] != both || math.Abs(o.Shares[i][j]-float64(both)/float64(len(sets[x]))) > 1e-12 || math.Abs(o.Jaccard[i][j]-float64(both)/float64(len(sets[x])+len(sets[y])-both)) > 1e-12 {
				t.Errorf("%s and %s: %d, %v, %v", x, y, o.Counts[i][j], o.Shares[i][j], o.Jaccard[i][j])
			}
		}
	}
	for _, op := range []string{Union, Intersection, Difference} {
		job, err := s.Combine(t.Context(), "c", CombineRequest{Name: op, Operation: op, Audiences: []string{"a", "b", "d"}})
		if err != nil {
			t.Fatal(err)
		}
		if job = waitFor(t, s, job.ID); job.State != JobDone {
			t.Fatalf("%+v", job)
		}
		want := map[string]float64{}
		for _, m := range sets {
			for id := range m {
				standing := []float64{}
				for _, name := range []string{"a", "b", "d"} {
					if rank, in := sets[name][id]; in {
						standing = append(standing, 1-float64(rank-1)/float64(len(sets[name])))
					}
				}
				_, first := sets["a"][id]
				switch {
				case id == gone:
				case op == Union:
					want[id] = slices.Max(standing)
				case op == Intersection && len(standing) == 3:
					want[id] = slices.Min(standing)
				case op == Difference && first && len(standing) == 1:
					want[id] = standing[0]
				}
			}
		}
		got := mustMembers(t, s, op, 0)
		if len(got) != len(want) || len(got) == 0 {
			t.Errorf("%s: %d members, want %d", op, len(got), len(want))
		}
		for i, m := range got {
			if math.Abs(float64(m.Score)-want[m.ID]) > 1e-6 || m.Rank != i+1 || i > 0 && (got[i-1].Score < m.Score || got[i-1].Score == m.Score && got[i-1].ID > m.ID) {
				t.Fatalf("%s: member %+v, want a score of %v", op, m, want[m.ID])
			}
		}
		info := mustInfo(t, s, op)
		if p := info.Result.Manifest.Parents; len(p) != 3 || p[1].Audience != "b" || p[1].Version != 1 || len(info.Result.Warnings) == 0 {
			t.Errorf("%s: parents %+v, warnings %q", op, p, info.Result.Warnings)
		}
		mustRefresh(t, s, op, RefreshRequest{})
		if again := mustMembers(t, s, op, 0); !sameMembers(again, got) || mustInfo(t, s, op).Result.Churn.Kept != len(got) {
			t.Errorf("%s: the refresh is another list", op)
		}
	}
	bad := []CombineRequest{
		{Name: "x", Operation: "xor", Audiences: []string{"a", "b"}},
		{Name: "x", Operation: Union, Audiences: []string{"a"}},
		{Name: "x", Operation: Union, Audiences: []string{"a", "a"}},
		{Name: "x", Operation: Union, Audiences: []string{"a", "nobody"}},
		{Name: "X", Operation: Union, Audiences: []string{"a", "b"}},
	}
	for _, req := range bad {
		if _, err := s.Combine(t.Context(), "c", req); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if _, err := s.Combine(t.Context(), "c", CombineRequest{Name: "a", Operation: Union, Audiences: []string{"b", "d"}}); !errors.Is(err, index.ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
}

// slowSpearman is Pearson's correlation of ranks among the kept.
func slowSpearman(a, b map[string]int, kept []string) float64 {
	rank := func(of map[string]int, id string) (n float64) {
		for _, other := range kept {
			if of[other] < of[id] {
				n++
			}
		}
		return n
	}
	mean := float64(len(kept)-1) / 2
	var xy, xx, yy float64
	for _, id := range kept {
		x, y := rank(a, id)-mean, rank(b, id)-mean
		xy, xx, yy = xy+x*y, xx+x*x, yy+y*y
	}
	return xy / math.Sqrt(xx*yy)
}
