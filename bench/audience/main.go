//go:build unix

// Command audience times whole audiences end to end on generated customers: seeds
// resolved, methods compared by hold-out, everyone scored, the list selected, judged
// and explained. It prints one JSON object.
//
// Customers have -dim numbers of text held as int8 and ten columns: five numbers,
// three categories, a yes-no and a set. A tenth of them are of the kind that seeds are
// drawn from: nearer to one direction of the text, and shifted in four columns.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/internal/simd"
	"github.com/kindred-search/kindred/profile"
)

// result is what is printed.
type result struct {
	What     string   `json:"what"`
	Date     string   `json:"date"`
	Go       string   `json:"go"`
	Features string   `json:"simd"`
	Cores    int      `json:"cores"`
	Load     string   `json:"load_average"` // at the start, where the system says
	Rows     int      `json:"rows"`
	Dim      int      `json:"dim"`
	Columns  int      `json:"columns"`
	Runs     []*reply `json:"runs"`
}

type reply struct {
	Seeds   int                `json:"seeds"`
	Members int                `json:"members"`
	Method  string             `json:"method"`
	Chosen  string             `json:"chosen"`
	AUC     float64            `json:"auc"`
	Lift    float64            `json:"lift"`
	Verdict string             `json:"verdict"`
	Seconds float64            `json:"seconds"`
	CPU     float64            `json:"processor_seconds"`
	Stages  map[string]float64 `json:"stage_seconds"`
	BaseMB  float64            `json:"table_mb"` // resident before
	PeakMB  float64            `json:"peak_mb"`  // resident, the most there was
	Notes   []string           `json:"notes"`
	SHA256  string             `json:"result_sha256"` // of the whole result: the same for the same request
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "audience:", err)
		os.Exit(1)
	}
}

func run() error {
	n := flag.Int("rows", 1_000_000, "customers")
	dim := flag.Int("dim", 384, "numbers a row")
	members := flag.Int("members", 100_000, "customers wanted")
	seeds := flag.String("seeds", "200,1000", "numbers of seeds")
	method := flag.String("method", audience.Auto, "method")
	profiled := flag.String("cpuprofile", "", "file for a profile of the processor")
	flag.Parse()
	if *n < 1000 || *dim < 1 || *members < 1 {
		return fmt.Errorf("-rows is at least 1000, -dim and -members at least 1")
	}
	view, kind, err := fill(*n, *dim)
	if err != nil {
		return err
	}
	debug.SetGCPercent(100)
	debug.FreeOSMemory()
	pop := audience.Population{Snap: view, Spec: view.Spec(), Schema: schema()}
	if *profiled != "" {
		f, err := os.Create(*profiled)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	load, _ := os.ReadFile("/proc/loadavg") // empty elsewhere
	out := result{
		What: "whole audiences: seeds resolved, methods compared, everyone scored, selected, judged and explained",
		Date: time.Now().UTC().Format(time.DateOnly), Go: runtime.Version(), Features: simd.Features(), Cores: runtime.GOMAXPROCS(0),
		Load: strings.TrimSpace(string(load)), Rows: *n, Dim: *dim, Columns: len(view.Spec().Columns),
	}
	for _, word := range strings.Split(*seeds, ",") {
		k, err := strconv.Atoi(word)
		if err != nil {
			return fmt.Errorf("-seeds: %w", err)
		}
		if k > len(kind) {
			return fmt.Errorf("-seeds: %d: only %d customers are of the kind", k, len(kind))
		}
		r, err := one(pop, kind[:k], *members, *method)
		if err != nil {
			return err
		}
		out.Runs = append(out.Runs, r)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func one(pop audience.Population, kind []string, members int, method string) (*reply, error) {
	req := audience.Request{Size: audience.Size{Count: &members}, Method: method}
	for _, id := range kind {
		req.Seeds.IDs = append(req.Seeds.IDs, audience.SeedRef{ID: id})
	}
	r := &reply{Seeds: len(kind), Method: method, Stages: map[string]float64{}, BaseMB: resident()}
	runtime.GC()
	start, cpu := time.Now(), processor()
	stage, since := "resolving", start
	mark := func(next string) {
		now := time.Now()
		r.Stages[stage] += now.Sub(since).Seconds()
		stage, since = next, now
	}
	res, err := audience.Build(context.Background(), pop, req, func(now string, _, _ int) {
		if now != stage {
			mark(now)
		}
	})
	if err != nil {
		return nil, err
	}
	mark("")
	r.Seconds, r.CPU = time.Since(start).Seconds(), processor()-cpu
	r.Members, r.Chosen, r.Verdict = len(res.Members), res.Manifest.Method, res.Quality.Verdict
	r.AUC, r.Lift = res.Quality.Measure.AUC.Value, res.Quality.Measure.Sizes[0].Lift.Value
	r.PeakMB, r.Notes = peakMB(), res.Doctor.Notes
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(res); err != nil {
		return nil, err
	}
	r.SHA256 = hex.EncodeToString(h.Sum(nil))
	return r, nil
}

var numbers = []string{"age", "income", "visits", "basket", "tenure"}

func schema() profile.Schema {
	s := profile.Schema{}
	for _, name := range numbers {
		s.Fields = append(s.Fields, profile.Field{Name: name, Type: profile.TypeNumber})
	}
	for _, name := range []string{"city", "channel", "plan"} {
		s.Fields = append(s.Fields, profile.Field{Name: name, Type: profile.TypeCategory})
	}
	s.Fields = append(s.Fields, profile.Field{Name: "member", Type: profile.TypeBool}, profile.Field{Name: "tags", Type: profile.TypeSet})
	return s
}

// fill makes the table, a batch at a time, the rows of a batch on all cores, and the
// ids of the kind that seeds are of, in a random but fixed order.
func fill(n, dim int) (*rows.View, []string, error) {
	debug.SetGCPercent(20)
	t := rows.New(index.Spec{Name: "bench", Dim: dim, Columns: schema().Columns()}, rows.Options{})
	direction := normal(rand.New(rand.NewPCG(7, 7)), dim)
	const batch = 16384
	in, is := make([]rows.Prepared, batch), make([]bool, batch)
	var kind []string
	for lo := 0; lo < n; lo += batch {
		in = in[:min(batch, n-lo)]
		var wg sync.WaitGroup
		for w := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := w; i < len(in); i += runtime.GOMAXPROCS(0) {
					in[i], is[i] = customer(lo+i, direction)
				}
			})
		}
		wg.Wait()
		for i := range in {
			if is[i] {
				kind = append(kind, in[i].ID)
			}
		}
		if err := t.Apply(in, 0); err != nil {
			return nil, nil, err
		}
	}
	rng := rand.New(rand.NewPCG(8, 8))
	rng.Shuffle(len(kind), func(i, j int) { kind[i], kind[j] = kind[j], kind[i] })
	return t.Snapshot(), kind, nil
}

