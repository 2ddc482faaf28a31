// Runs fragments.cu and the simulator's own checks: see test.sh.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core.h"
#include "fragments.cu"

KINDRED_REGISTER(fragment)
KINDRED_REGISTER(fragment_bytes)
KINDRED_REGISTER(fragment_bf16)
KINDRED_REGISTER(fragment_turned)
KINDRED_REGISTER(copies)
KINDRED_REGISTER(group_product_64)
KINDRED_REGISTER(group_product_128)
KINDRED_REGISTER(group_product_192)
KINDRED_REGISTER(group_product_bf16)

// Kernels that do what a kernel must not.
KERNEL(half_a_barrier)(int *out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1;
}
KERNEL(two_barriers)(int *out) {
    if (threadIdx.x % 2) __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}
KERNEL(outside_its_mask)(int *out) { out[threadIdx.x] = static_cast<int>(__ballot_sync(0xffu, true)); }
KERNEL(not_all_lanes)(int *out) {
    if (threadIdx.x < 31) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
KERNEL(each_other)(int *out) { // lanes 0 to 7 wait for all, the others for them
    out[threadIdx.x] = static_cast<int>(__ballot_sync(threadIdx.x < 8 ? 0xffffffffu : 0xffffff80u, true));
}
KERNEL(no_wait)(const int *in, int *out) {
    SHARED(int, shared, 128);
    cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, true);
    cp_async_commit();
    __syncthreads();
    out[threadIdx.x] = shared[4 * threadIdx.x];
}
KERNEL(unwritten)(int *out) {
    SHARED(int, shared, 32);
    out[threadIdx.x] = shared[threadIdx.x];
}
KERNEL(collectives)(int *out) {
    const int lane = threadIdx.x % 32;
    int bad = 0;
    if (threadIdx.x < 32) {
        bad += __shfl_xor_sync(0xffffffffu, lane, 5) != (lane ^ 5);
        bad += __shfl_down_sync(0xffffffffu, lane, 3) != (lane + 3 < 32 ? lane + 3 : lane);
        bad += __shfl_up_sync(0xffffffffu, lane, 3) != (lane >= 3 ? lane - 3 : lane);
        bad += __shfl_sync(0xffffffffu, lane, 37) != 5;
        bad += __ballot_sync(0xffffffffu, lane % 3 == 0) != 0x49249249u;
        if (lane < 8) bad += __any_sync(0xffu, lane == 7) != true || __all_sync(0xffu, lane < 8) != true || __all_sync(0xffu, lane < 7) != false;
        else
            bad += __ballot_sync(0xffffff00u, lane >= 20) != 0xfff00000u;
        // Some meet by themselves while the others wait for all.
        if (lane >= 16) bad += __ballot_sync(0xffff0000u, lane % 2) != 0xaaaa0000u;
        bad += __ballot_sync(0xffffffffu, lane == 9) != 0x200u;
    }
    bad += __syncthreads_count(threadIdx.x % 2 == 0) != 24;
    bad += __syncthreads_or(threadIdx.x == 47) != true;
    out[threadIdx.x] = bad;
}
KERNEL(odd_row)(int *out) {
    SHARED(unsigned short, shared, 512);
    unsigned r[4];
    ldmatrix_x4(r, shared + 8 * threadIdx.x + (threadIdx.x == 5));
    out[threadIdx.x] = static_cast<int>(r[0]);
}
KERNEL(odd_row_turned)(int *out) {
    SHARED(unsigned short, shared, 512);
    unsigned r[4];
    ldmatrix_x4_trans(r, shared + 8 * threadIdx.x + (threadIdx.x == 5));
    out[threadIdx.x] = static_cast<int>(r[0]);
}
KERNEL(odd_copy)(int *out) {
    SHARED(int, shared, 256);
    cp_async16(shared + 4 * threadIdx.x + (threadIdx.x == 5), out, false);
}
// Products of a warp group that something is missing of.
template <class Without> static void group(int *out, Without without) {
    DYNAMIC_SHARED(__half, shared);
    cp_async16(shared + 8 * threadIdx.x, out, false);
    cp_async_commit();
    cp_async_wait<0>();
    if (without != 1) fence_async();
    __syncthreads();
    float sum[8][4];
    if (without != 2) wgmma_fence();
    wgmma<64>(sum, operand_at(shared), operand_at(shared), false, shared);
    wgmma_commit();
    if (without == 3) return;
    out[0] = __float_as_int(sum[0][0]);
    wgmma_wait<0>();
    out[1] = __float_as_int(sum[0][0]);
    if (without == 4) wgmma<64>(sum, operand_at(shared), operand_at(shared), true, shared);
}
KERNEL(no_fence_async)(int *out) { group(out, 1); }
KERNEL(no_wgmma_fence)(int *out) { group(out, 2); }
KERNEL(no_wgmma_wait)(int *out) { group(out, 3); }
KERNEL(no_second_fence)(int *out) { group(out, 4); }
KERNEL(sums_too_early)(int *out) { group(out, 0); }
KERNEL(half_a_group)(int *out) { // of a warp
    DYNAMIC_SHARED(__half, shared);
    float sum[8][4];
    wgmma_fence();
    if (threadIdx.x < 16) wgmma<64>(sum, operand_at(shared), operand_at(shared), false, shared);
    out[0] = 1;
}
KINDRED_REGISTER(no_fence_async)
KINDRED_REGISTER(no_wgmma_fence)
KINDRED_REGISTER(no_wgmma_wait)
KINDRED_REGISTER(no_second_fence)
KINDRED_REGISTER(sums_too_early)
KINDRED_REGISTER(half_a_group)
KERNEL(beside)(int *out) {
    SHARED(unsigned char, shared, 100);
    shared[threadIdx.x * 100 / 31] = 1; // the last is one too many
    out[threadIdx.x] = 0;
}
KERNEL(beside_dynamic)(int *out) {
    DYNAMIC_SHARED(unsigned char, shared);
    if (threadIdx.x == 0) *(shared - 1) = 1;
    out[threadIdx.x] = 0;
}
KINDRED_REGISTER(beside)
KINDRED_REGISTER(beside_dynamic)
KINDRED_REGISTER(odd_row)
KINDRED_REGISTER(odd_row_turned)
KINDRED_REGISTER(odd_copy)
KINDRED_REGISTER(half_a_barrier)
KINDRED_REGISTER(two_barriers)
KINDRED_REGISTER(outside_its_mask)
KINDRED_REGISTER(not_all_lanes)
KINDRED_REGISTER(each_other)
KINDRED_REGISTER(no_wait)
KINDRED_REGISTER(unwritten)
KINDRED_REGISTER(collectives)

