package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/profile"
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

// TestEngineIndex: a search says which index answered, an index is exchanged by a
// command, and settings that cannot be meant are refused before anything is sent.
func TestEngineIndex(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	here := t.TempDir()
	store, err := flat.Open(here, flat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := collection.New(t.Context(), collection.Options{Store: store, KV: store.KV()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := svc.Put(t.Context(), collection.Config{Name: "shop", Dim: 4}); err != nil {
		t.Fatal(err)
	}
	var in []collection.Input
	for i := range 200 {
		in = append(in, collection.Input{Line: i + 1, Record: profile.Record{ID: fmt.Sprintf("c%d", i), Vector: []float32{1, float32(i), 2, 3}}})
	}
	if _, err := svc.Upsert(t.Context(), "shop", in); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(svc.Close(t.Context()), store.Close()); err != nil {
		t.Fatal(err)
	}
	at := []string{"--milvus", s.Addr(), "--data", here}
	run := func(args ...string) (string, error) { return command(t, append(args, at...)...) }
	if out, err := run("engine", "copy", "--from", "flat", "--to", "milvus", "--milvus-shards", "2"); err != nil {
		t.Fatal(out, err)
	}
	c, err := client.Dial(t.Context(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Describe(t.Context(), "kindred_c_shop"); err != nil || info.Shards != 2 { // others open it without saying so
		t.Errorf("%d shards, %v", info.Shards, err)
	}
	search := func(args ...string) collection.Answer {
		t.Helper()
		var a collection.Answer
		out, err := run(append([]string{"search", "shop", "--vector", "1,7,2,3", "--limit", "3", "--json"}, args...)...)
		if err == nil {
			err = json.Unmarshal([]byte(out), &a)
		}
		if err != nil || len(a.Hits) != 3 || a.Hits[0].ID != "c7" {
			t.Fatal(out, err)
		}
		return a
	}
	if got := search(); got.Found != (index.Found{Path: index.PathMirror, Exact: true}) {
		t.Errorf("%+v", got.Found)
	}
	if got := search("--milvus-index", "hnsw"); got.Found.Path != index.PathMirror || !strings.Contains(got.Found.Note, "FLAT and not HNSW") {
		t.Errorf("%+v", got.Found)
	}
	if out, err := run("engine", "index", "--milvus-index", "hnsw:M=8"); err != nil || !strings.Contains(out, "shop: HNSW:M=8,efConstruction=200,ef=96") {
		t.Fatal(out, err)
	}
	if got := search("--milvus-index", "hnsw:M=8,ef=50"); got.Found != (index.Found{Path: index.PathMilvusIndex, Index: "HNSW:M=8,efConstruction=200,ef=50"}) {
		t.Errorf("%+v", got.Found)
	}
	if got := search("--milvus-index", "hnsw:M=8", "--exact"); got.Found.Path != index.PathMirror || !got.Found.Exact {
		t.Errorf("%+v", got.Found)
	}
	for words, args := range map[string][]string{
		"want a number from 2 to 2048": {"search", "shop", "--vector", "1,7,2,3", "--milvus-index", "hnsw:M=1"},
		"want a number from 1 to 16":   {"search", "shop", "--vector", "1,7,2,3", "--milvus-shards", "17"},
		"want auto, mirror or index":   {"search", "shop", "--vector", "1,7,2,3", "--milvus-search", "fast"},
		"--milvus-index is not set":    {"engine", "index"},
		"does not build an index":      {"engine", "index", "--milvus-index", "gpu_cagra"},
		"not found":                    {"engine", "index", "none", "--milvus-index", "hnsw"},
	} {
		if out, err := run(args...); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %s %v", args, out, err)
		}
	}
}
