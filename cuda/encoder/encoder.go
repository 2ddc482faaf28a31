package encoder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/cuda"
)

// What encoder.cu and attention.cu name alike, and the threads of their blocks.
const (
	blockThreads = 128
	poolThreads  = 512
)

const (
	// budget is how many tokens a batch has, or one text more: enough for every
	// processor of a large device.
	budget = 32768
	// leastBudget is how small batches become where there is no memory for larger ones.
	leastBudget = 1024
	// textsMost is the third dimension of a grid.
	textsMost = 65535
)

// Model is a model on a device. It is safe for concurrent use; calls take turns, and one that
// is given up meanwhile does not wait on.
type Model struct {
	d      *cuda.Device
	cfg    Config
	at     *places
	budget int
	shapes []shape // of the kernels of products
	// Of tune: by product and size the fastest, and all that was timed.
	fastest map[product][]*shape
	sizes   []int
	timed   []Tuned

	turn           chan struct{} // full while a call goes on: what follows is its
	halves, floats *cuda.Buffer
	work           *work // nil until the first batch
	closed         bool
}

// work is the memory of a batch.
type work struct {
	tokens, texts int // for how many
	x, y          *cuda.Buffer
	qkv, inner    *cuda.Buffer
	ids, places   *cuda.Buffer
	starts, out   *cuda.Buffer
}

