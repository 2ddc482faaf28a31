#!/usr/bin/env python3
"""Breaks the kernels, one place at a time, and checks that the tests notice.

    mutate.py [--alone] [NAME...]

Each mutation is one of: a bound moved by one, a lane or bin taken from beside; a barrier
taken away or an atomic made plain; a wrapper of an instruction that does another thing; a
wait of the host's left out. Kernels that compute something else run under
AddressSanitizer and up to three schedules, of which one must fail. Kernels with a race run
under the race detector, in one schedule: it must name the race. Wrappers are first held to
the PTX manual, as test.sh does it, then to the race detector's own checks, then run.
The host's code runs with slow copies.

Arguments are names of sources, which are then the only ones. --alone runs the kernels with a
race under AddressSanitizer too, in three schedules, and says which of them nothing but the
race detector notices.
"""
import json
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
    (r"row < n\b", "row <= n", "a row too many"),
    (r"(\w+) < count \* bins;", r"\1 < count * bins / 2;", "half of the bins are forgotten"),
    (r"< bins;", "< bins / 2;", "half of the bins are forgotten"),
    (r"< chunks;", "< chunks - 1;", "the last codes are forgotten"),
    (r">> 21", ">> 20", "another bin"),
    (r"32 - known - next", "31 - known - next", "other bits"),
    (r"\(1u << lane\) - 1", "(2u << lane) - 1", "a place beside"),
    (r"u\[i\] >= floor", "u[i] > floor", "ties are lost"),
    (r"image_of\(entry\) >= floor", "image_of(entry) > floor", "ties are lost"),
    (r"u >> \(32 - known\) == upper", "u >> (32 - known) >= upper", "more than a bin is counted"),
    (r"staged - 128", "staged", "a basket that is too small"),
    (r"staged - 32\)", "staged)", "a basket that is too small"),
    (r"4 \* \(first \+ lane\) \+ i\)", "4 * first + lane + i)", "another row"),
    (r"4 \* q \+ 1 < n", "4 * q + 1 < n - 1", "the last row is forgotten"),
    (r"__dadd_rn\(x, bias\)", "x", "no bias"),
    (r"row \+ r < p\.m", "row + r <= p.m", "a row too many"),
    (r"\b(at|8 \* chunk) < p\.k\b", r"\1 <= p.k", "an element of K too many"),
    (r"p\.([mn]) - 1\)", r"p.\1)", "a row too many is read"),
    (r"group \* 64", "0 * 64", "the rows of the first warp group for all"),
    (r"s > 0 \|\| kk > 0", "kk > 0", "the last slice for the sum of all"),
    (r"fence_async\(\);", "", "products of what was not put before them"),
    (r"wgmma_fence\(\);", "", "sums that are not there yet"),
    (r"wgmma_wait<0>", "wgmma_wait<1>", "sums that are not there yet"),
    (r"lane % 4 \* 2", "lane % 4", "another column of the fragment"),
    (r"8 \* half \+ lane / 4", "8 * half + lane % 4", "another row of the fragment"),
    (r"lane / 16 \* 8 \+ lane % 8", "lane / 8 % 2 * 8 + lane % 8", "fragments exchanged"),
    (r"kk / 8 \+ lane / 16\)", "kk / 8)", "half of the fragment twice"),
    (r"col \+ 8 \* c < p\.n", "col + 8 * c <= p.n", "columns too many"),
    (r"at < p\.n \?", "at <= p.n ?", "a bias too many"),
    (r"token < tokens\b", "token <= tokens", "a token too many"),
    (r"\+ i >= left\)", "+ i > left)", "a key too many"),
    (r"from < tokens; from", "from + reach < tokens; from", "the last keys are forgotten"),
    (r"key \+ width, wanted", "key, wanted", "keys for values"),
    (r"exp2_approx\(top\[m\]\[q\] - higher\[m\]\[q\]\)", "1", "the softmax is not kept up"),
    (r"top\[m\]\[q\] \+ 8;", "top[m][q] + 80;", "weights that no half holds"),
    (r"beside < heads_end", "beside <= heads_end", "a head too many"),
    (r"wid % \(warps >> shift\)", "wid", "queries behind the text"),
    (r"beside \* reach", "0 * reach", "another head's keys"),
    (r"_row \^ 16 \* [kd]\)", "_row ^ 0)", "half of the fragments twice"),
    (r"pair<T>\(1, 1\), pair", "pair<T>(1, 0), pair", "weights that are not counted"),
    (r"x\[i\]\[d\] -= mean;", "", "the mean is not taken away"),
    (r"at < dim\b", "at <= dim", "elements too many"),
    (r"\+ lane\) < dim\)", "+ lane) < 2 * dim)", "elements behind a row"),
    (r"at >= dim\)", "at > dim)", "elements too many are written"),
    (r"\(t < end\)", "(t < end - 1)", "the last token is forgotten"),
    (r"groups < end\)", "groups < end + 1)", "a token of zeros"),
    (r"g < groups; g", "g < groups - 1; g", "a group's tokens are forgotten"),
    (r" \|\| y != y", "", "a NaN is not seen"),
    (r"all < -none \?", "true ?", "a length without end"),
    (r"head\(heads\[set\.first \+ h\]\)", "head(heads[set.first])", "one head for all"),
    (r"\(k - 1\) \* threads\] < y", "k * threads] < y", "the best out of order"),
    (r"leaf \|= ", "leaf = ", "one split for all"),
    (r"t < h\.(table|tree)_end", r"t + 1 < h.\1_end", "the last part of a head is forgotten"),
    (r"mask\[row >> 6\] >> \(row & 63\)", "mask[row >> 6] >> (row & 31)", "another row's bit"),
    (r"8 \* j \+ 2 \* t", "8 * j + t", "another column of the fragment"),
    (r"2 \* \(threadIdx\.x % 4\)", "threadIdx.x % 4", "another column of the fragment"),
    (r"first \+ k % 2", "first + k / 2", "rows and heads exchanged"),
    (r"bits >> g & 1", "bits >> (g ^ 1) & 1", "another row's bit"),
    (r"tile\.counts >> \(threadIdx\.x % 32 / 4", "tile.counts >> (threadIdx.x % 32 % 8", "another row's bit"),
    (r"up \+ 4, chunk", "up, chunk", "the first codes twice"),
    (r"asked >= until\)", "asked > until)", "rows behind the end of a run"),
    (r"at >= lies\)", "at > lies)", "scales behind the end of a run"),
    (r"at\[low \+ j \*", "at[j *", "high bytes for low"),
    (r"from == \(stages - 1\) \* stage", "from == stages * stage", "a step beside the ring"),
    (r"\(seeds_heads \+ 8 \* j\)", "(8 * j)", "high bytes for low"),
    (r"x < -most\)", "x < most)", "every score the least"),
    (r"return; // a whole warp", "return; __syncthreads();", "a barrier that not all reach"),
    (r"mma_m16n8k32_u8\(sum", "mma_m16n8k32(sum", "the sign of a lower byte"),
    (r"\) - off\[r\]\)", ") + off[r])", "a bound that keeps out what may be best"),
    (r"l == lane_of", "l != lane_of", "the lanes whose best was not taken go on"),
    (r"\(32 - here % 32\)", "(31 - here % 32)", "a word beside"),
    (r"c < at\[r\]", "c > at[r]", "the last of equals"),
]