static int failures;
#define WANT(what, ...)                 \
    if (!(what)) {                      \
        failures++;                     \
        printf("FAIL %s: ", #what);     \
        printf(__VA_ARGS__);            \
        printf("\n");                   \
    }

static std::string launch(const char *name, unsigned threads, void **params, uint64_t seed) {
    for (auto &k : kindred::kernels())
        if (!strcmp(k.name, name)) {
            try {
                kindred::run(k, {{1, 1, 1}, {threads, 1, 1}, 64 << 10}, params, seed);
                return "";
            } catch (const kindred::Fault &e) { return e.what(); }
        }
    printf("no kernel %s\n", name);
    exit(1);
}

static __half code(int i) { return __float2half_rn(static_cast<float>(i)); }
static float at(const unsigned *words, int i) {
    __half h;
    memcpy(&h, reinterpret_cast<const char *>(words) + 2 * i, 2);
    return __half2float(h);
}

static void fragments(uint64_t seed) {
    __half matrix[256], A[16][16], B[16][8];
    for (int i = 0; i < 256; i++) matrix[i] = code(i);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) A[r][c] = code((r * 7 + c * 3) % 11 - 5);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++) B[r][c] = code((r * 5 + c * 2) % 13 - 6);
    unsigned loaded[32][4], left[32][4], right[32][2];
    float acc[32][4];
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int i = 0; i < 8; i++) { // the manual's a_i
            const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? groupID : groupID + 8;
            const int col = i < 4 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
            memcpy(reinterpret_cast<char *>(left[lane]) + 2 * i, &A[row][col], 2);
        }
        for (int i = 0; i < 4; i++) { // b_i
            const int row = i < 2 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
            memcpy(reinterpret_cast<char *>(right[lane]) + 2 * i, &B[row][groupID], 2);
        }
        for (int i = 0; i < 4; i++) acc[lane][i] = static_cast<float>(lane + i);
    }
    const __half *m = matrix;
    unsigned *l = &loaded[0][0], *a = &left[0][0], *b = &right[0][0];
    float *d = &acc[0][0];
    void *params[] = {&m, &l, &a, &b, &d};
    const std::string fault = launch("fragment", 32, params, seed);
    WANT(fault.empty(), "%s", fault.c_str());
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int i = 0; i < 8; i++) { // loaded as a left operand, so by the same formula
            const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? groupID : groupID + 8;
            const int col = i < 4 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
            WANT(at(loaded[lane], i) == static_cast<float>(row * 16 + col), "ldmatrix: lane %d, a%d", lane, i);
        }
        for (int i = 0; i < 4; i++) { // c_i
            const int row = i < 2 ? groupID : groupID + 8, col = threadID_in_group * 2 + (i & 1);
            float want = static_cast<float>(lane + i);
            for (int k = 0; k < 16; k++) want += __half2float(A[row][k]) * __half2float(B[k][col]);
            WANT(acc[lane][i] == want, "mma: lane %d, c%d is %g, want %g", lane, i, static_cast<double>(acc[lane][i]), static_cast<double>(want));
        }
    }
}

