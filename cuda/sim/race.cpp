// See race.h. Each word of four bytes has a cell that says who touched it since the last
// barrier. A word of which a part alone is touched has a cell a byte instead, as long as
// the cell lasts.
#include "race.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core.h"

namespace kindred::race {

std::function<std::string(const void *)> describe;

namespace {

constexpr unsigned lanes = 32, word = 4;

// An epoch is what lies between two barriers of one block; no number comes twice.
uint32_t epoch, launch_epoch, block_epoch;
bool running;
unsigned me;

// Clock is a thread's: how much of each lane of its warp is before what it does now. Its
// own place counts its __syncwarps, from 1.
struct Clock {
    uint32_t epoch, at[lanes];
};
std::vector<Clock> clocks;
std::vector<std::pair<uint32_t, std::string>> blocks; // of this launch, by their first epoch

// A place in the kernels' code, as a distance from here: it takes half of a pointer.
int32_t distance(const void *pc) { return int32_t(static_cast<const char *>(pc) - reinterpret_cast<const char *>(&distance)); }

Clock &clock_of(unsigned thread) {
    Clock &c = clocks[thread];
    if (c.epoch != epoch) {
        c = Clock{epoch, {}};
        c.at[thread % lanes] = 1;
    }
    return c;
}
uint32_t now() { return clock_of(me).at[me % lanes]; }

// before says whether what a thread did in this epoch at its time is before now.
bool before(unsigned thread, uint32_t time) {
    if (thread == me) return true;
    return thread / lanes == me / lanes && clock_of(me).at[thread % lanes] >= time;
}

struct Access {
    uint32_t time; // of the thread's own; 0: there is none
    int32_t pc;
    uint16_t thread;
};

// Set is of accesses that may all be beside each other: of one warp those lanes that came at one
// time, and one of another warp, if there is any: who meets both meets a race, whoever it is.
struct Set {
    uint32_t mask, time;
    int32_t pc, other_pc;
    uint16_t last, other; // threads
    bool has_other, spilled;
};
// What a set has no room for: lanes of its warp that came at other times.
std::unordered_map<const Set *, std::vector<Access>> spilled;

void add(Set &s, int32_t pc) {
    const uint32_t time = now();
    if (!s.mask) {
        s = Set{1u << me % lanes, time, pc, 0, uint16_t(me), 0, false, false};
    } else if (s.last / lanes != me / lanes) {
        if (!s.has_other) s.has_other = true, s.other = uint16_t(me), s.other_pc = pc;
    } else if (s.time == time) {
        s.mask |= 1u << me % lanes;
        s.pc = pc, s.last = uint16_t(me);
    } else {
        bool all = true; // are before this one, which stands for them then
        for (unsigned l = 0; l < lanes && all; l++) all = !(s.mask >> l & 1) || before(me / lanes * lanes + l, s.time);
        if (all) {
            s.mask = 1u << me % lanes, s.time = time, s.pc = pc, s.last = uint16_t(me);
        } else {
            s.spilled = true;
            spilled[&s].push_back({time, pc, uint16_t(me)});
        }
    }
}

// beside finds an access of the set that is not in order with one now.
bool beside(const Set &s, Access &found) {
    if (!s.mask) return false;
    const unsigned first = s.last / lanes * lanes;
    if (first != me / lanes * lanes) return found = {s.time, s.pc, s.last}, true;
    if (s.has_other) return found = {1, s.other_pc, s.other}, true;
    for (unsigned l = 0; l < lanes; l++)
        if (s.mask >> l & 1 && !before(first + l, s.time)) return found = {s.time, s.pc, uint16_t(first + l)}, true;
    if (s.spilled)
        for (const Access &a : spilled[&s])
            if (!before(a.thread, a.time)) return found = a, true;
    return false;
}

// Cell is of shared memory: the last write, and what came since.
struct Cell {
    uint32_t epoch;
    Access write;
    Set reads, atomics;
};

// Far is a cell of the device's memory: its last write.
struct Far {
    uint32_t epoch, time;
    int32_t pc;
    uint16_t thread;
    // Of atomics thread is the last: several are beside each other, of this epoch or of other
    // blocks.
    bool atomic, several, apart;
};

void copy(Far &to, const Far &from) { to = from; }
void copy(Cell &to, const Cell &from) {
    to = from;
    if (from.epoch != epoch) return;
    if (from.reads.spilled) spilled[&to.reads] = std::vector(spilled[&from.reads]);
    if (from.atomics.spilled) spilled[&to.atomics] = std::vector(spilled[&from.atomics]);
}

// Cells are those of n bytes.
template <class C> struct Cells {
    std::vector<C> words, bytes;
    std::vector<uint32_t> split; // by word: its bytes have cells since this epoch
    void resize(size_t n) {
        const size_t all = (n + word - 1) / word;
        if (words.size() < all) words.resize(all), split.resize(all);
    }
    // visit calls f with each cell of the bytes [from, to) and its first byte. A split lasts
    // for all epochs from since on.
    template <class F> void visit(size_t from, size_t to, uint32_t since, F f) {
        while (from < to) {
            const size_t w = from / word, next = (w + 1) * word;
            const bool apart = split[w] >= since;
            if (from % word == 0 && to >= next && !apart) {
                f(words[w], from);
                from = next;
                continue;
            }
            if (!apart) {
                if (bytes.size() < words.size() * word) bytes.resize(words.size() * word);
                split[w] = epoch;
                for (size_t i = 0; i < word; i++) copy(bytes[w * word + i], words[w]);
            }
            for (; from < to && from < next; from++) f(bytes[from], from);
        }
    }
};

struct Pending {
    int32_t pc;
    uint32_t thread; // and 1; 0: none
};

struct Region {
    uintptr_t begin, end;
    std::string name;
    Cells<Cell> cells;
    std::vector<Pending> pending; // by 16 bytes
    std::vector<bool> written;    // by bytes
};
std::vector<std::unique_ptr<Region>> regions; // kept from block to block
size_t used;                                  // of them, by this block

Region *region_of(uintptr_t p) {
    for (size_t i = 0; i < used; i++)
        if (p + zone_bytes >= regions[i]->begin && p < regions[i]->end + zone_bytes) return regions[i].get();
    return nullptr;
}

// Unwritten is the first read of shared memory that nobody had written.
struct Unwritten {
    const Region *region; // null: there is none
    size_t at;
    int32_t pc;
    unsigned thread;
} unwritten_read;
bool asked_for_unwritten;

constexpr uintptr_t page_bytes = 4096;
constexpr size_t pages_kept = 4096;
std::unordered_map<uintptr_t, std::unique_ptr<Cells<Far>>> pages;
// What was looked up of late: most of what is read has no page.
struct Found {
    uintptr_t page;
    Cells<Far> *cells;
} lately[1024];

Cells<Far> *page_of(uintptr_t p, bool make) {
    const uintptr_t page = p / page_bytes;
    Found &f = lately[page % 1024];
    if (f.page != page) {
        const auto at = pages.find(page);
        f = {page, at == pages.end() ? nullptr : at->second.get()};
    }
    if (!f.cells && make) {
        auto &cells = pages[page] = std::make_unique<Cells<Far>>();
        cells->resize(page_bytes);
        f.cells = cells.get();
    }
    return f.cells;
}

// line_of is where in the sources the call lies that ends at pc, with what it was inlined to.
const std::string &line_of(int32_t at) {
    static std::unordered_map<int32_t, std::string> known;
    std::string &out = known[at];
    if (!out.empty()) return out;
    out = "an unknown line";
    const char *pc = reinterpret_cast<const char *>(&distance) + at - 1;
    Dl_info info;
    if (!dladdr(pc, &info) || !info.dli_fname) return out;
    char command[4096];
    snprintf(command, sizeof command, "addr2line -i -e '%s' %#lx 2>/dev/null", info.dli_fname, static_cast<unsigned long>(pc - static_cast<const char *>(info.dli_fbase)));
    std::string all, last;
    if (FILE *f = popen(command, "r")) {
        char line[4096];
        while (fgets(line, sizeof line, f)) {
            std::string s(line);
            s.erase(s.find_last_not_of(" \n") + 1);
            if (const size_t more = s.find(" (discriminator"); more != s.npos) s.erase(more);
            s.erase(0, s.rfind('/') + 1);
            if (s.rfind("core.h:", 0) == 0) break; // where the simulator calls the kernel
            if (s.find('?') != s.npos || s == last || s.rfind("sim.h:", 0) == 0) continue;
            all += (all.empty() ? "" : ", called at ") + s;
            last = s;
        }
        pclose(f);
    }
    if (!all.empty()) out = all;
    return out;
}

std::string done(Kind k) { return k == Kind::read ? "read" : k == Kind::write ? "written" : "changed by an atomic"; }

[[noreturn]] void race(const std::string &place, Kind now, int32_t pc, const std::string &who, Kind then, int32_t then_pc) {
    const char *did = then == Kind::read ? " read it at " : then == Kind::write ? " wrote it at " : " changed it by an atomic at ";
    mistake("data race on " + place + ", which is " + done(now) + " at " + line_of(pc) + ": " + who + did + line_of(then_pc) + ", and nothing puts the two in order");
}

std::string place_in(const Region &r, size_t at) {
    return "byte " + std::to_string(at) + " of " + std::to_string(r.end - r.begin) + " of " + r.name;
}

// check ends the kernel if an access now is a race with what the cell knows of.
void check(Cell &c, Kind kind, int32_t pc, const Region &r, size_t at) {
    if (c.epoch != epoch) {
        c = Cell{epoch, {}, {}, {}};
        return;
    }
    Access other;
    if (c.write.time && !before(c.write.thread, c.write.time)) race(place_in(r, at), kind, pc, name_of_thread(c.write.thread), Kind::write, c.write.pc);
    if (kind != Kind::atomic && beside(c.atomics, other)) race(place_in(r, at), kind, pc, name_of_thread(other.thread), Kind::atomic, other.pc);
    if (kind != Kind::read && beside(c.reads, other)) race(place_in(r, at), kind, pc, name_of_thread(other.thread), Kind::read, other.pc);
}

void record(Cell &c, Kind kind, int32_t pc) {
    switch (kind) {
    case Kind::read: add(c.reads, pc); break;
    case Kind::atomic: add(c.atomics, pc); break;
    case Kind::write: // what was before is before this, which stands for it
        c.epoch = epoch;
        c.write = {now(), pc, uint16_t(me)};
        if (c.reads.spilled) spilled.erase(&c.reads);
        if (c.atomics.spilled) spilled.erase(&c.atomics);
        c.reads = c.atomics = Set{};
    }
}

std::string place_far(const void *p) { return describe ? describe(p) : "a byte of the device's memory"; }

void touch_far(Kind kind, uintptr_t from, uintptr_t to, int32_t pc) {
    while (from < to) {
        const uintptr_t base = from / page_bytes * page_bytes, end = std::min(to, base + page_bytes);
        if (Cells<Far> *cells = page_of(from, kind != Kind::read))
            cells->visit(from - base, end - base, launch_epoch, [&](Far &c, size_t at) {
                bool several = false, apart = false;
                if (c.epoch >= launch_epoch) {
                    const bool here = c.epoch >= block_epoch, ordered = here && !c.apart && (c.epoch < epoch || (!c.several && before(c.thread, c.time)));
                    if (!ordered && !(kind == Kind::atomic && c.atomic)) {
                        std::string who = name_of_thread(c.thread);
                        if (!here) {
                            auto b = std::upper_bound(blocks.begin(), blocks.end(), c.epoch, [](uint32_t e, const auto &x) { return e < x.first; });
                            who = std::prev(b)->second + ", " + who;
                        }
                        race(place_far(reinterpret_cast<const void *>(base + at)), kind, pc, who, c.atomic ? Kind::atomic : Kind::write, c.pc);
                    }
                    // Of atomics beside each other a later plain access has all to fear.
                    if (kind == Kind::atomic && c.atomic) several = c.epoch == epoch && !ordered, apart = c.apart || !here;
                }
                if (kind != Kind::read) c = Far{epoch, now(), pc, uint16_t(me), kind == Kind::atomic, several, apart};
            });
        from = end;
    }
}

} // namespace

void begin() {
    if (epoch > UINT32_MAX / 2) { // nothing may look as if it were of now
        epoch = 0;
        regions.clear();
        pages.clear();
        clocks.clear();
        for (Found &f : lately) f = {};
    }
    const char *asked = getenv("KINDRED_SIM_UNWRITTEN");
    asked_for_unwritten = asked && *asked == '1';
    launch_epoch = block_epoch = epoch + 1;
    blocks.clear();
    if (pages.size() > pages_kept) {
        pages.clear();
        for (Found &f : lately) f = {};
    }
    running = true;
}

void end() { running = false; }

void block(unsigned threads, const std::string &name) {
    barrier();
    block_epoch = epoch;
    blocks.emplace_back(epoch, name);
    if (clocks.size() < threads) clocks.resize(threads);
    used = 0;
    unwritten_read = {};
}

void turn(unsigned number) { me = number; }

void region(const void *p, size_t n, const std::string &name) {
    if (n == 0) return;
    if (used == regions.size()) regions.push_back(std::make_unique<Region>());
    Region &r = *regions[used++];
    r.begin = reinterpret_cast<uintptr_t>(p);
    r.end = r.begin + n;
    r.name = name;
    r.cells.resize(n);
    r.pending.assign((n + 15) / 16, Pending{});
    r.written.assign(n, false);
}

std::string unwritten(unsigned &thread) {
    const Unwritten u = unwritten_read;
    unwritten_read = {};
    if (!u.region) return "";
    thread = u.thread;
    return place_in(*u.region, u.at) + " is read at " + line_of(u.pc) + ", and nobody has written it";
}

void barrier() {
    epoch++;
    if (!spilled.empty()) spilled.clear();
}

void syncwarp(unsigned first, unsigned mask) {
    uint32_t all[lanes] = {};
    for (unsigned l = 0; l < lanes; l++)
        if (mask >> l & 1)
            for (unsigned i = 0; i < lanes; i++) all[i] = std::max(all[i], clock_of(first + l).at[i]);
    for (unsigned l = 0; l < lanes; l++)
        if (mask >> l & 1) {
            Clock &c = clock_of(first + l);
            std::copy(all, all + lanes, c.at);
            c.at[l]++;
        }
}

void touch(Kind kind, const void *p, size_t n, const void *pc) {
    if (!running || on_stack(p)) return;
    const uintptr_t from = reinterpret_cast<uintptr_t>(p);
    const int32_t at = distance(pc);
    Region *r = region_of(from);
    if (!r) return touch_far(kind, from, from + n, at);
    if (from < r->begin || from + n > r->end)
        mistake(std::to_string(n) + " bytes from byte " + std::to_string(static_cast<intptr_t>(from - r->begin)) + " on of " + std::to_string(r->end - r->begin) + " of " + r->name + " are " + done(kind) + " at " + line_of(at));
    const size_t first = from - r->begin, last = first + n;
    for (size_t i = first / 16; i * 16 < last; i++)
        if (const Pending &c = r->pending[i]; c.thread)
            mistake("data race on " + place_in(*r, std::max(first, i * 16)) + ", which is " + done(kind) + " at " + line_of(at) + ": " +
                    (c.thread - 1 == me ? "the thread itself" : name_of_thread(c.thread - 1)) + " copies to it since " + line_of(c.pc) + " and has not waited for that");
    r->cells.visit(first, last, epoch, [&](Cell &c, size_t i) {
        check(c, kind, at, *r, i);
        record(c, kind, at);
    });
    for (size_t i = first; asked_for_unwritten && i < last; i++) {
        if (kind != Kind::write && !r->written[i] && !unwritten_read.region) unwritten_read = {r, i, at, me};
        if (kind != Kind::read) r->written[i] = true;
    }
}

void copy_begins(const void *to, const void *from, size_t wanted, const void *pc) {
    touch(Kind::read, from, wanted, pc);
    Region *r = region_of(reinterpret_cast<uintptr_t>(to));
    if (!r) mistake("a copy by cp.async at " + line_of(distance(pc)) + " is not to shared memory");
    touch(Kind::write, to, 16, pc);
    r->pending[(reinterpret_cast<uintptr_t>(to) - r->begin) / 16] = {distance(pc), me + 1};
}

void copy_ends(const void *to, const void *pc) {
    Region *r = region_of(reinterpret_cast<uintptr_t>(to));
    r->pending[(reinterpret_cast<uintptr_t>(to) - r->begin) / 16] = {};
    touch(Kind::write, to, 16, pc);
}

} // namespace kindred::race

