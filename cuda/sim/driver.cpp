// The simulator's libcuda.so.1: the functions of CUDA's driver that cuda/ calls,
// over the CPU. Everything that the driver may do later is done later: work in a
// stream runs when the stream is waited for, so that a wait that is missing shows.
//
// Faults are asked for by the environment, read when a context is made:
//
//   KINDRED_SIM_DEVICES=n        devices, 1 if not given
//   KINDRED_SIM_CAPABILITY=90    compute capability
//   KINDRED_SIM_DRIVER=13000     version
//   KINDRED_SIM_MEMORY=bytes     of a device, 1 GiB if not given
//   KINDRED_SIM_SEED=n           of the order of blocks and threads
//   KINDRED_SIM_INIT=code        what cuInit answers
//   KINDRED_SIM_CREATE=code      what cuCtxCreate answers
//   KINDRED_SIM_LOAD=code        what cuModuleLoadData answers
//   KINDRED_SIM_LOSE_CODE=code   what a device answers that is lost, 719 if not given
//   KINDRED_SIM_FAIL_ALLOC=n     the n-th allocation from now fails
//   KINDRED_SIM_FAIL_LAUNCH=n    the n-th launch from now is refused
//   KINDRED_SIM_LOSE=n           the n-th launch from now loses the device
//   KINDRED_SIM_SKIP=name        launches of this kernel do nothing
//   KINDRED_SIM_NAME=name        of the device: --device auto takes none that is called a simulator
//   KINDRED_SIM_UNWRITTEN=1      the race detector names who reads shared memory that nobody wrote
//   KINDRED_SIM_SLOW=1           copies are as slow as a driver may make them: what a stream
//                                copies from the host must be until then as it was; what
//                                cuMemcpyHtoD copies arrives when the default stream is
//                                waited for, which waiting for another stream is not
#include <cuda.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "core.h"
#include "race.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace {

constexpr size_t zone = 256; // bytes before and behind what was asked for
constexpr unsigned char zone_byte = 0xa5, fresh_byte = 0xcb;
constexpr unsigned fatbin_magic = 0xba55ed50;

long setting(const char *name, long otherwise) {
    const char *s = getenv(name);
    return s && *s ? strtol(s, nullptr, 10) : otherwise;
}

struct Stream;

struct Memory {
    unsigned char *all;
    size_t size;
    unsigned char *begin() const { return all + zone; }
};

struct Context {
    int device;
    bool slow = false;
    std::vector<std::function<void()>> arriving; // copies of the default stream
    size_t arrived = 0;                          // of them, since the beginning
    std::map<uintptr_t, Memory> memory;
    std::map<uintptr_t, size_t> pinned;
    std::vector<Stream *> streams;
    std::vector<struct Event *> events;
    std::vector<struct Module *> modules;
    size_t used = 0;
    long until_alloc, until_launch, until_lost;
    CUresult lost = CUDA_SUCCESS;
    uint64_t launches = 0;
};

struct Stream {
    Context *context;
    std::vector<std::function<CUresult()>> work;
};

struct Event {
    std::chrono::steady_clock::time_point at;
    bool recorded = false;
    Stream *stream = nullptr;
    size_t copies = 0; // of the default stream, that were before
};

struct Module { int dummy; };

std::recursive_mutex lock;
thread_local Context *context;
bool started;

using Guard = std::lock_guard<std::recursive_mutex>;

// usable is the thread's context, or why there is none.
CUresult usable() {
    if (!started) return CUDA_ERROR_NOT_INITIALIZED;
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    return context->lost;
}

CUresult lose(CUresult why, const std::string &what) {
    fprintf(stderr, "simulator: %s\n", what.c_str());
    return context->lost = why;
}

bool whole(const Memory &m) {
#if defined(__SANITIZE_ADDRESS__)
    (void)m;
    return true; // nobody could write there
#endif
    for (size_t i = 0; i < zone; i++)
        if (m.all[i] != zone_byte || m.begin()[m.size + i] != zone_byte) return false;
    return true;
}

