"""Paired timing of point look-ups by graph against hnswlib (target C7), with
faiss and usearch beside: same vectors, same queries, k = 10, same links (16) and
candidates while building (200). Recall is against the exact neighbours by fp32.

    python -m venv venv && venv/bin/pip install numpy hnswlib faiss-cpu usearch
    go build -o hnsw ./bench/hnsw
    ./hnsw data -data ../shared/data -out vectors.f32       # 101,000 real sentences
    venv/bin/python bench/hnsw/run.py --ours ./hnsw --vectors vectors.f32

Each side's effort (ef) is chosen on the first half of the queries as the least
that reaches the recall; recall is reported of the other half. Timed runs take
all queries, in the order A B B A. Ours answers through the engine (snapshot,
ids, scores from the stored vectors), one query a call; the rivals answer a whole
batch a call in C++, row numbers only. Two precisions are run: fp16 (walk on
int8 codes, answers scored from fp16) and int8, the default, whose recall
against fp32 includes what rounding the stored vectors costs. "filters" is the
recall under a filter on a column, against the exact answers of the same engine.
"""
import argparse, json, os, pathlib, platform, statistics, subprocess, sys, time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import cpu_name  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
K, M, BUILD = 10, 16, 200


class Ours:
    def __init__(self, binary, vectors, precision):
        self.name = "kindred " + precision
        self.p = subprocess.Popen([binary, "serve", "-vectors", vectors, "-precision", precision, "-m", str(M),
                                   "-build", str(BUILD), "-k", str(K)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.p.stdin.write(command + "\n")
        self.p.stdin.flush()
        r = json.loads(self.p.stdout.readline())
        if r.get("error"):
            raise RuntimeError(r["error"])
        return r

    def build(self, base, threads):
        r = self.ask(f"build {len(base)} {threads}")
        return r["seconds"], r["cpu_seconds"]

    def ids(self, ef):
        return self.ask(f"ids {ef}")["ids"]

    def search(self, ef, threads):
        r = self.ask(f"search {ef} {threads}")
        return r["seconds"], r["cpu_seconds"]


class Rival:
    """A library in this process; subclasses say how."""

    def __init__(self, queries):
        self.queries = queries

    def timed(self, f):
        wall, cpu = time.perf_counter(), time.process_time()
        f()
        return time.perf_counter() - wall, time.process_time() - cpu

    def build(self, base, threads):
        return self.timed(lambda: self.make(base, threads))

    def search(self, ef, threads):
        return self.timed(lambda: self.run(ef, threads))

    def ids(self, ef):
        return self.run(ef, 2).tolist()


class Hnswlib(Rival):
    name = "hnswlib"

    def make(self, base, threads):
        import hnswlib

        self.index = hnswlib.Index("ip", base.shape[1])
        self.index.init_index(len(base), M=M, ef_construction=BUILD)
        self.index.add_items(base, num_threads=threads)

    def run(self, ef, threads):
        self.index.set_ef(ef)
        return self.index.knn_query(self.queries, k=K, num_threads=threads)[0]


class Faiss(Rival):
    name = "faiss"

    def make(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexHNSWFlat(base.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = BUILD
        self.index.add(base)

    def run(self, ef, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = ef
        return self.index.search(self.queries, K)[1]


class Usearch(Rival):
    def __init__(self, queries, dtype):
        super().__init__(queries)
        self.dtype, self.name = dtype, "usearch " + dtype

    def make(self, base, threads):
        from usearch.index import Index

        self.index = Index(ndim=base.shape[1], metric="ip", dtype=self.dtype, connectivity=M, expansion_add=BUILD)
        self.index.add(np.arange(len(base)), base, threads=threads)

    def run(self, ef, threads):
        self.index.expansion_search = ef
        return self.index.search(self.queries, K, threads=threads).keys


def recall(ids, truth):
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(ids, truth)]))


def effort(side, target, truth):
    """The least effort whose recall on the first half reaches the target, and the recall on the second."""
    half, seen = len(truth) // 2, {}

    def at(ef):
        if ef not in seen:
            ids = side.ids(ef)
            seen[ef] = recall(ids[:half], truth[:half]), recall(ids[half:], truth[half:])
        return seen[ef]

    lo, hi = K, 1024
    if at(hi)[0] < target:
        return None, at(hi)[1]
    while lo < hi:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if at(mid)[0] >= target else (mid + 1, hi)
    return lo, at(lo)[1]


def spread(xs):
    return {"median": statistics.median(xs), "min": min(xs), "max": max(xs)}


def paired(a, b, n, do):
    """Ratios b/a of wall and processor time over n alternations A B B A, and each side's wall times."""
    wall, cpu, times = [], [], ([], [])
    for _ in range(n):
        r = [do(a), do(b), do(b), do(a)]
        ta, tb = r[0][0] + r[3][0], r[1][0] + r[2][0]
        wall.append(tb / ta)
        cpu.append((r[1][1] + r[2][1]) / max(1e-9, r[0][1] + r[3][1]))
        times[0].append(ta / 2)
        times[1].append(tb / 2)
    return spread(wall), spread(cpu), times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True)
    p.add_argument("--vectors", required=True)
    p.add_argument("--rows", type=int, default=100_000)
    p.add_argument("--alternations", type=int, default=9)
    p.add_argument("--build-rows", type=int, default=10_000)
    p.add_argument("--commit", default="")
    p.add_argument("--out", default=str(ROOT / "bench/results/hnsw.json"))
    a = p.parse_args()
    from importlib.metadata import version

    v = np.fromfile(a.vectors, np.float32).reshape(-1, 384)
    base, queries = np.ascontiguousarray(v[:-1000][: a.rows]), np.ascontiguousarray(v[-1000:])
    truth = np.argpartition(-(queries @ base.T), K, axis=1)[:, :K].tolist()
    commit = a.commit or subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    out = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "commit": commit, "load_before": os.getloadavg()[0],
        "versions": {n: version(n) for n in ("hnswlib", "faiss-cpu", "usearch", "numpy")},
        "python": platform.python_version(), "data": "sentences of real reviews and posts, all-MiniLM-L6-v2",
        "rows": len(base), "dim": base.shape[1], "queries": len(queries), "k": K, "m": M, "build": BUILD,
        "alternations": a.alternations, "search": [], "build_time": {},
    }
    ours, plain = Ours(a.ours, a.vectors, "fp16"), Ours(a.ours, a.vectors, "int8")
    rival = Hnswlib(queries)
    wall, cpu, times = paired(ours, rival, a.alternations, lambda s: s.build(base[: a.build_rows], 2))
    out["build_time"] = {"rival": "hnswlib", "rows": a.build_rows, "threads": 2, "wall_ratio": wall, "cpu_ratio": cpu,
                         "ours_s": spread(times[0]), "rival_s": spread(times[1])}
    print("build", json.dumps(out["build_time"]), flush=True)
    full = {}
    sides = [(ours, None), (plain, 3), (rival, a.alternations), (Faiss(queries), 3), (Usearch(queries, "f16"), 3), (Usearch(queries, "i8"), 3)]
    for side, _ in sides:
        full[side.name] = dict(zip(("wall_s", "cpu_s"), side.build(base, 2)))
        print(side.name, full[side.name], flush=True)
    out["build_time"]["full"] = full
    out["filters"] = plain.ask("filters 100")["filters"]
    print(json.dumps(out["filters"]), flush=True)
    for target in (0.95, 0.99):
        ef, got = effort(ours, target, truth)
        for side, n in sides[1:]:
            other, reached = effort(side, target, truth)
            row = {"target": target, "against": side.name, "ours": {"effort": ef, "recall": got}, "other": {"effort": other, "recall": reached}}
            for threads in (1, 2) if other and ef else ():
                wall, cpu, times = paired(ours, side, n, lambda s: s.search(ef if s is ours else other, threads))
                row[f"threads_{threads}"] = {
                    "wall_ratio": wall, "cpu_ratio": cpu, "alternations": n,
                    "ours_qps": round(len(queries) / statistics.median(times[0])), "other_qps": round(len(queries) / statistics.median(times[1]))}
            out["search"].append(row)
            print(json.dumps(row), flush=True)
    out["load_after"] = os.getloadavg()[0]
    pathlib.Path(a.out).write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
