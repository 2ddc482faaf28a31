// Checks the race detector: kernels that have a race are caught in every order of turns, at the
// place and with the lines that they say, and kernels without one are not. See test.sh.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../kernels/wgmma.cuh"
#include "core.h"

// Each kernel takes in [256] and out [256] ints. The lines of a race are marked.
KERNEL(no_barrier)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x]; // race
    out[threadIdx.x] = shared[63 - threadIdx.x]; // race
}
KERNEL(one_barrier)(const int *in, int *out) { // and the next round writes what is still read
    SHARED(int, shared, 64);
    for (int i = 0; i < 2; i++) {
        shared[threadIdx.x] = in[threadIdx.x + i]; // race
        __syncthreads();
        out[threadIdx.x] = shared[63 - threadIdx.x]; // race
    }
}
KERNEL(two_writers)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[threadIdx.x / 2] = in[threadIdx.x]; // race
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x];
}
KERNEL(no_syncwarp)(const int *in, int *out) { // a shuffle orders nothing
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x]; // race
    const int x = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
    out[threadIdx.x] = shared[x]; // race
}
KERNEL(syncwarp_of_others)(const int *in, int *out) { // 16 lanes each, and one reads across
    SHARED(int, shared, 64);
    const int lane = threadIdx.x % 32;
    shared[threadIdx.x] = in[threadIdx.x]; // race
    __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
    out[threadIdx.x] = shared[lane == 3 ? threadIdx.x + 16 : threadIdx.x ^ 1]; // race
}
KERNEL(syncwarp_for_a_block)(const int *in, int *out) { // the other warp's
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x]; // race
    __syncwarp();
    out[threadIdx.x] = shared[threadIdx.x ^ 32]; // race
}
KERNEL(a_byte_of_a_word)(const int *in, int *out) {
    SHARED(unsigned char, shared, 256);
    for (int i = 0; i < 4; i++) shared[4 * threadIdx.x + i] = static_cast<unsigned char>(in[threadIdx.x]); // race
    if (threadIdx.x == 40) shared[4 * 7 + 2] = 1; // race
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x];
}
KERNEL(a_read_of_many)(const int *in, int *out) { // one of many readers is beside the writer
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    int sum = 0;
    const int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        if (lane % 2 == 0) sum += shared[5]; // race
        __syncwarp(0x0000ffffu << lane / 16 * 16);
        if (lane == 16) sum += shared[5]; // race
        __syncwarp(0x0000ffffu << lane / 16 * 16);
        if (lane == 2) shared[5] = 1; // race
    }
    out[threadIdx.x] = sum;
}
KERNEL(second_syncwarp_missing)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    const int x = shared[threadIdx.x ^ 1];
    __syncwarp();
    shared[threadIdx.x] = x;                  // race
    out[threadIdx.x] = shared[threadIdx.x ^ 1]; // race
}
KERNEL(a_reader_of_another_warp)(const int *in, int *out) { // beside those of the writer's own
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    int sum = 0;
    if (threadIdx.x < 32 || threadIdx.x == 40) sum = shared[0]; // race
    __syncwarp();
    if (threadIdx.x == 7) shared[0] = 1; // race
    out[threadIdx.x] = sum;
}
// Of readers that came at two times, the writer waits for one alone.
static __device__ __forceinline__ int at_two_times(int *shared, int lane) {
    int sum = 0;
    if (lane == 2) sum = shared[5]; // it is waited for
    if (lane >= 16) __syncwarp(0xffff0000u);
    if (lane == 20) sum = shared[5]; // race
    if (lane < 16) __syncwarp(0xffffu);
    return sum;
}
KERNEL(a_late_reader)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    const int sum = threadIdx.x < 32 ? at_two_times(shared, threadIdx.x) : 0; // race
    if (threadIdx.x == 1) shared[5] = 1;                                      // race
    out[threadIdx.x] = sum;
}
KERNEL(a_late_reader_of_a_word)(const int *in, int *out) { // of which a byte is written
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    const int sum = threadIdx.x < 32 ? at_two_times(shared, threadIdx.x) : 0; // race
    if (threadIdx.x == 1) reinterpret_cast<unsigned char *>(shared)[22] = 1;  // race
    out[threadIdx.x] = sum;
}
KERNEL(copy_is_read)(const int *in, int *out) { // by the thread that asked, which did not wait
    SHARED(int, shared, 256);
    cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, true); // race
    cp_async_commit();
    cp_async_wait<1>();
    out[threadIdx.x] = shared[4 * threadIdx.x]; // race
    cp_async_wait<0>();
}
KERNEL(copy_over_what_is_read)(const int *in, int *out) {
    SHARED(int, shared, 256);
    for (int i = 0; i < 2; i++) {
        cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, true); // race
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        out[threadIdx.x] = shared[4 * (63 - threadIdx.x)]; // race
    }
}
KERNEL(copy_without_barrier)(const int *in, int *out) {
    SHARED(int, shared, 256);
    cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, true); // race
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = shared[4 * (63 - threadIdx.x)]; // race
}
KERNEL(copy_behind_the_barrier)(const int *in, int *out) { // is waited for
    SHARED(int, shared, 256);
    if (threadIdx.x == 3) cp_async16(shared + 16, in, true); // race
    cp_async_commit();
    __syncthreads();
    cp_async_wait<0>();
    if (threadIdx.x == 40) out[0] = shared[17]; // race
}
KERNEL(copy_before_the_barrier)(const int *in, int *out) { // is asked for
    SHARED(int, shared, 256);
    shared[4 * threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 40) out[0] = shared[16];              // race
    if (threadIdx.x == 3) cp_async16(shared + 16, in, true); // race
    cp_async_commit();
    __syncthreads();
    cp_async_wait<0>();
}
KERNEL(copy_of_what_is_written)(const int *in, int *out) {
    SHARED(int, shared, 256);
    out[4 * threadIdx.x] = in[threadIdx.x];                                   // race
    cp_async16(shared + 4 * threadIdx.x, out + 4 * (63 - threadIdx.x), true); // race
    cp_async_commit();
    cp_async_wait<0>();
}
KERNEL(two_copies)(const int *in, int *out) {
    SHARED(int, shared, 256);
    cp_async16(shared + 4 * (threadIdx.x / 2), in + 4 * threadIdx.x, true); // race
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = shared[4 * (threadIdx.x / 2)];
}
KERNEL(read_after_atomics)(const int *in, int *out) {
    SHARED(int, shared, 1);
    if (threadIdx.x == 0) shared[0] = 0;
    __syncthreads();
    atomicAdd(&shared[0], in[threadIdx.x]); // race
    out[threadIdx.x] = shared[0]; // race
}
KERNEL(a_read_beside_an_atomic)(const int *in, int *out) {
    SHARED(int, shared, 1);
    if (threadIdx.x == 0) shared[0] = 0;
    __syncthreads();
    if (threadIdx.x == 3) atomicAdd(&shared[0], in[3]); // race
    if (threadIdx.x == 40) out[0] = shared[0];          // race
}
KERNEL(fragment_without_barrier)(const int *in, int *out) {
    SHARED(unsigned short, shared, 512);
    for (int i = threadIdx.x; i < 512; i += 64) shared[i] = static_cast<unsigned short>(in[i / 2]); // race
    unsigned r[4];
    ldmatrix_x4(r, shared + threadIdx.x % 32 * 8); // race
    out[threadIdx.x] = static_cast<int>(r[0] + r[3]);
}
// Of two warps of a group, which the simulator does not ask to be four.
KERNEL(product_without_barrier)(const int *in, int *out) {
    DYNAMIC_SHARED(__half, shared);
    float sum[8][4];
    for (int i = threadIdx.x; i < 256; i += 64) cp_async16(shared + 8 * i, in, true); // race
    cp_async_commit();
    cp_async_wait<0>();
    fence_async();
    wgmma_fence();
    wgmma<64>(sum, operand_at(shared), operand_at(shared), false, shared); // race
    wgmma_commit();
    wgmma_wait<0>();
    out[threadIdx.x] = __float_as_int(sum[0][0]);
}
KERNEL(copy_over_what_is_multiplied)(const int *in, int *out) { // this thread's product has ended, others' not
    DYNAMIC_SHARED(__half, shared);
    float sum[8][4];
    for (int i = threadIdx.x; i < 256; i += 64) cp_async16(shared + 8 * i, in, true);
    cp_async_commit();
    cp_async_wait<0>();
    fence_async();
    __syncthreads();
    wgmma_fence();
    wgmma<64>(sum, operand_at(shared), operand_at(shared), false, shared); // race
    wgmma_commit();
    wgmma_wait<0>();
    cp_async16(shared + 8 * threadIdx.x, in, true); // race
    out[threadIdx.x] = __float_as_int(sum[0][0]);
}
KERNEL(product_behind_the_barrier)(const int *in, int *out) { // is waited for
    DYNAMIC_SHARED(__half, shared);
    float sum[8][4];
    for (int i = threadIdx.x; i < 256; i += 64) cp_async16(shared + 8 * i, in, true);
    cp_async_commit();
    cp_async_wait<0>();
    fence_async();
    __syncthreads();
    wgmma_fence();
    wgmma<64>(sum, operand_at(shared), operand_at(shared), false, shared); // race
    wgmma_commit();
    __syncthreads();
    shared[threadIdx.x] = __float2half_rn(1.0f); // race
    wgmma_wait<0>();
    out[threadIdx.x] = __float_as_int(sum[0][0]);
}
KERNEL(blocks_write_one)(const int *in, int *out) { out[threadIdx.x] = in[blockIdx.x]; } // race
KERNEL(threads_write_one)(const int *in, int *out) { out[(threadIdx.x / 2 + 37 * blockIdx.x) & 255] = in[0]; } // race
KERNEL(blocks_read_one)(const int *in, int *out) { // what another block adds to
    if (threadIdx.x == 0) atomicAdd(out, in[0]); // race
    __syncthreads();
    if (threadIdx.x == 0) out[1 + blockIdx.x] = out[0]; // race
}