# The same, of what the race detector has to see in any schedule.
RACES = [
    (r"__syncthreads\(\);", "", "a barrier is missing"),
    (r"__syncwarp\(\);", "", "lanes that do not wait for each other"),
    (r"stages - 2>", "stages - 1>", "a copy is not waited for"),
    (r"ahead - 1>", "ahead>", "a copy is not waited for"),
    (r"wgmma_wait<1>", "wgmma_wait<2>", "a slice is asked for over what is still multiplied"),
    (r"cp_async_wait<0>\(\);(?=\n\s+__syncthreads)", "", "a copy is not waited for"),
    (r"__syncthreads\(\);([^\n]*\n\s+(?:if \([^\n]*\) )?(?:load|fetch)\([^\n]*\);)", r"\1 __syncthreads();", "a slice is asked for over what is still read"),
    (r"atomicAdd\(&(\w+\[.*\]), (.*)\);", r"\1 += \2;", "a sum without an atomic"),
    (r"atomicAdd\(moved, 1u\)", "*moved += 1u", "a sum without an atomic"),
    (r"at = atomicAdd\(found, (.*)\);", r"at = *found, *found += \1;", "places without an atomic"),
    (r"atomicMin\(bad, (.*)\);", r"*bad = *bad < \1 ? *bad : \1;", "a minimum without an atomic"),
    (r"best \+ threadIdx\.x;", "best + threadIdx.x / 2;", "two threads share a place"),
    (r"shared \+ warp \* dim", "shared", "warps share a place"),
    (r"if \(lane == 0\) (squares\[wid\]|parts\[part\]|scales\[at\])", r"\1", "all lanes write one place"),
    (r"if \(part == 0 && row < n\) scores", "if (row < n) scores", "lanes of a row write one place"),
]

