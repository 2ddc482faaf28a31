package encoder

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/kindred-search/kindred/cuda"
)

// tunedSizes are the tokens of a batch at which the shapes of a product are compared: each is
// for batches of less than twice and at least half as many.
var tunedSizes = []int{64, 256, 1024, 4096, 16384}

// product is one of a layer's: out [tokens, n] of x [tokens, k], with what follows it.
type product struct {
	n, k, act int
	residual  bool
}

// products are a layer's, all of which have the same.
func (m *Model) products() (qkv, out, up, down product) {
	c := &m.cfg
	width := c.Heads * c.headSize()
	return product{n: 3 * width, k: c.Dim}, product{n: c.Dim, k: width, residual: true},
		product{n: c.Inner, k: c.Dim, act: 1}, product{n: c.Dim, k: c.Inner, residual: true}
}

// Tuned is how long the kernels took for one product when the model was opened, by the device's
// events: what is chosen for batches of about so many tokens is the first. A vector does not depend
// on it, to the bit.
type Tuned struct {
	Tokens, Columns, Depth int
	Kernel                 string
	Took                   map[string]time.Duration
}

// Tuned is what was timed when the model was opened: nothing under the simulator, and where
// there was no memory for it.
func (m *Model) Tuned() []Tuned { return m.timed }

// tune times the shapes of each product on the device, and keeps the fastest by size: devices differ, and
// a rule of thumb has seen one of them. It takes some hundredths of a second. Where there is no memory
// for it, the rule stays.
func (m *Model) tune(ctx context.Context, sizes []int) error {
	qkv, out, up, down := m.products()
	rows := int64(sizes[len(sizes)-1])
	left, right := rows*int64(max(qkv.k, out.k, up.k, down.k))*2, rows*int64(max(qkv.n, out.n, up.n, down.n))*2
	lease, err := m.d.Lease(ctx, cuda.Ask{What: "timing of kernels", Least: left + right})
	if errors.Is(err, cuda.ErrOutOfMemory) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lease.End()
	first := &m.at.layers[0]
	weights := map[product]tensorPlace{qkv: first.qkv, out: first.out, up: first.up, down: first.down}
	return m.d.Borrow("timing", []int64{left, right}, func(b []*cuda.Buffer) error {
		return m.d.Do(ctx, func(q *cuda.Queue) error {
			// Numbers of some model: zeros would be multiplied at a higher clock.
			for at, n := int64(0), m.halves.Size(); at < left; at += n {
				if err := q.Copy(b[0], at, m.halves, 0, min(n, left-at)); err != nil {
					return err
				}
			}
			return m.compare(sizes, func(s *shape, p product, tokens int) (time.Duration, error) {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				residual := cuda.Null()
				if p.residual {
					residual = cuda.At(b[0], 0)
				}
				l, kernel, args := m.launchOf(s, b[0], b[1], weights[p], residual, p, tokens)
				return q.LaunchTimed(kernel, l, args...)
			})
		})
	})
}

// compare keeps, of each product and size, the shape that takes the least by what once says of a launch.
func (m *Model) compare(sizes []int, once func(s *shape, p product, tokens int) (time.Duration, error)) error {
	qkv, out, up, down := m.products()
	fastest := map[product][]*shape{}
	m.timed = nil
	for _, p := range []product{qkv, out, up, down} {
		if fastest[p] != nil { // two may be alike
			continue
		}
		for _, tokens := range sizes {
			t := Tuned{Tokens: tokens, Columns: p.n, Depth: p.k, Took: map[string]time.Duration{}}
			var chosen *shape
			for i := range m.shapes {
				s := &m.shapes[i]
				for try := range 4 {
					took, err := once(s, p, tokens)
					if err != nil {
						return fmt.Errorf("timing of %s: %w", s.kernel, err)
					}
					// The first brings what is read to the second-level cache.
					if old, ok := t.Took[s.kernel]; try > 0 && (!ok || took < old) {
						t.Took[s.kernel] = took
					}
				}
				if chosen == nil || t.Took[s.kernel] < t.Took[chosen.kernel] {
					chosen = s
				}
			}
			t.Kernel = chosen.kernel
			m.timed = append(m.timed, t)
			fastest[p] = append(fastest[p], chosen)
		}
	}
	m.fastest, m.sizes = fastest, sizes
	return nil
}

// shapeOf is the shape for a product of so many tokens.
func (m *Model) shapeOf(p product, tokens int) *shape {
	by := m.fastest[p]
	if by == nil {
		return best(m.shapes, tokens, p.n, m.d.Info().Processors)
	}
	// Sizes are four times each other.
	i := 0
	for i+1 < len(m.sizes) && bits.Len(uint(tokens)) > bits.Len(uint(m.sizes[i])) {
		i++
	}
	return by[i]
}
