package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 800}, {1 << 20, 800}, {32 << 20, 100}, {64 << 20, 50}, {128 << 20, 25}, {1 << 40, 25}} {
		if got := percent(c.live); got != c.want {
			t.Errorf("%d live bytes: %d %%, want %d", c.live, got, c.want)
		}
	}
}

// TestPaceFollows: after collections the runtime's goal is a quarter above a
// large heap, and further above a small one.
func TestPaceFollows(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "")
	Pace()
	share := func() float64 {
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		return float64(s[0].Value.Uint64()) / float64(s[1].Value.Uint64())
	}
	wait := func(want string, good func(float64) bool) {
		t.Helper()
		for range 200 {
			runtime.GC()
			if good(share()) {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Errorf("the goal is %.2f times what lives, want %s", share(), want)
	}
	big := make([]byte, 200<<20)
	wait("about 1.25", func(x float64) bool { return x > 1.2 && x < 1.35 })
	runtime.KeepAlive(big) // and no longer
	wait("above 2", func(x float64) bool { return x > 2 })
}
