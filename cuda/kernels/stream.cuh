// Products of int8 rows with up to 64 heads, as they stream by: what the scans and the
// products of many heads share.
//
// A warp multiplies 16 rows at a time by its block's heads on the tensor cores. A head's short
// is 256 high + low, the high byte signed and the low one not, so that two products of
// bytes, exact in 32 bits, give the one of shorts: 256 * high + low wraps around as integers
// do, and ends where the CPU's sum is, which fits.
//
// A product doesn't care for the order of its terms, as long as both sides have the same. So
// no fragment is shuffled into the layout of the manual: a lane reads 16 bytes of its row and
// the same 16 of its head, words 0 and 1 are the columns of one mma, words 2 and 3 those of
// the next.
//
// Bandwidth is the bound, and what decides about it is how many bytes are under way: 4.3 TB/s
// at some 0.8 us are 26 KB a processor of 132. Rows therefore go through a ring in shared
// memory that is filled by copies which no register waits for: a step is 128 bytes of 16 rows,
// two steps of every warp are always asked for, over the end of its rows as well: 4 KB a
// warp, 96 KB a processor of 24 warps. A lane copies what it reads itself, so that
// nothing is waited for but the copies: no barrier, and no lane for another.
#pragma once

#include "ptx.cuh"
#include "rows.cuh"

static constexpr int tile_rows = 16;  // a warp's
static constexpr int step_chunks = 8; // of 16 bytes that a row and step have
static constexpr int stages = 3;
static constexpr int stage = tile_rows * step_chunks; // of 16 bytes that a warp and step have
static constexpr int ring = stages * stage;           // of 16 bytes that a warp has
static constexpr int group = 8; // heads that an mma takes

// Run is rows [first, first + rows) of the population, which lie together: codes [rows, stride]
// bytes, stride a multiple of 16, zeros behind the row; scales [rows]. First is a multiple of
// 64, and the run that follows begins where this one ends.
struct Run {
    const signed char *codes;
    const float *scales;
    unsigned first, rows;
};

// Tile is what a lane knows of its rows g and g + 8 of a tile.
struct Tile {
    unsigned row;    // g's
    unsigned counts; // bit r: the tile's row r
    float scale[2];
};

// held is how many heads shared memory has room for: one group has its last head in place of
// those that there are not, several have zeros, which are multiplied as well: to ask before each
// group would have its loads wait for the one before.
template <int groups> static __device__ __forceinline__ int held(int count) { return groups == 1 ? count : groups * group; }

// hold copies heads to shared memory, [2, held, wide] of 16 bytes: split is
// [2, count, stride] bytes, the high ones and then the low ones, zeros behind the row.
template <int groups> static __device__ __forceinline__ void hold(int4 *heads, const signed char *split, int stride, int wide, int count) {
    const int chunks = stride / 16, all = held<groups>(count);
    for (int i = threadIdx.x; i < 2 * all * wide; i += blockDim.x) {
        const int h = i / wide, c = i % wide;
        int4 x = make_int4(0, 0, 0, 0);
        if (h % all < count && c < chunks) x = reinterpret_cast<const int4 *>(split)[(h / all * count + h % all) * chunks + c];
        heads[i] = x;
    }
}

