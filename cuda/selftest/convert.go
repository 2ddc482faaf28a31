package selftest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/convert"
	"github.com/kindred-search/kindred/internal/simd"
)

// converts tests conversions to halves and back, checksums and quantising.
func converts(ctx context.Context, d *cuda.Device) (what string, err error) {
	rng := rand.New(rand.NewPCG(1, 1))
	const n, dim = 40, 37
	numbers := make([]float32, n*dim)
	for i := range numbers {
		numbers[i] = float32(rng.NormFloat64())
	}
	what = "halves"
	half, want := make([]uint16, len(numbers)), make([]uint16, len(numbers))
	simd.Fp32ToFp16(want, numbers)
	if err := convert.ToHalf(ctx, d, half, numbers); err != nil {
		return what, err
	}
	if !slices.Equal(half, want) {
		return what, errors.New("other halves")
	}
	back, exact := make([]float32, len(numbers)), make([]float32, len(numbers))
	simd.Fp16ToFp32(exact, want)
	if err := convert.FromHalf(ctx, d, back, want); err != nil {
		return what, err
	}
	if !slices.Equal(back, exact) {
		return what, errors.New("other numbers of halves")
	}

	what = "a checksum"
	bytes := make([]byte, 70_000)
	for i := range bytes {
		bytes[i] = byte(rng.Uint32())
	}
	err = d.Borrow("conversion", []int64{int64(len(bytes))}, func(b []*cuda.Buffer) error {
		if err := d.Do(ctx, func(q *cuda.Queue) error { return cuda.Upload(q, b[0], 0, bytes) }); err != nil {
			return err
		}
		got, err := convert.Checksum(ctx, d, b[0], 0, int64(len(bytes)))
		if want := crc32.Checksum(bytes, crc32.MakeTable(crc32.Castagnoli)); err == nil && got != want {
			err = fmt.Errorf("%08x, want %08x", got, want)
		}
		return err
	})
	if err != nil {
		return what, err
	}

	what = "quantising"
	codes, scales, err := convert.Quantise(ctx, d, numbers, dim)
	if err != nil {
		return what, err
	}
	for r := range n {
		row := numbers[r*dim : (r+1)*dim]
		most, sum := 0.0, 0.0
		for _, x := range row {
			most = max(most, math.Abs(float64(x)))
		}
		for _, c := range codes[r*dim : (r+1)*dim] {
			sum += float64(c) * float64(c)
		}
		if want := float32(1 / math.Sqrt(sum)); scales[r] != want {
			return what, fmt.Errorf("row %d has scale %g, want %g", r, scales[r], want)
		}
		for j, x := range row {
			if c := float64(codes[r*dim+j]); !(math.Abs(c-127*float64(x)/most) <= 0.501) {
				return what, fmt.Errorf("row %d: code %d is %g for %g of %g", r, j, c, x, most)
			}
		}
	}
	return what, nil
}
