package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kindred-search/kindred/index"
)

// When an audience is next refreshed and when it expires stands in its
// description, so both survive a restart: what came due while no process ran
// happens once, at once. The timetable is that of all descriptions, in memory.

// timetable says when something is due. Its zero value is that of a Service that
// does not schedule.
type timetable struct {
	mu   sync.Mutex
	due  map[[2]string]appointment // by collection and audience; nil: not scheduled
	wake chan struct{}
	stop context.CancelFunc
	end  chan struct{}

	done, failed, expired atomic.Int64
}

type appointment struct {
	next, expires time.Time
	notBefore     time.Time // after a fault: try again then
}

// retryAfter is how long a due refresh waits that could not be queued.
const retryAfter = time.Minute

// maxSleep bounds the sleep, for clocks that are set and machines that slept.
const maxSleep = time.Minute

func (a appointment) at() time.Time {
	t := a.next
	if t.IsZero() || !a.expires.IsZero() && a.expires.Before(t) {
		t = a.expires
	}
	if t.Before(a.notBefore) && !t.IsZero() {
		t = a.notBefore
	}
	return t
}

func (t *timetable) set(coll string, info *AudienceInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.due == nil {
		return
	}
	key := [2]string{coll, info.Name}
	if info.Next.IsZero() && info.Expires.IsZero() {
		delete(t.due, key)
		return
	}
	t.due[key] = appointment{next: info.Next, expires: info.Expires}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *timetable) forget(coll, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.due, [2]string{coll, name})
}

// put off keeps a due appointment from being tried again at once.
func (t *timetable) putOff(key [2]string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a, there := t.due[key]; there {
		a.notBefore = until
		t.due[key] = a
	}
}

// now returns what is due, and when the next thing will be.
func (t *timetable) now(at time.Time) (due map[[2]string]appointment, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	due = map[[2]string]appointment{}
	for key, a := range t.due {
		switch when := a.at(); {
		case !when.After(at):
			due[key] = a
		case next.IsZero() || when.Before(next):
			next = when
		}
	}
	return due, next
}

func (t *timetable) close() {
	if t.stop == nil {
		return
	}
	t.stop()
	<-t.end
}

// Lifecycle counts what happened to audiences since the process began.
type Lifecycle struct {
	Refreshed, Failed, Expired int64
}

// Lifecycle returns the counts.
func (s *Service) Lifecycle() Lifecycle {
	return Lifecycle{s.timetable.done.Load(), s.timetable.failed.Load(), s.timetable.expired.Load()}
}

func (s *Service) expired(info *AudienceInfo) bool {
	return !info.Expires.IsZero() && !s.opt.Clock().Before(info.Expires)
}

// due is when an audience is refreshed next after t. Audiences of one interval
// are spread over a tenth of it, five minutes at most, by their names.
func (s *Service) due(coll string, info *AudienceInfo, t time.Time) time.Time {
	r := info.Request.Refresh
	if r == nil || r.Every == "" && r.At == "" {
		return time.Time{}
	}
	room := 5 * time.Minute
	if every, err := time.ParseDuration(r.Every); err == nil && every/10 < room {
		room = every / 10
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, coll+"/"+info.Name) // a hash takes everything
	// A multiple of a second, so that what is stored reads as it was meant.
	shift := time.Duration(h.Sum64()%uint64(room/time.Second+1)) * time.Second
	next := r.Next(info.Created.Truncate(time.Second), t.Add(-shift))
	if next.IsZero() {
		return next
	}
	return next.Add(shift)
}

