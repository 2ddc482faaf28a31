package tag

import (
	"context"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// Scored is everyone's likeliest label by row number.
type Scored struct {
	Label      []int16 // into Model.Labels; -1: not in the mask, or without text
	Confidence []float32
}

// Scan tags every row of a mask (nil: all). Labels are scored in passes of as many
// as fit into 256 MB of scores beside 14 bytes a row.
func (m *Model) Scan(ctx context.Context, snap index.Snapshot, mask *roaring.Bitmap, progress func(done, total int)) (*Scored, error) {
	if mask == nil {
		mask = snap.Live()
	}
	n := snap.Len()
	out := &Scored{Label: make([]int16, n), Confidence: make([]float32, n)}
	best, sum := make([]float32, n), make([]float32, n) // the sum is of exp(score - best)
	for i := range out.Label {
		out.Label[i] = -1
	}
	at := max(1, min(len(m.Heads), 256<<20/max(1, 4*n)))
	for from := 0; from < len(m.Heads); from += at {
		to := min(from+at, len(m.Heads))
		sets := make([]index.HeadSet, to-from)
		for i := range sets {
			sets[i].Heads = m.Heads[from+i : from+i+1]
		}
		scores, err := snap.Scan(ctx, index.ScanRequest{Sets: sets, Mask: mask})
		if err != nil {
			return nil, err
		}
		for it := mask.Iterator(); it.HasNext(); {
			row := it.Next()
			for i := range scores {
				s := scores[i][row]
				switch {
				case out.Label[row] < 0:
					out.Label[row], best[row], sum[row] = int16(from+i), s, 1
				case s > best[row]:
					sum[row] = sum[row]*exp32(best[row]-s) + 1
					out.Label[row], best[row] = int16(from+i), s
				default:
					sum[row] += exp32(s - best[row])
				}
			}
		}
		if progress != nil {
			progress(to, len(m.Heads))
		}
	}
	if err := m.dropBlank(ctx, snap, best, out); err != nil {
		return nil, err
	}
	for i, l := range out.Label {
		if l >= 0 {
			out.Confidence[i] = 1 / sum[i]
		}
	}
	return out, nil
}

// Having returns the rows of a mask whose likeliest label is one of the model's, by
// its place, with at least the confidence, ascending, and everyone's confidence by
// row number.
func (m *Model) Having(ctx context.Context, snap index.Snapshot, label int, least float64, mask *roaring.Bitmap) ([]uint32, []float32, error) {
	scored, err := m.Scan(ctx, snap, mask, nil)
	if err != nil {
		return nil, nil, err
	}
	var rows []uint32
	for it := mask.Iterator(); it.HasNext(); {
		if row := it.Next(); int(scored.Label[row]) == label && float64(scored.Confidence[row]) >= least {
			rows = append(rows, row)
		}
	}
	return rows, scored.Confidence, nil
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

// dropBlank takes the tags of rows without text away: their vectors are zeros and
// score by the bias alone, to the bit, so only such rows are looked at.
func (m *Model) dropBlank(ctx context.Context, snap index.Snapshot, best []float32, out *Scored) error {
	const page = 1024
	dim := len(m.Heads[0].Vector)
	x, rows := make([]float32, page*dim), make([]uint32, 0, page)
	look := func() error {
		if err := snap.Vectors(rows, x[:len(rows)*dim]); err != nil {
			return err
		}
		for i, row := range rows {
			if !slices.ContainsFunc(x[i*dim:(i+1)*dim], func(v float32) bool { return v != 0 }) {
				out.Label[row] = -1
			}
		}
		rows = rows[:0]
		return ctx.Err()
	}
	for i, l := range out.Label {
		if l < 0 || best[i] != m.Heads[l].Bias {
			continue
		}
		if rows = append(rows, uint32(i)); len(rows) == page {
			if err := look(); err != nil {
				return err
			}
		}
	}
	return look()
}
