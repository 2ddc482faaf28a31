package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/kindred-search/kindred/index"
)

// Of a store that several processes share, a job belongs to the one that took it. While
// that has jobs to do, it says so every few seconds under alive/<owner>; a job whose owner
// has not for a while, or has said goodbye, is taken over by whoever sees it first.
// Two that see it at once both run it: what jobs write is the same twice.

const (
	alivePrefix = "alive/"
	aliveEvery  = 5 * time.Second
	// deadAfter is longer than a write to a store may take, and than clocks differ.
	deadAfter = 45 * time.Second
)

// owners keeps the jobs of a shared store apart.
type owners struct {
	j    *jobs
	self string
	done chan struct{}
}

// share begins; nil where the store is not shared.
func (j *jobs) share(ctx context.Context) *owners {
	if !j.svc.opt.Shared {
		return nil
	}
	o := &owners{j: j, self: uuid.NewString(), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		tick := time.NewTicker(aliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := o.look(ctx); err != nil && ctx.Err() == nil {
				j.svc.log.Warn("jobs of other processes could not be looked at", "error", err)
			}
		}
	}()
	return o
}

// sign makes a new job ours: the pairs say that we live, too.
func (o *owners) sign(job *storedJob, with map[string][]byte) map[string][]byte {
	if o == nil {
		return with
	}
	job.Owner = o.self
	out := map[string][]byte{alivePrefix + o.self: o.now()}
	maps.Copy(out, with)
	return out
}

func (o *owners) now() []byte { return []byte(time.Now().UTC().Format(time.RFC3339Nano)) }

// alive says whether the owner of a job is at work on it elsewhere.
func (o *owners) alive(owner string) (bool, error) {
	if o == nil || owner == "" || owner == o.self {
		return false, nil
	}
	raw, err := o.j.svc.opt.KV.Get(alivePrefix + owner)
	if errors.Is(err, index.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at, err := time.Parse(time.RFC3339Nano, string(raw))
	if err != nil {
		return false, nil //nolint:nilerr // nothing that a process of this version wrote
	}
	return time.Since(at) < deadAfter, nil
}

// look says that we live while we have jobs, reads what became of the others', and takes
// over those of the dead.
func (o *owners) look(ctx context.Context) error {
	j := o.j
	busy := false
	var others []*storedJob
	j.mu.Lock()
	for _, job := range j.all {
		switch {
		case job.State.Final():
		case job.Owner == o.self:
			busy = true
		default:
			others = append(others, job)
		}
	}
	j.mu.Unlock()
	if busy {
		if err := j.svc.opt.KV.Put(ctx, map[string][]byte{alivePrefix + o.self: o.now()}); err != nil {
			return err
		}
	}
	for _, job := range others {
		raw, err := j.svc.opt.KV.Get(jobPrefix + job.ID)
		if errors.Is(err, index.ErrNotFound) { // forgotten
			j.mu.Lock()
			delete(j.all, job.ID)
			j.mu.Unlock()
			continue
		}
		if err != nil {
			return err
		}
		var now storedJob
		if err := json.Unmarshal(raw, &now); err != nil {
			return fmt.Errorf("job %s cannot be read: %w", job.ID, errors.Join(err, index.ErrCorrupt))
		}
		alive, err := o.alive(now.Owner)
		if err != nil {
			return err
		}
		if alive || now.State.Final() {
			j.mu.Lock()
			job.Owner = now.Owner
			j.mu.Unlock()
			j.update(job, func(v *Job) { *v = now.Job })
			continue
		}
		now.Owner, now.State = o.self, JobQueued
		if err := j.save(ctx, &now, map[string][]byte{alivePrefix + o.self: o.now()}); err != nil {
			return err
		}
		j.svc.log.Info("a job of a process that is gone is taken over", "job", job.ID)
		j.mu.Lock()
		job.Owner, job.State = now.Owner, now.State
		j.queue = append(j.queue, job.ID)
		j.mu.Unlock()
		j.rouse()
	}
	return nil
}

// leave lets others take over what we have not done, at once.
func (o *owners) leave(ctx context.Context) error {
	if o == nil {
		return nil
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return o.j.svc.opt.KV.Delete(ctx, alivePrefix+o.self)
}
