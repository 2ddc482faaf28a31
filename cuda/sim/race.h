// The race detector of the simulator: two accesses of one byte, at least one of them a
// write and not both atomic, by threads between which nothing puts them in order. In
// order are the accesses of one thread; those before and behind a barrier of the block;
// those before and behind a __syncwarp of both lanes. Shuffles, votes, ldmatrix and mma
// order nothing, as the programming guide has it. A copy by cp.async is a write that
// lasts from where it is asked for to where its thread has waited for it: nobody, its
// thread included, may touch these bytes meanwhile.
//
// What is found does not depend on the turns that the threads take, as long as what they do
// does not: of shared memory all that is needed of earlier accesses is kept. Of the
// device's memory the last write of each byte alone is kept: two writes are found in any
// order, by two blocks as well, a write and a read where the write comes first.
//
// What lies just beside an array of shared memory is an error to touch, too. With
// KINDRED_SIM_UNWRITTEN=1 so are reads of bytes of it that nobody in the block has written: not always,
// since a kernel may read them for rows that there are not, and then leave those out.
//
// The compiler tells of accesses: kernels are compiled with -fsanitize=thread, whose calls
// race.cpp answers in place of the sanitizer's library. Without KINDRED_RACE all of this
// is nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace kindred::race {

enum class Kind { read, write, atomic };

#ifdef KINDRED_RACE
constexpr bool on = true;
#else
constexpr bool on = false;
#endif

// begin is where a kernel starts, end where it has ended; block where a block of so many
// threads starts, named as messages name it; turn where its thread of this number goes on.
void begin();
void end();
void block(unsigned threads, const std::string &name);
void turn(unsigned number);

// region says where the block has n bytes of shared memory. Around it lie so many that are
// nobody's.
constexpr size_t zone_bytes = 64;
void region(const void *p, size_t n, const std::string &name);

// unwritten says which shared memory was read and is not written, and sets the number of the
// thread that did; "" where there is none. It is asked where a barrier or the block ends: what
// another thread writes until then is a race instead.
std::string unwritten(unsigned &thread);

// barrier is passed by all threads of the block, syncwarp by those lanes of a mask of the
// warp that starts with thread first.
void barrier();
void syncwarp(unsigned first, unsigned mask);

// touch is an access by the thread whose turn it is; pc is behind it. A race ends the
// kernel.
void touch(Kind kind, const void *p, size_t n, const void *pc);

// A copy of 16 bytes is asked for, of which the first wanted are read, and is made.
void copy_begins(const void *to, const void *from, size_t wanted, const void *pc);
void copy_ends(const void *to, const void *pc);

// describe names a place in the device's memory, where it is set.
extern std::function<std::string(const void *)> describe;

} // namespace kindred::race
