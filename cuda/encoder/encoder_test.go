//go:build cuda

package encoder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
)

// model is a random one, and the oracle: the encoder of Devlin et al. in float64.
type model struct {
	cfg     Config
	tensors map[string][]float32
}

func random(rng *rand.Rand, cfg Config) *model {
	return &model{cfg, map[string][]float32{}}
}

// get makes each tensor when it is first asked for.
func (m *model) get(name string, shape ...int) ([]float32, error) {
	if x, ok := m.tensors[name]; ok {
		return x, nil
	}
	n := 1
	for _, s := range shape {
		n *= s
	}
	x := make([]float32, n)
	rng := rand.New(rand.NewPCG(uint64(len(m.tensors)), 99))
	for i := range x {
		switch {
		case len(shape) == 1 && len(name) > 6 && name[len(name)-6:] == "weight": // a gamma
			x[i] = float32(1 + 0.2*rng.NormFloat64())
		case len(shape) == 1:
			x[i] = float32(0.2 * rng.NormFloat64())
		default:
			x[i] = float32(rng.NormFloat64() / math.Sqrt(float64(shape[1])))
			if strings.HasSuffix(name, "query.weight") {
				x[i] *= 3 // one key stands out, in whichever block of keys it is
			}
		}
	}
	m.tensors[name] = x
	return x, nil
}

func (m *model) linear(x [][]float64, name string, out int) [][]float64 {
	in := len(x[0])
	w, _ := m.get(name+".weight", out, in)
	b, _ := m.get(name+".bias", out)
	y := make([][]float64, len(x))
	for t := range x {
		y[t] = make([]float64, out)
		for j := range out {
			s := float64(b[j])
			for i, v := range x[t] {
				s += v * float64(w[j*in+i])
			}
			y[t][j] = s
		}
	}
	return y
}

func (m *model) norm(x [][]float64, name string) {
	g, _ := m.get(name+".weight", m.cfg.Dim)
	b, _ := m.get(name+".bias", m.cfg.Dim)
	for _, row := range x {
		mean, square := 0.0, 0.0
		for _, v := range row {
			mean += v / float64(len(row))
		}
		for _, v := range row {
			square += (v - mean) * (v - mean) / float64(len(row))
		}
		for i := range row {
			row[i] = (row[i]-mean)/math.Sqrt(square+float64(m.cfg.Eps))*float64(g[i]) + float64(b[i])
		}
	}
}

func add(x, y [][]float64) {
	for t := range x {
		for i := range x[t] {
			x[t][i] += y[t][i]
		}
	}
}

func (m *model) encode(ids []int32) []float64 {
	c := &m.cfg
	words, _ := m.get("embeddings.word_embeddings.weight", c.Vocab, c.Dim)
	positions, _ := m.get("embeddings.position_embeddings.weight", c.Positions, c.Dim)
	types, _ := m.get("embeddings.token_type_embeddings.weight", c.TokenTypes, c.Dim)
	x := make([][]float64, len(ids))
	for t, id := range ids {
		for i := range c.Dim {
			x[t] = append(x[t], float64(words[int(id)*c.Dim+i])+float64(positions[t*c.Dim+i])+float64(types[i]))
		}
	}
	m.norm(x, "embeddings.LayerNorm")
	size := c.Dim / c.Heads
	for l := range c.Layers {
		name := fmt.Sprintf("encoder.layer.%d.", l)
		q, k, v := m.linear(x, name+"attention.self.query", c.Dim), m.linear(x, name+"attention.self.key", c.Dim), m.linear(x, name+"attention.self.value", c.Dim)
		y := make([][]float64, len(ids))
		for t := range y {
			y[t] = make([]float64, c.Dim)
			for h := range c.Heads {
				at := h * size
				weights, top, sum := make([]float64, len(ids)), math.Inf(-1), 0.0
				for u := range weights {
					for i := range size {
						weights[u] += q[t][at+i] * k[u][at+i] / math.Sqrt(float64(size))
					}
					top = max(top, weights[u])
				}
				for u := range weights {
					weights[u] = math.Exp(weights[u] - top)
					sum += weights[u]
				}
				for u, w := range weights {
					for i := range size {
						y[t][at+i] += w / sum * v[u][at+i]
					}
				}
			}
		}
		add(x, m.linear(y, name+"attention.output.dense", c.Dim))
		m.norm(x, name+"attention.output.LayerNorm")
		up := m.linear(x, name+"intermediate.dense", c.Inner)
		for _, row := range up {
			for i, v := range row {
				row[i] = 0.5 * v * (1 + math.Erf(v/math.Sqrt2))
			}
		}
		add(x, m.linear(up, name+"output.dense", c.Dim))
		m.norm(x, name+"output.LayerNorm")
	}
	out := slices.Clone(x[0])
	switch c.Pooling {
	case "last":
		out = x[len(x)-1]
	case "mean":
		for _, row := range x[1:] {
			for i, v := range row {
				out[i] += v
			}
		}
	case "max":
		for _, row := range x[1:] {
			for i, v := range row {
				out[i] = max(out[i], v)
			}
		}
	}
	return out
}

