package simd

import "fmt"

// AttentionScratch returns how many elements of working memory [Attention]
// needs for a text of n tokens.
func AttentionScratch(n int) int { return n*scoreStride(n) + n }

// scoreStride keeps rows of scores on whole cache lines.
func scoreStride(n int) int { return (n + 15) &^ 15 }

// Attention computes C = softmax(scale·Q·Kᵀ)·V for one head of one text of n
// tokens: q, k, v and c are [n, size of a head], scale is not negative, scratch
// holds [AttentionScratch](n) elements. C must not overlap the others. Each
// exponential has the error [Softmax] states. A NaN in a row of Q makes that row
// of C NaN, one in K or V all rows of C or of one column.
func Attention(c, q, k, v Matrix, scale float32, scratch []float32) {
	n := q.Rows
	if k.Rows != n || v.Rows != n || c.Rows != n || k.Cols != q.Cols || v.Cols != c.Cols || len(scratch) < AttentionScratch(n) {
		panic(fmt.Sprintf("simd: Attention: C [%d, %d] from Q [%d, %d], K [%d, %d], V [%d, %d] with %d elements of scratch",
			c.Rows, c.Cols, q.Rows, q.Cols, k.Rows, k.Cols, v.Rows, v.Cols, len(scratch)))
	}
	if n == 0 {
		return
	}
	stride := scoreStride(n)
	scores := Matrix{Data: scratch, Rows: n, Cols: n, Stride: stride}
	inv := scratch[n*stride : n*stride+n]
	MatMulNT(scores, q, k)
	late := expRows(scores, scale, inv)
	MatMulNN(c, scores, v)
	if late { // n·size multiplications here are fewer than n·n before
		for i := range n {
			scaleRow(c.Row(i), inv[i])
		}
	}
}
