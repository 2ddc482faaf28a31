package embed

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
)

// Rows of a tile. Up to maxTileRows activations of a layer stay in a core's L2
// cache while the weights pass over them; it is a multiple of the 16 rows that
// AMX multiplies at a time, and of common limits of a text. Below minTileRows the
// weights' way from memory dominates, so a batch is not cut finer to feed more
// goroutines.
const (
	maxTileRows = 256
	minTileRows = 48
)

// tilePlan is how a batch is cut: each tile lists the indices of its texts.
type tilePlan struct {
	tiles [][]int
	texts int // distinct texts over all tiles
	rows  int // tokens of those
}

// planTiles drops texts equal to an earlier one (first[i] is the earliest text
// equal to text i), sorts the rest by falling length, ties by index, and packs
// them into tiles.
func planTiles(ids [][]int32, threads int) (first []int, p tilePlan) {
	first = make([]int, len(ids))
	seen := make(map[string]int, len(ids))
	order := make([]int, 0, len(ids))
	var key []byte
	rows := 0
	for i, text := range ids {
		key = key[:0]
		for _, id := range text {
			key = binary.LittleEndian.AppendUint32(key, uint32(id))
		}
		if f, ok := seen[string(key)]; ok {
			first[i] = f
			continue
		}
		seen[string(key)] = i
		first[i] = i
		order = append(order, i)
		rows += len(text)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(ids[b]), len(ids[a])) })
	// Four tiles a goroutine keep the last ones busy to the end.
	limit := min(max(rows/(4*threads), minTileRows), maxTileRows)
	var tile []int
	used := 0
	for _, i := range order {
		if used > 0 && used+len(ids[i]) > limit {
			p.tiles = append(p.tiles, tile)
			tile, used = nil, 0
		}
		tile = append(tile, i)
		used += len(ids[i])
	}
	if len(tile) > 0 {
		p.tiles = append(p.tiles, tile)
	}
	p.texts, p.rows = len(order), rows
	return first, p
}

// parallel calls work for 0..n-1 on up to threads goroutines, which take the
// next index off one counter, and returns once all have ended. It starts no
// further index after an error or after ctx is cancelled; the error returned is
// that of the smallest index, so it does not depend on timing among those seen.
func parallel(ctx context.Context, threads, n int, work func(i int) error) error {
	if threads > n {
		threads = n
	}
	var (
		next   atomic.Int64
		failed atomic.Bool
		mu     sync.Mutex
		at     = n
		cause  error
	)
	loop := func() {
		for !failed.Load() {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			err := ctx.Err()
			if err == nil {
				err = work(i)
			}
			if err != nil {
				failed.Store(true)
				mu.Lock()
				if i < at {
					at, cause = i, err
				}
				mu.Unlock()
			}
		}
	}
	if threads <= 1 {
		loop()
	} else {
		var wg sync.WaitGroup
		for range threads {
			wg.Go(loop)
		}
		wg.Wait()
	}
	if cause == nil {
		return ctx.Err()
	}
	return cause
}
