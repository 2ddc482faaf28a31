package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

const (
	// turnAfter is how long a re-embedding keeps other jobs waiting at a time.
	turnAfter = 20 * time.Second
	// maxTouched is how many customers written meanwhile are remembered; of more, all
	// are compared anew.
	maxTouched = 1 << 20
	// fewTouched may be left for when writers are held off.
	fewTouched = 64
	// settleBack is how long before a switch what other processes wrote may have gone
	// unseen here, their clocks included.
	settleBack = 2 * time.Minute
)

// settleAfter is when after a switch it is looked at what other processes wrote to the
// generation before: they may have read the configuration just before the switch and
// written just after, and what they wrote shows here some seconds later.
var settleAfter = []time.Duration{0, 10 * time.Second, 30 * time.Second}

// touches are the customers that were written since a re-embedding began to compare, and
// how far it is. It lives as long as the process: another one compares from the beginning.
type touches struct {
	mu    sync.Mutex
	ids   map[string]struct{}
	over  bool   // too many to name
	after string // the ids up to this one are carried over
	whole bool   // all were, once
}

// touched is called under the collection's lock, before customers are written.
func (s *Service) touched(coll string, ids []string) {
	s.mu.Lock()
	t := s.touching[coll]
	s.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ids)+len(ids) > maxTouched {
		t.over, t.ids = true, map[string]struct{}{}
	}
	for _, id := range ids {
		t.ids[id] = struct{}{}
	}
}

// take returns those touched and forgets them.
func (t *touches) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.Sorted(maps.Keys(t.ids))
	t.ids = map[string]struct{}{}
	return out
}

func (t *touches) has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, is := t.ids[id]
	return is
}

// carrier brings a collection's customers into another generation.
type carrier struct {
	s        *Service
	job      *storedJob
	r        *Reembedding
	next     Config
	src, dst index.Engine
	t        *touches
	start    time.Time
	refused  map[string]bool // ids that the other generation does not take
	had      index.Snapshot  // the other generation just before the switch; nil: not known
}

// late says whether a customer that the other generation does not have yet was written
// since everyone was carried over.
func (c *carrier) late(id string) bool {
	return c.t.has(id) || c.s.opt.Shared && !c.refused[id]
}

// runReembed is the body of the job. A resumed one compares what is there and goes on.
func (s *Service) runReembed(ctx context.Context, job *storedJob) error {
	c, err := s.carrier(ctx, job)
	if err != nil || c == nil {
		return err
	}
	err = c.run(ctx)
	if !errors.Is(err, errTurn) {
		s.mu.Lock()
		delete(s.touching, job.Collection)
		s.mu.Unlock()
	}
	return err
}

