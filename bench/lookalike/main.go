//go:build unix

// Command lookalike is our side of C8's second half: score every one of -rows
// customers of -dim int8 and take the best -members. It obeys lines on its
// standard input, one JSON answer each; run.py pairs it with NumPy and faiss.
//
//	time REPEATS      seconds of an audience, of each repeat: scored and selected in one
//	                  pass; and of the scan and the selection apart
//	many AUDIENCES    seconds of as many audiences in one pass, of one of them alone, and
//	                  whether each is the list that a pass of its own gives
//	columns REPEATS   seconds of an audience whose head has a table for each column too
//	members FILE      writes the members, best first: row numbers, little-endian uint32
//	scores FILE       writes everyone's scores, little-endian fp32
//	ceiling           bytes a second that all cores together read from memory
//
// Rows are made, not read: the codes of row r are the bytes of splitmix64 of
// its place, -128 becoming -127, and its scale is one over their length, as if
// the row had been stored; run.py makes the same. The table is the one that the
// durable engine scans, without the disk behind it, so a row costs what it
// costs in the server: id, version chain and id map included, and ten columns, five
// numbers and five categories.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/bench/ceiling"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/index/selection"
	"github.com/kindred-search/kindred/internal/simd"
)

type reply struct {
	Error    string    `json:"error,omitempty"`
	Audience []float64 `json:"audience,omitempty"` // seconds, as the next ones
	Scan     []float64 `json:"scan,omitempty"`
	Select   []float64 `json:"select,omitempty"`
	Together float64   `json:"together,omitempty"` // of many in one pass
	// Processor seconds of the same: of each audience, and of many in one pass.
	AudienceCPU []float64 `json:"audience_cpu,omitempty"`
	TogetherCPU float64   `json:"together_cpu,omitempty"`
	ManyMB      float64   `json:"many_mb,omitempty"` // resident at most while many were made
	Same        int       `json:"same,omitempty"`    // lists of many that equal those of a pass of their own
	HugeMB      float64   `json:"huge_mb,omitempty"` // of the process, in large pages
	Bandwidth   float64   `json:"bandwidth,omitempty"`
	Ready       bool      `json:"ready,omitempty"`
	FillS       float64   `json:"fill_s,omitempty"`
	PeakMB      float64   `json:"peak_mb,omitempty"` // resident, the most there was
	Features    string    `json:"simd,omitempty"`
	Go          string    `json:"go,omitempty"`
}

type server struct {
	view    *rows.View
	head    []float32
	members int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lookalike:", err)
		os.Exit(1)
	}
}

