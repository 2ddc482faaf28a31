package collection

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

// TestSharedJobs has jobs of a process that lives, of one that died, and of one that left.
func TestSharedJobs(t *testing.T) {
	store := memory.Open()
	shared := Options{Store: store, KV: store.KV(), Shared: true}
	first := newService(t, shared)
	mustPut(t, first)
	seeds := seedPopulation(t, first, 400)
	refs := []audience.SeedRef{}
	for _, id := range seeds[:40] {
		refs = append(refs, audience.SeedRef{ID: id})
	}
	size := 20
	done, err := first.CreateAudience(t.Context(), "c", audience.Request{Name: "a", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &size}})
	if err != nil {
		t.Fatal(err)
	}
	wait := func(s *Service, id string) Job {
		t.Helper()
		until := time.Now().Add(20 * time.Second)
		for {
			job, err := s.Job(id)
			if err != nil {
				t.Fatal(err)
			}
			if job.State.Final() {
				return job
			}
			if time.Now().After(until) {
				t.Fatalf("%+v", job)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if job := wait(first, done.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	// The same job, as if another process were at work on it.
	raw, err := store.KV().Get(jobPrefix + done.ID)
	if err != nil {
		t.Fatal(err)
	}
	var job storedJob
	if err := json.Unmarshal(raw, &job); err != nil {
		t.Fatal(err)
	}
	if job.Owner == "" {
		t.Fatal("a job of a shared store is nobody's")
	}
	job.ID, job.State, job.Owner = "other", JobRunning, "elsewhere"
	if raw, err = json.Marshal(job); err != nil {
		t.Fatal(err)
	}
	alive := func(ago time.Duration) {
		t.Helper()
		if err := store.KV().Put(t.Context(), map[string][]byte{jobPrefix + "other": raw, alivePrefix + "elsewhere": []byte(time.Now().Add(-ago).UTC().Format(time.RFC3339Nano))}); err != nil {
			t.Fatal(err)
		}
	}
	alive(0)
	second := newService(t, shared)
	for range 3 {
		if err := second.jobs.owners.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if job, err := second.Job("other"); err != nil || job.State != JobRunning {
			t.Fatalf("%+v %v", job, err)
		}
	}
	if _, err := second.Cancel("other"); !errors.Is(err, index.ErrInvalid) {
		t.Fatal(err)
	}
	alive(time.Hour)
	if err := second.jobs.owners.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if job := wait(second, "other"); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	// The third finds one whose owner has said goodbye.
	if err := store.KV().Put(t.Context(), map[string][]byte{jobPrefix + "other": raw}); err != nil {
		t.Fatal(err)
	}
	if err := store.KV().Delete(t.Context(), alivePrefix+"elsewhere"); err != nil {
		t.Fatal(err)
	}
	third := newService(t, shared)
	if job := wait(third, "other"); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	// Lists of people who must not be written to are read anew.
	if _, err := first.Suppressions(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := third.PutSuppression(t.Context(), "c", "no", []string{seeds[0]}, true); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(10 * time.Second)
	for {
		list, err := first.Suppressions(context.Background(), "c")
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 && list[0].IDs == 1 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%+v", list)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
