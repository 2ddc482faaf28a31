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
// A product doesn't care for the order of its terms (stream.cuh): a lane loads 16 bytes of a
// head at once, words 0 and 1 are the columns of one mma, words 2 and 3 of the next. Rows, which
// are read once and multiplied for as long as heads pass by, lie in shared memory as
// fragments, so that what is loaded is in the registers that mma wants; and heads come in the order
// of their stages. A step is then 64 mma, 20 loads and little else.
//
// Bytes and operations a row of dim 384, N heads: 388 read and 4 written, 2 * 384 N
// multiply-adds of bytes, N of them 768 N; N times a shift, a conversion, a product and a
// comparison beside them. The heads, 768 N bytes, are read from the second-level cache
// once a block: 256 rows share them, 3 N bytes a row. Of shared memory 10 KB are read for the 64
// mma of a warp's step, 160 bytes each: a processor reads 128 and starts one mma a cycle, at
// most, of which mma reaches some 60 %. 10,000 heads: 7.7 million multiply-adds a row, at 60 % of
// an H200's 990 T/s 13 ns: 1.3 s for 100 million rows.

#include "ptx.cuh"
#include "rows.cuh"

static constexpr int seeds_heads = 64; // that pass by together
static constexpr int pieces = 4; // of 16 bytes that a row and step have
static constexpr int stages = 3;
static constexpr int stage = 2 * seeds_heads * pieces;
static constexpr int part_of_tile = 2 * 2 * 32; // a warp's fragments of a step, of 16 bytes

// seeds_top scores rows [0, n) by count heads.
//   codes   [n, stride] bytes, stride a multiple of 16, zeros behind the row
//   scales  [n]
//   mask    [(n + 63) / 64] bits, row r is bit r % 64: which rows count
//   split   [(count + 63) / 64, (stride + 63) / 64, 2, 64, 64] bytes: of 64 heads and 64 of a
//           row's bytes the upper bytes of their shorts, then the lower ones; zeros
//           where there is no head or byte
//   exact   [count, 2] scale and bias of a head
//   near    [as many as split, 2] the same as floats, 0 where there is no head
//   scores  [n]: of rows that don't count -Inf, of others the mean of the top highest;
//           or, where mean is 0 and top 1, the highest itself
//   slack, slack_bias: slack * |a row's scale| + slack_bias is how far a float may be off
// Blocks of 32 to 256 threads, as many as they have rows; dynamic shared memory:
// threads * (stride rounded up to 64) + 24,576 + 32 * top * threads bytes.
KERNEL(seeds_top)(const signed char *codes, const float *scales, const unsigned long long *mask, const signed char *split, const double *exact,
                  const float *near, float *scores, long long n, int stride, int count, int top, int mean, float slack, float slack_bias) {
    DYNAMIC_SHARED(int4, shared);
    const int threads = blockDim.x, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int mine = threadIdx.x - lane + g; // this lane's rows: 0, 8, 16 and 24 from here
    const int have = stride / 16, chunks = (have + pieces - 1) / pieces;
    int4 *const ring = shared;                                                        // [stages][2][seeds_heads][pieces]
    int4 *const tile = ring + stages * stage + threadIdx.x / 32 * chunks * part_of_tile + lane; // [chunks][2][2][32], of this lane
    double *const best = reinterpret_cast<double *>(ring + stages * stage + threads / 32 * chunks * part_of_tile); // [top][4][threads], from high to low
    const int next = 4 * threads;            // from one of a lane's best to the one below
    const long long first = blockIdx.x * static_cast<long long>(threads);
    const float infinity = __int_as_float(0x7f800000);

    // The stages come one after the other, as they lie.
    const int steps = (count + seeds_heads - 1) / seeds_heads * chunks;
    const int4 *coming = reinterpret_cast<const int4 *>(split) + threadIdx.x;
    int asked = 0, to = threadIdx.x;
    const auto fetch = [&] {
        if (asked < steps)
            for (int i = 0; i < stage; i += threads) cp_async16(ring + to + i, coming + i, true);
        cp_async_commit(); // also of nothing, so that groups can be counted
        asked++;
        coming += stage;
        to = to >= (stages - 1) * stage ? to - (stages - 1) * stage : to + stage;
    };
    for (int s = 0; s < stages - 1; s++) fetch();

    // A lane's rows, as it multiplies them: of rows 16 i + g and 8 more, words 0 and 1, then 2 and 3.
    for (int c = 0; c < chunks; c++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const long long row = first + mine + 16 * i;
            const int piece = c * pieces + t;
            int4 up = make_int4(0, 0, 0, 0), down = up;
            if (piece < have && row < n) up = __ldg(reinterpret_cast<const int4 *>(codes + row * stride) + piece);
            if (piece < have && row + 8 < n) down = __ldg(reinterpret_cast<const int4 *>(codes + (row + 8) * stride) + piece);
            tile[c * part_of_tile + i * 64] = make_int4(up.x, down.x, up.y, down.y);
            tile[c * part_of_tile + i * 64 + 32] = make_int4(up.z, down.z, up.w, down.w);
        }

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
    int c = 0, slot = 0, h0 = 0; // of the step: its part of the rows, of the ring, and its heads
    for (int step = 0; step < steps; step++) {
        cp_async_wait<stages - 2>();
        __syncthreads();
        fetch(); // where the step before this one was
        uint32_t a[2][2][4]; // of 16 rows; of 32 bytes
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int4 x = tile[c * part_of_tile + i * 32];
            a[i / 2][i % 2][0] = x.x, a[i / 2][i % 2][1] = x.y, a[i / 2][i % 2][2] = x.z, a[i / 2][i % 2][3] = x.w;
        }
#pragma unroll
        for (int j = 0; j < seeds_heads / 8; j++) {
            const int4 y[2] = {ring[slot + 8 * j * pieces + lane], ring[slot + (seeds_heads + 8 * j) * pieces + lane]};
            const uint32_t up[2][2] = {{static_cast<uint32_t>(y[0].x), static_cast<uint32_t>(y[0].y)}, {static_cast<uint32_t>(y[0].z), static_cast<uint32_t>(y[0].w)}};
            const uint32_t low[2][2] = {{static_cast<uint32_t>(y[1].x), static_cast<uint32_t>(y[1].y)}, {static_cast<uint32_t>(y[1].z), static_cast<uint32_t>(y[1].w)}};
            // A sum is added to again four mma later, not at once.
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    mma_m16n8k32(sum[0][i][j], a[i][half], up[half]);
                    mma_m16n8k32_u8(sum[1][i][j], a[i][half], low[half]);
                }
        }
        slot = slot == (stages - 1) * stage ? 0 : slot + stage;
        if (++c < chunks) continue;
        c = 0;

        // These heads' products are complete. The lanes of a row share the highest bound.
