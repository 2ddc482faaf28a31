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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
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
			var ids []string
			for _, r := range crashRows(fmt.Sprint(round), n) {
				ids = append(ids, r.ID)
			}
			rows, err := e.Get(ctx, ids)
			if err != nil {
				t.Fatal(err)
			}
			there := 0
			for _, r := range rows {
				if r != nil && string(r.Record) == "r" && r.Vector != nil {
					there++
				}
			}
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

func TestBitRotIsReported(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir)
	e, err := s.Create(ctx, index.Spec{Name: "b", Dim: 4})
	if err == nil {
		err = e.Upsert(ctx, []index.Row{{ID: "sound", Vector: []float32{1, 0, 0, 0}}, {ID: "hurt", Vector: []float32{1, 0, 0, 1}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	key := collKey(tagRow, 0, "hurt")
	v, closer, err := s.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{}, v...)
	bad[len(bad)-1] ^= 4
	if err := errors.Join(closer.Close(), s.db.Set(key, bad, pebble.Sync)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Get(ctx, []string{"hurt"}); !errors.Is(err, index.ErrCorrupt) || !strings.Contains(err.Error(), "hurt") {
		t.Errorf("get: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, err := s.Open(ctx, "b"); !errors.Is(err, index.ErrCorrupt) || !strings.Contains(err.Error(), "hurt") {
		t.Errorf("open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	ctx := context.Background()
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpCreate:
			if full.Load() {
				return syscall.ENOSPC
			}
		}
		return nil
	}))
	s, err := Open("data", Options{fs: fs})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Create(ctx, index.Spec{Name: "f", Dim: 2})
	if err == nil {
		err = e.Upsert(ctx, []index.Row{{ID: "a", Vector: []float32{1, 0}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	for range 3 {
		if err := e.Upsert(ctx, []index.Row{{ID: "b"}}); !errors.Is(err, index.ErrNoSpace) {
			t.Fatalf("write to a full disk: %v", err)
		}
	}
	if hits, err := e.Search(ctx, index.Query{Limit: 5}); err != nil || len(hits) != 1 {
		t.Fatalf("reading on: %v, %v", hits, err)
	}
	full.Store(false)
	if err := s.Close(); err != nil {
		t.Logf("close after a failed write: %v", err)
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
