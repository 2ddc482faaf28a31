"""Paired timing of a lookalike audience from everyone against NumPy and faiss:
10,000,000 customers of 384 int8, the best 100,000 (second half of C8).

    python -m venv venv && venv/bin/pip install numpy threadpoolctl faiss-cpu
    venv/bin/python run.py                # writes ../results/lookalike.json

Ours scores and selects in one pass and holds nobody's score; a scan that returns
everyone's is timed beside it, for the share of the read bandwidth. 64 audiences in one
pass are timed against one of them, by the clock and by processor time, and their lists
compared. The customers have ten columns too, which one more head looks at.

Two parts, since all of it does not fit a small machine at once:

- "int8": all rows. NumPy holds the same codes as an int8 matrix and a scale a
  row; it turns a block to float32, multiplies it with the head, and takes the
  members with argpartition, unsorted (ours come sorted). The size of a block and
  one or two threads are chosen as the fastest of those tried. Beside it, the same a
  million rows at a time, as one writes it who doesn't look for a block that stays in cache.
- "fp32": --fp32-rows of them as one float32 matrix, as NumPy users mostly hold
  it: matrix @ head on all cores, argpartition. faiss's exact search over the same
  matrix, asked for as many answers, stands beside it. All 10,000,000 rows take 15.4 GB
  and ours beside them 5: `run.py --fp32-rows 10000000` on a machine with 23 GB free
  (--skip-faiss 1 leaves faiss out, which needs more); what does not fit is refused, with
  the numbers, before anything is made.

Rows are made, not read (main.go says how), the same on each side. Order A B B A;
a ratio is rival / ours from runs next to each other. Scores and members are
compared before anything is timed: ours must be the exact ones of whole numbers,
bit for bit, and NumPy's the same within 1e-4. The ceiling is the read bandwidth, before and after each part.
"""
import argparse, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import cpu_name  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOLERANCE = 1e-4


