// Command scan measures the exact scan of one million rows of 384 int8: scan,
// selection of 100,000, restart, resident memory, and the read bandwidth of
// the same machine in the same run. It prints JSON for bench/results/scan.json.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/selection"
)

const (
	rows  = 1_000_000
	dim   = 384
	batch = 10_000
	want  = 100_000
)

type result struct {
	CPU          string  `json:"cpu"`
	Cores        int     `json:"cores"`
	Go           string  `json:"go"`
	Rows         int     `json:"rows"`
	Dim          int     `json:"dim"`
	Runs         int     `json:"runs"`
	ScanMS       spread  `json:"scan_ms"`
	SelectMS     spread  `json:"select_100000_ms"`
	ReadGBs      spread  `json:"read_bandwidth_gb_s"`
	ScanGBs      float64 `json:"scan_gb_s"`
	OfCeiling    float64 `json:"scan_share_of_read_bandwidth"`
	ImportS      float64 `json:"import_s"`
	RestartS     float64 `json:"restart_s"`
	ResidentMB   float64 `json:"resident_mb"`
	ResidentOver float64 `json:"resident_over_vectors"`
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
	r := result{CPU: cpu(), Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), Rows: rows, Dim: dim, Runs: 11}
	start := time.Now()
	if err := fill(ctx, dir); err != nil {
		return err
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
	debug.FreeOSMemory()
	r.ResidentMB = resident()
	r.ResidentOver = r.ResidentMB * 1e6 / (rows * dim)
	snap, err := e.Snapshot(ctx)
	if err != nil {
		return err
	}
	head := index.Head{Vector: vector(rand.New(rand.NewPCG(2, 2)))}
	buf := make([]uint64, rows*dim/8)
	for i := range buf {
		buf[i] = uint64(i)
	}
	var scan, sel, read []float64
	for range r.Runs {
		read = append(read, float64(len(buf)*8)/1e9/(readAll(buf)/1e3))
		start := time.Now()
		scores, err := snap.Scan(ctx, index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{head}}}})
		if err != nil {
			return err
		}
		scan = append(scan, ms(start))
		start = time.Now()
		best := selection.Select(scores[0], want, selection.Options{Tie: func(a, b uint32) int { return strings.Compare(snap.ID(a), snap.ID(b)) }})
		sel = append(sel, ms(start))
		if len(best) != want {
			return fmt.Errorf("selected %d of %d", len(best), want)
		}
	}
	r.ScanMS, r.SelectMS, r.ReadGBs = summarise(scan), summarise(sel), summarise(read)
	r.ScanGBs = rows * dim / 1e6 / r.ScanMS.Median
	r.OfCeiling = r.ScanGBs / r.ReadGBs.Median
	if err := snap.Close(); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func ms(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1e3 }

func vector(rng *rand.Rand) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

func fill(ctx context.Context, dir string) error {
	s, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return err
	}
	e, err := s.Create(ctx, index.Spec{Name: "bench", Dim: dim})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for lo := 0; lo < rows; lo += batch {
		in := make([]index.Row, batch)
		for i := range in {
			in[i] = index.Row{ID: fmt.Sprintf("customer-%07d", lo+i), Vector: vector(rng)}
		}
		if err := e.Upsert(ctx, in); err != nil {
			return err
		}
	}
	return s.Close()
}

// readAll sums the buffer on all cores, eight words at a time, and returns
// milliseconds.
func readAll(buf []uint64) float64 {
	start := time.Now()
	n := runtime.GOMAXPROCS(0)
	sums := make([]uint64, n)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			part := buf[len(buf)*w/n : len(buf)*(w+1)/n]
			var a, b, c, d uint64
			for ; len(part) >= 8; part = part[8:] {
				a += part[0] + part[4]
				b += part[1] + part[5]
				c += part[2] + part[6]
				d += part[3] + part[7]
			}
			sums[w] = a + b + c + d
		})
	}
	wg.Wait()
	return ms(start)
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

// resident returns the process's resident memory in MB.
func resident() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize()) / 1e6
}