static void turned(uint64_t seed) {
    __half matrix[256];
    for (int i = 0; i < 256; i++) matrix[i] = code(i);
    unsigned loaded[32][4];
    const __half *m = matrix;
    unsigned *l = &loaded[0][0];
    void *params[] = {&m, &l};
    const std::string fault = launch("fragment_turned", 32, params, seed);
    WANT(fault.empty(), "%s", fault.c_str());
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int product = 0; product < 2; product++)
            for (int i = 0; i < 4; i++) { // the manual's b_i of columns 8 * product and on
                const int row = i < 2 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
                const int col = 8 * product + groupID;
                WANT(at(loaded[lane], 4 * product + i) == static_cast<float>(row * 16 + col), "ldmatrix turned: lane %d, b%d of product %d", lane, i, product);
            }
    }
}

static void copied(uint64_t seed) {
    alignas(16) int in[3][32][4];
    alignas(16) int out[2][4][32][4];
    for (int i = 0; i < 384; i++) (&in[0][0][0])[i] = i;
    const void *from = in;
    void *to = out;
    void *params[] = {&from, &to};
    const std::string fault = launch("copies", 32, params, seed);
    WANT(fault.empty(), "%s", fault.c_str());
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            for (int when = 0; when < 2; when++) {
                const int last = when == 0 ? -1 : in[2][lane][i]; // is made when it is waited for
                WANT(out[when][0][lane][i] == in[0][lane][i] && out[when][1][lane][i] == 0 && out[when][2][lane][i] == in[1][lane][i] && out[when][3][lane][i] == last,
                     "cp_async: lane %d, word %d, wait %d: %d, %d, %d, %d", lane, i, when, out[when][0][lane][i], out[when][1][lane][i], out[when][2][lane][i], out[when][3][lane][i]);
            }
}

static void bfloat16(uint64_t seed) {
    // Codes as in fragments, by a float's upper half, which holds them exactly.
    auto code = [](int i) {
        const float f = static_cast<float>(i);
        uint32_t u;
        memcpy(&u, &f, 4);
        return static_cast<uint16_t>(u >> 16);
    };
    uint16_t left[32][8], right[32][4];
    int A[16][16], B[16][8];
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) A[r][c] = (r * 7 + c * 3) % 11 - 5;
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++) B[r][c] = (r * 5 + c * 2) % 13 - 6;
    float acc[32][4];
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int i = 0; i < 8; i++) { // a_i, as of halves
            const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? groupID : groupID + 8;
            left[lane][i] = code(A[row][i < 4 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8]);
        }
        for (int i = 0; i < 4; i++) { // b_i
            const int row = i < 2 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
            right[lane][i] = code(B[row][groupID]);
        }
        for (int i = 0; i < 4; i++) acc[lane][i] = static_cast<float>(lane - i);
    }
    const void *a = left, *b = right;
    void *d = acc;
    void *params[] = {&a, &b, &d};
    const std::string fault = launch("fragment_bf16", 32, params, seed);
    WANT(fault.empty(), "%s", fault.c_str());
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) { // c_i
            const int row = i < 2 ? lane >> 2 : (lane >> 2) + 8, col = lane % 4 * 2 + (i & 1);
            int want = lane - i;
            for (int k = 0; k < 16; k++) want += A[row][k] * B[k][col];
            WANT(acc[lane][i] == static_cast<float>(want), "mma of bfloat16: lane %d, c%d is %g, want %d", lane, i, static_cast<double>(acc[lane][i]), want);
        }
    // Rounding to nearest even, and NaN.
    const struct { float x; uint16_t want; } cases[] = {{1.0f, 0x3f80}, {1.00390625f, 0x3f80}, {1.01171875f, 0x3f82}, {-1.0f, 0xbf80}, {65519.0f, 0x4780}, {3.4e38f, 0x7f80}, {1e-45f, 0}};
    for (const auto &c : cases) WANT(__float2bfloat16_rn(c.x).bits == c.want, "%g rounds to %04x", static_cast<double>(c.x), __float2bfloat16_rn(c.x).bits);
    const float nan = __bfloat162float(__float2bfloat16_rn(NAN));
    WANT(nan != nan, "NaN is %g", static_cast<double>(nan));
}