// carrier opens both generations; nil where the job had its end already.
func (s *Service) carrier(ctx context.Context, job *storedJob) (*carrier, error) {
	s.creating.Lock() // no column is added between reading the schema and making the other
	defer s.creating.Unlock()
	cfg, err := s.config(job.Collection)
	if err != nil {
		return nil, err
	}
	r, err := s.reembedding(cfg)
	if err != nil {
		return nil, err
	}
	if r.Job != job.ID {
		return nil, fmt.Errorf("collection %q is embedded by job %s now: %w", cfg.Name, r.Job, index.ErrExists)
	}
	if r.State == ReembedSwitched {
		return nil, s.switched(ctx, cfg, job, nil) // the process died after the switch
	}
	c := &carrier{s: s, job: job, r: r, next: cfg.as(r.Other), start: s.opt.Clock(), refused: map[string]bool{}}
	if c.src, err = s.opt.Store.Open(ctx, cfg.held()); err != nil {
		return nil, err
	}
	c.dst, err = s.opt.Store.Open(ctx, c.next.held())
	if errors.Is(err, index.ErrNotFound) {
		c.dst, err = s.opt.Store.Create(ctx, c.next.spec())
	}
	if err != nil {
		return nil, err
	}
	if c.dst.Spec().Stamp != c.next.Stamp {
		return nil, fmt.Errorf("what was made of the next generation is of %s: abort, and begin anew: %w", c.dst.Spec().Stamp, index.ErrInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.touching[cfg.Name] == nil {
		s.touching[cfg.Name] = &touches{ids: map[string]struct{}{}}
	}
	c.t = s.touching[cfg.Name]
	return c, nil
}

func (c *carrier) run(ctx context.Context) error {
	if err := c.fill(ctx); err != nil {
		return err
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	if !c.r.Back {
		gate, err := c.gate(ctx)
		if err != nil {
			return err
		}
		c.r.Gate = gate
	}
	if !c.r.Back {
		c.r.State = ReembedReady
	}
	if err := c.s.putReembedding(ctx, c.next.Name, c.r); err != nil {
		return err
	}
	ask := c.job.Reembed
	switch {
	case !ask.Switch:
		return nil
	case c.r.Gate != nil && !c.r.Gate.Passed && !ask.Force:
		return fmt.Errorf("not switched: %s (force switches all the same): %w", c.r.Gate.words(), index.ErrInvalid)
	}
	if c.s.opt.Shared { // what other processes wrote is not touched: look at everyone once more
		c.t.after, c.t.whole = "", false
		if err := c.fill(ctx); err != nil {
			return err
		}
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	return c.change(ctx)
}

// fill carries everyone over who is not there as they are, and drops who is gone.
func (c *carrier) fill(ctx context.Context) error {
	if c.t.whole {
		return nil
	}
	ids, err := idsOf(ctx, c.src)
	if err != nil {
		return err
	}
	done, found := slices.BinarySearch(ids, c.t.after)
	if found {
		done++
	}
	since, began := int64(done), c.s.opt.Clock()
	show := func(done int) {
		c.s.jobs.update(c.job, func(v *Job) {
			v.Stage, v.Total = "embedding", int64(len(ids))
			pace(v, int64(done), since, c.s.opt.Clock().Sub(began))
		})
	}
	show(done)
	for batch := range slices.Chunk(ids[done:], batchSize(c.next)) {
		if err := c.carry(ctx, batch, false); err != nil {
			return err
		}
		c.t.after = batch[len(batch)-1]
		done += len(batch)
		show(done)
		if c.s.jobs.turn() && c.s.opt.Clock().Sub(c.start) > turnAfter {
			return errTurn
		}
	}
	if err := c.drop(ctx); err != nil {
		return err
	}
	c.t.whole = true
	return nil
}

// catchUp carries over what was written meanwhile, but for a few.
func (c *carrier) catchUp(ctx context.Context) error {
	for {
		c.t.mu.Lock()
		over, left := c.t.over, len(c.t.ids)
		c.t.over = false
		c.t.mu.Unlock()
		if over {
			c.t.after, c.t.whole = "", false
			if err := c.fill(ctx); err != nil {
				return err
			}
			continue
		}
		if left <= fewTouched {
			return nil
		}
		for batch := range slices.Chunk(c.t.take(), batchSize(c.next)) {
			if err := c.carry(ctx, batch, false); err != nil {
				return err
			}
		}
	}
}

// carry embeds those of the ids that the other generation does not have as they are, and
// drops those that are gone. Unless the caller holds the collection's lock, who is written
// meanwhile is left out: they are touched, and their turn comes.
func (c *carrier) carry(ctx context.Context, ids []string, locked bool) error {
	have, there, err := c.both(ctx, ids)
	if err != nil {
		return err
	}
	var in []Input
	var records [][]byte
	var gone []string
	for i, row := range have {
		switch {
		case row == nil && there[i] != nil:
			gone = append(gone, ids[i])
		case row == nil, there[i] != nil && sameRow(row, there[i]):
		default:
			var st stored
			if len(row.Record) > 0 {
				if err := json.Unmarshal(row.Record, &st); err != nil {
					return fmt.Errorf("customer %q: its record cannot be read: %w", clip(row.ID), errors.Join(err, index.ErrCorrupt))
				}
			}
			in = append(in, Input{Line: len(in) + 1, Record: profile.Record{ID: row.ID, Fields: row.Values, Texts: st.Texts}})
			records = append(records, row.Record)
		}
	}
	if len(in) == 0 && len(gone) == 0 {
		return nil
	}
	rows, _, err := c.s.rows(ctx, c.next, in, nil)
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].Record = records[i]
	}
	if !locked {
		lock := c.s.lock(c.next.Name)
		lock.Lock()
		defer lock.Unlock()
		rows = slices.DeleteFunc(rows, func(row index.Row) bool { return c.t.has(row.ID) })
		gone = slices.DeleteFunc(gone, c.t.has)
	}
	return c.store(ctx, rows, gone)
}

// both reads customers as the two generations have them, nil where one has not.
func (c *carrier) both(ctx context.Context, ids []string) (have, there []*index.Row, err error) {
	if have, err = c.src.Get(ctx, ids); err == nil {
		there, err = c.dst.Get(ctx, ids)
	}
	return have, there, err
}

// store writes rows to the other generation but those that it refuses, which the job names.
func (c *carrier) store(ctx context.Context, rows []index.Row, gone []string) error {
	if len(gone) > 0 {
		if _, err := c.dst.Delete(ctx, gone); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		return nil
	}
	b := prepared{rows: rows, lines: make([]int, len(rows))}
	out := Outcome{}
	if _, err := c.s.upsert(ctx, c.dst, b, &out); err != nil {
		return err
	}
	c.s.jobs.update(c.job, func(v *Job) {
		v.Accepted += len(rows) - len(out.Refused)
		v.Refused += len(out.Refused)
		for _, bad := range out.Refused {
			c.refused[bad.ID] = true
			if len(v.Errors) < maxSample {
				v.Errors = append(v.Errors, bad)
			}
		}
	})
	return nil
}

// drop takes out of the other generation who is not in the one that counts.
func (c *carrier) drop(ctx context.Context) error {
	src, err := c.src.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer closeSnapshot(src, c.s.log)
	there, err := idsOf(ctx, c.dst)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(there, func(id string) bool { _, is := src.Find(id); return is })
	for batch := range slices.Chunk(gone, 1000) {
		if err := c.carry(ctx, batch, false); err != nil { // by the engine: a snapshot may be older
			return err
		}
	}
	return nil
}

// change moves the collection over while nobody writes.
func (c *carrier) change(ctx context.Context) error {
	s := c.s
	var now Config
	err := s.Exclusively(ctx, c.next.Name, func(ctx context.Context) (err error) {
		s.creating.Lock()
		defer s.creating.Unlock()
		now, err = c.move(ctx)
		return err
	})
	if c.had != nil {
		defer closeSnapshot(c.had, s.log)
	}
	if err != nil {
		return err
	}
	s.forgetJudges(now.Name)
	return s.switched(ctx, now, c.job, c.had)
}

// move is the switch itself.
func (c *carrier) move(ctx context.Context) (now Config, err error) {
	s := c.s
	err = s.locked(c.next.Name, func(cfg Config) error {
		if err := c.carry(ctx, c.t.take(), true); err != nil {
			return err
		}
		was, err := count(ctx, c.src)
		if err != nil {
			return err
		}
		is, err := count(ctx, c.dst)
		if err != nil {
			return err
		}
		if is != was && !c.job.Reembed.Force && !s.opt.Shared {
			return fmt.Errorf("not switched: %d customers are there, %d of them embedded anew; the job names those that were refused (force switches all the same): %w", was, is, index.ErrInvalid)
		}
		if c.had, err = c.dst.Snapshot(ctx); err != nil {
			return err
		}
		now = cfg.as(c.r.Other)
		c.r.Other, c.r.State, c.r.Back, c.r.Switched = cfg.generation(), ReembedSwitched, false, s.opt.Clock().UTC()
		return s.putReembedding(context.WithoutCancel(ctx), cfg.Name, c.r, now)
	})
	return now, err
}

// switched does what follows a switch; a job that is resumed does it again.
func (s *Service) switched(ctx context.Context, cfg Config, job *storedJob, had index.Snapshot) error {
	if err := s.show(ctx, &cfg); err != nil {
		return err
	}
	if s.opt.Shared {
		if err := s.settle(ctx, cfg, job, had); err != nil {
			return err
		}
	}
	if again := job.Reembed.Relearn; again == nil || *again {
		return s.relearn(ctx, cfg.Name)
	}
	return nil
}

// show shows the collection under its name to those who read the store's server
// themselves, where there is one.
func (s *Service) show(ctx context.Context, cfg *Config) error {
	if p, ok := s.opt.Store.(index.Pointer); ok {
		return p.Point(ctx, cfg.Name, cfg.held())
	}
	return nil
}

// settle carries over what other processes wrote to the generation before around the
// switch.
func (s *Service) settle(ctx context.Context, cfg Config, job *storedJob, had index.Snapshot) error {
	r, err := s.reembedding(cfg)
	if err != nil {
		return err
	}
	c := &carrier{s: s, job: job, r: r, next: cfg, t: &touches{ids: map[string]struct{}{}}, refused: map[string]bool{}, had: had}
	if c.src, err = s.opt.Store.Open(ctx, heldAs(cfg.Name, r.Other.Number)); err != nil {
		return err
	}
	if c.dst, err = s.opt.Store.Open(ctx, cfg.held()); err != nil {
		return err
	}
	s.jobs.update(job, func(v *Job) { v.Stage, v.Done, v.Total = "waiting for other processes", 0, 0 })
	start := time.Now()
	for _, at := range settleAfter {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(start.Add(at))):
		}
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) settle(ctx context.Context) error {
	if err := c.dropLate(ctx); err != nil {
		return err
	}
	ids, err := idsOf(ctx, c.src)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(ids, 1000) {
		have, err := c.src.Get(ctx, batch)
		if err != nil {
			return err
		}
		var late []string
		for _, row := range have {
			if row != nil && writtenAt(row).After(c.r.Switched.Add(-settleBack)) {
				late = append(late, row.ID)
			}
		}
		if err := c.carryLater(ctx, late); err != nil {
			return err
		}
	}
	return nil
}

// dropLate takes out who was deleted by another process while being carried over: who was
// there at the switch, was not written since, and is not in the generation before.
func (c *carrier) dropLate(ctx context.Context) error {
	src, err := c.src.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer closeSnapshot(src, c.s.log)
	ids, err := idsOf(ctx, c.dst)
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool {
		_, is := src.Find(id)
		if !is && c.had != nil {
			_, was := c.had.Find(id)
			is = !was
		}
		return is
	})
	for batch := range slices.Chunk(ids, 1000) {
		err := c.s.locked(c.next.Name, func(Config) error {
			rows, err := c.dst.Get(ctx, batch)
			if err != nil {
				return err
			}
			var gone []string
			for _, row := range rows {
				if row != nil && writtenAt(row).Before(c.r.Switched) {
					gone = append(gone, row.ID)
				}
			}
			return c.store(ctx, nil, gone)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// carryLater is carry of those that were written later in the generation before.
func (c *carrier) carryLater(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return c.s.locked(c.next.Name, func(Config) error {
		have, there, err := c.both(ctx, ids)
		if err != nil {
			return err
		}
		var later []string
		for i, row := range have {
			if row != nil && (there[i] == nil || writtenAt(row).After(writtenAt(there[i]))) {
				later = append(later, ids[i])
			}
		}
		if len(later) == 0 {
			return nil
		}
		return c.carry(ctx, later, true)
	})
}

func writtenAt(row *index.Row) time.Time {
	var st stored
	if json.Unmarshal(row.Record, &st) != nil {
		return time.Time{}
	}
	return st.Updated
}

// idsOf are the live ids, ascending.
func idsOf(ctx context.Context, eng index.Engine) ([]string, error) {
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return index.LiveIDs(snap), snap.Close()
}

// sameRow says whether two generations have the same record and columns of a customer. The
// record holds the texts and the time of the write.
func sameRow(a, b *index.Row) bool {
	return bytes.Equal(a.Record, b.Record) && maps.EqualFunc(a.Values, b.Values, func(x, y index.Value) bool {
		return x.Kind == y.Kind && x.Num == y.Num && x.Str == y.Str && slices.Equal(slices.Sorted(slices.Values(x.Set)), slices.Sorted(slices.Values(y.Set)))
	})
}
