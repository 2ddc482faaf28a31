#!/usr/bin/env python3
"""Breaks the kernels, one place at a time, and checks that the tests notice.

Each mutation is one of: a barrier taken away, a bound moved by one, a lane or bin
taken from beside. The simulator is built with the broken source and the tests that use
it run against it, under up to three schedules, of which one must fail.
Arguments are names of sources, which are then the only ones.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

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
    (r"head\(heads\[set\.first \+ h\]\)", "head(heads[set.first])", "one head for all"),
    (r"\(k - 1\) \* threads\] < y", "k * threads] < y", "the best out of order"),
    (r"leaf \|= ", "leaf = ", "one split for all"),
    (r"t < h\.(table|tree)_end", r"t + 1 < h.\1_end", "the last part of a head is forgotten"),
    (r"mask\[row >> 6\] >> \(row & 63\)", "mask[row >> 6] >> (row & 31)", "another row's bit"),
    (r"h % many_heads < count", "h % many_heads <= count", "a head that nobody wrote"),
    (r"c < wide\)", "c < wide - 1)", "the last codes are forgotten"),
    (r"row\[r\] < n ", "row[r] <= n ", "a row too many"),
    (r"8 \* j \+ 2 \* t", "8 * j + t", "another column of the fragment"),
    (r"\(part \* many_heads", "((1 - part) * many_heads", "high bytes for low"),
    (r"x < -most\)", "x < most)", "every score the least"),
    (r"return; // a whole warp", "return; __syncthreads();", "a barrier that not all reach"),
    (r"mma_m16n8k32_u8\(sum", "mma_m16n8k32(sum", "the sign of a lower byte"),
    (r"\) - off\[r\]\)", ") + off[r])", "a bound that keeps out what may be best"),
    (r"l == lane_of", "l != lane_of", "the lanes whose best was not taken go on"),
    (r"__syncwarp\(\);(\n\s+double sum)", r"\1", "a lane reads what others have not written"),
    (r"\(32 - here % 32\)", "(31 - here % 32)", "a word beside"),
    (r"c < at\[r\]", "c > at[r]", "the last of equals"),
]

# Mutations that no test can see, by a piece of their line: why.
EQUIVALENT = {
    "const bool wanted = row <= n": "only a row that is a multiple of 32 could be one too many, and a block's rows end there",
    "if (lane <= here) {": "the score of a key that nobody wrote is not a number, which fmaxf drops, and its weight is 0",
    "word = row <= n": "a block has 32 rows, so that of rows behind the last only one within a word of the mask comes up",
    "h % many_heads <= count": "nobody takes the products of a head behind the last",
    "if (row[r] <= n": "a segment has room for a multiple of 64 rows, and nobody takes the products of one behind the last",
    "const float weight = lane <= here": "the score there is -Inf, whose weight is 0",
}


# The package whose tests a source has to pass, and those that are enough where all take
# long; else the package of its name, and all.
RUN = {
    "encoder.cu": ("encoder", "^TestEncode$"),
    "score.cu": ("scan", "^TestPlan$"),
    "many.cu": ("scan", "^(TestManyCodes|TestPlan)$"),
    "rows.cuh": ("scan", "^Test(Best|Plan|Extremes)$"),
}


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
    """Whether the tests notice that source holds text, and how."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        folder = pathlib.Path(folder)
        # A header is read from beside the source that includes it.
        for part in (CUDA / "kernels").glob("*.cu*"):
            (folder / part.name).write_text(text if part == source else part.read_text())
        users = [folder / source.name] if source.suffix == ".cu" else [folder / p.name for p in (CUDA / "kernels").glob("*.cu") if f'"{source.name}"' in p.read_text()]
        built = subprocess.run([CUDA / "sim" / "build.sh", "mutant", folder, *users], capture_output=True, text=True)
        if built.returncode:
            if " error: " not in built.stderr:
                sys.exit(built.stderr)
            return True, "does not compile"
        package, tests = RUN.get(source.name, (source.stem, "."))
        for seed in range(1, 4):
            run = dict(os.environ, CI="true", LD_LIBRARY_PATH=str(folder), KINDRED_SIM_SEED=str(seed),
                       LD_PRELOAD=ASAN, ASAN_OPTIONS="detect_leaks=0:handle_segv=0")
            command = [BUILD / "tests" / f"{package}.test", "-test.run", tests, "-test.failfast", "-test.timeout", "150s", "-test.short"]
            try:
                done = subprocess.run(command, env=run, cwd=CUDA / package, capture_output=True, text=True, timeout=170)
            except subprocess.TimeoutExpired:
                return True, "it hangs"
            if done.returncode:
                said = re.search(r"(ERROR: AddressSanitizer: [\w-]+|simulator: kernel .*|\w+_test\.go:\d+: .*)", done.stdout + done.stderr)
                return True, said[1][:150] if said else "a test fails"
    return False, ""


def main():
    sources = sorted(p for p in (CUDA / "kernels").glob("*.cu*") if p.suffix == ".cu" or p.name in RUN)
    todo = [(source, line, why, text) for source in sources if source.name in sys.argv[1:] or not sys.argv[1:] for line, why, text in mutations(source.read_text())]
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (source, line, why, _), (ok, how) in zip(todo, pool.map(lambda m: caught(m[0], m[3]), todo)):
            print(f"{source.name}:{line}: {why}: {'caught: ' + how if ok else 'NOT CAUGHT'}", flush=True)
            missed += not ok
    if len(todo) < 10 and not sys.argv[1:]:
        sys.exit(f"{len(todo)} mutations only: the rules no longer fit the kernels")
    if missed:
        sys.exit(f"{missed} of {len(todo)} broken kernels pass the tests")
    print(f"all {len(todo)} broken kernels were caught")


if __name__ == "__main__":
    main()