func run() error {
	n := flag.Int("rows", 10_000_000, "customers")
	dim := flag.Int("dim", 384, "numbers a row, a multiple of 8")
	members := flag.Int("members", 100_000, "customers wanted")
	profiled := flag.String("cpuprofile", "", "file for a profile of the processor, once the table is filled")
	flag.Parse()
	if *n < 1 || *dim < 8 || *dim%8 != 0 || *members < 1 {
		return errors.New("-rows and -members are at least 1, -dim is a multiple of 8")
	}
	start := time.Now()
	view, err := fill(*n, *dim)
	if err != nil {
		return err
	}
	filled := reply{Ready: true, FillS: time.Since(start).Seconds(), PeakMB: peakMB(), Features: simd.Features(), Go: runtime.Version()}
	s := &server{view: view, members: *members, head: make([]float32, *dim)}
	for j := range s.head {
		s.head[j] = float32(math.Sin(float64(j) + 1))
	}
	debug.FreeOSMemory()
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
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(filled); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r reply
		if err := s.do(strings.Fields(in.Text()), &r); err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

func (s *server) do(cmd []string, r *reply) error {
	switch {
	case len(cmd) == 1 && cmd[0] == "ceiling":
		r.Bandwidth = bandwidth()
		debug.FreeOSMemory()
		return nil
	case len(cmd) == 2 && cmd[0] == "members":
		best, err := s.best(r, s.request(1))
		if err != nil {
			return err
		}
		return write(cmd[1], best[0].Rows)
	case len(cmd) == 2 && cmd[0] == "scores":
		scores, err := s.apart(r)
		if err != nil {
			return err
		}
		return write(cmd[1], scores)
	case len(cmd) == 2 && cmd[0] == "time":
		n, err := strconv.Atoi(cmd[1])
		for range n {
			if _, err := s.best(r, s.request(1)); err != nil {
				return err
			}
			if _, err := s.apart(r); err != nil {
				return err
			}
		}
		r.HugeMB = hugeMB()
		return err
	case len(cmd) == 2 && cmd[0] == "many":
		n, err := strconv.Atoi(cmd[1])
		if err != nil {
			return err
		}
		return s.many(r, n)
	case len(cmd) == 2 && cmd[0] == "columns":
		n, err := strconv.Atoi(cmd[1])
		for range n {
			req := s.request(1)
			req.Bins = bins()
			tables := make([][]float32, len(req.Bins))
			for c := range tables {
				tables[c] = make([]float32, req.Bins[c].Count())
				for b := range tables[c] {
					tables[c][b] = float32(math.Sin(float64(c*100+b))) / 100
				}
			}
			req.Sets[0].Heads[0].Tables = tables
			if _, err := s.best(r, req); err != nil {
				return err
			}
		}
		return err
	}
	return fmt.Errorf("command %q is not known", cmd)
}

// request is of n audiences, the first of which is what is compared.
func (s *server) request(n int) index.BestRequest {
	var req index.BestRequest
	for k := range n {
		v := slices.Clone(s.head)
		for j := range v {
			if k > 0 {
				v[j] = float32(math.Sin(float64(j+1) * (1 + float64(k)/8)))
			}
		}
		req.Sets = append(req.Sets, index.HeadSet{Heads: []index.Head{{Vector: v}}})
		req.Size = append(req.Size, s.members)
	}
	return req
}

// best is what is compared: the best of everyone, in order.
func (s *server) best(r *reply, req index.BestRequest) ([]index.Ranked, error) {
	start, cpu := time.Now(), processor()
	best, err := s.view.Best(context.Background(), req)
	r.Audience, r.AudienceCPU = append(r.Audience, time.Since(start).Seconds()), append(r.AudienceCPU, processor()-cpu)
	return best, err
}

// apart scores everyone first and selects then.
func (s *server) apart(r *reply) ([]float32, error) {
	start := time.Now()
	scores, err := s.view.Scan(context.Background(), s.request(1).ScanRequest)
	if err != nil {
		return nil, err
	}
	r.Scan = append(r.Scan, time.Since(start).Seconds())
	start = time.Now()
	selection.Select(scores[0], s.members, selection.Options{Tie: s.view.Tie})
	r.Select = append(r.Select, time.Since(start).Seconds())
	return scores[0], nil
}

// many makes n audiences in one pass, and each alone.
func (s *server) many(r *reply, n int) error {
	req := s.request(n)
	// An error says that the system does not count anew: the figure is then of all so far.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	start, cpu := time.Now(), processor()
	together, err := s.view.Best(context.Background(), req)
	if err != nil {
		return err
	}
	r.Together, r.TogetherCPU, r.ManyMB = time.Since(start).Seconds(), processor()-cpu, highMB()
	for k := range n {
		one := req
		one.Sets, one.Size = req.Sets[k:k+1], req.Size[k:k+1]
		alone, err := s.best(r, one)
		if err != nil {
			return err
		}
		if slices.Equal(alone[0].Rows, together[k].Rows) && slices.Equal(alone[0].Scores, together[k].Scores) {
			r.Same++
		}
	}
	return nil
}

// bandwidth reads a gigabyte three times.
func bandwidth() float64 {
	const times = 3
	buf := ceiling.Buffer(1 << 30)
	var took time.Duration
	for range times {
		took += ceiling.Read(buf)
	}
	return float64(times*len(buf)) / took.Seconds()
}

// fill makes the table, a batch at a time, the codes of a batch on all cores.
func fill(n, dim int) (*rows.View, error) {
	debug.SetGCPercent(10) // the table is nearly all there is, and twice it may be too much
	spec := index.Spec{Name: "bench", Dim: dim}
	for _, b := range bins() {
		spec.Columns = append(spec.Columns, index.Column{Name: b.Column, Kind: b.Kind})
	}
	t := rows.New(spec, rows.Options{})
	const batch = 16384
	codes := make([]int8, batch*dim)
	in := make([]rows.Prepared, batch)
	for lo := 0; lo < n; lo += batch {
		in = in[:min(batch, n-lo)]
		var wg sync.WaitGroup
		for w := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := w; i < len(in); i += runtime.GOMAXPROCS(0) {
					c := codes[i*dim : (i+1)*dim]
					in[i] = rows.Prepared{ID: fmt.Sprintf("customer-%08d", lo+i), Vec: rows.Vector{Codes: c, Scale: row(c, lo+i)}, Values: values(in[i].Values[:0], lo+i)}
				}
			})
		}
		wg.Wait()
		if err := t.Apply(in, 0); err != nil {
			return nil, err
		}
	}
	return t.Snapshot(), nil
}