// groups pins wgmma for n columns: operands of codes, laid out by the manual's swizzle of 64 bytes
// (of an address in bytes, bits 7 and 8 are added without carry to bits 4 and 5), and the sums by
// the manual's figure of D.
template <class T, class Code> static void groups(const char *kernel, int n, Code code, uint64_t seed) {
    std::vector<T> left(64 * 32), right(static_cast<size_t>(n) * 32);
    const auto A = [](int row, int k) { return (row * 7 + k * 3) % 11 - 5; };
    const auto B = [](int k, int col) { return (k * 5 + col * 2) % 13 - 6; };
    for (int row = 0; row < (n > 64 ? n : 64); row++)
        for (int k = 0; k < 32; k++) {
            const int byte = row * 64 + k * 2, bit7 = byte / 128 % 2, bit8 = byte / 256 % 2;
            const size_t at = static_cast<size_t>(byte ^ bit7 * 16 ^ bit8 * 32) / 2;
            if (row < 64) left[at] = code(A(row, k));
            if (row < n) right[at] = code(B(k, row));
        }
    for (int adds = 0; adds < 2; adds++) {
        std::vector<float> out(static_cast<size_t>(128 * n / 2));
        const T *a = left.data(), *b = right.data();
        float *d = out.data();
        void *params[] = {&a, &b, &d, &adds};
        const std::string fault = launch(kernel, 128, params, seed);
        WANT(fault.empty(), "%s", fault.c_str());
        for (int thread = 0; thread < 128; thread++)
            for (int i = 0; i < n / 2; i++) { // d_i
                const int row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (i / 2 % 2), col = 8 * (i / 4) + 2 * (thread % 4) + i % 2;
                int want = 0;
                for (int k = adds ? 0 : 16; k < 32; k++) want += A(row, k) * B(k, col);
                const float got = out[static_cast<size_t>(thread * n / 2 + i)];
                WANT(got == static_cast<float>(want), "%s: thread %d, d%d is %g, want %d", kernel, thread, i, static_cast<double>(got), want);
            }
    }
}

static void bytes(uint64_t seed) {
    signed char A[16][32], B[32][8], left[32][16], right[32][8];
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 32; c++) A[r][c] = static_cast<signed char>((r * 37 + c * 11) % 256 - 128);
    for (int r = 0; r < 32; r++)
        for (int c = 0; c < 8; c++) B[r][c] = static_cast<signed char>((r * 29 + c * 53) % 256 - 128);
    int acc[32][4], more[32][4];
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int i = 0; i < 16; i++) { // the manual's a_i
            const int row = (0 <= i && i < 4) || (8 <= i && i < 12) ? groupID : groupID + 8;
            const int col = i < 8 ? threadID_in_group * 4 + (i & 3) : threadID_in_group * 4 + (i & 3) + 16;
            left[lane][i] = A[row][col];
        }
        for (int i = 0; i < 8; i++) { // b_i
            const int row = i < 4 ? threadID_in_group * 4 + (i & 3) : threadID_in_group * 4 + (i & 3) + 16;
            right[lane][i] = B[row][groupID];
        }
        for (int i = 0; i < 4; i++) acc[lane][i] = more[lane][i] = 2147483647 - lane - i; // the sum wraps around
    }
    const void *a = left, *b = right;
    void *d = acc, *e = more;
    void *params[] = {&a, &b, &d, &e};
    const std::string fault = launch("fragment_bytes", 32, params, seed);
    WANT(fault.empty(), "%s", fault.c_str());
    for (int lane = 0; lane < 32; lane++) {
        const int groupID = lane >> 2, threadID_in_group = lane % 4;
        for (int i = 0; i < 4; i++) { // c_i
            const int row = i < 2 ? groupID : groupID + 8, col = threadID_in_group * 2 + (i & 1);
            unsigned want = static_cast<unsigned>(2147483647 - lane - i), other = want;
            for (int k = 0; k < 32; k++) {
                want += static_cast<unsigned>(A[row][k] * B[k][col]);
                other += static_cast<unsigned>(A[row][k] * static_cast<unsigned char>(B[k][col]));
            }
            WANT(acc[lane][i] == static_cast<int>(want), "mma of bytes: lane %d, c%d is %d, want %d", lane, i, acc[lane][i], static_cast<int>(want));
            WANT(more[lane][i] == static_cast<int>(other), "mma with unsigned bytes: lane %d, c%d is %d, want %d", lane, i, more[lane][i], static_cast<int>(other));
        }
    }
}

