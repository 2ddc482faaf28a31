package collection

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/index"
)

const jobPrefix = "job/"

// storedJob is a job with what it takes to run it again.
type storedJob struct {
	Job
	Import   *ImportRequest    `json:"import,omitempty"`
	Audience *audience.Request `json:"audience,omitempty"`
	Segments *segment.Params   `json:"segments,omitempty"`
	Tag      *TagRequest       `json:"tag,omitempty"`
	Again    bool              `json:"again,omitempty"` // the tag takes the place of one that is there
	Combine  *CombineRequest   `json:"combine,omitempty"`
	Refresh  *RefreshRequest   `json:"refresh,omitempty"`
	Reembed  *ReembedRequest   `json:"reembed,omitempty"`
	Relearn  *relearning       `json:"relearn,omitempty"`
	Owner    string            `json:"owner,omitempty"` // the process whose it is, of a shared store
}

// jobs runs stored jobs one after the other, oldest first: each uses all cores
// by itself. A job is on disk before its caller hears of it.
type jobs struct {
	svc  *Service
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	all     map[string]*storedJob
	queue   []string
	cancels map[string]context.CancelCauseFunc // of the running job
	watch   map[string][]chan Job
	wake    chan struct{}
	owners  *owners // nil: the store is ours alone
}

// errStopping is the cause when a process stops: the job resumes. errCancelled
// is the cause when somebody asked for it.
var (
	errStopping  = errors.New("the process is stopping")
	errCancelled = errors.New("cancelled")
)

// newJobs gives s its jobs and goes on with those that were not finished. A job looks
// for s.jobs, so that is set before the first one runs.
func newJobs(s *Service) error {
	ctx, stop := context.WithCancel(context.Background())
	j := &jobs{
		svc: s, stop: stop, done: make(chan struct{}),
		all: map[string]*storedJob{}, cancels: map[string]context.CancelCauseFunc{},
		watch: map[string][]chan Job{}, wake: make(chan struct{}, 1),
	}
	j.owners = j.share(ctx)
	err := s.each(jobPrefix, func(key string, value []byte) error {
		var job storedJob
		if err := json.Unmarshal(value, &job); err != nil {
			return fmt.Errorf("job %s cannot be read: %w", key, errors.Join(err, index.ErrCorrupt))
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.all[job.ID] = &job
		if job.State.Final() {
			return nil
		}
		elsewhere, err := j.owners.alive(job.Owner)
		if err != nil || elsewhere {
			return err
		}
		if job.State = JobQueued; j.owners != nil {
			job.Owner = j.owners.self // and is so on disk when it is saved next
		}
		j.queue = append(j.queue, job.ID)
		return nil
	})
	if err != nil {
		stop()
		return err
	}
	slices.SortFunc(j.queue, func(a, b string) int {
		return j.all[a].Created.Compare(j.all[b].Created)
	})
	if err := j.prune(); err != nil {
		stop()
		return err
	}
	s.jobs = j
	go j.loop(ctx)
	return nil
}

// add stores a job, together with the pairs given, and queues it.
func (j *jobs) add(ctx context.Context, job *storedJob, with map[string][]byte) (Job, error) {
	j.mu.Lock()
	if len(j.queue) >= j.svc.opt.Limits.MaxJobs {
		j.mu.Unlock()
		return Job{}, fmt.Errorf("%d jobs: %w", j.svc.opt.Limits.MaxJobs, ErrBusy)
	}
	j.mu.Unlock()
	now := j.svc.opt.Clock().UTC()
	if job.ID == "" {
		job.ID = uuid.NewString()
	}
	job.State = JobQueued
	job.Created, job.Updated = now, now
	if err := j.save(ctx, job, j.owners.sign(job, with)); err != nil {
		return Job{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all[job.ID] = job
	j.queue = append(j.queue, job.ID)
	j.rouse()
	return job.Job, nil
}

// save writes a job and the pairs given in one durable step.
func (j *jobs) save(ctx context.Context, job *storedJob, with map[string][]byte) error {
	raw, err := json.Marshal(job)
	if err != nil {
		return err
	}
	pairs := map[string][]byte{jobPrefix + job.ID: raw}
	maps.Copy(pairs, with)
	return j.svc.opt.KV.Put(ctx, pairs)
}

// rouse tells the loop that the queue has grown.
func (j *jobs) rouse() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *jobs) loop(ctx context.Context) {
	defer close(j.done)
	for {
		job, runCtx, cancel := j.next(ctx)
		if job == nil {
			return
		}
		j.update(job, func(v *Job) { v.State = JobRunning })
		if j.owners != nil {
			j.checkpoint(job) // others see whose it is
		}
		err := j.run(runCtx, job)
		j.mu.Lock()
		cause := context.Cause(runCtx)
		delete(j.cancels, job.ID)
		again := errors.Is(err, errTurn) && cause == nil
		if again { // in one step: it can be cancelled at any moment
			job.State = JobQueued
			j.queue = append(j.queue, job.ID)
			j.rouse()
		}
		j.mu.Unlock()
		cancel(nil)
		if ctx.Err() != nil {
			j.checkpoint(job) // still queued on disk: the next process resumes it
			return
		}
		if again {
			j.checkpoint(job)
			continue
		}
		j.update(job, func(v *Job) {
			v.ETA = 0
			switch {
			case errors.Is(cause, errCancelled):
				v.State = JobCancelled
			case err != nil:
				v.State = JobFailed
				v.Problem = reason(err)
			default:
				v.State = JobDone
			}
		})
		if err != nil {
			j.svc.log.Warn("job ended with an error", "job", job.ID, "kind", job.Kind, "error", err)
		}
		j.checkpoint(job)
		if err := j.prune(); err != nil {
			j.svc.log.Warn("old jobs could not be forgotten", "error", err)
		}
	}
}

// errTurn is what a long job returns that lets others have their turn: it goes on after
// those that wait.
var errTurn = errors.New("others have their turn")

// turn says whether others wait.
func (j *jobs) turn() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue) > 0
}

