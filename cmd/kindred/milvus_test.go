package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/profile"
)

// clusters is an encoder of that many numbers: texts that end with the same digit are near.
type clusters int

func (dim clusters) Info() embed.Info {
	return embed.Info{Name: "clusters", Dim: int(dim), MaxTokens: 512, Stamp: "clusters@1"}
}

func (dim clusters) Encode(_ context.Context, texts []string, _ embed.EncodeOptions) (*embed.Result, error) {
	res := &embed.Result{Tokens: make([]int, len(texts)), Truncated: make([]bool, len(texts))}
	for i, text := range texts {
		h := fnv.New64a()
		_, _ = h.Write([]byte(text))
		own, centre := rand.New(rand.NewPCG(h.Sum64(), 1)), rand.New(rand.NewPCG(uint64(text[len(text)-1]), 2))
		v, sum := make([]float32, dim), 0.0
		for d := range v {
			v[d] = float32(centre.NormFloat64() + own.NormFloat64()*1.5)
			sum += float64(v[d]) * float64(v[d])
		}
		for d := range v {
			v[d] /= float32(math.Sqrt(sum))
		}
		res.Vectors = append(res.Vectors, v...)
		res.Tokens[i] = 1
	}
	return res, nil
}

func (dim clusters) open(context.Context, string) (collection.Encoder, error) { return dim, nil }

