package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
	"github.com/kindred-search/kindred/index/rows"
)

// town is a collection, an exact engine with the same people, and writes to both.
type town struct {
	t    testing.TB
	c    *client.Client
	coll string
	spec index.Spec
	eng  index.Engine
	r    *rand.Rand
	now  int64
}

func newTown(t testing.TB, c *client.Client, coll string, dim int, p index.Precision) *town {
	t.Helper()
	ctx := context.Background()
	w := &town{t: t, c: c, coll: coll, r: rand.New(rand.NewPCG(4, 2)), spec: index.Spec{
		Name: "people", Dim: dim, Precision: p, Columns: []index.Column{{Name: "age", Kind: index.Number}},
	}}
	w.must(c.Create(ctx, client.Schema{Name: coll, Shards: 1, Fields: []client.Field{
		{Name: "id", Type: client.VarChar, Primary: true, MaxLength: 256}, {Name: "version", Type: client.Int64}, {Name: "hash", Type: client.Int64},
		{Name: "age", Type: client.Double}, {Name: "vec", Type: client.FloatVector, Dim: dim},
	}}))
	t.Cleanup(func() { c.Drop(context.Background(), coll) })
	w.must(c.CreateIndex(ctx, coll, client.Index{Field: "vec", Type: "FLAT", Metric: client.IP}))
	w.must(c.Load(ctx, coll))
	store := memory.Open()
	t.Cleanup(func() { store.Close() })
	var err error
	w.eng, err = store.Create(ctx, w.spec)
	w.must(err)
	return w
}

func (w *town) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func id(i int) string { return fmt.Sprintf("customer %06d \"'\\", i) }

// write puts people of these numbers into both, and returns them as the mirror wants.
func (w *town) write(numbers []int) []mirror.Row {
	w.t.Helper()
	ctx := context.Background()
	var out []mirror.Row
	for part := range slices.Chunk(numbers, 5000) {
		n := len(part)
		cols := []client.Column{
			{Name: "id", Type: client.VarChar, Strings: make([]string, n)}, {Name: "version", Type: client.Int64, Ints: make([]int64, n)},
			{Name: "age", Type: client.Double, Doubles: make([]float64, n)}, {Name: "hash", Type: client.Int64, Ints: make([]int64, n)}, {Name: "vec", Type: client.FloatVector, Vectors: make([]float32, 0, n*w.spec.Dim), Dim: w.spec.Dim},
		}
		raw := make([]index.Row, n)
		for i, k := range part {
			w.now++
			v := make([]float32, w.spec.Dim)
			for d := range v {
				v[d] = float32(w.r.NormFloat64())
			}
			age := float64(w.r.IntN(90))
			raw[i] = index.Row{ID: id(k), Vector: v, Values: map[string]index.Value{"age": {Kind: index.Number, Num: age}}}
			unit, _ := rows.Unit(v)
			cols[0].Strings[i], cols[1].Ints[i], cols[2].Doubles[i], cols[3].Ints[i] = id(k), w.now, age, pushdown.Hash(id(k))
			cols[4].Vectors = append(cols[4].Vectors, unit...)
			r := raw[i]
			r.Vector = unit
			out = append(out, mirror.Row{Row: r, Version: w.now})
		}
		_, err := w.c.Upsert(ctx, w.coll, cols)
		w.must(err)
		w.must(w.eng.Upsert(ctx, raw))
	}
	return out
}

func (w *town) remove(numbers []int) []string {
	w.t.Helper()
	ids := make([]string, len(numbers))
	for i, k := range numbers {
		ids[i] = id(k)
	}
	_, err := w.c.DeleteKeys(context.Background(), w.coll, "id", ids)
	w.must(err)
	_, err = w.eng.Delete(context.Background(), ids)
	w.must(err)
	w.now++
	return ids
}

