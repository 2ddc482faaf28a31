#!/usr/bin/env python3
"""Writes one trampoline for every function of the CUDA driver.

gorgonia.org/cu links with -lcuda, which is there only where a driver is. This
script reads the functions that a preprocessed cuda.h declares and writes

  trampoline.S   each function: a jump through its slot of a table
  table.c        the table's names; a constructor that opens libcuda.so.1 and
                 fills the table; what is missing answers "no device"

which setup.sh compiles to a static libcuda.a. A program linked with that starts
with and without a driver.

usage: trampoline.py --include DIR... --out DIR
"""
import argparse
import pathlib
import re
import subprocess
import sys

# Functions of the table that table.c answers itself before it asks the driver.
OWN = {"cuInit", "cuDeviceGetCount"}


def declared(includes):
    """The names of the functions that cuda.h declares, sorted."""
    command = ["gcc", "-E", "-P", "-x", "c", *[f"-I{i}" for i in includes], "-"]
    done = subprocess.run(command, input="#include <cuda.h>\n", capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cuda.h cannot be read with {' '.join(command)}:\n{done.stderr}")
    names = set(re.findall(r"\bCUresult\s+(?:\w+\s+)?(cu[A-Z]\w*)\s*\(", done.stdout))
    if len(names) < 300:
        sys.exit(f"cuda.h declares {len(names)} functions only: is it the driver's header?")
    return sorted(names)


def assembly(names):
    lines = ["/* Written by cuda/toolchain/trampoline.py. */", "\t.text"]
    for i, name in enumerate(names):
        target = f"kindred_{name}" if name in OWN else name
        lines += [f"\t.globl {target}", f"\t.type {target}, @function", f"{target}:"]
        lines += ["#if defined(__x86_64__)", f"\tjmp *kindred_cuda_table+{8 * i}(%rip)", "#elif defined(__aarch64__)"]
        lines += ["\tadrp x16, kindred_cuda_table", "\tadd x16, x16, :lo12:kindred_cuda_table"]
        lines += [f"\tmov x17, #{8 * i}", "\tldr x16, [x16, x17]", "\tbr x16"]
        lines += ["#else", '#error "trampolines are written for x86-64 and aarch64"', "#endif", f"\t.size {target}, .-{target}"]
    lines += ['\t.section .note.GNU-stack,"",@progbits', ""]
    return "\n".join(lines)


TABLE = """\
/* Written by cuda/toolchain/trampoline.py: see there. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { no_device = 100, not_found = 500, functions = %(count)d };

static const char *const names[functions] = {
%(names)s
};

static int missing(void) { return no_device; }

void *kindred_cuda_table[functions];

/* What happened, for kindred doctor. */
static char problem[256];
static int init_code = -1; /* of the driver's cuInit; -1: not called */
static int opened;

__attribute__((constructor)) static void open_driver(void) {
    const char *name = getenv("KINDRED_CUDA_DRIVER");
    void *lib = dlopen(name && *name ? name : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        snprintf(problem, sizeof problem, "%%s", dlerror());
    opened = lib != NULL;
    for (int i = 0; i < functions; i++) {
        void *f = lib ? dlsym(lib, names[i]) : NULL;
        kindred_cuda_table[i] = f ? f : (void *)missing;
    }
}

/* gorgonia.org/cu ends the process where cuInit fails, so it never does here. The
   devices of a driver that could not start are none. */
extern int kindred_cuInit(unsigned flags), kindred_cuDeviceGetCount(int *count);

int cuInit(unsigned flags) {
    init_code = kindred_cuInit(flags);
    return 0;
}

int cuDeviceGetCount(int *count) {
    if (init_code != 0) {
        *count = 0;
        return 0;
    }
    return kindred_cuDeviceGetCount(count);
}

/* What the dynamic linker said, or "" where it found the driver's library. */
const char *kindred_cuda_problem(void) { return problem; }

/* Whether the library was found, and what its cuInit answered (-1: not asked). */
int kindred_cuda_opened(void) { return opened; }
int kindred_cuda_init_code(void) { return init_code; }
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--include", action="append", required=True, help="folder of cuda.h; may be repeated")
    p.add_argument("--out", type=pathlib.Path, required=True, help="folder for both files")
    a = p.parse_args()
    names = declared(a.include)
    lost = OWN - set(names)
    if lost:
        sys.exit(f"cuda.h doesn't declare {', '.join(sorted(lost))}")
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "trampoline.S").write_text(assembly(names))
    (a.out / "table.c").write_text(TABLE % {"count": len(names), "names": "\n".join(f'    "{n}",' for n in names)})
    print(f"{len(names)} trampolines")


if __name__ == "__main__":
    main()
