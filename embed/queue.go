package embed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrBusy is returned by [Queue.Encode] when too many tokens wait already. The
// caller should answer 429 or 503 and try later.
var ErrBusy = errors.New("the encoder is busy")

// ErrClosed is wrapped by the errors of calls after [Queue.Close] or
// [Model.Close].
var ErrClosed = errors.New("the encoder is closed")

// QueueOptions size a queue. Zero fields take the defaults.
type QueueOptions struct {
	// MaxTokens is the token budget of one batch; default 8192, about a second
	// of two cores with a small model, so a short request never waits longer
	// than about two of these. A text with more tokens runs alone.
	MaxTokens int
	// MaxWaiting is how many tokens may wait (those in the running batch not
	// counted) before Encode refuses with ErrBusy; default 32 batches. One
	// request of any size is let in when nothing waits.
	MaxWaiting int
}

// Queue joins the texts of concurrent callers into batches, so that many small
// requests use all cores. Requests are served in the order of arrival; one that
// exceeds a batch goes to the back after each batch, so it delays small ones by
// a batch at most. A caller that leaves costs nothing more: its texts are
// dropped, and a batch whose callers all left is cancelled.
//
// A Queue is safe for concurrent use and must be closed.
type Queue struct {
	model *Model
	opt   QueueOptions
	wake  chan struct{} // holds one token when jobs may wait
	ended chan struct{}
	stop  context.CancelFunc

	mu      sync.Mutex
	jobs    []*job
	waiting int // tokens of jobs, not yet in a batch
	closed  bool
}

// job is one caller's request. The queue's mutex guards next; the rest of the
// result belongs to the batch loop until done is closed.
type job struct {
	ctx   context.Context
	ids   [][]int32
	next  int // texts before it have been taken into a batch
	left  int // tokens of ids[next:]
	ready int // texts whose vectors are in res
	res   *Result
	err   error
	done  chan struct{}
}

// share is the part of a batch that belongs to one job: ids[from:to].
type share struct {
	job      *job
	from, to int
}

// NewQueue starts a queue in front of m.
func NewQueue(m *Model, opt QueueOptions) *Queue {
	if opt.MaxTokens <= 0 {
		opt.MaxTokens = 8192
	}
	if opt.MaxWaiting <= 0 {
		opt.MaxWaiting = 32 * opt.MaxTokens
	}
	ctx, stop := context.WithCancel(context.Background())
	q := &Queue{model: m, opt: opt, wake: make(chan struct{}, 1), ended: make(chan struct{}), stop: stop}
	go q.loop(ctx)
	return q
}

// Model returns the model behind q.
func (q *Queue) Model() *Model { return q.model }

// Info describes the queue's model.
func (q *Queue) Info() Info { return q.Model().Info() }

// Waiting returns the number of tokens that wait for a batch.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Close refuses new requests, ends those that wait or run with [ErrClosed] and
// returns when the queue's goroutine has ended. It may be called twice.
func (q *Queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.stop()
	<-q.ended
	return nil
}

// Encode is [Model.Encode] in a batch shared with other callers. The texts are
// tokenised on the calling goroutine. Progress is called once, at the end.
func (q *Queue) Encode(ctx context.Context, texts []string, opt EncodeOptions) (*Result, error) {
	if err := q.admit(0); err != nil { // before the work of tokenising
		return nil, err
	}
	ids, truncated, err := q.model.tokenise(ctx, texts, opt.Prompt)
	if err != nil {
		return nil, err
	}
	return q.run(ctx, ids, truncated, opt.Progress)
}

// EncodeTokens is [Model.EncodeTokens] in a batch shared with other callers.
func (q *Queue) EncodeTokens(ctx context.Context, ids [][]int32, opt EncodeOptions) (*Result, error) {
	cut, truncated, err := q.model.checkIDs(ids)
	if err != nil {
		return nil, err
	}
	return q.run(ctx, cut, truncated, opt.Progress)
}

func (q *Queue) admit(tokens int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.admitLocked(tokens)
}

func (q *Queue) admitLocked(tokens int) error {
	if q.closed {
		return ErrClosed
	}
	if q.waiting > 0 && q.waiting+tokens > q.opt.MaxWaiting {
		return fmt.Errorf("%w: %d tokens wait, this request has %d, the limit is %d; try again later", ErrBusy, q.waiting, tokens, q.opt.MaxWaiting)
	}
	return nil
}

