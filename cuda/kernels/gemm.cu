// The products of the encoder's layers: x · wᵀ + bias on tensor cores, then nothing, GELU, or
// the residual.
//
// The ladder, by what there is to do and what the device has:
//
//   gemm, gemm_large   on any device: mma.sync, whose operands a warp loads from shared memory
//                      into registers. A block 64 x 64 of out, or 128 x 128 where there are
//                      enough of these to fill the device
//   gemm_90, gemm_90_128, gemm_90_192
//                      on sm_90a: wgmma, which reads operands from shared memory by itself while
//                      the warps ask for the next. A block 64 x 64, 128 x 128 or 128 x 192
//
// All ask for slices of 32 of K several ahead, by cp.async, and put their tile in order in
// shared memory before it is written, so that rows leave in whole sectors.
//
// An element's sum goes along K in the same steps in any tile, so a token's values do not
// depend on the batch. Kernels with mma.sync and with wgmma are not compared to the bit: a device
// uses one kind.
//
// What bounds them: of a tile m x n, 2 m n K operations need 2 (m + n) K bytes from the second-level
// cache: at 128 x 192, 77 operations a byte, where an H200 has some 125 at its peak (790 TFLOP/s over
// 6 TB/s), so that the cache allows some 480 TFLOP/s; at 128 x 128, 64 a byte. K is short, 384 in MiniLM,
// so that a tile's first slices and its end take as long as its products: two blocks share a
// processor, of which one multiplies while the other does not.

#include "halves.cuh"
#include "wgmma.cuh"

// How long a slice of K is.
static constexpr int tile_k = 32;

// place_of is where 16 bytes, eight halves, of a tile's row lie: chunks are exchanged
// so that eight rows of one column of chunks are in different banks. It is also how an
// operand of wgmma lies, if the tile begins at a multiple of 512 bytes.
static __device__ __forceinline__ int place_of(int row, int chunk) { return row * tile_k + ((chunk ^ (row >> 1 & 3)) * 8); }

// gelu is x Φ(x), of which Φ is 1/2 and an odd polynomial of x up to 4.5, fitted so that x Φ(x) is
// off by at most 3e-5 and by 6e-5 in fp32 (cuda/toolchain/gelu.py), and beyond is 0 or 1: 14
// operations, none of which is a division or an exponential.
static __device__ __forceinline__ float gelu(float x) {
    const float c = fminf(fmaxf(x, -4.5f), 4.5f), u = c * c;
    float q = -2.126499063642706e-12f;
    q = fmaf(q, u, 2.465019299791038e-10f);
    q = fmaf(q, u, -1.2642240143634353e-08f);
    q = fmaf(q, u, 3.816506364273664e-07f);
    q = fmaf(q, u, -7.6538126450032e-06f);
    q = fmaf(q, u, 0.00010984307300532237f);
    q = fmaf(q, u, -0.0011902120895683765f);
    q = fmaf(q, u, 0.010050366632640362f);
    q = fmaf(q, u, -0.06668353825807571f);
    q = fmaf(q, u, 0.3990778625011444f);
    return x * __saturatef(fmaf(c, q, 0.5f));
}

// Product is what all of these kernels are given: x [m, k], w [n, k], bias [n], residual and
// out [m, n]; out may be residual, and residual none. k and n are multiples of 8. act 1 is GELU,
// before the residual is added.
template <class T> struct Product {
    const T *x, *w;
    const float *bias;
    const T *residual;
    T *out;
    int m, n, k, act;
};

// finish_tile ends a warp's part of out, [16 rows, 8 cols] at (row, col), whose sums are in
// the fragments of mma: bias, activation and residual are added, and it is written. stage is
// shared memory of the warp's own, [16 rows, 8 cols + 8].
template <class T, int rows, int cols>
static __device__ __forceinline__ void finish_tile(float (&sum)[rows][cols][4], T *stage, int row, int col, const Product<T> &p) {
    constexpr int pitch = 8 * cols + 8; // eight rows lie in different banks
    const int lane = threadIdx.x % warp;
    const auto inside = [&](int r, int c) { return row + r < p.m && col + 8 * c < p.n; };
    if (p.residual) {
#pragma unroll
        for (int i = 0; i < rows * cols / 2; i++) {
            const int r = (i * warp + lane) / cols, c = (i * warp + lane) % cols;
            if (inside(r, c)) *reinterpret_cast<int4 *>(stage + r * pitch + 8 * c) = *reinterpret_cast<const int4 *>(p.residual + static_cast<long long>(row + r) * p.n + col + 8 * c);
        }
        __syncwarp();
    }
#pragma unroll
    for (int j = 0; j < cols; j++) {
        const int at = col + 8 * j + lane % 4 * 2;
        const float add[2] = {at < p.n ? __ldg(p.bias + at) : 0, at < p.n ? __ldg(p.bias + at + 1) : 0};
#pragma unroll
        for (int i = 0; i < rows; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                T *to = stage + (16 * i + 8 * half + lane / 4) * pitch + 8 * j + lane % 4 * 2;
                float v[2] = {sum[i][j][2 * half] + add[0], sum[i][j][2 * half + 1] + add[1]};
                if (p.act == 1) v[0] = gelu(v[0]), v[1] = gelu(v[1]);
                if (p.residual) {
                    const unsigned old = *reinterpret_cast<const unsigned *>(to);
                    T both[2];
                    memcpy(both, &old, 4);
                    v[0] += wide(both[0]);
                    v[1] += wide(both[1]);
                }
                *reinterpret_cast<unsigned *>(to) = pair<T>(v[0], v[1]);
            }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < rows * cols / 2; i++) {
        const int r = (i * warp + lane) / cols, c = (i * warp + lane) % cols;
        if (inside(r, c)) *reinterpret_cast<int4 *>(p.out + static_cast<long long>(row + r) * p.n + col + 8 * c) = *reinterpret_cast<const int4 *>(stage + r * pitch + 8 * c);
    }
}

