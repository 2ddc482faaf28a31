"""Paired timing of texts to vectors against sentence-transformers on torch: the same
weights, texts and threads; tokenising is part of it on both sides.

    python -m venv venv && venv/bin/pip install sentence-transformers
    venv/bin/python run.py --model DIR --data DIR     # writes ../results/peers.json

DIR of the model holds all-MiniLM-L6-v2 (safetensors), that of the data
womens_clothing/reviews.csv.gz. sentence-transformers sorts by length itself; its
batch size is the best of those tried. Vectors are compared before anything is timed.
Order A B B A; a ratio is made of runs next to each other.
"""
import argparse, csv, gzip, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import cpu_name  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LEAST = {"fp32": 0.99999, "int16": 0.9999}


class Ours:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"peers: the Go side ended with {self.process.wait()}")
        return answer.strip()

    def time(self):
        return float(self.ask("time"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    p.add_argument("--texts", type=int, default=256)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--alternations", type=int, default=9)
    p.add_argument("--out", default=str(ROOT / "bench/results/peers.json"))
    a = p.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import numpy as np
    import sentence_transformers
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    load = os.getloadavg()[0]
    torch.set_num_threads(a.threads)
    body = Transformer(a.model, max_seq_length=256)
    model = SentenceTransformer(modules=[body, Pooling(384, pooling_mode="mean"), Normalize()], device="cpu")
    with gzip.open(os.path.join(a.data, "womens_clothing/reviews.csv.gz"), "rt", encoding="utf-8", newline="") as f:
        found = list(dict.fromkeys(r["Review Text"] for r in csv.DictReader(f) if r["Review Text"]))
    texts = found[:: max(1, len(found) // a.texts)][: a.texts]

    def theirs(size):
        start = time.perf_counter()
        v = model.encode(texts, batch_size=size, show_progress_bar=False, convert_to_numpy=True)
        return time.perf_counter() - start, v

    with tempfile.TemporaryDirectory() as tmp:
        binary, file, out = (os.path.join(tmp, n) for n in ("peers", "texts.json", "vectors"))
        pathlib.Path(file).write_text(json.dumps(texts))
        subprocess.run(["go", "build", "-o", binary, "./bench/peers"], cwd=ROOT, check=True)
        sides = {k: Ours(binary, "-model", a.model, "-precision", k, "-threads", str(a.threads), "-texts", file) for k in LEAST}
        reference = theirs(32)[1].astype(np.float64)
        cosine = {}
        for k, side in sides.items():
            side.ask("vectors " + out)
            v = np.fromfile(out, "<f4").reshape(len(texts), -1)
            cosine[k] = round(float((v * reference).sum(1).min()), 7)
            if cosine[k] < LEAST[k]:
                sys.exit(f"peers: the least cosine of {k} to sentence-transformers is {cosine[k]}, want {LEAST[k]}")
        tried = {size: min(theirs(size)[0] for _ in range(2)) for size in (4, 8, 16, 32, 64)}
        size = min(tried, key=tried.get)
        halves = []
        for _ in range(a.alternations):
            names = [*sides, "sentence-transformers"]
            for order in (names, names[::-1]):
                took = {}
                for n in order:
                    time.sleep(0.03)
                    took[n] = sides[n].time() if n in sides else theirs(size)[0]
                halves.append(took)
        for side in sides.values():
            side.process.stdin.close()
            side.process.wait()
    ratios = []
    for k in sides:
        r = [h["sentence-transformers"] / h[k] for h in halves]
        ratios.append({"ours": k, "theirs": "sentence-transformers", "median": round(statistics.median(r), 3), "min": round(min(r), 3), "max": round(max(r), 3), "pairs": len(r)})
    print(json.dumps(ratios))
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = {
        "what": "texts to vectors, all-MiniLM-L6-v2; a ratio is how many times faster Kindred is, from runs next to each other",
        "texts": len(texts), "ratios": ratios, "least_cosine": cosine, "batch_sizes_tried_seconds": {k: round(t, 4) for k, t in tried.items()}, "batch_size": size,
        "threads": a.threads, "alternations": a.alternations, "cpu": cpu_name(), "cores": os.cpu_count(),
        "load_average": {"start": load, "end": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "sentence-transformers": sentence_transformers.__version__, "torch": torch.__version__,
                     "go": subprocess.run(["go", "version"], capture_output=True, text=True).stdout.split()[2], "commit": git("rev-parse", "--short", "HEAD")},
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "raw": [{n: round(t, 5) for n, t in h.items()} for h in halves],
    }
    pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
