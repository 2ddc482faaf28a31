package main

import (
	"fmt"
	"regexp"
	"strings"
)

// sizes are those that the tables are computed for: all-MiniLM-L6-v2 over texts of 128 tokens,
// rows of its dimension. stride is dim rounded up to 16, pitch the next that is 64 above a
// multiple of 128.
var sizes = []struct {
	name string
	is   float64
	what string
}{
	{"dim", 384, "numbers of a vector"},
	{"stride", 384, "bytes of a row of int8, which a scale of 4 bytes goes with"},
	{"pitch", 448, "bytes of one in shared memory, so that lanes meet all banks"},
	{"inner", 1536, "numbers between the two products of a layer's second half"},
	{"tokens", 128, "of a text"},
	{"bins", 2048, "of a histogram"},
}

// rates are an H200's, per second: its memory's and its tensor cores' as copies and products of
// matrices reach them (cuda.md), the others by its data sheet at 1.75 GHz and 132 processors, of
// which each does 64 two-way products or operations of whole numbers and 32 look-ups a clock.
var rates = map[string]struct {
	each        float64
	what, bound string
}{
	"bandwidth": {4.3e12, "bytes of memory", ""},
	"cache":     {6e12, "bytes of the second-level cache, about", ""},
	"halves":    {790e12, "of halves or bfloat16 on tensor cores", "tensor cores"},
	"bytes":     {990e12, "multiply-adds of bytes on tensor cores", "tensor cores"},
	"floats":    {67e12, "of floats", "floats"},
	"doubles":   {33e12, "of doubles", "doubles"},
	"pairs":     {14.8e12, "two-way products of a byte and a short", "two-way products"},
	"whole":     {14.8e12, "of whole numbers", "whole numbers"},
	"lookups":   {7.4e12, "look-ups of 4 bytes in shared memory", "shared memory"},
	"waiting":   {1, "until the one before is added", "waiting"},
}

var kinds = []string{"halves", "bytes", "floats", "doubles", "pairs", "whole", "lookups", "waiting"}

// cost is what kernels do: expressions in the sizes, and in with, sizes of their own; %d in one
// stands for the number that the kernel's name ends with.
type cost struct {
	names      string // of the kernels, a regular expression
	of         string // what it is counted for
	with       map[string]float64
	threads    string // a block
	shared     string // dynamic shared memory, bytes a block
	read       string // bytes of memory
	written    string
	cache      string            // bytes that are read from the second-level cache, where more than from memory
	operations map[string]string // by kind, of rates
	note       string
}

// The products of a layer: qkv, out, up and down.
const layer = "4*dim*dim+2*dim*inner"

