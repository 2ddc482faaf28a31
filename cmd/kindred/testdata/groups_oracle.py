"""Writes groups.json, what groups_shared_test.go holds segments and tags to: what
scikit-learn makes of the same vectors.

The texts are those that the test takes, the vectors come from `kindred embed`.
Segments: KMeans with five starts, three times. Tags: LogisticRegression as it
comes and with C chosen by cross-validation, on the examples that the test draws.

    pip install numpy scikit-learn
    make build && python groups_oracle.py DATA ../../../bin/kindred
"""

import csv
import gzip
import json
import pathlib
import subprocess
import sys
import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

warnings.filterwarnings("ignore")
data, kindred = sys.argv[1:3]


def rows(path):
    with gzip.open(pathlib.Path(data) / path, "rt", encoding="utf-8-sig", newline="") as f:
        return list(csv.reader(f))[1:]


def vectors(model, texts):
    out = subprocess.run([kindred, "embed", "--model", model], input="\n".join(texts) + "\n", capture_output=True, text=True, check=True).stdout
    x = np.array([json.loads(line)["vector"] for line in out.splitlines()], dtype=np.float64)
    assert len(x) == len(texts)
    return x


def clean(text):
    return " ".join(text.split())


def drawn(n, y, each, draw):
    """The examples of a draw: the first of each label in an order that both know."""
    order = sorted(range(n), key=lambda i: ((i + 1) * 7919 + draw * 3001) % 10007)
    took, train = {}, []
    for i in order:
        if took.get(y[i], 0) < each:
            took[y[i]] = took.get(y[i], 0) + 1
            train.append(i)
    return train


bank = [r for r in rows("banking77/test.csv.gz")][::2]
shop = [r for r in rows("online_shopping_10_cats/online_shopping_10_cats.csv.gz") if 5 <= len(clean(r[2])) <= 60][::40]
air = [r for r in rows("airline_tweets/tweets.csv.gz") if r[2] in ("positive", "negative")][::12]
sets = {
    "banking77": ("all-MiniLM-L6-v2", [clean(r[0]) for r in bank], [r[1] for r in bank]),
    "shopping": ("bge-small-zh-v1.5", [clean(r[2]) for r in shop], [r[0] for r in shop]),
    "airline": ("all-MiniLM-L6-v2", [clean(r[3]) for r in air], [r[2] for r in air]),
}
x = {name: vectors(model, texts) for name, (model, texts, _) in sets.items()}
out = {"segments": [], "tags": []}
for name in ("banking77", "shopping"):
    y = sets[name][2]
    k = len(set(y))
    rand, info = [], []
    for seed in range(3):
        p = KMeans(k, n_init=5, random_state=seed).fit_predict(x[name])
        rand.append(adjusted_rand_score(y, p))
        info.append(normalized_mutual_info_score(y, p))
    out["segments"].append({"set": name, "texts": len(y), "kinds": k, "rand": round(np.mean(rand), 4), "info": round(np.mean(info), 4)})
for name, y in (("airline", sets["airline"][2]), ("shopping", [r[1] for r in shop])):
    for each in (16, 100):
        plain, chosen = [], []
        for draw in range(3):
            train = drawn(len(y), y, each, draw)
            held = np.setdiff1d(np.arange(len(y)), train)
            a, b = x[name][train], np.array(y)[train]
            plain.append(LogisticRegression(max_iter=5000).fit(a, b).score(x[name][held], np.array(y)[held]))
            chosen.append(LogisticRegressionCV(Cs=[0.3, 1, 3, 10, 30, 100], cv=5, max_iter=5000).fit(a, b).score(x[name][held], np.array(y)[held]))
        out["tags"].append({"set": name, "each": each, "plain": round(np.mean(plain), 4), "chosen": round(np.mean(chosen), 4)})
(pathlib.Path(__file__).parent / "groups.json").write_text(json.dumps(out, indent=1) + "\n")
