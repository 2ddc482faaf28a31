package selftest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
)

// model is a random one, and how it encodes in float64: the encoder of Devlin et al.
type model struct {
	cfg     encoder.Config
	tensors map[string][]float32
}

// get makes each tensor when it is first asked for: the same for the same order of asking.
func (m *model) get(name string, shape ...int) ([]float32, error) {
	if x, ok := m.tensors[name]; ok {
		return x, nil
	}
	n := 1
	for _, s := range shape {
		n *= s
	}
	x := make([]float32, n)
	rng := rand.New(rand.NewPCG(uint64(len(m.tensors)), 4))
	for i := range x {
		u := 2*rng.Float32() - 1
		switch {
		case len(shape) == 1 && strings.HasSuffix(name, "weight"): // a gamma
			x[i] = 1 + 0.3*u
		case len(shape) == 1:
			x[i] = 0.3 * u
		default:
			x[i] = u * float32(math.Sqrt(3/float64(shape[1])))
			if strings.HasSuffix(name, "query.weight") {
				x[i] *= 3 // one key stands out
			}
		}
	}
	m.tensors[name] = x
	return x, nil
}

func (m *model) tensor(name string, shape ...int) []float32 {
	x, _ := m.get(name, shape...) // there is no error
	return x
}

func (m *model) linear(x [][]float64, name string, out int) [][]float64 {
	in := len(x[0])
	w, b := m.tensor(name+".weight", out, in), m.tensor(name+".bias", out)
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
	g, b := m.tensor(name+".weight", m.cfg.Dim), m.tensor(name+".bias", m.cfg.Dim)
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

// attend is attention of the heads of one text, [tokens, dim].
func (m *model) attend(q, k, v [][]float64) [][]float64 {
	size := m.cfg.Dim / m.cfg.Heads
	y := make([][]float64, len(q))
	for t := range y {
		y[t] = make([]float64, m.cfg.Dim)
		for at := 0; at < m.cfg.Dim; at += size {
			weights, sum := make([]float64, len(k)), 0.0
			for u := range weights {
				for i := range size {
					weights[u] += q[t][at+i] * k[u][at+i] / math.Sqrt(float64(size))
				}
			}
			top := slices.Max(weights)
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
	return y
}

// encode is the mean of a text's tokens, of unit length.
func (m *model) encode(ids []int32) []float64 {
	c := &m.cfg
	words, positions := m.tensor("embeddings.word_embeddings.weight", c.Vocab, c.Dim), m.tensor("embeddings.position_embeddings.weight", c.Positions, c.Dim)
	types := m.tensor("embeddings.token_type_embeddings.weight", c.TokenTypes, c.Dim)
	x := make([][]float64, len(ids))
	for t, id := range ids {
		for i := range c.Dim {
			x[t] = append(x[t], float64(words[int(id)*c.Dim+i])+float64(positions[t*c.Dim+i])+float64(types[i]))
		}
	}
	m.norm(x, "embeddings.LayerNorm")
	for l := range c.Layers {
		name := fmt.Sprintf("encoder.layer.%d.", l)
		y := m.attend(m.linear(x, name+"attention.self.query", c.Dim), m.linear(x, name+"attention.self.key", c.Dim), m.linear(x, name+"attention.self.value", c.Dim))
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
	out, length := make([]float64, c.Dim), 0.0
	for i := range out {
		for _, row := range x {
			out[i] += row[i]
		}
		length += out[i] * out[i]
	}
	for i := range out {
		out[i] /= math.Sqrt(length)
	}
	return out
}

// encodes tests whole models: heads of each size, in halves and in bfloat16, and by each kernel of
// products that the device runs, over texts that end within its tiles. The simulator would take a
// minute, and does less.
func encodes(ctx context.Context, d *cuda.Device) (what string, err error) {
	if d.Info().Simulated {
		return encodesFew(ctx, d)
	}
	return encodesAll(ctx, d)
}

func encodesAll(ctx context.Context, d *cuda.Device) (what string, err error) {
	for _, c := range []struct{ dim, heads int }{{64, 2}, {64, 1}, {128, 1}} {
		for _, bf16 := range []bool{false, true} {
			what = fmt.Sprintf("heads of %d, %s", c.dim/c.heads, precision(bf16))
			if err := encoded(ctx, d, encoder.Config{Dim: c.dim, Inner: 136, Heads: c.heads, Bfloat16: bf16}, 1, 7, 70); err != nil {
				return what, err
			}
		}
	}
	for _, kernel := range encoder.Products(d.Info()) {
		for _, bf16 := range []bool{false, true} {
			what = fmt.Sprintf("products by %s, %s", kernel, precision(bf16))
			if err := encoded(ctx, d, encoder.Config{Dim: 320, Inner: 424, Heads: 5, Bfloat16: bf16, Products: kernel}, 1, 33, 100, 130); err != nil {
				return what, err
			}
		}
	}
	return what, nil
}

func encodesFew(ctx context.Context, d *cuda.Device) (what string, err error) {
	for _, c := range []struct {
		dim, heads int
		bf16       bool
	}{{64, 2, false}, {64, 1, true}, {64, 1, false}, {72, 1, false}} {
		what = fmt.Sprintf("heads of %d, %s", c.dim/c.heads, precision(c.bf16))
		if err := encoded(ctx, d, encoder.Config{Dim: c.dim, Inner: 72, Heads: c.heads, Bfloat16: c.bf16}, 1, 9); err != nil {
			return what, err
		}
	}
	for _, kernel := range encoder.Products(d.Info()) {
		what = "products by " + kernel
		if err := encoded(ctx, d, encoder.Config{Dim: 32, Inner: 72, Heads: 1, Products: kernel}, 1, 9); err != nil {
			return what, err
		}
	}
	return what, nil
}

func precision(bf16 bool) string {
	if bf16 {
		return "bf16"
	}
	return "fp16"
}

// encoded compares the vectors of random texts of such lengths.
func encoded(ctx context.Context, d *cuda.Device, cfg encoder.Config, lengths ...int) (err error) {
	cfg.Layers, cfg.Vocab, cfg.Positions, cfg.TokenTypes, cfg.Eps, cfg.Pooling = 1, 50, slices.Max(lengths), 2, 1e-12, "mean"
	plain := &model{cfg, map[string][]float32{}}
	m, err := encoder.New(ctx, d, cfg, plain.get)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	rng := rand.New(rand.NewPCG(5, 5))
	var texts [][]int32
	for _, n := range lengths {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(rng.IntN(cfg.Vocab))
		}
		texts = append(texts, ids)
	}
	got, err := m.Encode(ctx, texts)
	if err != nil {
		return err
	}
	// Bfloat16 has steps eight times as wide.
	least, off := 0.9999, 0.05
	if cfg.Bfloat16 {
		least, off = 0.999, 0.15
	}
	for i, ids := range texts {
		want := plain.encode(ids)
		most := 0.0
		for _, x := range want {
			most = max(most, math.Abs(x))
		}
		row, product := got[i*cfg.Dim:(i+1)*cfg.Dim], 0.0
		for j, x := range row {
			product += float64(x) * want[j]
			if !(math.Abs(float64(x)-want[j]) <= off*most) {
				return fmt.Errorf("a text of %d tokens: number %d is %g, want %g", len(ids), j, x, want[j])
			}
		}
		if !(product >= least) {
			return fmt.Errorf("a text of %d tokens: the cosine to what is right is %g", len(ids), product)
		}
	}
	return nil
}
