// The encoder of the BERT family over packed texts: the tokens of all texts of a batch
// follow each other, [tokens], and starts[text] says where each begins. No padding.
//
// The ladder, from the batch to the token:
//
//   embed_norm   word + position vectors, layer norm: half a warp a token, or a warp
//   gemm...      the layers' products with what follows each: gemm.cu
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
