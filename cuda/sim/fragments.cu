// Pins the fragments of ptx.cuh: operands are filled with codes of their place, and what
// each lane gets is compared with the formulas of the PTX manual ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "for mma.m16n8k32", "ldmatrix", "wgmma.mma_async.m64nNk16"), which are written here in the
// manual's own form, element by element, and not as the twins or the kernels have them.
// fragments.cpp runs it; it is no part of the product.
#include "../kernels/wgmma.cuh"

// fragment: loads [16, 16] halves by ldmatrix as the left operand is loaded, writes each
// lane's registers [32, 4] to loaded; multiplies a lane's halves left [32, 8] and right
// [32, 4] onto floats acc [32, 4]. One warp.
KERNEL(fragment)(const __half *matrix, unsigned *loaded, const unsigned *left, const unsigned *right, float *acc) {
    SHARED(__half, shared, 256);
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) shared[i] = matrix[i];
    __syncthreads();
    unsigned r[4];
    ldmatrix_x4(r, shared + (lane % 16) * 16 + lane / 16 * 8);
    for (int i = 0; i < 4; i++) loaded[lane * 4 + i] = r[i];
    const unsigned a[4] = {left[lane * 4], left[lane * 4 + 1], left[lane * 4 + 2], left[lane * 4 + 3]};
    const unsigned b[2] = {right[lane * 2], right[lane * 2 + 1]};
    float d[4] = {acc[lane * 4], acc[lane * 4 + 1], acc[lane * 4 + 2], acc[lane * 4 + 3]};
    mma_m16n8k16(d, a, b);
    for (int i = 0; i < 4; i++) acc[lane * 4 + i] = d[i];
}

// fragment_bytes: multiplies a lane's bytes left [32, 16] and right [32, 8] onto ints acc
// [32, 4], and onto more [32, 4] with the right ones unsigned. One warp.
KERNEL(fragment_bytes)(const unsigned *left, const unsigned *right, int *acc, int *more) {
    const int lane = threadIdx.x;
    const unsigned a[4] = {left[lane * 4], left[lane * 4 + 1], left[lane * 4 + 2], left[lane * 4 + 3]};
    const unsigned b[2] = {right[lane * 2], right[lane * 2 + 1]};
    int d[4] = {acc[lane * 4], acc[lane * 4 + 1], acc[lane * 4 + 2], acc[lane * 4 + 3]};
    mma_m16n8k32(d, a, b);
    for (int i = 0; i < 4; i++) acc[lane * 4 + i] = d[i], d[i] = more[lane * 4 + i];
    mma_m16n8k32_u8(d, a, b);
    for (int i = 0; i < 4; i++) more[lane * 4 + i] = d[i];
}

// fragment_bf16: fragment's product, in bfloat16. One warp.
KERNEL(fragment_bf16)(const unsigned *left, const unsigned *right, float *acc) {
    const int lane = threadIdx.x;
    const unsigned a[4] = {left[lane * 4], left[lane * 4 + 1], left[lane * 4 + 2], left[lane * 4 + 3]};
    const unsigned b[2] = {right[lane * 2], right[lane * 2 + 1]};
    float d[4] = {acc[lane * 4], acc[lane * 4 + 1], acc[lane * 4 + 2], acc[lane * 4 + 3]};
    mma_m16n8k16_bf16(d, a, b);
    for (int i = 0; i < 4; i++) acc[lane * 4 + i] = d[i];
}

// fragment_turned: loads [16, 16] halves by ldmatrix with .trans as the right operands of two
// products are loaded, writes each lane's registers [32, 4] to loaded. One warp.
KERNEL(fragment_turned)(const __half *matrix, unsigned *loaded) {
    SHARED(__half, shared, 256);
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) shared[i] = matrix[i];
    __syncthreads();
    unsigned r[4];
    ldmatrix_x4_trans(r, shared + (lane % 16) * 16 + lane / 16 * 8);
    for (int i = 0; i < 4; i++) loaded[lane * 4 + i] = r[i];
}

// copies: each of 32 threads copies 16 bytes of in [3, 32] four times, in three groups: the
// first a row that is wanted and one that is not, then a row each; and writes what is there
// when one group may be under way, and when none may, to out [2, 4, 32].
KERNEL(copies)(const int4 *in, int4 *out) {
    SHARED(int4, shared, 4 * 32);
    const int lane = threadIdx.x;
    for (int i = 0; i < 4; i++) shared[32 * i + lane] = make_int4(-1, -1, -1, -1);
    cp_async16(shared + lane, in + lane, true);
    cp_async16(shared + 32 + lane, in + lane, false);
    cp_async_commit();
    cp_async16(shared + 64 + lane, in + 32 + lane, true);
    cp_async_commit();
    cp_async16(shared + 96 + lane, in + 64 + lane, true);
    cp_async_commit();
    cp_async_wait<1>();
    for (int i = 0; i < 4; i++) out[32 * i + lane] = shared[32 * i + lane];
    cp_async_wait<0>();
    for (int i = 0; i < 4; i++) out[128 + 32 * i + lane] = shared[32 * i + lane];
}

// group_product: a group of 128 threads copies operands left [64, 32] and right [n, 32], which lie as
// they have to in shared memory, there, multiplies both halves of K, the second onto the first if
// adds, and writes each thread's sums to out [128, n / 2].
template <int n, class T> static __device__ void group_product_of(const T *left, const T *right, float *out, bool adds) {
    DYNAMIC_SHARED(T, shared);
    for (int i = threadIdx.x; i < (64 + n) * 4; i += 128) cp_async16(shared + 8 * i, i < 256 ? left + 8 * i : right + 8 * (i - 256), true);
    cp_async_commit();
    cp_async_wait<0>();
    fence_async();
    __syncthreads();
    float sum[n / 8][4];
    wgmma_fence();
    wgmma<n>(sum, operand_at(shared), operand_at(shared + 64 * 32), false, left);
    wgmma<n>(sum, operand_at(shared + 16), operand_at(shared + 64 * 32 + 16), adds, left);
    wgmma_commit();
    wgmma_wait<0>();
    for (int j = 0; j < n / 8; j++)
        for (int i = 0; i < 4; i++) out[threadIdx.x * (n / 2) + 4 * j + i] = sum[j][i];
}
KERNEL(group_product_64)(const __half *left, const __half *right, float *out, int adds) { group_product_of<64>(left, right, out, adds != 0); }
KERNEL(group_product_128)(const __half *left, const __half *right, float *out, int adds) { group_product_of<128>(left, right, out, adds != 0); }
KERNEL(group_product_192)(const __half *left, const __half *right, float *out, int adds) { group_product_of<192>(left, right, out, adds != 0); }
KERNEL(group_product_bf16)(const __nv_bfloat16 *left, const __nv_bfloat16 *right, float *out, int adds) { group_product_of<64>(left, right, out, adds != 0); }