def blocks(rows, dim):
    """Of a block of rows at a time the place of the first, int8 [rows, dim] and fp32
    [rows], as main.go makes them."""
    words = dim // 8
    step = 16384
    with np.errstate(over="ignore"):
        for lo in range(0, rows, step):
            hi = min(lo + step, rows)
            z = np.arange(lo * words + 1, hi * words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            part = np.maximum(z.astype("<u8").view(np.int8), -127).reshape(hi - lo, dim)
            f = part.astype(np.float32)
            yield lo, part, (1 / np.sqrt(np.einsum("ij,ij->i", f, f, dtype=np.float64))).astype(np.float32)


def codes(rows, dim):
    """All of them: int8 [rows, dim] and fp32 [rows]."""
    out, scales = np.empty((rows, dim), np.int8), np.empty(rows, np.float32)
    for lo, part, scale in blocks(rows, dim):
        out[lo : lo + len(part)], scales[lo : lo + len(part)] = part, scale
    return out, scales


def floats(rows, dim, head):
    """The same as one fp32 matrix [rows, dim], and everyone's exact score. The codes are
    never there as a whole: at 10,000,000 rows there is no room for both."""
    out, scores = np.empty((rows, dim), np.float32), np.empty(rows, np.float32)
    for lo, part, scale in blocks(rows, dim):
        np.multiply(part, scale[:, None], out=out[lo : lo + len(part)])
        scores[lo : lo + len(part)] = exact(part, scale, head)
    return out, scores


class Ours:
    def __init__(self, binary, rows, dim, members):
        command = [binary, "-rows", str(rows), "-dim", str(dim), "-members", str(members)]
        self.huge_mb = 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"lookalike: the Go side ended with {self.process.wait()}: out of memory? Give fewer --rows")
        r = json.loads(line)
        if r.get("error"):
            sys.exit("lookalike: " + r["error"])
        return r

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def time(self):
        """Seconds of an audience, scored and selected in one pass; of a scan alone; and of
        selecting from its scores."""
        r = self.ask("time 1")
        self.huge_mb = max(self.huge_mb, r.get("huge_mb", 0))
        return r["audience"][0], r["scan"][0], r["select"][0]

    def many(self, n, repeats):
        """n audiences in one pass against one of them, whose lists must be the same."""
        wall, cpu, together, one, memory = [], [], [], [], 0
        for _ in range(repeats):
            r = self.ask(f"many {n}")
            if r["same"] != n:
                sys.exit(f"lookalike: only {r['same']} of {n} lists made together are those of passes of their own")
            wall.append(r["together"] / statistics.median(r["audience"]))
            cpu.append(r["together_cpu"] / statistics.median(r["audience_cpu"]))
            together.append(r["together"])
            one += r["audience"]
            memory = max(memory, r["many_mb"])
        return {"audiences": n, "all_equal_lists_made_alone": True, "over_one": spread(wall, 2), "over_one_by_processor_time": spread(cpu, 2),
                "seconds": spread(together), "one_seconds": spread(one), "peak_mb": round(memory)}

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class NumpyInt8:
    name = "numpy int8, block by block"

    def __init__(self, codes, scales, head, members):
        self.codes, self.scales, self.head, self.members = codes, scales, head, members
        self.out = np.empty(len(codes), np.float32)
        self.tried = {}

    def scores(self, block, threads):
        def part(lo, hi):
            buffer = np.empty((min(block, hi - lo), self.codes.shape[1]), np.float32)
            for at in range(lo, hi, block):
                end = min(at + block, hi)
                b = buffer[: end - at]
                np.copyto(b, self.codes[at:end])
                np.dot(b, self.head, out=self.out[at:end])
                self.out[at:end] *= self.scales[at:end]

        n = len(self.codes)
        edges = [n * t // threads for t in range(threads + 1)]
        with threadpool_limits(1 if threads > 1 else None), ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, edges[:-1], edges[1:]))
        return self.out

    def choose(self, cores, rows):
        """Times a part of the rows in each way and keeps the fastest."""
        whole = self.codes, self.scales, self.out
        self.codes, self.scales, self.out = (x[:rows] for x in whole)
        for threads in sorted({1, cores}):
            for block in (256, 1024, 4096, 16384):
                took = []
                for _ in range(3):
                    start = time.perf_counter()
                    self.scores(block, threads)
                    took.append(time.perf_counter() - start)
                self.tried[f"{threads} threads, {block} rows"] = round(min(took), 4)
        self.codes, self.scales, self.out = whole
        best = min(self.tried, key=self.tried.get)
        self.threads, self.block = int(best.split()[0]), int(best.split()[2])
        return best

    def run(self):
        s = self.scores(self.block, self.threads)
        return np.argpartition(s, len(s) - self.members)[len(s) - self.members :]


class NumpyCast:
    name = "numpy int8, cast by the million"

    def __init__(self, codes, scales, head, members):
        self.codes, self.scales, self.head, self.members = codes, scales, head, members

    def run(self):
        step = 1_000_000
        s = np.concatenate([self.codes[lo : lo + step].astype(np.float32) @ self.head for lo in range(0, len(self.codes), step)]) * self.scales
        return np.argpartition(s, len(s) - self.members)[len(s) - self.members :]


class NumpyFp32:
    name = "numpy fp32, one matrix"

    def __init__(self, matrix, head, members):
        self.matrix, self.head, self.members = matrix, head, members

    def run(self):
        s = self.matrix @ self.head
        return np.argpartition(s, len(s) - self.members)[len(s) - self.members :]


class Faiss(NumpyFp32):
    name = "faiss fp32, exact search"

    def run(self):
        import faiss

        return faiss.knn(self.head[None], self.matrix, self.members, metric=faiss.METRIC_INNER_PRODUCT)[1][0]


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def spread(xs, digits=4):
    return {"median": round(statistics.median(xs), digits), "min": round(min(xs), digits), "max": round(max(xs), digits)}


