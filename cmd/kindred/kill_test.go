package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index/flat"
)

// TestKilledImport kills an import where it is: what is stored are whole
// customers, and the same import again makes the rest of them.
func TestKilledImport(t *testing.T) {
	const rows = 200_000
	dir := t.TempDir()
	file, data := filepath.Join(dir, "customers.csv"), filepath.Join(dir, "data")
	var text strings.Builder
	text.WriteString("id,age,spend\n")
	for i := range rows {
		fmt.Fprintf(&text, "c%d,%d,%d\n", i, i%80, 3*i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := func() int {
		t.Helper()
		store, err := flat.Open(data, flat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		eng, err := store.Open(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		snap, err := eng.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := snap.Close(); err != nil {
				t.Error(err)
			}
		}()
		age, err := snap.Column("age")
		if err != nil {
			t.Fatal(err)
		}
		spend, err := snap.Column("spend")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for it := snap.Live().Iterator(); it.HasNext(); n++ {
			row := it.Next()
			var i int
			if _, err := fmt.Sscanf(snap.ID(row), "c%d", &i); err != nil || age.Numbers[row] != float64(i%80) || spend.Numbers[row] != float64(3*i) {
				t.Fatalf("customer %s has age %v and spend %v (%v)", snap.ID(row), age.Numbers[row], spend.Numbers[row], err)
			}
		}
		return n
	}
	args := []string{"import", "shop", file, "--data", data}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kindred", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for size(data) < 3<<20 && ctx.Err() == nil { // some of it is written
		time.Sleep(5 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the import was over before it was killed")
	}
	if n := stored(); n == 0 || n >= rows {
		t.Errorf("%d customers after the kill, want some of %d", n, rows)
	}
	if said, err := exec.CommandContext(ctx, "kindred", args...).CombinedOutput(); err != nil || !strings.Contains(string(said), "200000 customers taken in") {
		t.Errorf("again: %v\n%s", err, said)
	}
	if n := stored(); n != rows {
		t.Errorf("%d customers, want %d", n, rows)
	}
}

// size is the bytes of the files in a folder, 0 while it is not there.
func size(dir string) (n int64) {
	list, _ := os.ReadDir(dir)
	for _, entry := range list {
		if info, err := entry.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}
