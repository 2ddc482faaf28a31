package cache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
)

// A file is a row of records:
//
//	key [32]byte, tokens uint32, truncated uint32, dim uint32, dim float32s, CRC-32C of all before it
//
// all little-endian. There are two files. Records are appended to one; when it holds half of the bound the
// other is emptied and takes over. So at most the bound lies on disk, with the newest half of it at least, and
// after a start the shorter file that holds something is the one to append to.
const (
	headBytes = 32 + 12
	tailBytes = 4
	maxDim    = 1 << 16
)

var (
	errAbsent  = errors.New("not on disk")
	errDamaged = errors.New("damaged record")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

type place struct {
	file int
	at   int64
	dim  int
}

type disk struct {
	most  int64 // of one file
	files [2]*os.File
	size  [2]int64
	now   int // the file to append to
	index map[Key]place
}

func openDisk(dir string, most int64) (d *disk, damaged int64, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("cache: making the folder: %w", err)
	}
	d = &disk{most: most / 2, index: map[Key]place{}}
	for i := range d.files {
		path := filepath.Join(dir, fmt.Sprintf("vectors.%d", i))
		if d.files[i], err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, 0, errors.Join(fmt.Errorf("cache: opening its file: %w", err), d.close())
		}
		bad, err := d.scan(i)
		if err != nil {
			return nil, 0, errors.Join(fmt.Errorf("cache: reading %s: %w", path, err), d.close())
		}
		damaged += bad
	}
	if d.size[0] == 0 || d.size[1] > 0 && d.size[1] < d.size[0] {
		d.now = 1
	}
	return d, damaged, nil
}

func (d *disk) close() error {
	var err error
	for _, f := range d.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

func (d *disk) bytes() int64 { return d.size[0] + d.size[1] }

// scan indexes a file up to its first record that is torn or damaged and cuts the rest off, so that the
// next record is appended to sound ones. A file over the bound (which may have been lowered) is emptied.
func (d *disk) scan(file int) (damaged int64, err error) {
	f := d.files[file]
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() > d.most {
		return 0, f.Truncate(0)
	}
	in, at := bufio.NewReaderSize(f, 1<<20), int64(0)
	for at < info.Size() {
		k, e, err := readRecord(in)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				return 0, err
			}
			damaged++
			if err := f.Truncate(at); err != nil {
				return 0, err
			}
			break
		}
		if _, ok := d.index[k]; !ok {
			d.index[k] = place{file, at, len(e.Vector)}
		}
		at += recordBytes(len(e.Vector))
	}
	d.size[file] = at
	return damaged, nil
}

func recordBytes(dim int) int64 { return headBytes + 4*int64(dim) + tailBytes }

func readRecord(r io.Reader) (k Key, e Entry, err error) {
	raw := make([]byte, headBytes)
	if _, err := io.ReadFull(r, raw); err != nil {
		return k, e, torn(err)
	}
	dim := binary.LittleEndian.Uint32(raw[40:])
	if dim > maxDim {
		return k, e, errDamaged
	}
	raw = append(raw, make([]byte, 4*dim+tailBytes)...)
	if _, err := io.ReadFull(r, raw[headBytes:]); err != nil {
		return k, e, torn(err)
	}
	body := raw[:len(raw)-tailBytes]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(raw[len(body):]) {
		return k, e, errDamaged
	}
	copy(k[:], body)
	e.Tokens = int(binary.LittleEndian.Uint32(body[32:]))
	e.Truncated = binary.LittleEndian.Uint32(body[36:]) != 0
	e.Vector = make([]float32, dim)
	for i := range e.Vector {
		e.Vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[headBytes+4*i:]))
	}
	return k, e, nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errDamaged
	}
	return err
}

func (d *disk) get(k Key) (Entry, error) {
	p, ok := d.index[k]
	if !ok {
		return Entry{}, errAbsent
	}
	got, e, err := readRecord(io.NewSectionReader(d.files[p.file], p.at, recordBytes(p.dim)))
	if err == nil && got != k {
		err = errDamaged
	}
	if err != nil {
		delete(d.index, k)
	}
	return e, err
}

func (d *disk) put(k Key, e Entry) error {
	n := recordBytes(len(e.Vector))
	if _, ok := d.index[k]; ok || n > d.most || len(e.Vector) > maxDim {
		return nil
	}
	if d.size[d.now]+n > d.most {
		if err := d.turn(); err != nil {
			return err
		}
	}
	raw := append(make([]byte, 0, n), k[:]...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(e.Tokens))
	cut := uint32(0)
	if e.Truncated {
		cut = 1
	}
	raw = binary.LittleEndian.AppendUint32(raw, cut)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(e.Vector)))
	for _, x := range e.Vector {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	if _, err := d.files[d.now].WriteAt(raw, d.size[d.now]); err != nil {
		return err // the next record goes to the same place
	}
	d.index[k] = place{d.now, d.size[d.now], len(e.Vector)}
	d.size[d.now] += n
	return nil
}

// turn empties the file that is not appended to and goes on there.
func (d *disk) turn() error {
	other := 1 - d.now
	if err := d.files[other].Truncate(0); err != nil {
		return err
	}
	for k, p := range d.index {
		if p.file == other {
			delete(d.index, k)
		}
	}
	d.size[other], d.now = 0, other
	return nil
}
