// Command scan measures the exact scan of one million rows of 384 int8: scan,
// selection of 100,000, reach curve, several audiences in one scan, restart,
// resident memory, and the read bandwidth of the same machine in the same run.
// It prints JSON for bench/results/scan.json. Build it first (go build -o FILE
// ./bench/scan), so that the commit is in it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/bench/ceiling"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/selection"
	"github.com/kindred-search/kindred/internal/buildinfo"
	"github.com/kindred-search/kindred/internal/heap"
)

const (
	rows  = 1_000_000
	dim   = 384
	batch = 10_000
	want  = 100_000
)

type result struct {
	What     string            `json:"what"`
	Date     string            `json:"date"`
	Build    buildinfo.Info    `json:"build"`
	Modules  map[string]string `json:"modules"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	System   string            `json:"system"`
	LoadAvg  [2]string         `json:"load_average"` // before and after; other processes ran if it is above the cores
	Rows     int               `json:"rows"`
	Dim      int               `json:"dim"`
	Runs     int               `json:"runs"`
	ScanMS   spread            `json:"scan_ms"`
	SelectMS spread            `json:"select_100000_ms"`
	CurveMS  spread            `json:"curve_200_ms"`
	ReadGBs  spread            `json:"read_bandwidth_gb_s"`
	// Paired: each scan against the mean of the reads just before and after it.
	OfCeiling spread `json:"scan_share_of_read_bandwidth"`
	// Four head sets in one scan, over four scans of one each.
	Shared    spread  `json:"four_sets_in_one_scan_over_four_scans"`
	ImportS   float64 `json:"import_s"`
	RestartS  float64 `json:"restart_s"`
	VectorsMB float64 `json:"stored_vectors_mb"`
	BoundMB   float64 `json:"resident_bound_mb"` // 1.6 x the vectors + 300
	Resident  struct {
		Import    float64 `json:"peak_of_import"`
		Restart   float64 `json:"after_restart"`       // as the process stands, nothing freed by hand
		Peak      float64 `json:"peak_of_restart"`     // the most there was until then
		Freed     float64 `json:"after_free"`          // with free memory handed back
		Rewritten float64 `json:"after_rewriting_40%"` // rows written anew, then freed
		PeakAll   float64 `json:"peak_of_rewriting"`
	} `json:"resident_mb"`
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
	fillDir := flag.String("fill", "", "fill this data directory and stop (the command calls itself so)")
	flag.Parse()
	heap.Pace() // as the program does
	run := run
	if *fillDir != "" {
		run = func() error {
			err := fill(context.Background(), *fillDir, rows, 1)
			fmt.Println(memory("VmHWM"))
			return err
		}
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scan:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	dir, err := os.MkdirTemp("", "kindred-scan")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	ctx := context.Background()
	r := result{
		What: "exact scan of 1,000,000 x 384 int8, selection, curve, restart and memory; times interleaved with reads of as many bytes in the same run",
		Date: time.Now().UTC().Format(time.DateOnly), Build: buildinfo.Read(), Modules: modules("github.com/cockroachdb/pebble/v2", "github.com/RoaringBitmap/roaring/v2"),
		CPU: cpu(), Cores: runtime.GOMAXPROCS(0), System: system(), Rows: rows, Dim: dim, Runs: 15,
	}
	r.LoadAvg[0] = firstLine("/proc/loadavg")
	r.VectorsMB = float64(rows) * (dim + 4) / 1e6
	r.BoundMB = 1.6*r.VectorsMB + 300
	start := time.Now()
	child := exec.Command(os.Args[0], "-fill", dir) // a process of its own, so that its memory is not counted
	child.Stderr = os.Stderr
	peak, err := child.Output()
	if err == nil {
		_, err = fmt.Sscan(string(peak), &r.Resident.Import)
	}
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	r.ImportS = time.Since(start).Seconds()
	start = time.Now()
	s, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return err
	}
	e, err := s.Open(ctx, "bench")
	if err != nil {
		return err
	}
	r.RestartS = time.Since(start).Seconds()
	r.Resident.Restart, r.Resident.Peak = memory("VmRSS"), memory("VmHWM")
	debug.FreeOSMemory()
	r.Resident.Freed = memory("VmRSS")
	if err := rewrite(ctx, e); err != nil {
		return err
	}
	r.Resident.PeakAll = memory("VmHWM")
	debug.FreeOSMemory()
	r.Resident.Rewritten = memory("VmRSS")
	if err := measure(ctx, e, &r); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	r.LoadAvg[1] = firstLine("/proc/loadavg")
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// measure times scans between reads of as many bytes, and what follows a scan.
func measure(ctx context.Context, e index.Engine, r *result) error {
	snap, err := e.Snapshot(ctx)
	if err != nil {
		return err
	}
	var sets []index.HeadSet
	for i := range 4 {
		sets = append(sets, index.HeadSet{Heads: []index.Head{{Vector: vector(rand.New(rand.NewPCG(2, uint64(i))))}}})
	}
	timed := func(sets []index.HeadSet) ([][]float32, float64, error) {
		start := time.Now()
		scores, err := snap.Scan(ctx, index.ScanRequest{Sets: sets})
		return scores, ms(start), err
	}
	buf := ceiling.Buffer(snap.Len() * dim)
	bytes := float64(len(buf)) / 1e6 // MB, that is GB/s by ms
	var scan, sel, curve, read, share, shared []float64
	for range r.Runs {
		before := ceiling.Read(buf).Seconds() * 1e3
		scores, took, err := timed(sets[:1])
		if err != nil {
			return err
		}
		after := ceiling.Read(buf).Seconds() * 1e3
		scan = append(scan, took)
		read = append(read, bytes/before, bytes/after)
		share = append(share, (before+after)/2/took)
		start := time.Now()
		best := selection.Select(scores[0], want, selection.Options{Tie: func(a, b uint32) int { return strings.Compare(snap.ID(a), snap.ID(b)) }})
		sel = append(sel, ms(start))
		start = time.Now()
		points := selection.Curve(scores[0], 200)
		curve = append(curve, ms(start))
		if len(best) != want || points[len(points)-1].Size != rows {
			return fmt.Errorf("selected %d of %d; the curve ends at %d", len(best), want, points[len(points)-1].Size)
		}
		all, together, err := timed(sets)
		if err != nil {
			return err
		}
		apart := 0.0
		for i := range sets {
			one, took, err := timed(sets[i : i+1])
			if err != nil {
				return err
			}
			if !slices.Equal(one[0], all[i]) {
				return fmt.Errorf("set %d scores otherwise in a shared scan", i)
			}
			apart += took
		}
		shared = append(shared, together/apart)
	}
	r.ScanMS, r.SelectMS, r.CurveMS, r.ReadGBs = summarise(scan), summarise(sel), summarise(curve), summarise(read)
	r.OfCeiling, r.Shared = summarise(share), summarise(shared)
	return snap.Close()
}

func ms(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1e3 }

func vector(rng *rand.Rand) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

func fill(ctx context.Context, dir string, n int, seed uint64) error {
	s, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return err
	}
	e, err := s.Create(ctx, index.Spec{Name: "bench", Dim: dim})
	if err != nil {
		return err
	}
	if err := upsert(ctx, e, n, seed); err != nil {
		return err
	}
	return s.Close()
}

// rewrite writes two fifths of the rows anew: enough for the table to copy its
// live rows together.
func rewrite(ctx context.Context, e index.Engine) error { return upsert(ctx, e, rows*2/5, 3) }

func upsert(ctx context.Context, e index.Engine, n int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for lo := 0; lo < n; lo += batch {
		in := make([]index.Row, batch)
		for i := range in {
			in[i] = index.Row{ID: fmt.Sprintf("customer-%07d", lo+i), Vector: vector(rng)}
		}
		if err := e.Upsert(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

func cpu() string {
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		return name
	}
	return runtime.GOARCH
}

// system names the kernel.
func system() string {
	return strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + firstLine("/proc/sys/kernel/osrelease"))
}

// modules returns the versions of dependencies that the figures hang on.
func modules(paths ...string) map[string]string {
	out := map[string]string{}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, m := range build.Deps {
			if slices.Contains(paths, m.Path) {
				out[m.Path] = m.Version
			}
		}
	}
	return out
}

// memory returns a figure of the process's memory in MB, 0 where the system
// does not tell.
func memory(name string) float64 {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(field("/proc/self/status", name), " kB"), 64)
	if err != nil {
		return 0
	}
	return kb * 1024 / 1e6
}

// field returns what follows a name and a colon in a file of such lines.
func field(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func firstLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
