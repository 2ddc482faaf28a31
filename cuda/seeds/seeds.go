package seeds

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kindred-search/kindred/cuda"
)

// What seeds.cu names alike.
const (
	together  = 64 // heads that pass by at once
	warpRows  = 32
	warpsMost = 8
	ringBytes = 3 * 2 * together * 64
)

const (
	// TopMost is the most of a row's scores that a mean is of.
	TopMost = 64
	mostDim = 1 << 15
)

// Head is a vector of codes, whose products with any row add up within 32 bits; its score
// of a row is codes·row × (the row's scale × Scale) + Bias, in fp64.
type Head struct {
	Codes       []int16
	Scale, Bias float64
}

// Set is heads on a device. Its methods but Close may be called at once.
type Set struct {
	d                  *cuda.Device
	dim, stride, count int
	slack, slackBias   float32
	split, exact, near *cuda.Buffer
}

// New copies heads of dim codes to a device, which stays the caller's.
func New(ctx context.Context, d *cuda.Device, dim int, heads []Head) (*Set, error) {
	if dim < 1 || dim > mostDim {
		return nil, fmt.Errorf("seeds of dimension %d: want 1 to %d", dim, mostDim)
	}
	if len(heads) == 0 {
		return nil, errors.New("no seeds to compare with")
	}
	s := &Set{d: d, dim: dim, stride: (dim + 15) &^ 15, count: len(heads)}
	for h := range heads {
		if err := check(&heads[h], dim); err != nil {
			return nil, fmt.Errorf("seed %d: %w", h, err)
		}
	}
	s.slack, s.slackBias = slack(heads)
	groups := (len(heads) + together - 1) / together
	codes := make([][]int16, len(heads))
	exact, near := make([]float64, 2*len(heads)), make([]float32, 2*groups*together)
	for h := range heads {
		codes[h] = heads[h].Codes
		exact[2*h], exact[2*h+1] = heads[h].Scale, heads[h].Bias
		near[2*h], near[2*h+1] = float32(heads[h].Scale), float32(heads[h].Bias)
	}
	split := lay(codes, s.stride)
	err := d.AllocAll(
		cuda.Want{To: &s.split, Purpose: "seeds", Size: int64(len(split))},
		cuda.Want{To: &s.exact, Purpose: "seeds", Size: 8 * int64(len(exact))},
		cuda.Want{To: &s.near, Purpose: "seeds", Size: 4 * int64(len(near))},
	)
	if err != nil {
		return nil, err
	}
	err = d.Do(ctx, func(q *cuda.Queue) error {
		return errors.Join(cuda.Upload(q, s.split, 0, split), cuda.Upload(q, s.exact, 0, exact), cuda.Upload(q, s.near, 0, near))
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// step is how many bytes of a row are multiplied at once.
const step = 64

// lay lays heads as the tensor cores take them, [(heads + 63) / 64, steps, 2, 64, 64]: of 64 heads
// and 64 of their codes the upper bytes, signed, then the lower ones, which are not, such that
// code = 256 * upper + lower.
func lay(heads [][]int16, stride int) []int8 {
	steps := (stride + step - 1) / step
	out := make([]int8, (len(heads)+together-1)/together*steps*2*together*step)
	for h, codes := range heads {
		at := h/together*steps*2*together*step + h%together*step
		for j, c := range codes {
			high := out[at+j/step*2*together*step+j%step:]
			high[0], high[together*step] = int8(c>>8), int8(c)
		}
	}
	return out
}

func check(h *Head, dim int) error {
	if len(h.Codes) != dim {
		return fmt.Errorf("%d codes, want %d", len(h.Codes), dim)
	}
	sum := int64(0)
	for _, c := range h.Codes {
		sum += max(int64(c), -int64(c))
	}
	if sum > math.MaxInt32/127 {
		return fmt.Errorf("codes whose sizes add up to %d: want at most %d, so that no sum of products overflows", sum, math.MaxInt32/127)
	}
	for _, x := range []float64{h.Scale, h.Bias} {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("scale %v and bias %v: want finite ones", h.Scale, h.Bias)
		}
	}
	return nil
}

// slack is by how much a score that the kernel forms in float may differ from that in
// double: so much for each of a row's scale, and so much beside. Seven roundings of 2^-24
// are on the way; it is 16. Where floats could overflow or lose bits to zero it is
// infinite, and every score is formed in double.
func slack(heads []Head) (scale, bias float32) {
	const off = 0x1p-20
	most, mostBias := 0.0, 0.0
	for _, h := range heads {
		sum := 0.0
		for _, c := range h.Codes {
			sum += math.Abs(float64(c))
		}
		size := math.Abs(h.Scale)
		if size != 0 && size < 1e-30 {
			return float32(math.Inf(1)), float32(math.Inf(1))
		}
		most, mostBias = max(most, size*sum*128), max(mostBias, math.Abs(h.Bias))
	}
	if most > 1e30 || mostBias > 1e30 {
		return float32(math.Inf(1)), float32(math.Inf(1))
	}
	return float32(most * off), float32(mostBias*off + 1e-37)
}

// Close frees what the set holds. It may be called again.
func (s *Set) Close() error { return errors.Join(s.split.Free(), s.exact.Free(), s.near.Free()) }

// Rows are rows on the set's device: codes [N, stride] from byte CodesAt on, stride being
// the dimension rounded up to 16, zeros behind it; scales [N] from byte ScalesAt on; and
// which count, [(N+63)/64] words from byte MaskAt on, row r at bit r%64.
type Rows struct {
	N                         int64
	Codes, Scales, Mask       *cuda.Buffer
	CodesAt, ScalesAt, MaskAt int64
}

// Score orders the scores of rows, N floats from byte at of scores on: the mean of the top
// highest, -Inf of rows that don't count. With plain, and top 1, a score is the highest
// itself: that is the same but for the sign of zero. Each is rounded once, from fp64; what
// is beyond fp32 is the largest.
func (s *Set) Score(q *cuda.Queue, r Rows, top int, plain bool, scores *cuda.Buffer, at int64) error {
	if top < 1 || top > min(TopMost, s.count) || plain && top != 1 {
		return fmt.Errorf("the mean of the top %d of %d scores: want 1 to %d", top, s.count, min(TopMost, s.count))
	}
	if r.N < 0 {
		return fmt.Errorf("%d rows", r.N)
	}
	for _, b := range []struct {
		what     string
		b        *cuda.Buffer
		from, of int64
	}{
		{"codes", r.Codes, r.CodesAt, r.N * int64(s.stride)}, {"scales", r.Scales, r.ScalesAt, 4 * r.N},
		{"the mask", r.Mask, r.MaskAt, (r.N + 63) / 64 * 8}, {"scores", scores, at, 4 * r.N},
	} {
		if b.b == nil || b.from < 0 || b.of > b.b.Size()-b.from {
			return fmt.Errorf("%d bytes of %s from byte %d on do not fit their buffer", b.of, b.what, b.from)
		}
	}
	if r.CodesAt%16 != 0 || r.ScalesAt%4 != 0 || r.MaskAt%8 != 0 || at%4 != 0 {
		return fmt.Errorf("codes, scales, mask and scores from bytes %d, %d, %d and %d on: want multiples of 16, 4, 8 and 4", r.CodesAt, r.ScalesAt, r.MaskAt, at)
	}
	warps, err := s.warps(top)
	if err != nil || r.N == 0 {
		return err
	}
	rows := int64(warps * warpRows)
	mean := 1
	if plain {
		mean = 0
	}
	return q.Launch("seeds_top", cuda.Launch{Grid: [3]int{int((r.N + rows - 1) / rows)}, Block: [3]int{warps * 32}, Shared: s.shared(warps, top)},
		cuda.At(r.Codes, r.CodesAt), cuda.At(r.Scales, r.ScalesAt), cuda.At(r.Mask, r.MaskAt), cuda.At(s.split, 0), cuda.At(s.exact, 0), cuda.At(s.near, 0),
		cuda.At(scores, at), cuda.I64(r.N), cuda.I32(s.stride), cuda.I32(s.count), cuda.I32(top), cuda.I32(mean),
		cuda.F32(s.slack), cuda.F32(s.slackBias))
}

func (s *Set) shared(warps, top int) int {
	return ringBytes + warps*32*((s.stride+step-1)/step*step+4*8*top)
}

// Fits says why rows of dim codes and the mean of the top of their scores are more than a
// block of the device has shared memory for, nil where they are not.
func Fits(d *cuda.Device, dim, top int) error {
	_, err := (&Set{d: d, dim: dim, stride: (dim + 15) &^ 15}).warps(top)
	return err
}

// warps is how many a block has: the more, the more rows share a reading of the heads.
func (s *Set) warps(top int) (int, error) {
	have := s.d.Info().SharedPerBlock
	for w := warpsMost; w >= 1; w /= 2 {
		if s.shared(w, top) <= have {
			return w, nil
		}
	}
	return 0, fmt.Errorf("rows of %d codes and the mean of the top %d need %d bytes of shared memory, a block of CUDA device %d has %d: score them on the CPU", s.dim, top, s.shared(1, top), s.d.Info().Ordinal, have)
}
