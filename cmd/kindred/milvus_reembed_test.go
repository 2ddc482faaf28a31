package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/profile"
)

// dialect is clusters under a name and stamp of its own.
type dialect struct {
	clusters
	name string
}

func (d dialect) Info() embed.Info {
	return embed.Info{Name: d.name, Dim: int(d.clusters), MaxTokens: 512, Stamp: d.name + "@1"}
}

func dialects(_ context.Context, name string) (collection.Encoder, error) {
	dims := map[string]clusters{"clusters": 16, "other": 24}
	dim, ok := dims[name]
	if !ok {
		return nil, fmt.Errorf("model %q: %w", name, index.ErrNotFound)
	}
	return dialect{dim, name}, nil
}

// TestRealMilvusReembed: one process embeds a collection anew and switches while another
// one writes without a pause. Everything that either was told is written is there after it,
// by the new model; the alias in Milvus points at it; and the way back is open.
func TestRealMilvusReembed(t *testing.T) {
	addr := milvustest.Address(t)
	prefix := fmt.Sprintf("kindredtest_%x", time.Now().UnixNano())
	open := func() *collection.Service {
		t.Helper()
		return serviceOf(t, settings(addr, prefix, scanMirror), dialects)
	}
	t.Cleanup(func() {
		store, err := settings(addr, prefix, scanMirror).openMilvus(context.Background(), nil)
		if err == nil {
			err = errors.Join(store.Destroy(context.Background()), store.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	one := open()
	cfg, list := people(3000, index.Int8)
	fill(t, one, cfg, list)
	other := open()

	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	written, deleted := map[string]string{}, map[string]bool{}
	writing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			time.Sleep(10 * time.Millisecond) // each is looked for afterwards, one by one
			id, text := fmt.Sprintf("w%05d", i), fmt.Sprintf("late %d of %d", i, i%6)
			in := []collection.Input{{Line: 1, Record: profile.Record{ID: id, Texts: []profile.Text{{Field: "note", Body: text}}}}}
			if i%3 == 1 { // one of those that are there
				in[0].Record.ID = list[i%1900].Record.ID
			}
			out, err := other.Upsert(ctx, "people", in)
			if err == nil && out.Accepted == 1 {
				written[in[0].Record.ID] = text
			} else if ctx.Err() == nil {
				t.Errorf("write %d: %+v, %v", i, out, err)
				return
			}
			if i%7 == 3 {
				switch err := other.Delete(ctx, "people", list[2000+i%900].Record.ID); {
				case err == nil:
					deleted[list[2000+i%900].Record.ID] = true
				case !errors.Is(err, index.ErrNotFound) && ctx.Err() == nil:
					t.Errorf("delete %d: %v", i, err)
					return
				}
			}
		}
	})
	model := "other"
	job, err := one.Reembed(t.Context(), "people", collection.ReembedRequest{Model: &model, Switch: true})
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	for {
		if job, err = one.Job(job.ID); err != nil {
			t.Fatal(err)
		}
		if job.Stage != seen {
			t.Logf("%s", job.Stage)
			seen = job.Stage
		}
		if job.State.Final() {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Second) // it writes on after the switch
	stop()
	writing.Wait()
	if job.State != collection.JobDone {
		t.Fatalf("%+v", job)
	}
	t.Logf("%d customers were written and %d deleted meanwhile", len(written), len(deleted))
	if len(written) < 20 || len(deleted) < 3 {
		t.Fatalf("too few")
	}

	third := open() // with an empty memory: what Milvus has
	for name, svc := range map[string]*collection.Service{"the one": one, "the other": other, "a third": third} {
		deadline := time.Now().Add(30 * time.Second) // a sweep, and as long as Milvus takes
		for {
			fault := ""
			for id, text := range written {
				if deleted[id] {
					continue
				}
				c, err := svc.Customer(t.Context(), "people", id)
				if err != nil || c.Texts[0].Body != text {
					fault = fmt.Sprintf("%s: %+v, %v", id, c, err)
				}
			}
			for id := range deleted {
				if _, again := written[id]; again {
					continue
				}
				if c, err := svc.Customer(t.Context(), "people", id); !errors.Is(err, index.ErrNotFound) {
					fault = fmt.Sprintf("%s was deleted: %+v, %v", id, c, err)
				}
			}
			if fault == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s", name, fault)
			}
			time.Sleep(time.Second)
		}
		got, err := svc.Collection(t.Context(), "people")
		if err != nil || got.Model != "other" || got.Dim != 24 || got.Generation != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		ans, err := svc.Search(t.Context(), "people", collection.SearchRequest{Text: "customer 5 of 5", Limit: 5})
		if err != nil || len(ans.Hits) != 5 || ans.Hits[0].Score < 0.2 {
			t.Errorf("%s: %+v, %v", name, ans, err)
		}
	}
	c, err := client.Dial(t.Context(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info, err := c.Describe(t.Context(), prefix+"_live_people")
	if err != nil || !slices.Contains(info.Aliases, prefix+"_live_people") || info.Name != prefix+"_c_peopleG1" {
		t.Errorf("the alias: %+v, %v", info, err)
	}
	if err := third.Confirm(t.Context(), "people"); err != nil {
		t.Fatal(err)
	}
	names, err := c.List(t.Context())
	if err != nil || slices.Contains(names, prefix+"_c_people") || !slices.Contains(names, prefix+"_c_peopleG1") {
		t.Errorf("after confirming: %q, %v", names, err)
	}
	if err := third.Drop(t.Context(), "people"); err != nil {
		t.Fatal(err)
	}
}
