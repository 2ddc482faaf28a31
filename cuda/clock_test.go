package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
)

// timekeeper is a backend whose kernels take as long as they say and do nothing.
type timekeeper struct {
	memoryOnly
	took  map[string]time.Duration
	now   time.Duration
	at    [events]time.Duration
	marks int
	fail  error // of the next mark of a launch
}

func (b *timekeeper) launch(kernel string, _ Launch, _ []uint64) error {
	b.now += b.took[kernel]
	return nil
}

func (b *timekeeper) mark(i int) error {
	if i >= eventTimed && b.fail != nil {
		return b.fail
	}
	b.marks++
	b.at[i] = b.now
	return nil
}

func (b *timekeeper) between(i, j int) (float64, error) { return (b.at[j] - b.at[i]).Seconds(), nil }

func (b *timekeeper) wait() error { return nil }

func withKernels(t *testing.T, took map[string]time.Duration) (*Device, *timekeeper) {
	t.Helper()
	b := &timekeeper{took: took}
	d, err := start(func() (backend, Info, error) { return b, Info{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, b
}

// TestEachKernel: launches are counted, and the time of each kernel is about what it was, also
// where kernels follow each other in a rhythm; no count ever goes back, and few events are used.
func TestEachKernel(t *testing.T) {
	took := map[string]time.Duration{"long": 5 * time.Millisecond, "short": 10 * time.Microsecond, "odd": time.Millisecond}
	d, b := withKernels(t, took)
	var last map[string]Traced
	launches, calls := 0, 0
	for range 400 {
		err := d.Do(t.Context(), func(q *Queue) error {
			for i := range 24 { // a batch of the encoder has as many products
				name := "short"
				switch {
				case i%4 == 0:
					name = "long"
				case i == 13:
					name = "odd"
				}
				launches++
				if err := q.Launch(name, Launch{}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		calls++
		each := d.Metrics().Each
		for name, was := range last {
			if now := each[name]; now.Launches < was.Launches || now.Time < was.Time {
				t.Fatalf("%s went from %+v to %+v", name, was, now)
			}
		}
		last = each
	}
	for name, count := range map[string]int64{"long": 400 * 6, "odd": 400, "short": 400 * 17} {
		want := float64(count) * float64(took[name])
		if got := last[name]; got.Launches != count || !(math.Abs(float64(got.Time)-want) <= 0.1*want) {
			t.Errorf("%s: %+v, want %d launches of %v", name, got, count, took[name])
		}
	}
	if most := 2*calls + launches/timedEvery*2*3/2; b.marks > most {
		t.Errorf("%d events for %d launches, want %d at most", b.marks, launches, most)
	}
	if all := d.Metrics().Kernels; all != b.now {
		t.Errorf("in all %v, want %v", all, b.now)
	}
}

// TestManyNames: beyond some, kernels are not told apart.
func TestManyNames(t *testing.T) {
	d, b := withKernels(t, nil)
	for i := range 3 * namesMost {
		if err := d.Do(t.Context(), func(q *Queue) error { return q.Launch(fmt.Sprint("kernel ", i), Launch{}) }); err != nil {
			t.Fatal(err)
		}
	}
	each := d.Metrics().Each
	if len(each) != namesMost+1 || each[otherName].Launches != 2*namesMost {
		t.Errorf("%d names, %+v for others", len(each), each[otherName])
	}
	b.fail = errors.New("no event")
	if err := d.Do(t.Context(), func(q *Queue) error { return q.Launch("kernel 0", Launch{}) }); err != nil && !errors.Is(err, b.fail) {
		t.Error(err)
	}
}
