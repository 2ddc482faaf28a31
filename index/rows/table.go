// Package rows is the population in memory: vectors, columns and ids in
// append-only chunks, with immutable snapshots and the exact scan.
//
// A Table is what in-process engines share; they add durability (package flat)
// or nothing (package memory). An upsert appends a new version of a row and
// takes the old one out of the live set; nothing that a reader can see is ever
// overwritten, so a Snapshot is a length, a set of live rows and pointers to
// chunks, and costs no copy of the data. When more than a quarter of the rows
// is dead the live ones are copied to fresh chunks; snapshots keep the old.
// Writes and new snapshots wait for the copy: about a second of one core for a
// million rows of 384 int8.
//
// Memory per row of int8: dim + 4 bytes for the vector, 16 for the id's header
// and its bytes, 4 for the version chain, about 8 for the id map, and 8 a
// numeric, 4 a category, 24 and more a set column. The garbage of writes comes on
// top, and package heap keeps it to a quarter of what lives.
package rows

import (
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// Options adjusts a Table. The zero value works.
type Options struct {
	ChunkRows int // rows a chunk, a power of two >= 64; 0 picks by dimension
	// MinDead is how many dead rows there must be before compaction is thought
	// of; 0 means 4096. Small values are for tests.
	MinDead int
	// Device, where given, makes the lists of heads that are a vector and a bias,
	// over int8 rows, where there are at least DeviceRows of them; 0 means 50,000.
	Device     Device
	DeviceRows int
}

// Table is one collection in memory. Methods are safe for concurrent use.
type Table struct {
	mu      sync.RWMutex
	opt     Options
	spec    index.Spec // replaced, never changed in place
	core    *core
	version uint64
	view    *View         // of this version, made when first asked for
	leaving []*deviceCopy // closed, and perhaps not freed yet
}

// core is the data of a table between two compactions.
type core struct {
	mu     sync.RWMutex // guards table, dicts' maps; chunks below a view's length need none
	shift  uint
	seed   maphash.Seed
	chunks []*chunk
	n      uint32
	live   *roaring.Bitmap
	table  []uint32 // open addressing: newest row of an id, plus one
	used   int
	dicts  []*dict // nil for numeric columns
	derive derived
	device *deviceCopy
}

// New returns an empty table of a valid spec.
func New(spec index.Spec, opt Options) *Table {
	if spec.Precision == "" {
		spec.Precision = index.Int8
	}
	if opt.MinDead == 0 {
		opt.MinDead = 4096
	}
	if opt.DeviceRows == 0 {
		opt.DeviceRows = deviceRows
	}
	if opt.ChunkRows < 64 || opt.ChunkRows&(opt.ChunkRows-1) != 0 {
		opt.ChunkRows = chunkRows(&spec)
	}
	return &Table{opt: opt, spec: spec, core: newCore(&spec, opt.ChunkRows)}
}

func newCore(spec *index.Spec, rows int) *core {
	c := &core{seed: maphash.MakeSeed(), live: roaring.New(), table: make([]uint32, 64), device: &deviceCopy{turn: make(chan struct{}, 1)}}
	for 1<<c.shift < rows {
		c.shift++
	}
	c.addDicts(spec)
	return c
}

func (c *core) addDicts(spec *index.Spec) {
	for i := len(c.dicts); i < len(spec.Columns); i++ {
		var d *dict
		if !spec.Columns[i].Kind.Numeric() {
			d = &dict{codes: map[string]int32{}}
		}
		c.dicts = append(c.dicts, d)
	}
}

// Spec returns the table's spec. The caller must not change its columns.
func (t *Table) Spec() index.Spec {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.spec
}

// Apply stores prepared rows, replacing those of equal id, and sets the
// version; 0 adds one to it. Ids are unique within rows. It keeps the strings
// of rows but none of the slices.
func (t *Table) Apply(rows []Prepared, version uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if uint64(t.core.n)+uint64(len(rows)) > math.MaxUint32-1 {
		return fmt.Errorf("%w: collection %q is full: %d rows", index.ErrInvalid, t.spec.Name, t.core.n)
	}
	t.core.mu.Lock()
	ids := packIDs(rows)
	for i := range rows {
		t.core.put(&t.spec, &rows[i], ids[i])
	}
	t.core.mu.Unlock()
	t.changed(version)
	return nil
}

// packIDs copies the ids of a batch into one allocation.
func packIDs(rows []Prepared) []string {
	var b strings.Builder
	n := 0
	for i := range rows {
		n += len(rows[i].ID)
	}
	b.Grow(n)
	for i := range rows {
		b.WriteString(rows[i].ID)
	}
	all, out := b.String(), make([]string, len(rows))
	for i := range rows {
		out[i], all = all[:len(rows[i].ID)], all[len(rows[i].ID):]
	}
	return out
}

// Remove deletes ids and returns how many existed. See Apply for version.
func (t *Table) Remove(ids []string, version uint64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	t.core.mu.RLock()
	for _, id := range ids {
		if row, ok := t.core.newest(id); ok && t.core.live.CheckedRemove(row) {
			n++
		}
	}
	t.core.mu.RUnlock()
	if n > 0 || version > 0 {
		t.changed(version)
	}
	return n
}

// Count says how many of ids are live.
func (t *Table) Count(ids []string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.core.mu.RLock()
	defer t.core.mu.RUnlock()
	n := 0
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if row, ok := t.core.newest(id); ok && t.core.live.Contains(row) && !seen[id] {
			seen[id] = true
			n++
		}
	}
	return n
}

