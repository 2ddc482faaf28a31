package rows

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// looks counts how often a context is asked, and cancels it at the stop-th time.
type looks struct {
	context.Context
	n    atomic.Int64
	stop int64
}

func (c *looks) Err() error {
	if c.n.Add(1) >= c.stop {
		return context.Canceled
	}
	return nil
}

// TestCancelCountsBlocks: a scan asks before every block, so wherever it is
// cancelled each core ends after the block it is in.
func TestCancelCountsBlocks(t *testing.T) {
	v := gaussian(t, rand.New(rand.NewPCG(1, 9)), index.Spec{Name: "s", Dim: 24, Precision: index.Int8}, Options{}, 40_000, func(int) bool { return true })
	head := make([]float32, 24)
	head[3] = 1
	req := index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: head}}}}}
	scan := func(stop int64) int64 {
		ctx := &looks{Context: context.Background(), stop: stop}
		out, err := v.Scan(ctx, req)
		if whole := ctx.n.Load() < stop; (err == nil) != whole || (out != nil) != whole || (err != nil && !errors.Is(err, context.Canceled)) {
			t.Fatalf("cancelled at look %d of %d: %d results, %v", stop, ctx.n.Load(), len(out), err)
		}
		return ctx.n.Load()
	}
	all := scan(math.MaxInt64)
	if all < 40_000/1024 {
		t.Fatalf("the whole scan looks %d times: fewer than its blocks", all)
	}
	for stop := int64(1); stop < all; stop += 5 {
		// The other cores' next look, and the one after all have ended.
		if n := scan(stop); n > stop+int64(runtime.GOMAXPROCS(0)) {
			t.Errorf("cancelled at look %d, looked %d times more", stop, n-stop)
		}
	}
}
