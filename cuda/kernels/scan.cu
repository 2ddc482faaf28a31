// The scan of a population of int8 rows, and the selection of its best.
//
// The ladder, from the whole to the row:
//
//   scan_int8       one pass over all rows: the scores of up to 8 heads, and a
//                   histogram of the upper bits of each head's scores (scan_many in
//                   many.cu: of up to 64, without the histogram)
//   collect         of each list the rows whose score reaches a floor, with their scores:
//                   first that of the bin in which the k-th best lies
//   refine_entries  of what was collected a histogram of the next bits of those in that bin:
//                   twice, and the score of the k-th best is known exactly
//   collect_entries of what was collected that which reaches it
//   refine          refine_entries of all scores, where the bin is too crowded to be collected
//
// A score is the CPU's to the bit: the sum of products is an integer, and what
// follows is done in double, each operation rounded, in the order of
// index/rows, and rounded to float once.
//
// Bytes and operations a row of dim 384, H heads: 384 + 4 read, 4 H written, 768 products of
// bytes for each 8 heads, half of one mma a row and 32 bytes, and 16 rows for each: bandwidth
// is the bound. The collection reads 4 bytes a row and head, once. docs/cuda.md has the rest.

#include "stream.cuh"

// scan_int8 scores rows [begin, end).
//   runs    where they lie, as Run says
//   mask    [(end + 15) / 16] of everyone, row r is bit r % 16: which rows count
//   split   [2, count, stride] bytes: the high bytes of the heads, then the low ones
//   exact   [count, 2] scale and bias of a head; count is 1 to 8
//   scores  [count, pitch]: -Inf for rows that don't count
//   hist    [count, bins]: of the upper 11 bits of the images; added to
// Blocks of a multiple of 32 threads; dynamic shared memory: 192 a thread, 32 * wide * count
// and 4 * bins * count bytes. Wide is at least stride / 16 and 4 more than a multiple of 8, so
// that eight lanes meet all banks.
KERNEL_BOUNDS(scan_int8, 512, 1)(const Run *runs, const unsigned short *mask, const signed char *split, const double *exact, float *scores, unsigned *hist, unsigned begin,
                  unsigned end, long long pitch, int stride, int wide, int count) {
    DYNAMIC_SHARED(int4, shared);
    int4 *const heads = shared + blockDim.x / 32 * ring;
    unsigned *const local = reinterpret_cast<unsigned *>(heads + 2 * count * wide); // [count][bins]
    hold<1>(heads, split, stride, wide, count);
    for (int i = threadIdx.x; i < count * bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const int first = 2 * (threadIdx.x % 4); // a lane's two heads
    products<1>(shared, heads, wide, runs, mask, begin, end, stride, count, [&](const Tile &tile, const int(&sum)[2][1][4]) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int h = first + k % 2;
            const unsigned row = tile.row + k / 2 * 8;
            if (h >= count || row >= end) continue;
            float x = -__int_as_float(0x7f800000);
            if (tile.counts >> (threadIdx.x % 32 / 4 + k / 2 * 8) & 1) {
                x = score(dot(sum, 0, k), tile.scale[k / 2], __ldg(exact + 2 * h), __ldg(exact + 2 * h + 1));
                const unsigned u = image(x);
                if (u > masked_image) atomicAdd(&local[h * bins + (u >> 21)], 1u);
            }
            scores[h * pitch + row] = x;
        }
    });
    __syncthreads();
    for (int i = threadIdx.x; i < count * bins; i += blockDim.x)
        if (local[i]) atomicAdd(&hist[i], local[i]);
}

// four are the images of rows 4 q to 4 q + 3, 0 for those from n on. Scores is aligned to 16
// bytes.
static __device__ __forceinline__ void four(unsigned (&u)[4], const float *scores, long long n, long long q) {
    float4 x = {0, 0, 0, 0};
    if (4 * q + 4 <= n) x = reinterpret_cast<const float4 *>(scores)[q];
    else {
        if (4 * q < n) x.x = scores[4 * q];
        if (4 * q + 1 < n) x.y = scores[4 * q + 1];
        if (4 * q + 2 < n) x.z = scores[4 * q + 2];
    }
    const float f[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) u[i] = 4 * q + i < n ? image(f[i]) : 0;
}

