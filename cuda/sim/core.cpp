#include "core.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <sys/mman.h>

#include "race.h"
#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define KINDRED_ASAN 1
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define KINDRED_ASAN 0
#endif

// swap_stacks saves the callee's registers on the stack, stores its pointer to
// *from, and goes on with the stack at to.
extern "C" void kindred_swap_stacks(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.text
.globl kindred_swap_stacks
.type kindred_swap_stacks,@function
kindred_swap_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kindred_swap_stacks,.-kindred_swap_stacks
)");
static constexpr int saved = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl kindred_swap_stacks
.type kindred_swap_stacks,@function
kindred_swap_stacks:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size kindred_swap_stacks,.-kindred_swap_stacks
)");
#else
#error "the simulator's switch of stacks is written for x86-64 and aarch64"
#endif

namespace kindred {

Thread *current;

namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr unsigned char poison = 0xff; // a NaN, and no index
constexpr unsigned char zone_byte = 0xa5;
constexpr size_t dynamic_alignment = 1024; // as kernel.cuh has it

enum class State { ready, barrier, meeting, ended };

struct Copy {
    void *to;
    const void *from;
    size_t wanted;
    const void *pc; // who asked for it
};

// Sum is what products under way add to: what it will be, and how many they are.
struct Sum {
    float *at;
    std::vector<float> value;
    size_t products;
};

struct Product {
    float *sum;
    MakeProduct make;
    std::vector<unsigned char> what;
    const void *pc; // who asked for it
};

struct Fiber : Thread {
    void *stack = nullptr; // where it stopped
    State state = State::ready;
    unsigned number = 0; // in the block
    Place at{};
    bool result_of_barrier = false;
    int counted = 0;
    uint64_t inbox[32];
    std::vector<std::vector<Copy>> copies{1}; // groups; the last is not committed
    std::vector<std::vector<Product>> products{1};
    std::vector<Sum> sums;
    const void *product_pc = nullptr; // of the product that is being made
    bool products_fenced = false; // and nothing was done with a sum since
    bool copied = false;          // and no fence put it before what products read
#if KINDRED_ASAN
    void *fake = nullptr;
#endif
};

// Meeting is of lanes of a warp with one mask.
struct Meeting {
    unsigned mask, arrived;
    const char *what;
    uint64_t values[32];
};

// Array is shared memory of a block, between two zones that nobody may touch.
struct Array {
    size_t bytes;
    unsigned char *all, *begin;
    Array(size_t n, size_t alignment) : bytes(n) {
        const size_t before = std::max(alignment, race::zone_bytes);
        void *p = nullptr;
        if (posix_memalign(&p, before, before + n + race::zone_bytes)) { perror("simulator: shared memory"); abort(); }
        all = static_cast<unsigned char *>(p);
        begin = all + before;
        std::memset(all, zone_byte, before);
        std::memset(begin, poison, n);
        std::memset(begin + n, zone_byte, race::zone_bytes);
        ASAN_POISON_MEMORY_REGION(all, before);
        ASAN_POISON_MEMORY_REGION(begin + n, race::zone_bytes);
    }
    Array(const Array &) = delete;
    ~Array() {
        ASAN_UNPOISON_MEMORY_REGION(all, size_t(begin - all) + bytes + race::zone_bytes);
        free(all);
    }
    // whole says that nobody wrote beside it.
    bool whole() const {
        if (KINDRED_ASAN) return true; // nobody could
        for (const unsigned char *p = all; p < begin; p++)
            if (*p != zone_byte) return false;
        for (size_t i = 0; i < race::zone_bytes; i++)
            if (begin[bytes + i] != zone_byte) return false;
        return true;
    }
};

struct Block {
    const Kernel *kernel;
    void **params;
    std::vector<Fiber> fibers;
    std::vector<unsigned> ready;
    std::vector<std::vector<Meeting>> warps;
    std::map<const void *, Array> shared;
    std::unique_ptr<Array> dynamic;
    unsigned at_barrier = 0, ended = 0;
    std::string fault;
    std::mt19937_64 random;
    void *scheduler = nullptr;
#if KINDRED_ASAN
    void *scheduler_fake = nullptr;
    const void *scheduler_bottom = nullptr;
    size_t scheduler_size = 0;
#endif
};

Block *block;
Fiber *self;

std::string name_of(const char *what, Index i) { return std::string(what) + " (" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")"; }
std::string name_of(const Fiber &f) { return name_of("block", f.block) + ", " + name_of("thread", f.thread); }

std::string name_of(Place p) { return std::string(p.what) + " at " + p.file + ":" + std::to_string(p.line); }

// Stacks are kept: a kernel has up to 1024 threads, and there are many launches.
char *stacks() {
    static char *all = [] {
        void *p = mmap(nullptr, 1024 * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) { perror("simulator: stacks"); abort(); }
        for (int i = 0; i < 1024; i++) // an overflow faults
            mprotect(static_cast<char *>(p) + i * stack_bytes, 4096, PROT_NONE);
        return static_cast<char *>(p);
    }();
    return all;
}

// give_way lets the scheduler go on; it returns when it is this thread's turn.
void give_way() {
    Fiber *f = self;
#if KINDRED_ASAN
    __sanitizer_start_switch_fiber(f->state == State::ended ? nullptr : &f->fake, block->scheduler_bottom, block->scheduler_size);
#endif
    kindred_swap_stacks(&f->stack, block->scheduler);
#if KINDRED_ASAN
    __sanitizer_finish_switch_fiber(f->fake, &block->scheduler_bottom, &block->scheduler_size);
#endif
}

void wake(unsigned number) {
    block->fibers[number].state = State::ready;
    block->ready.push_back(number);
}

void fail(const Fiber &f, const std::string &why);

extern "C" void kindred_fiber_main() {
#if KINDRED_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_bottom, &block->scheduler_size);
#endif
    block->kernel->call(block->params);
    if (!self->sums.empty()) fail(*self, "ends while its products are under way");
    self->state = State::ended;
    block->ended++;
    give_way();
    abort(); // nobody wakes it
}

void start(Fiber &f) {
    char *top = stacks() + (f.number + 1) * stack_bytes;
    void **sp = reinterpret_cast<void **>(top);
#if defined(__x86_64__)
    *--sp = nullptr; // the frame above, and alignment: at entry the stack is 8 off 16
    *--sp = reinterpret_cast<void *>(kindred_fiber_main);
    for (int i = 0; i < saved; i++) *--sp = nullptr;
#else
    sp -= 20;
    std::memset(sp, 0, 160);
    sp[11] = reinterpret_cast<void *>(kindred_fiber_main); // x30
#endif
    f.stack = sp;
    f.state = State::ready;
}

void resume(Fiber &f) {
    self = &f;
    current = &f;
    if (race::on) race::turn(f.number);
#if KINDRED_ASAN
    __sanitizer_start_switch_fiber(&block->scheduler_fake, stacks() + f.number * stack_bytes, stack_bytes);
#endif
    kindred_swap_stacks(&block->scheduler, f.stack);
#if KINDRED_ASAN
    __sanitizer_finish_switch_fiber(block->scheduler_fake, nullptr, nullptr);
#endif
}

void fail(const Fiber &f, const std::string &why) {
    if (block->fault.empty()) block->fault = "kernel " + std::string(block->kernel->name) + ", " + name_of(f) + ": " + why;
}

// unwritten is the fault of who read shared memory that nobody has written, if somebody did.
std::string unwritten() {
    unsigned who = 0;
    const std::string why = race::unwritten(who);
    return why.empty() ? "" : "kernel " + std::string(block->kernel->name) + ", " + name_of(block->fibers[who]) + ": " + why;
}

// release lets the barrier go when everybody is there.
void release() {
    if (race::on && block->fault.empty() && !(block->fault = unwritten()).empty()) return;
    int yes = 0;
    const Fiber *first = nullptr;
    for (Fiber &f : block->fibers) {
        yes += f.result_of_barrier;
        if (!first) first = &f;
        else if (f.at.line != first->at.line || f.at.file != first->at.file)
            return fail(f, "waits at " + name_of(f.at) + " while " + name_of(*first) + " waits at " + name_of(first->at));
    }
    block->at_barrier = 0;
    if (race::on) race::barrier();
    for (Fiber &f : block->fibers) {
        f.counted = yes;
        wake(f.number);
    }
}

} // namespace

