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
	BestOf(ctx context.Context, n int, mask []uint64, plan *scan.Plan, size []int) ([][]uint64, error)
	Scores(ctx context.Context, n int, mask []uint64, plan *scan.Plan, out [][]float32) error
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
	turn  chan struct{} // full while a list has the copy: who is given up meanwhile does not wait on
	pop   Population    // of who has the turn, as is retry
	retry time.Time

	mu     sync.Mutex
	closed bool
	freed  bool                    // after closed
	cancel context.CancelCauseFunc // ends the pass that has the turn; nil for none
	offers []*joint                // lists that whoever has the turn may make with its own
}

// errReplaced ends the pass of a copy that is closed under it.
var errReplaced = errors.New("the rows have been replaced")

// close gives up the pass that goes on and frees the copy for good: the core has been
// replaced, or its table closed. Lists of older views are made without it. It waits for
// nothing: where a pass goes on, that frees the copy when it has ended; see [deviceCopy.gone].
func (d *deviceCopy) close(note Device) {
	d.mu.Lock()
	d.closed = true
	if d.cancel != nil {
		d.cancel(errReplaced)
	}
	d.mu.Unlock()
	d.clear(note)
}

// begin makes the context of the pass that has the turn, and reports false once the copy is
// closed. The pass calls end.
func (d *deviceCopy) begin(ctx context.Context) (context.Context, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false
	}
	ctx, d.cancel = context.WithCancelCause(ctx)
	return ctx, true
}

func (d *deviceCopy) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel(nil)
		d.cancel = nil
	}
}

// leave gives the turn to the next, and frees a copy that was closed meanwhile.
func (d *deviceCopy) leave(note Device) {
	d.end()
	<-d.turn
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		d.clear(note)
	}
}

// clear frees a closed copy, unless somebody has the turn, who does it on leaving.
func (d *deviceCopy) clear(note Device) {
	select {
	case d.turn <- struct{}{}:
		d.free(note)
	default:
	}
}

// free ends the turn and the copy.
func (d *deviceCopy) free(note Device) {
	if err := d.drop(); err != nil {
		note.Note(err)
	}
	d.mu.Lock()
	d.freed = true
	d.mu.Unlock()
	<-d.turn
}

func (d *deviceCopy) isFreed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.freed
}

// gone waits until a closed copy is freed.
func (d *deviceCopy) gone(note Device) {
	d.turn <- struct{}{}
	d.free(note)
}

func (d *deviceCopy) drop() error {
	pop := d.pop
	d.pop = nil
	if pop == nil {
		return nil
	}
	return pop.Close()
}

// forDevice says whether the table has a device, and rows that are worth asking it.
func (v *View) forDevice() bool {
	return v.opt.Device != nil && v.spec.Precision == index.Int8 && v.spec.Dim > 0 && int(v.n) >= v.opt.DeviceRows
}

// onDevice gives f the view's rows on the table's device, and reports false where there
// is none, it failed, which is noted, or the rows were replaced meanwhile, which ends f's
// context. An error is that of ctx.
func (v *View) onDevice(ctx context.Context, f func(ctx context.Context, pop Population) error) (bool, error) {
	if !v.forDevice() {
		return false, nil
	}
	d := v.core.device
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return false, v.deviceGivenUp(ctx)
	}
	return v.inTurn(ctx, f)
}

// inTurn is onDevice of who has the turn, which it ends.
func (v *View) inTurn(ctx context.Context, f func(ctx context.Context, pop Population) error) (bool, error) {
	d := v.core.device
	defer d.leave(v.opt.Device)
	pass, ok := d.begin(ctx)
	if !ok || time.Now().Before(d.retry) {
		return false, nil
	}
	err := v.copyRows(pass, d)
	if err == nil {
		err = f(pass, d.pop)
	}
	if err != nil && ctx.Err() != nil {
		return false, v.deviceGivenUp(ctx)
	}
	if err != nil && pass.Err() != nil { // closed under it
		return false, nil
	}
	v.opt.Device.Note(err)
	if err != nil {
		d.retry = time.Now().Add(deviceRetry)
		if errors.Is(err, cuda.ErrLost) || errors.Is(err, cuda.ErrClosed) || errors.Is(err, cuda.ErrOutOfMemory) {
			// What it holds is worth nothing, or too much.
			if err := d.drop(); err != nil {
				v.opt.Device.Note(err)
			}
		}
		return false, nil
	}
	return true, nil
}

