// Products of a warp group, four warps that follow each other, on sm_90a: operands are read
// from shared memory while the threads go on. Under the simulator each has a twin written
// from the PTX manual ("Asynchronous Warpgroup Level Matrix Instructions": the fragments of D
// of wgmma.mma_async.m64nNk16, the canonical layout of a K-major operand with 64-byte swizzling,
// the matrix descriptor); cuda/sim/fragments.cpp pins them.
//
// An operand is a tile of rows of 32 halves along K, 64 bytes, one behind the other. Of eight rows,
// 512 bytes, the 16-byte chunks are exchanged: chunk c of row r lies at c ^ (r / 2 % 4). The
// tile begins at a multiple of 512 bytes.
//
// The order of things, for each thread:
//
//   cp_async_wait, fence_async     what this thread wrote to shared memory may be read by products
//   __syncthreads                  ... and what all others did
//   wgmma_fence                    what this thread did with the sums' registers is done
//   wgmma<n> ..., wgmma_commit     a group of products is under way
//   wgmma_wait<most>               at most so many groups are; of the others the sums may be
//                                  touched, and the operands overwritten once all threads know
#pragma once

#include "ptx.cuh"

#ifdef KINDRED_SIM

// Operand is where 16 halves of each row of an operand begin.
struct Operand {
    const char *at;
};
template <class T> static __forceinline__ Operand operand_at(const T *first) {
    static_assert(sizeof(T) == 2);
    return {reinterpret_cast<const char *>(first)};
}

// operand_row is the 16 halves of row r: of each 16 bytes' address, bits 7 and 8 are added to bits
// 4 and 5 without carry.
template <class T> KINDRED_ASYNC void operand_row(Operand o, unsigned r, float (&x)[16]) {
    for (unsigned chunk = 0; chunk < 2; chunk++) {
        uintptr_t at = reinterpret_cast<uintptr_t>(o.at) + r / 8 * 512 + r % 8 * 64 + 16 * chunk;
        at ^= (at >> 7 & 3) << 4;
        kindred::product_reads(reinterpret_cast<const void *>(at), 16);
        T halves[8];
        std::memcpy(halves, reinterpret_cast<const void *>(at), 16);
        for (unsigned i = 0; i < 8; i++) {
            if constexpr (std::is_same_v<T, __half>) x[8 * chunk + i] = __half2float(halves[i]);
            else x[8 * chunk + i] = __bfloat162float(halves[i]);
        }
    }
}

struct GroupProduct {
    Operand a, b;
    unsigned thread; // of the group
    bool adds;
};

// group_product is a thread's part of wgmma, n / 2 sums.
template <int n, class T> KINDRED_ASYNC void group_product(const void *what, float *sum) {
    const GroupProduct &p = *static_cast<const GroupProduct *>(what);
    const unsigned first = p.thread / 32 * 16 + p.thread % 32 / 4, t = p.thread % 4;
    float left[2][16], right[16];
    for (unsigned i = 0; i < 2; i++) operand_row<T>(p.a, first + 8 * i, left[i]);
    for (unsigned j = 0; j < n / 8; j++)
        for (unsigned c = 0; c < 2; c++) {
            operand_row<T>(p.b, 8 * j + 2 * t + c, right);
            for (unsigned i = 0; i < 2; i++) {
                float x = p.adds ? sum[4 * j + 2 * i + c] : 0;
                for (unsigned k = 0; k < 16; k++) x += left[i][k] * right[k];
                sum[4 * j + 2 * i + c] = x;
            }
        }
}

// wgmma sets D (64 x n) to A (64 x 16) times B (16 x n), and to the sum of that and D if it adds;
// B is given by its columns. With w the warp in its group, g = lane / 4 and t = lane % 4:
// d[j][0], d[j][1] are D(16 w + g, 8 j + 2 t..), d[j][2], d[j][3] D(16 w + g + 8, 8 j + 2 t..).
template <int n, class T> static __forceinline__ void wgmma(float (&d)[n / 8][4], Operand a, Operand b, bool adds, const T *) {
    static_assert(n % 8 == 0 && n <= 256);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const GroupProduct what{a, b, thread % 128, adds};
    kindred::product_later(KINDRED_PLACE("wgmma"), group_product<n, T>, &what, sizeof what, &d[0][0], n / 2);
}
static __forceinline__ void wgmma_fence() { kindred::fence_products(); }
static __forceinline__ void wgmma_commit() { kindred::commit_products(); }
template <int most> static __forceinline__ void wgmma_wait() { kindred::wait_products(KINDRED_PLACE("wgmma_wait"), most); }
// fence_async puts what this thread wrote to shared memory before what products read of it.
static __forceinline__ void fence_async() { kindred::fence_async(); }

