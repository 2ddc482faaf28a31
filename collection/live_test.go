package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/memory"
)

func liveShop(t *testing.T, s *Service, n int) (sailors []string) {
	t.Helper()
	mustPut(t, s)
	var in []Input
	for i := range n {
		id := fmt.Sprintf("c%04d", i)
		line := fmt.Sprintf(`{"id":%q,"fields":{"age":%d,"region":"r%d","note":"likes cooking garden book%d"}}`, id, 20+i%30, i%3, i%17)
		if i%4 == 0 {
			line = fmt.Sprintf(`{"id":%q,"fields":{"age":%d,"region":"r%d","note":"likes sailing boats sea book%d"}}`, id, 50+i%20, i%3, i%17)
			sailors = append(sailors, id)
		}
		in = append(in, Input{Line: i + 1, Record: record(t, s, line)})
	}
	if out, err := s.Upsert(t.Context(), "c", in); err != nil || out.Accepted != n {
		t.Fatalf("%+v, %v", out, err)
	}
	return sailors
}

func mustAudience(t *testing.T, s *Service, req audience.Request) {
	t.Helper()
	job, err := s.CreateAudience(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	updates, err := s.Watch(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	for job = range updates {
	}
	if job.State != JobDone {
		t.Fatalf("%+v", job)
	}
}

// Who is written enters and leaves audiences at once, also after a restart; the
// list as built stays.
func TestLiveMembership(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Service, *flat.Store) {
		store, err := flat.Open(dir, flat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return newService(t, Options{Store: store, KV: store.KV()}), store
	}
	s, store := open()
	sailors := liveShop(t, s, 400)
	size, filtered := 60, 30
	refs := make([]audience.SeedRef, 30)
	for i, id := range sailors[:30] {
		refs[i].ID = id
	}
	mustAudience(t, s, audience.Request{Name: "spring", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &size}, Method: audience.Centroid})
	mustAudience(t, s, audience.Request{Name: "r1", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &filtered}, Method: audience.Auto, Filter: &index.Filter{Field: "region", Eq: "r1"}})
	before, err := s.Members(t.Context(), "c", "spring", 0, 1000)
	if err != nil || len(before) != size {
		t.Fatalf("%d members, %v", len(before), err)
	}
	want := func(id string, names ...string) {
		t.Helper()
		got, err := s.AudiencesOf(t.Context(), "c", id)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("%s is in %v, want %v (%v)", id, got, names, err)
		}
		checked, err := s.Check(t.Context(), "c", "spring", []string{id})
		if err != nil || checked[0].In != slices.Contains(names, "spring") {
			t.Errorf("%s: check says %+v, %v", id, checked, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	changes, err := s.Changes(ctx, "c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	told := func(id, change string) {
		t.Helper()
		select {
		case c := <-changes:
			if c.ID != id || c.Change != change || c.Audience != "spring" || c.At.IsZero() {
				t.Errorf("told %+v, want %s %s", c, id, change)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("nobody told that %s does %s", id, change)
		}
	}
	put := func(line string) {
		t.Helper()
		if out, err := s.Upsert(t.Context(), "c", []Input{{Line: 1, Record: record(t, s, line)}}); err != nil || out.Accepted != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	sailor := func(id, region string) string {
		return fmt.Sprintf(`{"id":%q,"fields":{"age":58,"region":%q,"note":"likes sailing boats sea"}}`, id, region)
	}
	put(sailor("new", "r1"))
	told("new", "enter")
	want("new", "r1", "spring")
	put(sailor("other", "r2"))
	told("other", "enter")
	want("other", "spring")
	member := before[0].ID
	put(fmt.Sprintf(`{"id":%q,"fields":{"age":20,"region":"r0","note":"likes cooking garden"}}`, member))
	told(member, "leave")
	want(member)
	put(sailor(sailors[0], "r1")) // a seed is no member, whatever it scores
	want(sailors[0])
	if err := s.Delete(t.Context(), "c", "new"); err != nil {
		t.Fatal(err)
	}
	told("new", "leave")
	if _, err := s.AudiencesOf(t.Context(), "c", "new"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("a deleted customer: %v", err)
	}
	stop()
	for range changes { // closes
	}
	if after, err := s.Members(t.Context(), "c", "spring", 0, 1000); err != nil || !slices.EqualFunc(after, before, func(a, b audience.Member) bool { return a.ID == b.ID && a.Rank == b.Rank }) {
		t.Errorf("the list changed: %v", err)
	}
	if err := errors.Join(s.Close(t.Context()), store.Close()); err != nil {
		t.Fatal(err)
	}
	s, store = open()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	want("other", "spring")
	want(member)

	// Nothing of a deleted audience stays, whoever was in it.
	for _, name := range []string{"spring", "r1"} {
		if err := s.DropAudience(t.Context(), "c", name); err != nil {
			t.Fatal(err)
		}
	}
	want2, err := store.KV().List("in/", 0, "")
	if err != nil || len(want2) != 0 {
		t.Errorf("%d memberships of deleted audiences are kept, %v", len(want2), err)
	}
}

// A customer written again as it was keeps its place in every audience, and the
// model agrees with the scan for everyone.
func TestLiveAgreesWithTheList(t *testing.T) {
	for _, method := range []string{audience.Centroid, audience.Clusters, audience.Classifier, audience.Trees, audience.Neighbours, audience.Auto} {
		t.Run(method, func(t *testing.T) {
			s := newService(t, Options{})
			sailors := liveShop(t, s, 600)
			refs := make([]audience.SeedRef, 40)
			for i, id := range sailors[:40] {
				refs[i].ID = id
			}
			size := 80
			mustAudience(t, s, audience.Request{Name: "a", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &size}, Method: method})
			members, err := s.Members(t.Context(), "c", "a", 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range members {
				if _, err := s.Patch(t.Context(), "c", m.ID, nil, nil); err != nil {
					t.Fatal(err)
				}
				got, err := s.Check(t.Context(), "c", "a", []string{m.ID})
				if err != nil || !got[0].In {
					t.Fatalf("%+v wrote itself out: %+v, %v", m, got, err)
				}
				if d := got[0].Score - m.Score; d > slack || d < -slack {
					t.Errorf("%s: the model says %v, the scan %v", m.ID, got[0].Score, m.Score)
				}
			}
		})
	}
}

// holds is Match, one customer at a time.
func TestHoldsIsMatch(t *testing.T) {
	columns := []index.Column{{Name: "n", Kind: index.Number}, {Name: "c", Kind: index.Category}, {Name: "s", Kind: index.Set}, {Name: "b", Kind: index.Bool}, {Name: "t", Kind: index.Time}}
	store := memory.Open()
	eng, err := store.Create(t.Context(), index.Spec{Name: "x", Columns: columns})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "ab", "b", "ba", "c", ""}
	letter := func() string { return letters[rng.IntN(len(letters))] }
	rows := make([]index.Row, 200)
	for i := range rows {
		rows[i] = index.Row{ID: fmt.Sprintf("%s%d", letters[i%5], i), Values: map[string]index.Value{}}
		for _, v := range []index.Value{
			{Kind: index.Number, Num: float64(rng.IntN(5))}, {Kind: index.Category, Str: letter()}, {Kind: index.Set, Set: []string{letter(), letter()}[:rng.IntN(3)]},
			{Kind: index.Bool, Num: float64(rng.IntN(2))}, {Kind: index.Time, Num: float64(rng.IntN(5))},
		} {
			if rng.IntN(4) > 0 {
				slices.Sort(v.Set)
				v.Set = slices.Compact(v.Set)
				rows[i].Values[map[index.Kind]string{index.Number: "n", index.Category: "c", index.Set: "s", index.Bool: "b", index.Time: "t"}[v.Kind]] = v
			}
		}
	}
	if err := eng.Upsert(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	snap, err := eng.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	cond := func() index.Filter {
		text, yes := letter(), rng.IntN(2) == 0
		switch rng.IntN(9) {
		case 0:
			return index.Filter{Field: "n", Gt: rng.IntN(5)}
		case 1:
			return index.Filter{Field: "n", In: []any{rng.IntN(5), rng.IntN(5)}}
		case 2:
			return index.Filter{Field: "t", Gte: rng.IntN(5), Lt: rng.IntN(6)}
		case 3:
			return index.Filter{Field: "c", In: []any{letter(), letter()}}
		case 4:
			return index.Filter{Field: []string{"c", "s", "id"}[rng.IntN(3)], Prefix: &text}
		case 5:
			return index.Filter{Field: []string{"n", "c", "s", "b", "t", "id"}[rng.IntN(6)], Exists: &yes}
		case 6:
			return index.Filter{Field: "b", Eq: yes}
		case 7:
			return index.Filter{Field: []string{"c", "id"}[rng.IntN(2)], Gte: letter(), Lte: letter()}
		}
		return index.Filter{Field: "s", Eq: letter()}
	}
	held := 0
	for range 2000 {
		f := index.Filter{}
		for range 1 + rng.IntN(3) {
			switch rng.IntN(3) {
			case 0:
				f.Must = append(f.Must, cond())
			case 1:
				f.Should = append(f.Should, cond())
			case 2:
				f.MustNot = append(f.MustNot, cond())
			}
		}
		p, err := f.Compile(columns)
		if err != nil {
			t.Fatal(err)
		}
		match, err := snap.Match(&f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			at, _ := snap.Find(rows[i].ID)
			if got := holds(p, &rows[i], columns); got != match.Contains(at) {
				t.Fatalf("%+v holds for %+v: %v, Match says %v", f, rows[i], got, !got)
			} else if got {
				held++
			}
		}
	}
	if held == 0 {
		t.Error("no filter ever held")
	}
}

// BenchmarkAudiencesOf is the membership of one customer in 1,000 audiences,
// unchanged since they were built and changed since.
func BenchmarkAudiencesOf(b *testing.B) {
	dir, err := os.MkdirTemp("", "live")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const audiences, dim = 1000, 384
	store, err := flat.Open(dir, flat.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s, err := New(b.Context(), Options{Store: store, KV: store.KV()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	if _, _, err := s.Put(b.Context(), Config{Name: "c", Dim: dim, Schema: testSchema}); err != nil {
		b.Fatal(err)
	}
	vector := make([]float32, dim)
	for i := range vector {
		vector[i] = float32(i%7) - 3
	}
	write := func() {
		rec, err := s.ParseRecord(testSchema, []byte(`{"id":"x","fields":{"age":30,"region":"r1"}}`))
		if err != nil {
			b.Fatal(err)
		}
		rec.Vector = vector
		if _, err := s.Upsert(b.Context(), "c", []Input{{Line: 1, Record: rec}}); err != nil {
			b.Fatal(err)
		}
	}
	write()
	model := audience.Model{
		Bins: []index.Bins{{Column: "age", Kind: index.Number, Edges: []float64{20, 30, 40, 50}}, {Column: "region", Kind: index.Category, Values: []string{"r0", "r1"}}},
		Set:  index.HeadSet{Heads: []index.Head{{Vector: vector, Tables: [][]float32{{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3}}}}},
	}
	for i := range audiences {
		name := fmt.Sprintf("a%04d", i)
		job := &storedJob{Job: Job{ID: name, Kind: "audience", Collection: "c", Target: name}}
		info := AudienceInfo{Name: name, State: JobQueued}
		if err := s.putInfo(b.Context(), "c", info); err != nil {
			b.Fatal(err)
		}
		res := &audience.Result{Model: model, Threshold: 1, Members: []audience.Member{{ID: "x", Rank: 1}}}
		if err := s.storeAudience(b.Context(), job, res, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	run := func(b *testing.B) {
		if _, err := s.judges("c"); err != nil { // read once, after an audience has changed
			b.Fatal(err)
		}
		for b.Loop() {
			got, err := s.AudiencesOf(b.Context(), "c", "x")
			if err != nil || len(got) != audiences {
				b.Fatalf("%d audiences, %v", len(got), err)
			}
		}
	}
	b.Run("unchanged", run)
	write()
	b.Run("changed", run)
}

// A change of one audience leaves the others' judges as they are: with a thousand of them
// every refresh would make the next question wait for all. What many go by, such as a
// suppression list, makes all anew.
func TestOneChangeKeepsTheOtherJudges(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV(), Clock: time.Now})
	sailors := liveShop(t, s, 400)
	now := func(name string) *judge {
		t.Helper()
		all, err := s.judges("c")
		if err != nil {
			t.Fatal(err)
		}
		return all.named[name]
	}
	for _, name := range []string{"a", "b", "gone"} {
		req := springRequest(sailors, 60)
		req.Name = name
		mustAudience(t, s, req)
	}
	hour := "1h"
	a, b := now("a"), now("b")
	mustRefresh(t, s, "a", RefreshRequest{})
	if now("b") != b || now("a") == a || now("a") == nil {
		t.Error("after a refresh of a, b is made anew or a is not")
	}
	if err := s.DropAudience(t.Context(), "c", "gone"); err != nil {
		t.Fatal(err)
	}
	if now("gone") != nil || now("b") != b {
		t.Error("after a deletion it is there, or b is made anew")
	}
	member := mustMembers(t, s, "b", 0)[0].ID
	if _, err := s.PutSuppression(t.Context(), "c", "stop", []string{member}, true); err != nil {
		t.Fatal(err)
	}
	got, err := s.AudiencesOf(t.Context(), "c", member)
	if err != nil || len(got) != 0 {
		t.Errorf("who is suppressed is in %v, %v", got, err)
	}
	if _, err := s.ChangeAudience(t.Context(), "c", "b", AudienceChange{TTL: &hour}); err != nil {
		t.Fatal(err)
	}
	if now("b").expires.IsZero() {
		t.Error("b's new end is not known")
	}
}

// The ids of a definition lie apart from it and are erased there too, to the last one;
// a description from before, which has them inside, is read and brought up to date.
func TestNamedIDsLieApart(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV(), Clock: time.Now})
	sailors := liveShop(t, s, 400)
	req := springRequest(sailors, 60)
	req.Exclude.IDs = []string{sailors[35]}
	req.Negatives.IDs = []audience.SeedRef{{ID: sailors[36], Weight: 2}}
	mustAudience(t, s, req)
	raw, err := store.KV().Get(infoKey("c", "spring"))
	if err != nil || bytes.Contains(raw, []byte(sailors[35])) || bytes.Contains(raw, []byte(sailors[36])) {
		t.Errorf("the description names ids: %v", err)
	}
	total := func(of string) int {
		t.Helper()
		_, n, err := s.AudienceIDs(t.Context(), "c", "spring", of, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if total(NamedSeeds) != 30 || total(NamedNegatives) != 1 || total(NamedExcluded) != 1 {
		t.Error("not all ids are there")
	}
	// As it was stored before: with the ids inside.
	info, err := s.load("c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.whole("c", &info); err != nil {
		t.Fatal(err)
	}
	info.Named = nil
	if raw, err = json.Marshal(info); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.KV().Put(t.Context(), map[string][]byte{infoKey("c", "spring"): raw}), store.KV().Delete(t.Context(), namedKey("c", "spring"))); err != nil {
		t.Fatal(err)
	}
	s.forgetJudges("c")
	if total(NamedSeeds) != 30 {
		t.Error("ids of an old description are not read")
	}
	mustRefresh(t, s, "spring", RefreshRequest{})
	if now := mustInfo(t, s, "spring"); now.Named == nil || now.Named.Seeds != 30 || now.Result.Doctor.Given != 30 || len(now.Request.Seeds.IDs) != 0 {
		t.Errorf("after a refresh %+v", now.Named)
	}
	if why, err := s.Why(t.Context(), "c", "spring", mustMembers(t, s, "spring", 0)[0].ID); err != nil || len(why.Nearest) == 0 {
		t.Errorf("no nearest seeds: %+v, %v", why, err)
	}
	for _, id := range append(slices.Clone(sailors[:30]), sailors[35], sailors[36]) {
		if _, err := s.Erase(t.Context(), "c", id); err != nil {
			t.Fatal(err)
		}
	}
	if total(NamedSeeds)+total(NamedNegatives)+total(NamedExcluded) != 0 {
		t.Error("erased ids are still named")
	}
	if raw, err = store.KV().Get(namedKey("c", "spring")); err != nil || bytes.Contains(raw, []byte(sailors[0])) {
		t.Errorf("%s, %v", raw, err)
	}
	if now := mustInfo(t, s, "spring"); now.Named == nil || *now.Named != (NamedIDs{}) {
		t.Errorf("%+v", now.Named)
	}
}
