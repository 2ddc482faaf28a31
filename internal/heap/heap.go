// Package heap paces the garbage collector of a process whose memory is mostly
// data that stays.
//
// The runtime lets garbage grow to a share of what lives, by default all of it
// again. Beside a population of vectors that is hundreds of megabytes that nobody
// asked for, and a share small enough there would collect a small heap all the
// time. So the share follows the heap: garbage may take a quarter of what lives,
// and never less than 32 MB. Vectors hold no pointers and cost a collection
// nothing, so collecting more often is cheap exactly where it is needed.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	leastGarbage = 32 << 20 // bytes
	garbageShare = 4        // of what lives: one in so many bytes
)

var once sync.Once

// Pace sets the collector's percentage after every collection from now on. The
// environment's GOGC, where it is set, is left alone. Safe to call again.
func Pace() {
	if os.Getenv("GOGC") != "" {
		return
	}
	once.Do(func() {
		follow()
		watch(&cycle{})
	})
}

// A cycle is garbage as soon as it is watched: its finalizer runs after the next
// collection, and watches another.
type cycle struct {
	_ *int // a pointer, so that it does not share a block with other tiny objects
}

func watch(c *cycle) {
	runtime.SetFinalizer(c, func(*cycle) {
		follow()
		watch(&cycle{})
	})
}

func follow() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() == metrics.KindUint64 {
		debug.SetGCPercent(percent(sample[0].Value.Uint64()))
	}
}

// percent is how much garbage may grow beside so many live bytes.
func percent(live uint64) int {
	live = max(live, 4<<20) // the least the runtime reckons with
	return int(max(live/garbageShare, leastGarbage) * 100 / live)
}
