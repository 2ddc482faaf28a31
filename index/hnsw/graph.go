package hnsw

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/internal/simd"
)

// none ends a list of links and stands for "no row".
const none = math.MaxUint32

// maxLevel bounds the levels of a graph; with 16 links a level is one row in
// 16 of the one below, so no population reaches it.
const maxLevel = 24

// A graph links the rows of one generation of a table: node numbers are row
// numbers. Links are only ever stored whole (atomically, one by one), so walks
// take no lock; a walk that meets a list in mid-change sees old links, new ones
// or some of each, all of them rows of the graph.
//
// Nodes are never removed: a row that died is walked through and not reported,
// until the table renumbers its rows and the graph is transplanted.
type graph struct {
	shape
	home *rows.View // a view of the generation
	own  bool       // codes are the graph's, not the table's

	tab     atomic.Pointer[tables]
	entry   atomic.Uint64 // level+1 in the upper half, node in the lower; 0: empty
	top     sync.Mutex    // held to change entry
	locks   [1024]sync.Mutex
	covered atomic.Uint32 // rows below it are nodes, twins of one, or have no vector
	bare    atomic.Uint32 // of them, how many have no vector
	pool    sync.Pool     // of *walker
}

// shape is what two graphs must have in common for one to grow out of the other.
type shape struct {
	Dim   int `json:"dim"`
	M     int `json:"m"`     // links chosen for a new node; the most on upper levels
	M0    int `json:"m0"`    // the most links on level 0
	Build int `json:"build"` // candidates kept while a node is inserted
}

// tables are what a walk reads. Growing makes new ones that share the blocks.
type tables struct {
	codes  *simd.Int8Rows
	chunks [][]int8
	blocks []*block
	shift  uint
	m, m0  int
	limit  uint32 // rows that there is room for
}

// block holds the nodes of one chunk of rows.
type block struct {
	scales []float32  // 0: not a node (no vector, or not inserted yet)
	links  []uint32   // level 0, [rows, m0], each list ended by none where not full
	upper  [][]uint32 // levels 1.., [levels, m] of the few nodes that have them
	twin   []uint32   // the next row of equal codes
}

func newGraph(view *rows.View, opt *Options) *graph {
	spec := view.Spec()
	g := &graph{
		shape: shape{Dim: spec.Dim, M: opt.M, M0: 2 * opt.M, Build: opt.Build},
		home:  view, own: spec.Precision != index.Int8,
	}
	g.tab.Store(&tables{codes: simd.NewInt8Rows(nil, view.ChunkShift(), spec.Dim), shift: view.ChunkShift(), m: g.M, m0: g.M0})
	g.pool.New = func() any { return newWalker(g) }
	return g
}

// grow makes room for the rows of a view of the graph's generation.
func (g *graph) grow(view *rows.View) {
	old := g.tab.Load()
	if uint32(view.Len()) <= old.limit {
		return
	}
	t := *old
	t.blocks = append([]*block(nil), old.blocks...)
	size := 1 << t.shift
	need := (view.Len() + size - 1) >> t.shift
	for len(t.blocks) < need {
		b := &block{scales: make([]float32, size), links: make([]uint32, size*t.m0), upper: make([][]uint32, size), twin: make([]uint32, size)}
		for i := range b.links {
			b.links[i] = none
		}
		for i := range b.twin {
			b.twin[i] = none
		}
		t.blocks = append(t.blocks, b)
	}
	if g.own {
		t.chunks = append([][]int8(nil), old.chunks...)
		for len(t.chunks) < need {
			t.chunks = append(t.chunks, make([]int8, size*g.Dim))
		}
	} else {
		t.chunks = view.Int8Chunks()[:need]
	}
	t.codes = simd.NewInt8Rows(t.chunks, t.shift, g.Dim)
	t.limit = uint32(need << t.shift)
	g.tab.Store(&t)
}

