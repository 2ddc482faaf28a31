// Package weights reads the parameters of a transformer from a file: the
// safetensors format (fp32, fp16, bf16) and the initialisers of an ONNX graph.
//
// # Place in the flow
//
// embed.Open calls [Open] on model.safetensors or model.onnx and asks [Tensors]
// for each parameter by its BERT name, for example
// "encoder.layer.0.attention.self.query.weight". Prefixes that exporters put in
// front ("bert.", "model.", "0.auto_model.") are taken off, and the oldest names
// of layer norms ("gamma", "beta") become "weight" and "bias". A linear weight is
// always [out, in], as PyTorch keeps it, whatever the file does.
//
// # Hostile files
//
// A model file is input from outside. Both readers work on bytes already in
// memory and check every size against them before anything is allocated, so the
// memory taken is bounded by a small multiple of the file. A fault names the
// tensor and is an error that wraps [ErrFormat]; nothing panics.
package weights

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrFormat is wrapped by every error about the content of a weights file, as
// opposed to errors of reading it.
var ErrFormat = errors.New("not a usable weights file")

// MaxFileBytes is the largest file that Open reads: 8 GiB, well above any
// encoder that runs on a CPU and below what would exhaust a server by mistake.
const MaxFileBytes = 8 << 30

// maxRank bounds the dimensions of a tensor; transformers need two.
const maxRank = 8

// Tensor is one parameter in fp32, row-major. Shape and Data are shared by all
// callers and must not be changed.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Tensors holds the parameters of one file. It is immutable once made and safe
// for concurrent use.
type Tensors struct {
	byName map[string]Tensor
	sha    string
}

// Open reads the weights at path; the suffix (.safetensors or .onnx) says how.
func Open(path string) (*Tensors, error) {
	ext := filepath.Ext(path)
	if ext != ".safetensors" && ext != ".onnx" {
		return nil, fmt.Errorf("weights %s: %w: the suffix must be .safetensors or .onnx", path, ErrFormat)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("weights %s: %w: not a regular file", path, ErrFormat)
	}
	if st.Size() > MaxFileBytes {
		return nil, fmt.Errorf("weights %s: %w: %d bytes, more than the %d that are read", path, ErrFormat, st.Size(), int64(MaxFileBytes))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	var t *Tensors
	if ext == ".onnx" {
		t, err = ReadONNX(data)
	} else {
		t, err = ReadSafetensors(data)
	}
	if err != nil {
		return nil, fmt.Errorf("weights %s: %w", path, err)
	}
	sum := sha256.Sum256(data)
	t.sha = hex.EncodeToString(sum[:])
	return t, nil
}

// SHA256 returns the hexadecimal digest of the file that [Open] read, or "" for
// tensors read from memory.
func (t *Tensors) SHA256() string { return t.sha }

// Names returns the normalised names of all floating-point tensors, sorted.
func (t *Tensors) Names() []string {
	names := make([]string, 0, len(t.byName))
	for n := range t.byName {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Get returns the tensor of that normalised name, and whether there is one.
func (t *Tensors) Get(name string) (Tensor, bool) {
	x, ok := t.byName[name]
	return x, ok
}

// Want returns the tensor of that name if it has exactly that shape and only
// finite values; otherwise an error that names what is wrong.
func (t *Tensors) Want(name string, shape ...int) ([]float32, error) {
	x, ok := t.byName[name]
	if !ok {
		return nil, fmt.Errorf("%w: no tensor %q among %d; is this the architecture that config.json names?", ErrFormat, name, len(t.byName))
	}
	if !slices.Equal(x.Shape, shape) {
		return nil, fmt.Errorf("%w: tensor %q has shape %v, config.json asks for %v", ErrFormat, name, x.Shape, shape)
	}
	for i, v := range x.Data {
		if d := v - v; d != 0 { // NaN for NaN and for both infinities
			return nil, fmt.Errorf("%w: tensor %q holds %v at element %d", ErrFormat, name, v, i)
		}
	}
	return x.Data, nil
}

func (t *Tensors) add(raw string, x Tensor) error {
	name := Normalise(raw)
	if _, ok := t.byName[name]; ok {
		return fmt.Errorf("%w: two tensors are named %q", ErrFormat, name)
	}
	t.byName[name] = x
	return nil
}

// Normalise maps a name of a checkpoint to its BERT name: exporters' prefixes
// go, and gamma and beta of old layer norms become weight and bias.
func Normalise(name string) string {
	for {
		cut := name
		for _, p := range []string{"0.", "auto_model.", "model.", "module.", "bert."} {
			cut = strings.TrimPrefix(cut, p)
		}
		if cut == name {
			break
		}
		name = cut
	}
	if s, ok := strings.CutSuffix(name, "LayerNorm.gamma"); ok {
		return s + "LayerNorm.weight"
	}
	if s, ok := strings.CutSuffix(name, "LayerNorm.beta"); ok {
		return s + "LayerNorm.bias"
	}
	return name
}

// elements returns the product of shape, or false when it is negative, has too
// many dimensions or exceeds limit.
func elements(shape []int, limit int) (int, bool) {
	if len(shape) > maxRank {
		return 0, false
	}
	n := 1
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d > 0 && n > limit/d {
			return 0, false
		}
		n *= d
	}
	return n, n <= limit
}

func fromF32(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

func fromBF16(b []byte) []float32 {
	out := make([]float32, len(b)/2)
	for i := range out {
		out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
	}
	return out
}

func fromF16(b []byte) []float32 {
	out := make([]float32, len(b)/2)
	for i := range out {
		out[i] = half(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return out
}

// half widens one IEEE 754 binary16 value; exact for every input, subnormals
// included.
func half(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case 0:
		v := float32(frac) * (1.0 / (1 << 24))
		if sign != 0 {
			v = -v
		}
		return v
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
