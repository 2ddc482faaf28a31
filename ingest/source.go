package ingest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// sniffBytes is how much of a file the encoding is guessed from.
const sniffBytes = 1 << 20

// stream is an open file, decompressed but not yet decoded.
type stream struct {
	file        *os.File
	zst         *zstd.Decoder
	in          *bufio.Reader
	compression string
	read        atomic.Int64 // bytes of the file itself
	total       int64
}

// Read counts what is taken from the file.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	s.read.Add(int64(n))
	return n, err
}

// Close releases the file.
func (s *stream) Close() error {
	if s.zst != nil {
		s.zst.Close()
	}
	return s.file.Close()
}

// openStream opens a file and undoes gzip and zstd, known by their first bytes.
func openStream(path string) (*stream, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &stream{file: f}
	fail := func(err error) (*stream, error) { return nil, errors.Join(err, f.Close()) }
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		return fail(fmt.Errorf("%s is a folder: name one file", path))
	}
	if !info.Mode().IsRegular() {
		return fail(fmt.Errorf("%s is not a regular file: it is read twice, so write it to one first", path))
	}
	s.total = info.Size()
	raw := bufio.NewReaderSize(s, 256<<10)
	magic, err := raw.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return fail(fmt.Errorf("read %s: %w", path, err))
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return fail(fmt.Errorf("%s begins like gzip, but its header is cut off or damaged: fetch or compress it again: %w", path, err))
		}
		s.compression, s.in = "gzip", bufio.NewReaderSize(&unpacker{s, z}, sniffBytes)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// The window is capped, so a hostile frame cannot ask for gigabytes.
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return fail(fmt.Errorf("%s begins like zstd, but its header is cut off or damaged: fetch or compress it again: %w", path, err))
		}
		s.compression, s.zst, s.in = "zstd", z, bufio.NewReaderSize(&unpacker{s, z}, sniffBytes)
	default:
		s.in = bufio.NewReaderSize(raw, sniffBytes)
	}
	return s, nil
}

// unpacker says of a damaged compressed file where it is damaged.
type unpacker struct {
	s *stream
	z io.Reader
}

// Read undoes the compression.
func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("the %s data is cut off or damaged within the first %d of %d bytes: fetch or compress the file again: %w", u.s.compression, u.s.read.Load(), u.s.total, err)
	}
	return n, err
}

// head is the first bytes, up to sniffBytes, without taking them. whole says
// that there are no more.
func (s *stream) head() (data []byte, whole bool, err error) {
	data, err = s.in.Peek(sniffBytes)
	if errors.Is(err, io.EOF) {
		return data, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	return data, false, nil
}

// text returns the content as UTF-8. Broken bytes of other encodings come out
// as U+FFFD; UTF-8 passes as it is, to be checked row by row.
func (s *stream) text(enc string) (io.Reader, error) {
	dec, err := decoder(enc)
	if err != nil {
		return nil, err
	}
	if dec == nil {
		if bom, _ := s.in.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
			if _, err := s.in.Discard(3); err != nil {
				return nil, err
			}
		}
		return s.in, nil
	}
	return transform.NewReader(s.in, dec.NewDecoder()), nil
}

// returnsToLines makes line feeds of carriage returns, for files whose lines
// end with those alone.
type returnsToLines struct{ in io.Reader }

// Read reads text with its line ends replaced.
func (r *returnsToLines) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	for i, c := range p[:n] {
		if c == '\r' {
			p[i] = '\n'
		}
	}
	return n, err
}

// decoder returns the decoder of an encoding by our name for it, nil for UTF-8.
func decoder(enc string) (encoding.Encoding, error) {
	switch enc {
	case "utf-8":
		return nil, nil
	case "gb18030":
		return simplifiedchinese.GB18030, nil
	case "utf-16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), nil
	case "utf-16be":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM), nil
	case "windows-1252":
		return charmap.Windows1252, nil
	}
	return nil, fmt.Errorf("unknown encoding %q: use utf-8, gb18030, utf-16le, utf-16be or windows-1252", enc)
}
