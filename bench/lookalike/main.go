//go:build unix

// Command lookalike is our side of C8's second half: score every one of -rows
// customers of -dim int8 and take the best -members. It obeys lines on its
// standard input, one JSON answer each; run.py pairs it with NumPy and faiss.
//
//	time REPEATS      seconds of the scan and of the selection, of each repeat
//	members FILE      writes the members, best first: row numbers, little-endian uint32
//	scores FILE       writes everyone's scores, little-endian fp32
//	ceiling           bytes a second that all cores together read from memory
//
// Rows are made, not read: the codes of row r are the bytes of splitmix64 of
// its place, -128 becoming -127, and its scale is one over their length, as if
// the row had been stored; run.py makes the same. The table is the one that the
// durable engine scans, without the disk behind it, so a row costs what it
// costs in the server: id, version chain and id map included.
package main

import (
	"bufio"
	"bytes"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/index/selection"
	"github.com/kindred-search/kindred/internal/simd"
)

type reply struct {
	Error     string    `json:"error,omitempty"`
	Scan      []float64 `json:"scan,omitempty"`   // seconds
	Select    []float64 `json:"select,omitempty"` // seconds
	Bandwidth float64   `json:"bandwidth,omitempty"`
	Ready     bool      `json:"ready,omitempty"`
	FillS     float64   `json:"fill_s,omitempty"`
	PeakMB    float64   `json:"peak_mb,omitempty"` // resident, the most there was
	Features  string    `json:"simd,omitempty"`
	Go        string    `json:"go,omitempty"`
}

type server struct {
	view    *rows.View
	head    []float32
	members int
	buf     []byte // for the ceiling
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
	s := &server{view: view, members: *members, head: make([]float32, *dim), buf: make([]byte, 1<<30)}
	for i := range s.buf {
		s.buf[i] = 1 // else all of it is one page of zeros
	}
	for j := range s.head {
		s.head[j] = float32(math.Sin(float64(j) + 1))
	}
	debug.FreeOSMemory()
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
		r.Bandwidth = s.bandwidth()
		return nil
	case len(cmd) == 2 && cmd[0] == "members":
		_, best, err := s.build(r)
		if err != nil {
			return err
		}
		return write(cmd[1], best)
	case len(cmd) == 2 && cmd[0] == "scores":
		scores, _, err := s.build(r)
		if err != nil {
			return err
		}
		return write(cmd[1], scores)
	case len(cmd) == 2 && cmd[0] == "time":
		n, err := strconv.Atoi(cmd[1])
		for range n {
			if _, _, err := s.build(r); err != nil {
				return err
			}
		}
		return err
	}
	return fmt.Errorf("command %q is not known", cmd)
}

// build is what is compared: everyone's score, and the best of them in order.
func (s *server) build(r *reply) ([]float32, []uint32, error) {
	start := time.Now()
	scores, err := s.view.Scan(context.Background(), index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: s.head}}}}})
	if err != nil {
		return nil, nil, err
	}
	r.Scan = append(r.Scan, time.Since(start).Seconds())
	start = time.Now()
	best := selection.Select(scores[0], s.members, selection.Options{Tie: s.view.Tie})
	r.Select = append(r.Select, time.Since(start).Seconds())
	return scores[0], best, nil
}

// bandwidth reads a gigabyte three times on all cores with the widest loop that
// the standard library has: the search for a byte that is not there.
func (s *server) bandwidth() float64 {
	const times = 3
	n := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range n {
		wg.Go(func() {
			for range times {
				if bytes.IndexByte(s.buf[len(s.buf)/n*w:len(s.buf)/n*(w+1)], 0) >= 0 {
					panic("lookalike: the buffer of ones holds a zero")
				}
			}
		})
	}
	wg.Wait()
	return float64(times*len(s.buf)) / time.Since(start).Seconds()
}

// fill makes the table, a batch at a time, the codes of a batch on all cores.
func fill(n, dim int) (*rows.View, error) {
	debug.SetGCPercent(10) // the table is nearly all there is, and twice it may be too much
	t := rows.New(index.Spec{Name: "bench", Dim: dim}, rows.Options{})
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
					in[i] = rows.Prepared{ID: fmt.Sprintf("customer-%08d", lo+i), Vec: rows.Vector{Codes: c, Scale: row(c, lo+i)}}
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

// peakMB is the most memory that this process has held at once.
func peakMB() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	unit := 1024.0 // kilobytes
	if runtime.GOOS == "darwin" {
		unit = 1
	}
	return float64(u.Maxrss) * unit / 1e6
}