std::string name_of_thread(unsigned number) { return name_of("thread", block->fibers[number].thread); }

bool on_stack(const void *p) {
    static char *const first = stacks();
    return p >= first && p < first + 1024 * stack_bytes;
}

void mistake(const std::string &why) {
    fail(*self, why);
    for (;;) give_way(); // it is never woken
}

void stop(Place at, const char *why) { mistake(name_of(at) + " " + why); }

int barrier(Place at, bool value) {
    self->at = at;
    self->result_of_barrier = value;
    self->state = State::barrier;
    if (++block->at_barrier == block->fibers.size()) release();
    give_way();
    return self->counted;
}

unsigned lane() { return self->number % 32; }

const uint64_t *meet(Place at, unsigned mask, uint64_t value) {
    Fiber *f = self;
    const unsigned mine = 1u << lane();
    if (!(mask & mine)) stop(at, "is called by a lane that is not in its mask");
    auto &meetings = block->warps[f->number / 32];
    size_t i = 0;
    for (; i < meetings.size(); i++) {
        if (meetings[i].mask == mask && !(meetings[i].arrived & mine)) break;
        // Lanes may meet by themselves while others wait for them all, but not wait for each other.
        if (meetings[i].mask & mine && meetings[i].arrived & mask) stop(at, "and lanes of its mask meet elsewhere with another mask");
    }
    if (i == meetings.size()) meetings.push_back({mask, 0, at.what, {}});
    Meeting &m = meetings[i];
    if (std::strcmp(m.what, at.what)) stop(at, (std::string("meets lanes that are in ") + m.what).c_str());
    m.arrived |= mine;
    m.values[lane()] = value;
    f->at = at;
    f->state = State::meeting;
    if (m.arrived == mask) {
        const unsigned first = f->number / 32 * 32;
        if (race::on && !std::strcmp(at.what, "__syncwarp")) race::syncwarp(first, mask);
        for (unsigned l = 0; l < 32; l++)
            if (mask >> l & 1) {
                std::memcpy(block->fibers[first + l].inbox, m.values, sizeof m.values);
                wake(first + l);
            }
        meetings.erase(meetings.begin() + static_cast<long>(i));
    }
    give_way();
    return f->inbox;
}

