package rows

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/index"
)

// listed is a request, and how it ended.
type listed struct {
	req  index.BestRequest
	ctx  context.Context
	got  []index.Ranked
	err  error
	want []index.Ranked
}

// requests are for plain lists of random heads, most of them among all rows and some among half.
func requests(t *testing.T, without *View, count int) []*listed {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 12))
	some := roaring.New()
	for r := uint32(0); r < without.n; r += 2 {
		some.Add(r)
	}
	var all []*listed
	for i := range count {
		l := &listed{ctx: t.Context()}
		for range 1 + i%3 {
			v := make([]float32, 12)
			for j := range v {
				v[j] = float32(rng.IntN(5)) - 2
			}
			v[0]++
			l.req.Sets = append(l.req.Sets, index.HeadSet{Heads: []index.Head{{Vector: v}}})
			l.req.Size = append(l.req.Size, 1+rng.IntN(60))
		}
		if i%4 == 3 {
			l.req.Sets, l.req.Size, l.req.Allowed = l.req.Sets[:1], l.req.Size[:1], []*roaring.Bitmap{some}
		}
		var err error
		if l.want, err = without.Best(t.Context(), l.req); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// ask has all requests wait for a first list to end, calls then, and waits for them.
func ask(t *testing.T, s *scorer, v *View, all []*listed, then func()) (passes int) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	s.during = func(context.Context) {
		mu.Lock()
		passes++
		first := passes == 1
		mu.Unlock()
		if first {
			close(begun)
			<-end
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		req := all[0].req
		if _, err := v.Best(t.Context(), req); err != nil {
			t.Error(err)
		}
	})
	<-begun
	for i, l := range all {
		wg.Go(func() { l.got, l.err = v.Best(l.ctx, l.req) })
		for { // it waits
			v.core.device.mu.Lock()
			waiting := len(v.core.device.offers)
			v.core.device.mu.Unlock()
			if waiting == i+1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	if then != nil {
		then()
	}
	close(end)
	wg.Wait()
	if n := len(v.core.device.offers); n != 0 {
		t.Errorf("%d requests are left", n)
	}
	return passes - 1
}

func (l *listed) check(t *testing.T, i int) {
	t.Helper()
	if l.err != nil {
		t.Errorf("request %d: %v", i, l.err)
		return
	}
	for s := range l.want {
		if !slices.Equal(l.got[s].Rows, l.want[s].Rows) || !slices.Equal(l.got[s].Scores, l.want[s].Scores) {
			t.Errorf("request %d, list %d: %v, want %v", i, s, l.got[s].Rows, l.want[s].Rows)
		}
	}
}

// TestDeviceJoint: lists that are asked for while another is made are made in one pass for each
// set of rows, and are the CPU's.
func TestDeviceJoint(t *testing.T) {
	for _, count := range []int{1, 5, 24} {
		s := &scorer{}
		with, without := deviceTables(t, s, 12, false)
		all := requests(t, without.Snapshot(), count)
		s.notes = nil
		passes := ask(t, s, with.Snapshot(), all, nil)
		for i, l := range all {
			l.check(t, i)
		}
		if most := 2; passes > most {
			t.Errorf("%d requests took %d passes, want %d", count, passes, most)
		}
		if len(s.notes) != count+1 || slices.ContainsFunc(s.notes, func(err error) bool { return err != nil }) {
			t.Errorf("%d requests were noted as %v", count, s.notes)
		}
		with.Close()
	}
}

// TestDeviceJointGivenUp: who is given up does not take the others along, be it the one whose
// turn it was or another.
func TestDeviceJointGivenUp(t *testing.T) {
	for gone := range 3 {
		s := &scorer{}
		with, without := deviceTables(t, s, 12, false)
		all := requests(t, without.Snapshot(), 3)
		ctx, cancel := context.WithCancel(t.Context())
		all[gone].ctx = ctx
		var once sync.Once
		passed := make(chan struct{})
		v := with.Snapshot()
		go func() { // while the joint pass goes on
			<-passed
			cancel()
		}()
		begin := func() {
			was := s.during
			n := 0
			s.during = func(ctx context.Context) {
				if was(ctx); n == 0 {
					n++
					once.Do(func() { close(passed) })
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			}
		}
		ask(t, s, v, all, begin)
		for i, l := range all {
			if i != gone {
				l.check(t, i)
			} else if l.err != nil && !errors.Is(l.err, context.Canceled) {
				t.Errorf("given up: %v", l.err)
			}
		}
		cancel()
		with.Close()
	}
}

// TestDeviceJointFails: where the device fails, the CPU makes all of them.
func TestDeviceJointFails(t *testing.T) {
	s := &scorer{}
	with, without := deviceTables(t, s, 12, false)
	all := requests(t, without.Snapshot(), 6)
	s.notes = nil
	ask(t, s, with.Snapshot(), all, func() { s.fail = cuda.ErrLaunch })
	for i, l := range all {
		l.check(t, i)
	}
	if failed := len(slices.DeleteFunc(s.notes, func(err error) bool { return err == nil })); failed != 1 {
		t.Errorf("noted %v", s.notes)
	}
	with.Close()
}
