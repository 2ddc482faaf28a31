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

// multiply adds A (16 x 16) times B (16 x 8) to D, in the fragments of mma_m16n8k16; the
// last argument says of which type A and B are.
static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __half *) { mma_m16n8k16(d, a, b); }
static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __nv_bfloat16 *) { mma_m16n8k16_bf16(d, a, b); }

// warp_sum gives every lane the sum of all, added in one order.
static __device__ __forceinline__ float warp_sum(float x) {
    for (int step = warp / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