func normal(rng *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// customer makes row i; the same i makes the same customer.
func customer(i int, direction []float32) (rows.Prepared, bool) {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	kind := rng.IntN(10) == 0
	shift, near := 0.0, float32(0)
	if kind {
		shift, near = 0.7, 0.08
	}
	v := normal(rng, len(direction))
	for j := range v {
		v[j] += near * direction[j]
	}
	number := func(x float64) index.Value { return index.Value{Kind: index.Number, Num: x} }
	values := []index.Value{
		number(40 + 12*(rng.NormFloat64()+shift)),
		number(math.Exp(10 + 0.6*(rng.NormFloat64()+shift))),
		number(math.Floor(rng.ExpFloat64() * (3 + 2*shift))),
		number(20 * rng.ExpFloat64()),
		number(rng.Float64() * 10),
		{Kind: index.Category, Str: fmt.Sprintf("city-%03d", int(200*math.Pow(rng.Float64(), 2)))},
		{Kind: index.Category, Str: []string{"shop", "web", "app", "phone"}[rng.IntN(4)]},
		{Kind: index.Category, Str: []string{"free", "basic", "plus"}[min(2, int(3*math.Pow(rng.Float64(), 1/(1+shift))))]},
		{Kind: index.Bool, Num: float64(rng.IntN(2))},
		{Kind: index.Set, Set: []string{"t" + strconv.Itoa(rng.IntN(8)), "u" + strconv.Itoa(rng.IntN(20))}},
	}
	return rows.Prepared{ID: fmt.Sprintf("customer-%08d", i), Vec: rows.EncodeVector(index.Int8, v), Values: values}, kind
}

func usage() syscall.Rusage {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for a bad argument alone
	return u
}

// processor is the seconds of processor time that this process has had.
func processor() float64 {
	u := usage()
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// peakMB is the most memory that this process has held at once.
func peakMB() float64 {
	unit := 1024.0 // kilobytes
	if runtime.GOOS == "darwin" {
		unit = 1
	}
	return float64(usage().Maxrss) * unit / 1e6
}

// resident is the memory that the process holds from the runtime's view.
func resident() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys-m.HeapReleased) / 1e6
}