var costs = []cost{
	// encoder.cu, gemm.cu, attention.cu: activations and weights are of two bytes; weights are read once a batch, and
	// from the second-level cache by every tile.
	{names: `embed_norm`, of: "token", threads: "128", read: "4*dim+8", written: "2*dim", operations: map[string]string{"floats": "9*dim"}},
	{names: `layer_norm`, of: "token; two launches a layer", threads: "128", read: "2*dim", written: "2*dim", operations: map[string]string{"floats": "8*dim"}},
	{names: `gemm`, of: "token and layer; four launches", threads: "128", read: "2*(5*dim+inner)", written: "2*(5*dim+inner)",
		cache: "2*(" + layer + ")*(1.0/64+1.0/64)", operations: map[string]string{"halves": "2*(" + layer + ")", "floats": "30*inner"}, note: "tiles of 64 x 64"},
	{names: `gemm_large`, of: "token and layer; four launches", threads: "256", read: "2*(5*dim+inner)", written: "2*(5*dim+inner)",
		cache: "2*(" + layer + ")*(1.0/128+1.0/128)", operations: map[string]string{"halves": "2*(" + layer + ")", "floats": "30*inner"}, note: "tiles of 128 x 128"},
	{names: `gemm_90`, of: "token and layer; four launches", threads: "128", shared: "5*(64+64)*64", read: "2*(5*dim+inner)", written: "2*(5*dim+inner)",
		cache: "2*(" + layer + ")*(1.0/64+1.0/64)", operations: map[string]string{"halves": "2*(" + layer + ")", "floats": "30*inner"}, note: "sm_90a alone; tiles of 64 x 64"},
	{names: `gemm_90_128`, of: "token and layer; four launches", threads: "256", shared: "6*(128+128)*64", read: "2*(5*dim+inner)", written: "2*(5*dim+inner)",
		cache: "2*(" + layer + ")*(1.0/128+1.0/128)", operations: map[string]string{"halves": "2*(" + layer + ")", "floats": "30*inner"}, note: "sm_90a alone; tiles of 128 x 128"},
	{names: `gemm_90_192`, of: "token and layer; four launches", threads: "256", shared: "5*(128+192)*64", read: "2*(5*dim+inner)", written: "2*(5*dim+inner)",
		cache: "2*(" + layer + ")*(1.0/128+1.0/192)", operations: map[string]string{"halves": "2*(" + layer + ")", "floats": "30*inner"}, note: "sm_90a alone; tiles of 128 x 192"},
	{names: `attention_\d+`, of: "token and layer", with: map[string]float64{"size": 0}, threads: "128", read: "6*dim", written: "2*dim",
		cache: "2*dim+4*dim*tokens/64", operations: map[string]string{"halves": "4*dim*tokens", "floats": "12*tokens*dim/size+4*dim*tokens/64"},
		note: "an exponential taken for eight operations of floats"},
	{names: `pool`, of: "token", threads: "128", shared: "", read: "2*dim", written: "4*dim/tokens", operations: map[string]string{"floats": "dim+3*dim/tokens"}},

	// scan.cu, many.cu, score.cu: one pass over the rows, which lie in a ring of 192 bytes a thread;
	// each head has the high bytes of its shorts and the low ones. Half of a product of tensor cores for fewer
	// than 8 heads is of no use.
	{names: `scan_int8`, of: "row", with: map[string]float64{"heads": 1}, threads: "256", shared: "192*256+2*heads*pitch+4*heads*bins",
		read: "stride+4+1.0/8", written: "4*heads", operations: map[string]string{"bytes": "2*8*stride", "doubles": "3*heads", "whole": "20*heads"}},
	{names: `scan_many`, of: "row", with: map[string]float64{"heads": 64}, threads: "256", shared: "192*256+2*heads*pitch",
		read: "stride+4+1.0/8", written: "4*heads", operations: map[string]string{"bytes": "2*heads*stride", "doubles": "3*heads"}},
	{names: `dots_int8`, of: "row", with: map[string]float64{"heads": 8}, threads: "256", shared: "192*256+2*heads*pitch+32",
		read: "stride+1.0/8", written: "4*heads", operations: map[string]string{"bytes": "2*8*stride"}},
	{names: `dots_many`, of: "row", with: map[string]float64{"heads": 64}, threads: "256", shared: "192*256+2*heads*pitch+32",
		read: "stride+1.0/8", written: "4*heads", operations: map[string]string{"bytes": "2*heads*stride"}},
	{names: `finish`, of: "row and list", with: map[string]float64{"vectors": 1, "columns": 20, "top": 1}, threads: "128", shared: "8*128*top",
		read: "4*vectors+4+1.0/8+2*columns", written: "4", operations: map[string]string{"doubles": "3*vectors+columns+2", "whole": "6*columns"},
		note: "a split of a tree is a look-up of a byte in the first-level cache"},
	{names: `refine`, of: "row and list", threads: "256", read: "4", written: "0", operations: map[string]string{"whole": "8"}},
	{names: `collect`, of: "row and list", with: map[string]float64{"share": 0.05}, threads: "256", read: "4", written: "8*share", operations: map[string]string{"whole": "10"},
		note: "share is that of the rows that are collected"},
	{names: `refine_entries`, of: "entry", threads: "256", read: "8", written: "0", operations: map[string]string{"whole": "8"}},
	{names: `collect_entries`, of: "entry", with: map[string]float64{"share": 0.5}, threads: "256", read: "8", written: "8*share", operations: map[string]string{"whole": "10"},
		note: "share is that of the entries that are kept"},

	// seeds.cu: the rows of a block are in shared memory while all heads pass by.
	{names: `seeds_top`, of: "row", with: map[string]float64{"heads": 10000, "top": 1}, threads: "256", shared: "24576+256*(stride+32*top)",
		read: "stride+4+1.0/8", written: "4", cache: "heads*2*stride/256", operations: map[string]string{"bytes": "2*heads*stride", "floats": "5*heads", "whole": "3*heads"},
		note: "mma reaches some 60 % of the rate of tensor cores"},

	// convert.cu.
	{names: `quantise`, of: "row", threads: "256", shared: "8*8*dim", read: "4*dim", written: "stride+4", operations: map[string]string{"doubles": "45*dim"},
		note: "a division of doubles taken for ten operations"},
	{names: `to_half`, of: "number", threads: "256", read: "4", written: "2", operations: map[string]string{"whole": "10"}},
	{names: `from_half`, of: "number", threads: "256", read: "2", written: "4", operations: map[string]string{"whole": "8"}},
	{names: `crc_parts`, of: "word of 4 bytes", threads: "256", read: "4", written: "4/8192.0", operations: map[string]string{"lookups": "4*3"},
		note: "look-ups meet in banks some three times each"},

	// train.cu.
	{names: `nearest`, of: "row", with: map[string]float64{"centres": 64}, threads: "256", read: "4*dim+4", written: "12", cache: "4*dim*centres/64+4*dim*centres/128",
		operations: map[string]string{"floats": "2*dim*centres", "lookups": "dim*centres*(1.0/8+1.0/4)/4"}},
	{names: `arrange`, of: "row", with: map[string]float64{"centres": 64}, threads: "32", read: "4", written: "4", cache: "4*centres", operations: map[string]string{"whole": "3*centres"}},
	{names: `cluster_sums`, of: "row of the largest centre", threads: "64", read: "4*dim+4", written: "0", operations: map[string]string{"doubles": "dim", "waiting": "60e-9"},
		note: "the rows of a centre in turn, eight loads under way"},
	{names: `row_scores`, of: "row", threads: "256", read: "4*dim", written: "8", operations: map[string]string{"doubles": "2*dim"}},
	{names: `logistic_rows`, of: "row", threads: "256", read: "8+4+8", written: "16", operations: map[string]string{"doubles": "120"}, note: "two exponentials, a logarithm and a division taken for thirty operations each"},
	{names: `logistic_gradient`, of: "row", threads: "256", read: "4*dim+16", written: "0", operations: map[string]string{"doubles": "2*dim"}, note: "in one part, as the CPU adds, it waits: some 60 ns a row"},
	{names: `add_parts`, of: "number of a part", threads: "256", read: "8", written: "0", operations: map[string]string{"doubles": "1"}},
}