// Without a race.
KERNEL(well_done)(const int *in, int *out) {
    SHARED(int, shared, 256);
    SHARED(unsigned char, byte, 64);
    SHARED(int, count, 1);
    const int lane = threadIdx.x % 32;
    cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, true);
    cp_async_commit();
    byte[threadIdx.x] = static_cast<unsigned char>(threadIdx.x); // others have the rest of the word
    if (threadIdx.x == 0) count[0] = 0;
    cp_async_wait<0>();
    const int own = shared[4 * threadIdx.x];
    __syncthreads();
    atomicAdd(&count[0], own & 1);
    int sum = shared[0] + byte[63 - threadIdx.x]; // all read one
    __syncthreads();
    sum += count[0];
    shared[threadIdx.x] = sum;
    __syncwarp();
    sum += shared[threadIdx.x ^ 1];
    __syncwarp();
    shared[threadIdx.x ^ 3] = sum;
    __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
    sum += shared[threadIdx.x ^ 5];
    unsigned r[4];
    __syncthreads();
    ldmatrix_x4(r, reinterpret_cast<const unsigned short *>(shared) + lane * 8);
    atomicAdd(&out[255], static_cast<int>(r[1] & 1));
    out[64 * blockIdx.x + threadIdx.x] = sum; // of three blocks
    __syncthreads();
    sum += out[64 * blockIdx.x + (threadIdx.x ^ 1)];
    __syncthreads();
    out[64 * blockIdx.x + threadIdx.x] = sum;
}