#pragma unroll
        for (int r = 0; r < 4; r++)
            for (int by = 1; by < 4; by *= 2) bound[r] = fmaxf(bound[r], __shfl_xor_sync(0xffffffffu, bound[r], by));
#pragma unroll
        for (int j = 0; j < seeds_heads / 8; j++) {
            const int h = h0 + 8 * j + 2 * t;
            const float4 two = __ldg(reinterpret_cast<const float4 *>(near + 2 * h));
            int dot[4][2];
            bool may[4];
#pragma unroll
            for (int r = 0; r < 4; r++) {
#pragma unroll
                for (int i = 0; i < 2; i++)
                    dot[r][i] = static_cast<int>((static_cast<unsigned>(sum[0][r / 2][j][r % 2 * 2 + i]) << 8) + static_cast<unsigned>(sum[1][r / 2][j][r % 2 * 2 + i]));
                const float low = fmaf(static_cast<float>(dot[r][0]) * two.x, scale[r], two.y), high = fmaf(static_cast<float>(dot[r][1]) * two.z, scale[r], two.w);
                may[r] = !(low < bound[r] && high < bound[r]); // a NaN may
            }
#pragma unroll
            for (int i = 0; i < 4; i++) sum[0][0][j][i] = sum[0][1][j][i] = sum[1][0][j][i] = sum[1][1][j][i] = 0;
            if (!(may[0] || may[1] || may[2] || may[3])) continue; // mostly
#pragma unroll
            for (int r = 0; r < 4; r++) {
                if (!may[r]) continue;
#pragma unroll 1
                for (int i = 0; i < 2; i++) {
                    if (h + i >= count) break;
                    double y = part(i ? dot[r][1] : dot[r][0], scale[r], __ldg(exact + 2 * (h + i)));
                    const double bias = __ldg(exact + 2 * (h + i) + 1);
                    if (bias != 0) y = __dadd_rn(y, bias);
                    double *to = best + (top - 1) * next + r * threads + threadIdx.x;
                    if (!(y > *to)) continue;
                    for (int k = top - 1; k > 0 && to[-next] < y; k--, to -= next) *to = to[-next];
                    *to = y;
                    bound[r] = fmaxf(bound[r], static_cast<float>(best[(top - 1) * next + r * threads + threadIdx.x]) - off[r]);
                }
            }
        }
        h0 += seeds_heads;
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
