// Steps of training: k-means, and the logistic loss with its gradient.
//
// The ladder:
//
//   nearest            a tile of 128 rows by 64 centres: each row's nearest centre, and
//                      how near the next is
//   arrange            a warp a centre: its rows, in order
//   cluster_sums       a thread a number of a centre: the sum of its rows, in order
//   row_scores         four lanes a row: its product with a vector
//   logistic_rows      a thread a row: its loss, and the derivative by its score
//   logistic_gradient  a thread a number of the vector: sums over a part of the rows
//   add_parts          the parts, in order
//
// Nothing is added by atomics but whole numbers, so that no result depends on the
// schedule. cluster_sums, row_scores, and logistic_gradient of one part have the bits of
// the CPU: sums in double, in its order, and a product of two floats is exact there.
// nearest adds products in float, fused, in the order of a row's numbers.
//
// Bytes and operations a row of dim 384, K centres: nearest reads 1,536 for each 64
// centres and does 384 K multiply-adds of floats: from K = 24 on, 9,216 for 1,536 bytes,
// bound by them. arrange reads 4 K. cluster_sums reads 1,540 with 384 additions in double,
// each waiting for the last: a centre's rows in turn, 8 loads under way. row_scores and
// logistic_gradient read 1,536 for 384 multiply-adds in double: bandwidth is the bound
// where double runs at half the rate of float, and the gradient has parts enough.

#include "kernel.cuh"

static constexpr int near_rows = 128, near_centres = 64, near_depth = 16; // of a tile
static constexpr int near_pad = 4;
static constexpr int row_each = 8, centre_each = 4; // of a thread
static constexpr int none = 0x7fffffff;

// nearest finds for rows [n, dim] which of the centres [k, dim] is nearest: where
// x·c - |c|^2 / 2 is highest, the first of equals.
//   half    [k]: -|c|^2 / 2
//   of      [n]: the centre; what it was before is compared
//   high    [n, 2]: the highest of x·c + half, and the next, -Inf for one centre
//   counts  [k]: rows of a centre are added; moved: those that had another before
// Blocks of 256 threads.
KERNEL(nearest)(const float *rows, const float *centres, const float *half, int *of, float *high, unsigned *counts, unsigned *moved, long long n, int dim, int k) {
    SHARED(float, left, near_depth * (near_rows + near_pad));     // [depth][rows]
    SHARED(float, right, near_depth * (near_centres + near_pad)); // [depth][centres]
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const float infinity = __int_as_float(0x7f800000);
    for (long long first = blockIdx.x * static_cast<long long>(near_rows); first < n; first += gridDim.x * static_cast<long long>(near_rows)) {
        float top[row_each], next[row_each];
        int at[row_each];
        for (int r = 0; r < row_each; r++) top[r] = next[r] = -infinity, at[r] = none;
        for (int c0 = 0; c0 < k; c0 += near_centres) {
            float sum[row_each][centre_each] = {};
            for (int j0 = 0; j0 < dim; j0 += near_depth) {
                for (int i = threadIdx.x; i < near_rows * near_depth; i += 256) {
                    const int r = i / near_depth, j = i % near_depth;
                    left[j * (near_rows + near_pad) + r] = first + r < n && j0 + j < dim ? rows[(first + r) * dim + j0 + j] : 0;
                }
                for (int i = threadIdx.x; i < near_centres * near_depth; i += 256) {
                    const int c = i / near_depth, j = i % near_depth;
                    right[j * (near_centres + near_pad) + c] = c0 + c < k && j0 + j < dim ? centres[static_cast<long long>(c0 + c) * dim + j0 + j] : 0;
                }
                __syncthreads();
#pragma unroll
                for (int j = 0; j < near_depth; j++) {
                    float x[row_each], y[centre_each];
#pragma unroll
                    for (int r = 0; r < row_each; r += 4) {
                        const float4 f = *reinterpret_cast<const float4 *>(left + j * (near_rows + near_pad) + ty * row_each + r);
                        x[r] = f.x, x[r + 1] = f.y, x[r + 2] = f.z, x[r + 3] = f.w;
                    }
                    const float4 f = *reinterpret_cast<const float4 *>(right + j * (near_centres + near_pad) + tx * centre_each);
                    y[0] = f.x, y[1] = f.y, y[2] = f.z, y[3] = f.w;
#pragma unroll
                    for (int r = 0; r < row_each; r++)
#pragma unroll
                        for (int c = 0; c < centre_each; c++) sum[r][c] = fmaf(x[r], y[c], sum[r][c]);
                }
                __syncthreads(); // before the next numbers come
            }
#pragma unroll
            for (int c = 0; c < centre_each; c++) {
                const int centre = c0 + tx * centre_each + c;
                if (centre >= k) break;
                const float h = half[centre];
#pragma unroll
                for (int r = 0; r < row_each; r++) {
                    const float s = __fadd_rn(sum[r][c], h);
                    if (s > top[r] || at[r] == none) next[r] = top[r], top[r] = s, at[r] = centre;
                    else next[r] = fmaxf(next[r], s);
                }
            }
        }
        for (int r = 0; r < row_each; r++) {
            for (int step = 8; step > 0; step /= 2) { // 16 lanes have seen parts of the centres
                const float s = __shfl_xor_sync(0xffffffffu, top[r], step), s2 = __shfl_xor_sync(0xffffffffu, next[r], step);
                const int c = __shfl_xor_sync(0xffffffffu, at[r], step);
                next[r] = fmaxf(fminf(top[r], s), fmaxf(next[r], s2));
                if (c != none && (at[r] == none || s > top[r] || (s == top[r] && c < at[r]))) top[r] = s, at[r] = c;
            }
            const long long row = first + ty * row_each + r;
            if (tx > 0 || row >= n) continue;
            if (of[row] != at[r]) atomicAdd(moved, 1u);
            of[row] = at[r];
            high[2 * row] = top[r];
            high[2 * row + 1] = next[r];
            atomicAdd(&counts[at[r]], 1u);
        }
    }
}

