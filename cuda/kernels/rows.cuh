// What the kernels over int8 rows share: products of bytes and shorts, and scores as
// the CPU forms them.
#pragma once

#include "kernel.cuh"

// Heads of one pass, lanes that share a row, and bins of a histogram: 11 bits of a
// score's image are looked at, then 11, then 10.
static constexpr int heads_most = 8;
static constexpr int row_lanes = 8;
static constexpr int bins = 2048;

static constexpr unsigned masked_image = 0x007fffffu; // of -Inf

// image maps floats to integers in the same order; -0 is +0, NaN below everything.
static __device__ __forceinline__ unsigned image(float f) {
    unsigned b = __float_as_uint(f);
    if ((b & 0x7fffffffu) > 0x7f800000u) return 0;
    if (b == 0x80000000u) b = 0;
    return b ^ (static_cast<unsigned>(static_cast<int>(b) >> 31) | 0x80000000u);
}

// part is a vector's part of a score.
static __device__ __forceinline__ double part(int sum, float scale, double head_scale) {
    return __dmul_rn(static_cast<double>(sum), __dmul_rn(static_cast<double>(scale), head_scale));
}

// rounded makes a sum a score: what is beyond a float becomes the largest.
static __device__ __forceinline__ float rounded(double x) {
    const double most = 3.40282346638528859811704183484516925440e+38;
    if (x > most) x = most;
    if (x < -most) x = -most;
    return __double2float_rn(x);
}

static __device__ __forceinline__ float score(int sum, float scale, double head_scale, double bias) {
    double x = part(sum, scale, head_scale);
    if (bias != 0) x = __dadd_rn(x, bias);
    return rounded(x);
}

// dot16 adds 16 products of a row's bytes and a head's shorts.
static __device__ __forceinline__ int dot16(const int4& row, const int4& low, const int4& high, int sum) {
    sum = __dp2a_lo(low.x, row.x, sum);
    sum = __dp2a_hi(low.y, row.x, sum);
    sum = __dp2a_lo(low.z, row.y, sum);
    sum = __dp2a_hi(low.w, row.y, sum);
    sum = __dp2a_lo(high.x, row.z, sum);
    sum = __dp2a_hi(high.y, row.z, sum);
    sum = __dp2a_lo(high.z, row.w, sum);
    return __dp2a_hi(high.w, row.w, sum);
}

// row_dots adds the products of a row's chunks lane, lane + row_lanes, ... with the first
// count of some heads, of which shared memory holds [count][2 * chunks]. Four chunks are
// asked for before the first is used: that many loads are under way.
template <int heads> static __device__ __forceinline__ void row_dots(int (&sum)[heads], const int4 *code, const int4 *head, int chunks, int lane, int count) {
    constexpr int ahead = 4;
    for (int c = lane; c < chunks; c += ahead * row_lanes) {
        int4 x[ahead];
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            x[u] = make_int4(0, 0, 0, 0);
            if (c + u * row_lanes < chunks) x[u] = __ldg(code + c + u * row_lanes);
        }
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            const int at = c + u * row_lanes;
            if (at < chunks)
#pragma unroll
                for (int h = 0; h < heads; h++)
                    if (h < count) sum[h] = dot16(x[u], head[2 * (h * chunks + at)], head[2 * (h * chunks + at) + 1], sum[h]);
        }
    }
}

// held_chunks is how many chunks of one head a lane can hold in registers, where reading
// them from shared memory for every row would be the bound: rows of up to 512 bytes.
static constexpr int held_chunks = 4;

struct Held {
    int4 low[held_chunks], high[held_chunks];
};

// hold takes a lane's chunks of one head.
static __device__ __forceinline__ void hold(Held &held, const int4 *head, int chunks, int lane) {
#pragma unroll
    for (int u = 0; u < held_chunks; u++) {
        const int c = lane + u * row_lanes;
        held.low[u] = c < chunks ? head[2 * c] : make_int4(0, 0, 0, 0);
        held.high[u] = c < chunks ? head[2 * c + 1] : make_int4(0, 0, 0, 0);
    }
}

// held_dot is row_dots of that head.
static __device__ __forceinline__ int held_dot(const Held &held, const int4 *code, int chunks, int lane) {
    int4 x[held_chunks];
#pragma unroll
    for (int u = 0; u < held_chunks; u++) {
        x[u] = make_int4(0, 0, 0, 0);
        if (lane + u * row_lanes < chunks) x[u] = __ldg(code + lane + u * row_lanes);
    }
    int sum = 0;
#pragma unroll
    for (int u = 0; u < held_chunks; u++) sum = dot16(x[u], held.low[u], held.high[u], sum);
    return sum;
}

// own_dot adds sums up over the lanes of a row; lane h gets that of head h.
template <int heads> static __device__ __forceinline__ int own_dot(const int (&sum)[heads], int lane) {
    int mine = 0;
#pragma unroll
    for (int h = 0; h < heads; h++) {
        int s = sum[h];
#pragma unroll
        for (int step = row_lanes / 2; step > 0; step /= 2) s += __shfl_xor_sync(0xffffffffu, s, step);
        if (lane == h) mine = s;
    }
    return mine;
}
