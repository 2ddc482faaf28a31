package collection

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index/memory"
)

// TestEndedJobsAreForgotten: of ended jobs the latest stay, and those that
// ended lately; an audience keeps its state without its job.
func TestEndedJobsAreForgotten(t *testing.T) {
	store := memory.Open()
	var hours atomic.Int64
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	opt := Options{
		Store: store, KV: store.KV(), Limits: Limits{KeepJobs: 3, KeepJobsFor: 10 * time.Hour},
		Clock: func() time.Time { return start.Add(time.Duration(hours.Load()) * time.Hour) },
	}
	s := newService(t, opt)
	mustPut(t, s)
	size := 10
	fail := func(name string) string { // its seeds match nobody
		job, err := s.CreateAudience(t.Context(), "c", audience.Request{Name: name, Seeds: audience.Seeds{IDs: []audience.SeedRef{{ID: "nobody"}}}, Size: audience.Size{Count: &size}})
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, s, job.ID)
		return job.ID
	}
	var ids []string
	for i := range 6 {
		ids = append(ids, fail(fmt.Sprint("a", i)))
		hours.Add(1)
	}
	if n := len(s.Jobs()); n != 6 {
		t.Fatalf("%d jobs after six within ten hours", n)
	}
	hours.Store(12) // the first two ended 12 and 11 hours ago, the third ten
	ids = append(ids, fail("a6"))
	// The loop forgets after the last job's watchers have heard: the next job
	// of one loop comes after that.
	ids = append(ids, fail("a7"))
	kept := map[string]bool{}
	for _, job := range s.Jobs() {
		kept[job.ID] = true
	}
	for i, id := range ids {
		if want := i > 2; kept[id] != want {
			t.Errorf("job %d is kept: %v, want %v", i, kept[id], want)
		}
	}
	pairs, err := store.KV().List(jobPrefix, 0, "")
	if err != nil || len(pairs) != len(kept) {
		t.Errorf("%d jobs on disk, %d in memory, %v", len(pairs), len(kept), err)
	}
	if info, err := s.Audience(t.Context(), "c", "a0"); err != nil || info.State != JobFailed {
		t.Errorf("audience without its job: %+v, %v", info, err)
	}
}

// TestForgottenCancelledJobSettlesItsAudience: the audience of a job that was
// cancelled while it waited says so after the job is forgotten.
func TestForgottenCancelledJobSettlesItsAudience(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV()})
	mustPut(t, s)
	now := time.Now().UTC()
	info := AudienceInfo{Name: "waited", State: JobQueued, Created: now}
	if err := s.putInfo(t.Context(), "c", info); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		job := storedJob{Job: Job{ID: fmt.Sprint("old", i), Kind: "audience", Collection: "c", Target: "waited", State: JobCancelled, Created: now.Add(-time.Hour * time.Duration(48+i)), Updated: now.Add(-time.Hour * 48)}}
		if err := s.jobs.save(t.Context(), &job, nil); err != nil {
			t.Fatal(err)
		}
	}
	next := newService(t, Options{Store: store, KV: store.KV(), Limits: Limits{KeepJobs: 1, KeepJobsFor: time.Hour}})
	got, err := next.Audience(t.Context(), "c", "waited")
	if err != nil || got.State != JobCancelled || len(next.Jobs()) != 1 {
		t.Fatalf("%+v with %d jobs, %v", got, len(next.Jobs()), err)
	}
	// Forgetting that last one, too, leaves the audience as it ended.
	last := newService(t, Options{Store: store, KV: store.KV(), Limits: Limits{KeepJobs: 1, KeepJobsFor: time.Hour}})
	last.jobs.svc.opt.Limits.KeepJobs = 0
	if err := last.jobs.prune(); err != nil {
		t.Fatal(err)
	}
	if got, err := last.Audience(t.Context(), "c", "waited"); err != nil || got.State != JobCancelled || len(last.Jobs()) != 0 {
		t.Fatalf("%+v with %d jobs, %v", got, len(last.Jobs()), err)
	}
}
