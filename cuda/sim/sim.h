// What a kernel sees of CUDA when g++ compiles it for the simulator: the built-in
// variables, barriers, warp collectives and atomics, over the threads of core.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "race.h"

#define __global__
#define __device__
#define __host__
#ifdef KINDRED_RACE // what is said of a line goes on to the kernel's
#define __forceinline__ inline __attribute__((always_inline))
// What is made later says itself what it reads, as of the line where it was asked for.
#define KINDRED_ASYNC static __attribute__((noinline, no_sanitize("thread")))
#else
#define KINDRED_ASYNC static
#define __forceinline__ inline
#endif
#define __restrict__ __restrict

struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };

namespace kindred {

struct Index { unsigned x, y, z; };

// Thread is what the running thread of a kernel knows of itself.
struct Thread {
    Index thread, block, block_dim, grid_dim;
};
extern Thread *current;

// A place in a kernel's source, for messages.
struct Place {
    const char *what, *file;
    int line;
};

// barrier waits for all threads of the block, and returns how many gave true.
int barrier(Place at, bool value);
// meet waits for the lanes of mask, each of which gives a value, and returns the
// values by lane; what tells the kinds of meetings apart.
const uint64_t *meet(Place at, unsigned mask, uint64_t value);
// shared memory of the block: the same for all its threads, by key.
void *shared(const void *key, size_t bytes);
void *dynamic_shared();
unsigned lane();
// Copies that go on by themselves, by groups: they are made when they are waited for,
// and not before.
void copy_later(void *to, const void *from, size_t wanted);
void commit_copies();
void wait_copies(size_t most);
// Products that go on by themselves, by groups: make(what, sum) is called where the group is waited
// for and not before, so its operands are what is there then; it says what it reads by
// product_reads. Meanwhile sum, n floats, is rubbish. They want fence_products after what the thread
// did with sum, and fence_async after the copies of each thread.
using MakeProduct = void (*)(const void *what, float *sum);
void product_later(Place at, MakeProduct make, const void *what, size_t size, float *sum, size_t n);
void product_reads(const void *p, size_t n);
void fence_products();
void commit_products();
void wait_products(Place at, size_t most);
void fence_async();
[[noreturn]] void stop(Place at, const char *why);

template <class T> uint64_t pack(T x) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t v = 0;
    std::memcpy(&v, &x, sizeof x);
    return v;
}
template <class T> T unpack(uint64_t v) {
    T x;
    std::memcpy(&x, &v, sizeof x);
    return x;
}

} // namespace kindred

#define threadIdx (kindred::current->thread)
#define blockIdx (kindred::current->block)
#define blockDim (kindred::current->block_dim)
#define gridDim (kindred::current->grid_dim)
static constexpr int warpSize = 32;

#define KINDRED_PLACE(what) kindred::Place{what, __FILE__, __LINE__}

#define __syncthreads() ((void)kindred::barrier(KINDRED_PLACE("__syncthreads"), false))
#define __syncthreads_count(p) kindred::barrier(KINDRED_PLACE("__syncthreads_count"), (p))
#define __syncthreads_or(p) (kindred::barrier(KINDRED_PLACE("__syncthreads_or"), (p)) != 0)
#define __syncwarp(...) ((void)kindred::meet(KINDRED_PLACE("__syncwarp"), kindred::mask_of(__VA_ARGS__), 0))

namespace kindred {
inline unsigned mask_of(unsigned mask = 0xffffffffu) { return mask; }

template <class T> T shuffle(Place at, unsigned mask, T value, unsigned from) {
    const uint64_t *all = meet(at, mask, pack(value));
    if (!(mask >> from & 1)) stop(at, "reads the value of a lane that is not in its mask");
    return unpack<T>(all[from]);
}
template <class T> T shuffle_xor(Place at, unsigned mask, T v, int by, int width) {
    unsigned from = lane() ^ by;
    if (from / width != lane() / width) from = lane();
    return shuffle(at, mask, v, from);
}
template <class T> T shuffle_idx(Place at, unsigned mask, T v, int index, int width) {
    return shuffle(at, mask, v, lane() / width * width + index % width);
}
template <class T> T shuffle_down(Place at, unsigned mask, T v, unsigned by, int width) {
    unsigned from = lane() % width + by < unsigned(width) ? lane() + by : lane();
    return shuffle(at, mask, v, from);
}
template <class T> T shuffle_up(Place at, unsigned mask, T v, unsigned by, int width) {
    unsigned from = lane() % width >= by ? lane() - by : lane();
    return shuffle(at, mask, v, from);
}
inline unsigned ballot(Place at, unsigned mask, bool p) {
    const uint64_t *all = meet(at, mask, p);
    unsigned out = 0;
    for (unsigned l = 0; l < 32; l++)
        if (mask >> l & 1 && all[l]) out |= 1u << l;
    return out;
}
} // namespace kindred