void release(const Memory &m) {
    ASAN_UNPOISON_MEMORY_REGION(m.all, m.size + 2 * zone);
    free(m.all);
}

// holds says whether n bytes from p on were allocated.
bool holds(uintptr_t p, size_t n) {
    auto at = context->memory.upper_bound(p);
    if (at == context->memory.begin()) return false;
    --at;
    return p >= at->first && p + n <= at->first + at->second.size;
}

#ifdef KINDRED_RACE
// described names a place in the context's memory.
std::string described(const Context *c, uintptr_t p) {
    auto at = c->memory.upper_bound(p);
    if (at == c->memory.begin()) return "memory that is not the device's";
    --at;
    const size_t place = p - at->first;
    if (place >= at->second.size) return "memory beside an allocation of " + std::to_string(at->second.size) + " bytes";
    return "byte " + std::to_string(place) + " of an allocation of " + std::to_string(at->second.size) + " bytes of the device";
}
#endif

CUresult flush(Stream *s) {
    while (!s->work.empty()) {
        auto work = std::move(s->work);
        s->work.clear();
        for (auto &f : work) {
            if (context->lost) return context->lost;
            if (CUresult r = f()) return r;
        }
    }
    return context->lost;
}

// arrive is what waits for the default stream, or for its first copies.
void arrive(Context *c, size_t first = SIZE_MAX) {
    while (!c->arriving.empty() && c->arrived < first) {
        c->arriving.front()();
        c->arriving.erase(c->arriving.begin());
        c->arrived++;
    }
}

Stream *stream_of(CUstream s) { return reinterpret_cast<Stream *>(s); }

int devices() { return int(setting("KINDRED_SIM_DEVICES", 1)); }
size_t memory_bytes() { return size_t(setting("KINDRED_SIM_MEMORY", 1l << 30)); }

} // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned) {
    Guard g(lock);
    CUresult code = CUresult(setting("KINDRED_SIM_INIT", 0));
    started = code == CUDA_SUCCESS;
    return code;
}

CUresult CUDAAPI cuDriverGetVersion(int *v) {
    *v = int(setting("KINDRED_SIM_DRIVER", CUDA_VERSION));
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *n) {
    if (!started) return CUDA_ERROR_NOT_INITIALIZED;
    *n = devices();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *d, int ordinal) {
    if (ordinal < 0 || ordinal >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    *d = ordinal;
    return CUDA_SUCCESS;
}

static int capability() { return int(setting("KINDRED_SIM_CAPABILITY", 90)); }
// shared_most is how much shared memory a block can have: the programming guide's table of
// capabilities.
static unsigned shared_most() { return (capability() >= 90 ? 227u : capability() == 80 ? 163u : 99u) << 10; }

CUresult CUDAAPI cuDeviceGetName(char *name, int n, CUdevice) {
    const char *other = getenv("KINDRED_SIM_NAME");
    snprintf(name, size_t(n), "%s", other && *other ? other : "Kindred simulator (not a GPU)");
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *n, CUdevice) {
    *n = memory_bytes();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice) {
    switch (a) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *v = capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *v = capability() % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *v = 4; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *v = int(shared_most()); break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *, unsigned, CUdevice device) {
    Guard g(lock);
    if (!started) return CUDA_ERROR_NOT_INITIALIZED;
    if (const long code = setting("KINDRED_SIM_CREATE", 0)) return CUresult(code);
    Context *c = new Context{};
    c->device = device;
    c->slow = setting("KINDRED_SIM_SLOW", 0) != 0;
    c->until_alloc = setting("KINDRED_SIM_FAIL_ALLOC", 0);
    c->until_launch = setting("KINDRED_SIM_FAIL_LAUNCH", 0);
    c->until_lost = setting("KINDRED_SIM_LOSE", 0);
    context = c;
    *out = reinterpret_cast<CUcontext>(c);
    return CUDA_SUCCESS;
}

// As programs that were built with CUDA 12 call it.
CUresult CUDAAPI cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device) { return cuCtxCreate_v4(out, nullptr, flags, device); }

