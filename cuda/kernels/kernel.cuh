// What every kernel includes: CUDA under nvcc, the simulator under g++. KERNEL
// declares a kernel, KERNEL_BOUNDS one of so many threads a block of which a processor is to hold
// so many blocks, SHARED a static array of shared memory that begins at a multiple
// of 16 bytes, DYNAMIC_SHARED what the launch gave.
#pragma once

#include <stdint.h>

#ifdef KINDRED_SIM

#include "../sim/sim.h"

#define KERNEL(name) extern "C" void name
#define KERNEL_BOUNDS(name, threads, blocks) extern "C" void name
#define SHARED(type, name, count) \
    type(&name)[count] = *reinterpret_cast<type(*)[count]>(kindred::shared([] { static char key; return &key; }(), sizeof(type) * (count)))
#define DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(kindred::dynamic_shared())

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define KERNEL(name) extern "C" __global__ void name
#define KERNEL_BOUNDS(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
// Every kernel's dynamic memory is the same symbol, so it is declared with one type.
#define DYNAMIC_SHARED(type, name)                                               \
    extern __shared__ __align__(128) unsigned char kindred_dynamic_shared[]; \
    type *const name = reinterpret_cast<type *>(kindred_dynamic_shared)

#endif