// gemm_of: a block has tile_m x tile_n of out, warps_m x warps_n warps an even share each;
// grid (n / tile_n, m / tile_m), rounded up.
template <class T, int tile_m, int tile_n, int warps_m, int warps_n> static __device__ __forceinline__ void gemm_of(const Product<T> &p) {
    constexpr int stages = 3;                                             // slices in shared memory
    constexpr int rows = tile_m / warps_m / 16, cols = tile_n / warps_n / 8; // of a warp, in products
    constexpr int staged = 16 * rows * (8 * cols + 8);
    SHARED(T, shared, stages * (tile_m + tile_n) * tile_k);
    static_assert(warps_m * warps_n * staged <= stages * (tile_m + tile_n) * tile_k, "a tile has room where its operands were");
    const int lane = threadIdx.x % warp, wid = threadIdx.x / warp;
    const int first_m = blockIdx.y * tile_m, first_n = blockIdx.x * tile_n;
    const int warp_m = wid / warps_n * rows * 16, warp_n = wid % warps_n * cols * 8;
    const int slices = (p.k + tile_k - 1) / tile_k;

    // load asks for a slice of both operands: rows of four chunks each.
    auto load = [&](int slice) {
        T *to = shared + slice % stages * (tile_m + tile_n) * tile_k;
        for (int i = threadIdx.x; i < (tile_m + tile_n) * 4; i += blockDim.x) {
            const int chunk = i % 4, at = slice * tile_k + chunk * 8;
            if (i < tile_m * 4) {
                const int row = i / 4;
                const bool wanted = first_m + row < p.m && at < p.k;
                cp_async16(to + place_of(row, chunk), wanted ? p.x + static_cast<long long>(first_m + row) * p.k + at : p.x, wanted);
            } else {
                const int row = i / 4 - tile_m;
                const bool wanted = first_n + row < p.n && at < p.k;
                cp_async16(to + tile_m * tile_k + place_of(row, chunk), wanted ? p.w + static_cast<long long>(first_n + row) * p.k + at : p.w, wanted);
            }
        }
    };
    float sum[rows][cols][4] = {};
    for (int s = 0; s < stages - 1; s++) {
        if (s < slices) load(s);
        cp_async_commit();
    }
    for (int s = 0; s < slices; s++) {
        cp_async_wait<stages - 2>();
        __syncthreads(); // slice s is here, and nobody reads the slice before any more
        if (s + stages - 1 < slices) load(s + stages - 1);
        cp_async_commit();
        const T *left = shared + s % stages * (tile_m + tile_n) * tile_k;
        const T *right = left + tile_m * tile_k;
#pragma unroll
        for (int kk = 0; kk < tile_k; kk += 16) {
            unsigned a[rows][4], b[cols][2];
#pragma unroll
            for (int i = 0; i < rows; i++)
                ldmatrix_x4(a[i], left + place_of(warp_m + 16 * i + lane % 16, kk / 8 + lane / 16));
#pragma unroll
            for (int j = 0; j < cols / 2; j++) {
                unsigned both[4];
                ldmatrix_x4(both, right + place_of(warp_n + 16 * j + lane / 16 * 8 + lane % 8, kk / 8 + lane / 8 % 2));
                b[2 * j][0] = both[0];
                b[2 * j][1] = both[1];
                b[2 * j + 1][0] = both[2];
                b[2 * j + 1][1] = both[3];
            }
#pragma unroll
            for (int i = 0; i < rows; i++)
#pragma unroll
                for (int j = 0; j < cols; j++) multiply(sum[i][j], a[i], b[j], p.x);
        }
    }
    __syncthreads(); // nobody reads operands any more
    finish_tile<T, rows, cols>(sum, shared + wid * staged, first_m + warp_m, first_n + warp_n, p);
}
// gemm has blocks of 128 threads, gemm_large of 256.
KERNEL(gemm)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_of<__half, 64, 64, 2, 2>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL(gemm_bf16)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_of<__nv_bfloat16, 64, 64, 2, 2>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL(gemm_large)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_of<__half, 128, 128, 2, 4>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL(gemm_large_bf16)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_of<__nv_bfloat16, 128, 128, 2, 4>({x, w, bias, residual, out, m, n, k, act});
}