// What -fsanitize=thread calls.
#define KINDRED_TOUCH(name, kind, n) \
    extern "C" void name(void *p) { kindred::race::touch(kindred::race::Kind::kind, p, n, __builtin_return_address(0)); }
#define KINDRED_TOUCHES(n)                          \
    KINDRED_TOUCH(__tsan_read##n, read, n)          \
    KINDRED_TOUCH(__tsan_write##n, write, n)        \
    KINDRED_TOUCH(__tsan_volatile_read##n, read, n) \
    KINDRED_TOUCH(__tsan_volatile_write##n, write, n)
#define KINDRED_TOUCHES_ANYWHERE(n)                  \
    KINDRED_TOUCH(__tsan_unaligned_read##n, read, n) \
    KINDRED_TOUCH(__tsan_unaligned_write##n, write, n)
KINDRED_TOUCHES(1)
KINDRED_TOUCHES(2)
KINDRED_TOUCHES(4)
KINDRED_TOUCHES(8)
KINDRED_TOUCHES(16)
KINDRED_TOUCHES_ANYWHERE(2)
KINDRED_TOUCHES_ANYWHERE(4)
KINDRED_TOUCHES_ANYWHERE(8)
KINDRED_TOUCHES_ANYWHERE(16)
extern "C" void __tsan_read_range(void *p, size_t n) { kindred::race::touch(kindred::race::Kind::read, p, n, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void *p, size_t n) { kindred::race::touch(kindred::race::Kind::write, p, n, __builtin_return_address(0)); }
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}
