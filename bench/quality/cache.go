package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/kindred-search/kindred/embed"
)

// cached is an encoder that remembers vectors in a file by a hash of the text,
// so that a second run measures audiences and not the encoder. The file is named
// after the model's stamp; records are hash then fp32, appended.
type cached struct {
	model *embed.Model
	seen  map[[sha256.Size]byte][]float32
	mu    sync.Mutex
	file  *os.File
	fresh int // texts encoded by this run
}

func openCache(dir, name string) (*cached, error) {
	model, err := openModel(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errors.Join(err, model.Close())
	}
	c := &cached{model: model, seen: map[[sha256.Size]byte][]float32{}}
	if c.file, err = os.OpenFile(filepath.Join(dir, model.Info().Stamp), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, errors.Join(err, model.Close())
	}
	in := bufio.NewReader(c.file)
	whole := int64(0)
	for {
		var key [sha256.Size]byte
		v := make([]float32, model.Info().Dim)
		_, err := io.ReadFull(in, key[:])
		if err == nil {
			err = binary.Read(in, binary.LittleEndian, v)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.seen[key] = v
		whole += int64(len(key) + 4*len(v))
	}
	// A record cut short by a killed run is written over.
	if _, err := c.file.Seek(whole, io.SeekStart); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cached) close() error { return errors.Join(c.file.Close(), c.model.Close()) }

func (c *cached) Info() embed.Info { return c.model.Info() }

// Encode is embed.Model.Encode; Tokens and Truncated are left empty.
func (c *cached) Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error) {
	if opt.Progress != nil {
		defer opt.Progress(len(texts), len(texts))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dim := c.model.Info().Dim
	keys := make([][sha256.Size]byte, len(texts))
	var missing []string
	var at []int // where each of missing first stands
	asked := map[[sha256.Size]byte]bool{}
	for i, t := range texts {
		keys[i] = sha256.Sum256(fmt.Appendf(nil, "%q%s", opt.Prompt, t))
		if c.seen[keys[i]] == nil && !asked[keys[i]] {
			missing, at = append(missing, t), append(at, i)
			asked[keys[i]] = true
		}
	}
	if len(missing) > 0 {
		res, err := c.model.Encode(ctx, missing, embed.EncodeOptions{Prompt: opt.Prompt})
		if err != nil {
			return nil, err
		}
		var rec []byte
		for n, i := range at {
			c.seen[keys[i]] = res.Row(n)
			rec = append(rec, keys[i][:]...)
			if rec, err = binary.Append(rec, binary.LittleEndian, res.Row(n)); err != nil {
				return nil, err
			}
		}
		if _, err := c.file.Write(rec); err != nil {
			return nil, err
		}
		c.fresh += len(missing)
	}
	out := &embed.Result{Vectors: make([]float32, 0, len(texts)*dim)}
	for i := range texts {
		out.Vectors = append(out.Vectors, c.seen[keys[i]]...)
	}
	return out, nil
}

// writeNPY writes a [rows, dim] matrix as numpy reads it.
func writeNPY(path string, v []float32, rows, dim int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, dim)
	for (10+len(head)+1)%64 != 0 {
		head += " "
	}
	head += "\n"
	w := bufio.NewWriter(f)
	_, err = w.WriteString("\x93NUMPY\x01\x00" + string([]byte{byte(len(head)), byte(len(head) >> 8)}) + head)
	return errors.Join(err, binary.Write(w, binary.LittleEndian, v), w.Flush(), f.Close())
}
