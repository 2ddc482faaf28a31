package milvus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// TestRealKilled kills a Milvus of its own with SIGKILL in the middle of an import, twice,
// and starts it again: every acknowledged customer is there, and the import goes on with
// the same store. It needs KINDRED_TEST_MILVUS_KILL, a folder where server.py has
// installed one that does not run (or nothing yet).
func TestRealKilled(t *testing.T) {
	home := os.Getenv("KINDRED_TEST_MILVUS_KILL")
	if home == "" {
		t.Skip("KINDRED_TEST_MILVUS_KILL is not set: a folder for a Milvus that may be killed")
	}
	server := func(what string) string {
		t.Helper()
		out, err := exec.Command("python3", "milvustest/server.py", what, home).Output()
		if err != nil {
			t.Fatalf("server.py %s: %v", what, err)
		}
		return strings.TrimSpace(string(out))
	}
	kill := func() {
		raw, err := os.ReadFile(filepath.Join(home, "pid"))
		if err != nil {
			t.Error(err)
			return
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Error(err)
		}
	}
	addr := server("start")
	defer server("stop")
	ctx := context.Background()
	opt := milvus.Options{Client: client.Config{Address: addr, WriteTimeout: 5 * time.Second}, Prefix: fmt.Sprintf("kindredtest_kill%d", rand.Uint32())}
	s, err := milvus.Open(ctx, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e, err := s.Create(ctx, index.Spec{Name: "import", Dim: 64})
	if err != nil {
		t.Fatal(err)
	}
	row := func(i int) index.Row {
		v := make([]float32, 64)
		for d := range v {
			v[d] = float32((i*31+d*17)%101) - 50
		}
		return index.Row{ID: fmt.Sprintf("c%07d", i), Vector: v, Record: fmt.Appendf(nil, "record %d", i)}
	}
	const size, batches = 500, 160
	acked, failures, kills := 0, 0, 0
	until := time.Now().Add(5 * time.Minute)
	for acked < batches {
		if kills < 2 && acked == (kills+1)*40 {
			kills++
			time.AfterFunc(20*time.Millisecond, kill)
			time.AfterFunc(3*time.Second, func() { server("start") })
		}
		batch := make([]index.Row, size)
		for i := range batch {
			batch[i] = row(acked*size + i)
		}
		if err := e.Upsert(ctx, batch); err == nil {
			acked++
			continue
		} else if !client.Unavailable(err) {
			t.Fatalf("batch %d: %v", acked, err)
		}
		failures++
		if time.Now().After(until) {
			t.Fatalf("no recovery: %d of %d batches", acked, batches)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d kills, %d calls failed meanwhile", kills, failures)
	if failures == 0 {
		t.Error("no call failed: nothing was killed")
	}
	// A new process with an empty disk.
	again := openPatiently(t, opt)
	defer again.Close()
	var f index.Engine
	for { // loading takes its time after a restart
		if f, err = again.Open(ctx, "import"); err == nil {
			break
		}
		if !client.Unavailable(err) || time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	snap, err := f.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if n := snap.Live().GetCardinality(); n != size*batches {
		t.Fatalf("%d customers of %d acknowledged", n, size*batches)
	}
	got, err := f.Get(ctx, []string{row(0).ID, row(size * 40).ID, row(size*batches - 1).ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		var i int
		fmt.Sscanf(r.ID, "c%d", &i)
		if string(r.Record) != fmt.Sprintf("record %d", i) {
			t.Fatalf("%q holds %q", r.ID, r.Record)
		}
	}
	if err := again.Destroy(ctx); err != nil {
		t.Error(err)
	}
}

func openPatiently(t *testing.T, opt milvus.Options) *milvus.Store {
	until := time.Now().Add(2 * time.Minute)
	for {
		s, err := milvus.Open(context.Background(), opt)
		if err == nil {
			return s
		}
		if !client.Unavailable(err) || time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}
