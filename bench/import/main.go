// Command import measures how fast a CSV file without text becomes durable,
// searchable customers: 100,000 rows of 12 columns into a flat engine, from
// looking at the file to the last batch on disk. In the same run it reads the
// file with encoding/csv alone, as a measure of the machine. It prints JSON
// for bench/results/import.json.
package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/internal/buildinfo"
)

type result struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	Go         string  `json:"go"`
	Commit     string  `json:"commit,omitempty"`
	Load       float64 `json:"load_1min"` // of the machine when the runs began: others' work takes its share
	Rows       int     `json:"rows"`
	Columns    int     `json:"columns"`
	FileMB     float64 `json:"file_mb"`
	Runs       int     `json:"runs"`
	RowsPerS   spread  `json:"rows_per_s"`
	CPUSeconds spread  `json:"cpu_s"` // user and system, of an import
	InspectS   spread  `json:"inspect_s"`
	ReadOnly   spread  `json:"ingest_alone_rows_per_s"`
	PlainCSV   spread  `json:"encoding_csv_rows_per_s"`
	Ratio      float64 `json:"rows_per_s_over_encoding_csv"`
	RestartS   float64 `json:"restart_s"`
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func summarise(x []float64) spread {
	slices.Sort(x)
	return spread{x[len(x)/2], x[0], x[len(x)-1]}
}

func main() {
	rows := flag.Int("rows", 100_000, "rows of the file")
	runs := flag.Int("runs", 7, "times it is imported, each into a new data directory")
	commit := flag.String("commit", buildinfo.Read().Commit, "commit that is measured, where the build does not know it")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the imports here")
	flag.Parse()
	if err := run(*rows, *runs, *commit, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "import:", err)
		os.Exit(1)
	}
}

func run(rows, runs int, commit, profile string) (err error) {
	dir, err := os.MkdirTemp("", "kindred-import")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "customers.csv")
	if err := generate(file, rows); err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := result{CPU: cpu(), Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), Commit: commit, Load: load1(), Rows: rows, Columns: len(header), FileMB: float64(info.Size()) / 1e6, Runs: runs}
	var whole, burnt, inspect, read, plain []float64
	for i := range runs {
		rate, err := perSecond(rows, func() error { return plainCSV(file) })
		if err != nil {
			return err
		}
		plain = append(plain, rate)
		if rate, err = perSecond(rows, func() error { return readOnly(file) }); err != nil {
			return err
		}
		read = append(read, rate)
		before, start := cpuTime(), time.Now()
		looked, err := load(file, filepath.Join(dir, fmt.Sprint("data", i)), rows)
		if err != nil {
			return err
		}
		whole = append(whole, float64(rows)/time.Since(start).Seconds())
		burnt, inspect = append(burnt, cpuTime()-before), append(inspect, looked.Seconds())
	}
	r.RowsPerS, r.CPUSeconds, r.InspectS = summarise(whole), summarise(burnt), summarise(inspect)
	r.ReadOnly, r.PlainCSV = summarise(read), summarise(plain)
	r.Ratio = r.RowsPerS.Median / r.PlainCSV.Median
	if r.RestartS, err = restart(filepath.Join(dir, "data0"), rows); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func perSecond(rows int, do func() error) (float64, error) {
	start := time.Now()
	err := do()
	return float64(rows) / time.Since(start).Seconds(), err
}

// load is what kindred import does: look at the file, make the collection,
// store every row. It returns how long the looking took.
func load(file, dir string, rows int) (looked time.Duration, err error) {
	ctx := context.Background()
	start := time.Now()
	plan, err := ingest.Inspect(ctx, file, ingest.Options{})
	if err != nil {
		return 0, err
	}
	looked = time.Since(start)
	store, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, svc.Close(ctx)) }()
	if _, _, err := svc.Put(ctx, collection.Config{Name: "bench", Schema: plan.Schema()}); err != nil {
		return 0, err
	}
	src, err := plan.Open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	out, err := svc.Import(ctx, "bench", src, nil)
	if err == nil && out.Accepted != rows {
		err = fmt.Errorf("%d of %d rows taken in, first refusals %v", out.Accepted, rows, out.Refused[:min(3, len(out.Refused))])
	}
	return looked, err
}

// readOnly types all rows and stores none.
func readOnly(file string) (err error) {
	ctx := context.Background()
	plan, err := ingest.Inspect(ctx, file, ingest.Options{})
	if err != nil {
		return err
	}
	src, err := plan.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	for {
		if _, err := src.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func plainCSV(file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := csv.NewReader(bufio.NewReaderSize(f, 1<<20))
	r.ReuseRecord = true
	for {
		if _, err := r.Read(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// restart opens what the first import left and counts it.
func restart(dir string, rows int) (seconds float64, err error) {
	ctx, start := context.Background(), time.Now()
	store, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, svc.Close(ctx)) }()
	n, err := svc.Count(ctx, "bench", collection.CountRequest{})
	if err == nil && n != rows {
		err = fmt.Errorf("%d of %d customers are there after a restart", n, rows)
	}
	return time.Since(start).Seconds(), err
}

var header = []string{"customer_id", "age", "gender", "region", "plan", "channel", "tenure_months", "monthly_spend", "visits_90d", "newsletter", "joined", "city"}

// generate writes a table as a shop would export it, with holes.
func generate(path string, rows int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	if _, err := fmt.Fprintln(w, strings.Join(header, ",")); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 1))
	hole := func(s string) string {
		if r.Float64() < 0.03 {
			return ""
		}
		return s
	}
	start := time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range rows {
		_, err := fmt.Fprintf(w, "C%07d,%s,%c,%s,%s,%s,%d,%.2f,%d,%s,%s,town-%03d\n", 1_000_000+i,
			hole(fmt.Sprint(18+r.IntN(70))), "fmx"[min(r.IntN(20)/9, 2)],
			hole([]string{"north", "south", "east", "west", "centre"}[r.IntN(5)]), []string{"free", "basic", "plus", "family", "premium"}[r.IntN(5)],
			hole([]string{"web", "app", "store", "phone"}[r.IntN(4)]), r.IntN(120), 60*r.ExpFloat64(), r.IntN(40),
			[]string{"yes", "no"}[r.IntN(2)], start.AddDate(0, 0, r.IntN(2500)).Format(time.DateOnly), r.IntN(400))
		if err != nil {
			return err
		}
	}
	return w.Flush()
}

// cpuTime is what this process has used, in seconds.
func cpuTime() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// load1 is the machine's load over the last minute, 0 where it is not known.
func load1() (v float64) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(b), &v); err != nil {
		return 0
	}
	return v
}

func cpu() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t:\n")
		}
	}
	return runtime.GOARCH
}