CUresult CUDAAPI cuCtxDestroy(CUcontext ctx) {
    Guard g(lock);
    Context *c = reinterpret_cast<Context *>(ctx);
    if (!c) return CUDA_ERROR_INVALID_CONTEXT;
    CUresult r = c->lost;
    for (auto &[p, m] : c->memory) {
        if (!r && !whole(m)) r = CUDA_ERROR_ILLEGAL_ADDRESS;
        release(m);
    }
    for (auto &[p, n] : c->pinned) free(reinterpret_cast<void *>(p));
    for (auto *s : c->streams) delete s;
    for (auto *e : c->events) delete e;
    for (auto *m : c->modules) delete m;
    if (context == c) context = nullptr;
    delete c;
    return r;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *p, size_t n) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (n == 0) return CUDA_ERROR_INVALID_VALUE;
    if (context->until_alloc > 0 && --context->until_alloc == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    if (n > memory_bytes() - context->used) return CUDA_ERROR_OUT_OF_MEMORY;
    void *raw = nullptr;
    if (posix_memalign(&raw, 256, n + 2 * zone)) return CUDA_ERROR_OUT_OF_MEMORY;
    Memory m{static_cast<unsigned char *>(raw), n};
    memset(m.all, zone_byte, zone);
    memset(m.begin(), fresh_byte, n);
    memset(m.begin() + n, zone_byte, zone);
    ASAN_POISON_MEMORY_REGION(m.all, zone);
    ASAN_POISON_MEMORY_REGION(m.begin() + n, zone);
    context->used += n;
    *p = reinterpret_cast<uintptr_t>(m.begin());
    context->memory[*p] = m;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr p) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    auto at = context->memory.find(p);
    if (at == context->memory.end()) return CUDA_ERROR_INVALID_VALUE;
    arrive(context);
    const bool intact = whole(at->second);
    context->used -= at->second.size;
    release(at->second);
    context->memory.erase(at);
    return intact ? CUDA_SUCCESS : lose(CUDA_ERROR_ILLEGAL_ADDRESS, "memory beside an allocation was written");
}

