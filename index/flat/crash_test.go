package flat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/kindred-search/kindred/index"
)

const crashBatch = 50

// TestMain doubles as the child of TestKill: it upserts batches for ever and
// prints the number of each that was acknowledged.
func TestMain(m *testing.M) {
	dir := os.Getenv("KINDRED_CRASH_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	s, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	e, err := s.Open(ctx, "k")
	if errors.Is(err, index.ErrNotFound) {
		e, err = s.Create(ctx, index.Spec{Name: "k", Dim: 8})
	}
	for n := 0; err == nil; n++ {
		err = e.Upsert(ctx, crashRows(os.Getenv("KINDRED_CRASH_ROUND"), n))
		if err == nil {
			fmt.Println(n)
		}
	}
	panic(err)
}

func crashRows(round string, n int) []index.Row {
	var rows []index.Row
	for i := range crashBatch {
		rows = append(rows, index.Row{ID: fmt.Sprintf("%s-%d-%d", round, n, i), Vector: []float32{1, 2, 3, 4, 5, 6, 7, float32(i)}, Record: []byte("r")})
	}
	return rows
}

// TestKill kills a process in mid-import: what it acknowledged is there, and no
// part of a batch. What the system still had to write out survives a kill, so
// whether writes are synced is what TestPowerLoss shows.
func TestKill(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	acked := 0
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "KINDRED_CRASH_DIR="+dir, fmt.Sprintf("KINDRED_CRASH_ROUND=%d", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		timer := time.AfterFunc(time.Duration(300+rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if _, err := fmt.Sscan(sc.Text(), &last); err != nil {
				t.Fatal(err)
			}
		}
		timer.Stop()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("child: %v", err)
		}
		s := open(t, dir)
		e, err := s.Open(ctx, "k")
		if errors.Is(err, index.ErrNotFound) && last < 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n <= last+1; n++ {
			there := countBatch(t, e, fmt.Sprint(round), n)
			if n <= last && there != crashBatch || there != 0 && there != crashBatch {
				t.Fatalf("round %d: batch %d (acknowledged up to %d): %d of %d rows", round, n, last, there, crashBatch)
			}
		}
		acked += last + 1
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked == 0 {
		t.Fatal("no batch was ever acknowledged")
	}
}

func TestKV(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir)
	if err := s.KV().Put(ctx, map[string][]byte{"a/1": []byte("x"), "a/2": nil, "b": []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	kv := s.KV()
	if v, err := kv.Get("a/1"); err != nil || string(v) != "x" {
		t.Errorf("get: %q, %v", v, err)
	}
	if _, err := kv.Get("c"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	if got, err := kv.List("a/", 0, "a/1"); err != nil || len(got) != 1 || got[0].Key != "a/2" {
		t.Errorf("list: %v, %v", got, err)
	}
	if err := kv.DeletePrefix(ctx, "a/"); err != nil {
		t.Error(err)
	}
	if got, err := kv.List("", 0, ""); err != nil || len(got) != 1 {
		t.Errorf("list after delete: %v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss takes the disk as it is at some of its writes and syncs, with
// none, some or most of what was not synced: every batch that had been
// acknowledged is there, and every batch is whole or absent.
func TestPowerLoss(t *testing.T) {
	const seed, batches, losses = 77, 80, 24
	type loss struct {
		disk  vfs.FS
		acked int
	}
	ctx := context.Background()
	disk := vfs.NewCrashableMem()
	var (
		acked atomic.Int64
		mu    sync.Mutex // of rng and lost
		rng   = rand.New(rand.NewPCG(seed, 1))
		lost  []loss
	)
	acked.Store(-1) // the collection is not there yet
	s, err := Open("data", Options{fs: errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		promised := int(acked.Load())
		mu.Lock()
		defer mu.Unlock()
		if promised >= 0 && len(lost) < losses && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && rng.IntN(5) == 0 {
			lost = append(lost, loss{disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 90}[len(lost)%3], RNG: rng}), promised})
		}
		return nil
	}))})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Create(ctx, index.Spec{Name: "k", Dim: 8})
	if err != nil {
		t.Fatal(err)
	}
	for n := range batches {
		acked.Store(int64(n))
		if err := e.Upsert(ctx, crashRows("p", n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, l := range lost {
		checkBatches(t, fmt.Sprintf("seed %d loss %d", seed, i), l.disk, l.acked, batches)
	}
	if len(lost) < losses {
		t.Fatalf("only %d losses in %d batches", len(lost), batches)
	}
}

// checkBatches opens a disk and looks at the batches below upto; those below
// promised were acknowledged.
func checkBatches(t *testing.T, what string, disk vfs.FS, promised, upto int) {
	t.Helper()
	ctx := context.Background()
	s, err := Open("data", Options{fs: disk})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	e, err := s.Open(ctx, "k")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	there := 0
	for n := range upto {
		rows := countBatch(t, e, "p", n)
		if n < promised && rows != crashBatch || rows != 0 && rows != crashBatch {
			t.Fatalf("%s: batch %d has %d of %d rows; %d batches were acknowledged", what, n, rows, crashBatch, promised)
		}
		there += rows
	}
	hits, err := e.Search(ctx, index.Query{Limit: upto * crashBatch})
	if err != nil || len(hits) != there {
		t.Fatalf("%s: search finds %d rows, get %d (%v)", what, len(hits), there, err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// countBatch says how many rows of a batch are there, whole.
func countBatch(t *testing.T, e index.Engine, round string, n int) int {
	t.Helper()
	var ids []string
	for _, r := range crashRows(round, n) {
		ids = append(ids, r.ID)
	}
	rows, err := e.Get(context.Background(), ids)
	if err != nil {
		t.Fatal(err)
	}
	there := 0
	for _, r := range rows {
		if r != nil && string(r.Record) == "r" && r.Vector != nil {
			there++
		}
	}
	return there
}

func FuzzDecodeRow(f *testing.F) {
	spec := index.Spec{Name: "z", Dim: 3, Precision: index.Int8, Columns: []index.Column{{Name: "n", Kind: index.Number}, {Name: "c", Kind: index.Category}, {Name: "s", Kind: index.Set}}}
	f.Add([]byte{1, 0, 2, 1, 1, 'a'})
	f.Add([]byte{1, 1, 0, 0, 0, 0, 1, 2, 3, 1, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeRow(&spec, "id", b)
		if err == nil && p.Vec.Codes != nil && len(p.Vec.Codes) != 3 {
			t.Fatal("wrong dimension")
		}
	})
}