void copy_later(void *to, const void *from, size_t wanted) {
    const void *pc = __builtin_return_address(0);
    if (race::on) race::copy_begins(to, from, wanted, pc);
    self->copies.back().push_back({to, from, wanted, pc});
}

void commit_copies() { self->copies.emplace_back(); }

void wait_copies(size_t most) {
    auto &all = self->copies;
    while (all.size() - 1 > most) {
        for (const Copy &c : all.front()) {
            if (race::on) race::copy_ends(c.to, c.pc);
            std::memset(c.to, 0, 16);
            std::memcpy(c.to, c.from, c.wanted);
            self->copied = true;
        }
        all.erase(all.begin());
    }
}

void fence_async() { self->copied = false; }

void product_later(Place at, MakeProduct make, const void *what, size_t size, float *sum, size_t n) {
    const void *pc = __builtin_return_address(0);
    meet(at, 0xffffffffu, 0);
    for (const Fiber &f : block->fibers)
        if (f.copied) stop(at, ("reads shared memory after copies of " + name_of(f) + " that no fence_async put before it").c_str());
    auto &sums = self->sums;
    auto of = std::find_if(sums.begin(), sums.end(), [&](const Sum &s) { return s.at == sum; });
    if (of == sums.end()) {
        if (!self->products_fenced) stop(at, "adds to registers that were used since wgmma_fence");
        sums.push_back({sum, {sum, sum + n}, 0});
        of = sums.end() - 1;
        std::memset(sum, poison, n * sizeof *sum);
    }
    of->products++;
    const auto *bytes = static_cast<const unsigned char *>(what);
    self->products.back().push_back({sum, make, {bytes, bytes + size}, pc});
}

void product_reads(const void *p, size_t n) {
    if (race::on) race::touch(race::Kind::read, p, n, self->product_pc);
}