def exact(codes, scales, head):
    """Everyone's score by whole numbers, as index/rows defines it: the head rounded to
    multiples of the least power of two, from top / 2^15, at which 16 bits hold each and
    32 bits every sum; sums exact, one rounding at the end."""
    h = head.astype(np.float64)
    exp = np.frexp(np.abs(h).max())[1] - 15
    while True:
        scale = np.ldexp(1.0, exp)
        q = np.rint(h / scale)
        if np.abs(q).max() <= 32767 and np.abs(q).sum() <= (2**31 - 1) // 127:
            break
        exp += 1
    out = np.empty(len(codes), np.float32)
    for lo in range(0, len(codes), 16384):
        hi = lo + 16384
        out[lo:hi] = (codes[lo:hi].astype(np.float64) @ q) * (scales[lo:hi].astype(np.float64) * scale)
    return out


def check(ours, exact_scores, numpy_scores, members, tmp):
    """Stops unless our scores are the exact ones, bit for bit, our members the best by
    them, in order, equal scores by id, and NumPy's scores the same but for rounding."""
    path = os.path.join(tmp, "answer")
    ours.ask("scores " + path)
    got = np.fromfile(path, "<f4")
    if not np.array_equal(got, exact_scores):
        sys.exit(f"lookalike: {np.sum(got != exact_scores)} scores are not the exact ones")
    worst = float(np.abs(got - numpy_scores).max())
    if not worst < TOLERANCE:
        sys.exit(f"lookalike: NumPy's scores differ by up to {worst}, at most {TOLERANCE} is allowed")
    ours.ask("members " + path)
    mine = np.fromfile(path, "<u4")
    if not np.array_equal(mine, np.argsort(-exact_scores, kind="stable")[:members]):
        sys.exit("lookalike: the members are not the best by exact scores, equal ones by id")
    theirs = np.argpartition(numpy_scores, len(got) - members)[len(got) - members :]
    return {"scores_equal_exact_bit_for_bit": True, "members_equal_exact_in_order": True,
            "greatest_difference_to_numpy_fp32": worst, "members_in_common_with_numpy_fp32": len(np.intersect1d(mine, theirs)) / members}


def part(ours, rivals, alternations, dim, rows):
    """Alternations of ours with each rival, and the ceilings around them."""
    out, ceilings = {}, [ours.ask("ceiling")["bandwidth"]]
    shares = []
    for r, n in rivals:
        r.run()
        ours.time()
        pairs = []
        for _ in range(n):
            for first in (True, False):
                sides = {}
                for mine in (first, not first):
                    if mine:
                        before = ours.ask("ceiling")["bandwidth"]
                        sides["ours"], sides["scan"], sides["select"] = ours.time()
                        after = ours.ask("ceiling")["bandwidth"]
                        ceilings += [before, after]
                        shares.append(rows * dim / sides["scan"] / ((before + after) / 2))
                    else:
                        sides["rival"] = timed(r.run)
                pairs.append(sides)
        ratio = [p["rival"] / p["ours"] for p in pairs]
        out[r.name] = {"ratio": spread(ratio, 3), "pairs": len(ratio), "seconds": spread([p["rival"] for p in pairs]),
                       "ours_seconds": spread([p["ours"] for p in pairs]), "ours_scan_seconds": spread([p["scan"] for p in pairs]),
                       "ours_select_seconds": spread([p["select"] for p in pairs]),
                       "raw": [{k: round(v, 5) for k, v in p.items()} for p in pairs]}
        # Each of them again and again, with nothing in between: what a pair pays for its
        # change of sides is then not in it.
        out[r.name]["in_a_row"] = {"ours_seconds": spread([ours.time()[0] for _ in range(n)]), "rival_seconds": spread([timed(r.run) for _ in range(n)])}
        print(r.name, json.dumps({k: out[r.name][k] for k in ("ratio", "seconds", "ours_seconds", "in_a_row")}), flush=True)
    return out, spread([c / 1e9 for c in ceilings], 2), spread(shares, 3)


