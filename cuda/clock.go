package cuda

import (
	"sync"
	"time"
)

const (
	// timedEvery is how many launches there are to one that is timed, by chance, so that
	// kernels that follow each other in a rhythm are all seen. An event costs a microsecond
	// or two, a launch that it is between as much again.
	timedEvery = 16
	// timedMost is how many launches of a call of [Device.Do] are timed at most.
	timedMost = 16
	// namesMost bounds the kernels that are told apart: the others are one.
	namesMost = 128
	otherName = "other"
)

// clock counts the launches of each kernel, and times some by events of the device.
type clock struct {
	// Of the device's thread: the launches of this call that are timed, and the state of chance.
	timed  []timedLaunch
	chance uint64

	mu      sync.Mutex
	kernels map[string]*kernel
}

// kernel is what is known of one.
type kernel struct {
	launches int64
	told     int64 // of them, for which nanos stands
	nanos    float64
}

// timedLaunch is one between two events, which stands for some launches.
type timedLaunch struct {
	k        *kernel
	launches int64
}

func (c *clock) begin() { c.timed = c.timed[:0] }

// random is the next number of a sequence of xorshift's.
func (c *clock) random() uint64 {
	if c.chance == 0 {
		c.chance = 0x9e3779b97f4a7c15
	}
	c.chance ^= c.chance << 13
	c.chance ^= c.chance >> 7
	c.chance ^= c.chance << 17
	return c.chance
}

// of is the kernel of that name. It is called under mu.
func (c *clock) of(name string) *kernel {
	k := c.kernels[name]
	if k == nil && len(c.kernels) >= namesMost {
		name = otherName
		k = c.kernels[name]
	}
	if k == nil {
		k = &kernel{}
		c.kernels[name] = k
	}
	return k
}

// before says whether the launch that follows is timed, and marks its beginning.
func (c *clock) before(b backend, name string) (bool, error) {
	if len(c.timed) == timedMost {
		return false, nil
	}
	c.mu.Lock()
	first := c.kernels[name] == nil || c.kernels[name].launches == 0
	c.mu.Unlock()
	if !first && c.random()%timedEvery != 0 {
		return false, nil
	}
	return true, b.mark(eventTimed + 2*len(c.timed))
}

// after counts a launch, and marks the end of one that is timed.
func (c *clock) after(b backend, name string, timed bool) error {
	c.mu.Lock()
	k := c.of(name)
	k.launches++
	waiting := k.launches - k.told
	if timed { // the one that is timed stands for those before it
		k.told = k.launches
	}
	c.mu.Unlock()
	if !timed {
		return nil
	}
	c.timed = append(c.timed, timedLaunch{k, waiting})
	return b.mark(eventTimed + 2*len(c.timed) - 1)
}

// measured counts a launch of which is known how long it took.
func (c *clock) measured(name string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(name)
	k.launches++
	k.told++
	k.nanos += float64(took)
}

// end reads the events of a call whose work is done.
func (c *clock) end(b backend) error {
	for i, t := range c.timed {
		s, err := b.between(eventTimed+2*i, eventTimed+2*i+1)
		if err != nil {
			return err
		}
		c.mu.Lock()
		t.k.nanos += s * 1e9 * float64(t.launches)
		c.mu.Unlock()
	}
	return nil
}

// each is what is known of all kernels.
func (c *clock) each() map[string]Traced {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]Traced, len(c.kernels))
	for name, k := range c.kernels {
		out[name] = Traced{k.launches, time.Duration(k.nanos)}
	}
	return out
}