// start is where a centre's rows begin in an order of all rows by centre; the same for all
// lanes.
static __device__ __forceinline__ long long start(const unsigned *counts, int centre) {
    long long sum = 0;
    for (int c = threadIdx.x % 32; c < centre; c += 32) sum += counts[c];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum;
}

// arrange writes to order [n] the rows by their centre of [n], in order; block c those of
// centre c, of which there are counts[c]. Blocks of 32 threads.
KERNEL(arrange)(const int *of, const unsigned *counts, int *order, long long n) {
    const int lane = threadIdx.x, centre = blockIdx.x;
    int *to = order + start(counts, centre);
    for (long long first = 0; first < n; first += 128) {
        int id[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const long long row = first + 32 * i + lane;
            id[i] = row < n ? __ldg(of + row) : none;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned all = __ballot_sync(0xffffffffu, id[i] == centre);
            if (id[i] == centre) to[__popc(all & ((1u << lane) - 1))] = static_cast<int>(first + 32 * i + lane);
            to += __popc(all);
        }
    }
}

// cluster_sums writes to sums [k, dim] the sums of each centre's rows, in the order that
// arrange gave them. Blocks of a multiple of 32 threads over dim in x, centres in y.
KERNEL(cluster_sums)(const float *rows, const int *order, const unsigned *counts, double *sums, int dim) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x, centre = blockIdx.y;
    const int *from = order + start(counts, centre), *const end = from + counts[centre];
    if (j >= dim) return;
    double sum = 0;
    for (; from + 8 <= end; from += 8) {
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = __ldg(rows + static_cast<long long>(__ldg(from + i)) * dim + j);
#pragma unroll
        for (int i = 0; i < 8; i++) sum = __dadd_rn(sum, x[i]);
    }
    for (; from < end; from++) sum = __dadd_rn(sum, rows[static_cast<long long>(*from) * dim + j]);
    sums[static_cast<long long>(centre) * dim + j] = sum;
}