// products calls each(tile, sum) for all tiles of rows [begin, end), of which this warp has its
// share: sum[0][j][k] and sum[1][j][k] are the products with the high and low bytes of head
// group * j + 2 * (lane % 4) + k % 2, below count, and row lane / 4 + 8 * (k / 2). Those of a
// row that does not count are 0, and its bytes are not asked for.
//   shared [warps, ring]
//   heads  [2, held, wide], as hold writes them, behind a barrier
//   runs   in order; begin, a multiple of 16, lies in the first
//   mask   [(end + 15) / 16] of everyone: row r is bit r % 16
template <int groups, class Each>
static __device__ __forceinline__ void products(int4 *shared, const int4 *heads, int wide, const Run *runs, const unsigned short *mask, unsigned begin, unsigned end,
                                                int stride, int count, Each each) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int chunks = stride / 16, low = held<groups>(count) * wide; // from high bytes to low ones
    const int warps = gridDim.x * (blockDim.x / 32), last = static_cast<int>((end + (tile_rows - 1ll)) / tile_rows);
    int tile = static_cast<int>(begin / tile_rows + blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
    int4 *const mine = shared + threadIdx.x / 32 * ring + lane; // [stages, 4, 32]: of lane
    // Of a head that there is not, another's products are formed for nobody.
    const int4 *const head = heads + (groups == 1 && g >= count ? count - 1 : g) * wide + t;

    // What is asked for: a tile's step after the other, and its mask a tile ahead.
    int asked = tile, chunk = t, until = 0, to = 0;
    const Run *run = runs;
    const signed char *codes = nullptr;
    const int4 *up = nullptr, *down = nullptr; // of rows g and g + 8
    unsigned first = 0, bits = asked < last ? mask[asked] : 0;
    int up_to = 0, down_to = 0; // chunks that are wanted of them
    const auto ask = [&] {
        if (asked < last) {
            if (chunk == t) {
                while (asked >= until) {
                    first = run->first;
                    until = static_cast<int>((first + (run->rows + (tile_rows - 1ll))) / tile_rows);
                    codes = run->codes;
                    run++;
                }
                const unsigned row = static_cast<unsigned>(asked) * tile_rows + g;
                up_to = row < end && (bits >> g & 1) ? chunks : 0;
                down_to = row + 8 < end && (bits >> (g + 8) & 1) ? chunks : 0;
                up = reinterpret_cast<const int4 *>(codes + static_cast<long long>(row - first) * stride) + t;
                down = up + 8 * chunks;
                bits = asked + warps < last ? mask[asked + warps] : 0;
            }
            cp_async16(mine + to, up, chunk < up_to);
            cp_async16(mine + to + 32, down, chunk < down_to);
            cp_async16(mine + to + 64, up + 4, chunk + 4 < up_to);
            cp_async16(mine + to + 96, down + 4, chunk + 4 < down_to);
            up += step_chunks, down += step_chunks, chunk += step_chunks;
            if (chunk - t >= chunks) chunk = t, asked += warps;
        }
        cp_async_commit(); // also of nothing, so that groups can be counted
        to = to == (stages - 1) * stage ? 0 : to + stage;
    };
    for (int s = 0; s < stages - 1; s++) ask();

    // The mask and scales of what is multiplied are read a tile ahead as well.
    int lies = 0;
    const Run *of = runs;
    const float *scales = nullptr;
    unsigned start = 0;
    const auto look = [&](int at) {
        Tile x = {static_cast<unsigned>(at) * tile_rows + g, 0, {0, 0}};
        if (at < last) {
            while (at >= lies) {
                start = of->first;
                lies = static_cast<int>((start + (of->rows + (tile_rows - 1ll))) / tile_rows);
                scales = of->scales;
                of++;
            }
            x.counts = mask[at];
            if (x.row < end) x.scale[0] = scales[x.row - start];
            if (x.row + 8 < end) x.scale[1] = scales[x.row - start + 8];
        }
        return x;
    };
    Tile next = look(tile);
    int from = 0;
    for (; tile < last; tile += warps) {
        const Tile now = next;
        next = look(tile + warps);
        int sum[2][groups][4] = {};
        const int4 *at = head;
        for (int c = 0; c < chunks; c += step_chunks, at += step_chunks) {
            cp_async_wait<stages - 2>();
            ask(); // where the step before this one was
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (c + 4 * half >= chunks) break; // the same for all
                const int4 x = mine[from + 64 * half], y = mine[from + 64 * half + 32];
                const uint32_t a[2][4] = {{static_cast<uint32_t>(x.x), static_cast<uint32_t>(y.x), static_cast<uint32_t>(x.y), static_cast<uint32_t>(y.y)},
                                          {static_cast<uint32_t>(x.z), static_cast<uint32_t>(y.z), static_cast<uint32_t>(x.w), static_cast<uint32_t>(y.w)}};
#pragma unroll
                for (int j = 0; j < groups; j++) {
                    const int4 z[2] = {at[j * group * wide + 4 * half], at[low + j * group * wide + 4 * half]};
                    const uint32_t high[2][2] = {{static_cast<uint32_t>(z[0].x), static_cast<uint32_t>(z[0].y)}, {static_cast<uint32_t>(z[0].z), static_cast<uint32_t>(z[0].w)}};
                    const uint32_t lower[2][2] = {{static_cast<uint32_t>(z[1].x), static_cast<uint32_t>(z[1].y)}, {static_cast<uint32_t>(z[1].z), static_cast<uint32_t>(z[1].w)}};
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        mma_m16n8k32(sum[0][j], a[i], high[i]);
                        mma_m16n8k32_u8(sum[1][j], a[i], lower[i]);
                    }
                }
            }
            from = from == (stages - 1) * stage ? 0 : from + stage;
        }
        each(now, sum);
    }
    cp_async_wait<0>();
}

// dot is a product of shorts from those of its bytes.
template <int groups> static __device__ __forceinline__ int dot(const int (&sum)[2][groups][4], int j, int k) {
    return static_cast<int>((static_cast<unsigned>(sum[0][j][k]) << 8) + static_cast<unsigned>(sum[1][j][k]));
}
