package hnsw

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/kindred-search/kindred/index/rows"
)

// A graph's file is the magic, then parts. A part is its length and the CRC-32C
// of its content (both uint32, little-endian), then the content. The first part
// is the header as JSON; the others hold partRows rows each, in order. A part
// that is damaged costs its rows, a length that is damaged the rest of the file.
//
// A row is its name (12 bytes, see nameOf) and its number of levels, 0 for a row
// that is no node; then, where it is one, its twin and the links of each level
// from 0 up: a count (uint16), then as many uint32.
const (
	magic    = "KHNSW\x00\x00\x01"
	partRows = 4096
	maxPart  = 256 << 20
)

type header struct {
	shape
	Rows int `json:"rows"`
}

var (
	errNoFile  = errors.New("there is no file")
	errDamaged = errors.New("damaged")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// name stands for a row's id and vector from one run to the next.
type name struct {
	id  uint64
	vec uint32
}

func nameOf(v *rows.View, row uint32) name {
	id, vec := v.ID(row), v.Vector(row)
	b := unsafe.Slice(unsafe.StringData(id), len(id))
	return name{uint64(crc32.Checksum(b, castagnoli))<<32 | uint64(crc32.ChecksumIEEE(b)), vectorSum(&vec)}
}

// vectorSum is a checksum of a vector as it is held.
func vectorSum(v *rows.Vector) uint32 {
	switch {
	case len(v.Codes) > 0:
		return crc32.Checksum(unsafe.Slice((*byte)(unsafe.Pointer(&v.Codes[0])), len(v.Codes)), castagnoli) ^ math.Float32bits(v.Scale)
	case len(v.Half) > 0:
		return crc32.Checksum(unsafe.Slice((*byte)(unsafe.Pointer(&v.Half[0])), 2*len(v.Half)), castagnoli)
	case len(v.Full) > 0:
		return crc32.Checksum(unsafe.Slice((*byte)(unsafe.Pointer(&v.Full[0])), 4*len(v.Full)), castagnoli)
	}
	return 0
}

// save writes the rows of a graph that it has covered, all of a view, and
// replaces the file. The graph must not change meanwhile.
func save(path string, g *graph, v *rows.View) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	covered := g.covered.Load()
	if _, err := w.WriteString(magic); err != nil {
		return err
	}
	head, err := json.Marshal(header{g.shape, int(covered)})
	if err != nil {
		return err
	}
	if err := writePart(w, head); err != nil {
		return err
	}
	t := g.tab.Load()
	var part []byte
	for lo := uint32(0); lo < covered; lo += partRows {
		part = part[:0]
		for row := lo; row < min(lo+partRows, covered); row++ {
			part = appendRow(part, g, t, v, row)
		}
		if err := writePart(w, part); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func writePart(w io.Writer, content []byte) error {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(content)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(content, castagnoli))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func appendRow(b []byte, g *graph, t *tables, v *rows.View, row uint32) []byte {
	n := nameOf(v, row)
	b = binary.LittleEndian.AppendUint64(b, n.id)
	b = binary.LittleEndian.AppendUint32(b, n.vec)
	if t.scale(row) == 0 {
		return append(b, 0)
	}
	levels := t.level(row) + 1
	b = append(b, byte(levels))
	b = binary.LittleEndian.AppendUint32(b, g.twin(row))
	for l := range levels {
		list := t.links(row, l)
		n := 0
		for n < len(list) && list[n] != none {
			n++
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
		for _, x := range list[:n] {
			b = binary.LittleEndian.AppendUint32(b, x)
		}
	}
	return b
}

// load reads a file as a graph without vectors, and for each of its rows which
// row of the view has its name, or none. The error says what is missing; the
// graph is nil when that is all.
func load(path string, want shape, v *rows.View) (*graph, []uint32, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, errNoFile
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	lead := make([]byte, len(magic))
	if _, err := io.ReadFull(r, lead); err != nil || string(lead) != magic {
		return nil, nil, fmt.Errorf("%w: it does not begin as a graph of this version", errDamaged)
	}
	raw, err := readPart(r, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil || h.Rows < 0 || h.Rows >= 1<<31 {
		return nil, nil, fmt.Errorf("%w: header", errDamaged)
	}
	if h.shape != want {
		return nil, nil, fmt.Errorf("it was built as %+v, wanted is %+v", h.shape, want)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if int64(h.Rows)*13 > info.Size() {
		return nil, nil, fmt.Errorf("%w: %d bytes are too few for %d rows", errDamaged, info.Size(), h.Rows)
	}
	p := newReader(h)
	for lo := 0; lo < h.Rows; lo += partRows {
		raw, err = readPart(r, raw)
		if errors.Is(err, errDamaged) {
			p.lost++
			continue
		}
		if err != nil {
			p.lost += (h.Rows - lo + partRows - 1) / partRows
			break
		}
		if !p.part(uint32(lo), uint32(min(lo+partRows, h.Rows)), raw) {
			p.lost++
		}
	}
	to := make([]uint32, h.Rows)
	for i := range to {
		to[i] = none
	}
	it := v.Live().Iterator()
	for it.HasNext() {
		row := it.Next()
		if was, ok := p.names[nameOf(v, row)]; ok {
			to[was] = row
		}
	}
	if p.lost > 0 {
		return p.g, to, fmt.Errorf("%w: %d of %d parts", errDamaged, p.lost, (h.Rows+partRows-1)/partRows)
	}
	return p.g, to, nil
}

// readPart reads one part, into buf where it fits. errDamaged: its checksum does
// not match, and the next part follows. Any other error: nothing more follows.
func readPart(r io.Reader, buf []byte) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxPart {
		return buf, fmt.Errorf("a part of %d bytes", n)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, err
	}
	if crc32.Checksum(buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return buf, errDamaged
	}
	return buf, nil
}

// reader collects the parts of a file.
type reader struct {
	g     *graph
	names map[name]uint32
	rows  uint32
	lost  int // parts
}

func newReader(h header) *reader {
	const shift = 12 // partRows
	t := &tables{shift: shift, m: h.M, m0: h.M0, limit: uint32(h.Rows+partRows-1) &^ (partRows - 1)}
	for range t.limit >> shift {
		b := &block{scales: make([]float32, partRows), links: make([]uint32, partRows*h.M0), upper: make([][]uint32, partRows), twin: make([]uint32, partRows)}
		for i := range b.links {
			b.links[i] = none
		}
		for i := range b.twin {
			b.twin[i] = none
		}
		t.blocks = append(t.blocks, b)
	}
	g := &graph{shape: h.shape}
	g.tab.Store(t)
	return &reader{g: g, names: make(map[name]uint32, h.Rows), rows: uint32(h.Rows)}
}

// part takes the rows lo..hi-1. It returns false, and forgets them, where they
// do not parse: a sound checksum of something else.
func (p *reader) part(lo, hi uint32, b []byte) bool {
	t := p.g.tab.Load()
	var found []name
	u32 := binary.LittleEndian.Uint32
	ok := func() bool {
		for row := lo; row < hi; row++ {
			if len(b) < 13 {
				return false
			}
			found = append(found, name{binary.LittleEndian.Uint64(b), u32(b[8:])})
			levels := int(b[12])
			b = b[13:]
			if levels == 0 {
				continue
			}
			if levels > maxLevel+1 || len(b) < 4 {
				return false
			}
			bl, i := t.at(row)
			bl.scales[i] = 1
			if n := u32(b); n < p.rows {
				bl.twin[i] = n
			}
			b = b[4:]
			if levels > 1 {
				bl.upper[i] = make([]uint32, (levels-1)*t.m)
				for j := range bl.upper[i] {
					bl.upper[i][j] = none
				}
			}
			for l := range levels {
				list := t.links(row, l)
				if len(b) < 2 {
					return false
				}
				n := int(binary.LittleEndian.Uint16(b))
				b = b[2:]
				if n > len(list) || len(b) < 4*n {
					return false
				}
				for j := range n {
					list[j] = u32(b[4*j:])
				}
				b = b[4*n:]
			}
		}
		return len(b) == 0
	}()
	if !ok {
		bl, _ := t.at(lo)
		clear(bl.scales)
		return false
	}
	for i, n := range found {
		p.names[n] = lo + uint32(i)
	}
	return true
}
