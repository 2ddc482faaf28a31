package client

import (
	"math/rand/v2"
	"sync"
	"time"
)

// State is what the breaker does with calls.
type State int

// Closed lets all calls through, Open none, HalfOpen one at a time.
const (
	Closed State = iota
	HalfOpen
	Open
)

// String is the word for the state.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	}
	return "open"
}

// breaker counts failures in a row. Only failures of the transport and of deadlines
// count: a server that answers, whatever it says, is there.
type breaker struct {
	set     Breaker
	changed func(State)
	now     func() time.Time

	mu       sync.Mutex
	state    State
	failures int
	until    time.Time     // when an open breaker lets the next call try
	pause    time.Duration // of the next opening
}

// allow says whether a call may go, and if not, when the next may. A call that may
// go ends with done.
func (b *breaker) allow() (wait time.Duration, ok bool) {
	if b.set.Failures < 0 {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case Closed:
		return 0, true
	case HalfOpen: // one call is finding out
		return b.set.Cooldown, false
	}
	if left := b.until.Sub(b.now()); left > 0 {
		return left, false
	}
	b.become(HalfOpen)
	return 0, true
}

// verdict of a call on whether the server is there.
type verdict int

const (
	there   verdict = iota // it answered
	away                   // it did not
	unknown                // the caller gave up first
)

func (b *breaker) done(v verdict) {
	if b.set.Failures < 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch v {
	case there:
		b.failures, b.pause = 0, 0
		b.become(Closed)
	case away:
		b.failures++
		if b.state == HalfOpen || b.failures >= b.set.Failures {
			b.open()
		}
	case unknown:
		if b.state == HalfOpen { // nothing was learned: the next call may try at once
			b.until = b.now()
			b.become(Open)
		}
	}
}

func (b *breaker) open() {
	b.pause = min(max(2*b.pause, b.set.Cooldown), b.set.Max)
	// Jitter keeps many processes from coming back in the same instant.
	b.until = b.now().Add(b.pause/2 + rand.N(b.pause/2+1))
	b.become(Open)
}

func (b *breaker) become(s State) {
	if b.state != s {
		b.state = s
		b.changed(s)
	}
}

func (b *breaker) current() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// budget bounds the retries of all calls of a client together.
type budget struct {
	mu   sync.Mutex
	left float64
	most float64
}

func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+0.1, b.most)
}

// pause before try n (from 1), full jitter: anywhere up to the doubled base.
func (r Retry) pause(n int) time.Duration {
	top := r.Base << min(n-1, 20)
	if top <= 0 || top > r.Max {
		top = r.Max
	}
	return top/4 + rand.N(top*3/4+1)
}
