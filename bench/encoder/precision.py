"""What int16 and int8 change: cosines to fp32 on real texts, STS and kNN.

    python -m venv venv && venv/bin/pip install numpy
    venv/bin/python precision.py --data DIR     # writes ../results/precision.json

DIR is the folder of evaluation data (KINDRED_SHARED/data). The models are taken
from KINDRED_MODELS or ~/.cache/kindred/models. English texts go through
all-MiniLM-L6-v2, Chinese ones through bge-small-zh-v1.5; texts are drawn with a
fixed seed, nothing was chosen by their results.
"""
import argparse, csv, gzip, io, json, os, pathlib, platform, random, subprocess, tempfile, time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = pathlib.Path(os.environ.get("KINDRED_MODELS", pathlib.Path.home() / ".cache/kindred/models"))
PRECISIONS = ["fp32", "int16", "int8"]
csv.field_size_limit(1 << 24)


def read(path):
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def column(path, name):
    return [r[name] for r in csv.DictReader(io.StringIO(read(path))) if r[name] and r[name].strip()]


def texts(data):
    """Per language: sources, and 500 texts from each."""
    sources = {
        "en": [("banking77/test.csv.gz", "text"), ("womens_clothing/reviews.csv.gz", "Review Text"),
               ("airline_tweets/tweets.csv.gz", "text"), ("amazon_musical/reviews.csv.gz", "reviewText")],
        "zh": [("online_shopping_10_cats/online_shopping_10_cats.csv.gz", "review"), ("chnsenticorp_htl/ChnSentiCorp_htl_all.csv.gz", "review"),
               ("dianping_2k/dianping.csv.gz", "comment"), ("restaurant_orders_zh/orders.csv.gz", "dishes_name")],
    }
    out = {}
    for language, files in sources.items():
        rng, out[language] = random.Random(1), []
        for file, name in files:
            distinct = sorted(set(column(data / file, name)))
            out[language] += rng.sample(distinct, min(500, len(distinct)))
    return out, sources


def sts(data):
    rows = list(csv.reader(io.StringIO(read(data / "stsb_multi_mt/stsb-en-test.csv.gz"))))
    zh = list(csv.reader(io.StringIO(read(data / "stsb_multi_mt/stsb-zh-test.csv.gz"))))
    return {"en": rows, "zh": zh}


def ranks(x):
    """Ranks, ties averaged."""
    order = np.argsort(x, kind="stable")
    r = np.empty(len(x))
    r[order] = np.arange(len(x))
    values, group = np.unique(x, return_inverse=True)
    return (np.bincount(group, r) / np.bincount(group))[group]


def spearman(a, b):
    return float(np.corrcoef(ranks(np.asarray(a)), ranks(np.asarray(b)))[0, 1])


def knn(train, train_labels, test, test_labels, k=10):
    """Share of test texts whose label has the largest sum of cosines among the k nearest."""
    right = 0
    for v, label in zip(test, test_labels):
        s = train @ v
        votes = {}
        for i in np.argsort(-s, kind="stable")[:k]:
            votes[train_labels[i]] = votes.get(train_labels[i], 0) + s[i]
        right += max(votes, key=votes.get) == label
    return right / len(test)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=str(ROOT / "bench/results/precision.json"))
    a = p.parse_args()
    data = pathlib.Path(a.data)
    sample, sources = texts(data)
    pairs = sts(data)
    bank = {part: list(csv.DictReader(io.StringIO(read(data / f"banking77/{part}.csv.gz")))) for part in ("train", "test")}
    result = {}
    with tempfile.TemporaryDirectory() as tmp:
        binary, src, dst = (os.path.join(tmp, n) for n in ("encoder", "texts.json", "vectors"))
        subprocess.run(["go", "build", "-o", binary, "./bench/encoder"], cwd=ROOT, check=True)

        def encode(model, pooling, precision, what):
            pathlib.Path(src).write_text(json.dumps(what), "utf-8")
            subprocess.run([binary, "-model", str(MODELS / model), "-pooling", pooling, "-precision", precision,
                            "-threads", str(a.threads), "-texts", src, "-out", dst], check=True)
            return np.fromfile(dst, "<f4").reshape(len(what), -1).astype(np.float64)

        for language, model, pooling in (("en", "all-MiniLM-L6-v2", "mean"), ("zh", "bge-small-zh-v1.5", "first")):
            one = {"sources": [f for f, _ in sources[language]], "texts": len(sample[language]), "pairs": len(pairs[language])}
            full = None
            for precision in PRECISIONS:
                parts = [sample[language], [r[0] for r in pairs[language]], [r[1] for r in pairs[language]]]
                if language == "en":
                    parts += [[r["text"] for r in bank["train"]], [r["text"] for r in bank["test"]]]
                v = np.split(encode(model, pooling, precision, sum(parts, [])), np.cumsum([len(x) for x in parts])[:-1])
                if full is None:
                    full = v[0]
                cos = (v[0] * full).sum(1)
                row = {"spearman_stsb_test": round(spearman((v[1] * v[2]).sum(1), [float(r[2]) for r in pairs[language]]), 5)}
                if precision != "fp32":
                    row.update(minimum_cosine=round(float(cos.min()), 7), first_percentile_cosine=round(float(np.percentile(cos, 1)), 7),
                               mean_cosine=round(float(cos.mean()), 7))
                if language == "en":
                    row["banking77_knn10_accuracy"] = round(knn(v[3], [r["category"] for r in bank["train"]], v[4], [r["category"] for r in bank["test"]]), 5)
                one[precision] = row
                print(model, precision, row, flush=True)
            result[model] = one
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    pathlib.Path(a.out).write_text(json.dumps({
        "what": "cosines of each text's vector to its fp32 vector; Spearman of cosine against the STS benchmark's test scores; kNN (10) on banking77",
        "models": result, "simd": os.environ.get("KINDRED_SIMD", "auto"), "machine": platform.machine(), "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
