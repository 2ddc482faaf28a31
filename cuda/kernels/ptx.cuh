// The only inline PTX: matrix fragments, tensor cores, powers of two, and copies to shared
// memory that go on by themselves. Under the simulator each is a twin written from the
// fragment layouts of the PTX manual (sections on ldmatrix, mma.m16n8k16, ex2 and
// cp.async); cuda/sim/fragments.cpp pins them.
#pragma once

#include "kernel.cuh"

#ifdef KINDRED_SIM

// ldmatrix_x4 gives each lane its part of four 8 x 8 matrices of halves: of matrix i,
// whose row r starts at what lane 8 i + r gave, the halves 2 (lane % 4) and the next
// of row lane / 4.
template <class T> static __forceinline__ void ldmatrix_x4(unsigned (&out)[4], const T *row) {
    static_assert(sizeof(T) == 2);
    uint64_t rows[32];
    std::memcpy(rows, kindred::meet(KINDRED_PLACE("ldmatrix_x4"), 0xffffffffu, kindred::pack(row)), sizeof rows);
    for (int i = 0; i < 4; i++) {
        const T *from = kindred::unpack<const T *>(rows[8 * i + kindred::lane() / 4]);
        if (reinterpret_cast<uintptr_t>(from) % 16) kindred::stop(KINDRED_PLACE("ldmatrix_x4"), "is given a row that is not aligned to 16 bytes");
        std::memcpy(&out[i], from + 2 * (kindred::lane() % 4), 4);
    }
    // Nobody goes on and writes before all have read.
    kindred::meet(KINDRED_PLACE("ldmatrix_x4, end"), 0xffffffffu, 0);
}

// ldmatrix_x4_trans is ldmatrix_x4 of the matrices turned: of matrix i the halves in column
// lane / 4 of rows 2 (lane % 4) and the next.
template <class T> static __forceinline__ void ldmatrix_x4_trans(unsigned (&out)[4], const T *row) {
    static_assert(sizeof(T) == 2);
    uint64_t rows[32];
    std::memcpy(rows, kindred::meet(KINDRED_PLACE("ldmatrix_x4_trans"), 0xffffffffu, kindred::pack(row)), sizeof rows);
    for (int i = 0; i < 4; i++)
        for (int half = 0; half < 2; half++) {
            const T *from = kindred::unpack<const T *>(rows[8 * i + 2 * (kindred::lane() % 4) + half]);
            if (reinterpret_cast<uintptr_t>(from) % 16) kindred::stop(KINDRED_PLACE("ldmatrix_x4_trans"), "is given a row that is not aligned to 16 bytes");
            std::memcpy(reinterpret_cast<char *>(&out[i]) + 2 * half, from + kindred::lane() / 4, 2);
        }
    kindred::meet(KINDRED_PLACE("ldmatrix_x4_trans, end"), 0xffffffffu, 0);
}

// mma_m16n8k16 adds A (16 x 16) times B (16 x 8), halves, to the floats of D. With
// g = lane / 4 and t = lane % 4: a[0] is A(g, 2t..), a[1] A(g + 8, 2t..), a[2]
// A(g, 2t + 8..), a[3] A(g + 8, 2t + 8..); b[0] is B(2t.., g), b[1] B(2t + 8.., g);
// d[0], d[1] are D(g, 2t..), d[2], d[3] D(g + 8, 2t..).
template <class Wide> static __forceinline__ void mma_of_halves(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Wide wide) {
    uint64_t low[32], high[32], right[32];
    std::memcpy(low, kindred::meet(KINDRED_PLACE("mma"), 0xffffffffu, a[0] | uint64_t(a[1]) << 32), sizeof low);
    std::memcpy(high, kindred::meet(KINDRED_PLACE("mma"), 0xffffffffu, a[2] | uint64_t(a[3]) << 32), sizeof high);
    std::memcpy(right, kindred::meet(KINDRED_PLACE("mma"), 0xffffffffu, b[0] | uint64_t(b[1]) << 32), sizeof right);
    auto half = [&](uint64_t word, int at) { return wide(word >> (16 * at) & 0xffff); };
    const unsigned g = kindred::lane() / 4, t = kindred::lane() % 4;
    for (int i = 0; i < 4; i++) {
        const unsigned row = g + 8 * (i / 2), col = 2 * t + i % 2;
        float sum = d[i];
        for (unsigned k = 0; k < 16; k++) {
            const uint64_t *part = k < 8 ? low : high;
            const unsigned from = row % 8 * 4 + k % 8 / 2;
            const float x = half(part[from], int(row / 8 * 2 + k % 2));
            const float y = half(right[col * 4 + k % 8 / 2], int(k / 8 * 2 + k % 2));
            sum += x * y;
        }
        d[i] = sum;
    }
}
static __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_of_halves(d, a, b, [](uint64_t x) { return __half2float(kindred::unpack<__half>(x)); });
}
// mma_m16n8k16_bf16 is mma_m16n8k16 of bfloat16, with the same fragments.
static __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_of_halves(d, a, b, [](uint64_t x) { return __bfloat162float(kindred::unpack<__nv_bfloat16>(x)); });
}

