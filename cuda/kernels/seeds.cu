// The mean of the top m of a row's scores under many heads: how like it is to the seeds
// that it is most like. No score of a single head is ever written.
//
// The ladder:
//
//   seeds_top      a block's rows stay in shared memory; heads pass by, 64 at a time; a
//                  warp multiplies its 32 rows by them on the tensor cores, and each lane
//                  keeps the top m of what it sees of its rows
//
// Exact: a head's short is its two bytes, the upper one signed, the lower one not, so that
// two integer products give one of shorts. A score is formed in double as index/rows
// forms it. The top m of a row are the same in any order, and so is their sum from the
// highest down: the bits are the CPU's.
//
// Few scores get as far as double. A float that lies within slack of a score is compared
// with the m-th best so far less slack, and what is below cannot be among the best: of
// 10,000 seeds some hundred of a row pass.
//
// A product doesn't care for the order of its terms (many.cu): a lane loads 16 bytes of a
// row or head at once, words 0 and 1 are the columns of one mma, words 2 and 3 of the next.
//
// Bytes and operations a row of dim 384, N heads: 388 read and 4 written, 2 * 384 N
// multiply-adds of bytes, N of them 768 N; N times a shift, a conversion, a product and a
// comparison beside them. The heads, 768 N bytes, are read from the second-level cache
// once a block: 256 rows share them, 3 N bytes a row. Of shared memory 320 bytes are read
// for 1,024 multiply-adds of a warp's row: about what the tensor cores take at the rate
// that mma reaches. 10,000 heads: 7.7 million multiply-adds a row, at 60 % of an H200's
// 990 T/s 13 ns: 1.3 s for 100 million rows.

#include "ptx.cuh"
#include "rows.cuh"

static constexpr int seeds_heads = 64; // that pass by together
static constexpr int pieces = 4; // of 16 bytes that a row and step have
static constexpr int stages = 3;
static constexpr int stage = 2 * seeds_heads * pieces;

// seeds_top scores rows [0, n) by count heads.
//   codes   [n, stride] bytes, stride a multiple of 16, zeros behind the row
//   scales  [n]
//   mask    [(n + 63) / 64] bits, row r is bit r % 64: which rows count
//   split   [(count + 63) / 64, 2, 64, stride] bytes: of 64 heads the upper bytes of
//           their shorts, then the lower ones
//   exact   [count, 2] scale and bias of a head
//   near    [as many as split, 2] the same as floats, 0 where there is no head
//   scores  [n]: of rows that don't count -Inf, of others the mean of the top highest;
//           or, where mean is 0 and top 1, the highest itself
//   slack, slack_bias: slack * |a row's scale| + slack_bias is how far a float may be off
// Blocks of 32 to 256 threads, as many as they have rows; dynamic shared memory:
// threads * pitch + 24,576 + 32 * top * threads bytes, pitch at least stride and 64 more
// than a multiple of 128, so that eight lanes meet all banks.
KERNEL(seeds_top)(const signed char *codes, const float *scales, const unsigned long long *mask, const signed char *split, const double *exact,
                  const float *near, float *scores, long long n, int stride, int pitch, int count, int top, int mean, float slack, float slack_bias) {
    DYNAMIC_SHARED(int4, shared);
    const int threads = blockDim.x, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int mine = threadIdx.x - lane + g; // this lane's rows: 0, 8, 16 and 24 from here
    const int wide = pitch / 16, have = stride / 16, chunks = (have + pieces - 1) / pieces;
    int4 *const tile = shared;               // [threads][wide]
    int4 *const ring = tile + threads * wide; // [stages][2][seeds_heads][pieces]
    double *const best = reinterpret_cast<double *>(ring + stages * stage); // [top][4][threads], from high to low
    const int next = 4 * threads;            // from one of a lane's best to the one below
    const long long first = blockIdx.x * static_cast<long long>(threads);
    const float infinity = __int_as_float(0x7f800000);

    for (int i = threadIdx.x; i < threads * chunks * pieces; i += threads) {
        const int r = i / (chunks * pieces), c = i % (chunks * pieces);
        const bool wanted = first + r < n && c < have;
        cp_async16(tile + r * wide + c, wanted ? codes + (first + r) * stride + 16 * c : codes, wanted);
    }
    const int steps = (count + seeds_heads - 1) / seeds_heads * chunks;
    const auto fetch = [&](int step) {
        if (step < steps) {
            const signed char *from = split + static_cast<long long>(step / chunks) * 2 * seeds_heads * stride;
            for (int i = threadIdx.x; i < stage; i += threads) {
                const int c = step % chunks * pieces + i % pieces;
                cp_async16(ring + step % stages * stage + i, c < have ? from + i / pieces * stride + 16 * c : from, c < have);
            }
        }
        cp_async_commit(); // also of nothing, so that groups can be counted
    };
    for (int s = 0; s < stages - 1; s++) fetch(s);

    bool counts[4];
    float scale[4], off[4], bound[4]; // what is below bound is not among the best
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const long long row = first + mine + 8 * r;
        counts[r] = row < n && (mask[row >> 6] >> (row & 63) & 1);
        scale[r] = counts[r] ? scales[row] : 0;
        off[r] = fmaf(slack, fabsf(scale[r]), slack_bias);
        bound[r] = counts[r] ? -infinity : infinity;
        for (int k = 0; k < top; k++) best[k * next + r * threads + threadIdx.x] = -infinity;
    }

    int sum[2][2][seeds_heads / 8][4] = {}; // upper and lower bytes; of 16 rows; of 8 heads; of this lane
    for (int step = 0; step < steps; step++) {
        cp_async_wait<stages - 2>();
        __syncthreads();
        fetch(step + stages - 1); // where the step before this one was
        const int c = step % chunks;
        int4 x[4];
#pragma unroll
        for (int r = 0; r < 4; r++) x[r] = tile[(mine + 8 * r) * wide + c * pieces + t];
#pragma unroll
        for (int byte = 0; byte < 2; byte++)
#pragma unroll
            for (int j = 0; j < seeds_heads / 8; j++) {
                const int4 y = ring[step % stages * stage + (byte * seeds_heads + 8 * j + g) * pieces + t];
                const uint32_t b[2][2] = {{static_cast<uint32_t>(y.x), static_cast<uint32_t>(y.y)}, {static_cast<uint32_t>(y.z), static_cast<uint32_t>(y.w)}};
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int4 &up = x[2 * i], &down = x[2 * i + 1];
                    const uint32_t a[2][4] = {
                        {static_cast<uint32_t>(up.x), static_cast<uint32_t>(down.x), static_cast<uint32_t>(up.y), static_cast<uint32_t>(down.y)},
                        {static_cast<uint32_t>(up.z), static_cast<uint32_t>(down.z), static_cast<uint32_t>(up.w), static_cast<uint32_t>(down.w)}};
                    for (int half = 0; half < 2; half++) {
                        if (byte == 0) mma_m16n8k32(sum[byte][i][j], a[half], b[half]);
                        else mma_m16n8k32_u8(sum[byte][i][j], a[half], b[half]);
                    }
                }
            }
        if (c < chunks - 1) continue;

        // These heads' products are complete. The lanes of a row share the highest bound.