CUresult CUDAAPI cuMemGetInfo(size_t *available, size_t *total) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    *total = memory_bytes();
    *available = *total - context->used;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void **p, size_t n, unsigned) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (context->until_alloc > 0 && --context->until_alloc == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    if (!(*p = malloc(n))) return CUDA_ERROR_OUT_OF_MEMORY;
    context->pinned[reinterpret_cast<uintptr_t>(*p)] = n;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void *p) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!context->pinned.erase(reinterpret_cast<uintptr_t>(p))) return CUDA_ERROR_INVALID_VALUE;
    free(p);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t n) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(to, n)) return CUDA_ERROR_INVALID_VALUE;
    arrive(context); // one after the other
    if (!context->slow) {
        memcpy(reinterpret_cast<void *>(to), from, n);
        return CUDA_SUCCESS;
    }
    const auto *p = static_cast<const unsigned char *>(from);
    context->arriving.push_back([to, staged = std::vector(p, p + n)] { memcpy(reinterpret_cast<void *>(to), staged.data(), staged.size()); });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoH(void *to, CUdeviceptr from, size_t n) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(from, n)) return CUDA_ERROR_INVALID_VALUE;
    arrive(context);
    memcpy(to, reinterpret_cast<void *>(from), n);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t n, CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(to, n)) return CUDA_ERROR_INVALID_VALUE;
    std::vector<unsigned char> was;
    if (context->slow) was.assign(static_cast<const unsigned char *>(from), static_cast<const unsigned char *>(from) + n);
    stream_of(s)->work.push_back([=] {
        if (!was.empty() && memcmp(from, was.data(), n))
            return lose(CUDA_ERROR_LAUNCH_FAILED, "memory of the host was changed while a copy of " + std::to_string(n) + " bytes of it to the device was under way");
        memcpy(reinterpret_cast<void *>(to), from, n);
        return CUDA_SUCCESS;
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(from, n)) return CUDA_ERROR_INVALID_VALUE;
    stream_of(s)->work.push_back([=] {
        memcpy(to, reinterpret_cast<const void *>(from), n);
        return CUDA_SUCCESS;
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(dst, n) || !holds(src, n)) return CUDA_ERROR_INVALID_VALUE;
    stream_of(s)->work.push_back([=] {
        memcpy(reinterpret_cast<void *>(dst), reinterpret_cast<const void *>(src), n);
        return CUDA_SUCCESS;
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!holds(to, n)) return CUDA_ERROR_INVALID_VALUE;
    stream_of(s)->work.push_back([=] { memset(reinterpret_cast<void *>(to), value, n); return CUDA_SUCCESS; });
    return CUDA_SUCCESS;
}

// A fatbin's header: magic, version, its own length, and that of what follows.
CUresult CUDAAPI cuModuleLoadData(CUmodule *m, const void *image) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (const long code = setting("KINDRED_SIM_LOAD", 0)) return CUresult(code);
    unsigned magic;
    memcpy(&magic, image, sizeof magic);
    if (magic != fatbin_magic) return CUDA_ERROR_INVALID_IMAGE;
    context->modules.push_back(new Module{});
    *m = reinterpret_cast<CUmodule>(context->modules.back());
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *f, CUmodule, const char *name) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    for (auto &k : kindred::kernels())
        if (!strcmp(k.name, name)) {
            *f = reinterpret_cast<CUfunction>(&k);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return usable(); }

// cuFuncGetParamInfo is how a caller finds out how many parameters there are.
CUresult CUDAAPI cuFuncGetParamInfo(CUfunction f, size_t i, size_t *offset, size_t *size) {
    if (i >= size_t(reinterpret_cast<kindred::Kernel *>(f)->parameters)) return CUDA_ERROR_INVALID_VALUE;
    *offset = 8 * i;
    if (size) *size = 8;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                unsigned shared, CUstream s, void **params, void **) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    auto *k = reinterpret_cast<kindred::Kernel *>(f);
    const uint64_t threads = uint64_t(bx) * by * bz;
    if (!gx || !gy || !gz || !threads || threads > 1024 || bz > 64 || gy > 65535 || gz > 65535 || gx > 0x7fffffff) return CUDA_ERROR_INVALID_VALUE;
    if (shared > shared_most()) return CUDA_ERROR_INVALID_VALUE;
    Context *c = context;
    if (c->until_launch > 0 && --c->until_launch == 0) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    std::vector<uint64_t> copy(size_t(k->parameters));
    for (size_t i = 0; i < copy.size(); i++) memcpy(&copy[i], params[i], 8);
    const kindred::Shape shape{{gx, gy, gz}, {bx, by, bz}, shared};
    const char *skip = getenv("KINDRED_SIM_SKIP");
    if (skip && !strcmp(skip, k->name)) return CUDA_SUCCESS;
    const uint64_t seed = uint64_t(setting("KINDRED_SIM_SEED", 1)) * 1000003 + c->launches++;
    stream_of(s)->work.push_back([=]() mutable {
        if (c->until_lost > 0 && --c->until_lost == 0) return lose(CUresult(setting("KINDRED_SIM_LOSE_CODE", CUDA_ERROR_LAUNCH_FAILED)), "the device is lost, as was asked for");
        std::vector<void *> slots;
        for (auto &x : copy) slots.push_back(&x);
#ifdef KINDRED_RACE
        kindred::race::describe = [c](const void *p) { return described(c, reinterpret_cast<uintptr_t>(p)); };
#endif
        try {
            kindred::run(*k, shape, slots.data(), seed);
        } catch (const kindred::Fault &e) {
            return lose(CUDA_ERROR_LAUNCH_FAILED, e.what());
        }
        for (auto &[p, m] : c->memory)
            if (!whole(m)) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, std::string("kernel ") + k->name + " wrote beside an allocation of " + std::to_string(m.size) + " bytes");
        return CUDA_SUCCESS;
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream *s, unsigned) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    context->streams.push_back(new Stream{context, {}});
    *s = reinterpret_cast<CUstream>(context->streams.back());
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    if (!s) return arrive(context), CUDA_SUCCESS;
    return flush(stream_of(s));
}

