package collection

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

func outcome(yes bool) *Converted {
	c := Converted(yes)
	return &c
}

func mustOutcomes(t *testing.T, s *Service, name string, in []OutcomeInput) {
	t.Helper()
	for from := 0; from < len(in); from += 5000 {
		part := in[from:min(from+5000, len(in))]
		if out, err := s.AddOutcomes(t.Context(), "c", name, part); err != nil || out.Accepted != len(part) {
			t.Fatalf("%d of %d, %v: %+v", out.Accepted, len(part), err, out.Refused[:min(3, len(out.Refused))])
		}
	}
}

// From a control group to outcomes, lift, calibration, value-weighted seeds and
// erasure, over a refresh.
func TestClosedLoop(t *testing.T) {
	s := newService(t, Options{})
	sailors := liveShop(t, s, 8000)
	req := springRequest(sailors, 4000)
	req.Control = &audience.Control{Share: 0.3}
	req.Explain.Members = new(bool)
	mustAudience(t, s, req)
	members := mustMembers(t, s, "spring", 0)
	info := mustInfo(t, s, "spring")
	held := info.Result.Manifest.Control
	if n := 0; held == nil || func() bool {
		for _, m := range members {
			if m.Control {
				n++
			}
		}
		return n != held.Members || math.Abs(float64(n)-1200) > 4*math.Sqrt(4000*0.21)
	}() {
		t.Fatalf("control group %+v", held)
	}
	// Planted: the outcome rises with rank; treatment adds fifteen points.
	rng := rand.New(rand.NewPCG(3, 4))
	var in []OutcomeInput
	for i, m := range members {
		p := 0.05 + 0.3*float64(4000-m.Rank)/4000
		if !m.Control {
			p += 0.15
		}
		hit := rng.Float64() < p
		o := CustomerOutcome{ID: m.ID, Outcome: outcome(hit)}
		if hit {
			v := 10 + 5*rng.Float64()
			o.Value = &v
		}
		in = append(in, OutcomeInput{i + 1, o})
	}
	mustOutcomes(t, s, "spring", in)
	mustOutcomes(t, s, "spring", in[:100]) // again: the same
	l, err := s.Lift(t.Context(), "c", "spring", LiftRequest{})
	if err != nil || l.Verdict != audience.LiftMore || l.Treated.Customers+l.Control.Customers != 4000 || l.Control.Customers != held.Members || !(l.Difference.Low < 0.15 && 0.15 < l.Difference.High) || l.Value == nil {
		t.Errorf("%+v, %v", l, err)
	}
	if len(l.Notes) != 0 {
		t.Errorf("notes %q", l.Notes)
	}
	refused, err := s.AddOutcomes(t.Context(), "c", "spring", []OutcomeInput{
		{1, CustomerOutcome{ID: sailors[0], Outcome: outcome(true)}}, {2, CustomerOutcome{ID: members[0].ID}},
		{3, CustomerOutcome{ID: members[0].ID, Outcome: outcome(true), Group: "control"}}, {4, CustomerOutcome{ID: strings.Repeat("x", 2000), Outcome: outcome(true)}},
	})
	if err != nil || refused.Accepted != 0 || len(refused.Refused) != 4 {
		t.Errorf("%+v, %v", refused, err)
	}
	// What the scores' probabilities become: near the outcomes of the treated.
	o, err := s.Recalibrate(t.Context(), "c", "spring")
	if err != nil || o.Used != 4000-held.Members || o.B <= 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	var said, did float64
	for _, m := range mustMembers(t, s, "spring", 0) {
		if !m.Control {
			said += float64(m.Probability)
		}
	}
	for i, item := range in {
		if !members[i].Control && bool(*item.Outcome.Outcome) {
			did++
		}
	}
	if math.Abs(said-did) > 5 {
		t.Errorf("probabilities sum to %.1f, %v converted", said, did)
	}
	info = mustInfo(t, s, "spring")
	for i, p := range info.Result.Curve {
		if i > 0 && p.Precision > info.Result.Curve[i-1].Precision+1e-9 {
			t.Fatalf("the curve rises at %+v", p)
		}
	}
	// A refresh keeps the group, the calibration and the outcomes.
	arrive(t, s, 0, 500)
	mustRefresh(t, s, "spring", RefreshRequest{})
	info = mustInfo(t, s, "spring")
	if got := info.Result.Quality.Platt.Observed; !reflect.DeepEqual(got, o) {
		t.Errorf("calibration after the refresh %+v", got)
	}
	if now := info.Result.Manifest.Control; now.Below != held.Below || now.Seed != held.Seed {
		t.Errorf("control group after the refresh %+v", now)
	}
	if again, err := s.Lift(t.Context(), "c", "spring", LiftRequest{}); err != nil || again.Difference != l.Difference {
		t.Errorf("%+v, %v", again, err)
	}
	side := map[string]bool{}
	for _, m := range members {
		side[m.ID] = m.Control
	}
	for _, m := range mustMembers(t, s, "spring", 0) {
		if was, there := side[m.ID]; there && was != m.Control {
			t.Fatalf("%s changed sides", m.ID)
		}
	}
	// Seeds that weigh by what they brought.
	worth := audience.Request{Name: "worth", Seeds: audience.Seeds{Audience: "spring", Value: &audience.SeedValue{Outcomes: "spring"}}, Size: audience.Size{Count: number(500)}, Method: audience.Centroid}
	mustAudience(t, s, worth)
	if notes := strings.Join(mustInfo(t, s, "worth").Result.Doctor.Notes, "\n"); !strings.Contains(notes, "seeds weigh by value") {
		t.Errorf("notes %q", notes)
	}
	// The group cannot be drawn twice; who is held back there is held back in what
	// is combined from it.
	if _, err := s.ChangeAudience(t.Context(), "c", "spring", AudienceChange{Control: &audience.Control{Share: 0.5}}); !errors.Is(err, index.ErrExists) {
		t.Errorf("a second control group: %v", err)
	}
	if _, err := s.ChangeAudience(t.Context(), "c", "worth", AudienceChange{Control: &audience.Control{Count: 77}}); err != nil || mustInfo(t, s, "worth").Result.Manifest.Control.Members != 77 {
		t.Errorf("%v, %+v", err, mustInfo(t, s, "worth").Result.Manifest.Control)
	}
	job, err := s.Combine(t.Context(), "c", CombineRequest{Name: "both", Operation: Union, Audiences: []string{"spring", "worth"}})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, job.ID)
	other := mustInfo(t, s, "worth").Result.Manifest.Control
	for _, m := range mustMembers(t, s, "both", 0) {
		if m.Control != (held.Holds(m.ID) || other.Holds(m.ID)) {
			t.Fatalf("%s is held back: %v", m.ID, m.Control)
		}
	}
	// Erased: off every list of every version, and out of the outcomes.
	victim := members[3].ID
	if rec, err := s.Erase(t.Context(), "c", victim); err != nil || rec.Audiences < 2 || rec.Outcomes != 1 {
		t.Errorf("%+v, %v", rec, err)
	}
	mustNotKnow(t, s, victim)
	if _, err := s.Erase(t.Context(), "c", sailors[3]); err != nil { // a seed
		t.Error(err)
	}
	mustNotKnow(t, s, sailors[3])
	if after, err := s.Lift(t.Context(), "c", "spring", LiftRequest{}); err != nil || after.Treated.Customers+after.Control.Customers != 3999 {
		t.Errorf("%+v, %v", after, err)
	}
}