// prune forgets jobs that ended long ago, so that their number stays bounded;
// see Limits.KeepJobs.
func (j *jobs) prune() error {
	limits, now := j.svc.opt.Limits, j.svc.opt.Clock()
	j.mu.Lock()
	var ended []*storedJob
	for _, job := range j.all {
		if job.State.Final() {
			ended = append(ended, job)
		}
	}
	slices.SortFunc(ended, func(a, b *storedJob) int {
		return cmp.Or(b.Updated.Compare(a.Updated), strings.Compare(a.ID, b.ID))
	})
	ended = slices.DeleteFunc(ended[min(limits.KeepJobs, len(ended)):], func(job *storedJob) bool {
		return now.Sub(job.Updated) < limits.KeepJobsFor
	})
	j.mu.Unlock()
	if len(ended) == 0 {
		return nil
	}
	ctx := context.Background()
	keys := make([]string, len(ended))
	for i, job := range ended {
		keys[i] = jobPrefix + job.ID
		if job.Kind != "audience" {
			continue
		}
		if err := j.settle(ctx, job); err != nil {
			return err
		}
	}
	if err := j.svc.opt.KV.Delete(ctx, keys...); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range ended {
		delete(j.all, job.ID)
	}
	return nil
}

// settle writes an ended job's state to its audience, where nobody has: a job
// that is cancelled while it waits does not.
func (j *jobs) settle(ctx context.Context, job *storedJob) error {
	j.svc.creating.Lock()
	defer j.svc.creating.Unlock()
	info, err := j.svc.load(job.Collection, job.Target)
	if errors.Is(err, index.ErrNotFound) {
		return nil
	}
	if err != nil || info.State.Final() {
		return err
	}
	for _, other := range j.list() {
		if other.Kind == job.Kind && other.Collection == job.Collection && other.Target == job.Target && other.Created.After(job.Created) {
			return nil // the audience was made anew since
		}
	}
	info.State, info.Job, info.Problem = job.State, job.ID, job.Problem
	return j.svc.putInfo(ctx, job.Collection, info)
}

// run executes a job and turns a panic into its failure, so that one broken
// input does not take the server with it.
func (j *jobs) run(ctx context.Context, job *storedJob) (err error) {
	defer func() {
		if p := recover(); p != nil {
			j.svc.log.Error("job: internal fault", "job", job.ID, "fault", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal fault, the log says more: %v", p)
		}
	}()
	tag, audience := j.requests(job)
	switch {
	case job.Import != nil:
		return j.svc.runImport(ctx, job)
	case job.Reembed != nil:
		return j.svc.runReembed(ctx, job)
	case job.Relearn != nil:
		return j.svc.runRelearn(ctx, job)
	case job.Refresh != nil:
		return j.svc.runRefresh(ctx, job)
	case audience != nil, job.Combine != nil:
		return j.svc.runAudience(ctx, job)
	case job.Segments != nil:
		return j.svc.runSegments(ctx, job)
	case tag != nil:
		return j.svc.runTag(ctx, job)
	}
	return fmt.Errorf("job %s is of the unknown kind %q", job.ID, job.Kind)
}

// next waits for a queued job and makes it cancellable in the same step; nil
// when ctx ends.
func (j *jobs) next(ctx context.Context) (*storedJob, context.Context, context.CancelCauseFunc) {
	for {
		j.mu.Lock()
		if ctx.Err() == nil && len(j.queue) > 0 {
			job := j.all[j.queue[0]]
			j.queue = j.queue[1:]
			runCtx, cancel := context.WithCancelCause(ctx)
			j.cancels[job.ID] = cancel
			j.mu.Unlock()
			return job, runCtx, cancel
		}
		j.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, nil, nil
		case <-j.wake:
		}
	}
}

// update changes a job and tells its watchers. It does not write to disk.
func (j *jobs) update(job *storedJob, change func(*Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&job.Job)
	job.Updated = j.svc.opt.Clock().UTC()
	for _, ch := range j.watch[job.ID] {
		select { // a slow watcher sees the latest state, not each one
		case <-ch:
		default:
		}
		ch <- job.Job
	}
	if job.State.Final() {
		for _, ch := range j.watch[job.ID] {
			close(ch)
		}
		delete(j.watch, job.ID)
	}
}

