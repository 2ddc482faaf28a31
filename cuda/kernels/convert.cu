// Conversions of vectors with the bits that the CPU gives, and a checksum of memory.
//
// The ladder:
//
//   quantise       a warp a row: unit length, then bytes with a scale
//   to_half        fp32 to fp16, rounded to nearest, ties to even
//   from_half      fp16 to fp32, exact
//   crc_parts      a warp a part of memory: its share of the CRC-32C
//
// Quantise: each operation is rounded as the CPU rounds it, in the same order. Only the
// sum of squares depends on an order, that of the numbers, so one lane adds them up while
// other warps have the processor.
//
// CRC: without its first and last inversion a CRC is linear, so that a message's is the
// sum of its words', each moved by as many zeros as follow it. A lane takes every 32nd
// word and moves its sum by 128 zero bytes a step, by four look-ups in shared memory; the
// lanes' sums are moved by what lies between them at the end.
//
// Bytes and operations a row of dim 384: quantise reads 1,536 and writes 388, with four
// divisions in double a number, some ten operations each: on a par with bandwidth where
// double runs at half the rate of float, and the bound where it does at a 64th. The halves move 6 bytes a number. crc_parts reads 4 bytes for four
// look-ups, which meet in banks some three times each: about 10 bytes a clock and
// processor.

#include "kernel.cuh"