func (w *town) source() mirror.Source {
	dim := w.spec.Dim
	return mirror.Source{
		Client: w.c, Collection: w.coll, Key: "id", Version: "version", Hash: "hash", Fields: []string{"age", "vec"}, Spec: w.spec,
		Decode: func(b *client.Batch, i int) (index.Row, error) {
			return index.Row{
				ID: b.Column("id").Strings[i], Vector: slices.Clone(b.Column("vec").Vectors[i*dim : (i+1)*dim]),
				Values: map[string]index.Value{"age": {Kind: index.Number, Num: b.Column("age").Doubles[i]}},
			}, nil
		},
	}
}

// audience is the best of a snapshot, with bits of the scores.
func audience(t testing.TB, s index.Snapshot, dim, size int) map[string]float32 {
	t.Helper()
	r := rand.New(rand.NewPCG(77, 1))
	v := make([]float32, dim)
	for d := range v {
		v[d] = float32(r.NormFloat64())
	}
	mask, err := s.Match(&index.Filter{Field: "age", Gte: 18.0})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Best(context.Background(), index.BestRequest{
		ScanRequest: index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: v, Bias: 0.5}}}}, Mask: mask}, Size: []int{size},
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float32{}
	for i, row := range got[0].Rows {
		out[s.ID(row)] = got[0].Scores[i]
	}
	return out
}

// same holds the mirror to the exact engine: the same audience, bit for bit.
func (w *town) same(m *mirror.Mirror, size int) {
	w.t.Helper()
	snap, err := w.eng.Snapshot(context.Background())
	w.must(err)
	defer snap.Close()
	want, got := audience(w.t, snap, w.spec.Dim, size), audience(w.t, m.Snapshot(), w.spec.Dim, size)
	if !maps.Equal(want, got) {
		w.t.Fatalf("the mirror's audience of %d is not the exact engine's of %d", len(got), len(want))
	}
	if a, b := snap.Live().GetCardinality(), m.Snapshot().Live().GetCardinality(); a != b {
		w.t.Fatalf("%d rows in the mirror, %d in the engine", b, a)
	}
}

func span(from, to int) []int {
	out := make([]int, to-from)
	for i := range out {
		out[i] = from + i
	}
	return out
}

