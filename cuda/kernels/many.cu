// Scores and products of int8 rows under up to 64 heads at once.
//
// The ladder:
//
//   scan_many      the scores of up to 64 heads, each of which is a vector and nothing else
//   dots_many      the products of up to 64 heads, of which score.cu's finish makes scores
//   dots_int8      the same of up to 8
//
// Bytes and operations a row of dim 384, 64 heads: 388 read, 256 written, 2 * 64 * 384
// multiply-adds of bytes: 49,152. At 644 bytes that is 76 a byte: bound by bandwidth where the
// tensor cores do more than 76 a byte of it (an H100 has some 290, of which mma reaches 60 %).

#include "stream.cuh"

// scan_of is scan_many for up to 8 * groups heads.
template <int groups>
static __device__ __forceinline__ void scan_of(int4 *shared, const Run *runs, const unsigned short *mask, const signed char *split, const double *exact, float *scores,
                                               unsigned begin, unsigned end, long long pitch, int stride, int wide, int count) {
    int4 *const heads = shared + blockDim.x / 32 * ring;
    hold<groups>(heads, split, stride, wide, count);
    __syncthreads();
    products<groups>(shared, heads, wide, runs, mask, begin, end, stride, count, [&](const Tile &tile, const int(&sum)[2][groups][4]) {
#pragma unroll
        for (int j = 0; j < groups; j++) {
            if (group * j >= count) break; // the same for all
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int h = group * j + 2 * (threadIdx.x % 4) + i;
                if (h >= count) continue;
                const double scale = __ldg(exact + 2 * h), bias = __ldg(exact + 2 * h + 1);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const unsigned row = tile.row + 8 * r;
                    if (row >= end) continue;
                    float x = -__int_as_float(0x7f800000);
                    if (tile.counts >> (threadIdx.x % 32 / 4 + 8 * r) & 1) x = score(dot(sum, j, 2 * r + i), tile.scale[r], scale, bias);
                    scores[h * pitch + row] = x;
                }
            }
        }
    });
}

// scan_many scores rows [begin, end) by count heads, 1 to 64.
//   runs    where they lie, as Run says
//   mask    [(end + 15) / 16] of everyone, row r is bit r % 16: which rows count
//   split   [2, count, stride] bytes: the high bytes of the heads, then the low ones
//   exact   [count, 2] scale and bias of a head
//   scores  [count, pitch]: -Inf for rows that don't count
// Blocks of a multiple of 32 threads; dynamic shared memory: 192 a thread, and 32 * wide for each of 32 heads, or of 64
// where there are more. Wide is as in scan_int8.
KERNEL(scan_many)(const Run *runs, const unsigned short *mask, const signed char *split, const double *exact, float *scores, unsigned begin, unsigned end,
                  long long pitch, int stride, int wide, int count) {
    DYNAMIC_SHARED(int4, shared);
    if (count <= 32) scan_of<4>(shared, runs, mask, split, exact, scores, begin, end, pitch, stride, wide, count);
    else
        scan_of<8>(shared, runs, mask, split, exact, scores, begin, end, pitch, stride, wide, count);
}

// dots_of multiplies rows [0, n) of a run, the first of which is the mask's first, by count
// heads, 1 to 8 * groups.
//   codes  [n, stride] bytes, stride a multiple of 16, zeros behind the row
//   mask   [(n + 15) / 16]: rows that count; the products of others are 0
//   split  [2, count, stride] bytes: the high bytes of the heads, then the low ones
//   dots   [count, n]
// Blocks of a multiple of 32 threads; dynamic shared memory: 192 a thread, and 32 * wide for each of count heads, of
// which dots_many has 32 or 64. Wide is as in scan_int8.
template <int groups>
static __device__ __forceinline__ void dots_of(int4 *shared, const signed char *codes, const float *scales, const unsigned short *mask, const signed char *split, int *dots, unsigned n, int stride,
                                               int wide, int count) {
    int4 *const heads = shared + blockDim.x / 32 * ring;
    const Run run = {codes, scales, 0, n};
    hold<groups>(heads, split, stride, wide, count);
    __syncthreads();
    products<groups>(shared, heads, wide, &run, mask, 0, n, stride, count, [&](const Tile &tile, const int(&sum)[2][groups][4]) {
#pragma unroll
        for (int j = 0; j < groups; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int h = group * j + 2 * (threadIdx.x % 4) + k % 2;
                const unsigned row = tile.row + k / 2 * 8;
                if (h < count && row < n) dots[h * static_cast<long long>(n) + row] = dot(sum, j, k);
            }
    });
}
KERNEL_BOUNDS(dots_int8, 512, 1)(const signed char *codes, const float *scales, const unsigned short *mask, const signed char *split, int *dots, unsigned n, int stride, int wide, int count) {
    DYNAMIC_SHARED(int4, shared);
    dots_of<1>(shared, codes, scales, mask, split, dots, n, stride, wide, count);
}
KERNEL(dots_many)(const signed char *codes, const float *scales, const unsigned short *mask, const signed char *split, int *dots, unsigned n, int stride, int wide, int count) {
    DYNAMIC_SHARED(int4, shared);
    if (count <= 32) dots_of<4>(shared, codes, scales, mask, split, dots, n, stride, wide, count);
    else
        dots_of<8>(shared, codes, scales, mask, split, dots, n, stride, wide, count);
}