// row writes the codes of row r and returns its scale.
func row(c []int8, r int) float32 {
	var sum int64
	for w := 0; w < len(c); w += 8 {
		z := splitmix64(uint64(r*(len(c)/8) + w/8))
		for b := range 8 {
			x := max(int8(z>>(8*b)), -127)
			c[w+b] = x
			sum += int64(x) * int64(x)
		}
	}
	if sum == 0 {
		return 0
	}
	return float32(1 / math.Sqrt(float64(sum)))
}

const categories = 20

// bins are of ten columns, five numbers and five categories.
func bins() []index.Bins {
	var out []index.Bins
	for c := range 10 {
		b := index.Bins{Column: fmt.Sprintf("c%d", c), Kind: index.Number}
		if c < 5 {
			for e := 1; e < 32; e++ {
				b.Edges = append(b.Edges, float64(e)*1000/32)
			}
		} else {
			b.Kind = index.Category
			for v := range categories {
				b.Values = append(b.Values, category(v))
			}
		}
		out = append(out, b)
	}
	return out
}

func category(v int) string { return fmt.Sprintf("value-%02d", v) }

// values appends the columns of row r.
func values(out []index.Value, r int) []index.Value {
	for c := range 10 {
		x := splitmix64(uint64(r)<<4 | uint64(c))
		if c < 5 {
			out = append(out, index.Value{Kind: index.Number, Num: float64(x % 1000)})
		} else {
			out = append(out, index.Value{Kind: index.Category, Str: category(int(x % categories))})
		}
	}
	return out
}

// splitmix64 mixes a counter to 64 random bits (Steele, Lea and Flood 2014).
func splitmix64(i uint64) uint64 {
	z := (i + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func write(path string, data any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(binary.Write(w, binary.LittleEndian, data), w.Flush(), f.Close())
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

// highMB is the most memory since the count was begun anew, or else peakMB.
func highMB() float64 {
	if kb := proc("/proc/self/status", "VmHWM:"); kb > 0 {
		return kb * 1024 / 1e6
	}
	return peakMB()
}

// hugeMB is how much of the process lies in large pages, 0 where the system does not say.
func hugeMB() float64 { return proc("/proc/self/smaps_rollup", "AnonHugePages:") * 1024 / 1e6 }

// proc is the number behind a name in a file of the system's, 0 where there is none.
func proc(file, name string) float64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			x, err := strconv.ParseFloat(words[1], 64)
			if err == nil {
				return x
			}
		}
	}
	return 0
}