// mustNotKnow fails where anything that is stored names a customer.
func mustNotKnow(t *testing.T, s *Service, id string) {
	t.Helper()
	keys := 0
	for _, prefix := range []string{"audience/", "in/", "job/"} {
		if err := s.each(prefix, func(key string, value []byte) error {
			keys++
			if strings.Contains(key, id) || strings.Contains(string(value), `"`+id+`"`) {
				t.Errorf("%s still names %s", key, id)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if keys == 0 {
		t.Error("nothing is stored")
	}
}

// Who is erased while a list is built does not come back with it.
func TestErasedWhileARefreshRuns(t *testing.T) {
	store := memory.Open()
	hold := &holding{KV: store.KV(), entered: make(chan struct{}, 1), release: make(chan struct{})}
	s := newService(t, Options{Store: store, KV: hold})
	sailors := liveShop(t, s, 800)
	mustAudience(t, s, springRequest(sailors, 120))
	victim := mustMembers(t, s, "spring", 0)[5].ID
	hold.arm()
	job, err := s.Refresh(t.Context(), "c", "spring", RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-hold.entered // the new list's page is being written
	if _, err := s.Erase(t.Context(), "c", victim); err != nil {
		t.Fatal(err)
	}
	close(hold.release)
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	mustNotKnow(t, s, victim)
	if got := mustMembers(t, s, "spring", 0); len(got) != 119 {
		t.Errorf("%d members", len(got))
	}
}

// holding is a KV that holds the first page of a list back.
type holding struct {
	index.KV
	armed            bool
	entered, release chan struct{}
}

func (h *holding) arm() { h.armed = true }

func (h *holding) Put(ctx context.Context, pairs map[string][]byte) error {
	for key := range pairs {
		if h.armed && strings.Contains(key, "/page/") && strings.HasSuffix(key, "/00000000") && len(pairs) > 1 {
			h.armed = false
			h.entered <- struct{}{}
			<-h.release
		}
	}
	return h.KV.Put(ctx, pairs)
}

// Chance had elsewhere, conversions only, and groups that do not fit the draw.
func TestLiftOfOddOutcomes(t *testing.T) {
	s := newService(t, Options{})
	sailors := liveShop(t, s, 1600)
	mustAudience(t, s, springRequest(sailors, 800))
	if l, err := s.Lift(t.Context(), "c", "spring", LiftRequest{}); err != nil || l.Verdict != audience.LiftUnfit {
		t.Errorf("without outcomes: %+v, %v", l, err)
	}
	members := mustMembers(t, s, "spring", 0)
	var in []OutcomeInput
	for i, m := range members {
		group := "treated"
		if i%4 == 0 {
			group = "control"
		}
		in = append(in, OutcomeInput{i + 1, CustomerOutcome{ID: m.ID, Outcome: outcome(i%5 == 0), Group: group}})
	}
	mustOutcomes(t, s, "spring", in)
	l, err := s.Lift(t.Context(), "c", "spring", LiftRequest{})
	if err != nil || l.Verdict != audience.LiftNone || l.Control.Customers != 200 || l.Control.Converted != 40 || l.Treated.Converted != 120 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.Lift(t.Context(), "c", "spring", LiftRequest{Missing: "zero"}); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("zero with groups from elsewhere: %v", err)
	}
	summer := springRequest(sailors[40:], 800)
	summer.Name, summer.Control = "summer", &audience.Control{Count: 300}
	mustAudience(t, s, summer)
	in = nil
	treated := 0
	for i, m := range mustMembers(t, s, "summer", 0) {
		if !m.Control && i%3 == 0 {
			treated++
			in = append(in, OutcomeInput{i + 1, CustomerOutcome{ID: m.ID, Outcome: outcome(true)}})
		}
	}
	mustOutcomes(t, s, "summer", in)
	if l, err := s.Lift(t.Context(), "c", "summer", LiftRequest{}); err != nil || l.Verdict != audience.LiftUnfit {
		t.Errorf("conversions only: %+v, %v", l, err)
	}
	l, err = s.Lift(t.Context(), "c", "summer", LiftRequest{Missing: "zero"})
	if err != nil || l.Treated.Customers != 500 || l.Control.Customers != 300 || l.Treated.Converted != treated || l.Control.Converted != 0 || l.Relative != nil || l.Verdict != audience.LiftMore {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.Recalibrate(t.Context(), "c", "summer"); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("calibrated on conversions only: %v", err)
	}
	in = in[:0]
	for i, m := range mustMembers(t, s, "summer", 0) {
		if !m.Control {
			in = append(in, OutcomeInput{i + 1, CustomerOutcome{ID: m.ID, Outcome: outcome(i%2 == 0)}})
		} else if i%30 == 0 {
			in = append(in, OutcomeInput{i + 1, CustomerOutcome{ID: m.ID, Outcome: outcome(false)}})
		}
	}
	mustOutcomes(t, s, "summer", in)
	if l, err := s.Lift(t.Context(), "c", "summer", LiftRequest{}); err != nil || !strings.Contains(strings.Join(l.Notes, "\n"), "seem to be missing") {
		t.Errorf("half the control group is missing: %+v, %v", l, err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 seconds", what)
		}
	}
}

// What is due happens once, also when it came due while no process ran.
func TestScheduleAndEnd(t *testing.T) {
	tick := &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	store := memory.Open()
	open := func() *Service {
		return newService(t, Options{Store: store, KV: store.KV(), Clock: tick.now, Schedule: true})
	}
	s := open()
	sailors := liveShop(t, s, 800)
	req := springRequest(sailors, 120)
	req.Refresh = &audience.Refresh{Every: "24h"}
	mustAudience(t, s, req)
	brief := springRequest(sailors, 100)
	brief.Name, brief.TTL = "brief", "90h"
	mustAudience(t, s, brief)
	broken := springRequest(sailors, 100)
	broken.Name, broken.Exclude.Audiences, broken.Refresh = "broken", []string{"brief"}, &audience.Refresh{At: "03:30"}
	mustAudience(t, s, broken)
	info := mustInfo(t, s, "spring")
	if d := info.Next.Sub(info.Created); d < 24*time.Hour-time.Second || d > 24*time.Hour+5*time.Minute {
		t.Errorf("due after %v", d)
	}
	if next := mustInfo(t, s, "broken").Next; next.Before(time.Date(2026, 3, 2, 3, 30, 0, 0, time.UTC)) || next.After(time.Date(2026, 3, 2, 3, 35, 0, 0, time.UTC)) {
		t.Errorf("daily refresh due %v", next)
	}
	refreshed := func(name string, version int) func() bool {
		return func() bool {
			info, err := s.Audience(t.Context(), "c", name)
			return err == nil && info.Version == version
		}
	}
	wake := func(d time.Duration) {
		tick.add(d)
		select {
		case s.timetable.wake <- struct{}{}:
		default:
		}
	}
	wake(23 * time.Hour)
	until(t, "the daily refresh", refreshed("broken", 2))
	if v := mustInfo(t, s, "spring").Version; v != 1 {
		t.Fatalf("refreshed %d times too early", v-1)
	}
	wake(2 * time.Hour)
	until(t, "the refresh of the interval", refreshed("spring", 2))
	// Three days pass without a process: one refresh, and the end of the brief one.
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	tick.add(75 * time.Hour)
	s = newService(t, Options{Store: store, KV: store.KV(), Clock: tick.now}) // does not schedule
	if _, err := s.Audience(ctx, "c", "brief"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("an expired audience is there: %v", err)
	}
	if all, err := s.Audiences(ctx, "c"); err != nil || len(all) != 2 {
		t.Errorf("%d audiences, %v", len(all), err)
	}
	if _, err := s.Members(ctx, "c", "brief", 0, 10); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("members of an expired audience: %v", err)
	}
	if in, err := s.AudiencesOf(ctx, "c", sailors[50]); err != nil || strings.Contains(fmt.Sprint(in), "brief") {
		t.Errorf("in %v, %v", in, err)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s = open()
	until(t, "the missed refresh", refreshed("spring", 3))
	until(t, "the end", func() bool {
		page, err := store.KV().List("audience/c/brief/", 1, "")
		return err == nil && len(page) == 0
	})
	until(t, "the failure", func() bool {
		info, err := s.Audience(ctx, "c", "broken")
		return err == nil && info.Refresh != nil && info.Refresh.State == JobFailed
	})
	info = mustInfo(t, s, "broken")
	if info.State != JobDone || info.Version != 2 || !strings.Contains(info.Refresh.Problem, "brief") || !info.Next.After(tick.now()) {
		t.Errorf("%+v", info.Refresh)
	}
	until(t, "the counts", func() bool { return s.Lifecycle() == Lifecycle{Refreshed: 1, Failed: 1, Expired: 1} })
	if v := mustInfo(t, s, "spring"); v.Version != 3 || !v.Next.After(tick.now()) {
		t.Errorf("version %d, next %v", v.Version, v.Next)
	}
	// A schedule that is ended ends.
	if _, err := s.ChangeAudience(ctx, "c", "spring", AudienceChange{Refresh: &audience.Refresh{}}); err != nil || !mustInfo(t, s, "spring").Next.IsZero() {
		t.Errorf("%v", err)
	}
	ttl := "1h"
	if info, err := s.ChangeAudience(ctx, "c", "spring", AudienceChange{TTL: &ttl}); err != nil || info.Expires.Before(tick.now()) {
		t.Errorf("%+v, %v", info, err)
	}
	changes, err := s.Changes(ctx, "c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	wake(2 * time.Hour)
	last := Change{}
	for c := range changes {
		last = c
	}
	if last.Change != "expired" || ctx.Err() != nil {
		t.Errorf("told %+v", last)
	}
	for _, bad := range []audience.Lifecycle{
		{Refresh: &audience.Refresh{Every: "1s"}}, {Refresh: &audience.Refresh{Every: "24h", At: "03:00"}}, {Refresh: &audience.Refresh{At: "25:00"}},
		{Refresh: &audience.Refresh{Churn: share(1.5)}}, {Refresh: &audience.Refresh{Keep: number(-1)}}, {TTL: "soon"}, {Control: &audience.Control{Share: 2}},
		{Control: &audience.Control{}}, {ExpiresAt: &time.Time{}},
	} {
		req := springRequest(sailors, 100)
		req.Name, req.Lifecycle = "bad", bad
		if _, err := s.CreateAudience(ctx, "c", req); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
