// The encoder of the BERT family over packed texts: the tokens of all texts of a batch
// follow each other, [tokens], and starts[text] says where each begins. No padding.
//
// The ladder, from the batch to the token:
//
//   embed_norm   word + position vectors, layer norm: half a warp a token, or a warp
//   gemm         x · wᵀ + bias on tensor cores, then nothing, GELU, or the residual:
//                a block 64 tokens x 64 columns, its operands three slices of K ahead
//   gemm_large   the same, 128 x 128, for batches that fill the device with such
//   layer_norm   layer norm: half a warp a token, or a warp
//   pool         mean, first, last or maximum of a text's tokens, made unit length: a
//                block a text
//
// Between the first product of a layer and the second is attention.cu. Activations and weights
// are halves, or bfloat16 in the kernels that are named so, sums floats. A token's values
// depend on its text alone: sums are added in the same order in any batch.
//
// Of MiniLM (dim 384, inner 1536), a token and layer: 1.77 M products of the layer's
// weights and 2 · 384 · tokens of its text, all on tensor cores; 10 reads and 6 writes of
// activations of dim or inner.

#include "halves.cuh"
#include "ptx.cuh"

// norm_rows is norm_of for dims up to 8 * lanes * chunks, or for that alone where it is full.
// A row lies with so many lanes of a warp, 16 bytes of it with each in turn: chunk i of lane
// l begins at element 8 (lanes i + l).
template <bool embed, int lanes, int chunks, bool full, class T>
static __device__ void norm_rows(const T *in, const T *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                                 float eps, T *out, int tokens, int dim) {
    const int lane = threadIdx.x % lanes, token = (blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    if (token / (warp / lanes) * (warp / lanes) >= tokens) return; // a whole warp
    const int row = token < tokens ? token : tokens - 1; // one that can be read
    const int width = full ? 8 * lanes * chunks : dim;
    const T *word = in + static_cast<long long>(embed ? ids[row] : row) * width;
    const T *place = embed ? positions + static_cast<long long>(places[row]) * width : nullptr;
    uint4 read[chunks], added[chunks];
#pragma unroll
    for (int i = 0; i < chunks; i++) {
        const int at = 8 * (lanes * i + lane);
        read[i] = added[i] = {0, 0, 0, 0}; // zeros of both types
        if (full || at < dim) {
            read[i] = *reinterpret_cast<const uint4 *>(word + at);
            if (embed) added[i] = *reinterpret_cast<const uint4 *>(place + at);
        }
    }
    float x[chunks][8], sum = 0, square = 0;
#pragma unroll
    for (int i = 0; i < chunks; i++) {
        float y[8];
        wide<T>(x[i], read[i]);
        wide<T>(y, added[i]);
#pragma unroll
        for (int d = 0; d < 8; d++) {
            if (embed) x[i][d] += y[d];
            sum += x[i][d];
        }
    }
    const float mean = lane_sum<lanes>(sum) * (1.0f / static_cast<float>(width));
#pragma unroll
    for (int i = 0; i < chunks; i++)
#pragma unroll
        for (int d = 0; d < 8; d++) {
            x[i][d] -= mean;
            if (full || 8 * (lanes * i + lane) < dim) square += x[i][d] * x[i][d];
        }
    const float scale = rsqrtf(lane_sum<lanes>(square) * (1.0f / static_cast<float>(width)) + eps);
#pragma unroll
    for (int i = 0; i < chunks; i++) {
        const int at = 8 * (lanes * i + lane);
        if (!full && at >= dim) continue;
        float g[8], b[8];
#pragma unroll
        for (int d = 0; d < 8; d += 4) {
            *reinterpret_cast<float4 *>(g + d) = *reinterpret_cast<const float4 *>(gamma + at + d);
            *reinterpret_cast<float4 *>(b + d) = *reinterpret_cast<const float4 *>(beta + at + d);
        }
#pragma unroll
        for (int d = 0; d < 8; d++) x[i][d] = x[i][d] * scale * g[d] + b[d];
        if (token < tokens) *reinterpret_cast<uint4 *>(out + static_cast<long long>(token) * width + at) = packed<T>(x[i]);
    }
}

// norm_of writes the layer norm of rows of in, or of rows ids of in with rows places of
// positions added, to out [tokens, dim]. dim is a multiple of 8 of at most 1,024. Blocks of a
// multiple of 32 threads; a warp has two rows where dim is at most 512, else one.
template <bool embed, class T>
static __device__ void norm_of(const T *in, const T *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                               float eps, T *out, int tokens, int dim) {
    if (dim == 384) norm_rows<embed, 16, 3, true>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
    else if (dim == 512)
        norm_rows<embed, 16, 4, true>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
    else if (dim < 512)
        norm_rows<embed, 16, 4, false>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
    else if (dim == 768)
        norm_rows<embed, 32, 3, true>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
    else if (dim == 1024)
        norm_rows<embed, 32, 4, true>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
    else
        norm_rows<embed, 32, 4, false>(in, positions, ids, places, gamma, beta, eps, out, tokens, dim);
}

// embed_norm: words [vocabulary, dim], positions [most, dim] with the token type's vector
// added; ids and places (in their text) [tokens].
KERNEL(embed_norm)(const __half *words, const __half *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                   float eps, __half *out, int tokens, int dim) {
    norm_of<true>(words, positions, ids, places, gamma, beta, eps, out, tokens, dim);
}
KERNEL(embed_norm_bf16)(const __nv_bfloat16 *words, const __nv_bfloat16 *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                   float eps, __nv_bfloat16 *out, int tokens, int dim) {
    norm_of<true>(words, positions, ids, places, gamma, beta, eps, out, tokens, dim);
}

// layer_norm: in [tokens, dim].
KERNEL(layer_norm)(const __half *in, const float *gamma, const float *beta, float eps, __half *out, int tokens, int dim) {
    norm_of<false, __half>(in, nullptr, nullptr, nullptr, gamma, beta, eps, out, tokens, dim);
}
KERNEL(layer_norm_bf16)(const __nv_bfloat16 *in, const float *gamma, const float *beta, float eps, __nv_bfloat16 *out, int tokens, int dim) {
    norm_of<false, __nv_bfloat16>(in, nullptr, nullptr, nullptr, gamma, beta, eps, out, tokens, dim);
}

// The slices of K that are in shared memory, and how long one is.
static constexpr int tile_k = 32, stages = 3;

// place_of is where 16 bytes, eight halves, of a tile's row lie: chunks are exchanged
// so that eight rows of one column of chunks are in different banks.
static __device__ int place_of(int row, int chunk) { return row * tile_k + ((chunk ^ (row >> 1 & 3)) * 8); }

static __device__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// gemm: x [m, k], w [n, k], bias [n], residual and out [m, n]; out may be residual, and
// residual none. k and n are multiples of 8. act 1 is GELU, before the
// residual is added. A block has tile_m x tile_n of out, warps_m x warps_n warps an even
// share each; grid (n / tile_n, m / tile_m), rounded up. The tile has no say in a bit of
// out: an element's sum goes along K in the same steps in any.
template <class T, int tile_m, int tile_n, int warps_m, int warps_n>
static __device__ void gemm_of(const T *x, const T *w, const float *bias, const T *residual, T *out, int m, int n, int k, int act) {
    constexpr int rows = tile_m / warps_m / 16, cols = tile_n / warps_n / 8; // of a warp, in products
    SHARED(T, shared, stages * (tile_m + tile_n) * tile_k);
    const int lane = threadIdx.x % warp, wid = threadIdx.x / warp;
    const int first_m = blockIdx.y * tile_m, first_n = blockIdx.x * tile_n;
    const int warp_m = wid / warps_n * rows * 16, warp_n = wid % warps_n * cols * 8;
    const int slices = (k + tile_k - 1) / tile_k;

    // load asks for a slice of both operands: rows of four chunks each.
    auto load = [&](int slice) {
        T *to = shared + slice % stages * (tile_m + tile_n) * tile_k;
        for (int i = threadIdx.x; i < (tile_m + tile_n) * 4; i += blockDim.x) {
            const int chunk = i % 4, at = slice * tile_k + chunk * 8;
            if (i < tile_m * 4) {
                const int row = i / 4;
                const bool wanted = first_m + row < m && at < k;
                cp_async16(to + place_of(row, chunk), wanted ? x + static_cast<long long>(first_m + row) * k + at : x, wanted);
            } else {
                const int row = i / 4 - tile_m;
                const bool wanted = first_n + row < n && at < k;
                cp_async16(to + tile_m * tile_k + place_of(row, chunk), wanted ? w + static_cast<long long>(first_n + row) * k + at : w, wanted);
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
                for (int j = 0; j < cols; j++) multiply(sum[i][j], a[i], b[j], x);
        }
    }
    // What is read comes before what is written: out may be residual, so the compiler
    // may not exchange them, and each load would be waited for by itself.
    float add[cols][2];
#pragma unroll
    for (int j = 0; j < cols; j++) {
        const int col = first_n + warp_n + 8 * j + lane % 4 * 2;
        add[j][0] = col < n ? bias[col] : 0;
        add[j][1] = col < n ? bias[col + 1] : 0;
    }
#pragma unroll
    for (int i = 0; i < rows; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first_m + warp_m + 16 * i + 8 * half + lane / 4;
            if (row >= m) continue;
            const long long at = static_cast<long long>(row) * n + first_n + warp_n + lane % 4 * 2;
            unsigned old[cols];
#pragma unroll
            for (int j = 0; j < cols; j++) {
                old[j] = 0; // of two zeros
                if (residual && first_n + warp_n + 8 * j < n) old[j] = *reinterpret_cast<const unsigned *>(residual + at + 8 * j);
            }
#pragma unroll
            for (int j = 0; j < cols; j++) {
                if (first_n + warp_n + 8 * j >= n) continue;
                T both[2];
                memcpy(both, &old[j], 4);
                float v[2];
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    v[c] = sum[i][j][2 * half + c] + add[j][c];
                    if (act == 1) v[c] = gelu(v[c]);
                    if (residual) v[c] += wide(both[c]);
                }
                *reinterpret_cast<unsigned *>(out + at + 8 * j) = pair<T>(v[0], v[1]);
            }
        }
}
// gemm has tiles of 64 x 64 and blocks of 128 threads; gemm_large of 128 x 128 and 256, which
// read half as much.
KERNEL(gemm)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_of<__half, 64, 64, 2, 2>(x, w, bias, residual, out, m, n, k, act);
}
KERNEL(gemm_bf16)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_of<__nv_bfloat16, 64, 64, 2, 2>(x, w, bias, residual, out, m, n, k, act);
}
KERNEL(gemm_large)(const __half *x, const __half *w, const float *bias, const __half *residual, __half *out, int m, int n, int k, int act) {
    gemm_of<__half, 128, 128, 2, 4>(x, w, bias, residual, out, m, n, k, act);
}
KERNEL(gemm_large_bf16)(const __nv_bfloat16 *x, const __nv_bfloat16 *w, const float *bias, const __nv_bfloat16 *residual, __nv_bfloat16 *out, int m, int n, int k, int act) {
    gemm_of<__nv_bfloat16, 128, 128, 2, 4>(x, w, bias, residual, out, m, n, k, act);
}

