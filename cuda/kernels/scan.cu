// The scan of a population of int8 rows, and the selection of its best.
//
// The ladder, from the whole to the row:
//
//   scan_int8_8    one pass over all rows: the scores of up to 8 heads, and a
//                  histogram of the upper bits of each head's scores
//   refine         of each head a histogram of the next bits, of the scores whose upper bits
//                  are those of its k-th best: twice, and its score is known exactly
//   collect        of each head the rows that reach it, with their scores
//
// A score is the CPU's to the bit: the sum of products is an integer, and what
// follows is done in double, each operation rounded, in the order of
// index/rows, and rounded to float once.
//
// Bytes and operations a row of dim 384, H heads: 384 + 4 read, 4 H written, 384 H
// products of a byte and a short. One head reads 388 and writes 4: bandwidth is the bound. The
// refining passes and the collection read 4 bytes a row and head each; the heads of a pass are
// the y of one launch a segment, so that many heads cost no more launches than one.

#include "rows.cuh"

// scan_of scores rows [0, n).
//   codes   [n, stride] bytes, stride a multiple of 16, zeros behind the row
//   scales  [n]
//   mask    [(n + 63) / 64] bits, row r is bit r % 64: which rows count
//   heads   [count, stride] shorts; head_scale, bias: [count]; count is at most most
//   scores  [count, n]: -Inf for rows that don't count
//   hist    [count, bins]: of the upper 11 bits of the images; added to
// Blocks of 256 threads; dynamic shared memory: count * (2 * stride + 4 * bins) bytes.
template <int most>
static __device__ __forceinline__ void scan_of(int4 *shared, const signed char *codes, const float *scales, const unsigned long long *mask, const short *heads,
                                               const double *head_scale, const double *bias, float *scores, unsigned *hist, long long n, int stride, int count) {
    const int chunks = stride / 16;
    int4 *head = shared; // [count][2 * chunks]
    unsigned *local = reinterpret_cast<unsigned *>(head + count * 2 * chunks); // [count][bins]
    for (int i = threadIdx.x; i < count * 2 * chunks; i += blockDim.x) head[i] = reinterpret_cast<const int4 *>(heads)[i];
    for (int i = threadIdx.x; i < count * bins; i += blockDim.x) local[i] = 0;
    __syncthreads();

    const int lane = threadIdx.x % row_lanes;
    const bool holds = most == 1 && chunks <= held_chunks * row_lanes;
    Held held;
    if (holds) hold(held, head, chunks, lane);
    const long long rows_a_block = blockDim.x / row_lanes, step = gridDim.x * rows_a_block;
    // Every thread makes the same number of rounds, so that lanes of a row and
    // warps stay together for the shuffles. A row's word of the mask is asked for a round ahead.
    long long row = blockIdx.x * rows_a_block + threadIdx.x / row_lanes;
    unsigned long long word = row < n ? mask[row >> 6] : 0;
    for (long long first = blockIdx.x * rows_a_block; first < n; first += step, row += step) {
        const bool wanted = row < n && (word >> (row & 63) & 1);
        word = row + step < n ? mask[(row + step) >> 6] : 0;
        int sum[most] = {};
        float scale = 0;
        if (wanted) {
            scale = scales[row];
            const int4 *code = reinterpret_cast<const int4 *>(codes + row * stride);
            if (holds) sum[0] = held_dot(held, code, chunks, lane);
            else
                row_dots<most>(sum, code, head, chunks, lane, count);
        }
        const int mine = own_dot<most>(sum, lane);
        if (lane < count && row < n) {
            float x = -__int_as_float(0x7f800000);
            if (wanted) {
                x = score(mine, scale, head_scale[lane], bias[lane]);
                const unsigned u = image(x);
                if (u > masked_image) atomicAdd(&local[lane * bins + (u >> 21)], 1u);
            }
            scores[lane * n + row] = x;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * bins; i += blockDim.x)
        if (local[i]) atomicAdd(&hist[i], local[i]);
}
// For one head, and for up to as many as have lanes of their own: each head that there might be
// costs three shuffles a row.
KERNEL(scan_int8_1)(const signed char *codes, const float *scales, const unsigned long long *mask, const short *heads,
                    const double *head_scale, const double *bias, float *scores, unsigned *hist, long long n, int stride, int count) {
    DYNAMIC_SHARED(int4, shared);
    scan_of<1>(shared, codes, scales, mask, heads, head_scale, bias, scores, hist, n, stride, count);
}
KERNEL(scan_int8_2)(const signed char *codes, const float *scales, const unsigned long long *mask, const short *heads,
                    const double *head_scale, const double *bias, float *scores, unsigned *hist, long long n, int stride, int count) {
    DYNAMIC_SHARED(int4, shared);
    scan_of<2>(shared, codes, scales, mask, heads, head_scale, bias, scores, hist, n, stride, count);
}
KERNEL(scan_int8_4)(const signed char *codes, const float *scales, const unsigned long long *mask, const short *heads,
                    const double *head_scale, const double *bias, float *scores, unsigned *hist, long long n, int stride, int count) {
    DYNAMIC_SHARED(int4, shared);
    scan_of<4>(shared, codes, scales, mask, heads, head_scale, bias, scores, hist, n, stride, count);
}
KERNEL(scan_int8_8)(const signed char *codes, const float *scales, const unsigned long long *mask, const short *heads,
                    const double *head_scale, const double *bias, float *scores, unsigned *hist, long long n, int stride, int count) {
    DYNAMIC_SHARED(int4, shared);
    scan_of<8>(shared, codes, scales, mask, heads, head_scale, bias, scores, hist, n, stride, count);
}

// refine adds, for each head, to its histogram the next bits of the images of its scores whose
// upper bits are its prefix: after known of them (0, 11, then 22), the next 11 or the last 10.
//   scores  [heads, n]
//   hist    [heads, bins]: added to
//   prefix  [heads]: ~0 is a head of which nothing is asked; after 0 bits it is not read
// Blocks (x, head).
KERNEL(refine)(const float *scores, unsigned *hist, const unsigned *prefix, long long n, int known) {
    SHARED(unsigned, local, bins);
    const int head = blockIdx.y;
    const unsigned upper = known == 0 ? 0 : prefix[head];
    if (upper == ~0u) return; // a whole block
    scores += head * n;
    hist += head * bins;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const int next = known == 22 ? 10 : 11;
    const int down = 32 - known - next;
    for (long long row = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; row < n; row += gridDim.x * static_cast<long long>(blockDim.x)) {
        const unsigned u = image(scores[row]);
        if (u > masked_image && (known == 0 || u >> (32 - known) == upper)) atomicAdd(&local[u >> down & ((1u << next) - 1)], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < bins; i += blockDim.x)
        if (local[i]) atomicAdd(&hist[i], local[i]);
}

// collect writes, for each head, each row, base above its place, whose score's image is at
// least the head's floor, and counts them. Where there are more than have room, the rest is
// counted and not written. An entry is the complement of the image above the row, as in
// index/selection. The order is that of arrival, which is none.
//   scores   [heads, n]
//   entries  those of head h are [places[h], places[h + 1])
//   found    [heads]: added to
//   places   [heads + 1], floors [heads]
// Blocks (x, head) of a multiple of 32 threads.
KERNEL(collect)(const float *scores, unsigned long long *entries, unsigned long long *found, const unsigned long long *places, const unsigned *floors, long long n, unsigned base) {
    const int head = blockIdx.y;
    const unsigned long long room = places[head + 1] - places[head];
    if (room == 0) return; // a whole block, of a head of which nothing is asked
    scores += head * n;
    entries += places[head];
    const unsigned floor = floors[head];
    const unsigned lane = threadIdx.x % 32;
    const long long step = gridDim.x * static_cast<long long>(blockDim.x);
    for (long long first = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x - lane; first < n; first += step) {
        const long long row = first + lane;
        unsigned u = 0;
        if (row < n) u = image(scores[row]);
        const bool take = u > masked_image && u >= floor;
        const unsigned takers = __ballot_sync(0xffffffffu, take);
        unsigned long long at = 0;
        if (lane == 0 && takers) at = atomicAdd(&found[head], static_cast<unsigned long long>(__popc(takers)));
        at = __shfl_sync(0xffffffffu, at, 0) + __popc(takers & ((1u << lane) - 1));
        if (take && at < room) entries[at] = static_cast<unsigned long long>(~u) << 32 | (base + static_cast<unsigned>(row));
    }
}