# Of the twins in ptx.cuh and wgmma.cuh, which the simulator runs.
WRAPPERS = [
    (r"rows\[8 \* i \+ kindred::lane\(\) / 4\]", "rows[8 * i + kindred::lane() % 8]", "another row of a matrix"),
    (r"rows\[8 \* i \+ kindred::lane\(\) / 4\]", "rows[8 * (i ^ 3) + kindred::lane() / 4]", "matrices exchanged"),
    (r"from \+ 2 \* \(kindred::lane\(\) % 4\), 4\)", "from + kindred::lane() % 4, 4)", "other columns of a matrix"),
    (r"2 \* \(kindred::lane\(\) % 4\) \+ half\]", "kindred::lane() % 4 + 4 * half]", "other rows of a matrix that is turned"),
    (r"from \+ kindred::lane\(\) / 4, 2\)", "from + kindred::lane() % 8, 2)", "another column of a matrix that is turned"),
    (r"2 \* half, from", "2 * (1 - half), from", "the halves of a register exchanged"),
    (r"\(from\) % 16\)", "(from) % 2)", "a row that is not aligned"),
    (r"\(from\)\) % 16\)", "(from)) % 4)", "a copy that is not aligned"),
    (r"g \+ 8 \* \(i / 2\)", "g + 8 * (i % 2)", "the rows and columns of a result exchanged"),
    (r"col = 2 \* t \+ i % 2", "col = t + 4 * (i % 2)", "other columns of a result"),
    (r"k < 8 \? low : high", "k < 8 ? high : low", "the columns of the left operand exchanged"),
    (r"row / 8 \* 2 \+ k % 2", "(1 - row / 8) * 2 + k % 2", "the rows of the left operand exchanged"),
    (r"col \* 4 \+ k % 8 / 2", "k % 8 / 2 * 8 + col", "the right operand turned"),
    (r"k / 8 \* 2 \+ k % 2", "(1 - k / 8) * 2 + k % 2", "the rows of the right operand exchanged"),
    (r"float sum = d\[i\]", "float sum = 0", "what was there is not added to"),
    (r"__bfloat162float\(kindred::unpack<__nv_bfloat16>", "__half2float(kindred::unpack<__half>", "bfloat16 taken for halves"),
    (r"A\[l / 4 \+ 8 \* half\]", "A[l / 4 + 8 * (1 - half)]", "the rows of the left operand exchanged"),
    (r"4 \* \(l % 4\) \+ i \+ 8 \* r\]", "4 * (l % 4) + i + 8 * (2 - r)]", "the columns of the left operand exchanged"),
    (r"4 \* \(l % 4\) \+ i \+ 16 \* half\]", "4 * (l % 4) + i + 16 * (1 - half)]", "the rows of the right operand exchanged"),
    (r"\+ 8 \* \(k / 2\)\]", "+ 8 * (k % 2)]", "the rows and columns of a result exchanged"),
    (r"b\[1\] >> 7", "b[1] >> 8", "the upper bit of a byte is another's"),
    (r"<< 8\)\);", "<< 7));", "the upper bit of a byte is worth half"),
    (r"std::exp2\(x\)", "std::exp(x)", "a power of another number"),
    (r"y < 0x1p-126f \? 0 : y", "y", "a power that is too small is not 0"),
    (r"wanted \? 16 : 0", "16", "a copy of what is not wanted"),
    (r"\{ kindred::commit_copies\(\); \}", "{}", "a group that does not end"),
    (r"kindred::wait_copies\(n\)", "kindred::wait_copies(n + 1)", "a group too many under way"),
    (r"kindred::wait_copies\(n\)", "kindred::wait_copies(0)", "a wait for all groups"),
    (r"r / 8 \* 512", "r / 8 * 256", "eight rows over others"),
    (r"at >> 7 & 3", "at >> 6 & 3", "other chunks of an operand exchanged"),
    (r"at >> 7 & 3\) << 4", "at >> 7 & 3) << 5", "chunks exchanged with those of other rows"),
    (r"p\.thread / 32 \* 16", "p.thread / 64 * 16", "the rows of another warp"),
    (r"first \+ 8 \* i\b", "first + i", "another row of the left operand"),
    (r"8 \* j \+ 2 \* t \+ c", "8 * j + t + 4 * c", "another column of a result"),
    (r"p\.adds \?", "!p.adds ?", "what was there is not added to"),
    (r"\{ kindred::fence_products\(\); \}", "{}", "no fence of registers"),
    (r"\{ kindred::commit_products\(\); \}", "{}", "a group of products that does not end"),
    (r"\{ kindred::fence_async\(\); \}", "{}", "no fence of shared memory"),
    (r'"wgmma_wait"\), most\)', '"wgmma_wait"), most + 1)', "a group of products too many under way"),
]

