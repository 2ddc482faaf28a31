// Attention of the encoder over packed texts: softmax(q · kᵀ / sqrt(d)) · v of each head, with
// no padding, in halves or bfloat16 with float sums, on tensor cores.
//
// The ladder, from the block to the lane:
//
//   block      up to 128 queries of a text (64 of heads above 64) and some of its heads; a
//              text that is shorter has several heads at once, so that all warps have rows
//   stage      8 KB of keys and as many of values, of one head or of several at once: 128 keys
//              of heads of 32. While one stage is multiplied the next is copied
//   warp       32 queries (16 of heads above 64) of one head
//   tile       32 keys, whose scores a warp holds: products with the keys, softmax, products
//              with the values
//   lane       what a lane gets of the scores is what it has to give of the weights when they
//              are multiplied with the values: they never leave its registers
//
// A query's values depend on its text alone: they are of tiles of 32 keys in the text's
// order, whatever the shape of the launch and whatever heads or texts are beside it.
//
// Of MiniLM (heads of 32), a token and layer: 2.3 KB read once for texts of up to 128 tokens,
// 0.8 KB written; a score costs a lane one exponential and some 6 other instructions.

#include "halves.cuh"
#include "ptx.cuh"

static constexpr int warps = 4;           // of a block
static constexpr int tile = 32;           // keys
static constexpr int stage_halves = 4096; // of a stage's keys, and of its values

// place_of is where 16 bytes, eight halves, of a row in shared memory lie: chunks are
// exchanged so that one column of chunks of eight rows is in different banks.
template <int head_size> static __device__ __forceinline__ int place_of(int row, int chunk) {
    return row * head_size + (chunk ^ (head_size == 32 ? row >> 1 & 3 : row & 7)) * 8;
}