// people are customers in clusters, with two columns.
func people(n int, precision index.Precision) (collection.Config, []collection.Input) {
	cfg := collection.Config{Name: "people", Model: "clusters", Precision: precision, Schema: profile.Schema{Fields: []profile.Field{
		{Name: "age", Type: profile.TypeNumber}, {Name: "city", Type: profile.TypeCategory}, {Name: "note", Type: profile.TypeText},
	}}}
	r := rand.New(rand.NewPCG(4, 4))
	out := make([]collection.Input, n)
	for i := range out {
		age := r.IntN(60)
		if i%6 == 0 { // of the seeds' cluster: a model that may look at columns does
			age += 30
		}
		out[i] = collection.Input{Line: i + 1, Record: profile.Record{
			ID: fmt.Sprintf(`c%06d "%d"`, i, i%6), Texts: []profile.Text{{Field: "note", Body: fmt.Sprintf("customer %d of %d", i, i%6)}},
			Fields: map[string]index.Value{
				"age": {Kind: index.Number, Num: float64(age)}, "city": {Kind: index.Category, Str: []string{`O"Hara`, "Pau", `\`}[r.IntN(3)]},
			},
		}}
	}
	return cfg, out
}

func fill(t *testing.T, svc *collection.Service, cfg collection.Config, list []collection.Input) {
	t.Helper()
	if _, _, err := svc.Put(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for some := range slices.Chunk(list, 5000) {
		if out, err := svc.Upsert(t.Context(), cfg.Name, some); err != nil || out.Accepted != len(some) {
			t.Fatal(out, err)
		}
	}
}

// service is what commands have of a store in Milvus under one setting of --milvus-scan.
func service(t *testing.T, a *app, dim int) *collection.Service {
	t.Helper()
	return serviceOf(t, a, clusters(dim).open)
}

func serviceOf(t *testing.T, a *app, models func(context.Context, string) (collection.Encoder, error)) *collection.Service {
	t.Helper()
	store, err := a.openData(t.Context(), a.cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	svc, err := collection.New(t.Context(), collection.Options{Store: store, KV: store.KV(), Shared: true, Outside: a.outside, OpenModel: models})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(svc.Close(context.Background()), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return svc
}

func settings(addr, prefix, scan string) *app {
	return &app{out: os.Stdout, err: os.Stderr, cfg: Config{Data: "unused", Milvus: addr, MilvusPrefix: prefix, MilvusScan: scan, Engine: "flat", Device: "cpu"}}
}

// testScan builds the same audiences with the flat engine, on the mirror and by push-down.
func testScan(t *testing.T, addr string, n, size, dim int, precision index.Precision) {
	prefix := fmt.Sprintf("kindredtest_%x", time.Now().UnixNano())
	cfg, list := people(n, precision)
	local, err := flat.Open(t.TempDir(), flat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	right, err := collection.New(t.Context(), collection.Options{Store: local, KV: local.KV(), OpenModel: clusters(dim).open})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { right.Close(context.Background()) })
	fill(t, right, cfg, list)
	t.Cleanup(func() {
		store, err := settings(addr, prefix, scanMirror).openMilvus(context.Background(), nil)
		if err == nil {
			err = errors.Join(store.Destroy(context.Background()), store.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	first := settings(addr, prefix, scanMirror)
	start := time.Now()
	fill(t, service(t, first, dim), cfg, list)
	t.Logf("%d customers written in %v", n, time.Since(start).Round(time.Millisecond))
	services := map[string]*collection.Service{}
	for _, scan := range []string{scanMirror, scanPushDown, scanAuto} {
		services[scan] = service(t, settings(addr, prefix, scan), dim) // each reads everything from Milvus
	}
	no := false
	seeds := audience.Seeds{}
	for i := 0; i < 600; i += 6 {
		seeds.IDs = append(seeds.IDs, audience.SeedRef{ID: list[i].Record.ID})
	}
	req := func(method string, size int, columns []string, f *index.Filter) audience.Request {
		return audience.Request{Name: "list", Seeds: seeds, Method: method, Size: audience.Size{Count: &size}, Filter: f, Features: audience.Features{Columns: columns}, Explain: audience.Explain{Members: &no, Phrases: &no}}
	}
	old := index.Filter{Should: []index.Filter{{Field: "age", Gte: 60}, {Field: "city", Eq: `O"Hara`}}}
	excluded := req(audience.Centroid, size/2, []string{}, nil)
	for i := 1; i < n; i += 3 {
		excluded.Exclude.IDs = append(excluded.Exclude.IDs, list[i].Record.ID)
	}
	for _, c := range []struct {
		name string
		req  audience.Request
		push bool
	}{
		{"vector", req(audience.Centroid, size, []string{}, nil), true},
		{"filter", req(audience.Centroid, size/3, []string{}, &old), true},
		{"excluded", excluded, true},
		{"columns", without(req(audience.Centroid, size, nil, nil)), false},
		{"trees", req(audience.Trees, size, nil, nil), false},
		{"text", audience.Request{Name: "list", Seeds: audience.Seeds{Text: "someone of 3"}, Size: audience.Size{Count: &size}, Explain: audience.Explain{Members: &no, Phrases: &no}}, true},
	} {
		want, err := right.Run(t.Context(), "people", c.req, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want.Manifest.Scan != nil {
			t.Errorf("flat says %+v", want.Manifest.Scan)
		}
		for scan, svc := range services {
			start := time.Now()
			got, err := svc.Run(t.Context(), "people", c.req, nil)
			if scan == scanPushDown && !c.push {
				if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "features.columns") {
					t.Errorf("%s, %s: %v", c.name, scan, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			how, path := got.Manifest.Scan, "mirror"
			if scan != scanMirror && c.push {
				path = "push-down"
			}
			if how == nil || how.Path != path || !how.Exact || (how.Note != "") != (scan == scanAuto && !c.push) {
				t.Errorf("%s, %s: %+v", c.name, scan, how)
			}
			t.Logf("%s, %s: %d members in %v", c.name, scan, len(got.Members), time.Since(start).Round(time.Millisecond))
			if precision == index.Fp32 || path == "mirror" {
				sameMembers(t, c.name+", "+scan, want.Members, got.Members)
			}
		}
	}
}

// without is a request that leaves texts out.
func without(r audience.Request) audience.Request {
	no := false
	r.Features.Text = &no
	return r
}

func sameMembers(t *testing.T, what string, want, got []audience.Member) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d members, %d of the flat engine", what, len(got), len(want))
	}
	for i := range want {
		if want[i].ID != got[i].ID || want[i].Score != got[i].Score {
			t.Fatalf("%s: member %d is %q with %v, of the flat engine %q with %v", what, i, got[i].ID, got[i].Score, want[i].ID, want[i].Score)
		}
	}
}

func TestMilvusScan(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	t.Run("fp32", func(t *testing.T) { testScan(t, s.Addr(), 3000, 900, 16, index.Fp32) })
	t.Run("int8", func(t *testing.T) { testScan(t, s.Addr(), 3000, 900, 16, index.Int8) })
}

// TestRealMilvusScan takes KINDRED_TEST_MILVUS_ROWS customers x 384 where that is set.
func TestRealMilvusScan(t *testing.T) {
	addr := milvustest.Address(t)
	n, size, dim := 20_000, 16_500, 32
	if s := os.Getenv("KINDRED_TEST_MILVUS_ROWS"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		n, size, dim = v, v*3/10, 384
	}
	testScan(t, addr, n, size, dim, index.Fp32)
}
