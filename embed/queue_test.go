package embed

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestQueueGivesTheModelsVectors(t *testing.T) {
	m := openTiny(t, "tiny", Options{Threads: 2})
	q := NewQueue(m, QueueOptions{MaxTokens: 100, MaxWaiting: 1 << 20})
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			ids := randomTexts(rand.New(rand.NewPCG(uint64(c), 5)), 1+c*3, 100, 48)
			want, err := m.EncodeTokens(t.Context(), ids, EncodeOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			got, err := q.EncodeTokens(t.Context(), ids, EncodeOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			if !slices.Equal(got.Vectors, want.Vectors) || !slices.Equal(got.Tokens, want.Tokens) || !slices.Equal(got.Truncated, want.Truncated) {
				t.Errorf("caller %d: the queue's result differs from the model's", c)
			}
		})
	}
	wg.Wait()
	texts := []string{"the customer", "", "我的订单"}
	want, err := m.Encode(t.Context(), texts, EncodeOptions{Prompt: "please "})
	if err != nil {
		t.Fatal(err)
	}
	got, err := q.Encode(t.Context(), texts, EncodeOptions{Prompt: "please "})
	if err != nil || !slices.Equal(got.Vectors, want.Vectors) {
		t.Errorf("texts with a prompt: %v", err)
	}
	if none, err := q.Encode(t.Context(), nil, EncodeOptions{}); err != nil || len(none.Tokens) != 0 {
		t.Errorf("no texts: %v, %v", none, err)
	}
	if n := q.Waiting(); n != 0 {
		t.Errorf("%d tokens wait after all", n)
	}
}

// stalled returns a queue whose loop has ended, so that what is put in stays.
func stalled(t *testing.T, opt QueueOptions) *Queue {
	q := NewQueue(openTiny(t, "tiny", Options{}), opt)
	q.stop()
	<-q.ended
	return q
}

func put(ctx context.Context, q *Queue, texts, tokens int) <-chan error {
	ids := make([][]int32, texts)
	for i := range ids {
		ids[i] = make([]int32, tokens)
	}
	before := q.Waiting()
	out := make(chan error, 1)
	go func() {
		_, err := q.EncodeTokens(ctx, ids, EncodeOptions{})
		out <- err
	}()
	for q.Waiting() == before && len(out) == 0 {
		time.Sleep(time.Millisecond)
	}
	return out
}

func TestQueueRefusesAndForgets(t *testing.T) {
	q := stalled(t, QueueOptions{MaxTokens: 10, MaxWaiting: 25})
	ctx, leave := context.WithCancel(t.Context())
	first := put(ctx, q, 10, 4) // 40 tokens: more than the limit, but nothing waits
	if n := q.Waiting(); n != 40 {
		t.Fatalf("%d tokens wait", n)
	}
	if err := <-put(t.Context(), q, 1, 2); !errors.Is(err, ErrBusy) {
		t.Errorf("a second request: %v", err)
	}
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	if n := q.Waiting(); n != 0 {
		t.Errorf("%d tokens wait after it left", n)
	}
	if shares := q.take(); len(shares) != 0 {
		t.Errorf("a batch of %d shares for nobody", len(shares))
	}
}

// Batches keep the budget, serve small requests beside a large one, send the
// large one to the back, and skip callers who left.
func TestQueueBatches(t *testing.T) {
	q := stalled(t, QueueOptions{MaxTokens: 10, MaxWaiting: 1000})
	gone, leave := context.WithCancel(t.Context())
	ctx, end := context.WithCancel(t.Context())
	outs := []<-chan error{put(ctx, q, 5, 4), put(gone, q, 1, 3), put(ctx, q, 1, 3), put(ctx, q, 1, 20)}
	leave()
	<-outs[1]
	var got [][]int
	for range 10 {
		shares := q.take()
		if len(shares) == 0 {
			break
		}
		for _, s := range shares {
			got = append(got, []int{len(s.job.ids[0]), s.from, s.to})
		}
		got = append(got, nil)
	}
	want := [][]int{{4, 0, 2}, nil, {3, 0, 1}, {4, 2, 3}, nil, {20, 0, 1}, nil, {4, 3, 5}, nil}
	if !slices.EqualFunc(got, want, slices.Equal[[]int]) {
		t.Errorf("batches %v, want %v", got, want)
	}
	if q.Waiting() != 0 {
		t.Errorf("%d tokens wait", q.Waiting())
	}
	end()
	for _, i := range []int{0, 2, 3} {
		<-outs[i]
	}
}

func TestQueueLeavers(t *testing.T) {
	q := NewQueue(openTiny(t, "tiny", Options{Threads: 1}), QueueOptions{MaxTokens: 64})
	ids := randomTexts(rand.New(rand.NewPCG(9, 9)), 3000, 100, 48)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	if _, err := q.EncodeTokens(ctx, ids, EncodeOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("left in the middle: %v", err)
	}
	if _, err := q.EncodeTokens(t.Context(), ids[:3], EncodeOptions{}); err != nil {
		t.Errorf("the next caller: %v", err)
	}
	if _, err := q.EncodeTokens(t.Context(), [][]int32{{999}}, EncodeOptions{}); !errors.Is(err, ErrInput) {
		t.Errorf("a bad id: %v", err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := q.EncodeTokens(context.Background(), ids, EncodeOptions{})
		waits <- err
	}()
	for q.Waiting() == 0 {
		time.Sleep(100 * time.Microsecond)
	}
	if err := errors.Join(q.Close(), q.Close()); err != nil {
		t.Error(err)
	}
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("one that waited at Close: %v", err)
	}
	if _, err := q.Encode(t.Context(), []string{"late"}, EncodeOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
