// Command hnsw is our side of the comparison of point look-ups by graph (C7 of
// the design) with hnswlib, faiss and usearch; run.py is the other side and
// writes the result.
//
//	hnsw data -data DIR -out FILE     embeds sentences of real reviews
//	hnsw serve -vectors FILE ...      builds a graph and answers commands
//
// Vectors are float32, little-endian, row by row, of unit length.
package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/hnsw"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: hnsw data|serve [flags]")
		os.Exit(2)
	}
	run := map[string]func([]string) error{"data": data, "serve": serve}[os.Args[1]]
	if run == nil {
		fmt.Fprintf(os.Stderr, "hnsw: %q is neither data nor serve\n", os.Args[1])
		os.Exit(2)
	}
	if err := run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "hnsw:", err)
		os.Exit(1)
	}
}

// sources are reviews and posts: file and column.
var sources = [][2]string{
	{"womens_clothing/reviews.csv.gz", "Review Text"},
	{"amazon_musical/reviews.csv.gz", "reviewText"},
	{"yelp_10k/yelp.csv.gz", "text"},
	{"airline_tweets/tweets.csv.gz", "text"},
}

var sentence = regexp.MustCompile(`[.!?\n]+\s*`)

// data embeds distinct sentences of the sources, in random order.
func data(args []string) error {
	fs := flag.NewFlagSet("data", flag.ExitOnError)
	dir := fs.String("data", "", "folder of the data sets")
	name := fs.String("model", "all-MiniLM-L6-v2", "model")
	rows := fs.Int("rows", 101_000, "sentences")
	out := fs.String("out", "", "file of vectors")
	if err := fs.Parse(args); err != nil {
		return err
	}
	seen := map[string]bool{}
	var texts []string
	for _, s := range sources {
		cells, err := column(filepath.Join(*dir, s[0]), s[1])
		if err != nil {
			return err
		}
		for _, cell := range cells {
			for _, part := range sentence.Split(cell, -1) {
				part = strings.TrimSpace(part)
				if len(part) >= 20 && len(part) <= 160 && !seen[part] {
					seen[part] = true
					texts = append(texts, part)
				}
			}
		}
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
	if len(texts) < *rows {
		return fmt.Errorf("%d distinct sentences, %d wanted", len(texts), *rows)
	}
	texts = texts[:*rows]
	path, ok := models.Find(*name)
	if !ok {
		return fmt.Errorf("model %s is not here: kindred models pull %s", *name, *name)
	}
	m, err := embed.Open(path, embed.Options{})
	if err != nil {
		return err
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for lo := 0; lo < len(texts); lo += 2000 {
		res, err := m.Encode(context.Background(), texts[lo:min(lo+2000, len(texts))], embed.EncodeOptions{})
		if err != nil {
			return err
		}
		if err := binary.Write(w, binary.LittleEndian, res.Vectors); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "\r%d of %d sentences", lo, len(texts))
	}
	return errors.Join(w.Flush(), f.Close())
}

func column(path, name string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(z)
	r.LazyQuotes, r.FieldsPerRecord = true, -1
	head, err := r.Read()
	if err != nil {
		return nil, err
	}
	at := -1
	for i, h := range head {
		if h == name {
			at = i
		}
	}
	if at < 0 {
		return nil, fmt.Errorf("%s has no column %q", path, name)
	}
	var out []string
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if at < len(rec) {
			out = append(out, rec[at])
		}
	}
}