// pool: in [tokens, dim], out [texts, dim]. how: 0 mean, 1 first, 2 last, 3 maximum. A
// vector that is not finite or has no length becomes NaN. Blocks of 512 threads, a block a
// text: as many groups as there is room for take a token in turn, 16 bytes a thread, and what
// they have is put together in their order.
static constexpr int pool_threads = 512;

template <class T> static __device__ void pool_of(const T *in, const int *starts, float *out, int dim, int how) {
    constexpr int ahead = 4; // tokens that are asked for before the first is used
    SHARED(float, part, pool_threads * 8); // [groups, dim]
    SHARED(float, squares, pool_threads / warp);
    const int lane = threadIdx.x % warp, wid = threadIdx.x / warp;
    const int chunks = dim / 8, groups = pool_threads / chunks, group = threadIdx.x / chunks, at = threadIdx.x % chunks * 8;
    const int start = how == 2 ? starts[blockIdx.x + 1] - 1 : starts[blockIdx.x];
    const int end = how == 1 ? start + 1 : starts[blockIdx.x + 1];
    const float none = -__int_as_float(0x7f800000);
    // Of two values: NaN is larger than all others.
    auto both = [&](float x, float y) { return how != 3 ? x + y : y > x || y != y ? y : x; };
    if (group < groups) {
        float x[8];
#pragma unroll
        for (int d = 0; d < 8; d++) x[d] = how == 3 ? none : 0;
        for (int from = start + group; from < end; from += ahead * groups) {
            uint4 read[ahead];
#pragma unroll
            for (int u = 0; u < ahead; u++) {
                const int t = from + u * groups;
                read[u] = {0, 0, 0, 0};
                if (t < end) read[u] = *reinterpret_cast<const uint4 *>(in + static_cast<long long>(t) * dim + at);
            }
#pragma unroll
            for (int u = 0; u < ahead; u++) {
                float y[8];
                wide<T>(y, read[u]);
                if (from + u * groups < end)
#pragma unroll
                    for (int d = 0; d < 8; d++) x[d] = both(x[d], y[d]);
            }
        }
#pragma unroll
        for (int d = 0; d < 8; d++) part[group * dim + at + d] = x[d];
    }
    __syncthreads();
    float square = 0;
    for (int d = threadIdx.x; d < dim; d += pool_threads) {
        float x = part[d];
        for (int g = 1; g < groups; g++) x = both(x, part[g * dim + d]);
        part[d] = x; // which no other thread reads
        square += x * x;
    }
    square = warp_sum(square);
    if (lane == 0) squares[wid] = square;
    __syncthreads();
    float all = 0;
    for (int w = 0; w < pool_threads / warp; w++) all += squares[w];
    const float length = all < -none ? sqrtf(all) : none - none; // NaN
    for (int d = threadIdx.x; d < dim; d += pool_threads) out[static_cast<long long>(blockIdx.x) * dim + d] = part[d] / length;
}
KERNEL(pool)(const __half *in, const int *starts, float *out, int dim, int how) {
    pool_of(in, starts, out, dim, how);
}
KERNEL(pool_bf16)(const __nv_bfloat16 *in, const int *starts, float *out, int dim, int how) {
    pool_of(in, starts, out, dim, how);
}
