#!/usr/bin/env python3
"""Breaks the kernels, one place at a time, and checks that the tests notice.

Each mutation is one of: a barrier taken away, a bound moved by one, a lane or bin
taken from beside. The simulator is built with the broken source and the tests of
the package of its name run against it, under up to three schedules, of which one must fail.
"""
import os
import pathlib
import re
import subprocess
import sys

CUDA = pathlib.Path(__file__).resolve().parent.parent
BUILD = CUDA / "build"
ASAN = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()

# What is looked for, what stands there instead, and why a test has to see it.
RULES = [
    (r"__syncthreads\(\);", "", "a barrier is missing"),
    (r"row < n\b", "row <= n", "a row too many"),
    (r"(\w+) < count \* bins;", r"\1 < count * bins / 2;", "half of the bins are forgotten"),
    (r"< bins;", "< bins / 2;", "half of the bins are forgotten"),
    (r"< chunks;", "< chunks - 1;", "the last codes are forgotten"),
    (r"lane == h\b", "lane == h + 1", "another lane's sum"),
    (r"row_lanes / 2", "row_lanes / 4", "lanes that are not added"),
    (r">> 21", ">> 20", "another bin"),
    (r"32 - known - next", "31 - known - next", "other bits"),
    (r"\(1u << lane\) - 1", "(2u << lane) - 1", "a place beside"),
    (r"u >= floor", "u > floor", "ties are lost"),
    (r"__dp2a_hi\(low\.y", "__dp2a_lo(low.y", "the wrong half of a word"),
    (r"__dadd_rn\(x, bias\)", "x", "no bias"),
    (r"stages - 2>", "stages - 1>", "a copy is not waited for"),
    (r"row >= m\)", "row > m)", "a row too many"),
    (r"col >= n\)", "col > n)", "a column too many"),
    (r"at < k\b", "at <= k", "an element of K too many"),
    (r"lane % 4 \* 2", "lane % 4", "another column of the fragment"),
    (r"8 \* half \+ lane / 4", "8 * half + lane % 4", "another row of the fragment"),
    (r"lane / 16 \* 8 \+ lane % 8", "lane / 8 % 2 * 8 + lane % 8", "fragments exchanged"),
    (r"kk / 8 \+ lane / 16\)", "kk / 8)", "half of the fragment twice"),
    (r"< here; j", "< here - 1; j", "the last key is forgotten"),
    (r"lane < here\b", "lane <= here", "a key too many"),
    (r"token >= tokens\)", "token > tokens)", "a token too many"),
    (r"2 \* width\]", "width]", "keys for values"),
    (r"expf\(top\[q\] - higher\)", "1", "the softmax is not kept up"),
    (r"t < end; t", "t < end - 1; t", "the last token is forgotten"),
    (r"return; // a whole warp", "return; __syncthreads();", "a barrier that not all reach"),
]

# Mutations that no test can see, by a piece of their line: why.
EQUIVALENT = {
    "const bool wanted = row <= n": "only a row that is a multiple of 32 could be one too many, and a block's rows end there",
    "if (lane <= here) {": "the score of a key that nobody wrote is not a number, which fmaxf drops, and its weight is 0",
    "const float weight = lane <= here": "the score there is -Inf, whose weight is 0",
}


# Tests of a source that are enough, where all take long.
RUN = {"encoder.cu": "^TestEncode$"}


def mutations(text):
    for pattern, instead, why in RULES:
        for m in re.finditer(pattern, text):
            line = text.count("\n", 0, m.start()) + 1
            if text.splitlines()[line - 1].lstrip().startswith("//"):
                continue
            if any(e in text[: m.start()].rsplit("\n", 1)[-1] + m.expand(instead) + text[m.end() :].split("\n", 1)[0] for e in EQUIVALENT):
                continue
            yield line, why, text[: m.start()] + m.expand(instead) + text[m.end() :]


def caught(source, text):
    folder = BUILD / "mutant"
    folder.mkdir(parents=True, exist_ok=True)
    mutant = folder / source.name
    mutant.write_text(text)
    others = [str(p) for p in sorted((CUDA / "kernels").glob("*.cu")) if p != source]
    env = dict(os.environ, KERNELS=" ".join([*others, str(mutant)]))
    built = subprocess.run([CUDA / "sim" / "build.sh", "mutant"], env=env, capture_output=True, text=True)
    if built.returncode:
        return True, "does not compile"
    for seed in range(1, 4):
        for test in [BUILD / "tests" / (source.stem + ".test")]:
            run = dict(os.environ, CI="true", LD_LIBRARY_PATH=str(BUILD / "sim-mutant"), KINDRED_SIM_SEED=str(seed),
                       LD_PRELOAD=ASAN, ASAN_OPTIONS="detect_leaks=0:handle_segv=0")
            try:
                done = subprocess.run([test, "-test.run", RUN.get(source.name, "."), "-test.failfast", "-test.timeout", "150s", "-test.short"], env=run, cwd=CUDA / source.stem, capture_output=True, text=True, timeout=170)
            except subprocess.TimeoutExpired:
                return True, "it hangs"
            if done.returncode:
                said = re.search(r"(ERROR: AddressSanitizer: [\w-]+|simulator: kernel .*|\w+_test\.go:\d+: .*)", done.stdout + done.stderr)
                return True, said[1][:150] if said else "a test fails"
    return False, ""


def main():
    missed = total = 0
    for source in sorted((CUDA / "kernels").glob("*.cu")):
        for line, why, text in mutations(source.read_text()):
            total += 1
            ok, how = caught(source, text)
            print(f"{source.name}:{line}: {why}: {'caught: ' + how if ok else 'NOT CAUGHT'}", flush=True)
            missed += not ok
    if total < 10:
        sys.exit(f"{total} mutations only: the rules no longer fit the kernels")
    if missed:
        sys.exit(f"{missed} of {total} broken kernels pass the tests")
    print(f"all {total} broken kernels were caught")


if __name__ == "__main__":
    main()
