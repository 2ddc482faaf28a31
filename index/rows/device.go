package rows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// Device scores int8 rows elsewhere, with the same bits: see package cuda/scan.
type Device interface {
	NewPopulation(dim int) (Population, error)
	// Note is told of every list that the device made (nil), and of what kept it from
	// making one; the list is then made here, and is the same.
	Note(err error)
}

// Population is a copy of the rows of one table between two compactions, which
// grows as they do.
type Population interface {
	Rows() int
	Append(ctx context.Context, codes []int8, scales []float32) error
	Best(ctx context.Context, n int, mask []uint64, heads []scan.Head, size []int) ([][]uint64, error)
	Close() error
}

const (
	// deviceRows is how many rows there must be before a device is asked: below, the
	// way there takes longer than the scan.
	deviceRows = 50_000
	// deviceRetry is how long a device is left alone after an error.
	deviceRetry = 30 * time.Second
)

// deviceCopy is a core's rows on a device.
type deviceCopy struct {
	mu     sync.Mutex
	pop    Population
	closed bool
	retry  time.Time
}

// close frees the copy for good: the core has been replaced. Lists of older views
// are made without it.
func (d *deviceCopy) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.drop()
}

func (d *deviceCopy) drop() error {
	pop := d.pop
	d.pop = nil
	if pop == nil {
		return nil
	}
	return pop.Close()
}

// onDevice makes the lists of a plain plan on the table's device, and reports false
// where there is none, or it could not: then nothing has been written. An error is
// that of ctx.
func (v *View) onDevice(ctx context.Context, p *plan, req *index.BestRequest, allowed [][]uint64, out []index.Ranked) (bool, error) {
	if v.opt.Device == nil || !p.plain || int(v.n) < v.opt.DeviceRows {
		return false, nil
	}
	d := &v.core.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || time.Now().Before(d.retry) {
		return false, nil
	}
	err := v.deviceBest(ctx, d, p, req, allowed, out)
	if err != nil && ctx.Err() != nil {
		return false, fmt.Errorf("scan of collection %q on a device: %w", v.spec.Name, ctx.Err())
	}
	v.opt.Device.Note(err)
	if err != nil {
		d.retry = time.Now().Add(deviceRetry)
		if errors.Is(err, cuda.ErrLost) || errors.Is(err, cuda.ErrOutOfMemory) {
			// What it holds is worth nothing, or too much.
			if err := d.drop(); err != nil {
				v.opt.Device.Note(err)
			}
		}
		return false, nil
	}
	if req.Progress != nil {
		req.Progress(int(v.n), int(v.n))
	}
	return true, nil
}

func (v *View) deviceBest(ctx context.Context, d *deviceCopy, p *plan, req *index.BestRequest, allowed [][]uint64, out []index.Ranked) error {
	if d.pop == nil {
		pop, err := v.opt.Device.NewPopulation(v.spec.Dim)
		if err != nil {
			return err
		}
		d.pop = pop
	}
	for size := 1 << v.core.shift; d.pop.Rows() < int(v.n); {
		at := d.pop.Rows()
		ch, i := v.at(uint32(at))
		n := min(size-i, int(v.n)-at)
		if err := d.pop.Append(ctx, ch.codes[i*v.spec.Dim:(i+n)*v.spec.Dim], ch.scales[i:i+n]); err != nil {
			return err
		}
	}
	// Sets with a mask of their own take a pass each, the others one together.
	var together []int
	best := func(sets []int, mask []uint64) error {
		heads, size := []scan.Head{}, []int{}
		for _, s := range sets {
			heads = append(heads, scan.Head{Codes: p.int8s[s], Scale: p.heads[s].scale, Bias: p.heads[s].bias})
			size = append(size, req.Size[s])
		}
		found, err := d.pop.Best(ctx, int(v.n), mask, heads, size)
		if err != nil {
			return err
		}
		for i, s := range sets {
			rows, scores := selection.Best(found[i], req.Size[s], selection.Options{Tie: v.Tie})
			out[s] = index.Ranked{Rows: rows, Scores: scores}
		}
		return nil
	}
	for s := range req.Sets {
		if allowed[s] == nil {
			together = append(together, s)
			continue
		}
		mask := slices.Clone(p.mask)
		for w := range mask {
			mask[w] &= allowed[s][w]
		}
		if err := best([]int{s}, mask); err != nil {
			return err
		}
	}
	if len(together) == 0 {
		return nil
	}
	return best(together, p.mask)
}
