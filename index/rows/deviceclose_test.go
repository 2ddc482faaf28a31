package rows

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// inPass begins a list on the device, which stands still until its context ends or end is
// closed, and returns where its outcome comes. With deaf, only end counts.
func inPass(t *testing.T, s *scorer, v *View, deaf bool) (begun chan struct{}, end chan struct{}, lists chan []index.Ranked) {
	begun, end, lists = make(chan struct{}), make(chan struct{}), make(chan []index.Ranked, 1)
	var once atomic.Bool
	s.during = func(ctx context.Context) {
		if once.Swap(true) {
			return
		}
		close(begun)
		if deaf {
			ctx = context.Background()
		}
		select {
		case <-end:
		case <-ctx.Done():
		}
	}
	go func() {
		got, err := v.Best(t.Context(), deviceRequest(v.n, 12))
		if err != nil {
			t.Error(err)
		}
		lists <- got
	}()
	<-begun
	return begun, end, lists
}

// within fails the test where f takes long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s waits for the pass", what)
	}
}

// TestCloseGivesUpThePass: a table that is closed, released or compacted ends the pass that
// goes on; the list is then the CPU's, and the device's memory is given back.
func TestCloseGivesUpThePass(t *testing.T) {
	for what, f := range map[string]func(with *Table){
		"close":   (*Table).Close,
		"release": (*Table).Release,
		"compaction": func(with *Table) {
			with.mu.Lock()
			defer with.mu.Unlock()
			with.compact()
		},
	} {
		s := &scorer{}
		with, without := deviceTables(t, s, 12, false)
		v := with.Snapshot()
		want, err := without.Snapshot().Best(t.Context(), deviceRequest(v.n, 12))
		if err != nil {
			t.Fatal(err)
		}
		notes := len(s.notes)
		_, _, lists := inPass(t, s, v, false)
		within(t, what, func() { f(with) })
		got := <-lists
		for i := range want {
			if !slices.Equal(got[i].Rows, want[i].Rows) || !slices.Equal(got[i].Scores, want[i].Scores) {
				t.Errorf("%s: list %d differs", what, i)
			}
		}
		with.Close()
		if s.freed != s.made || len(s.notes) != notes {
			t.Errorf("%s: %d copies of %d are freed, noted %v", what, s.freed, s.made, s.notes[notes:])
		}
		if what != "compaction" {
			if _, err := v.Best(t.Context(), deviceRequest(v.n, 12)); err != nil || len(s.notes) != notes {
				t.Errorf("%s: afterwards: %v, noted %v", what, err, s.notes[notes:])
			}
		}
	}
}

// TestCloseBlocksNobody: while a pass does not end, whatever is asked of it, readers, writers
// and a release of its table go on; Close alone waits.
func TestCloseBlocksNobody(t *testing.T) {
	s := &scorer{}
	with, _ := deviceTables(t, s, 12, false)
	_, end, lists := inPass(t, s, with.Snapshot(), true)
	within(t, "release", with.Release)
	closed := make(chan struct{})
	go func() { with.Close(); close(closed) }()
	time.Sleep(20 * time.Millisecond)
	within(t, "a writer", func() {
		spec := with.Spec()
		if err := with.Apply([]Prepared{Prepare(&spec, &index.Row{ID: "another", Vector: make([]float32, 12)})}, 0); err != nil {
			t.Error(err)
		}
		with.mu.Lock()
		defer with.mu.Unlock()
		with.compact()
	})
	within(t, "a reader", func() {
		if n := with.Count([]string{"another"}); n != 1 {
			t.Errorf("%d rows are there", n)
		}
		if v := with.Snapshot(); v.n == 0 {
			t.Error("no rows")
		}
	})
	select {
	case <-closed:
		t.Error("Close did not wait until the memory was given back")
	default:
	}
	close(end)
	<-lists
	within(t, "close", func() { <-closed })
	if s.freed != s.made {
		t.Errorf("%d copies of %d are freed", s.freed, s.made)
	}
}

// TestDeviceWaitsInTurn: lists of one collection are made in the order in which they were
// asked for.
func TestDeviceWaitsInTurn(t *testing.T) {
	s := &scorer{}
	with, _ := deviceTables(t, s, 12, false)
	v := with.Snapshot()
	order, end := make(chan int, 10), make(chan struct{})
	s.during = func(ctx context.Context) {
		i, _ := ctx.Value(caller{}).(int)
		if order <- i; i == 0 {
			<-end
		}
	}
	var wg sync.WaitGroup
	for i := range 6 {
		other := roaring.New()
		other.AddRange(0, uint64(v.n))
		other.Remove(v.live.ToArray()[i])
		wg.Go(func() {
			req := deviceRequest(v.n, 12) // of other rows each, so that they are not made together
			req.Sets, req.Size, req.Allowed = req.Sets[:1], req.Size[:1], []*roaring.Bitmap{other}
			_, err := v.Best(context.WithValue(t.Context(), caller{}, i), req)
			if err != nil {
				t.Error(err)
			}
		})
		time.Sleep(10 * time.Millisecond) // it waits now
	}
	close(end)
	wg.Wait()
	for i := range 6 {
		select {
		case got := <-order:
			if got != i {
				t.Fatalf("list %d was made as number %d", got, i)
			}
		default:
			t.Fatalf("only %d lists were made on the device", i)
		}
	}
}

type caller struct{}