#pragma unroll
        for (int r = 0; r < 4; r++)
            for (int by = 1; by < 4; by *= 2) bound[r] = fmaxf(bound[r], __shfl_xor_sync(0xffffffffu, bound[r], by));
#pragma unroll
        for (int j = 0; j < seeds_heads / 8; j++) {
            const int h = step / chunks * seeds_heads + 8 * j + 2 * t;
            const float4 two = __ldg(reinterpret_cast<const float4 *>(near + 2 * h));
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const int at = r % 2 * 2;
                const int dot[2] = {
                    static_cast<int>((static_cast<unsigned>(sum[0][r / 2][j][at]) << 8) + static_cast<unsigned>(sum[1][r / 2][j][at])),
                    static_cast<int>((static_cast<unsigned>(sum[0][r / 2][j][at + 1]) << 8) + static_cast<unsigned>(sum[1][r / 2][j][at + 1]))};
                const float low = fmaf(static_cast<float>(dot[0]) * two.x, scale[r], two.y), high = fmaf(static_cast<float>(dot[1]) * two.z, scale[r], two.w);
                if (low < bound[r] && high < bound[r]) continue; // a NaN goes on
#pragma unroll 1
                for (int i = 0; i < 2; i++) {
                    if (h + i >= count) break;
                    double y = part(i ? dot[1] : dot[0], scale[r], __ldg(exact + 2 * (h + i)));
                    const double bias = __ldg(exact + 2 * (h + i) + 1);
                    if (bias != 0) y = __dadd_rn(y, bias);
                    double *to = best + (top - 1) * next + r * threads + threadIdx.x;
                    if (!(y > *to)) continue;
                    for (int k = top - 1; k > 0 && to[-next] < y; k--, to -= next) *to = to[-next];
                    *to = y;
                    bound[r] = fmaxf(bound[r], static_cast<float>(best[(top - 1) * next + r * threads + threadIdx.x]) - off[r]);
                }
            }
#pragma unroll
            for (int i = 0; i < 4; i++) sum[0][0][j][i] = sum[0][1][j][i] = sum[1][0][j][i] = sum[1][1][j][i] = 0;
        }
    }
    __syncwarp();

    // Four lanes have seen a quarter of a row's heads each: lane t puts the t-th row's
    // best together.
    const double *from = best + t * threads + threadIdx.x - t;
    int at[4] = {};
    double x = 0;
    for (int k = 0; k < top; k++) {
        double y = 0;
        int lane_of = 0;
#pragma unroll
        for (int l = 0; l < 4; l++) {
            const double z = from[at[l] * next + l];
            if (l == 0 || z > y) y = z, lane_of = l;
        }
#pragma unroll
        for (int l = 0; l < 4; l++) at[l] += l == lane_of;
        x = mean ? __dadd_rn(x, y) : y;
    }
    if (mean) x = __ddiv_rn(x, static_cast<double>(top));
    const long long row = first + mine + 8 * t;
    if (row >= n) return;
    bool is = false;
#pragma unroll
    for (int r = 0; r < 4; r++) is = is || (r == t && counts[r]);
    scores[row] = is ? rounded(x) : -infinity;
}
