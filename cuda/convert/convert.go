package convert

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kindred-search/kindred/cuda"
)

const (
	threads = 256
	// tileBytes is about how much of a slice is on the device at once.
	tileBytes = 64 << 20
	// mostDim is the greatest dimension of a row: its squares of codes fit an int.
	mostDim = 1 << 15
)

// NotFiniteError says which row of those given has a number that isn't finite.
type NotFiniteError struct{ Row int64 }

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("row %d has a number that is not finite: it cannot be quantised", e.Row)
}

// warpsFor is how many warps a block of quantise has: as many as eight, and as its
// memory holds.
func warpsFor(d *cuda.Device, dim int) (int, error) {
	if dim < 1 || dim > mostDim {
		return 0, fmt.Errorf("rows of dimension %d: want 1 to %d", dim, mostDim)
	}
	shared := d.Info().SharedPerBlock
	if n := min(8, shared/(8*dim)); n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("rows of dimension %d need %d bytes of shared memory, a block of CUDA device %d has %d: quantise them on the CPU", dim, 8*dim, d.Info().Ordinal, shared)
}

// QuantiseOn orders that rows [n, dim] of fp32 become codes [n, stride] of int8, zeros
// behind dim, and scales [n] of fp32: at unit length, and rounded so that the largest
// is 127, with the bits of rows.EncodeVector. A row of zeros has scale 0. bad, 8 bytes
// that hold a large number before, is made the least number of a row that isn't finite.
// The buffers are the caller's.
func QuantiseOn(d *cuda.Device, q *cuda.Queue, rows, codes, scales, bad *cuda.Buffer, n int64, dim, stride int) error {
	warps, err := warpsFor(d, dim)
	if err != nil || n == 0 {
		return err
	}
	switch {
	case stride < dim:
		return fmt.Errorf("codes every %d bytes of rows of dimension %d", stride, dim)
	case n < 0 || size(rows) < 4*n*int64(dim) || size(codes) < n*int64(stride) || size(scales) < 4*n || size(bad) < 8:
		return fmt.Errorf("%d rows of dimension %d do not fit buffers of %d, %d, %d and %d bytes", n, dim, size(rows), size(codes), size(scales), size(bad))
	}
	return q.Launch("quantise", cuda.Launch{Grid: d.Blocks(n, int64(warps)), Block: [3]int{32 * warps}, Shared: 8 * dim * warps},
		cuda.At(rows, 0), cuda.At(codes, 0), cuda.At(scales, 0), cuda.At(bad, 0), cuda.I64(n), cuda.I32(dim), cuda.I32(stride))
}

// ToHalfOn orders that n numbers of fp32 become fp16 patterns, rounded to nearest, ties to
// even, as simd.Fp32ToFp16 gives them.
func ToHalfOn(d *cuda.Device, q *cuda.Queue, from, to *cuda.Buffer, n int64) error {
	return halves(d, q, "to_half", from, to, n, 4, 2)
}

// FromHalfOn orders that n patterns of fp16 become fp32, as simd.Fp16ToFp32 gives them.
func FromHalfOn(d *cuda.Device, q *cuda.Queue, from, to *cuda.Buffer, n int64) error {
	return halves(d, q, "from_half", from, to, n, 2, 4)
}

func halves(d *cuda.Device, q *cuda.Queue, kernel string, from, to *cuda.Buffer, n, in, out int64) error {
	if n < 0 || size(from) < in*n || size(to) < out*n {
		return fmt.Errorf("%s of %d numbers from a buffer of %d bytes to one of %d", kernel, n, size(from), size(to))
	}
	if n == 0 {
		return nil
	}
	return q.Launch(kernel, cuda.Launch{Grid: d.Blocks((n+3)/4, threads), Block: [3]int{threads}}, cuda.At(from, 0), cuda.At(to, 0), cuda.I64(n))
}

// size is 0 of none.
func size(b *cuda.Buffer) int64 {
	if b == nil {
		return 0
	}
	return b.Size()
}

// Quantise returns codes [n, dim] and scales [n] of rows [n, dim]: see [QuantiseOn]. A
// number that isn't finite is a [*NotFiniteError]. Ctx is asked between tiles.
func Quantise(ctx context.Context, d *cuda.Device, rows []float32, dim int) (codes []int8, scales []float32, err error) {
	if _, err := warpsFor(d, dim); err != nil {
		return nil, nil, err
	}
	if len(rows)%dim != 0 {
		return nil, nil, fmt.Errorf("%d numbers are no rows of dimension %d", len(rows), dim)
	}
	n := len(rows) / dim
	codes, scales = make([]int8, len(rows)), make([]float32, n)
	tile := max(1, min(n, tileBytes/(4*dim)))
	sizes := []int64{4 * int64(tile) * int64(dim), int64(tile) * int64(dim), 4 * int64(tile), 8}
	err = d.Borrow("conversion", sizes, func(b []*cuda.Buffer) error {
		for from := 0; from < n; from += tile {
			to := min(n, from+tile)
			bad := []uint64{math.MaxUint64}
			err := d.Do(ctx, func(q *cuda.Queue) error {
				if err := errors.Join(cuda.Upload(q, b[0], 0, rows[from*dim:to*dim]), cuda.Upload(q, b[3], 0, bad)); err != nil {
					return err
				}
				if err := QuantiseOn(d, q, b[0], b[1], b[2], b[3], int64(to-from), dim, dim); err != nil {
					return err
				}
				return errors.Join(cuda.Download(q, codes[from*dim:to*dim], b[1], 0), cuda.Download(q, scales[from:to], b[2], 0), cuda.Download(q, bad, b[3], 0))
			})
			if err != nil {
				return err
			}
			if bad[0] != math.MaxUint64 {
				return &NotFiniteError{Row: int64(from) + int64(bad[0])}
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return codes, scales, nil
}

// ToHalf writes the fp16 patterns of src to dst, as long: see [ToHalfOn].
func ToHalf(ctx context.Context, d *cuda.Device, dst []uint16, src []float32) error {
	return both(ctx, d, dst, src, ToHalfOn)
}

// FromHalf writes what the fp16 patterns of src say to dst, as long: see [FromHalfOn].
func FromHalf(ctx context.Context, d *cuda.Device, dst []float32, src []uint16) error {
	return both(ctx, d, dst, src, FromHalfOn)
}

type on = func(d *cuda.Device, q *cuda.Queue, from, to *cuda.Buffer, n int64) error

func both[T, S uint16 | float32](ctx context.Context, d *cuda.Device, dst []T, src []S, order on) error {
	if len(dst) != len(src) {
		return fmt.Errorf("conversion of %d numbers to %d", len(src), len(dst))
	}
	tile := max(1, min(len(src), tileBytes/4))
	return d.Borrow("conversion", []int64{4 * int64(tile), 4 * int64(tile)}, func(b []*cuda.Buffer) error {
		for from := 0; from < len(src); from += tile {
			to := min(len(src), from+tile)
			err := d.Do(ctx, func(q *cuda.Queue) error {
				if err := cuda.Upload(q, b[0], 0, src[from:to]); err != nil {
					return err
				}
				if err := order(d, q, b[0], b[1], int64(to-from)); err != nil {
					return err
				}
				return cuda.Download(q, dst[from:to], b[1], 0)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
