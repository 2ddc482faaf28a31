package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

// command runs one command line, and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	return out.String(), err
}

// TestEngineCopy moves a data directory into a Milvus and from there into another one.
func TestEngineCopy(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	ctx := context.Background()
	here, there := t.TempDir(), t.TempDir()
	store, err := flat.Open(here, flat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := store.Create(ctx, index.Spec{Name: "shop", Dim: 4, Stamp: "m"})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]index.Row, 2500)
	for i := range batch {
		batch[i] = index.Row{ID: fmt.Sprintf("c%d", i), Vector: []float32{1, float32(i), 2, 3}, Record: []byte("{}")}
	}
	if err := eng.Upsert(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if err := store.KV().Put(ctx, map[string][]byte{"k": []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "engine", "copy", "--from", "flat", "--to", "milvus", "--milvus", s.Addr(), "--data", here)
	if err != nil || !strings.Contains(out, "shop: 2500 customers, every row compared") {
		t.Fatal(out, err)
	}
	back, err := command(t, "engine", "copy", "shop", "--from", "milvus", "--to", "flat", "--milvus", s.Addr(), "--data", there)
	if err != nil || out != back {
		t.Fatal(back, err)
	}
	for _, bad := range [][]string{
		{"engine", "copy", "--from", "flat", "--to", "flat"},
		{"engine", "copy", "--from", "flat", "--to", "milvus", "--data", here},
		{"engine", "copy", "--from", "flat", "--to", "milvus", "--data", here, "--milvus", "127.0.0.1:1"},
	} {
		if out, err := command(t, bad...); err == nil {
			t.Errorf("%v: %s", bad, out)
		}
	}
}
