package trial

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/index"
)

// ReadFile reads the first vectors of a file, no more than most: NumPy's .npy with a
// matrix of little-endian float32 in C order, or .fvecs, where the dimension as int32
// comes before each vector. Vectors of zeros are left out. Errors are index.ErrInvalid and
// name what is wrong where, or those of the file.
func ReadFile(path string, most int) (vectors [][]float32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, 1<<20)
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".npy":
		vectors, err = readNPY(r, most)
	case ".fvecs":
		vectors, err = readFvecs(r, most)
	default:
		return nil, fmt.Errorf("%w: %s: want a file whose name ends in .npy or .fvecs", index.ErrInvalid, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return vectors, nil
}

var (
	npyType  = regexp.MustCompile(`'descr':\s*'([^']*)'`)
	npyOrder = regexp.MustCompile(`'fortran_order':\s*(True|False)`)
	npyShape = regexp.MustCompile(`'shape':\s*\((\d+),\s*(\d+)\s*,?\)`)
)

func readNPY(r io.Reader, most int) ([][]float32, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:10]); err != nil || !bytes.HasPrefix(head[:], []byte("\x93NUMPY")) {
		return nil, fmt.Errorf("%w: this is no .npy file", index.ErrInvalid)
	}
	size := int(binary.LittleEndian.Uint16(head[8:]))
	if head[6] > 1 { // later versions have a longer length
		if _, err := io.ReadFull(r, head[10:]); err != nil {
			return nil, fmt.Errorf("%w: it ends in its header", index.ErrInvalid)
		}
		size = int(min(binary.LittleEndian.Uint32(head[8:]), math.MaxInt32))
	}
	if size > 1<<16 {
		return nil, fmt.Errorf("%w: its header takes %d bytes, which no matrix needs", index.ErrInvalid, size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("%w: it ends in its header", index.ErrInvalid)
	}
	kind, order, shape := npyType.FindSubmatch(text), npyOrder.FindSubmatch(text), npyShape.FindSubmatch(text)
	if kind == nil || order == nil || shape == nil || string(kind[1]) != "<f4" || string(order[1]) != "False" {
		return nil, fmt.Errorf("%w: its header is %q: want a matrix of little-endian float32 in C order: numpy.save(path, numpy.ascontiguousarray(x, '<f4'))", index.ErrInvalid, bytes.TrimSpace(text))
	}
	n, err1 := strconv.Atoi(string(shape[1]))
	dim, err2 := strconv.Atoi(string(shape[2]))
	if err1 != nil || err2 != nil || dim < 2 || dim > index.MaxDim {
		return nil, fmt.Errorf("%w: its shape is (%s, %s): want vectors of 2 to %d dimensions", index.ErrInvalid, shape[1], shape[2], index.MaxDim)
	}
	var out [][]float32
	for i := range min(n, most) {
		v, err := readVector(r, dim, i)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

func readFvecs(r io.Reader, most int) ([][]float32, error) {
	var out [][]float32
	first := 0
	for i := range most {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%w: it ends within vector %d", index.ErrInvalid, i)
		}
		dim := int(int32(binary.LittleEndian.Uint32(head[:])))
		if i == 0 {
			first = dim
		}
		if dim < 2 || dim > index.MaxDim || dim != first {
			return nil, fmt.Errorf("%w: vector %d has %d dimensions, the first has %d: want 2 to %d, and the same of all", index.ErrInvalid, i, dim, first, index.MaxDim)
		}
		v, err := readVector(r, dim, i)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// readVector returns nil for one of zeros.
func readVector(r io.Reader, dim, i int) ([]float32, error) {
	buf := make([]byte, 4*dim)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("%w: it ends within vector %d", index.ErrInvalid, i)
	}
	v, any := make([]float32, dim), false
	for d := range v {
		v[d] = math.Float32frombits(binary.LittleEndian.Uint32(buf[4*d:]))
		if x := float64(v[d]); math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("%w: vector %d has %v in dimension %d", index.ErrInvalid, i, v[d], d)
		}
		any = any || v[d] != 0
	}
	if !any {
		return nil, nil
	}
	return v, nil
}
