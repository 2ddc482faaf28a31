package hnsw

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index"
)

// TestMain doubles as the child of TestKill: it upserts for ever, keeps its
// graph as often as it can and prints the number of each batch acknowledged.
func TestMain(m *testing.M) {
	dir := os.Getenv("KINDRED_HNSW_CRASH_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	t := &testing.T{}
	s := openFlat(t, dir, Options{MinRows: 1, SaveEvery: time.Millisecond})
	ctx := context.Background()
	e, err := s.Open(ctx, "k")
	if errors.Is(err, index.ErrNotFound) {
		e, err = s.Create(ctx, index.Spec{Name: "k", Dim: 16})
	}
	for n := 0; err == nil; n++ {
		var batch []index.Row
		for i, v := range clustered(rand.New(rand.NewPCG(uint64(n), 1)), 300, 16, 10) {
			batch = append(batch, index.Row{ID: fmt.Sprintf("%d-%d", n%40, i), Vector: v})
		}
		if err = e.Upsert(ctx, batch); err == nil {
			fmt.Println(n)
		}
	}
	panic(err)
}

// stored opens a collection of the durable engine with n rows and its graph.
func stored(t *testing.T, dir string, n int) (forced, *Engine, *rand.Rand) {
	t.Helper()
	s := openFlat(t, dir, Options{MinRows: 1, Build: 80, always: true})
	e, err := s.Store.Create(t.Context(), index.Spec{Name: "d", Dim: 24, Engine: index.EngineHNSW})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	put(t, e, rng, 0, n)
	return s, e.(*Engine), rng
}

func put(t *testing.T, e index.Engine, rng *rand.Rand, from, n int) {
	t.Helper()
	var batch []index.Row
	for i, v := range clustered(rng, n, 24, 30) {
		batch = append(batch, index.Row{ID: fmt.Sprintf("c%d", from+i), Vector: v})
	}
	if err := e.Upsert(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := e.(*Engine).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func reopen(t *testing.T, dir string, opt Options) (forced, *Engine) {
	t.Helper()
	opt.MinRows, opt.Build, opt.SaveEvery, opt.always = 1, 80, time.Hour, true
	s := openFlat(t, dir, opt)
	e, err := s.Store.Open(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.(*Engine).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.(*Engine).stop() // from here on its fields are the test's to read
	return s, e.(*Engine)
}

func recallOf(t *testing.T, e *Engine) float64 {
	t.Helper()
	w := &world{t: t, e: e}
	return w.recall(clustered(rand.New(rand.NewPCG(9, 9)), 40, 24, 30), nil, 10)
}

// TestReopen: a graph that is read back has every row in its place; rows that
// changed while it was not looking are inserted.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s, _, rng := stored(t, dir, 3000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, "graphs", "d.graph.123.tmp")
	if err := os.WriteFile(torn, []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	s, e := reopen(t, dir, Options{})
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed process left stays: %v", err)
	}
	if e.changed != 0 {
		t.Errorf("%d rows of an unchanged collection were inserted anew", e.changed)
	}
	if r := recallOf(t, e); r < 0.96 {
		t.Errorf("recall@10 is %.4f after opening again", r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Writes without a graph: 200 other vectors, 100 rows less, 150 more.
	s = openFlat(t, dir, Options{MinRows: 1 << 30})
	plain, err := s.Store.Open(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	put(t, plain, rng, 0, 200)
	put(t, plain, rng, 3000, 150)
	var gone []string
	for i := range 100 {
		gone = append(gone, fmt.Sprintf("c%d", 500+i))
	}
	if _, err := plain.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, e = reopen(t, dir, Options{})
	if e.changed < 350 || e.changed > 400 {
		t.Errorf("%d rows were inserted or lost, 350 and 300 changed", e.changed)
	}
	if r := recallOf(t, e); r < 0.96 {
		t.Errorf("recall@10 is %.4f after changes elsewhere", r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, e = reopen(t, dir, Options{M: 8}) // another shape: all is built anew
	if r := recallOf(t, e); r < 0.9 || e.graph.Load().M != 8 {
		t.Errorf("recall@10 is %.4f of a graph of another shape", r)
	}
	if err := s.Store.Drop(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + "/graphs/*"); len(left) != 0 {
		t.Errorf("a dropped collection leaves %v", left)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFile: whatever is done to the file, answers are right, and what was
// lost is said and built anew.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	const rows = 5000 // two parts
	s, _, _ := stored(t, dir, rows)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "graphs", "d.graph")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(sound)
		b[at] ^= 0x55
		return b
	}
	for name, c := range map[string]struct {
		file    []byte
		rebuilt int // rows at most
	}{
		"sound":         {sound, 0},
		"torn":          {sound[:len(sound)*2/3], rows},
		"empty":         {nil, rows},
		"magic":         {flip(0), rows},
		"header":        {flip(20), rows},
		"a bit":         {flip(len(sound) / 2), partRows},
		"part's length": {flip(len(magic) + 8 + len(`{"dim":24,"m":16,"m0":32,"build":80,"rows":5000}`)), rows},
		"last byte":     {flip(len(sound) - 1), rows - partRows},
		"other":         {bytes.Repeat([]byte("KHNSW"), 4000), rows},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			var said []string
			s, e := reopen(t, dir, Options{Logf: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) }})
			t.Logf("%d rows anew; %s", e.changed, said)
			if e.changed > c.rebuilt || c.rebuilt > 0 && (e.changed == 0 || len(said) != 1 || !strings.Contains(said[0], path)) {
				t.Errorf("%d rows inserted, at most %d are lost; said: %q", e.changed, c.rebuilt, said)
			}
			if r := recallOf(t, e); r < 0.95 {
				t.Errorf("recall@10 is %.4f", r)
			}
			e.changed = 0 // keep nothing
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// FuzzLoad: no file makes load panic or take memory out of proportion.
func FuzzLoad(f *testing.F) {
	dir := f.TempDir()
	t := &testing.T{}
	s := openFlat(t, dir, Options{MinRows: 1})
	ctx := context.Background()
	e, err := s.Store.Create(ctx, index.Spec{Name: "d", Dim: 4, Engine: index.EngineHNSW})
	if err != nil {
		f.Fatal(err)
	}
	var batch []index.Row
	for i, v := range clustered(rand.New(rand.NewPCG(1, 1)), 60, 4, 5) {
		batch = append(batch, index.Row{ID: fmt.Sprint(i), Vector: v})
	}
	if err := e.Upsert(ctx, batch); err != nil {
		f.Fatal(err)
	}
	g := e.(*Engine)
	if err := g.Wait(ctx); err != nil {
		f.Fatal(err)
	}
	g.stop()
	v, err := g.view(ctx)
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "f")
	if err := save(path, g.graph.Load(), v); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	_, rest, _ := bytes.Cut(raw, []byte("}"))
	f.Add(rest[8:], 60)
	f.Fuzz(func(t *testing.T, part []byte, rows int) {
		// A part with a right checksum, so that its content is looked at.
		var b bytes.Buffer
		b.WriteString(magic)
		shape := g.graph.Load().shape
		writePart(&b, fmt.Appendf(nil, `{"dim":%d,"m":%d,"m0":%d,"build":%d,"rows":%d}`, shape.Dim, shape.M, shape.M0, shape.Build, rows))
		writePart(&b, part)
		file := filepath.Join(t.TempDir(), "g")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		old, to, _ := load(file, shape, v)
		if old == nil {
			return
		}
		opt := Options{}.filled()
		fresh := newGraph(v, &opt)
		one := &Engine{opt: &opt}
		if err := one.transplant(context.Background(), fresh, old, to, v); err != nil {
			t.Fatal(err)
		}
		if lost := fresh.unreached(v); len(lost) > 3 {
			t.Errorf("%d of 60 rows cannot be reached", len(lost))
		}
	})
}

// TestKill kills a process that writes rows and graphs: what it acknowledged is
// found again, through whatever graph it left.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(4, 4))
	acked := -1
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "KINDRED_HNSW_CRASH_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		least := 5 + rng.IntN(30)
		lines := bufio.NewScanner(out)
		for acked = -1; acked < least && lines.Scan(); {
			fmt.Sscan(lines.Text(), &acked)
		}
		cmd.Process.Kill()
		for lines.Scan() {
			fmt.Sscan(lines.Text(), &acked)
		}
		cmd.Wait()
		if acked < least {
			t.Fatalf("round %d: the child stopped by itself after batch %d", round, acked)
		}
		s := openFlat(t, dir, Options{MinRows: 1, always: true})
		e, err := s.Store.Open(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		g := e.(*Engine)
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The newest acknowledged batch of each id, or a later one.
		want := clustered(rand.New(rand.NewPCG(uint64(acked), 1)), 300, 16, 10)
		missed := 0
		for i, v := range want[:60] {
			id := fmt.Sprintf("%d-%d", acked%40, i)
			hits, err := g.Search(t.Context(), index.Query{Vector: v, Limit: 3})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(hits, func(h index.Hit) bool { return h.ID == id && h.Score > 0.999 }) {
				missed++
			}
		}
		if missed > 2 {
			t.Errorf("round %d: %d of 60 rows of an acknowledged batch are not found by their own vector", round, missed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTogether searches, filters and deletes while rows come in and the table
// renumbers them: every hit is a row of its time, none is twice in an answer, and
// a row that was acknowledged is found.
func TestTogether(t *testing.T) {
	w := newWorld(t, index.Int8, 1500, 16, Options{MinRows: 1, always: true})
	var done atomic.Bool
	var wg sync.WaitGroup
	var newest atomic.Pointer[index.Row]
	for i := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(i)))
			missed, asked := 0, 0
			for !done.Load() {
				q := index.Query{Vector: clustered(rng, 1, 16, 1)[0], Limit: 10}
				if i == 1 {
					q.Filter = &index.Filter{Field: "p", Lt: 300}
				}
				r := newest.Load()
				if i == 2 && r != nil {
					q.Vector = r.Vector
				}
				hits, err := w.e.Search(context.Background(), q)
				if err != nil {
					t.Error(err)
					return
				}
				ids := map[string]bool{}
				for j, h := range hits {
					if ids[h.ID] || j > 0 && h.Score > hits[j-1].Score {
						t.Errorf("hit %d of %v is twice there or out of order", j, hits)
						return
					}
					ids[h.ID] = true
				}
				if i == 2 && r != nil {
					asked++
					if !ids[r.ID] {
						missed++
					}
				}
			}
			if missed*50 > asked {
				t.Errorf("%d of %d rows were not found after they were acknowledged", missed, asked)
			}
		})
	}
	for range 25 {
		var batch []index.Row
		for _, v := range clustered(w.rng, 150, 16, 50) {
			batch = append(batch, w.row(fmt.Sprintf("c%d", w.n), v))
			w.n++
		}
		if err := w.e.Upsert(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		newest.Store(&batch[7])
		var gone []string
		for range 120 {
			if id := fmt.Sprintf("c%d", w.rng.IntN(w.n-150)); id != batch[7].ID {
				gone = append(gone, id)
			}
		}
		if _, err := w.e.Delete(t.Context(), slices.Compact(slices.Sorted(slices.Values(gone)))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	done.Store(true)
	wg.Wait()
	w.wait()
	if got := w.recall(clustered(w.rng, 30, 16, 50), nil, 10); got < 0.95 {
		t.Errorf("recall@10 is %.4f in the end", got)
	}
}
