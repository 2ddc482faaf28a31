#pragma once
#include <cuda_fp16.h>
#define KERNEL(name) extern "C" __global__ void name
#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
