package convert

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/kindred-search/kindred/cuda"
)

// partWords is how many words a warp of crc_parts takes at a time, a power of two.
const partWords = 8192

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// zeros is what some zero bytes make of a CRC (without inversions), by its four bytes:
// as the bytes' parts add up, four look-ups do.
type zeros [4][256]uint32

func (z *zeros) of(x uint32) uint32 {
	return z[0][x&255] ^ z[1][x>>8&255] ^ z[2][x>>16&255] ^ z[3][x>>24]
}

// powers are zeros of 1, 2, 4, ... bytes.
var powers = sync.OnceValue(func() *[63]zeros {
	var p [63]zeros
	for j := range 4 {
		for b := range 256 {
			x := uint32(b) << (8 * j)
			p[0][j][b] = castagnoli[x&255] ^ x>>8
		}
	}
	for i := 1; i < len(p); i++ {
		for j := range 4 {
			for b := range 256 {
				p[i][j][b] = p[i-1].of(p[i-1][j][b])
			}
		}
	}
	return &p
})

// after is a CRC, without inversions, after n zero bytes.
func after(x uint32, n int64) uint32 {
	p := powers()
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			x = p[i].of(x)
		}
	}
	return x
}

// Checksum returns the CRC-32C (Castagnoli) of n bytes of a buffer from byte off on, a
// multiple of 4, as hash/crc32 gives it.
func Checksum(ctx context.Context, d *cuda.Device, b *cuda.Buffer, off, n int64) (uint32, error) {
	if off < 0 || n < 0 || off%4 != 0 || off > size(b)-n {
		return 0, fmt.Errorf("checksum of %d bytes from byte %d on of a buffer of %d: want a multiple of 4 that leaves as many", n, off, size(b))
	}
	words := n / 4
	parts := make([]uint32, (words+partWords-1)/partWords)
	rest := make([]byte, n%4)
	tables := make([]uint32, 0, 2048)
	for _, i := range []int{2, 7} { // 4 and 128 bytes
		for j := range 4 {
			tables = append(tables, powers()[i][j][:]...)
		}
	}
	err := d.Borrow("checksum", []int64{4 * int64(len(tables)), 4 * int64(len(parts))}, func(own []*cuda.Buffer) error {
		return d.Do(ctx, func(q *cuda.Queue) error {
			if len(parts) > 0 {
				if err := cuda.Upload(q, own[0], 0, tables); err != nil {
					return err
				}
				err := q.Launch("crc_parts", cuda.Launch{Grid: d.Blocks(int64(len(parts)), threads/32), Block: [3]int{threads}},
					cuda.At(b, off), cuda.At(own[0], 0), cuda.At(own[1], 0), cuda.I64(words), cuda.I32(partWords))
				if err != nil {
					return err
				}
			}
			return errors.Join(cuda.Download(q, parts, own[1], 0), cuda.Download(q, rest, b, off+4*words))
		})
	})
	if err != nil {
		return 0, err
	}
	sum := uint32(0)
	left := 4 * words
	for _, part := range parts {
		here := min(left, 4*partWords)
		sum = after(sum, here) ^ part
		left -= here
	}
	// The first inversion is a message's first four bytes inverted, as it were: it goes
	// through as many zeros as there are bytes.
	sum ^= after(^uint32(0), 4*words)
	return crc32.Update(^sum, castagnoli, rest), nil
}