// powers: what the manual has in its table of ex2, and a power between.
static void powers() {
    const struct { float x, want; } cases[] = {{-INFINITY, 0}, {INFINITY, INFINITY}, {0, 1}, {-0.0f, 1}, {1e-40f, 1}, {-1, 0.5f}, {8, 256}, {-126, 0x1p-126f}, {-126.5f, 0}, {128, INFINITY}};
    for (const auto &c : cases) WANT(exp2_approx(c.x) == c.want, "2^%g is %g", static_cast<double>(c.x), static_cast<double>(exp2_approx(c.x)));
    WANT(std::fabs(exp2_approx(0.5f) - 1.41421356f) < 0x1p-22f * 1.5f, "2^0.5 is %g", static_cast<double>(exp2_approx(0.5f)));
    WANT(std::isnan(exp2_approx(NAN)), "2^NaN is %g", static_cast<double>(exp2_approx(NAN)));
}

// caught: the kernel ends in a fault that says so.
static void caught(const char *kernel, const char *says, uint64_t seed) {
    int out[64] = {};
    int *p = out;
    void *params[] = {&p};
    const std::string fault = launch(kernel, 32, params, seed);
    WANT(fault.find(says) != std::string::npos, "%s: \"%s\", want \"%s\"", kernel, fault.c_str(), says);
    WANT(fault.find("block (0, 0, 0), thread (") != std::string::npos && (fault.find("fragments.cpp:") != std::string::npos || fault.find("ptx.cuh:") != std::string::npos || fault.find("wgmma.cuh:") != std::string::npos || fault.find("under way") != std::string::npos), "%s", fault.c_str());
}

int main() {
    powers();
    for (uint64_t seed = 1; seed <= 20; seed++) {
        fragments(seed);
        bytes(seed);
        bfloat16(seed);
        turned(seed);
        copied(seed);
        groups<__half>("group_product_64", 64, code, seed);
        groups<__half>("group_product_128", 128, code, seed);
        groups<__half>("group_product_192", 192, code, seed);
        groups<__nv_bfloat16>("group_product_bf16", 64, [](int i) { return __float2bfloat16_rn(static_cast<float>(i)); }, seed);
        caught("no_fence_async", "that no fence_async put before it", seed);
        caught("no_wgmma_fence", "used since wgmma_fence", seed);
        caught("no_second_fence", "used since wgmma_fence", seed);
        caught("no_wgmma_wait", "ends while its products are under way", seed);
        caught("half_a_group", "waits for ever at wgmma", seed);
        caught("odd_row", "ldmatrix_x4 at", seed);
        caught("odd_row_turned", "ldmatrix_x4_trans at", seed);
        caught("odd_copy", "cp_async16 at", seed);
        caught("half_a_barrier", "waits for ever at __syncthreads", seed);
        caught("two_barriers", "waits at __syncthreads", seed);
        caught("outside_its_mask", "is called by a lane that is not in its mask", seed);
        caught("not_all_lanes", "waits for ever at __shfl_sync", seed);
        caught("each_other", "meet elsewhere with another mask", seed);
        int out[64];
        int *p = out;
        void *params[] = {&p};
        std::string fault = launch("collectives", 48, params, seed);
        int bad = 0;
        for (int i = 0; i < 48; i++) bad += out[i];
        WANT(fault.empty() && bad == 0, "collectives: %d, %s", bad, fault.c_str());
        launch("sums_too_early", 32, params, seed);
        WANT(out[0] == -1 && out[1] == 0, "sums are %x before they are waited for and %x then", static_cast<unsigned>(out[0]), static_cast<unsigned>(out[1]));
        for (const auto &[kernel, says] : {std::pair("beside", "wrote beside a shared array of 100 bytes"), std::pair("beside_dynamic", "wrote beside the dynamic shared memory of 65536 bytes")}) {
            fault = launch(kernel, 32, params, seed);
            WANT(fault.find(says) != std::string::npos && fault.find(std::string("kernel ") + kernel + ", block (0, 0, 0)") == 0, "%s", fault.c_str());
        }
        launch("unwritten", 32, params, seed);
        WANT(out[0] == -1 && out[31] == -1, "shared memory that nobody wrote is %d", out[0]);
        int in[128];
        for (int &x : in) x = 7;
        const int *from = in;
        void *both[] = {&from, &p};
        launch("no_wait", 32, both, seed);
        WANT(out[0] != 7 && out[31] != 7, "a copy is there before it was waited for");
    }
    printf(failures ? "%d failures\n" : "ok: fragments, collectives and what the simulator notices\n", failures);
    return failures != 0;
}