# Of the host's code: the file, what is looked for, what stands there instead, why, and the tests
# that have to see it.
HOST = [
    ("scan/stage.go", "err := q.Reached(slot)", "err := error(nil)", "a slot is filled while it is copied", "^TestStreamed$"),
    ("scan/stage.go", "return q.Mark(slot)", "return nil", "a slot is filled while it is copied", "^TestStreamed$"),
    ("scan/fetch.go", "err := q.Reached(slot)", "err := error(nil)", "a list is taken before it is there", "^TestSelection$"),
    ("device_cuda.go", "d.stream.Wait(d.events[eventArrived], 0)", "nil", "an upload is not waited for", "^TestSlowCopies$"),
    ("device_cuda.go", "d.events[eventArrived].Record(cu.NoStream)", "d.events[eventArrived].Record(d.stream)", "another stream's event is waited for", "^TestSlowCopies$"),
    ("device_cuda.go", "func (d *driver) upload(dst uint64, src []byte) error {\n\tif err := d.wait()", "func (d *driver) upload(dst uint64, src []byte) error {\n\tif err := error(nil)", "an upload over what is still read", "^TestSlowCopies$"),
    ("device_cuda.go", "func (d *driver) download(dst []byte, src uint64) error {\n\tif err := d.wait()", "func (d *driver) download(dst []byte, src uint64) error {\n\tif err := error(nil)", "a download of what is not there yet", "^TestBuffers$"),
]

# Mutations that no test can see, by a piece of their line: why.
EQUIVALENT = {
}