// quantise makes rows unit length and then bytes, as rows.EncodeVector does.
//   rows    [n, dim]
//   codes   [n, stride], stride at least dim; zeros behind the row
//   scales  [n]: 0 for a row of zeros, whose codes are zeros
//   bad     the least row that has a number that isn't finite: such a row's codes and
//           scale are zeros; left as it is where there is none
// Blocks of a multiple of 32 threads; dynamic shared memory: 8 * dim bytes a warp.
KERNEL(quantise)(const float *rows, signed char *codes, float *scales, unsigned long long *bad, long long n, int dim, int stride) {
    DYNAMIC_SHARED(double, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    double *square = shared + warp * dim;
    const long long warps = gridDim.x * static_cast<long long>(blockDim.x / 32);
    for (long long at = blockIdx.x * static_cast<long long>(blockDim.x / 32) + warp; at < n; at += warps) {
        const float *x = rows + at * dim;
        signed char *to = codes + at * stride;
        float most = 0;
        bool finite = true;
        for (int j = lane; j < dim; j += 32) {
            const float a = fabsf(x[j]);
            finite = finite && a <= 3.402823466e38f; // a NaN isn't
            most = fmaxf(most, a);
        }
        finite = __all_sync(0xffffffffu, finite);
        for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
        if (!finite || most == 0) { // the same for all lanes
            for (int j = lane; j < stride; j += 32) to[j] = 0;
            if (lane == 0) {
                scales[at] = 0;
                if (!finite) atomicMin(bad, static_cast<unsigned long long>(at));
            }
            continue;
        }
        const double top = most;
        for (int j = lane; j < dim; j += 32) {
            const double f = __ddiv_rn(x[j], top);
            square[j] = __dmul_rn(f, f);
        }
        __syncwarp();
        double sum = 0;
        if (lane == 0)
            for (int j = 0; j < dim; j++) sum = __dadd_rn(sum, square[j]);
        const double norm = __dsqrt_rn(__shfl_sync(0xffffffffu, sum, 0));
        __syncwarp(); // the squares are read: the numbers at unit length take their place
        float *const unit = reinterpret_cast<float *>(square);
        float largest = 0;
        for (int j = lane; j < dim; j += 32) {
            unit[j] = __double2float_rn(__ddiv_rn(__ddiv_rn(x[j], top), norm));
            largest = fmaxf(largest, fabsf(unit[j]));
        }
        for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
        int squares = 0; // at most 32,768 numbers of 127: below 2^30
        for (int j = lane; j < stride; j += 32) {
            int c = 0;
            if (j < dim) c = static_cast<int>(rint(__ddiv_rn(__dmul_rn(unit[j], 127), largest)));
            to[j] = static_cast<signed char>(c);
            squares += c * c;
        }
        for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
        if (lane == 0) scales[at] = __double2float_rn(__ddiv_rn(1, __dsqrt_rn(squares)));
        __syncwarp(); // before the next row's squares
    }
}

// half_of keeps a NaN's sign and upper bits, and makes it quiet.
static __device__ __forceinline__ unsigned half_of(float f) {
    unsigned b = __float_as_uint(f);
    const unsigned sign = b >> 16 & 0x8000u;
    b &= 0x7fffffffu;
    if (b > 0x7f800000u) return sign | 0x7e00u | (b >> 13 & 0x3ffu);
    if (b >= 0x477ff000u) return sign | 0x7c00u; // 65,520: half way to what is too large
    if (b >= 0x38800000u) return sign | (b + 0xfffu + (b >> 13 & 1u) - (112u << 23)) >> 13;
    return sign | static_cast<unsigned>(rintf(__uint_as_float(b) * 16777216.0f)); // units of 2^-24; the product is exact
}

static __device__ __forceinline__ float float_of(unsigned h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    unsigned b;
    if (exponent == 31) b = 0x7f800000u | (fraction ? 0x400000u | fraction << 13 : 0);
    else if (exponent == 0) b = __float_as_uint(static_cast<float>(fraction) * 5.9604644775390625e-8f); // 2^-24
    else b = (exponent + 112) << 23 | fraction << 13;
    return __uint_as_float(sign | b);
}

// to_half converts n numbers, four a thread; both begin at multiples of 16 bytes.
KERNEL(to_half)(const float *from, unsigned short *to, long long n) {
    const long long step = gridDim.x * static_cast<long long>(blockDim.x), first = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    for (long long i = first; i < n / 4; i += step) {
        const float4 x = reinterpret_cast<const float4 *>(from)[i];
        uint2 h;
        h.x = half_of(x.x) | half_of(x.y) << 16;
        h.y = half_of(x.z) | half_of(x.w) << 16;
        reinterpret_cast<uint2 *>(to)[i] = h;
    }
    for (long long i = n / 4 * 4 + first; i < n; i += step) to[i] = static_cast<unsigned short>(half_of(from[i]));
}

// from_half is the way back.
KERNEL(from_half)(const unsigned short *from, float *to, long long n) {
    const long long step = gridDim.x * static_cast<long long>(blockDim.x), first = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    for (long long i = first; i < n / 4; i += step) {
        const uint2 h = reinterpret_cast<const uint2 *>(from)[i];
        float4 x;
        x.x = float_of(h.x & 0xffffu);
        x.y = float_of(h.x >> 16);
        x.z = float_of(h.y & 0xffffu);
        x.w = float_of(h.y >> 16);
        reinterpret_cast<float4 *>(to)[i] = x;
    }
    for (long long i = n / 4 * 4 + first; i < n; i += step) to[i] = float_of(from[i]);
}

static constexpr int crc_bytes = 256; // of a table: what each byte becomes

// moved is a sum after zeros: four look-ups in table [4][256].
static __device__ __forceinline__ unsigned moved(const unsigned *table, unsigned x) {
    return table[x & 255u] ^ table[crc_bytes + (x >> 8 & 255u)] ^ table[2 * crc_bytes + (x >> 16 & 255u)] ^ table[3 * crc_bytes + (x >> 24)];
}

// crc_parts writes to parts[i] what the i-th words of so many, the last part's fewer, add
// to a CRC that began with 0.
//   words   [n]
//   tables  [2][4][256]: what 4 and what 128 zero bytes make of a sum, by its bytes
//   parts   [(n + each - 1) / each]
// Blocks of a multiple of 32 threads.
KERNEL(crc_parts)(const unsigned *words, const unsigned *tables, unsigned *parts, long long n, int each) {
    SHARED(unsigned, table, 8 * crc_bytes);
    for (int i = threadIdx.x; i < 8 * crc_bytes; i += blockDim.x) table[i] = tables[i];
    __syncthreads();
    const int lane = threadIdx.x % 32;
    const long long warps = gridDim.x * static_cast<long long>(blockDim.x / 32), all = (n + each - 1) / each;
    for (long long part = blockIdx.x * static_cast<long long>(blockDim.x / 32) + threadIdx.x / 32; part < all; part += warps) {
        const unsigned *w = words + part * each;
        const int here = static_cast<int>(n - part * each < each ? n - part * each : each);
        // Zeros before a message change nothing: they fill its first 32 words.
        const int before = (32 - here % 32) % 32;
        unsigned sum = 0;
        for (int i = lane - before; i < here; i += 32) sum = moved(table + 4 * crc_bytes, sum) ^ (i < 0 ? 0u : w[i]);
        for (int i = lane; i < 32; i++) sum = moved(table, sum);
        for (int step = 16; step > 0; step /= 2) sum ^= __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0) parts[part] = sum;
    }
}