void fence_products() { self->products_fenced = true; }

void commit_products() { self->products.emplace_back(); }

void wait_products(Place at, size_t most) {
    meet(at, 0xffffffffu, 0);
    auto &all = self->products;
    while (all.size() - 1 > most) {
        for (const Product &p : all.front()) {
            auto of = std::find_if(self->sums.begin(), self->sums.end(), [&](const Sum &s) { return s.at == p.sum; });
            self->product_pc = p.pc;
            p.make(p.what.data(), of->value.data());
            if (--of->products) continue;
            std::memcpy(of->at, of->value.data(), of->value.size() * sizeof(float));
            self->sums.erase(of);
            self->products_fenced = false;
        }
        all.erase(all.begin());
    }
}

void *shared(const void *key, size_t bytes) {
    auto [at, fresh] = block->shared.try_emplace(key, bytes, 16);
    if (race::on && fresh) race::region(at->second.begin, bytes, "a shared array");
    return at->second.begin;
}

void *dynamic_shared() { return block->dynamic->begin; }

std::vector<Kernel> &kernels() {
    static std::vector<Kernel> all;
    return all;
}

bool register_kernel(Kernel k) {
    kernels().push_back(k);
    return true;
}

void run(const Kernel &k, const Shape &shape, void **params, uint64_t seed) {
    std::mt19937_64 random(seed);
    const unsigned *g = shape.grid, *d = shape.block;
    std::vector<unsigned> order(size_t(g[0]) * g[1] * g[2]);
    for (size_t i = 0; i < order.size(); i++) order[i] = unsigned(i);
    std::shuffle(order.begin(), order.end(), random);
    const unsigned threads = d[0] * d[1] * d[2];
    Block b;
    block = &b;
    b.kernel = &k;
    b.params = params;
    b.random.seed(random());
    if (race::on) race::begin();
    for (unsigned at : order) {
        b.shared.clear();
        b.dynamic = std::make_unique<Array>(shape.shared, dynamic_alignment);
        b.at_barrier = b.ended = 0;
        b.fibers.assign(threads, Fiber{});
        b.warps.assign((threads + 31) / 32, {});
        b.ready.clear();
        for (unsigned i = 0; i < threads; i++) {
            Fiber &f = b.fibers[i];
            f.number = i;
            f.thread = {i % d[0], i / d[0] % d[1], i / d[0] / d[1]};
            f.block = {at % g[0], at / g[0] % g[1], at / g[0] / g[1]};
            f.block_dim = {d[0], d[1], d[2]};
            f.grid_dim = {g[0], g[1], g[2]};
            start(f);
            b.ready.push_back(i);
        }
        if (race::on) {
            race::block(threads, name_of("block", b.fibers[0].block));
            race::region(dynamic_shared(), shape.shared, "the dynamic shared memory");
        }
        while (!b.ready.empty() && b.fault.empty()) {
            const size_t i = b.random() % b.ready.size();
            const unsigned next = b.ready[i];
            b.ready[i] = b.ready.back();
            b.ready.pop_back();
            resume(b.fibers[next]);
        }
        if (b.fault.empty() && b.ended != threads)
            for (const Fiber &f : b.fibers)
                if (f.state != State::ended) {
                    fail(f, "waits for ever at " + name_of(f.at) + ", where not all come: " + std::to_string(b.ended) + " of " + std::to_string(threads) + " threads have ended");
                    break;
                }
        if (race::on && b.fault.empty()) b.fault = unwritten();
        const auto beside = [&b](const Array &a, const char *what) {
            if (b.fault.empty() && !a.whole())
                b.fault = "kernel " + std::string(b.kernel->name) + ", " + name_of("block", b.fibers[0].block) + ": wrote beside " + what + " of " + std::to_string(a.bytes) + " bytes";
        };
        for (const auto &[key, a] : b.shared) beside(a, "a shared array");
        beside(*b.dynamic, "the dynamic shared memory");
        if (!b.fault.empty()) break;
    }
    if (race::on) race::end();
    block = nullptr;
    if (!b.fault.empty()) throw Fault(b.fault);
}

} // namespace kindred