KERNEL(well_done_products)(const int *in, int *out) { // one may be under way while the next is asked for
    DYNAMIC_SHARED(__half, shared);
    float sum[8][4];
    for (int s = 0; s < 4; s++) {
        for (int i = threadIdx.x; i < 256; i += 64) cp_async16(shared + 2048 * (s % 3) + 8 * i, in, true);
        cp_async_commit();
        cp_async_wait<0>();
        fence_async();
        wgmma_wait<1>();
        __syncthreads();
        wgmma_fence();
        wgmma<64>(sum, operand_at(shared + 2048 * (s % 3)), operand_at(shared + 2048 * (s % 3)), s > 0, shared);
        wgmma_commit();
    }
    wgmma_wait<0>();
    __syncthreads();
    shared[threadIdx.x] = __float2half_rn(sum[0][0]);
    out[64 * blockIdx.x + threadIdx.x] = __float_as_int(sum[0][0]);
}

KERNEL(well_done_at_two_times)(const int *in, int *out) {
    SHARED(int, shared, 64);
    int sum = 0;
    for (int round = 0; round < 2; round++) {
        shared[threadIdx.x] = in[threadIdx.x];
        __syncthreads();
        if (threadIdx.x < 32) {
            const int lane = threadIdx.x;
            if (round == 0 && lane >= 16)
                for (int i = 0; i < 4; i++) __syncwarp(0xffff0000u);
            sum += at_two_times(shared, lane);
            __syncwarp();
            if (lane == 1) shared[5] = 1;
        }
        __syncthreads();
    }
    out[threadIdx.x] = sum;
}