func cosine(a []float64, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+a[i]*float64(b[i]), aa+a[i]*a[i], bb+float64(b[i])*float64(b[i])
	}
	return ab / math.Sqrt(aa*bb)
}

func texts(rng *rand.Rand, vocab int, lengths ...int) [][]int32 {
	var out [][]int32
	for _, n := range lengths {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(rng.IntN(vocab))
		}
		out = append(out, ids)
	}
	return out
}

// TestEncode holds the device to the oracle over shapes that straddle tiles, slices of
// K, blocks of queries and of keys, and heads of several sizes.
func TestEncode(t *testing.T) {
	d := cudatest.Open(t)
	for _, c := range []struct {
		cfg     Config
		lengths []int
	}{
		{Config{Dim: 64, Inner: 128, Heads: 2, Pooling: "mean"}, []int{1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65}},
		{Config{Dim: 128, Inner: 72, Heads: 2, Pooling: "first"}, []int{5, 130, 1, 20}},
		{Config{Dim: 72, Inner: 40, Heads: 3, Pooling: "last"}, []int{3, 33, 2}},
		{Config{Dim: 40, Inner: 8, Heads: 20, Pooling: "max"}, []int{7, 1, 34}},
		{Config{Dim: 256, Inner: 64, Heads: 2, Pooling: "mean"}, []int{9, 40}},
		{Config{Dim: 8, Inner: 8, Heads: 1, Pooling: "mean"}, []int{1}},
		{Config{Dim: 64, Inner: 128, Heads: 2, Pooling: "mean", Bfloat16: true}, []int{1, 2, 17, 33, 65}},
		{Config{Dim: 72, Inner: 40, Heads: 8, Pooling: "max", Bfloat16: true}, []int{3, 33}},
	} {
		least := 0.9999
		if c.cfg.Bfloat16 { // whose steps are eight times as wide
			least = 0.999
		}
		c.cfg.Layers, c.cfg.Vocab, c.cfg.Positions, c.cfg.TokenTypes, c.cfg.Eps = 2, 50, 130, 2, 1e-12
		t.Run(fmt.Sprint(c.cfg.Dim, c.cfg.Inner, c.cfg.Heads, c.cfg.Pooling, c.cfg.Bfloat16), func(t *testing.T) {
			if testing.Short() && c.cfg.Dim > 100 {
				t.Skip("takes long; one schedule runs it")
			}
			rng := rand.New(rand.NewPCG(1, uint64(c.cfg.Dim)))
			oracle := random(rng, c.cfg)
			m, err := New(t.Context(), d, c.cfg, oracle.get)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			in := texts(rng, c.cfg.Vocab, c.lengths...)
			got, err := m.Encode(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			general := c.cfg
			general.Products = "gemm"
			other, err := New(t.Context(), d, general, oracle.get)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			everywhere, err := other.Encode(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for i, ids := range in {
				if cos := cosine(oracle.encode(ids), everywhere[i*c.cfg.Dim:(i+1)*c.cfg.Dim]); !(cos >= least) {
					t.Errorf("text %d of %d tokens: cosine %.6f to the oracle with the kernels of every device", i, len(ids), cos)
				}
				row := got[i*c.cfg.Dim : (i+1)*c.cfg.Dim]
				if cos := cosine(oracle.encode(ids), row); !(cos >= least) {
					t.Errorf("text %d of %d tokens: cosine %.6f to the oracle", i, len(ids), cos)
				}
				length := 0.0
				for _, x := range row {
					length += float64(x) * float64(x)
				}
				if math.Abs(length-1) > 1e-5 {
					t.Errorf("text %d: the vector's length is %g", i, math.Sqrt(length))
				}
			}
			// With tiles of each size, alone, in another order, or in small batches: the
			// same bits.
			all := m.shapes
			for _, s := range all {
				m.shapes = []shape{s}
				tiled, err := m.Encode(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(tiled, got) {
					t.Errorf("tiles of %s give other vectors", s.kernel)
				}
			}
			m.shapes = all
			alone, err := m.Encode(t.Context(), in[:1])
			if err != nil {
				t.Fatal(err)
			}
			m.budget = 20
			turned := slices.Clone(in)
			slices.Reverse(turned)
			back, err := m.Encode(t.Context(), turned)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(alone, got[:c.cfg.Dim]) {
				t.Error("alone the first text has another vector")
			}
			for i := range in {
				j := len(in) - 1 - i
				if !slices.Equal(back[j*c.cfg.Dim:(j+1)*c.cfg.Dim], got[i*c.cfg.Dim:(i+1)*c.cfg.Dim]) {
					t.Errorf("in small batches text %d has another vector", i)
				}
			}
		})
	}
}

var small = Config{Dim: 16, Inner: 16, Layers: 1, Heads: 2, Vocab: 20, Positions: 8, TokenTypes: 1, Eps: 1e-12, Pooling: "mean"}

func TestRefused(t *testing.T) {
	d := cudatest.Open(t)
	oracle := random(nil, small)
	for what, change := range map[string]func(*Config){
		"dim":     func(c *Config) { c.Dim = 12 },
		"inner":   func(c *Config) { c.Inner = 9 },
		"heads":   func(c *Config) { c.Heads = 3 },
		"wide":    func(c *Config) { c.Dim, c.Heads = 136, 1 },
		"large":   func(c *Config) { c.Dim = 2048 },
		"none":    func(c *Config) { c.Layers = 0 },
		"pooling": func(c *Config) { c.Pooling = "sum" },
	} {
		cfg := small
		change(&cfg)
		if _, err := New(t.Context(), d, cfg, oracle.get); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	wide := random(nil, small)
	for _, bad := range []float32{1e6, float32(math.NaN()), float32(math.Inf(-1))} {
		get := func(name string, shape ...int) ([]float32, error) {
			x, err := wide.get(name, shape...)
			if name == "encoder.layer.0.output.dense.weight" {
				x = slices.Clone(x)
				x[3] = bad
			}
			return x, err
		}
		if _, err := New(t.Context(), d, small, get); err == nil {
			t.Errorf("a weight of %g is taken", bad)
		}
	}
	missing := errors.New("not there")
	if _, err := New(t.Context(), d, small, func(string, ...int) ([]float32, error) { return nil, missing }); !errors.Is(err, missing) {
		t.Errorf("no tensors: %v", err)
	}
	m, err := New(t.Context(), d, small, oracle.get)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for what, in := range map[string][][]int32{"empty": {{}}, "long": {make([]int32, 9)}, "vocabulary": {{20}}, "negative": {{1}, {-1}}} {
		if _, err := m.Encode(t.Context(), in); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if out, err := m.Encode(t.Context(), nil); err != nil || len(out) != 0 {
		t.Errorf("no texts: %v, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Encode(ctx, [][]int32{{1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFaults: wherever memory runs out, and whenever the device is lost, there is an
// error that says so, and nothing is left held.
func TestFaults(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator fails when asked to")
	}
	oracle := random(nil, small)
	in := [][]int32{{1, 2, 3}, {4}}
	for _, c := range []struct {
		env  string
		kind error
		some int
	}{{"KINDRED_SIM_FAIL_ALLOC", cuda.ErrOutOfMemory, 8}, {"KINDRED_SIM_LOSE", cuda.ErrLost, 8}, {"KINDRED_SIM_FAIL_LAUNCH", cuda.ErrLaunch, 8}} {
		for n := 1; ; n++ {
			t.Setenv(c.env, strconv.Itoa(n))
			d, err := cuda.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(c.env, "")
			m, err := New(t.Context(), d, small, oracle.get)
			if err == nil {
				_, err = m.Encode(t.Context(), in)
				if err != nil && !errors.Is(c.kind, cuda.ErrLost) {
					if _, err := m.Encode(t.Context(), in); err != nil {
						t.Errorf("%s=%d, the second time: %v", c.env, n, err)
					}
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
			if e := d.Close(); e != nil {
				t.Errorf("%s=%d: %v", c.env, n, e)
			}
			if err == nil {
				if n <= c.some {
					t.Errorf("%s: only %d failed", c.env, n-1)
				}
				break
			}
			if !errors.Is(err, c.kind) {
				t.Fatalf("%s=%d: %v, want %v", c.env, n, err, c.kind)
			}
		}
	}
}

// TestBfloat16: rounding to nearest even, at both ends and beyond.
func TestBfloat16(t *testing.T) {
	for x, want := range map[float32]uint16{
		0: 0, 1: 0x3f80, -1: 0xbf80, 1 + 1.0/256: 0x3f80, 1 + 3.0/256: 0x3f82, 1 + 1.0/255: 0x3f81,
		0x1.fep127: 0x7f7f, math.SmallestNonzeroFloat32: 0, 0x1p-133: 1, 0x1.8p-134: 1, 65519: 0x4780,
	} {
		if got := bfloat16(x); got != want {
			t.Errorf("%g: %04x, want %04x", x, got, want)
		}
	}
	c := Config{Dim: 8, Inner: 8, Heads: 1, Layers: 1, Vocab: 2, Positions: 2, TokenTypes: 1, Pooling: "mean"}
	for _, bf := range []bool{false, true} {
		for _, large := range []float32{70000, float32(math.Inf(1)), math.MaxFloat32} {
			c.Bfloat16 = bf
			_, _, err := pack(&c, func(_ string, shape ...int) ([]float32, error) {
				n := 1
				for _, s := range shape {
					n *= s
				}
				x := make([]float32, n)
				x[n-1] = large
				return x, nil
			})
			if (err == nil) != (bf && large == 70000) {
				t.Errorf("bfloat16 %v, a weight of %g: %v", bf, large, err)
			}
		}
	}
}
