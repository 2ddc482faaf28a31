package embed

import (
	"fmt"

	"github.com/kindred-search/kindred/internal/simd"
)

// pooling is how the vectors of a text's tokens become one.
type pooling string

const (
	poolMean  pooling = "mean"
	poolFirst pooling = "first"
	poolLast  pooling = "last"
	poolMax   pooling = "max"
)

func parsePooling(name string) (pooling, error) {
	switch name {
	case "cls":
		return poolFirst, nil
	case "mean", "first", "last", "max":
		return pooling(name), nil
	}
	return "", fmt.Errorf("%w: pooling %q; this version pools by mean, first, last or max", ErrUnsupported, name)
}

// apply writes the pooled vector of x, [tokens, dim] with at least one token,
// to dst, [dim]. The mean is left as a sum: the caller makes it unit length.
func (p pooling) apply(dst []float32, x simd.Matrix) {
	switch p {
	case poolLast:
		copy(dst, x.Row(x.Rows-1))
	case poolMean:
		copy(dst, x.Row(0))
		for i := 1; i < x.Rows; i++ {
			simd.Axpy(1, x.Row(i), dst)
		}
	case poolMax:
		copy(dst, x.Row(0))
		for i := 1; i < x.Rows; i++ {
			for j, v := range x.Row(i) {
				dst[j] = max(dst[j], v)
			}
		}
	default:
		copy(dst, x.Row(0))
	}
}
