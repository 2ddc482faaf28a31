"""Paired timing of the Go tokenizer against Hugging Face's tokenizers: same vocabulary,
same texts, on one core and on all, order A B B A.

    python -m venv venv && venv/bin/pip install tokenizers
    venv/bin/python run.py --models DIR --data DIR     # writes ../results/tokenizer.json

The models' folder holds all-MiniLM-L6-v2 and bge-small-zh-v1.5, the data's folder the sets named
in CORPORA. Both sides are processes that answer "go" with seconds and keep every answer until the
clock has stopped; on one core both are pinned to the same one. Processor time is measured beside the
clock: other work on the machine stretches the clock, not so much the processor time. The rival is taken at its best:
encode_batch_fast (no offsets), which is faster than encode_batch. All ids of all texts are
compared before a figure is printed.
"""
import argparse, array, csv, gzip, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import cpu_name  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPORA = {  # name: language, model, file, column
    "womens_clothing": ("en", "all-MiniLM-L6-v2", "womens_clothing/reviews.csv.gz", "Review Text"),
    "airline_tweets": ("en", "all-MiniLM-L6-v2", "airline_tweets/tweets.csv.gz", "text"),
    "online_shopping_10_cats": ("zh", "bge-small-zh-v1.5", "online_shopping_10_cats/online_shopping_10_cats.csv.gz", "review"),
}
REPEAT = 20  # passes of ours to one of the rival's, so that both run for some tenths of a second


def rival(model, file):
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    tok.no_truncation()
    tok.no_padding()
    texts = json.loads(pathlib.Path(file).read_text())
    for line in sys.stdin:
        if line.startswith("ids "):
            with open(line[4:].strip(), "wb") as f:
                for e in tok.encode_batch(texts):
                    array.array("i", [len(e.ids)] + e.ids).tofile(f)
            print("0 0 0", flush=True)
            continue
        start, used = time.perf_counter(), time.process_time()
        answers = tok.encode_batch_fast(texts)
        took, used = time.perf_counter() - start, time.process_time() - used
        print(took, used, sum(len(e) for e in answers), flush=True)
        del answers


def texts_of(data, path, column, most):
    with gzip.open(os.path.join(data, path), "rt", encoding="utf-8", errors="replace", newline="") as f:
        found = [r[column] for r in csv.DictReader(f) if r[column]]
    step = max(1, len(found) // most)  # spread over the file, which is sorted by category
    return found[::step][:most]


def measure(a, binary, tmp, name, threads):
    language, model, path, column = CORPORA[name]
    folder, file = os.path.join(a.models, model), os.path.join(tmp, name + ".json")
    texts = texts_of(a.data, path, column, a.texts)
    pathlib.Path(file).write_text(json.dumps(texts))
    cores = sorted(os.sched_getaffinity(0))[:threads]
    pin = lambda: os.sched_setaffinity(0, cores)
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true")
    ours, theirs = os.path.join(tmp, "ours"), os.path.join(tmp, "theirs")
    pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=pin)
    sides = {
        "kindred": subprocess.Popen([binary, "-model", folder, "-texts", file, "-threads", str(threads), "-repeat", str(REPEAT), "-out", ours], **pipe),
        "tokenizers": subprocess.Popen([sys.executable, __file__, "--rival", folder, "--file", file], **pipe),
    }

    def ask(side, what="go"):
        sides[side].stdin.write(what + "\n")
        sides[side].stdin.flush()
        seconds, used, n = sides[side].stdout.readline().split()
        return float(seconds), float(used), int(n)

    ask("tokenizers", "ids " + theirs)
    tokens = {side: ask(side)[2] for side in sides}
    if pathlib.Path(ours).read_bytes() != pathlib.Path(theirs).read_bytes() or len(set(tokens.values())) != 1:
        sys.exit(f"{name}: the ids differ")
    for side in sides:
        ask(side)
    pairs = []
    for _ in range(a.alternations):
        for first, second in (("kindred", "tokenizers"), ("tokenizers", "kindred")):
            t = {first: ask(first)[:2]}
            t[second] = ask(second)[:2]
            pairs.append(t)
    for side in sides.values():
        side.stdin.close()
        side.wait()
    n = tokens["kindred"]

    def ratio(at):
        r = [t["tokenizers"][at] / t["kindred"][at] for t in pairs]
        return {"median": round(statistics.median(r), 2), "min": round(min(r), 2), "max": round(max(r), 2)}

    def rate(at):
        return {s: round(n / statistics.median(t[s][at] for t in pairs) / 1e6, 3) for s in sides}

    return {
        "corpus": name, "language": language, "model": model, "threads": threads, "texts": len(texts),
        "characters": sum(map(len, texts)), "bytes": sum(len(t.encode()) for t in texts), "tokens": n, "ids_identical": True,
        "ratio": ratio(0), "processor_time_ratio": ratio(1),
        "million_tokens_per_second_median": rate(0), "million_tokens_per_processor_second_median": rate(1),
        "pairs": [{s: {"seconds": round(x, 6), "processor_seconds": round(c, 6)} for s, (x, c) in t.items()} for t in pairs],
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default=os.path.expanduser("~/.cache/kindred/models"))
    p.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    p.add_argument("--rival", help=argparse.SUPPRESS)
    p.add_argument("--file", help=argparse.SUPPRESS)
    p.add_argument("--texts", type=int, default=8000, help="texts of a corpus")
    p.add_argument("--alternations", type=int, default=11)
    p.add_argument("--out", default=str(ROOT / "bench/results/tokenizer.json"))
    a = p.parse_args()
    if a.rival:
        return rival(a.rival, a.file)
    import tokenizers

    load, runs = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as tmp:
        binary = os.path.join(tmp, "tokenizer")
        subprocess.run(["go", "build", "-o", binary, "./bench/tokenizer"], cwd=ROOT, check=True)
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            for name in CORPORA:
                runs.append(measure(a, binary, tmp, name, threads))
                print(json.dumps({k: v for k, v in runs[-1].items() if k != "pairs"}), flush=True)
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = {
        "what": "C5: WordPiece, whole texts to ids; ratio = Kindred's rate / Hugging Face tokenizers' (encode_batch_fast), pairs in order A B B A; tokens count [CLS] and [SEP]",
        "target": {"per_core_ratio": 8, "stretch": 20}, "alternations": a.alternations,
        "passes_averaged": {"kindred": REPEAT, "tokenizers": 1}, "runs": runs,
        "cpu": cpu_name(), "cores": os.cpu_count(), "load_average": {"start": load, "end": os.getloadavg()[0]},
        "note": "a shared virtual machine; other builds and tests may run at the same time, so only the ratios within a pair mean anything",
        "versions": {"python": platform.python_version(), "tokenizers": tokenizers.__version__,
                     "go": subprocess.run(["go", "version"], capture_output=True, text=True).stdout.split()[2],
                     "commit": git("rev-parse", "--short", "HEAD"), "tokenize_changed_since": bool(git("status", "--porcelain", "embed/tokenize", "bench/tokenizer"))},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
