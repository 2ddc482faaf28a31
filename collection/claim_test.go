package collection

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

var quickClaims = claimTimes{every: 20 * time.Millisecond, held: 400 * time.Millisecond, dead: 600 * time.Millisecond, wait: 10 * time.Second, read: 30 * time.Millisecond}

func sharing(store *memory.Store) Options {
	return Options{Store: store, KV: store.KV(), Shared: true, claimTimes: quickClaims}
}

// claimsLeft are the claims in a store.
func claimsLeft(t *testing.T, kv index.KV, what string) []index.Pair {
	t.Helper()
	list, err := kv.List(claimPrefix+what, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestExclusively has processes read and write a number, which they would lose counts of.
func TestExclusively(t *testing.T) {
	store := memory.Open()
	const processes, each = 4, 12
	var all sync.WaitGroup
	var inside, most, n atomic.Int64
	count := 0 // of who is inside; the race detector looks
	var services []*Service
	for range processes {
		s := newService(t, sharing(store))
		services = append(services, s)
		for range 2 { // goroutines of one process take turns, too
			all.Go(func() {
				for range each / 2 {
					err := s.exclusively(t.Context(), "thing", func(ctx context.Context) error {
						most.Store(max(most.Load(), inside.Add(1)))
						defer inside.Add(-1)
						was := count
						time.Sleep(time.Millisecond)
						count = was + 1
						n.Add(1)
						// The same again, inside: it is held already.
						return s.exclusively(ctx, "thing", func(context.Context) error { return nil })
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	if n.Load() != processes*each || count != processes*each || most.Load() != 1 {
		t.Errorf("%d times, counted %d, %d at once", n.Load(), count, most.Load())
	}
	for _, s := range services {
		s.claims.close()
	}
	if left := claimsLeft(t, store.KV(), "thing"); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// TestClaimOfTheDead is waited out, whatever it says; one that is renewed is not.
func TestClaimOfTheDead(t *testing.T) {
	store := memory.Open()
	s := newService(t, sharing(store))
	if err := store.KV().Put(t.Context(), map[string][]byte{claimPrefix + "thing/gone": []byte("x")}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := s.exclusively(t.Context(), "thing", func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < quickClaims.dead {
		t.Errorf("after %v", took)
	}
	s.claims.close()
	if left := claimsLeft(t, store.KV(), "thing"); len(left) > 0 {
		t.Errorf("%v", left)
	}
	opt := sharing(store)
	opt.claimTimes.wait = 2 * quickClaims.dead
	other := newService(t, opt)
	began, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.exclusively(t.Context(), "thing", func(context.Context) error { close(began); <-end; return nil })
	}()
	<-began
	if err := other.exclusively(t.Context(), "thing", func(context.Context) error { return nil }); !errors.Is(err, index.ErrUnavailable) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a claim that is renewed for twice the life of a dead one: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := other.exclusively(ctx, "thing", func(context.Context) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// failing is a KV whose writes fail when asked to.
type failing struct {
	index.KV
	fails atomic.Bool
}

func (f *failing) Put(ctx context.Context, pairs map[string][]byte) error {
	if f.fails.Load() {
		return fmt.Errorf("the server is away: %w", index.ErrUnavailable)
	}
	return f.KV.Put(ctx, pairs)
}

// TestClaimLost is given up before another process may take it for one of the dead.
func TestClaimLost(t *testing.T) {
	store := memory.Open()
	kv := &failing{KV: store.KV()}
	opt := sharing(store)
	opt.KV = kv
	s := newService(t, opt)
	start := time.Now()
	err := s.exclusively(t.Context(), "thing", func(ctx context.Context) error {
		kv.fails.Store(true)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, errClaimLost) || !errors.Is(err, index.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > quickClaims.dead {
		t.Errorf("it was given up after %v; others count it as dead after %v", took, quickClaims.dead)
	}
	if err := s.exclusively(t.Context(), "thing", func(context.Context) error { t.Error("it was done"); return nil }); !errors.Is(err, index.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// TestSuppressionsOfTwo are both kept, and so are fields that two add to one collection.
func TestSuppressionsOfTwo(t *testing.T) {
	store := memory.Open()
	slow := &slowly{KV: store.KV()}
	opt := sharing(store)
	opt.KV = slow
	services := []*Service{newService(t, opt), newService(t, opt)}
	mustPut(t, services[0])
	if _, err := services[0].PutSuppression(t.Context(), "c", "no", nil, true); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	const each = 10
	for w, s := range services {
		all.Go(func() {
			for i := range each {
				if _, err := s.ChangeSuppression(t.Context(), "c", "no", []string{fmt.Sprint(w, "/", i)}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	// A third, which has read nothing before.
	list, err := newService(t, opt).Suppressions(t.Context(), "c")
	if err != nil || len(list) != 1 || list[0].IDs != 2*each {
		t.Errorf("%+v %v", list, err)
	}
}

// slowly is a KV that others get between a read and a write of.
type slowly struct{ index.KV }

func (s *slowly) Put(ctx context.Context, pairs map[string][]byte) error {
	time.Sleep(200 * time.Microsecond)
	return s.KV.Put(ctx, pairs)
}

// TestTimetableOfTwo has two processes that serve: what is due happens once, what one of
// them changes counts for the other, and the second goes on when the first has gone.
func TestTimetableOfTwo(t *testing.T) {
	tick := &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	store := memory.Open()
	opt := sharing(store)
	opt.Clock, opt.Schedule = tick.now, true
	opt.claimTimes.held, opt.claimTimes.dead = 5*time.Second, 8*time.Second // it is not to change hands under load
	first := newService(t, opt)
	until(t, "the first keeps it", func() bool { return len(claimsLeft(t, store.KV(), timetableClaim)) == 1 })
	second := newService(t, opt)
	sailors := liveShop(t, first, 800)
	req := springRequest(sailors, 120)
	req.Refresh = &audience.Refresh{Every: "24h"}
	mustAudience(t, first, req)
	// Made by the second, which does not keep the timetable.
	other := springRequest(sailors, 110)
	other.Name = "other"
	mustAudience(t, second, other)
	if _, err := second.ChangeAudience(t.Context(), "c", "other", AudienceChange{Refresh: &audience.Refresh{Every: "24h"}}); err != nil {
		t.Fatal(err)
	}
	versions := func(want int) func() bool {
		return func() bool {
			return mustInfo(t, first, "spring").Version == want && mustInfo(t, first, "other").Version == want
		}
	}
	settled := func(want int64) {
		t.Helper()
		time.Sleep(10 * quickClaims.every) // for what must not happen
		if a, b := first.Lifecycle(), second.Lifecycle(); a.Refreshed+b.Refreshed != want || a.Failed+b.Failed != 0 {
			t.Errorf("%+v and %+v", a, b)
		}
	}
	settled(0)
	tick.add(25 * time.Hour)
	until(t, "the refreshes", versions(2))
	settled(2)
	if got := second.Lifecycle(); got.Refreshed != 0 {
		t.Errorf("the second refreshed, too: %+v", got)
	}
	if !mustInfo(t, first, "spring").Next.After(tick.now()) {
		t.Error("it is due still")
	}
	// Who has left leaves it to the other at once.
	first.timetable.close()
	first.timetable.stop = nil // as closed, for the cleanup
	tick.add(25 * time.Hour)
	until(t, "the refreshes by the second", versions(3))
	settled(4)
	if got := second.Lifecycle(); got.Refreshed != 2 {
		t.Errorf("%+v", got)
	}
}
