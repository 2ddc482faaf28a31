package collection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kindred-search/kindred/index"
)

// Of a store that several processes share, what must not be changed by two at once is
// claimed first: a process writes claim/<what>/<itself>.<number>, and then reads who else
// has. It counts that a read after one's own write sees all that was written before it,
// which index/milvus gives: of two that claim at once, the one that wrote later sees the
// other, so that never both find themselves alone. Who is not alone gives its claim up and
// tries again, under another number, after a random pause.
//
// A claim is written anew every few seconds while it is held. One that has stayed the same
// for deadAfter, by the clock of who looks, is of a process that is gone; clocks are not
// compared. Who cannot renew its own for claimHeld must stop before that: the context of
// what it does is cancelled. A process that is stopped for longer in the middle of a
// single write can still do harm: Milvus writes without conditions.

const (
	claimPrefix = "claim/"
	// claimHeld is shorter than deadAfter by what a write under way may take.
	claimHeld = 30 * time.Second
	// claimWait is longer than deadAfter: the claim of one that is gone ends meanwhile.
	claimWait = 50 * time.Second
)

// errClaimed is what a change ends with that another process's do not let through.
var errClaimed = fmt.Errorf("another process is changing it: %w", index.ErrUnavailable)

// errClaimLost is the cause where a change had to be given up.
var errClaimLost = fmt.Errorf("this process could not say for too long that it is changing it: read it again: %w", index.ErrUnavailable)

// claims are those of one process.
type claims struct {
	kv    index.KV
	log   *slog.Logger
	self  string
	times claimTimes

	fresh func() (done func())

	mu     sync.Mutex
	here   map[string]*turns
	seen   map[string]sighting // others' claims by key
	number int                 // of the last claim: none is written again once it was given up
	ending sync.WaitGroup      // removals of claims that were given up
}

// claimFree is what is written over a claim that is given up. To remove it means to wait
// for the server's clock, which is done afterwards.
const claimFree = "free"

// claimTimes are the constants above and of the timetable, smaller in tests.
type claimTimes struct{ every, held, dead, wait, read time.Duration }

// turns lets one goroutine of this process at a time claim a thing.
type turns struct {
	token   chan struct{}
	waiting int
}

type sighting struct {
	value string
	since time.Time // with the monotonic clock
}