// image_of is the image of an entry's score. An entry is the complement of the image above the
// row, as in index/selection.
static __device__ __forceinline__ unsigned image_of(unsigned long long entry) { return ~static_cast<unsigned>(entry >> 32); }

// Digit is the next bits of an image whose first known ones are known: after 0 and 11 the next
// 11, after 22 the last 10.
struct Digit {
    int known, down;
    unsigned upper, mask;
    __device__ Digit(int known, unsigned upper) : known(known), upper(upper) {
        const int next = known == 22 ? 10 : 11;
        down = 32 - known - next;
        mask = (1u << next) - 1;
    }
    // count adds an image to a histogram, where it counts and its first bits are these.
    __device__ void count(unsigned *hist, unsigned u) const {
        if (u > masked_image && (known == 0 || u >> (32 - known) == upper)) atomicAdd(&hist[u >> down & mask], 1u);
    }
};

// refine adds, for each list, to its histogram the next bits of the images of its scores whose
// upper bits are its prefix: after known of them, 0, 11 or 22.
//   scores  [lists, pitch], of which n are read; pitch is a multiple of 4
//   hist    [lists, bins]: added to
//   prefix  [lists]: ~0 is a list of which nothing is asked; after 0 bits it is not read
// Blocks (x, list).
KERNEL(refine)(const float *scores, unsigned *hist, const unsigned *prefix, long long n, long long pitch, int known) {
    SHARED(unsigned, local, bins);
    const int list = blockIdx.y;
    const unsigned upper = known == 0 ? 0 : prefix[list];
    if (upper == ~0u) return; // a whole block
    scores += list * pitch;
    hist += list * bins;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const Digit digit(known, upper);
    for (long long q = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; 4 * q < n; q += gridDim.x * static_cast<long long>(blockDim.x)) {
        unsigned u[4];
        four(u, scores, n, q);
#pragma unroll
        for (int i = 0; i < 4; i++) digit.count(local, u[i]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < bins; i += blockDim.x)
        if (local[i]) atomicAdd(&hist[i], local[i]);
}

// refine_entries is refine of entries.
//   entries  those of list h are [places[h], places[h + 1])
KERNEL(refine_entries)(const unsigned long long *entries, unsigned *hist, const unsigned *prefix, const unsigned long long *places, int known) {
    SHARED(unsigned, local, bins);
    const int list = blockIdx.y;
    const unsigned upper = prefix[list];
    if (upper == ~0u) return; // a whole block
    const unsigned long long end = places[list + 1];
    hist += list * bins;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const Digit digit(known, upper);
    for (unsigned long long i = places[list] + blockIdx.x * static_cast<unsigned long long>(blockDim.x) + threadIdx.x; i < end; i += gridDim.x * static_cast<unsigned long long>(blockDim.x))
        digit.count(local, image_of(entries[i]));
    __syncthreads();
    for (int i = threadIdx.x; i < bins; i += blockDim.x)
        if (local[i]) atomicAdd(&hist[i], local[i]);
}

static constexpr int collect_warps = 8;
static constexpr int staged = 256; // entries that a warp puts together before it asks for their place

// Basket is a warp's entries of one list on their way to memory: so places are asked for seldom.
struct Basket {
    unsigned long long *mine, *entries, *found, room; // [staged], [room], counted
    unsigned have, lane;

    // put takes an entry from each lane that has one. There is room for 32.
    __device__ void put(bool take, unsigned long long entry) {
        const unsigned takers = __ballot_sync(0xffffffffu, take);
        if (take) mine[have + __popc(takers & ((1u << lane) - 1))] = entry;
        have += __popc(takers);
    }
    // pass_on writes them, where there are more than most. What there is no room for is counted and
    // not written.
    __device__ void pass_on(unsigned most) {
        if (have <= most) return; // a whole warp
        __syncwarp();
        unsigned long long at = 0;
        if (lane == 0) at = atomicAdd(found, static_cast<unsigned long long>(have));
        at = __shfl_sync(0xffffffffu, at, 0);
        for (unsigned i = lane; i < have; i += 32)
            if (at + i < room) entries[at + i] = mine[i];
        __syncwarp();
        have = 0;
    }
};

// collect writes, for each list, each row whose score's image is at least the list's floor, and
// counts them. Where there are more than have room, the rest is counted and not written.
// The order is that of arrival, which is none.
//   scores   [lists, pitch], of which n are read; pitch is a multiple of 4
//   entries  those of list h are [places[h], places[h + 1])
//   found    [lists]: added to
//   places   [lists + 1], floors [lists]
// Blocks (x, list) of 256 threads.
KERNEL(collect)(const float *scores, unsigned long long *entries, unsigned long long *found, const unsigned long long *places, const unsigned long long *floors, long long n, long long pitch) {
    SHARED(unsigned long long, baskets, collect_warps * staged);
    const int list = blockIdx.y;
    const unsigned long long room = places[list + 1] - places[list];
    if (room == 0) return; // a whole block, of a list of which nothing is asked
    scores += list * pitch;
    const unsigned floor = static_cast<unsigned>(floors[list]), lane = threadIdx.x % 32;
    Basket basket = {baskets + threadIdx.x / 32 * staged, entries + places[list], found + list, room, 0, lane};
    const long long step = gridDim.x * static_cast<long long>(blockDim.x), quads = (n + 3) / 4;
    long long first = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x - lane;
    unsigned next[4];
    four(next, scores, n, first + lane);
    for (; first < quads; first += step) {
        unsigned u[4];
#pragma unroll
        for (int i = 0; i < 4; i++) u[i] = next[i];
        four(next, scores, n, first + step + lane); // asked for a round ahead
        const bool any = (u[0] >= floor) | (u[1] >= floor) | (u[2] >= floor) | (u[3] >= floor);
        if (!__any_sync(0xffffffffu, any)) continue;
#pragma unroll
        for (int i = 0; i < 4; i++)
            basket.put(u[i] > masked_image && u[i] >= floor, static_cast<unsigned long long>(~u[i]) << 32 | static_cast<unsigned>(4 * (first + lane) + i));
        basket.pass_on(staged - 128);
    }
    basket.pass_on(0);
}

// collect_entries is collect of entries: those of list h are [from[h], from[h + 1]), and become
// [places[h], places[h + 1]) of kept.
KERNEL(collect_entries)(const unsigned long long *entries, const unsigned long long *from, unsigned long long *kept, unsigned long long *found, const unsigned long long *places,
                        const unsigned long long *floors) {
    SHARED(unsigned long long, baskets, collect_warps * staged);
    const int list = blockIdx.y;
    const unsigned long long room = places[list + 1] - places[list], end = from[list + 1];
    if (room == 0) return; // a whole block, of a list of which nothing is asked
    const unsigned floor = static_cast<unsigned>(floors[list]), lane = threadIdx.x % 32;
    Basket basket = {baskets + threadIdx.x / 32 * staged, kept + places[list], found + list, room, 0, lane};
    for (unsigned long long first = from[list] + blockIdx.x * static_cast<unsigned long long>(blockDim.x) + threadIdx.x - lane; first < end; first += gridDim.x * static_cast<unsigned long long>(blockDim.x)) {
        const unsigned long long entry = first + lane < end ? entries[first + lane] : ~0ull;
        basket.put(image_of(entry) >= floor, entry); // no floor is 0, which nothing has
        basket.pass_on(staged - 32);
    }
    basket.pass_on(0);
}
