//go:build cuda

// Command cuda is our side of the benchmarks on a CUDA device: run.py drives it. It obeys
// lines on its standard input, one JSON answer each:
//
//	bandwidth MB REPEATS        copies within the device, read and written
//	model FOLDER PRECISION      opens a model of the BERT family, fp16 or bf16; with +KERNEL behind, its
//	                            products are of that kernel alone
//	encode FILE REPEATS         the texts of FILE, JSON lists of ids
//	vectors FILE OUT            the same once; the vectors, little-endian fp32, to OUT
//	rows N DIM                  a population of N rows; row r is made as run.py makes it
//	best HEADS SIZE REPEATS     the best SIZE of everyone under each of so many heads
//	seeds COUNT SIZE REPEATS    the best SIZE by their highest score under COUNT heads
//	trace                       from now on each kernel is timed; answers what was timed since the last trace
//	members HEADS SIZE OUT      the list of the first head, best first, little-endian uint32
//
// An answer has the seconds of each repeat by the clock of the host, and by the device's own
// events; what is selected is downloaded and put in order on the host, which the clock counts.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index/selection"
)

type reply struct {
	Error     string        `json:"error,omitempty"`
	Device    string        `json:"device,omitempty"`
	Driver    string        `json:"driver,omitempty"`
	Simulated bool          `json:"simulated,omitempty"`
	Memory    int64         `json:"memory,omitempty"`
	Wall      []float64     `json:"wall,omitempty"`   // seconds
	Events    []float64     `json:"events,omitempty"` // seconds
	Bytes     int64         `json:"bytes,omitempty"`
	Tokens    int           `json:"tokens,omitempty"`
	Streamed  int           `json:"streamed,omitempty"`
	Kernels   []timedKernel `json:"kernels,omitempty"` // the longest first
	Tuned     []tuned       `json:"tuned,omitempty"`   // of the model that was opened
}

type timedKernel struct {
	Kernel   string  `json:"kernel"`
	Launches int64   `json:"launches"`
	Seconds  float64 `json:"seconds"`
}

// tuned is a product of a batch of so many tokens: the seconds of each kernel that can make it.
type tuned struct {
	Tokens  int                `json:"tokens"`
	Columns int                `json:"columns"`
	Depth   int                `json:"depth"`
	Kernel  string             `json:"kernel"`
	Seconds map[string]float64 `json:"seconds"`
}