CUresult CUDAAPI cuEventCreate(CUevent *e, unsigned) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    context->events.push_back(new Event{});
    *e = reinterpret_cast<CUevent>(context->events.back());
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent e, CUstream s) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    Event *event = reinterpret_cast<Event *>(e);
    event->recorded = false;
    event->stream = stream_of(s);
    event->copies = s ? 0 : context->arrived + context->arriving.size();
    if (!s) return event->at = std::chrono::steady_clock::now(), event->recorded = true, CUDA_SUCCESS;
    stream_of(s)->work.push_back([=] { event->at = std::chrono::steady_clock::now(); event->recorded = true; return CUDA_SUCCESS; });
    return CUDA_SUCCESS;
}

// No more of the stream's work is done than what the event waits for.
CUresult CUDAAPI cuEventSynchronize(CUevent e) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    Event *event = reinterpret_cast<Event *>(e);
    if (!event->stream) return arrive(context, event->copies), CUDA_SUCCESS;
    auto &work = event->stream->work;
    while (!event->recorded && !work.empty()) {
        auto f = std::move(work.front());
        work.erase(work.begin());
        if (CUresult r = f()) return r;
        if (context->lost) return context->lost;
    }
    return CUDA_SUCCESS;
}

// A stream waits for what the event was recorded behind, which is done then at the latest.
CUresult CUDAAPI cuStreamWaitEvent(CUstream s, CUevent e, unsigned) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    const Event *event = reinterpret_cast<Event *>(e);
    if (event->stream) return CUDA_ERROR_NOT_SUPPORTED; // nobody has two streams of their own
    Context *c = context;
    stream_of(s)->work.push_back([c, copies = event->copies] { return arrive(c, copies), CUDA_SUCCESS; });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    Guard g(lock);
    if (CUresult r = usable()) return r;
    Event *a = reinterpret_cast<Event *>(from), *b = reinterpret_cast<Event *>(to);
    if (!a->recorded || !b->recorded) return CUDA_ERROR_INVALID_HANDLE;
    *ms = std::chrono::duration<float, std::milli>(b->at - a->at).count();
    return CUDA_SUCCESS;
}
#ifdef cuEventElapsedTime // a name of its own since CUDA 13
static CUresult elapsed(float *ms, CUevent from, CUevent to) { return cuEventElapsedTime(ms, from, to); }
#undef cuEventElapsedTime
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to) { return elapsed(ms, from, to); }
#endif

CUresult CUDAAPI cuGetErrorName(CUresult code, const char **name) {
    switch (code) {
    case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case CUDA_ERROR_NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case CUDA_ERROR_INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case CUDA_ERROR_DEVICE_UNAVAILABLE: *name = "CUDA_ERROR_DEVICE_UNAVAILABLE"; break;
    case CUDA_ERROR_NO_BINARY_FOR_GPU: *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION: *name = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"; break;
    case CUDA_ERROR_LAUNCH_TIMEOUT: *name = "CUDA_ERROR_LAUNCH_TIMEOUT"; break;
    case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case CUDA_ERROR_ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; break;
    default: *name = "CUDA_ERROR"; return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

} // extern "C"