func (t *tables) at(row uint32) (*block, int) {
	return t.blocks[row>>t.shift], int(row & (1<<t.shift - 1))
}

func (t *tables) scale(row uint32) float32 {
	b, i := t.at(row)
	return b.scales[i]
}

// links returns the place of a node's links on a level, nil above its own.
func (t *tables) links(row uint32, level int) []uint32 {
	b, i := t.at(row)
	if level == 0 {
		return b.links[i*t.m0:][:t.m0:t.m0]
	}
	up := b.upper[i]
	if len(up) < level*t.m {
		return nil
	}
	return up[(level-1)*t.m:][:t.m:t.m]
}

// level is the highest level of a node.
func (t *tables) level(row uint32) int {
	b, i := t.at(row)
	return len(b.upper[i]) / t.m
}

// twin returns the next row of the same codes. Of a row that was met it always
// finds the place: tables grow before a row is linked to.
func (g *graph) twin(row uint32) uint32 {
	b, i := g.tab.Load().at(row)
	return atomic.LoadUint32(&b.twin[i])
}

// place readies a row's codes and scale and returns false when it has no vector.
// It runs before the row is linked to, by the only goroutine that knows it.
func (g *graph) place(t *tables, view *rows.View, row uint32) bool {
	b, i := t.at(row)
	v := view.Vector(row)
	if g.own {
		if v.None() {
			return false
		}
		full := make([]float32, g.Dim)
		v.Decode(full)
		v = rows.EncodeVector(index.Int8, full)
		copy(t.codes.Row(row), v.Codes)
	}
	b.scales[i] = v.Scale
	return v.Scale != 0
}

// levelOf draws a row's level: one in M reaches each next one. It depends on
// the row number alone.
func (g *graph) levelOf(row uint32) int {
	x := uint64(row)*0x9e3779b97f4a7c15 + 0x1234567
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	u := (float64(x>>11) + 1) / (1 << 53)
	return min(maxLevel, int(-math.Log(u)/math.Log(float64(g.M))))
}

func (g *graph) lock(row uint32) *sync.Mutex { return &g.locks[row&1023] }

func entryOf(e uint64) (row uint32, level int) { return uint32(e), int(e>>32) - 1 }

// start loads an entry and tables that have it. ok is false for an empty graph.
func (g *graph) start() (t *tables, row uint32, level int, ok bool) {
	for {
		e := g.entry.Load()
		if e == 0 {
			return nil, 0, 0, false
		}
		t = g.tab.Load()
		if row, level = entryOf(e); row < t.limit {
			return t, row, level, true
		}
	}
}

// raise makes a node the entry if its level is higher than the present one's.
func (g *graph) raise(row uint32, level int) {
	g.top.Lock()
	defer g.top.Unlock()
	if e := g.entry.Load(); int(e>>32) < level+1 {
		g.entry.Store(uint64(level+1)<<32 | uint64(row))
	}
}

// A key orders nodes by similarity, best first: the upper half falls as the
// cosine rises, the lower holds the node and, in its last bit, a mark.
type key uint64

func keyOf(sim float32, row uint32) key {
	b := math.Float32bits(sim)
	if b>>31 == 0 {
		b = ^b &^ (1 << 31)
	}
	return key(b)<<32 | key(row)<<1
}

func (k key) row() uint32 { return uint32(k) >> 1 }

func (k key) sim() float32 {
	b := uint32(k >> 32)
	if b>>31 == 0 {
		b = ^b &^ (1 << 31)
	}
	return math.Float32frombits(b)
}

// bitset marks the nodes that a walk has seen.
type bitset []uint64

func (s bitset) add(i uint32) bool {
	w, m := &s[i>>6], uint64(1)<<(i&63)
	if *w&m != 0 {
		return false
	}
	*w |= m
	return true
}

func (s bitset) has(i uint32) bool { return s[i>>6]>>(i&63)&1 != 0 }