// checkpoint writes a job to disk. The store may be the reason the job failed,
// so a failure here is logged: the state in memory stays right.
func (j *jobs) checkpoint(job *storedJob) {
	j.mu.Lock()
	copied := *job
	j.mu.Unlock()
	if err := j.save(context.Background(), &copied, nil); err != nil {
		j.svc.log.Error("a job's state could not be stored", "job", job.ID, "error", err)
	}
}

func (j *jobs) close(ctx context.Context) error {
	j.mu.Lock()
	for _, cancel := range j.cancels {
		cancel(errStopping)
	}
	j.mu.Unlock()
	j.stop()
	select {
	case <-j.done:
	case <-ctx.Done():
		return fmt.Errorf("a job did not stop in time: %w", ctx.Err())
	}
	if err := j.owners.leave(ctx); err != nil {
		j.svc.log.Warn("jobs left undone are taken over by another process later", "error", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, list := range j.watch {
		for _, ch := range list {
			close(ch)
		}
		delete(j.watch, id)
	}
	return nil
}

// cancelAll cancels the unfinished jobs of a collection and waits for them.
func (j *jobs) cancelAll(ctx context.Context, coll string) error {
	for _, job := range j.list() {
		if job.Collection != coll || job.State.Final() {
			continue
		}
		if err := j.cancelAndWait(ctx, job.ID); err != nil {
			return err
		}
	}
	return nil
}

// cancelAndWait cancels one job and returns when it has ended.
func (j *jobs) cancelAndWait(ctx context.Context, id string) error {
	updates, err := j.subscribe(ctx, id)
	if err != nil {
		return err
	}
	if _, err := j.cancel(id); err != nil {
		return err
	}
	for range updates { // drained until the final state
	}
	return ctx.Err()
}

func (j *jobs) cancel(id string) (Job, error) {
	j.mu.Lock()
	job, ok := j.all[id]
	if !ok {
		j.mu.Unlock()
		return Job{}, fmt.Errorf("job %q: %w", id, index.ErrNotFound)
	}
	if cancel, running := j.cancels[id]; running {
		cancel(errCancelled)
		defer j.mu.Unlock()
		return job.Job, nil
	}
	if j.owners != nil && job.Owner != j.owners.self && !job.State.Final() {
		j.mu.Unlock()
		return Job{}, fmt.Errorf("job %s belongs to another process on the same store: cancel it there, or wait until it has ended: %w", id, index.ErrInvalid)
	}
	at := slices.Index(j.queue, id)
	if at >= 0 {
		j.queue = slices.Delete(j.queue, at, at+1)
	}
	j.mu.Unlock()
	if at >= 0 {
		j.update(job, func(v *Job) { v.State = JobCancelled })
		j.checkpoint(job)
	}
	return j.get(id)
}

func (j *jobs) get(id string) (Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job, ok := j.all[id]
	if !ok {
		return Job{}, fmt.Errorf("job %q: %w", id, index.ErrNotFound)
	}
	return job.Job, nil
}

func (j *jobs) list() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Job, 0, len(j.all))
	for _, job := range j.all {
		out = append(out, job.Job)
	}
	slices.SortFunc(out, func(a, b Job) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func (j *jobs) subscribe(ctx context.Context, id string) (<-chan Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job, ok := j.all[id]
	if !ok {
		return nil, fmt.Errorf("job %q: %w", id, index.ErrNotFound)
	}
	ch := make(chan Job, 1)
	ch <- job.Job
	if job.State.Final() {
		close(ch)
		return ch, nil
	}
	j.watch[id] = append(j.watch[id], ch)
	context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if at := slices.Index(j.watch[id], ch); at >= 0 {
			j.watch[id] = slices.Delete(j.watch[id], at, at+1)
			close(ch)
		}
	})
	return ch, nil
}

// Job returns one job.
func (s *Service) Job(id string) (Job, error) { return s.jobs.get(id) }

// Jobs returns all jobs, newest first.
func (s *Service) Jobs() []Job { return s.jobs.list() }

// Cancel asks a job to stop. A running one stops at its next checkpoint; what
// it stored until then stays.
func (s *Service) Cancel(id string) (Job, error) { return s.jobs.cancel(id) }

// Watch returns the job's state now and each later one (the latest, if the
// reader is slow). The channel closes after a final state or when ctx ends.
func (s *Service) Watch(ctx context.Context, id string) (<-chan Job, error) {
	return s.jobs.subscribe(ctx, id)
}

// pace fills in a job's rate and remaining time.
func pace(v *Job, done, since int64, elapsed time.Duration) {
	v.Done = done
	if sec := elapsed.Seconds(); sec > 0 {
		v.Rate = float64(done-since) / sec
	}
	v.ETA = 0
	if v.Rate > 0 && v.Total > done {
		v.ETA = float64(v.Total-done) / v.Rate
	}
}