# The package whose tests a source has to pass, and those that are enough where all take
# long; else the package of its name, and all.
RUN = {
    "attention.cu": ("encoder", "^TestAttention$"),
    "encoder.cu": ("encoder", "^Test(Norms|Pool|Encode)$"),
    "gemm.cu": ("encoder", "^TestProducts$"),
    "scan.cu": ("scan", "^Test(Best|Extremes|Selection|LongList)$"),
    "score.cu": ("scan", "^TestPlan$"),
    "many.cu": ("scan", "^Test(Selection|ManyCodes|Plan)$"),
    "rows.cuh": ("scan", "^Test(Best|Plan|Extremes)$"),
    "stream.cuh": ("scan", "^Test(Best|Plan)$"),
}


def users(source):
    """The sources that include a header, or one that includes it."""
    told = [p for p in (CUDA / "kernels").glob("*.cu*") if f'"{source.name}"' in p.read_text()]
    return sorted({u for p in told for u in ([p] if p.suffix == ".cu" else users(p))})


def mutations(text, rules):
    for pattern, instead, why in rules:
        for m in re.finditer(pattern, text):
            line = text.count("\n", 0, m.start()) + 1
            if text.splitlines()[line - 1].lstrip().startswith("//"):
                continue
            if any(e in text[: m.start()].rsplit("\n", 1)[-1] + m.expand(instead) + text[m.end() :].split("\n", 1)[0] for e in EQUIVALENT):
                continue
            yield line, why, text[: m.start()] + m.expand(instead) + text[m.end() :]


def build(folder, source, text, kind):
    """Builds in folder the simulator of a kind with text in place of source."""
    # A header is read from beside the source that includes it.
    for part in (CUDA / "kernels").glob("*.cu*"):
        (folder / part.name).write_text(text if part == source else part.read_text())
    sources = [source] if source.suffix == ".cu" else users(source)
    built = subprocess.run([CUDA / "sim" / "build.sh", kind, folder, *(folder / p.name for p in sources)], capture_output=True, text=True)
    if built.returncode:
        raise SystemExit(f"{source.name} does not compile with what a rule puts there:\n{built.stderr}")


def run(package, test, tests, **settings):
    """What a package's tests say if they fail, else nothing."""
    command = [test, "-test.run", tests, "-test.failfast", "-test.timeout", "150s", "-test.short"]
    try:
        done = subprocess.run(command, env=dict(os.environ, CI="true", **settings), cwd=CUDA / package, capture_output=True, text=True, timeout=170)
    except subprocess.TimeoutExpired:
        return "it hangs"
    if not done.returncode:
        return ""
    said = re.search(r"(ERROR: AddressSanitizer: [\w-]+|simulator: (?:kernel|memory of the host) .*|\w+_test\.go:\d+: .*)", done.stderr + done.stdout)
    return said[1] if said else "a test fails"


def tests_of(source):
    package, tests = RUN.get(source.name, (source.stem, "."))
    return package, BUILD / "tests" / f"{package}.test", tests


def computes(source, text):
    """How the tests notice, under one schedule after the other, that source holds text."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        build(pathlib.Path(folder), source, text, "asan")
        for seed in "123":
            if said := run(*tests_of(source), LD_LIBRARY_PATH=folder, KINDRED_SIM_SEED=seed, LD_PRELOAD=ASAN, ASAN_OPTIONS="detect_leaks=0:handle_segv=0"):
                return said


def races(source, text):
    """What the race detector says of source if it holds text, under one schedule."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        build(pathlib.Path(folder), source, text, "race")
        said = run(*tests_of(source), LD_LIBRARY_PATH=folder)
        return re.sub(r".*: data race", "data race", said) if "data race" in said else None