def available():
    for line in open("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def room(what, rows, bytes_a_row):
    need, have = rows * bytes_a_row + (2 << 30), available()
    if need > have:
        sys.exit(f"lookalike: {what}: {rows} rows need about {need / 1e9:.1f} GB, {have / 1e9:.1f} GB are free; give fewer rows")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=10_000_000)
    p.add_argument("--fp32-rows", type=int, default=4_000_000)
    p.add_argument("--dim", type=int, default=384)
    p.add_argument("--members", type=int, default=100_000)
    p.add_argument("--many", type=int, default=64, help="audiences made in one pass")
    p.add_argument("--alternations", type=int, default=9)
    p.add_argument("--faiss-alternations", type=int, default=3)
    p.add_argument("--skip-faiss", type=int, default=0, help="1: NumPy alone")
    p.add_argument("--out", default=str(ROOT / "bench/results/lookalike.json"))
    a = p.parse_args()
    import faiss

    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    commit = git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "--", "index/rows", "index/selection", "internal/simd", "bench/lookalike", "go.mod") else "")
    head = np.sin(np.arange(a.dim) + 1.0).astype(np.float32)
    parts = {}
    with tempfile.TemporaryDirectory() as tmp:
        binary = os.path.join(tmp, "lookalike")
        subprocess.run(["go", "build", "-o", binary, "./bench/lookalike"], cwd=ROOT, check=True)

        room("int8", a.rows, 2 * (a.dim + 4) + 220)
        ours = Ours(binary, a.rows, a.dim, a.members)
        about = ours.about
        matrix, scales = codes(a.rows, a.dim)
        side = NumpyInt8(matrix, scales, head, a.members)
        best = side.choose(cores, min(a.rows, 400_000))
        found = check(ours, exact(matrix, scales, head), side.scores(side.block, side.threads), a.members, tmp)
        table, ceiling, share = part(ours, [(side, a.alternations), (NumpyCast(matrix, scales, head, a.members), a.faiss_alternations)], a.alternations, a.dim, a.rows)
        many = ours.many(a.many, 5)
        columns = spread(ours.ask("columns 5")["audience"][1:])  # the first cuts them
        ours.end()
        parts["int8"] = {"rows": a.rows, "correctness": found, "numpy_tried_seconds": side.tried, "numpy_chosen": best,
                         "against": table, "read_bandwidth_gb_s": ceiling, "scan_share_of_read_bandwidth": share,
                         "many_in_one_pass": many, "with_ten_columns_seconds": columns, "ours_large_pages_mb": round(ours.huge_mb),
                         "ours_peak_mb": round(about["peak_mb"]), "numpy_mb": round((matrix.nbytes + scales.nbytes) / 1e6)}
        del matrix, scales, side

        room("fp32", a.fp32_rows, 4 * a.dim + a.dim + 4 + 130 + 20)  # ours has 130 a row beside the codes, and a few lists of scores
        ours = Ours(binary, a.fp32_rows, a.dim, a.members)
        matrix, reference = floats(a.fp32_rows, a.dim, head)
        side = NumpyFp32(matrix, head, a.members)
        found = check(ours, reference, matrix @ head, a.members, tmp)
        rivals = [(side, a.alternations)]
        if not a.skip_faiss:
            rivals.append((Faiss(matrix, head, a.members), a.faiss_alternations))
        table, ceiling, share = part(ours, rivals, a.alternations, a.dim, a.fp32_rows)
        ours.end()
        parts["fp32"] = {"rows": a.fp32_rows, "correctness": found, "against": table, "read_bandwidth_gb_s": ceiling,
                         "scan_share_of_read_bandwidth": share, "numpy_mb": round(matrix.nbytes / 1e6)}
    result = {
        "what": "lookalike audience: everyone scored, the best members taken; a ratio is how many times faster Kindred is",
        "dim": a.dim, "members": a.members, "alternations": a.alternations, "parts": parts,
        "cpu": cpu_name(), "cores": cores, "threads": cores, "load_average": {"start": load, "end": os.getloadavg()[0]},
        "note": "rows are random codes of one byte; a shared virtual machine, so only ratios within a pair mean anything",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "faiss-cpu": faiss.__version__,
                     "go": about["go"], "simd": about["simd"], "commit": commit},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
