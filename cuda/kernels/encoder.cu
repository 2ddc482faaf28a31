// The encoder of the BERT family over packed texts: the tokens of all texts of a batch
// follow each other, [tokens], and starts[text] says where each begins. No padding.
//
// The ladder, from the batch to the token:
//
//   embed_norm   word + position vectors, layer norm: a warp a token
//   gemm...      the layers' products with what follows each: gemm.cu
//   attention_32 softmax(q · kᵀ / sqrt(d)) · v of one text and head at a time on tensor
//                cores, for heads of up to 32, 64 and 128: a block 64 queries, keys and values
//                pass through shared memory 64 at a time, the softmax is kept up on the way
//   layer_norm   layer norm: a warp a token
//   pool         mean, first, last or maximum of a text's tokens, made unit length: a
//                block a text
//
// Activations and weights are halves, or bfloat16 in the kernels that are named so, sums
// floats. A token's values depend on its text
// alone: sums are added in the same order in any batch.
//
// Of MiniLM (dim 384, inner 1536), a token and layer: 1.77 M products of the layer's
// weights and 2 · 384 · tokens of its text, all on tensor cores; 10 reads and 6 writes of
// activations of dim or inner.

#include "halves.cuh"
#include "ptx.cuh"

static constexpr int dim_most = 1024; // of a layer norm: 32 values a lane

// normalise writes the layer norm of the values that a warp holds, value i of lane l
// being element 32 i + l.
template <class T> static __device__ void normalise(float (&x)[dim_most / warp], int dim, int lane, const float *gamma, const float *beta, float eps, T *out) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < dim_most / warp; i++)
        if (i * warp + lane < dim) sum += x[i];
    const float mean = warp_sum(sum) / static_cast<float>(dim);
    float square = 0;
#pragma unroll
    for (int i = 0; i < dim_most / warp; i++)
        if (i * warp + lane < dim) square += (x[i] - mean) * (x[i] - mean);
    const float scale = rsqrtf(warp_sum(square) / static_cast<float>(dim) + eps);
#pragma unroll
    for (int i = 0; i < dim_most / warp; i++) {
        const int at = i * warp + lane;
        if (at < dim) narrow(out[at], (x[i] - mean) * scale * gamma[at] + beta[at]);
    }
}

// embed_norm: words [vocabulary, dim], positions [most, dim] with the token type's
// vector added; ids and places (in their text) [tokens]; out [tokens, dim]. Blocks of a
// multiple of 32 threads.
template <class T> static __device__ void embed_norm_of(const T *words, const T *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                   float eps, T *out, int tokens, int dim) {
    const int lane = threadIdx.x % warp;
    const int token = blockIdx.x * (blockDim.x / warp) + threadIdx.x / warp;
    if (token >= tokens) return; // a whole warp
    const T *word = words + static_cast<long long>(ids[token]) * dim;
    const T *place = positions + static_cast<long long>(places[token]) * dim;
    float x[dim_most / warp];
#pragma unroll
    for (int i = 0; i < dim_most / warp; i++) {
        const int at = i * warp + lane;
        x[i] = at < dim ? wide(word[at]) + wide(place[at]) : 0;
    }
    normalise(x, dim, lane, gamma, beta, eps, out + static_cast<long long>(token) * dim);
}
KERNEL(embed_norm)(const __half *words, const __half *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                   float eps, __half *out, int tokens, int dim) {
    embed_norm_of(words, positions, ids, places, gamma, beta, eps, out, tokens, dim);
}
KERNEL(embed_norm_bf16)(const __nv_bfloat16 *words, const __nv_bfloat16 *positions, const int *ids, const int *places, const float *gamma, const float *beta,
                   float eps, __nv_bfloat16 *out, int tokens, int dim) {
    embed_norm_of(words, positions, ids, places, gamma, beta, eps, out, tokens, dim);
}

// layer_norm: in and out [tokens, dim]. Blocks of a multiple of 32 threads.
template <class T> static __device__ void layer_norm_of(const T *in, const float *gamma, const float *beta, float eps, T *out, int tokens, int dim) {
    const int lane = threadIdx.x % warp;
    const int token = blockIdx.x * (blockDim.x / warp) + threadIdx.x / warp;
    if (token >= tokens) return; // a whole warp
    const T *row = in + static_cast<long long>(token) * dim;
    float x[dim_most / warp];
#pragma unroll
    for (int i = 0; i < dim_most / warp; i++) {
        const int at = i * warp + lane;
        x[i] = at < dim ? wide(row[at]) : 0;
    }
    normalise(x, dim, lane, gamma, beta, eps, out + static_cast<long long>(token) * dim);
}
KERNEL(layer_norm)(const __half *in, const float *gamma, const float *beta, float eps, __half *out, int tokens, int dim) {
    layer_norm_of(in, gamma, beta, eps, out, tokens, dim);
}
KERNEL(layer_norm_bf16)(const __nv_bfloat16 *in, const float *gamma, const float *beta, float eps, __nv_bfloat16 *out, int tokens, int dim) {
    layer_norm_of(in, gamma, beta, eps, out, tokens, dim);
}