def wraps(source, text):
    """Which check notices that a header of wrappers holds text."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        folder = pathlib.Path(folder)
        for part in ("sim", "kernels"):
            (folder / part).mkdir()
            for p in (CUDA / part).iterdir():
                (folder / part / p.name).write_text(text if p == source else p.read_text())
        flags = ["g++", "-std=c++20", "-O1", "-w", "-DKINDRED_SIM", "-ffp-contract=off"]
        for name, more, objects in (("fragments", [], ["core"]), ("races", ["-DKINDRED_RACE", "-fsanitize=thread"], ["core", "race"])):
            kind = BUILD / ("sim-race" if more else "sim-plain")
            subprocess.run([*flags, *more, "-g", "-c", folder / "sim" / f"{name}.cpp", "-o", folder / "checks.o"], check=True)
            subprocess.run(["g++", folder / "checks.o", *(kind / f"{o}.o" for o in objects), "-o", folder / "checks"], check=True)
            done = subprocess.run([folder / "checks"], capture_output=True, text=True)
            if done.returncode:
                return f"{name}: " + (done.stdout.splitlines() or ["it does not end well"])[0]
    for user in users(source):
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            build(pathlib.Path(folder), source, text, "plain")
            if said := run(*tests_of(user), LD_LIBRARY_PATH=folder):
                return f"{user.name}: {said}"
    return None


def hosts(source, text, tests):
    """How a package's tests notice with slow copies that a file of Go holds text."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        folder = pathlib.Path(folder)
        (folder / source.name).write_text(text)
        (folder / "overlay.json").write_text(json.dumps({"Replace": {str(source): str(folder / source.name)}}))
        subprocess.run([os.environ.get("GO", "go"), "test", "-tags", "cuda", "-overlay", folder / "overlay.json", "-c", "-o", folder / "host.test", "."], cwd=source.parent, check=True)
        return run(source.parent, folder / "host.test", tests, LD_LIBRARY_PATH=str(BUILD / "sim-plain"), KINDRED_SIM_SLOW="1")


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    alone = "--alone" in sys.argv[1:]
    todo = []  # name, line, why, how it is noticed
    for source in sorted((CUDA / "kernels").glob("*.cu*")):
        if source.suffix == ".cuh" and source.name not in RUN:
            continue
        text = source.read_text()
        if not alone:
            todo += [(source, line, why, lambda s=source, t=t: computes(s, t)) for line, why, t in mutations(text, RULES)]
        for line, why, t in mutations(text, RACES):
            todo.append((source, line, why, lambda s=source, t=t: races(s, t)))
            if alone:
                todo.append((source, line, "without the race detector: " + why, lambda s=source, t=t: computes(s, t)))
    if not alone:
        for name in ("ptx.cuh", "wgmma.cuh"):
            source = CUDA / "kernels" / name
            twins, *device = re.split(r"(\n#el(?:se|if .*)\n)", source.read_text(), maxsplit=1)
            todo += [(source, line, why, lambda s=source, t=t + "".join(device): wraps(s, t)) for line, why, t in mutations(twins, WRAPPERS)]
        for name, there, instead, why, tests in HOST:
            source = CUDA / name
            text = source.read_text()
            if text.count(there) != 1:
                sys.exit(f"{name} has not once {there}: the rules no longer fit it")
            line = text[: text.index(there)].count("\n") + 1
            todo.append((source, line, why, lambda s=source, t=text.replace(there, instead), tests=tests: hosts(s, t, tests)))
    todo = [job for job in todo if not names or job[0].name in names]
    every = "".join(p.read_text() for p in (CUDA / "kernels").glob("*.cu*"))
    for pattern, _, why in RULES + RACES + WRAPPERS:
        if not re.search(pattern, every):
            sys.exit(f"no kernel has a line for the rule {pattern} ({why}): the rules no longer fit them")
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (source, line, why, _), how in zip(todo, pool.map(lambda job: job[3](), todo)):
            print(f"{source.name}:{line}: {why}: {'caught: ' + how[:200] if how else 'NOT CAUGHT'}", flush=True)
            missed += not how
    if alone:
        return
    if missed:
        sys.exit(f"{missed} of {len(todo)} broken programs pass the tests")
    print(f"all {len(todo)} broken programs were caught")


if __name__ == "__main__":
    main()