type bench struct {
	d      *cuda.Device
	opened *embed.Model
	// products is the kernel of products of models that are placed, if it is set.
	products string
	placed   *encoder.Model // by embed, as the last
	model    *encoder.Model // of opened
	pop      *scan.Population
	n        int
	mask     []uint64 // everyone
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cuda:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ordinal := flag.Int("device", 0, "which device")
	flag.Parse()
	d, err := cuda.Open(*ordinal)
	if err != nil {
		return err
	}
	b := &bench{d: d}
	defer func() { err = errors.Join(err, b.close()) }()
	out := json.NewEncoder(os.Stdout)
	info := d.Info()
	if err := out.Encode(reply{Device: info.Name, Driver: cuda.Probe().Driver, Simulated: info.Simulated, Memory: info.Memory}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r reply
		if err := b.obey(context.Background(), strings.Fields(in.Text()), &r); err != nil {
			r = reply{Error: err.Error()}
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

func (b *bench) close() error {
	var all []error
	if b.opened != nil {
		all = append(all, b.opened.Close())
	}
	if b.pop != nil {
		all = append(all, b.pop.Close())
	}
	return errors.Join(append(all, b.d.Close())...)
}

func (b *bench) obey(ctx context.Context, cmd []string, r *reply) error {
	if len(cmd) == 0 {
		return errors.New("an empty line: want a command")
	}
	// number is word i of the line.
	var bad error
	number := func(i int) int {
		n, err := strconv.Atoi(cmd[i])
		if err != nil || n < 1 {
			bad = errors.Join(bad, fmt.Errorf("%s: %q: want a number above 0", cmd[0], cmd[i]))
		}
		return n
	}
	words := map[string]int{"bandwidth": 3, "model": 3, "encode": 3, "vectors": 3, "rows": 3, "best": 4, "seeds": 4, "members": 4, "trace": 1}
	if words[cmd[0]] != len(cmd) {
		return fmt.Errorf("%q: see the command's comment", strings.Join(cmd, " "))
	}
	var once func() error
	repeats := 1
	switch cmd[0] {
	case "bandwidth":
		size := int64(number(1)) << 20
		repeats = number(2)
		if bad != nil {
			return bad
		}
		r.Bytes = 2 * size
		return b.d.Borrow("copies", []int64{size, size}, func(two []*cuda.Buffer) error {
			return b.timed(r, repeats, func() error {
				return b.d.Do(ctx, func(q *cuda.Queue) error { return q.Copy(two[0], 0, two[1], 0, size) })
			})
		})
	case "trace":
		for kernel, t := range b.d.Trace() {
			r.Kernels = append(r.Kernels, timedKernel{kernel, t.Launches, t.Time.Seconds()})
		}
		slices.SortFunc(r.Kernels, func(x, y timedKernel) int { return cmp.Compare(y.Seconds, x.Seconds) })
		return nil
	case "model":
		if err := b.open(cmd[1], cmd[2]); err != nil {
			return err
		}
		for _, t := range b.model.Tuned() {
			x := tuned{t.Tokens, t.Columns, t.Depth, t.Kernel, map[string]float64{}}
			for kernel, took := range t.Took {
				x.Seconds[kernel] = took.Seconds()
			}
			r.Tuned = append(r.Tuned, x)
		}
		return nil
	case "encode", "vectors":
		if b.model == nil {
			return errors.New("there is no model: `model FOLDER PRECISION` first")
		}
		texts, err := read(cmd[1])
		if err != nil {
			return err
		}
		for _, t := range texts {
			r.Tokens += len(t)
		}
		var vectors []float32
		once = func() (err error) { vectors, err = b.model.Encode(ctx, texts); return err }
		if cmd[0] == "vectors" {
			if err := once(); err != nil {
				return err
			}
			return write(cmd[2], vectors)
		}
		repeats = number(2)
	case "rows":
		if n, dim := number(1), number(2); bad == nil {
			err := b.fill(ctx, n, dim)
			if b.pop != nil {
				_, r.Streamed = b.pop.Lie()
			}
			return err
		}
	default:
		if b.pop == nil {
			return errors.New("there is no population: `rows N DIM` first")
		}
		count, size := number(1), number(2)
		var list []uint32
		switch cmd[0] {
		case "best":
			repeats, once = number(3), func() error { return b.best(ctx, count, size, &list) }
		case "seeds":
			repeats, once = number(3), func() error { return b.seeds(ctx, count, size) }
		default:
			if bad != nil {
				return bad
			}
			if err := b.best(ctx, count, size, &list); err != nil {
				return err
			}
			return write(cmd[3], list)
		}
	}
	if bad != nil {
		return bad
	}
	return b.timed(r, repeats, once)
}

// timed runs f once, and then as often as is asked, each with its seconds.
func (b *bench) timed(r *reply, repeats int, f func() error) error {
	if err := f(); err != nil {
		return err
	}
	for range repeats {
		worked, start := b.d.Metrics().Kernels, time.Now()
		if err := f(); err != nil {
			return err
		}
		r.Wall = append(r.Wall, time.Since(start).Seconds())
		r.Events = append(r.Events, (b.d.Metrics().Kernels - worked).Seconds())
	}
	return nil
}

// open opens the model of a folder for its place on the device: what embed itself would
// do with the texts is left out.
func (b *bench) open(folder, precision string) error {
	precision, b.products, _ = strings.Cut(precision, "+")
	if precision != string(embed.FP16) && precision != string(embed.BF16) {
		return fmt.Errorf("precision %q: want fp16 or bf16, or one with + and a kernel of products behind", precision)
	}
	m, err := embed.Open(folder, embed.Options{Pooling: "mean", Precision: embed.Precision(precision), Device: (*placer)(b)})
	if err != nil {
		return err
	}
	if b.opened != nil {
		err = b.opened.Close()
	}
	b.opened, b.model = m, b.placed
	return err
}

// placer is the bench as the device of models: it keeps the one that was placed last.
type placer bench

// NewModel implements embed.Device.
func (b *placer) NewModel(ctx context.Context, cfg encoder.Config, get encoder.Tensors) (embed.DeviceModel, error) {
	cfg.Products = b.products
	m, err := encoder.New(ctx, b.d, cfg, get)
	if err == nil {
		b.placed = m
	}
	return m, err
}

// NoteModel implements embed.Device.
func (b *placer) NoteModel(error) {}

func read(file string) (texts [][]int32, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &texts); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return texts, nil
}

func write(file string, x any) error {
	var buf bytes.Buffer
	if err := binary.Write(&buf, binary.LittleEndian, x); err != nil {
		return err
	}
	return os.WriteFile(file, buf.Bytes(), 0o644)
}

// block is how many rows have codes of their own: those that follow have the same again,
// with other scales, so that a population is made as fast as it is copied.
const block = 1 << 15

func codeOf(r, j int) int8 {
	z := uint64(r)<<20 | uint64(j)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int8(max(-127, int(int8(z>>32))))
}

func scaleOf(r int) float32 { return float32(1+r*7919%1000) / (1 << 20) }

// headOf is head h of dim codes, whose products with any row fit 32 bits.
func headOf(h, dim int) scan.Head {
	head := scan.Head{Codes: make([]int16, dim), Scale: 1}
	for j := range head.Codes {
		head.Codes[j] = int16((h*131+j*17)%201-100) * 100
	}
	return head
}

func (b *bench) fill(ctx context.Context, n, dim int) error {
	p, err := scan.New(b.d, dim)
	if err != nil {
		return err
	}
	if b.pop != nil {
		if err := b.pop.Close(); err != nil {
			return err
		}
	}
	b.pop, b.n, b.mask = p, n, make([]uint64, (n+63)/64)
	for i := range b.mask {
		b.mask[i] = ^uint64(0)
	}
	codes := make([]int8, min(n, block)*dim)
	for i := range codes {
		codes[i] = codeOf(i/dim, i%dim)
	}
	for at := 0; at < n; at += block {
		m := min(block, n-at)
		scales := make([]float32, m) // the population may keep them
		for i := range scales {
			scales[i] = scaleOf(at + i)
		}
		if err := p.Append(ctx, codes[:m*dim], scales); err != nil {
			return err
		}
	}
	return nil
}

// best selects under each of count heads, and sets list to the first head's.
func (b *bench) best(ctx context.Context, count, size int, list *[]uint32) error {
	sizes := make([]int, count)
	heads := make([]scan.Head, count)
	for h := range heads {
		sizes[h], heads[h] = size, headOf(h, b.pop.Dim())
	}
	found, err := b.pop.Best(ctx, b.n, b.mask, heads, sizes)
	if err != nil {
		return err
	}
	for h := range found {
		rows, _ := selection.Best(found[h], size, selection.Options{})
		if h == 0 {
			*list = rows
		}
	}
	return nil
}

// seeds selects by the highest score under count heads.
func (b *bench) seeds(ctx context.Context, count, size int) error {
	set := scan.Set{Reduce: scan.Max}
	for h := range count {
		set.Heads = append(set.Heads, scan.SumHead{Head: headOf(h, b.pop.Dim())})
	}
	found, err := b.pop.BestOf(ctx, b.n, b.mask, &scan.Plan{Sets: []scan.Set{set}}, []int{size})
	if err != nil {
		return err
	}
	selection.Best(found[0], size, selection.Options{})
	return nil
}