// New copies a model's weights to the device, which stays the caller's. A shape that
// the kernels cannot run is an error that says why.
func New(ctx context.Context, d *cuda.Device, cfg Config, get Tensors) (*Model, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p, at, err := pack(&cfg, get)
	if err != nil {
		return nil, err
	}
	shapes, err := shapesFor(d.Info(), cfg.Products)
	if err != nil {
		return nil, err
	}
	m := &Model{d: d, cfg: cfg, at: at, budget: budget, shapes: shapes, turn: make(chan struct{}, 1)}
	err = m.take(ctx, "the weights of a model", cuda.Want{To: &m.halves, Purpose: "weights", Size: int64(len(p.halves)) * 2},
		cuda.Want{To: &m.floats, Purpose: "weights", Size: int64(len(p.floats)) * 4})
	if err != nil {
		return nil, err
	}
	err = d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(cuda.Upload(q, m.halves, 0, p.halves), cuda.Upload(q, m.floats, 0, p.floats))
	})
	if err == nil && len(shapes) > 1 && !d.Info().Simulated { // whose time says nothing
		err = m.tune(ctx, tunedSizes)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// take allocates what the model keeps. Rows of populations give way for it.
func (m *Model) take(ctx context.Context, what string, wants ...cuda.Want) error {
	sum := int64(0)
	for _, w := range wants {
		sum += w.Size
	}
	lease, err := m.d.Lease(ctx, cuda.Ask{What: what, Least: sum})
	if err != nil {
		return err
	}
	defer lease.End()
	return m.d.AllocAll(wants...)
}

// Close frees what the model holds on the device, when what goes on has ended. It may be called
// again.
func (m *Model) Close() error {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	m.closed = true
	return errors.Join(m.halves.Free(), m.floats.Free(), m.freeWork())
}

func (m *Model) freeWork() error {
	w := m.work
	m.work = nil
	if w == nil {
		return nil
	}
	var all []error
	for _, b := range w.buffers() {
		all = append(all, (*b).Free())
	}
	return errors.Join(all...)
}

func (w *work) buffers() []**cuda.Buffer {
	return []**cuda.Buffer{&w.x, &w.y, &w.qkv, &w.inner, &w.ids, &w.places, &w.starts, &w.out}
}

// Encode returns the unit vectors of texts, [texts, dim], given as ids with the specials
// the model wants: 1 to Positions of them, each below Vocab. Ctx is asked between
// batches.
func (m *Model) Encode(ctx context.Context, texts [][]int32) ([]float32, error) {
	for i, text := range texts {
		if len(text) == 0 || len(text) > m.cfg.Positions {
			return nil, fmt.Errorf("text %d has %d tokens: want 1 to %d", i, len(text), m.cfg.Positions)
		}
		for j, id := range text {
			if id < 0 || int(id) >= m.cfg.Vocab {
				return nil, fmt.Errorf("text %d: token %d is %d: want 0 to %d", i, j, id, m.cfg.Vocab-1)
			}
		}
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if m.closed {
		return nil, cuda.ErrClosed
	}
	// Texts of like length are neighbours: a grid of attention is as long as the
	// longest needs.
	order := make([]int, len(texts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(texts[b]) - len(texts[a]) })
	out := make([]float32, len(texts)*m.cfg.Dim)
	for len(order) > 0 {
		n, tokens := 0, 0
		for n < len(order) && n < textsMost && (n == 0 || tokens+len(texts[order[n]]) <= m.budget) {
			tokens += len(texts[order[n]])
			n++
		}
		vectors, err := m.batch(ctx, texts, order[:n], tokens)
		if errors.Is(err, cuda.ErrOutOfMemory) && n > 1 && tokens > leastBudget {
			m.budget = max(tokens/2, leastBudget) // from now on
			continue
		}
		if err != nil {
			return nil, err
		}
		for j, i := range order[:n] {
			row := vectors[j*m.cfg.Dim : (j+1)*m.cfg.Dim]
			if x := float64(row[0]); math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, fmt.Errorf("the vector of text %d is not finite: halves are too narrow for this model (bf16 is not), or its weights are damaged", i)
			}
			copy(out[i*m.cfg.Dim:], row)
		}
		order = order[n:]
	}
	return out, nil
}

// room makes sure that a batch of so many tokens and texts has memory.
func (m *Model) room(ctx context.Context, tokens, texts int) error {
	if m.work != nil && m.work.tokens >= tokens && m.work.texts >= texts {
		return nil
	}
	if m.work != nil {
		tokens, texts = max(tokens, m.work.tokens), max(texts, m.work.texts)
		if err := m.freeWork(); err != nil {
			return err
		}
	}
	m.work = &work{tokens: tokens, texts: texts}
	t, dim := int64(tokens), int64(m.cfg.Dim)
	width := int64(m.cfg.Heads * m.cfg.headSize())
	sizes := []int64{t * dim * 2, t * max(dim, width) * 2, t * width * 6, t * int64(m.cfg.Inner) * 2, t * 4, t * 4, int64(texts+1) * 4, int64(texts) * dim * 4}
	wants := make([]cuda.Want, len(sizes))
	for i, b := range m.work.buffers() {
		wants[i] = cuda.Want{To: b, Purpose: "activations", Size: sizes[i]}
	}
	if err := m.take(ctx, fmt.Sprintf("a batch of %d tokens", tokens), wants...); err != nil {
		m.work = nil
		return err
	}
	return nil
}

func (m *Model) batch(ctx context.Context, texts [][]int32, which []int, tokens int) ([]float32, error) {
	if err := m.room(ctx, tokens, len(which)); err != nil {
		return nil, err
	}
	ids, places := make([]int32, 0, tokens), make([]int32, 0, tokens)
	starts := []int32{0}
	for _, i := range which {
		ids = append(ids, texts[i]...)
		for j := range texts[i] {
			places = append(places, int32(j))
		}
		starts = append(starts, int32(len(ids)))
	}
	vectors := make([]float32, len(which)*m.cfg.Dim)
	err := m.d.Do(ctx, func(q *cuda.Queue) error {
		w := m.work
		if err := errors.Join(cuda.Upload(q, w.ids, 0, ids), cuda.Upload(q, w.places, 0, places), cuda.Upload(q, w.starts, 0, starts)); err != nil {
			return err
		}
		if err := m.forward(q, tokens, len(which), len(texts[which[0]])); err != nil {
			return err
		}
		return cuda.Download(q, vectors, w.out, 0)
	})
	return vectors, err
}

// forward orders the kernels of a batch. longest is the most tokens of a text.
func (m *Model) forward(q *cuda.Queue, tokens, texts, longest int) error {
	c, w := &m.cfg, m.work
	norms := cuda.Launch{Grid: normGrid(tokens, c.Dim), Block: [3]int{blockThreads}}
	var failed error
	launch := func(kernel string, l cuda.Launch, args ...cuda.Arg) {
		if c.Bfloat16 {
			kernel += "_bf16"
		}
		if failed == nil {
			failed = q.Launch(kernel, l, args...)
		}
	}
	half := func(at int64) cuda.Arg { return cuda.At(m.halves, at) }
	float := func(at int64) cuda.Arg { return cuda.At(m.floats, at) }
	multiply := func(x, out *cuda.Buffer, at tensorPlace, residual cuda.Arg, p product) {
		l, kernel, args := m.launchOf(m.shapeOf(p, tokens), x, out, at, residual, p, tokens)
		if failed == nil {
			failed = q.Launch(kernel, l, args...)
		}
	}
	norm := func(in, out *cuda.Buffer, p tensorPlace) {
		launch("layer_norm", norms, cuda.At(in, 0), float(p.weight), float(p.bias), cuda.F32(c.Eps), cuda.At(out, 0), cuda.I32(tokens), cuda.I32(c.Dim))
	}
	qkv, out, up, down := m.products()
	size := c.headSize()
	attention := fmt.Sprintf("attention_%d", size)
	// The exponentials are powers of two.
	scale := float32(math.Log2E / math.Sqrt(float64(c.Dim/c.Heads)))
	blocks := attentionGrid(size, c.Heads, texts, longest, m.d.Info().Processors)
	launch("embed_norm", norms, half(m.at.words), half(m.at.positions), cuda.At(w.ids, 0), cuda.At(w.places, 0),
		float(m.at.norm.weight), float(m.at.norm.bias), cuda.F32(c.Eps), cuda.At(w.x, 0), cuda.I32(tokens), cuda.I32(c.Dim))
	for i := range m.at.layers {
		l := &m.at.layers[i]
		multiply(w.x, w.qkv, l.qkv, cuda.Null(), qkv)
		launch(attention, cuda.Launch{Grid: blocks, Block: [3]int{blockThreads}},
			cuda.At(w.qkv, 0), cuda.At(w.starts, 0), cuda.At(w.y, 0), cuda.I32(c.Heads), cuda.F32(scale))
		multiply(w.y, w.x, l.out, cuda.At(w.x, 0), out)
		norm(w.x, w.y, l.attnNorm)
		multiply(w.y, w.inner, l.up, cuda.Null(), up)
		multiply(w.inner, w.y, l.down, cuda.At(w.y, 0), down)
		norm(w.y, w.x, l.outNorm)
	}
	launch("pool", cuda.Launch{Grid: [3]int{texts}, Block: [3]int{poolThreads}},
		cuda.At(w.x, 0), cuda.At(w.starts, 0), cuda.At(w.out, 0), cuda.I32(c.Dim), cuda.I32(pools[c.Pooling]))
	return failed
}

// launchOf is a launch of a product of x with weights and bias at a place, onto out, by kernels of
// one shape.
func (m *Model) launchOf(s *shape, x, out *cuda.Buffer, at tensorPlace, residual cuda.Arg, p product, tokens int) (cuda.Launch, string, []cuda.Arg) {
	kernel := s.kernel
	if m.cfg.Bfloat16 {
		kernel += "_bf16"
	}
	blocksM, blocksN := s.grid(tokens, p.n)
	return cuda.Launch{Grid: [3]int{blocksN, blocksM}, Block: [3]int{s.threads}, Shared: s.shared}, kernel,
		[]cuda.Arg{cuda.At(x, 0), cuda.At(m.halves, at.weight), cuda.At(m.floats, at.bias), residual, cuda.At(out, 0), cuda.I32(tokens), cuda.I32(p.n), cuda.I32(p.k), cuda.I32(p.act)}
}

// normGrid shapes a launch of the norms, a warp of which has two rows or one.
func normGrid(tokens, dim int) [3]int {
	rows := blockThreads / 32
	if dim <= 512 {
		rows *= 2
	}
	return [3]int{(tokens + rows - 1) / rows}
}

// attentionGrid shapes a launch of attention, whose heads are of so many elements on the
// device, over texts of up to longest tokens. A block has four heads one after the other, each
// copied while the one before is computed, unless more blocks are needed for all processors
// to have some; but no fewer than it has at once in texts that are short. It has no say in a
// bit of what is computed.
func attentionGrid(size, heads, texts, longest, processors int) [3]int {
	queries, most := 128, 4 // of a block, and the heads of up to 32 queries that it has at once
	switch size {
	case 64:
		most = 2
	case headMost:
		queries, most = 64, 1
	}
	atOnce := 1
	for atOnce < most && 2*atOnce*longest <= queries {
		atOnce *= 2
	}
	grid := [3]int{(longest + queries - 1) / queries, 0, texts}
	for own := 4; ; own /= 2 {
		grid[1] = (heads + own - 1) / own
		if own <= atOnce || grid[0]*grid[1]*grid[2] >= 4*processors {
			return grid
		}
	}
}
