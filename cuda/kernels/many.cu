// Products of int8 rows with many heads at once, on the tensor cores.
//
// The ladder:
//
//   dots_many      a warp multiplies 16 rows by 64 heads, 64 bytes of a row a step
//
// A head's short is 256 high + low, the high byte signed and the low one not, so that
// two products of bytes, exact in 32 bits, give the one that dots_int8 gives: 256 * high
// + low wraps around as integers do, and ends where the CPU's sum is, which fits.
//
// A product doesn't care for the order of its terms, as long as both sides have the
// same. So no fragment is shuffled into the layout of the manual: a lane reads 16
// bytes of its row and the same 16 of its head, and words 0 and 1 are the columns of
// one mma, words 2 and 3 those of the next. All loads are of 16 bytes, and a row's 64
// bytes are read by four lanes at once.
//
// Bytes and operations a row of dim 384, 64 heads: 384 read, 256 written, 2 * 64 * 384
// multiply-adds of bytes: 49,152. At 640 bytes that is 77 a byte: bound by bandwidth
// where the tensor cores do more than 77 a byte of it (an H100 has some 290).

#include "ptx.cuh"
#include "rows.cuh"

static constexpr int many_heads = 64;
static constexpr int many_rows = 16; // a warp

// dots_many multiplies rows [0, n) by count heads, 1 to 64.
//   codes   [n, stride] bytes, stride a multiple of 16, zeros behind the row
//   split   [2, 64, stride] bytes: the high bytes of the heads, then the low ones;
//           heads from count on are not read
//   dots    [count, n], of all rows
// Blocks of 128 threads; dynamic shared memory: 128 * pitch bytes, pitch at least stride
// and 64 more than a multiple of 128, so that eight lanes meet all banks.
KERNEL(dots_many)(const signed char *codes, const signed char *split, int *dots, long long n, int stride, int pitch, int count) {
    DYNAMIC_SHARED(int4, shared); // [2][64][pitch / 16]
    const int chunks = stride / 16, wide = pitch / 16;
    for (int i = threadIdx.x; i < 2 * many_heads * wide; i += blockDim.x) {
        const int h = i / wide, c = i % wide;
        int4 x = make_int4(0, 0, 0, 0);
        if (h % many_heads < count && c < chunks) x = reinterpret_cast<const int4 *>(split)[h * chunks + c];
        shared[i] = x;
    }
    __syncthreads();
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const long long warps = gridDim.x * static_cast<long long>(blockDim.x / 32);
    for (long long first = (blockIdx.x * static_cast<long long>(blockDim.x / 32) + threadIdx.x / 32) * many_rows; first < n; first += warps * many_rows) {
        const long long row[2] = {first + g, first + g + 8};
        int sum[2][many_heads / 8][4] = {}; // high, low; of 8 heads; of this lane
        for (int s = 0; s < chunks; s += 4) {
            const int c = s + t;
            int4 x[2] = {make_int4(0, 0, 0, 0), make_int4(0, 0, 0, 0)};
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (row[r] < n && c < chunks) x[r] = __ldg(reinterpret_cast<const int4 *>(codes + row[r] * stride) + c);
            const uint32_t a[2][4] = {
                {static_cast<uint32_t>(x[0].x), static_cast<uint32_t>(x[1].x), static_cast<uint32_t>(x[0].y), static_cast<uint32_t>(x[1].y)},
                {static_cast<uint32_t>(x[0].z), static_cast<uint32_t>(x[1].z), static_cast<uint32_t>(x[0].w), static_cast<uint32_t>(x[1].w)}};
#pragma unroll
            for (int part = 0; part < 2; part++)
#pragma unroll
                for (int j = 0; j < many_heads / 8; j++) {
                    if (8 * j >= count) break; // the same for all
                    int4 y = make_int4(0, 0, 0, 0);
                    if (c < wide) y = shared[(part * many_heads + 8 * j + g) * wide + c];
                    const uint32_t b[2][2] = {{static_cast<uint32_t>(y.x), static_cast<uint32_t>(y.y)}, {static_cast<uint32_t>(y.z), static_cast<uint32_t>(y.w)}};
                    for (int half = 0; half < 2; half++) {
                        if (part == 0) mma_m16n8k32(sum[part][j], a[half], b[half]);
                        else mma_m16n8k32_u8(sum[part][j], a[half], b[half]);
                    }
                }
        }
#pragma unroll
        for (int j = 0; j < many_heads / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int h = 8 * j + 2 * t + k % 2;
                const long long r = row[k / 2];
                if (h < count && r < n) dots[h * n + r] = static_cast<int>((static_cast<unsigned>(sum[0][j][k]) << 8) + static_cast<unsigned>(sum[1][j][k]));
            }
    }
}