// gemm_90_of: a block has tile_m x tile_n of out, a group of four warps 64 rows of it; grid as
// above. Dynamic shared memory: stages * (tile_m + tile_n) * 64 bytes.
//
// Slice s is multiplied while that before may still be, slices s + 1 and on are under way, and the
// one that is asked for takes the place of that before the last, which all threads have waited for
// when they meet.
template <class T, int tile_m, int tile_n, int stages> static __device__ __forceinline__ void gemm_90_of(const Product<T> &p) {
#if defined(KINDRED_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr int groups = tile_m / 64, cols = tile_n / 8, ahead = stages - 2;
    constexpr int step = 32 * groups; // rows that the block asks for at a time, a thread 16 bytes
    constexpr int slice_size = (tile_m + tile_n) * tile_k;
    constexpr int staged = 16 * (8 * cols + 8);
    static_assert(tile_m % step == 0 && tile_n % step == 0 && 4 * groups * staged <= stages * slice_size, "whole steps, and a tile has room where its operands were");
    DYNAMIC_SHARED(T, shared);
    const int wid = threadIdx.x / warp, group = wid / 4;
    const int first_m = blockIdx.y * tile_m, first_n = blockIdx.x * tile_n;
    const int slices = (p.k + tile_k - 1) / tile_k;

    // Rows behind the last are the last again: what they give is not written.
    const int row = threadIdx.x / 4, chunk = threadIdx.x % 4;
    const T *x[tile_m / step], *w[tile_n / step];
#pragma unroll
    for (int u = 0; u < tile_m / step; u++) x[u] = p.x + static_cast<long long>(min(first_m + row + u * step, p.m - 1)) * p.k + 8 * chunk;
#pragma unroll
    for (int u = 0; u < tile_n / step; u++) w[u] = p.w + static_cast<long long>(min(first_n + row + u * step, p.n - 1)) * p.k + 8 * chunk;
    auto load = [&](int slice, int stage) {
        T *to = shared + stage * slice_size + place_of(row, chunk);
        const int at = slice * tile_k;
        const bool wanted = at + 8 * chunk < p.k;
#pragma unroll
        for (int u = 0; u < tile_m / step; u++) cp_async16(to + u * step * tile_k, wanted ? x[u] + at : p.x, wanted);
#pragma unroll
        for (int u = 0; u < tile_n / step; u++) cp_async16(to + (tile_m + u * step) * tile_k, wanted ? w[u] + at : p.w, wanted);
    };
    float sum[1][cols][4];
    for (int s = 0; s < ahead; s++) {
        if (s < slices) load(s, s);
        cp_async_commit();
    }
    int here = 0, next = ahead; // the places of slices s and s + ahead
    for (int s = 0; s < slices; s++) {
        cp_async_wait<ahead - 1>();
        fence_async();
        wgmma_wait<1>();
        __syncthreads(); // slice s is here, and nobody reads the slice before the last any more
        const T *left = shared + here * slice_size + group * 64 * tile_k;
        const T *right = shared + here * slice_size + tile_m * tile_k;
        wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < tile_k; kk += 16) wgmma<tile_n>(sum[0], operand_at(left + kk), operand_at(right + kk), s > 0 || kk > 0, p.x);
        wgmma_commit();
        if (s + ahead < slices) load(s + ahead, next);
        cp_async_commit();
        here = here + 1 < stages ? here + 1 : 0;
        next = next + 1 < stages ? next + 1 : 0;
    }
    wgmma_wait<0>();
    __syncthreads(); // nobody reads operands any more
    finish_tile<T, 1, cols>(sum, shared + wid * staged, first_m + 16 * wid, first_n, p);
#else
    __trap(); // the host asks for these kernels on sm_90a alone
#endif
}
// gemm_90 has blocks of 128 threads, the others of 256: two of these on a processor.
KERNEL(gemm_90)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_90_of<__half, 64, 64, 5>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL(gemm_90_bf16)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_90_of<__nv_bfloat16, 64, 64, 5>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL_BOUNDS(gemm_90_128, 256, 2)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_90_of<__half, 128, 128, 6>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL_BOUNDS(gemm_90_128_bf16, 256, 2)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_90_of<__nv_bfloat16, 128, 128, 6>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL_BOUNDS(gemm_90_192, 256, 2)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_90_of<__half, 128, 192, 5>({x, w, bias, residual, out, m, n, k, act});
}
KERNEL_BOUNDS(gemm_90_192_bf16, 256, 2)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_90_of<__nv_bfloat16, 128, 192, 5>({x, w, bias, residual, out, m, n, k, act});
}