// attention_of: qkv [tokens, 3 * heads * head_size], the queries, keys and values of a token
// side by side; out [tokens, heads * head_size]. starts [texts + 1]. Of each 32 values of a
// head the pairs lie as a matrix of 4 x 4 turned: then what a lane gets is 16 bytes of out.
// scale is 1 / (sqrt(d) · ln 2). Blocks of 128 threads, grid (blocks of queries of the longest
// text, parts of the heads, texts).
template <class T, int head_size, int tiles>
static __device__ void attention_of(const T *qkv, const int *starts, T *out, int heads, float scale) {
    constexpr int rows = 16 * tiles;                // queries of a warp
    constexpr int stage = stage_halves / head_size; // keys, of all heads at once
    constexpr int stage_bits = head_size == 32 ? 7 : head_size == 64 ? 6 : 5;
    static_assert(stage == 1 << stage_bits, "what a row's head is shifted by");
    constexpr int chunks = head_size / 8; // of a row, 16 bytes each
    constexpr int asked = 2 * 2 * stage_halves;
    SHARED(T, shared, asked + warps * rows * head_size); // two stages, of each the keys and then the values; then queries
    const int lane = threadIdx.x % warp, wid = __shfl_sync(0xffffffffu, threadIdx.x / warp, 0); // so that the compiler sees that lanes agree
    const int start = starts[blockIdx.z], tokens = starts[blockIdx.z + 1] - start;
    const int part = (heads + gridDim.y - 1) / gridDim.y;
    const int first_head = blockIdx.y * part, heads_end = first_head + part < heads ? first_head + part : heads;
    const int block_first = blockIdx.x * warps * rows; // query
    if (block_first >= tokens || first_head >= heads) return; // the whole block
    // Up to stage / tile heads at once: as many as the text leaves rows for.
    int shift = 0;
    while ((tile << shift) < stage && tokens << (shift + 1) <= warps * rows) shift++;
    const int at_once = 1 << shift, reach = stage >> shift; // keys of a stage and head
    const int first = block_first + wid % (warps >> shift) * rows; // query of the warp
    const int beside = wid / (warps >> shift);                     // its head, of those at once
    const int width = heads * head_size;
    const T *base = qkv + static_cast<long long>(start) * 3 * width;

    // load asks for keys and values [from, from + reach) of the heads from head on, zeros
    // behind the text.
    auto load = [&](int slot, int head, int from) {
        constexpr int step = warps * warp / chunks; // rows at a time, all of one head
        const int own = threadIdx.x / chunks, chunk = threadIdx.x % chunks;
        T *to = shared + slot * 2 * stage_halves + place_of<head_size>(own, chunk);
#pragma unroll 1
        for (int row = 0; row < stage; row += step, to += step * head_size) {
            const int token = from + (row & (reach - 1)) + own, of = head + (row >> (stage_bits - shift));
            const bool wanted = token < tokens && of < heads_end;
            const T *key = base + (wanted ? token * 3 * width + width + of * head_size + 8 * chunk : 0);
            cp_async16(to, key, wanted);
            cp_async16(to + stage_halves, key + width, wanted);
        }
        cp_async_commit();
    };
    // ask asks for the warp's queries of a head, which it alone reads.
    const int own_queries = asked + wid * rows * head_size;
    auto ask = [&](int head) {
#pragma unroll 1
        for (int row = lane / chunks; row < rows; row += warp / chunks) {
            const bool wanted = first + row < tokens && head < heads_end;
            cp_async16(shared + own_queries + place_of<head_size>(row, lane % chunks), base + (wanted ? (first + row) * 3 * width + head * head_size + lane % chunks * 8 : 0), wanted);
        }
        cp_async_commit();
    };

    // Where in 16 rows a lane's row of left operands and of values, and of keys, begins; ^ 8 c is
    // c chunks, an even number, further.
    const int left_row = place_of<head_size>(lane % 16, lane / 16), key_row = place_of<head_size>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    ask(first_head + beside);
    load(0, first_head, 0);
    int slot = 0;
    const unsigned ones[2] = {pair<T>(1, 1), pair<T>(1, 1)};
    for (int head = first_head; head < heads_end; head += at_once) {
        const bool mine = head + beside < heads_end && first < tokens;
        // Of the queries lane / 4 and 8 more: what their weights are relative to, in powers of
        // two; the sums of their weights, in elements 0 and 2; the sums of values by weight.
        float top[tiles][2], total[tiles][4] = {}, sum[tiles][chunks][4] = {};
#pragma unroll
        for (int m = 0; m < tiles; m++) top[m][0] = top[m][1] = -__int_as_float(0x7f800000);
        for (int from = 0; from < tokens; from += reach, slot ^= 1) {
            const bool more = from + reach < tokens;
            cp_async_wait<0>();
            __syncthreads(); // the stage is here, and nobody reads the one before any more
            if (more || head + at_once < heads_end) load(slot ^ 1, more ? head : head + at_once, more ? from + reach : 0);
            if (!mine) continue;
            int key = slot * 2 * stage_halves + beside * reach * head_size;
            const int behind = more ? tokens - from - reach : 0;
#pragma unroll 1
            for (int left = tokens - from; left > behind; left -= tile, key += tile * head_size) { // keys of the text
                float s[tiles][tile / 8][4] = {};
#pragma unroll
                for (int k = 0; k < chunks / 2; k++) {
                    unsigned query[tiles][4];
#pragma unroll
                    for (int m = 0; m < tiles; m++) ldmatrix_x4(query[m], shared + own_queries + 16 * m * head_size + (left_row ^ 16 * k));
#pragma unroll
                    for (int j = 0; j < tile / 16; j++) {
                        unsigned both[4];
                        ldmatrix_x4(both, shared + key + 16 * j * head_size + (key_row ^ 16 * k));
                        const unsigned even[2] = {both[0], both[1]}, odd[2] = {both[2], both[3]};
#pragma unroll
                        for (int m = 0; m < tiles; m++) {
                            multiply(s[m][2 * j], query[m], even, qkv);
                            multiply(s[m][2 * j + 1], query[m], odd, qkv);
                        }
                    }
                }
                if (left <= tile) {
                    __syncwarp(); // nobody reads this head's queries any more
                    ask(head + at_once + beside);
                }
                if (left < tile)
#pragma unroll
                    for (int j = 0; j < tile / 8; j++)
#pragma unroll
                        for (int i = 0; i < 2; i++)
                            if (8 * j + lane % 4 * 2 + i >= left)
#pragma unroll
                                for (int m = 0; m < tiles; m++) s[m][j][i] = s[m][j][2 + i] = -__int_as_float(0x7f800000);
                // Weights are relative to the highest score so far, or to one that is lower by no more
                // than 2^8 of a weight: then what was summed can stay as it is.
                float higher[tiles][2];
                bool grown = false;
#pragma unroll
                for (int m = 0; m < tiles; m++)
#pragma unroll
                    for (int q = 0; q < 2; q++) {
                        float most = s[m][0][2 * q];
#pragma unroll
                        for (int j = 0; j < tile / 8; j++) most = fmaxf(fmaxf(most, s[m][j][2 * q]), s[m][j][2 * q + 1]);
                        for (int step = 1; step < 4; step *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
                        most *= scale;
                        const bool grows = most > top[m][q] + 8;
                        higher[m][q] = grows ? most : top[m][q];
                        grown |= grows;
                    }
                if (__any_sync(0xffffffffu, grown))
#pragma unroll
                    for (int m = 0; m < tiles; m++)
#pragma unroll
                        for (int q = 0; q < 2; q++) {
                            const float shrink = exp2_approx(top[m][q] - higher[m][q]); // 0 at first, and 1 of a row that has not grown
                            top[m][q] = higher[m][q];
                            total[m][2 * q] *= shrink;
#pragma unroll
                            for (int d = 0; d < chunks; d++) {
                                sum[m][d][2 * q] *= shrink;
                                sum[m][d][2 * q + 1] *= shrink;
                            }
                        }
#pragma unroll
                for (int m = 0; m < tiles; m++)
#pragma unroll
                    for (int j = 0; j < tile / 8; j++)
#pragma unroll
                        for (int i = 0; i < 4; i++) s[m][j][i] = exp2_approx(s[m][j][i] * scale - top[m][i / 2]);
#pragma unroll
                for (int j = 0; j < tile / 16; j++) {
                    unsigned weight[tiles][4];
#pragma unroll
                    for (int m = 0; m < tiles; m++) {
                        weight[m][0] = pair<T>(s[m][2 * j][0], s[m][2 * j][1]);
                        weight[m][1] = pair<T>(s[m][2 * j][2], s[m][2 * j][3]);
                        weight[m][2] = pair<T>(s[m][2 * j + 1][0], s[m][2 * j + 1][1]);
                        weight[m][3] = pair<T>(s[m][2 * j + 1][2], s[m][2 * j + 1][3]);
                        multiply(total[m], weight[m], ones, qkv);
                    }
#pragma unroll
                    for (int d = 0; d < chunks / 2; d++) {
                        unsigned both[4];
                        ldmatrix_x4_trans(both, shared + key + stage_halves + 16 * j * head_size + (left_row ^ 16 * d));
                        const unsigned even[2] = {both[0], both[1]}, odd[2] = {both[2], both[3]};
#pragma unroll
                        for (int m = 0; m < tiles; m++) {
                            multiply(sum[m][2 * d], weight[m], even, qkv);
                            multiply(sum[m][2 * d + 1], weight[m], odd, qkv);
                        }
                    }
                }
            }
        }
        if (!mine) continue;
#pragma unroll
        for (int m = 0; m < tiles; m++)
#pragma unroll
            for (int q = 0; q < 2; q++) total[m][2 * q] = __fdividef(1, total[m][2 * q]);
#pragma unroll
        for (int m = 0; m < tiles; m++)
#pragma unroll
            for (int q = 0; q < 2; q++) {
                const int token = first + 16 * m + 8 * q + lane / 4;
                T *to = out + static_cast<long long>(start + token) * width + (head + beside) * head_size + lane % 4 * 8;
#pragma unroll
                for (int k = 0; k < head_size / 32; k++) {
                    unsigned pairs[4];
#pragma unroll
                    for (int d = 0; d < 4; d++) pairs[d] = pair<T>(sum[m][4 * k + d][2 * q] * total[m][2 * q], sum[m][4 * k + d][2 * q + 1] * total[m][2 * q]);
                    if (token < tokens) *reinterpret_cast<uint4 *>(to + 32 * k) = {pairs[0], pairs[1], pairs[2], pairs[3]};
                }
            }
    }
}
KERNEL(attention_32)(const __half *qkv, const int *starts, __half *out, int heads, float scale) {
    attention_of<__half, 32, 2>(qkv, starts, out, heads, scale);
}
KERNEL(attention_32_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, float scale) {
    attention_of<__nv_bfloat16, 32, 2>(qkv, starts, out, heads, scale);
}
KERNEL(attention_64)(const __half *qkv, const int *starts, __half *out, int heads, float scale) {
    attention_of<__half, 64, 2>(qkv, starts, out, heads, scale);
}
KERNEL(attention_64_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, float scale) {
    attention_of<__nv_bfloat16, 64, 2>(qkv, starts, out, heads, scale);
}
KERNEL(attention_128)(const __half *qkv, const int *starts, __half *out, int heads, float scale) {
    attention_of<__half, 128, 1>(qkv, starts, out, heads, scale);
}
KERNEL(attention_128_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, float scale) {
    attention_of<__nv_bfloat16, 128, 1>(qkv, starts, out, heads, scale);
}