// reply is the answer to a command, one line of JSON.
type reply struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	IDs     [][]int `json:"ids,omitempty"`
	Filters []share `json:"filters,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// share is what searches under a filter that allows a share of the rows are like.
type share struct {
	Allowed float64 `json:"allowed"`
	Recall  float64 `json:"recall"` // against Query.Exact
	MS      float64 `json:"ms"`     // a query, mean
	ExactMS float64 `json:"exact_ms"`
}

type server struct {
	vecs    [][]float32
	rows    int
	queries [][]float32
	spec    index.Spec
	opt     hnsw.Options
	k       int

	store index.Store
	e     *hnsw.Engine
}

// serve answers lines of standard input:
//
//	build ROWS WORKERS            builds a graph of the first ROWS rows
//	search EFFORT WORKERS         runs all queries
//	ids EFFORT                    the same, with the answers
//	filters QUERIES               searches under filters of many widths
//
// The queries are the last -queries vectors of the file.
func serve(args []string) error {
	fs := flag.NewFlagSet("serve", flag.ExitOnError)
	path := fs.String("vectors", "", "file of vectors")
	dim := fs.Int("dim", 384, "numbers a vector")
	queries := fs.Int("queries", 1000, "queries, at the end of the file")
	precision := fs.String("precision", "fp16", "int8, fp16 or fp32")
	m := fs.Int("m", 16, "links")
	build := fs.Int("build", 200, "candidates while building")
	k := fs.Int("k", 10, "answers a query")
	if err := fs.Parse(args); err != nil {
		return err
	}
	vecs, err := read(*path, *dim)
	if err != nil {
		return err
	}
	s := &server{vecs: vecs, rows: len(vecs) - *queries, queries: vecs[len(vecs)-*queries:], k: *k,
		spec: index.Spec{Name: "bench", Dim: *dim, Precision: index.Precision(*precision), Engine: index.EngineHNSW,
			Columns: []index.Column{{Name: "p", Kind: index.Number}}}, // uniform in 0..999
		opt: hnsw.Options{M: *m, Build: *build, MinRows: 1}}
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
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
	if len(cmd) < 2 {
		return errors.New("a command and its numbers are wanted")
	}
	var n []int
	for _, c := range cmd[1:] {
		x, err := strconv.Atoi(c)
		if err != nil {
			return err
		}
		n = append(n, x)
	}
	switch {
	case cmd[0] == "build" && len(n) == 2:
		return s.build(n[0], n[1], r)
	case cmd[0] == "search" && len(n) == 2:
		return s.search(n[0], n[1], r, false)
	case cmd[0] == "ids" && len(n) == 1:
		return s.search(n[0], runtime.GOMAXPROCS(0), r, true)
	case cmd[0] == "filters" && len(n) == 1:
		return s.filters(n[0], r)
	}
	return fmt.Errorf("command %q is not known", cmd)
}

// build times the graph alone: the rows are stored before, without an engine
// that looks at them.
func (s *server) build(rows, workers int, r *reply) error {
	ctx := context.Background()
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "kindred-bench-hnsw-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	base, err := flat.Open(dir, flat.Options{})
	if err != nil {
		return err
	}
	e, err := base.Create(ctx, s.spec)
	if err != nil {
		return err
	}
	for lo := 0; lo < min(rows, s.rows); lo += 10_000 {
		var batch []index.Row
		for i := lo; i < min(lo+10_000, rows, s.rows); i++ {
			batch = append(batch, index.Row{ID: fmt.Sprintf("%06d", i), Vector: s.vecs[i],
				Values: map[string]index.Value{"p": {Kind: index.Number, Num: float64(i * 7919 % 1000)}}})
		}
		if err := e.Upsert(ctx, batch); err != nil {
			return err
		}
	}
	runtime.GC()
	opt := s.opt
	opt.Workers = workers
	start, cpu := time.Now(), cpuSeconds()
	store, err := hnsw.Wrap(base, opt)
	if err != nil {
		return err
	}
	s.store = store
	if e, err = store.Open(ctx, "bench"); err != nil {
		return err
	}
	s.e = e.(*hnsw.Engine)
	if err := s.e.Wait(ctx); err != nil {
		return err
	}
	r.Seconds, r.CPU = time.Since(start).Seconds(), cpuSeconds()-cpu
	return nil
}

func (s *server) search(effort, workers int, r *reply, ids bool) error {
	if s.e == nil {
		return errors.New("build first")
	}
	hits := make([][]index.Hit, len(s.queries))
	errs := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	start, cpu := time.Now(), cpuSeconds()
	for w := range workers {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(s.queries) {
					return
				}
				hits[i], errs[w] = s.e.Search(context.Background(), index.Query{Vector: s.queries[i], Limit: s.k, Effort: effort})
			}
		})
	}
	wg.Wait()
	r.Seconds, r.CPU = time.Since(start).Seconds(), cpuSeconds()-cpu
	if ids {
		for _, h := range hits {
			row := make([]int, len(h))
			for j := range h {
				row[j], _ = strconv.Atoi(h[j].ID) // ids are numbers, by build
			}
			r.IDs = append(r.IDs, row)
		}
	}
	return errors.Join(errs...)
}

func (s *server) filters(queries int, r *reply) error {
	if s.e == nil {
		return errors.New("build first")
	}
	for _, permille := range []int{1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 800, 1000} {
		f := share{Allowed: float64(permille) / 1000}
		right, all := 0, 0
		for _, v := range s.queries[:min(queries, len(s.queries))] {
			q := index.Query{Vector: v, Limit: s.k, Filter: &index.Filter{Field: "p", Lt: permille}}
			start := time.Now()
			hits, err := s.e.Search(context.Background(), q)
			f.MS += float64(time.Since(start).Microseconds()) / 1e3
			if err != nil {
				return err
			}
			q.Exact = true
			start = time.Now()
			exact, err := s.e.Search(context.Background(), q)
			f.ExactMS += float64(time.Since(start).Microseconds()) / 1e3
			if err != nil {
				return err
			}
			all += len(exact)
			for _, h := range hits {
				if slices.Contains(exact, h) {
					right++
				}
			}
		}
		n := float64(min(queries, len(s.queries)))
		f.Recall, f.MS, f.ExactMS = float64(right)/float64(max(1, all)), f.MS/n, f.ExactMS/n
		r.Filters = append(r.Filters, f)
	}
	return nil
}

func read(path string, dim int) ([][]float32, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(raw)%(4*dim) != 0 {
		return nil, fmt.Errorf("%s: %d bytes are no whole vectors of %d numbers", path, len(raw), dim)
	}
	out := make([][]float32, len(raw)/4/dim)
	for i := range out {
		out[i] = make([]float32, dim)
		for j := range out[i] {
			out[i][j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*(i*dim+j):]))
		}
	}
	return out, nil
}

// cpuSeconds is the processor time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