// KERNELS calls X with each kernel that has a race, how many blocks it takes, and what the
// message says beside its lines.
#define KERNELS(X)                                                                              \
    X(no_barrier, 1, "of 256 of a shared array")                                                \
    X(one_barrier, 1, "of 256 of a shared array")                                               \
    X(two_writers, 1, "is written at")                                                          \
    X(no_syncwarp, 1, "nothing puts the two in order")                                          \
    X(syncwarp_of_others, 1, "of 256 of a shared array")                                        \
    X(syncwarp_for_a_block, 1, "of 256 of a shared array")                                      \
    X(a_byte_of_a_word, 1, "byte 30 of 256")                                                    \
    X(a_read_of_many, 1, "byte 20 of 256")                                                      \
    X(second_syncwarp_missing, 1, "of 256 of a shared array")                                   \
    X(a_reader_of_another_warp, 1, "byte 0 of 256")                                             \
    X(a_late_reader, 1, "byte 20 of 256")                                                       \
    X(a_late_reader_of_a_word, 1, "byte 22 of 256")                                             \
    X(copy_behind_the_barrier, 1, "of 1024 of a shared array")                                  \
    X(copy_before_the_barrier, 1, "of 1024 of a shared array")                                  \
    X(copy_of_what_is_written, 1, "the device's memory")                                        \
    X(a_read_beside_an_atomic, 1, "byte 0 of 4")                                                \
    X(copy_is_read, 1, "the thread itself copies to it")                                        \
    X(copy_over_what_is_read, 1, "of 1024 of a shared array")                                   \
    X(copy_without_barrier, 1, "of 1024 of a shared array")                                     \
    X(two_copies, 1, "of 1024 of a shared array")                                               \
    X(read_after_atomics, 1, "by an atomic at")                                                 \
    X(fragment_without_barrier, 1, "of 1024 of a shared array")                                 \
    X(product_without_barrier, 1, "the dynamic shared memory")                                  \
    X(copy_over_what_is_multiplied, 1, "the dynamic shared memory")                             \
    X(product_behind_the_barrier, 1, "the dynamic shared memory")                               \
    X(blocks_write_one, 3, "is written at races.cpp")                                           \
    X(threads_write_one, 1, "the device's memory")                                              \
    X(blocks_read_one, 3, "block (")
#define REGISTER(name, blocks, says) KINDRED_REGISTER(name)
KERNELS(REGISTER)
KINDRED_REGISTER(well_done)
KINDRED_REGISTER(well_done_products)
KINDRED_REGISTER(well_done_at_two_times)

// Not races, and caught too.
KERNEL(nobody_wrote)(const int *in, int *out) {
    SHARED(int, shared, 64);
    if (threadIdx.x < 63) shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x]; // race
}
KERNEL(nobody_wrote_a_byte)(const int *in, int *out) {
    SHARED(unsigned char, shared, 260);
    for (int i = threadIdx.x; i < 260; i += 64)
        if (i != 37) shared[i] = static_cast<unsigned char>(in[0]);
    __syncthreads();
    out[threadIdx.x] = reinterpret_cast<const int *>(static_cast<const unsigned char *>(shared))[threadIdx.x]; // race
    __syncthreads();
    if (threadIdx.x == 0) shared[37] = 0; // too late
}
KERNEL(nobody_copied)(const int *in, int *out) {
    SHARED(int, shared, 64);
    if (threadIdx.x < 15) cp_async16(shared + 4 * threadIdx.x, in, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x]; // race
}
KERNEL(reads_beside)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x + 1]; // race
}
KERNEL(writes_before)(const int *in, int *out) {
    SHARED(int, shared, 64);
    shared[static_cast<int>(threadIdx.x) - 1] = in[threadIdx.x]; // race
    out[threadIdx.x] = 0;
}
#define MISTAKES(f)                                                                                   \
    f(nobody_wrote, "byte 252 of 256 of a shared array is read at ")                                   \
    f(nobody_wrote_a_byte, "byte 37 of 260 of a shared array is read at ")                             \
    f(nobody_copied, "of 256 of a shared array is read at ")                                           \
    f(reads_beside, "4 bytes from byte 256 on of 256 of a shared array are read at ")                  \
    f(writes_before, "4 bytes from byte -4 on of 256 of a shared array are written at ")