func (v *View) deviceGivenUp(ctx context.Context) error {
	return fmt.Errorf("scan of collection %q on a device: %w", v.spec.Name, ctx.Err())
}

// copyRows brings the rows that the device has not to it.
func (v *View) copyRows(ctx context.Context, d *deviceCopy) error {
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
	return nil
}

// deviceScan scores everyone on the table's device, and reports false where there is
// none, or it could not: then p.out holds nothing of use.
func (v *View) deviceScan(ctx context.Context, p *plan, req *index.ScanRequest) (bool, error) {
	plan, ok := v.devicePlan(p, req)
	if !ok {
		return false, nil
	}
	req.Progress = upwards(req.Progress)
	plan.Progress = req.Progress
	return v.onDevice(ctx, func(ctx context.Context, pop Population) error { return pop.Scores(ctx, int(v.n), p.mask, plan, p.out) })
}

// upwards is progress that never goes back, where the CPU begins anew what a device
// has not ended. It is for calls one after the other.
func upwards(progress func(done, total int)) func(done, total int) {
	if progress == nil {
		return nil
	}
	most := 0
	return func(done, total int) {
		if done > most {
			most = done
			progress(done, total)
		}
	}
}

// deviceBest makes the lists of a plan on the table's device, and reports false where
// there is none, or it could not.
func (v *View) deviceBest(ctx context.Context, p *plan, req *index.BestRequest, allowed [][]uint64, out []index.Ranked) (bool, error) {
	plan, ok := v.devicePlan(p, &req.ScanRequest)
	if !ok {
		return false, nil
	}
	made, err := false, error(nil)
	if j := v.jointOf(p, plan, req, allowed); j != nil {
		if made, err = v.deviceJoint(ctx, j); made {
			copy(out, v.ranked(j))
		}
	} else {
		made, err = v.deviceApart(ctx, p, plan, req, allowed, out)
	}
	if made && req.Progress != nil {
		req.Progress(int(v.n), int(v.n))
	}
	return made, err
}

// deviceApart makes the lists of a request in a turn of its own.
func (v *View) deviceApart(ctx context.Context, p *plan, plan *scan.Plan, req *index.BestRequest, allowed [][]uint64, out []index.Ranked) (bool, error) {
	return v.onDevice(ctx, func(ctx context.Context, pop Population) error {
		// Sets with a mask of their own take a pass each, the others one together.
		var together []int
		for s := range req.Sets {
			if allowed[s] == nil {
				together = append(together, s)
				continue
			}
			if err := v.deviceLists(ctx, pop, p, plan, []int{s}, both(p.mask, allowed[s]), req.Size, out); err != nil {
				return err
			}
		}
		if len(together) == 0 {
			return nil
		}
		return v.deviceLists(ctx, pop, p, plan, together, p.mask, req.Size, out)
	})
}

// both are the bits that two masks have.
func both(a, b []uint64) []uint64 {
	out := slices.Clone(a)
	for w := range out {
		out[w] &= b[w]
	}
	return out
}

// deviceLists makes the lists of some sets, all under one mask.
func (v *View) deviceLists(ctx context.Context, pop Population, p *plan, all *scan.Plan, sets []int, mask []uint64, sizes []int, out []index.Ranked) error {
	part := scan.Plan{Columns: all.Columns}
	size := []int{}
	for _, s := range sets {
		part.Sets = append(part.Sets, all.Sets[s])
		size = append(size, sizes[s])
	}
	var found [][]uint64
	var err error
	if p.plain {
		found, err = pop.Best(ctx, int(v.n), mask, plainHeads(&part), size)
	} else {
		found, err = pop.BestOf(ctx, int(v.n), mask, &part, size)
	}
	if err != nil {
		return err
	}
	for i, s := range sets {
		rows, scores := selection.Best(found[i], sizes[s], selection.Options{Tie: v.Tie})
		out[s] = index.Ranked{Rows: rows, Scores: scores}
	}
	return nil
}