// Queries of a block, 16 a warp, and keys that are in shared memory at a time.
static constexpr int queries = 64, keys = 64;

// attention_of: qkv [tokens, 3 * heads * size], the queries, keys and values of a token
// side by side; out [tokens, heads * size]. starts [texts + 1]; size is at most
// head_size, up to which zeros are put. Blocks of 128 threads, grid (blocks of queries of
// the longest text, heads, texts).
//
// A warp multiplies its 16 queries with 64 keys, and what a lane gets of the scores is what it
// has to give of the weights when they are multiplied with the values: they never
// leave its registers.
template <class T, int head_size>
static __device__ void attention_of(const T *qkv, const int *starts, T *out, int heads, int size, float scale) {
    constexpr int pitch = head_size + 8; // eight rows lie in different banks
    SHARED(T, key, keys * pitch);        // the queries, at first
    SHARED(T, value, keys * pitch);
    const int head = blockIdx.y, lane = threadIdx.x % warp, wid = threadIdx.x / warp;
    const int start = starts[blockIdx.z], tokens = starts[blockIdx.z + 1] - start;
    const int first = blockIdx.x * queries;
    if (first >= tokens) return; // the whole block
    const int width = heads * size;
    const T *base = qkv + static_cast<long long>(start) * 3 * width + head * size;
    // load brings rows [from, from + 64) of queries, keys or values, zeros behind the text.
    auto load = [&](T *to, int from, int part) {
        for (int i = threadIdx.x; i < keys * (head_size / 8); i += blockDim.x) {
            const int row = i / (head_size / 8), at = i % (head_size / 8) * 8;
            const T *src = base + static_cast<long long>(from + row) * 3 * width + part * width + at;
            T *dst = to + row * pitch + at;
            if (from + row < tokens && size % 8 == 0 && at < size) {
                *reinterpret_cast<int4 *>(dst) = *reinterpret_cast<const int4 *>(src);
                continue;
            }
#pragma unroll
            for (int d = 0; d < 8; d++) {
                if (from + row < tokens && at + d < size) dst[d] = src[d];
                else
                    narrow(dst[d], 0);
            }
        }
    };
    load(key, first, 0);
    __syncthreads();
    unsigned query[head_size / 16][4];
#pragma unroll
    for (int k = 0; k < head_size / 16; k++) ldmatrix_x4(query[k], key + (16 * wid + lane % 16) * pitch + 16 * k + lane / 16 * 8);
    const float none = -__int_as_float(0x7f800000);
    float top[2] = {none, none}, total[2] = {}; // of the queries lane / 4 and 8 more; total of this lane's keys
    float sum[head_size / 8][4] = {};
    for (int from = 0; from < tokens; from += keys) {
        __syncthreads(); // nobody reads the keys before any more
        load(key, from, 1);
        load(value, from, 2);
        __syncthreads();
        float s[keys / 8][4] = {};
#pragma unroll
        for (int k = 0; k < head_size / 16; k++)
#pragma unroll
            for (int j = 0; j < keys / 16; j++) {
                unsigned both[4];
                ldmatrix_x4(both, key + (16 * j + lane / 16 * 8 + lane % 8) * pitch + 16 * k + lane / 8 % 2 * 8);
                const unsigned even[2] = {both[0], both[1]}, odd[2] = {both[2], both[3]};
                multiply(s[2 * j], query[k], even, qkv);
                multiply(s[2 * j + 1], query[k], odd, qkv);
            }
        float higher[2] = {top[0], top[1]};
#pragma unroll
        for (int j = 0; j < keys / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[j][i] = from + 8 * j + lane % 4 * 2 + i % 2 < tokens ? s[j][i] * scale : none;
                higher[i / 2] = fmaxf(higher[i / 2], s[j][i]);
            }
#pragma unroll
        for (int q = 0; q < 2; q++) {
            for (int step = 1; step < 4; step *= 2) higher[q] = fmaxf(higher[q], __shfl_xor_sync(0xffffffffu, higher[q], step));
            const float shrink = expf(top[q] - higher[q]); // 0 at first
            top[q] = higher[q];
            total[q] *= shrink;
#pragma unroll
            for (int d = 0; d < head_size / 8; d++) {
                sum[d][2 * q] *= shrink;
                sum[d][2 * q + 1] *= shrink;
            }
        }
#pragma unroll
        for (int j = 0; j < keys / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[j][i] = expf(s[j][i] - top[i / 2]);
                total[i / 2] += s[j][i];
            }
#pragma unroll
        for (int j = 0; j < keys / 16; j++) {
            const unsigned weight[4] = {pair<T>(s[2 * j][0], s[2 * j][1]), pair<T>(s[2 * j][2], s[2 * j][3]),
                                        pair<T>(s[2 * j + 1][0], s[2 * j + 1][1]), pair<T>(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
            for (int d = 0; d < head_size / 16; d++) {
                unsigned both[4];
                ldmatrix_x4_trans(both, value + (16 * j + lane % 16) * pitch + 16 * d + lane / 16 * 8);
                const unsigned even[2] = {both[0], both[1]}, odd[2] = {both[2], both[3]};
                multiply(sum[2 * d], weight, even, qkv);
                multiply(sum[2 * d + 1], weight, odd, qkv);
            }
        }
    }
#pragma unroll
    for (int q = 0; q < 2; q++) {
        for (int step = 1; step < 4; step *= 2) total[q] += __shfl_xor_sync(0xffffffffu, total[q], step);
        const int token = first + 16 * wid + lane / 4 + 8 * q;
        if (token >= tokens) continue;
        T *to = out + static_cast<long long>(start + token) * width + head * size;
#pragma unroll
        for (int d = 0; d < head_size / 8; d++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const int at = 8 * d + lane % 4 * 2 + c;
                if (at < size) narrow(to[at], sum[d][2 * q + c] / total[q]);
            }
    }
}
KERNEL(attention_32)(const __half *qkv, const int *starts, __half *out, int heads, int size, float scale) {
    attention_of<__half, 32>(qkv, starts, out, heads, size, scale);
}
KERNEL(attention_32_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, int size, float scale) {
    attention_of<__nv_bfloat16, 32>(qkv, starts, out, heads, size, scale);
}
KERNEL(attention_64)(const __half *qkv, const int *starts, __half *out, int heads, int size, float scale) {
    attention_of<__half, 64>(qkv, starts, out, heads, size, scale);
}
KERNEL(attention_64_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, int size, float scale) {
    attention_of<__nv_bfloat16, 64>(qkv, starts, out, heads, size, scale);
}
KERNEL(attention_128)(const __half *qkv, const int *starts, __half *out, int heads, int size, float scale) {
    attention_of<__half, 128>(qkv, starts, out, heads, size, scale);
}
KERNEL(attention_128_bf16)(const __nv_bfloat16 *qkv, const int *starts, __nv_bfloat16 *out, int heads, int size, float scale) {
    attention_of<__nv_bfloat16, 128>(qkv, starts, out, heads, size, scale);
}

// pool: in [tokens, dim], out [texts, dim]. how: 0 mean, 1 first, 2 last, 3 maximum. A
// vector that is not finite or has no length becomes NaN. Blocks of 128 threads, a
// block a text.
template <class T> static __device__ void pool_of(const T *in, const int *starts, float *out, int dim, int how) {
    SHARED(float, part, 4);
    const int lane = threadIdx.x % warp, wid = threadIdx.x / warp;
    const int start = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float *to = out + static_cast<long long>(blockIdx.x) * dim;
    float square = 0;
    for (int d = threadIdx.x; d < dim; d += blockDim.x) {
        float x = wide(in[static_cast<long long>(how == 2 ? end - 1 : start) * dim + d]);
        if (how == 0 || how == 3)
            for (int t = start + 1; t < end; t++) {
                const float y = wide(in[static_cast<long long>(t) * dim + d]);
                x = how == 0 ? x + y : fmaxf(x, y);
            }
        to[d] = x;
        square += x * x;
    }
    square = warp_sum(square);
    if (lane == 0) part[wid] = square;
    __syncthreads();
    const float length = sqrtf(part[0] + part[1] + part[2] + part[3]);
    for (int d = threadIdx.x; d < dim; d += blockDim.x) to[d] = to[d] / length;
}
KERNEL(pool)(const __half *in, const int *starts, float *out, int dim, int how) {
    pool_of(in, starts, out, dim, how);
}
KERNEL(pool_bf16)(const __nv_bfloat16 *in, const int *starts, float *out, int dim, int how) {
    pool_of(in, starts, out, dim, how);
}