// row_scores writes to scores [n] the products of rows [n, dim] with a vector [dim], with
// the bits of simd.DotRows64: four sums, of every fourth number each, added in turn; what
// is over belongs to the first.
// Blocks of a multiple of 32 threads.
KERNEL(row_scores)(const float *rows, const float *vector, double *scores, long long n, int dim) {
    const int part = threadIdx.x % 4;
    const long long step = gridDim.x * static_cast<long long>(blockDim.x / 4);
    // Lanes of a warp make the same number of rounds.
    for (long long first = blockIdx.x * static_cast<long long>(blockDim.x / 4); first < n; first += step) {
        const long long row = first + threadIdx.x / 4;
        double sum = 0;
        if (row < n) {
            const float *x = rows + row * dim;
            int j = part;
            for (; j < dim / 4 * 4; j += 4) sum = __dadd_rn(sum, __dmul_rn(x[j], __ldg(vector + j)));
            if (part == 0)
                for (; j < dim; j++) sum = __dadd_rn(sum, __dmul_rn(x[j], __ldg(vector + j)));
        }
        double all = __shfl_sync(0xffffffffu, sum, threadIdx.x % 32 / 4 * 4);
        for (int i = 1; i < 4; i++) all = __dadd_rn(all, __shfl_sync(0xffffffffu, sum, threadIdx.x % 32 / 4 * 4 + i));
        if (part == 0 && row < n) scores[row] = all;
    }
}

// logistic_rows writes of n rows the weighted loss, and its derivative by the score
// z = (bias[0] + scores[row]) + rest[row].
//   rest    [n], or null: the part of a score that isn't a vector's
//   label   [n]: 1 or 0; weight: [n]
//   terms   [2, n]: derivatives, losses
KERNEL(logistic_rows)(const double *scores, const double *bias, const double *rest, const float *label, const double *weight, double *terms, long long n) {
    for (long long row = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; row < n; row += gridDim.x * static_cast<long long>(blockDim.x)) {
        double z = __dadd_rn(bias[0], scores[row]);
        if (rest) z = __dadd_rn(z, rest[row]);
        const double y = label[row] > 0 ? -z : z;
        terms[row] = __dmul_rn(weight[row], __dadd_rn(__ddiv_rn(1, __dadd_rn(1, exp(-z))), -static_cast<double>(label[row])));
        // log(1 + exp(y)), without overflow on either side.
        terms[n + row] = __dmul_rn(weight[row], __dadd_rn(y > 0 ? y : 0, log1p(exp(-fabs(y)))));
    }
}

// logistic_gradient writes to parts [gridDim.y, dim + 2] the sums over as many parts of n
// rows, in order: of a row's derivative times its numbers, of derivatives, and of losses,
// where has_losses is set, else 0. Blocks of threads over dim + 2 in x.
KERNEL(logistic_gradient)(const float *rows, const double *terms, double *parts, long long n, int dim, int has_losses) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= dim + 2) return;
    const long long each = (n + gridDim.y - 1) / gridDim.y, end = (blockIdx.y + 1) * each < n ? (blockIdx.y + 1) * each : n;
    long long i = blockIdx.y * each;
    double sum = 0;
    if (j < dim) {
        for (; i + 8 <= end; i += 8) {
            float x[8];
            double a[8];
#pragma unroll
            for (int r = 0; r < 8; r++) x[r] = __ldg(rows + (i + r) * dim + j), a[r] = __ldg(terms + i + r);
#pragma unroll
            for (int r = 0; r < 8; r++) sum = __dadd_rn(sum, __dmul_rn(a[r], x[r]));
        }
        for (; i < end; i++) sum = __dadd_rn(sum, __dmul_rn(terms[i], rows[i * dim + j]));
    } else if (j == dim || has_losses) {
        for (; i < end; i++) sum = __dadd_rn(sum, terms[(j - dim) * n + i]);
    }
    parts[static_cast<long long>(blockIdx.y) * (dim + 2) + j] = sum;
}

// add_parts writes to sum [width] the sums of parts [count, width], in order.
KERNEL(add_parts)(const double *parts, double *sum, int count, int width) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= width) return;
    double x = 0;
    for (int i = 0; i < count; i++) x = __dadd_rn(x, parts[static_cast<long long>(i) * width + j]);
    sum[j] = x;
}
