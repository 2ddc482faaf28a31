// The simulator's device: kernels, and the threads that run them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace kindred {

// Kernel is a kernel that is linked in: how many parameters it has, and a call of it
// with pointers to them.
struct Kernel {
    const char *name;
    int parameters;
    void (*call)(void **);
};

// kernels are all that register_kernel was told of.
std::vector<Kernel> &kernels();
bool register_kernel(Kernel k);

struct Shape {
    unsigned grid[3], block[3];
    size_t shared;
};

// Fault is a mistake of a kernel's: what, where, and of which block and thread.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// run runs a kernel to its end, its blocks and the turns of its threads in an order
// that the seed decides. It throws Fault.
void run(const Kernel &k, const Shape &shape, void **params, uint64_t seed);

// What race.h asks of the threads: the name of one by its number in the block, whether an
// address is on a stack of theirs, and to end the kernel with a fault of the running one.
std::string name_of_thread(unsigned number);
bool on_stack(const void *p);
[[noreturn]] void mistake(const std::string &why);

namespace detail {
template <class R, class... A, size_t... I> void call(R (*f)(A...), void **p, std::index_sequence<I...>) {
    f(*static_cast<std::remove_reference_t<A> *>(p[I])...);
}
template <class... A> constexpr int count(void (*)(A...)) { return sizeof...(A); }
template <class... A> void unpack(void (*f)(A...), void **p) { call(f, p, std::index_sequence_for<A...>{}); }
} // namespace detail

#define KINDRED_REGISTER(name) \
    static const bool kindred_registered_##name = kindred::register_kernel({#name, kindred::detail::count(&name), [](void **p) { kindred::detail::unpack(&name, p); }});

} // namespace kindred
