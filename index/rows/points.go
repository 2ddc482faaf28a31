package rows

import (
	"fmt"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/simd"
)

// Vector returns a row's vector as it is held; it may alias the table and must
// not be changed. Fp16 and Fp32 rows without a vector hold zeros.
func (v *View) Vector(row uint32) Vector {
	ch, i := v.at(row)
	return ch.vector(i, v.spec.Dim)
}

// SameRows says whether row numbers mean the same in both views: no compaction
// lies between them.
func (v *View) SameRows(w *View) bool { return w != nil && v.core == w.core }

// ChunkShift is the logarithm to base two of how many rows a chunk holds.
func (v *View) ChunkShift() uint { return v.core.shift }

// Int8Chunks returns the codes of an Int8 collection by chunk, each of
// 1<<ChunkShift rows of the view's dimension, nil for other precisions. They
// alias the table and must not be changed; those of rows from Len on must not
// be read.
func (v *View) Int8Chunks() [][]int8 {
	if v.spec.Precision != index.Int8 || v.spec.Dim == 0 {
		return nil
	}
	out := make([][]int8, len(v.chunks))
	for i, ch := range v.chunks {
		out[i] = ch.codes
	}
	return out
}

// Scorer scores single rows of a view under one vector with the same bits as
// Search. It is for one goroutine.
type Scorer struct {
	view  *View
	codes []int16
	full  []float32
	signs *simd.BinaryHead
	scale float64
}

// Scorer returns a scorer of a query's vector, which is made unit length.
// Faults match ErrInvalid.
func (v *View) Scorer(vector []float32) (*Scorer, error) {
	req := index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: vector}}}}}
	if err := req.Validate(v.spec); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	s := &Scorer{view: v}
	unit, ok := Unit(vector)
	if !ok {
		return s, nil
	}
	switch v.spec.Precision {
	case index.Int8:
		s.codes, s.scale = quantiseHead(unit)
	case index.Binary:
		s.signs, s.scale = binaryHead(unit)
	default:
		s.full, s.scale = scaleHead(unit)
	}
	return s, nil
}

// Score returns the score of a row below the view's Len, dead or live.
func (s *Scorer) Score(row uint32) float32 {
	dim := s.view.spec.Dim
	ch, i := s.view.at(row)
	var score float64
	switch {
	case s.codes == nil && s.full == nil && s.signs == nil:
	case ch.codes != nil:
		var out [1]int32
		simd.DotInt8(ch.codes[i*dim:(i+1)*dim], dim, s.codes, out[:])
		score = float64(out[0]) * (float64(ch.scales[i]) * s.scale)
	case ch.half != nil:
		var out [1]float32
		simd.DotFp16(ch.half[i*dim:(i+1)*dim], dim, s.full, out[:])
		score = float64(out[0]) * s.scale
	case ch.bits != nil:
		if ch.signed[i] {
			score = float64(simd.DotBinaryRow(ch.bits, i, s.signs)) * (s.scale * float64(binaryScale(dim)))
		}
	case ch.full != nil:
		var out [1]float32
		simd.DotFp32(ch.full[i*dim:(i+1)*dim], dim, s.full, out[:])
		score = float64(out[0]) * s.scale
	}
	return clampScore(toScore(score))
}

// clampScore brings a cosine back that rounding took past 1 by an ulp.
func clampScore(x float32) float32 { return max(-1, min(1, x)) }