#define __shfl_xor_sync(m, v, by) kindred::shuffle_xor(KINDRED_PLACE("__shfl_xor_sync"), (m), (v), (by), 32)
#define __shfl_sync(m, v, i) kindred::shuffle_idx(KINDRED_PLACE("__shfl_sync"), (m), (v), (i), 32)
#define __shfl_down_sync(m, v, by) kindred::shuffle_down(KINDRED_PLACE("__shfl_down_sync"), (m), (v), (by), 32)
#define __shfl_up_sync(m, v, by) kindred::shuffle_up(KINDRED_PLACE("__shfl_up_sync"), (m), (v), (by), 32)
#define __ballot_sync(m, p) kindred::ballot(KINDRED_PLACE("__ballot_sync"), (m), (p))
#define __any_sync(m, p) (kindred::ballot(KINDRED_PLACE("__any_sync"), (m), (p)) != 0)
#define __all_sync(m, p) (kindred::ballot(KINDRED_PLACE("__all_sync"), (m), (p)) == (m))

// The threads of a kernel take turns at the places above alone, so that plain
// operations are atomic.
#ifdef KINDRED_RACE
#define KINDRED_ATOMIC template <class T> __attribute__((noinline, no_sanitize("thread")))
#define KINDRED_TOUCH_ATOMIC(p) kindred::race::touch(kindred::race::Kind::atomic, p, sizeof *p, __builtin_return_address(0))
#else
#define KINDRED_ATOMIC template <class T>
#define KINDRED_TOUCH_ATOMIC(p) ((void)0)
#endif
KINDRED_ATOMIC T atomicAdd(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = old + v; return old; }
KINDRED_ATOMIC T atomicMax(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = std::max(old, v); return old; }
KINDRED_ATOMIC T atomicMin(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = std::min(old, v); return old; }
KINDRED_ATOMIC T atomicOr(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = old | v; return old; }
KINDRED_ATOMIC T atomicAnd(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = old & v; return old; }
KINDRED_ATOMIC T atomicExch(T *p, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; *p = v; return old; }
KINDRED_ATOMIC T atomicCAS(T *p, T expected, T v) { KINDRED_TOUCH_ATOMIC(p); T old = *p; if (old == expected) *p = v; return old; }
inline void __threadfence() {}

template <class T> T __ldg(const T *p) { return *p; }
inline unsigned __float_as_uint(float f) { return kindred::unpack<unsigned>(kindred::pack(f)); }
inline float __uint_as_float(unsigned u) { return kindred::unpack<float>(u); }
inline float __int_as_float(int i) { return kindred::unpack<float>(kindred::pack(i)); }
inline int __float_as_int(float f) { return kindred::unpack<int>(kindred::pack(f)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

// Compiled with -ffp-contract=off, these are single rounded operations.
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __longlong_as_double(long long x) { return kindred::unpack<double>(kindred::pack(x)); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }

// Halves: _Float16 rounds to nearest even, as the device does.
struct __half { _Float16 value; };
inline float __half2float(__half h) { return static_cast<float>(h.value); }
inline __half __float2half_rn(float f) { return {static_cast<_Float16>(f)}; }

// The upper half of a float's bits, rounded to nearest even; NaN stays one.
struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return kindred::unpack<float>(kindred::pack(uint32_t(x.bits) << 16)); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    const uint32_t u = kindred::unpack<uint32_t>(kindred::pack(f));
    if (f != f) return {0x7fff};
    return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; } // of NaN, 0
inline int min(int a, int b) { return b < a ? b : a; }
inline float __fdividef(float a, float b) { return a / b; } // the device's may be off by 2 units in the last place
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