func (q *Queue) run(ctx context.Context, ids [][]int32, truncated []bool, progress func(done, total int)) (*Result, error) {
	j := &job{ctx: ctx, ids: ids, done: make(chan struct{})}
	j.res = &Result{
		Vectors: make([]float32, len(ids)*q.model.info.Dim), Tokens: make([]int, len(ids)), Truncated: truncated,
	}
	for i, text := range ids {
		j.res.Tokens[i] = len(text)
		j.left += len(text)
	}
	if len(ids) == 0 {
		return j.res, ctx.Err()
	}
	q.mu.Lock()
	if err := q.admitLocked(j.left); err != nil {
		q.mu.Unlock()
		return nil, err
	}
	q.jobs = append(q.jobs, j)
	q.waiting += j.left
	q.mu.Unlock()
	q.signal()
	return j.wait(ctx, q, progress)
}

// wait returns the job's result, or ctx's error as soon as the caller leaves.
func (j *job) wait(ctx context.Context, q *Queue, progress func(done, total int)) (*Result, error) {
	select {
	case <-j.done:
	case <-ctx.Done():
		q.leave(j)
		return nil, ctx.Err()
	}
	if j.err != nil {
		return nil, j.err
	}
	if progress != nil {
		progress(len(j.ids), len(j.ids))
	}
	return j.res, nil
}

// leave takes j out of the queue at once, so that its tokens stop counting even
// while a long batch runs. A share of j in that batch is left to the batch.
func (q *Queue) leave(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked(j)
}

func (q *Queue) dropLocked(j *job) {
	if i := slices.Index(q.jobs, j); i >= 0 {
		q.jobs = slices.Delete(q.jobs, i, i+1)
		q.waiting -= j.left
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) loop(ctx context.Context) {
	defer close(q.ended)
	for {
		shares := q.take()
		if len(shares) == 0 {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
			}
		} else {
			q.runBatch(ctx, shares)
		}
		if ctx.Err() != nil {
			q.endAll()
			return
		}
	}
}

// take composes the next batch: whole texts from the front jobs within the
// token budget, at least one. Jobs whose callers left are dropped.
func (q *Queue) take() []share {
	q.mu.Lock()
	defer q.mu.Unlock()
	var shares []share
	var keep, rest []*job
	budget := q.opt.MaxTokens
	for _, j := range q.jobs {
		if j.ctx.Err() != nil {
			q.waiting -= j.left
			j.err = j.ctx.Err()
			close(j.done)
			continue
		}
		from := j.next
		for j.next < len(j.ids) && (len(j.ids[j.next]) <= budget || (len(shares) == 0 && j.next == from)) {
			n := len(j.ids[j.next])
			budget -= n
			j.left -= n
			q.waiting -= n
			j.next++
		}
		switch {
		case j.next == from:
			keep = append(keep, j)
		case j.next < len(j.ids):
			rest = append(rest, j)
		}
		if j.next > from {
			shares = append(shares, share{job: j, from: from, to: j.next})
		}
	}
	q.jobs = append(keep, rest...)
	return shares
}

// runBatch encodes the shares and hands the vectors to their jobs.
func (q *Queue) runBatch(ctx context.Context, shares []share) {
	batch, cancel := context.WithCancel(ctx)
	defer cancel()
	var ids [][]int32
	left := make(chan struct{}, len(shares))
	for _, s := range shares {
		ids = append(ids, s.job.ids[s.from:s.to]...)
		defer context.AfterFunc(s.job.ctx, func() { left <- struct{}{} })()
	}
	finished := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { // cancels the batch once every caller has left
		for range shares {
			select {
			case <-left:
			case <-finished:
				return
			}
		}
		cancel()
	})
	res, err := q.model.encodeIDs(batch, ids, nil)
	close(finished)
	watcher.Wait()
	at, dim := 0, q.model.info.Dim
	for _, s := range shares {
		j, n := s.job, s.to-s.from
		switch {
		case j.err != nil: // an earlier share failed; the job is gone
		case err != nil:
			q.fail(j, err)
		default:
			copy(j.res.Vectors[s.from*dim:], res.Vectors[at*dim:(at+n)*dim])
			if j.ready += n; j.ready == len(j.ids) {
				close(j.done)
			}
		}
		at += n
	}
}

// fail ends j with err and takes what is left of it out of the queue.
func (q *Queue) fail(j *job, err error) {
	if j.ctx.Err() != nil {
		err = j.ctx.Err()
	}
	q.mu.Lock()
	if q.closed {
		err = ErrClosed
	}
	q.dropLocked(j)
	q.mu.Unlock()
	j.err = err
	close(j.done)
}

func (q *Queue) endAll() {
	q.mu.Lock()
	jobs := q.jobs
	q.jobs, q.waiting = nil, 0
	q.mu.Unlock()
	for _, j := range jobs {
		j.err = ErrClosed
		close(j.done)
	}
}