// keepTime reads the timetable and begins to keep it.
func (s *Service) keepTime() error {
	if !s.opt.Schedule {
		return nil
	}
	t := &s.timetable
	t.mu.Lock()
	t.due, t.wake, t.end = map[[2]string]appointment{}, make(chan struct{}, 1), make(chan struct{})
	t.mu.Unlock()
	if err := s.readTimetable(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	go s.keepAppointments(ctx)
	return nil
}

// readTimetable reads when audiences are due.
func (s *Service) readTimetable() error {
	t := &s.timetable
	var names []string
	if err := s.each(configPrefix, func(key string, _ []byte) error {
		names = append(names, strings.TrimPrefix(key, configPrefix))
		return nil
	}); err != nil {
		return err
	}
	for _, coll := range names {
		all, err := s.audienceNames(coll)
		if err != nil {
			return err
		}
		for _, name := range all {
			raw, err := s.opt.KV.Get(infoKey(coll, name))
			if errors.Is(err, index.ErrNotFound) {
				continue // a deletion that a kill cut short
			}
			if err != nil {
				return err
			}
			var when struct {
				Name    string    `json:"name"`
				Next    time.Time `json:"next_refresh"`
				Expires time.Time `json:"expires"`
			}
			if err := json.Unmarshal(raw, &when); err != nil {
				return fmt.Errorf("audience %q: its description cannot be read: %w", name, errors.Join(err, index.ErrCorrupt))
			}
			t.set(coll, &AudienceInfo{Name: name, Next: when.Next, Expires: when.Expires})
		}
	}
	return nil
}

func (s *Service) keepAppointments(ctx context.Context) {
	t := &s.timetable
	defer close(t.end)
	k := keeper{s: s}
	defer k.leave()
	for {
		var next time.Time
		sleep := maxSleep
		if k.keeps(ctx) {
			next = s.tick(ctx)
		}
		if s.claims != nil {
			sleep = k.pause()
		}
		if !next.IsZero() {
			sleep = max(0, min(sleep, next.Sub(s.opt.Clock())))
		}
		timer := time.NewTimer(sleep)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// keeper is the timetable's of a process whose store is shared: one of them keeps it, by a
// claim that it holds as long as it lives. Another takes over what it leaves.
type keeper struct {
	s     *Service
	held  *claim
	read  time.Time     // when the timetable was last read from the store
	took  time.Duration // how long that took
	again time.Time     // when to claim next
}

// keeps says whether this process is the one, and sees to it that it knows what others
// have changed in the timetable.
func (k *keeper) keeps(ctx context.Context) bool {
	s := k.s
	if s.claims == nil {
		return true
	}
	if k.held != nil && k.held.lost() {
		k.leave()
	}
	if k.held == nil {
		if time.Now().Before(k.again) {
			return false
		}
		// To look costs the store less than to claim what another has.
		others, err := s.claims.rivals(ctx, claimPrefix+timetableClaim+"/")
		if err == nil && others == 0 {
			k.held, err = s.claims.try(ctx, timetableClaim)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("whose the timetable is cannot be seen", "error", err)
		}
		if k.held == nil {
			k.again = time.Now().Add(s.claims.times.every + rand.N(s.claims.times.every))
			return false
		}
		k.read = time.Time{}
		s.log.Info("this process keeps the timetable of audiences")
	}
	if !k.read.IsZero() && time.Since(k.read) < max(s.claims.times.read, readTimetableShare*k.took) {
		return true
	}
	start := time.Now()
	if err := s.readTimetable(); err != nil {
		s.log.Warn("the timetable cannot be read", "error", err)
		return false
	}
	k.read, k.took = time.Now(), time.Since(start)
	return true
}

// pause is how long to sleep at most before looking again.
func (k *keeper) pause() time.Duration {
	if k.held != nil {
		return min(maxSleep, k.s.claims.times.read)
	}
	return k.s.claims.times.every
}

// leave lets another process keep the timetable.
func (k *keeper) leave() {
	if k.held != nil {
		k.held.release()
		k.held = nil
	}
}

const (
	timetableClaim = "timetable"
	// What other processes change in the timetable is read once a minute, or less often
	// where that takes long.
	readTimetableEvery = time.Minute
	readTimetableShare = 20
)

// tick does what is due and returns when the next thing will be.
func (s *Service) tick(ctx context.Context) time.Time {
	now := s.opt.Clock().UTC()
	due, next := s.timetable.now(now)
	for key, a := range due {
		if ctx.Err() != nil {
			return next
		}
		coll, name := key[0], key[1]
		var err error
		if !a.expires.IsZero() && !a.expires.After(now) {
			err = s.expire(ctx, coll, name)
		} else {
			_, err = s.Refresh(ctx, coll, name, RefreshRequest{Scheduled: true})
		}
		switch {
		case errors.Is(err, index.ErrNotFound):
			s.timetable.forget(coll, name)
		case err != nil && ctx.Err() == nil:
			s.log.Warn("an audience's appointment was not kept", "collection", coll, "audience", name, "error", err)
			s.timetable.putOff(key, now.Add(retryAfter))
		}
	}
	if len(due) > 0 {
		_, next = s.timetable.now(s.opt.Clock().UTC())
	}
	return next
}

// expire deletes an audience whose time is up.
func (s *Service) expire(ctx context.Context, coll, name string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	info, err := s.load(coll, name)
	if err != nil || !s.expired(&info) {
		return err
	}
	if err := s.drop(ctx, coll, name, "expired"); err != nil {
		return err
	}
	s.timetable.expired.Add(1)
	s.log.Info("an audience expired", "collection", coll, "audience", name)
	return nil
}