var ends = regexp.MustCompile(`_(\d+)$`)

// costOf finds the cost of a kernel by its name, nil where there is none.
func costOf(name string) *cost {
	name = strings.TrimSuffix(name, "_bf16")
	for i := range costs {
		if regexp.MustCompile(`^(?:` + costs[i].names + `)$`).MatchString(name) {
			return &costs[i]
		}
	}
	return nil
}

// sizes are those of the tables and of the kernel itself. One of its own that is 0 is the
// number that the name ends with.
func (c *cost) sizes(name string) map[string]float64 {
	out := map[string]float64{}
	for _, s := range sizes {
		out[s.name] = s.is
	}
	for s, x := range c.with {
		if m := ends.FindStringSubmatch(strings.TrimSuffix(name, "_bf16")); x == 0 && m != nil {
			_, _ = fmt.Sscan(m[1], &x)
		}
		out[s] = x
	}
	return out
}

func sizesText() string {
	lines := []string{"| size | is | what |", "|---|---|---|"}
	for _, s := range sizes {
		lines = append(lines, fmt.Sprintf("| %s | %s | %s |", s.name, amount(s.is), s.what))
	}
	return strings.Join(lines, "\n")
}

func ratesText() string {
	lines := []string{"| an H200 has, a second | |", "|---|---|"}
	for _, k := range append([]string{"bandwidth", "cache"}, kinds...) {
		if k != "waiting" {
			lines = append(lines, fmt.Sprintf("| %s | %s |", rates[k].what, short(rates[k].each)))
		}
	}
	return strings.Join(lines, "\n")
}
