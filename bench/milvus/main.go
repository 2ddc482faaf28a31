//go:build unix

// Command milvus measures what the engine of package index/milvus costs beside the client
// library alone, against one server in one run, by turns: writing, searching, filling the
// copy in memory, and a list found inside Milvus. Answers are compared before anything is
// timed. It prints JSON, which run.py beside it puts into bench/results/milvus.json.
//
// Customers have a vector, two columns and a record of 200 bytes. Ours are written and read
// through index.Engine; the library gets the same columns ready made. Its collections are
// made and dropped here.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	sdk "github.com/milvus-io/milvus-sdk-go/v2/client"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/trial"
	"github.com/kindred-search/kindred/internal/buildinfo"
)

type result struct {
	Build  buildinfo.Info `json:"build"`
	Cores  int            `json:"cores"`
	Server string         `json:"milvus"`
	Rows   int            `json:"rows"`
	Dim    int            `json:"dim"`
	Ratios []ratio        `json:"ratios"`
}

// ratio is ours against the library alone: rates as ours over theirs, of which more is
// better; times as ours over theirs or, in ms, ours minus theirs, of which less is.
type ratio struct {
	What   string `json:"what"`
	Unit   string `json:"unit"` // of ours and theirs
	Ours   spread `json:"ours"`
	Theirs spread `json:"theirs"`
	Kind   string `json:"kind"` // "rate", "time" or "more_ms"
	Paired spread `json:"paired"`
	// Best is the same of each side's best: what the machine's other work leaves alone.
	Best float64 `json:"best"`
	// CPU is the processor time of this process, in ms of one operation; the server's is not in it.
	OursCPU   float64 `json:"ours_cpu_ms"`
	TheirsCPU float64 `json:"theirs_cpu_ms"`
	Pairs     int     `json:"pairs"`
	Target    float64 `json:"target,omitempty"` // at least for rates, at most for times
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func summarise(x []float64) spread {
	x = slices.Sorted(slices.Values(x))
	return spread{x[len(x)/2], x[0], x[len(x)-1]}
}

// compare pairs seconds of ours with those of the library.
func compare(what, unit, kind string, amount, target float64, ours, theirs side) ratio {
	n := len(ours.wall)
	r := ratio{What: what, Unit: unit, Kind: kind, Pairs: n, Target: target, OursCPU: 1000 * ours.cpu / float64(n), TheirsCPU: 1000 * theirs.cpu / float64(n)}
	var a, b, pairs []float64
	for i := range n {
		x, y := ours.wall[i], theirs.wall[i]
		switch kind {
		case "rate":
			x, y = amount/x, amount/y
			pairs = append(pairs, x/y)
		case "time":
			pairs = append(pairs, x/y)
		default:
			pairs = append(pairs, 1000*(x-y))
		}
		if unit == "ms" {
			x, y = 1000*x, 1000*y
		}
		a, b = append(a, x), append(b, y)
	}
	r.Ours, r.Theirs, r.Paired = summarise(a), summarise(b), summarise(pairs)
	switch kind {
	case "rate":
		r.Best = r.Ours.Max / r.Theirs.Max
	case "time":
		r.Best = r.Ours.Min / r.Theirs.Min
	default:
		r.Best = r.Ours.Min - r.Theirs.Min
	}
	fmt.Fprintf(os.Stderr, "%s: %.4g and %.4g %s; %.3f (%.3f to %.3f), of the best %.3f; %.3f and %.3f ms of processor time\n", what, r.Ours.Median, r.Theirs.Median, unit, r.Paired.Median, r.Paired.Min, r.Paired.Max, r.Best, r.OursCPU, r.TheirsCPU)
	return r
}

// side is what one side's operations took, in seconds.
type side struct {
	wall []float64
	cpu  float64 // of this process, all together
}

func (s *side) time(do func() error) error {
	before, start := cpuTime(), time.Now()
	err := do()
	s.wall = append(s.wall, time.Since(start).Seconds())
	s.cpu += cpuTime() - before
	return err
}

// cpuTime is what this process has used, in seconds.
func cpuTime() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// turns runs ours and theirs n times each in the order A B B A.
func turns(n int, ours, theirs func(i int) error) (a, b side, err error) {
	for i := range n {
		steps := []func() error{
			func() error { return a.time(func() error { return ours(i) }) },
			func() error { return b.time(func() error { return theirs(i) }) },
		}
		if i%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return side{}, side{}, err
			}
		}
	}
	return a, b, nil
}

func main() {
	addr := flag.String("milvus", "", "host:port of the server")
	rows := flag.Int("rows", 200_000, "customers, a multiple of 5000")
	dim := flag.Int("dim", 384, "dimensions")
	pairs := flag.Int("pairs", 8, "times that the copy is filled and a list is found")
	queries := flag.Int("queries", 600, "searches, each by both")
	part := flag.String("part", "", "of writing, searching, hydrating and pushing the one to say and to end after; empty: all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *part, *rows, *dim, *pairs, *queries); err != nil {
		fmt.Fprintln(os.Stderr, "milvus:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	addr, prefix string
	store        *milvus.Store
	bare         sdk.Client
	spec         index.Spec
	vectors      [][]float32 // unit length
	queries      [][]float32
	pairs        int
}

func run(ctx context.Context, addr, only string, rows, dim, pairs, queries int) (err error) {
	if only != "" && !slices.Contains([]string{"writing", "searching", "hydrating", "pushing"}, only) {
		return fmt.Errorf("-part %q: want writing, searching, hydrating or pushing", only)
	}
	if addr == "" || rows < batch || rows%batch != 0 || dim < 2 || pairs < 1 || queries < 10 {
		return fmt.Errorf("want -milvus host:port, -rows a multiple of %d, -dim from 2, -pairs from 1 and -queries from 10", batch)
	}
	b := &bench{addr: addr, prefix: fmt.Sprintf("kindredbench_%x_%04x", time.Now().Unix(), rand.Uint32()&0xffff), pairs: pairs, spec: index.Spec{
		Name: "bench", Dim: dim, Precision: index.Int8, Columns: []index.Column{{Name: "age", Kind: index.Number}, {Name: "city", Kind: index.Category}},
	}}
	b.vectors, b.queries = trial.Generated(rows, queries, dim, 1)
	unit(b.vectors)
	unit(b.queries)
	if b.bare, err = sdk.NewClient(ctx, sdk.Config{Address: addr}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bare.Close()) }()
	if b.store, err = b.open(ctx); err != nil {
		return err
	}
	defer func() { // the store may be another by now
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, b.store.Destroy(end), b.store.Close())
	}()
	server, err := b.store.Client().Server(ctx)
	if err != nil {
		return err
	}
	out := result{Build: buildinfo.Read(), Cores: runtime.GOMAXPROCS(0), Server: server.Version, Rows: rows, Dim: dim}
	for _, part := range []struct {
		name string
		do   func(context.Context) ([]ratio, error)
	}{{"writing", b.writing}, {"searching", b.searching}, {"hydrating", b.hydrating}, {"pushing", b.pushing}} {
		more, err := part.do(ctx)
		if err != nil {
			return err
		}
		if only == "" || only == part.name {
			out.Ratios = append(out.Ratios, more...)
		}
		if only == part.name { // it was the only one
			break
		}
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// open is a process that starts: nothing of the collections is in memory yet.
func (b *bench) open(ctx context.Context) (*milvus.Store, error) {
	return milvus.Open(ctx, milvus.Options{
		Client: client.Config{Address: b.addr}, Prefix: b.prefix, Search: milvus.SearchIndex,
		Logf: func(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) },
	})
}