// claim is one that is held.
type claim struct {
	c      *claims
	key    string
	ctx    context.Context // ends with the claim
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// newClaims is nil where the store is not shared: then this process is alone.
func newClaims(opt *Options) *claims {
	if !opt.Shared {
		return nil
	}
	times := opt.claimTimes
	if times == (claimTimes{}) {
		times = claimTimes{aliveEvery, claimHeld, deadAfter, claimWait, readTimetableEvery}
	}
	c := &claims{
		kv: opt.KV, log: opt.Logger, self: uuid.NewString(), times: times,
		here: map[string]*turns{}, seen: map[string]sighting{}, fresh: func() func() { return func() {} },
	}
	// A KV may give what it read last while its server is away. What is changed must not
	// rest on that.
	if kv, ok := opt.KV.(interface{ Fresh() (done func()) }); ok {
		c.fresh = kv.Fresh
	}
	return c
}

type claimedKey string

// exclusively runs do while no other process that asks for it does the same thing. do's
// context says so, ends when the claim is lost, and takes claims on the same thing as
// held. Of a store that is not shared it only runs do.
func (s *Service) exclusively(ctx context.Context, what string, do func(context.Context) error) error {
	c := s.claims
	if c == nil || ctx.Value(claimedKey(what)) != nil {
		return do(ctx)
	}
	leave, err := c.turn(ctx, what)
	if err != nil {
		return err
	}
	defer leave()
	held, err := c.wait(ctx, what)
	if err != nil {
		return err
	}
	defer held.release()
	defer c.fresh()()
	err = do(context.WithValue(held.ctx, claimedKey(what), true))
	if lost := context.Cause(held.ctx); errors.Is(lost, errClaimLost) {
		return errors.Join(err, fmt.Errorf("%s: %w", what, errClaimLost))
	}
	return err
}

// Exclusively runs a change of a collection's settings while no other process on the same
// store makes one. do is to pass its context on.
func (s *Service) Exclusively(ctx context.Context, coll string, do func(context.Context) error) error {
	return s.exclusively(ctx, configPrefix+coll, do)
}

// turn waits until no other goroutine of this process has or wants it.
func (c *claims) turn(ctx context.Context, what string) (leave func(), err error) {
	c.mu.Lock()
	t := c.here[what]
	if t == nil {
		t = &turns{token: make(chan struct{}, 1)}
		c.here[what] = t
	}
	t.waiting++
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(c.here, what)
		}
	}
	select {
	case t.token <- struct{}{}:
		return func() { <-t.token; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

// wait tries until it has the claim.
func (c *claims) wait(ctx context.Context, what string) (*claim, error) {
	until := time.Now().Add(c.times.wait)
	for pause := c.times.every / 50; ; pause = min(2*pause, c.times.every/5) {
		held, err := c.try(ctx, what)
		if held != nil || err != nil {
			return held, err
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%s: %w", what, errClaimed)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// try claims once; nil where another process has it or wants it too.
func (c *claims) try(ctx context.Context, what string) (*claim, error) {
	prefix := claimPrefix + what + "/"
	c.mu.Lock()
	c.number++
	key := fmt.Sprintf("%s%s.%d", prefix, c.self, c.number)
	c.mu.Unlock()
	put := func() (time.Time, error) {
		at := time.Now()
		return at, c.kv.Put(ctx, map[string][]byte{key: []byte(uuid.NewString())})
	}
	_, err := put()
	var rivals int
	if err == nil {
		rivals, err = c.rivals(ctx, prefix)
	}
	var renewed time.Time
	if err == nil && rivals == 0 {
		// Once more: what is read after this is no older than what the one before us wrote
		// last.
		renewed, err = put()
	}
	if err != nil || rivals > 0 {
		return nil, errors.Join(err, c.takeBack(ctx, key))
	}
	held := &claim{c: c, key: key, done: make(chan struct{})}
	held.ctx, held.cancel = context.WithCancelCause(ctx)
	go held.renew(renewed)
	return held, nil
}

// rivals counts the others' claims that live, and forgets those of the dead.
func (c *claims) rivals(ctx context.Context, prefix string) (int, error) {
	done := c.fresh()
	list, err := c.kv.List(prefix, 0, "")
	done()
	if err != nil {
		return 0, err
	}
	now, n := time.Now(), 0
	there, dead := map[string]bool{}, []string{}
	c.mu.Lock()
	for _, p := range list {
		there[p.Key] = true
		was, known := c.seen[p.Key]
		switch {
		case strings.HasPrefix(p.Key, prefix+c.self) || string(p.Value) == claimFree:
		case !known || was.value != string(p.Value):
			c.seen[p.Key] = sighting{string(p.Value), now}
			n++
		case now.Sub(was.since) < c.times.dead:
			n++
		default:
			dead = append(dead, p.Key)
		}
	}
	for key := range c.seen {
		if strings.HasPrefix(key, prefix) && !there[key] {
			delete(c.seen, key)
		}
	}
	c.mu.Unlock()
	if n > 0 || len(dead) == 0 {
		return n, nil
	}
	c.log.Info("claims of processes that are gone are dropped", "claims", len(dead))
	return 0, c.kv.Delete(ctx, dead...)
}

// takeBack gives our claim up. One that stays counts as a dead process's in time.
func (c *claims) takeBack(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.times.held)
	err := c.kv.Put(ctx, map[string][]byte{key: []byte(claimFree)})
	c.ending.Go(func() {
		defer cancel()
		if err := c.kv.Delete(ctx, key); err != nil {
			c.log.Warn("a claim that was given up stays behind, which harms nobody", "claim", key, "error", err)
		}
	})
	return err
}

// close waits until what was given up is removed.
func (c *claims) close() {
	if c != nil {
		c.ending.Wait()
	}
}

// renew writes the claim anew until it ends. renewed is when it was last begun to be
// written.
func (h *claim) renew(renewed time.Time) {
	defer close(h.done)
	tick := time.NewTicker(h.c.times.every)
	defer tick.Stop()
	for {
		end := time.NewTimer(time.Until(renewed.Add(h.c.times.held)))
		select {
		case <-h.ctx.Done():
			end.Stop()
			return
		case <-end.C:
			h.cancel(errClaimLost)
			return
		case <-tick.C:
			end.Stop()
		}
		begun := time.Now()
		if begun.Sub(renewed) >= h.c.times.held { // the process was stopped for a while
			h.cancel(errClaimLost)
			return
		}
		ctx, cancel := context.WithDeadline(h.ctx, renewed.Add(h.c.times.held))
		err := h.c.kv.Put(ctx, map[string][]byte{h.key: []byte(uuid.NewString())})
		cancel()
		if err == nil {
			renewed = begun
		}
	}
}

// release ends it.
func (h *claim) release() {
	h.cancel(nil)
	<-h.done
	if err := h.c.takeBack(h.ctx, h.key); err != nil {
		h.c.log.Warn("a claim could not be taken back: other processes wait for a while", "claim", h.key, "error", err)
	}
}

// lost says whether the claim has ended.
func (h *claim) lost() bool { return h.ctx.Err() != nil }