func fakeTown(t *testing.T, p index.Precision) (*town, *fake.Server) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c, err := client.Dial(context.Background(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newTown(t, c, "people", 16, p), s
}

func TestMirrorIsTheSame(t *testing.T) {
	for _, p := range []index.Precision{index.Int8, index.Fp16, index.Fp32, index.Binary} {
		t.Run(string(p), func(t *testing.T) {
			w, _ := fakeTown(t, p)
			w.write(span(0, 3000))
			src := w.source()
			src.Page = 170
			m, err := mirror.New(src)
			w.must(err)
			var heard []int64
			w.must(m.Hydrate(context.Background(), func(done, total int64) {
				if total != 3000 {
					t.Errorf("%d in all", total)
				}
				heard = append(heard, done)
			}))
			if !slices.IsSorted(heard) || heard[len(heard)-1] != 3000 || len(heard) < 17 {
				t.Errorf("progress was %v", heard)
			}
			w.same(m, 900)
			// Our own writes and deletes.
			w.must(m.Apply(w.write(span(2500, 3300))))
			m.Remove(w.remove(span(100, 200)), w.now)
			w.same(m, 900)
			r, err := m.Check(context.Background())
			w.must(err)
			if !r.Equal() || r.Server != 3200 || m.State().Checked.IsZero() {
				t.Fatalf("%+v", r)
			}
			// Those of others: new and changed rows by the sweep, deletes by Reconcile.
			w.write(span(3200, 3400))
			if agrees, err := m.Sweep(context.Background()); err != nil || !agrees {
				t.Fatal(agrees, err)
			}
			w.same(m, 900)
			w.remove(span(1000, 1100))
			agrees, err := m.Sweep(context.Background())
			if err != nil || agrees {
				t.Fatal(agrees, err)
			}
			if r, _ := m.Check(context.Background()); r.Equal() {
				t.Fatal("the checksum does not see 100 missing rows")
			}
			if n, err := m.Reconcile(context.Background()); err != nil || n != 100 {
				t.Fatal(n, err)
			}
			w.same(m, 900)
		})
	}
}

func TestHydrationResumes(t *testing.T) {
	w, s := fakeTown(t, index.Int8)
	w.write(span(0, 2000))
	src := w.source()
	src.Page = 100
	m, err := mirror.New(src)
	w.must(err)
	s.Fault(fake.Fault{Method: "Query", Skip: 8, Do: fake.Fail(status.Error(codes.DataLoss, "half-way"))})
	if err := m.Hydrate(context.Background(), nil); !errors.Is(err, client.ErrInvalidAnswer) {
		t.Fatal(err)
	}
	if st := m.State(); st.Ready || st.Rows < 500 || st.Rows > 900 {
		t.Fatalf("%+v", st)
	}
	s.Heal()
	before := s.Calls("Query")
	w.must(m.Hydrate(context.Background(), nil))
	if n := s.Calls("Query") - before; n > 17 { // a count and some 14 pages of 21
		t.Errorf("%d queries: it began again", n)
	}
	w.same(m, 500)
}

func TestReconcileAfterMissedEverything(t *testing.T) {
	w, _ := fakeTown(t, index.Int8)
	w.write(span(0, 1000))
	src := w.source()
	src.Page = 64
	m, err := mirror.New(src)
	w.must(err)
	w.must(m.Hydrate(context.Background(), nil))
	w.write(span(500, 1500))
	w.remove(span(0, 300))
	if n, err := m.Reconcile(context.Background()); err != nil || n != 1300 {
		t.Fatal(n, err)
	}
	w.same(m, 400)
}

// TestWritesMeanwhile fills the mirror while this process writes and deletes.
func TestWritesMeanwhile(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w, s := fakeTown(t, index.Int8)
	defer s.Stop()
	defer w.c.Close()
	w.write(span(0, 2000))
	src := w.source()
	src.Page = 50
	m, err := mirror.New(src)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx, time.Millisecond) })
	wg.Go(func() {
		for range 3 {
			w.must(m.Hydrate(context.Background(), nil))
		}
	})
	r := rand.New(rand.NewPCG(5, 5))
	for range 60 {
		at := r.IntN(2200)
		if r.IntN(3) == 0 {
			m.Remove(w.remove(span(at, at+20)), w.now)
		} else {
			w.must(m.Apply(w.write(span(at, at+30))))
		}
	}
	cancel()
	wg.Wait()
	// A write that Milvus has and the mirror not yet, or a page read before a delete, may
	// be left over; one pass mends it.
	_, err = m.Reconcile(context.Background())
	w.must(err)
	w.same(m, 700)
	rep, err := m.Check(context.Background())
	w.must(err)
	if !rep.Equal() {
		t.Fatalf("%+v", rep)
	}
}

// TestBrokenPages sees that what cannot be the whole population is not taken for it.
// TestClockBehind has another writer whose clock is behind: what the server has counts.
func TestClockBehind(t *testing.T) {
	w, _ := fakeTown(t, index.Fp32)
	ctx := context.Background()
	src := w.source()
	src.Overlap = 100
	m, err := mirror.New(src)
	w.must(err)
	w.now = 1000
	mine := w.write(span(0, 50))
	w.must(m.Hydrate(ctx, nil))
	w.must(m.Apply(mine))
	w.now = 990 // within the overlap, and before our own writes
	w.write(span(10, 15))
	if _, err := m.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	w.same(m, 20)
	w.now = 10 // far behind: the sweep does not see it
	w.write(span(20, 30))
	if n, err := m.Reconcile(ctx); err != nil || n != 10 {
		t.Fatal(n, err)
	}
	w.same(m, 50)
	if r, err := m.Check(ctx); err != nil || !r.Equal() {
		t.Fatal(r, err)
	}
	if m.High() != 1050 {
		t.Error(m.High())
	}
}

