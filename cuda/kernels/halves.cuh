// What the kernels over halves share, __half and __nv_bfloat16 alike: conversions, products
// of fragments, and the sum over a warp.
#pragma once

#include "ptx.cuh"

static constexpr int warp = 32;

static __device__ __forceinline__ float wide(__half x) { return __half2float(x); }
static __device__ __forceinline__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void narrow(__half &to, float x) { to = __float2half_rn(x); }
static __device__ __forceinline__ void narrow(__nv_bfloat16 &to, float x) { to = __float2bfloat16_rn(x); }

// pair is two numbers as a fragment has them: low in the lower half of the word.
template <class T> static __device__ __forceinline__ unsigned pair(float low, float high) {
    T both[2];
    narrow(both[0], low);
    narrow(both[1], high);
    unsigned bits;
    memcpy(&bits, both, 4);
    return bits;
}

// wide of 16 bytes is the eight numbers of type T that they hold; packed the other way round.
template <class T> static __device__ __forceinline__ void wide(float (&to)[8], const uint4 &from) {
    T x[8];
    memcpy(x, &from, 16);
#pragma unroll
    for (int i = 0; i < 8; i++) to[i] = wide(x[i]);
}
template <class T> static __device__ __forceinline__ uint4 packed(const float (&x)[8]) {
    return {pair<T>(x[0], x[1]), pair<T>(x[2], x[3]), pair<T>(x[4], x[5]), pair<T>(x[6], x[7])};
}

// multiply adds A (16 x 16) times B (16 x 8) to D, in the fragments of mma_m16n8k16; the
// last argument says of which type A and B are.
static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __half *) { mma_m16n8k16(d, a, b); }
static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __nv_bfloat16 *) { mma_m16n8k16_bf16(d, a, b); }

// lane_sum gives every lane of a warp the sum over its group of so many neighbours, added in one
// order; warp_sum over all.
template <int lanes> static __device__ __forceinline__ float lane_sum(float x) {
    for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ __forceinline__ float warp_sum(float x) { return lane_sum<warp>(x); }