// Alter adds columns, missing in every row.
func (t *Table) Alter(add []index.Column, version uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	spec := t.spec
	spec.Columns = append(append([]index.Column(nil), spec.Columns...), add...)
	c := t.core
	c.mu.Lock()
	chunks := make([]*chunk, len(c.chunks))
	for i, old := range c.chunks {
		fresh := *old
		fresh.cols = append([]column(nil), old.cols...)
		for _, col := range add {
			fresh.cols = append(fresh.cols, newColumn(col.Kind, len(old.ids)))
		}
		chunks[i] = &fresh
	}
	c.chunks = chunks
	c.addDicts(&spec)
	c.mu.Unlock()
	t.spec = spec
	t.changed(version)
}

// changed runs under t.mu after every change.
func (t *Table) changed(version uint64) {
	if version == 0 {
		version = t.version + 1
	}
	t.version, t.view = version, nil
	dead := int(t.core.n) - int(t.core.live.GetCardinality())
	if dead >= t.opt.MinDead && dead*4 > int(t.core.n) {
		t.compact()
	}
}

// Release gives back what the table holds on a device: at once, or where a list is being made
// there, which is given up for the CPU, when it has ended. The table can still be used.
func (t *Table) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release()
}

// Close is Release that waits until all is given back. Readers and writers do not wait for it.
func (t *Table) Close() {
	t.mu.Lock()
	t.release()
	leaving := t.leaving
	t.leaving = nil
	t.mu.Unlock()
	for _, d := range leaving {
		d.gone(t.opt.Device)
	}
}

// release runs under t.mu.
func (t *Table) release() {
	t.core.device.close(t.opt.Device)
	t.leaving = slices.DeleteFunc(append(t.leaving, t.core.device), (*deviceCopy).isFreed)
}

// collectEvery is how many bytes of vectors compaction copies between two
// collections of garbage.
const collectEvery = 64 << 20

// compact copies the live rows, in order, to a new core. The old chunks are let
// go one by one: where no snapshot holds them, there is never much more than one
// copy of the population in memory. The runtime would let the heap grow to twice
// its size before it looked, so it is told when there is something to collect.
func (t *Table) compact() {
	old := t.core
	chunks, names, shift := slices.Clone(old.chunks), dictNames(old.dicts), old.shift
	it := old.live.Iterator()
	fresh := newCore(&t.spec, 1<<shift)
	t.release()
	t.core, old = fresh, nil
	var p Prepared
	at, copied := 0, 0
	for it.HasNext() {
		row := it.Next()
		if c := int(row >> shift); c != at {
			for ; at < c; at++ {
				chunks[at] = nil
			}
			if copied >= collectEvery {
				copied = 0
				runtime.GC()
			}
		}
		ch, i := chunks[at], int(row&(1<<shift-1))
		p.Vec = ch.vector(i, t.spec.Dim)
		p.Values = values(&t.spec, ch, i, names)
		fresh.put(&t.spec, &p, ch.ids[i])
		copied += len(p.Vec.Codes) + 2*len(p.Vec.Half) + 4*len(p.Vec.Full) + len(p.Vec.Bits)
	}
}