func TestBrokenPages(t *testing.T) {
	strs := func(a *milvuspb.QueryResults) []string { return a.FieldsData[0].GetScalars().GetStringData().Data }
	for name, change := range map[string]func(*milvuspb.QueryResults){
		"twice":   func(a *milvuspb.QueryResults) { strs(a)[1] = strs(a)[0] },
		"foreign": func(a *milvuspb.QueryResults) { strs(a)[0] = "somebody" },
		"version": func(a *milvuspb.QueryResults) { a.FieldsData[1].GetScalars().GetLongData().Data[0] = 0 },
		"NaN": func(a *milvuspb.QueryResults) {
			a.FieldsData[3].GetVectors().GetFloatVector().Data[0] = float32(math.NaN())
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			w, s := fakeTown(t, index.Int8)
			defer s.Stop()
			defer w.c.Close()
			w.write(span(0, 500))
			src := w.source()
			src.Page = 100
			m, err := mirror.New(src)
			w.must(err)
			s.Fault(fake.Fault{Method: "Query", Skip: 3, Times: 1, Do: fake.Twist(change)})
			if err := m.Hydrate(context.Background(), nil); !errors.Is(err, client.ErrInvalidAnswer) && !errors.Is(err, index.ErrInvalid) {
				t.Fatal(err)
			}
			w.must(m.Hydrate(context.Background(), nil))
			w.same(m, 100)
		})
	}
	w, _ := fakeTown(t, index.Int8)
	w.write(span(0, 500))
	src := w.source()
	src.Hash, src.Page = "version", 100 // not a hash at all
	m, err := mirror.New(src)
	w.must(err)
	if err := m.Hydrate(context.Background(), nil); !errors.Is(err, client.ErrInvalidAnswer) {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	src := mirror.Source{Key: "id", Version: "version", Hash: "hash", Decode: func(*client.Batch, int) (index.Row, error) { return index.Row{}, nil }}
	bad := src
	bad.Spec.Columns = []index.Column{{Name: mirror.VersionColumn, Kind: index.Number}}
	if _, err := mirror.New(bad); !errors.Is(err, index.ErrInvalid) {
		t.Error(err)
	}
	bad = src
	bad.Version = ""
	if _, err := mirror.New(bad); !errors.Is(err, index.ErrInvalid) {
		t.Error(err)
	}
	m, err := mirror.New(src)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply([]mirror.Row{{Row: index.Row{ID: "a"}}}); !errors.Is(err, index.ErrInvalid) {
		t.Error(err)
	}
}

// TestRealMirror does it with a real Milvus, and times it.
func TestRealMirror(t *testing.T) {
	addr := milvustest.Address(t)
	n, dim := 20_000, 64
	if s := os.Getenv("KINDRED_TEST_MILVUS_ROWS"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		n, dim = v, 384
	}
	c, err := client.Dial(context.Background(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := newTown(t, c, fmt.Sprintf("kindredtest_mirror_%d", time.Now().UnixNano()), dim, index.Int8)
	start := time.Now()
	w.write(span(0, n))
	t.Logf("%d x %d written in %v", n, dim, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	m, err := mirror.New(w.source())
	w.must(err)
	w.must(m.Hydrate(context.Background(), nil))
	t.Logf("hydrated in %v", time.Since(start).Round(time.Millisecond))
	w.same(m, n*3/10)
	w.must(m.Apply(w.write(span(n-100, n+100))))
	w.write(span(n+100, n+300))
	if agrees, err := m.Sweep(context.Background()); err != nil || !agrees {
		t.Fatal(agrees, err)
	}
	w.remove(span(0, 500))
	start = time.Now()
	if k, err := m.Reconcile(context.Background()); err != nil || k != 500 {
		t.Fatal(k, err)
	}
	t.Logf("reconciled in %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	r, err := m.Check(context.Background())
	if err != nil || !r.Equal() {
		t.Fatal(r, err)
	}
	t.Logf("checked in %v", time.Since(start).Round(time.Millisecond))
	w.same(m, n*3/10)
}
