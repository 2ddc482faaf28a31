package scan

import (
	"math/rand/v2"
	"testing"
)

// TestDeal: every row is one device's, wherever pieces begin, and what is asked by a
// device's row or by everyone's agrees.
func TestDeal(t *testing.T) {
	rng := rand.New(rand.NewPCG(81, 82))
	for range 300 {
		devices := 1 + rng.IntN(4)
		var pieces []piece
		var owner, place []int // of each row
		own := make([]int, devices)
		for range rng.IntN(12) {
			d := rng.IntN(devices)
			pieces = append(pieces, piece{all: len(owner), own: own[d], device: d})
			for range 1 + rng.IntN(200) {
				owner, place = append(owner, d), append(place, own[d])
				own[d]++
			}
		}
		n := rng.IntN(len(owner) + 1)
		step := 1 + rng.IntN(100)
		all := deal(pieces, len(owner), n, devices, step)
		mask := randomBits(rng, n)
		masks := make([][]uint64, devices)
		sum := 0
		for d := range all {
			masks[d] = all[d].mask(mask)
			sum += all[d].rows
		}
		if sum != n {
			t.Fatalf("%d rows are dealt, of %d", sum, n)
		}
		for r := range n {
			d, i := &all[owner[r]], place[r]
			if i >= d.rows || d.everyones(i) != r {
				t.Fatalf("row %d is row %d of device %d, which has %d: it is said to be %d", r, i, owner[r], d.rows, d.everyones(i))
			}
			if masks[owner[r]][i/64]>>(i%64)&1 != mask[r/64]>>(r%64)&1 {
				t.Fatalf("row %d has another bit as row %d of device %d", r, i, owner[r])
			}
		}
		for d := range all {
			for from := range all[d].rows {
				count := rng.IntN(all[d].rows - from + 1)
				at := from
				all[d].runs(from, count, func(own, all, n int) {
					if own != at || n < 1 || owner[all] != d || place[all] != own || owner[all+n-1] != d || place[all+n-1] != own+n-1 {
						t.Fatalf("rows %d to %d of device %d are said to be from %d on of everyone's", own, own+n, d, all)
					}
					at += n
				})
				if at != from+count {
					t.Fatalf("%d rows from %d on of device %d: %d came up", count, from, d, at-from)
				}
			}
		}
	}
}

// randomBits is a mask of n rows.
func randomBits(rng *rand.Rand, n int) []uint64 {
	out := make([]uint64, (n+63)/64)
	for i := range n {
		out[i/64] |= uint64(rng.IntN(2)) << (i % 64)
	}
	return out
}