#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

using Operand = unsigned long long;

// The descriptor: in units of 16 bytes, bits 0 to 13 the address, 16 to 29 the leading
// dimension's offset, which a swizzled K-major operand does not use (1), 32 to 45 the offset from
// eight rows to the next (512 bytes); bits 62 and 63 the swizzle, 2 being that of 64 bytes.
template <class T> static __device__ __forceinline__ Operand operand_at(const T *first) {
    static_assert(sizeof(T) == 2, "halves of any kind");
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(first));
    return static_cast<Operand>((at & 0x3ffffu) >> 4) | 1ull << 16 | 32ull << 32 | 2ull << 62;
}

#define KINDRED_REGISTERS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define KINDRED_REGISTERS_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define KINDRED_REGISTERS_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define KINDRED_SUM_8(d, j)                                                            \
    "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3]), "+f"(d[(j) + 1][0]), \
        "+f"(d[(j) + 1][1]), "+f"(d[(j) + 1][2]), "+f"(d[(j) + 1][3])
#define KINDRED_SUM_32(d, j) KINDRED_SUM_8(d, j), KINDRED_SUM_8(d, (j) + 2), KINDRED_SUM_8(d, (j) + 4), KINDRED_SUM_8(d, (j) + 6)

// KINDRED_WGMMA is one instruction: registers and sums are lists of both, a and b the places of the
// descriptors and adds that of the number in them.
#define KINDRED_WGMMA(n, type, registers, a, b, number, ...)                                                       \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #number ", 0; "                                               \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" registers "}, %" #a ", %" #b \
                 ", p, 1, 1, 0, 0; }"                                                                              \
                 : __VA_ARGS__                                                                                     \
                 : "l"(left), "l"(right), "r"(static_cast<int>(adds)))

template <int n, class T> static __device__ __forceinline__ void wgmma(float (&d)[n / 8][4], Operand left, Operand right, bool adds, const T *) {
    static_assert(n == 64 || n == 128 || n == 192, "the sizes that are written out");
    constexpr bool half = std::is_same<T, __half>::value;
    if constexpr (n == 64 && half) KINDRED_WGMMA(64, "f16", KINDRED_REGISTERS_0, 32, 33, 34, KINDRED_SUM_32(d, 0));
    if constexpr (n == 64 && !half) KINDRED_WGMMA(64, "bf16", KINDRED_REGISTERS_0, 32, 33, 34, KINDRED_SUM_32(d, 0));
    if constexpr (n == 128 && half) KINDRED_WGMMA(128, "f16", KINDRED_REGISTERS_0 ", " KINDRED_REGISTERS_32, 64, 65, 66, KINDRED_SUM_32(d, 0), KINDRED_SUM_32(d, 8));
    if constexpr (n == 128 && !half) KINDRED_WGMMA(128, "bf16", KINDRED_REGISTERS_0 ", " KINDRED_REGISTERS_32, 64, 65, 66, KINDRED_SUM_32(d, 0), KINDRED_SUM_32(d, 8));
    if constexpr (n == 192 && half)
        KINDRED_WGMMA(192, "f16", KINDRED_REGISTERS_0 ", " KINDRED_REGISTERS_32 ", " KINDRED_REGISTERS_64, 96, 97, 98, KINDRED_SUM_32(d, 0), KINDRED_SUM_32(d, 8), KINDRED_SUM_32(d, 16));
    if constexpr (n == 192 && !half)
        KINDRED_WGMMA(192, "bf16", KINDRED_REGISTERS_0 ", " KINDRED_REGISTERS_32 ", " KINDRED_REGISTERS_64, 96, 97, 98, KINDRED_SUM_32(d, 0), KINDRED_SUM_32(d, 8), KINDRED_SUM_32(d, 16));
}
static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int most> static __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(most) : "memory"); }
static __device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#endif
