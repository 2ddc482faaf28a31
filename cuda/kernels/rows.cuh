// What the kernels over int8 rows share: scores as the CPU forms them, and their order.
#pragma once

#include "kernel.cuh"

// Bins of a histogram: 11 bits of a score's image are looked at, then 11, then 10.
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