// mma_m16n8k32 adds A (16 x 32) times B (32 x 8), signed bytes, to the ints of D, which
// wrap around. With g = lane / 4 and t = lane % 4: a[0] is A(g, 4t..4t + 3), a[1]
// A(g + 8, 4t..), a[2] and a[3] the same 16 columns on; b[0] is B(4t..4t + 3, g), b[1]
// 16 rows on; d[0], d[1] are D(g, 2t..), d[2], d[3] D(g + 8, 2t..).
static __forceinline__ void mma_m16n8k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    int8_t A[16][32], B[32][8];
    for (int r = 0; r < 6; r += 2) {
        const uint32_t *two = r < 4 ? a + r : b;
        const uint64_t *all = kindred::meet(KINDRED_PLACE("mma"), 0xffffffffu, uint64_t(two[1]) << 32 | two[0]);
        for (unsigned l = 0; l < 32; l++)
            for (int half = 0; half < 2; half++)
                for (unsigned i = 0; i < 4; i++) {
                    const int8_t x = int8_t(all[l] >> (32 * half + 8 * i));
                    if (r < 4) A[l / 4 + 8 * half][4 * (l % 4) + i + 8 * r] = x;
                    else B[4 * (l % 4) + i + 16 * half][l / 4] = x;
                }
    }
    for (int k = 0; k < 4; k++) {
        uint32_t sum = uint32_t(d[k]);
        for (int j = 0; j < 32; j++) sum += uint32_t(int(A[kindred::lane() / 4 + 8 * (k / 2)][j]) * int(B[j][2 * (kindred::lane() % 4) + k % 2]));
        d[k] = int(sum);
    }
}

// mma_m16n8k32_u8 is mma_m16n8k32 whose B is of unsigned bytes: a byte's upper bit is
// worth 128, not -128.
static __forceinline__ void mma_m16n8k32_u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t upper[2] = {b[0] >> 7 & 0x01010101u, b[1] >> 7 & 0x01010101u};
    int more[4] = {};
    mma_m16n8k32(d, a, b);
    mma_m16n8k32(more, a, upper);
    for (int i = 0; i < 4; i++) d[i] = int(uint32_t(d[i]) + (uint32_t(more[i]) << 8));
}

// exp2_approx is 2^x with a relative error of at most 2^-22; what is below 2^-126 is 0. Of
// 0 it is 1, of -Inf 0, of NaN NaN.
static __forceinline__ float exp2_approx(float x) {
    const float y = std::exp2(x);
    return y < 0x1p-126f ? 0 : y;
}

// cp_async16 copies 16 bytes to shared memory, or zeros where they are not wanted.
// What it copies is there after the thread's cp_async_wait, for others after a barrier
// behind that.
static __forceinline__ void cp_async16(void *to, const void *from, bool wanted) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16) kindred::stop(KINDRED_PLACE("cp_async16"), "is given an address that is not aligned to 16 bytes");
    kindred::copy_later(to, from, wanted ? 16 : 0);
}
static __forceinline__ void cp_async_commit() { kindred::commit_copies(); }
// cp_async_wait waits until at most n groups of this thread's are under way.
template <int n> static __forceinline__ void cp_async_wait() { kindred::wait_copies(n); }

#else

template <class T> static __device__ __forceinline__ void ldmatrix_x4(unsigned (&out)[4], const T *row) {
    static_assert(sizeof(T) == 2, "halves of any kind");
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

template <class T> static __device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&out)[4], const T *row) {
    static_assert(sizeof(T) == 2, "halves of any kind");
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void mma_m16n8k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void mma_m16n8k32_u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ void cp_async16(void *to, const void *from, bool wanted) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    const int bytes = wanted ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int n> static __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory"); }

#endif
