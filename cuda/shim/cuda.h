/*
 * Stands before the driver's own cuda.h, so that gorgonia.org/cu v0.9.6, written
 * against CUDA 11 and 12, builds unmodified with the headers of CUDA 13, which
 * changed the parameters of five functions it calls. Their old forms are given
 * back as inline functions over the new ones. With older headers it does nothing.
 */
#ifndef KINDRED_CUDA_SHIM_H
#define KINDRED_CUDA_SHIM_H

#include_next <cuda.h>

#if CUDA_VERSION >= 13000
#include <stddef.h>

/* A device's number as CUDA 13 names a place of memory; -1 was the host. */
static inline CUmemLocation kindred_location(CUdevice device) {
    CUmemLocation at;
    at.type = device < 0 ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE;
    at.id = device < 0 ? 0 : device;
    return at;
}

static inline CUresult kindred_cuMemAdvise(CUdeviceptr p, size_t n, CUmem_advise advice, CUdevice device) {
    return cuMemAdvise_v2(p, n, advice, kindred_location(device));
}

static inline CUresult kindred_cuMemPrefetchAsync(CUdeviceptr p, size_t n, CUdevice device, CUstream stream) {
    return cuMemPrefetchAsync_v2(p, n, kindred_location(device), 0, stream);
}

static inline CUresult kindred_cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device) {
    return cuCtxCreate_v4(context, NULL, flags, device);
}

static inline CUresult kindred_cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t n) {
    return cuGraphAddDependencies_v2(graph, from, to, NULL, n);
}

static inline CUresult kindred_cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *n) {
    return cuGraphGetEdges_v2(graph, from, to, NULL, n);
}

#undef cuMemAdvise
#undef cuMemPrefetchAsync
#undef cuCtxCreate
#undef cuGraphAddDependencies
#undef cuGraphGetEdges
#define cuMemAdvise kindred_cuMemAdvise
#define cuMemPrefetchAsync kindred_cuMemPrefetchAsync
#define cuCtxCreate kindred_cuCtxCreate
#define cuGraphAddDependencies kindred_cuGraphAddDependencies
#define cuGraphGetEdges kindred_cuGraphGetEdges
#endif

#endif