#define REGISTER_MISTAKE(name, says) KINDRED_REGISTER(name)
MISTAKES(REGISTER_MISTAKE)

static int failures;

static void fail(const char *kernel, uint64_t seed, const char *what, const std::string &fault) {
    if (failures++ < 20) printf("FAIL %s, order %d: %s: \"%s\"\n", kernel, static_cast<int>(seed), what, fault.c_str());
}

static std::string launch(const char *name, unsigned blocks, uint64_t seed) {
    static int in[256], out[256];
    for (int i = 0; i < 256; i++) in[i] = i;
    const int *from = in;
    int *to = out;
    void *params[] = {&from, &to};
    for (auto &k : kindred::kernels())
        if (!strcmp(k.name, name)) {
            try {
                kindred::run(k, {{blocks, 1, 1}, {64, 1, 1}, 16 << 10}, params, seed);
                return "";
            } catch (const kindred::Fault &e) { return e.what(); }
        }
    printf("no kernel %s\n", name);
    exit(1);
}

// marked says whether a line of this file belongs to the kernel and is marked.
static bool marked(const char *kernel, int line) {
    FILE *f = fopen(__FILE__, "r");
    if (!f) {
        printf("%s cannot be read: run this where it was compiled\n", __FILE__);
        exit(1);
    }
    char text[512];
    std::string inside;
    bool yes = false;
    for (int at = 1; fgets(text, sizeof text, f); at++) {
        if (!strncmp(text, "static ", 7)) inside = kernel; // it may call it
        if (!strncmp(text, "KERNEL(", 7)) inside = std::string(text + 7, strcspn(text + 7, ")"));
        if (at == line) yes = inside == kernel && strstr(text, "// race");
    }
    fclose(f);
    return yes;
}

static void caught(const char *kernel, unsigned blocks, const char *says) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const std::string fault = launch(kernel, blocks, seed);
        if (fault.find(std::string("kernel ") + kernel + ", block (") || fault.find("data race on ") == fault.npos || fault.find(says) == fault.npos) {
            fail(kernel, seed, "is not caught, or does not say so", fault);
            continue;
        }
        int lines = 0;
        for (size_t at = 0; (at = fault.find("races.cpp:", at)) != fault.npos; at++, lines++)
            if (!marked(kernel, atoi(fault.c_str() + at + 10))) fail(kernel, seed, "names a line that has no part in it", fault);
        if (lines < 2) fail(kernel, seed, "does not name two lines", fault);
    }
}

// noticed: a mistake that is no race, and its line.
static void noticed(const char *kernel, const std::string &says) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const std::string fault = launch(kernel, 2, seed);
        const size_t at = fault.find(says);
        if (fault.find(std::string("kernel ") + kernel + ", block (") || fault.find("thread (") == fault.npos || at == fault.npos ||
            fault.find("races.cpp:", at) != at + says.size() || !marked(kernel, atoi(fault.c_str() + at + says.size() + 10)))
            fail(kernel, seed, "is not caught, or does not say so", fault);
    }
}

int main() {
    setenv("KINDRED_SIM_UNWRITTEN", "1", 1);
#define NOTICED(name, says) noticed(#name, says);
    MISTAKES(NOTICED)
#define CAUGHT(name, blocks, says) caught(#name, blocks, says);
    KERNELS(CAUGHT)
    for (const char *kernel : {"well_done", "well_done_products", "well_done_at_two_times"})
        for (uint64_t seed = 1; seed <= 20; seed++) {
            const std::string fault = launch(kernel, kernel[9] ? 1 : 3, seed);
            if (!fault.empty()) fail(kernel, seed, "has no race", fault);
        }
    printf("no_barrier, for example: %s\n", launch("no_barrier", 1, 1).c_str());
    printf(failures ? "%d failures\n" : "ok: races are caught in every order, and what is none is not\n", failures);
    return failures != 0;
}