func dictNames(dicts []*dict) [][]string {
	out := make([][]string, len(dicts))
	for i, d := range dicts {
		if d != nil {
			out[i] = d.names
		}
	}
	return out
}

// values reads a row's columns back.
func values(spec *index.Spec, ch *chunk, i int, names [][]string) []index.Value {
	out := make([]index.Value, len(spec.Columns))
	for k, c := range spec.Columns {
		col := &ch.cols[k]
		switch {
		case col.nums != nil:
			if x := col.nums[i]; x == x {
				out[k] = index.Value{Kind: c.Kind, Num: x}
			}
		case col.codes != nil:
			if code := col.codes[i]; code >= 0 {
				out[k] = index.Value{Kind: c.Kind, Str: names[k][code]}
			}
		case col.sets[i] != nil:
			set := make([]string, len(col.sets[i]))
			for j, code := range col.sets[i] {
				set[j] = names[k][code]
			}
			out[k] = index.Value{Kind: c.Kind, Set: set}
		}
	}
	return out
}

// Snapshot returns a consistent view of the present version.
func (t *Table) Snapshot() *View {
	t.mu.RLock()
	v := t.view
	t.mu.RUnlock()
	if v != nil {
		return v
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.view == nil {
		c := t.core
		t.view = &View{
			opt:  t.opt,
			spec: t.spec, core: c, chunks: c.chunks, n: c.n, live: c.live.Clone(),
			names: dictNames(c.dicts), version: t.version,
		}
	}
	return t.view
}

func (c *core) at(row uint32) (*chunk, int) {
	return c.chunks[row>>c.shift], int(row & (1<<c.shift - 1))
}

// slot finds the place of an id: of its newest row, or an empty one.
func (c *core) slot(id string) int {
	mask := len(c.table) - 1
	for s := int(maphash.String(c.seed, id)) & mask; ; s = (s + 1) & mask {
		r := c.table[s]
		if r == 0 {
			return s
		}
		if ch, i := c.at(r - 1); ch.ids[i] == id {
			return s
		}
	}
}

func (c *core) newest(id string) (uint32, bool) {
	r := c.table[c.slot(id)]
	return r - 1, r != 0
}

func (c *core) grow() {
	old := c.table
	c.table = make([]uint32, 2*len(old))
	mask := len(c.table) - 1
	for _, r := range old {
		if r == 0 {
			continue
		}
		ch, i := c.at(r - 1)
		s := int(maphash.String(c.seed, ch.ids[i])) & mask
		for c.table[s] != 0 {
			s = (s + 1) & mask
		}
		c.table[s] = r
	}
}

// put appends one row under an id string that the core may keep.
func (c *core) put(spec *index.Spec, p *Prepared, id string) {
	row := c.n
	if int(row>>c.shift) == len(c.chunks) {
		c.chunks = append(c.chunks, newChunk(spec, 1<<c.shift, row == 0))
	}
	ch, i := c.at(row)
	ch.ids[i] = id
	ch.setVector(i, spec.Dim, &p.Vec)
	for k, v := range p.Values {
		col := &ch.cols[k]
		switch {
		case v.Kind == "":
		case col.nums != nil:
			col.nums[i] = v.Num
		case col.codes != nil:
			col.codes[i] = c.dicts[k].code(v.Str)
		default:
			col.sets[i] = c.encodeSet(k, v.Set)
		}
	}
	s := c.slot(id)
	if r := c.table[s]; r != 0 {
		ch.prev[i] = r
		c.live.Remove(r - 1)
	} else {
		c.used++
	}
	c.table[s] = row + 1
	c.live.Add(row)
	c.n++
	if c.used*4 > len(c.table)*3 {
		c.grow()
	}
}

func (c *core) encodeSet(k int, set []string) []int32 {
	if len(set) == 0 {
		return nil
	}
	out := make([]int32, len(set))
	for j, s := range set {
		out[j] = c.dicts[k].code(s)
	}
	sortCodes(out)
	return out
}
