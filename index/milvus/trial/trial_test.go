package trial

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

func parse(t *testing.T, list ...string) []milvus.VectorIndex {
	t.Helper()
	var out []milvus.VectorIndex
	for _, s := range list {
		x, err := milvus.ParseIndex(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// left are our collections in a server.
func left(t *testing.T, addr string) []string {
	t.Helper()
	c, err := client.Dial(context.Background(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	names, err := c.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out
}

func run(t *testing.T, addr string, n, dim int, list ...string) Report {
	t.Helper()
	vectors, questions := Generated(n, 60, dim, 1)
	rep, err := Run(context.Background(), Options{
		Client: client.Config{Address: addr}, Indexes: parse(t, list...), Vectors: vectors, Questions: questions, Time: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		t.Logf("%+v", r)
		if r.Problem == "" && (r.Recall < 0.8 || r.Recall > 1 || r.QPS <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Build < 0) {
			t.Errorf("%+v", r)
		}
	}
	if rep.Results[0].Way != "flat" || rep.Results[1].Way != "hnsw" || len(rep.Results) != 2+len(list) {
		t.Errorf("%+v", rep)
	}
	if l := left(t, addr); len(l) > 0 {
		t.Errorf("%v stayed behind", l)
	}
	return rep
}

func TestRun(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	rep := run(t, s.Addr(), 2500, 32, "flat", "hnsw:ef=50", "hnsw:ef=100", "gpu_cagra")
	if p := rep.Results[5].Problem; !strings.Contains(p, "GPU_CAGRA") {
		t.Error(p)
	}
	// The fake scans whatever the index: what is lost is what the codes lose, as for the scan.
	if a, b := rep.Results[0].Recall, rep.Results[2].Recall; a-b > 0.02 || b-a > 0.02 {
		t.Errorf("flat %v, FLAT %v", a, b)
	}
	// What the one query node of the fake says.
	if m := rep.Results[2].Memory; m != 123456789 || rep.Results[0].Memory < 2500*32 || rep.Results[1].Memory <= rep.Results[0].Memory {
		t.Errorf("%d bytes; %+v", m, rep.Results[:2])
	}
	// One store was built once for both kinds of search: FLAT, HNSW, of the trial and the
	// key-value spaces.
	if n := s.Calls("DropIndex"); n != 1 {
		t.Errorf("the index was exchanged %d times", n)
	}
}

// TestStopped: wherever a run is stopped, nothing stays behind; nor does what a run left
// that was killed the day before.
func TestStopped(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	vectors, questions := Generated(1500, 20, 32, 1)
	for _, at := range []string{"writing to memory", "writing to Milvus", "trying", "building HNSW", "asking HNSW"} {
		ctx, cancel := context.WithCancel(context.Background())
		seen := false
		_, err := Run(ctx, Options{
			Client: client.Config{Address: s.Addr()}, Indexes: parse(t, "hnsw"), Vectors: vectors, Questions: questions, Time: time.Second,
			Progress: func(step string, _, _ int64) {
				if strings.Contains(step, at) {
					seen = true
					cancel()
				}
			},
		})
		cancel()
		if !errors.Is(err, context.Canceled) || !seen {
			t.Errorf("stopped at %q (%v): %v", at, seen, err)
		}
		if l := left(t, s.Addr()); len(l) > 0 {
			t.Errorf("stopped at %q: %v stayed behind", at, l)
		}
	}
	for name, opt := range map[string]Options{"nothing": {}, "hits": {Vectors: vectors[:3], Questions: questions, K: 4}} {
		opt.Client.Address = s.Addr()
		if _, err := Run(context.Background(), opt); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOldOnes(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	c, err := client.Dial(context.Background(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []string{prefix + "65000000_0001_kv", prefix + "7fffffff_0001_kv", prefix + "hello", "others"} {
		err := c.Create(context.Background(), client.Schema{Name: n, Fields: []client.Field{
			{Name: "id", Type: client.VarChar, Primary: true, MaxLength: 9}, {Name: "v", Type: client.FloatVector, Dim: 2},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := dropOld(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if l := left(t, s.Addr()); len(l) != 2 {
		t.Errorf("%v", l)
	}
}

// TestRealRun takes a minute: KINDRED_TEST_MILVUS_FULL.
func TestRealRun(t *testing.T) {
	addr := milvustest.Address(t)
	if os.Getenv("KINDRED_TEST_MILVUS_FULL") == "" {
		t.Skip("KINDRED_TEST_MILVUS_FULL is not set")
	}
	run(t, addr, 10_000, 64, "flat", "ivf_flat:nlist=64", "hnsw")
}
