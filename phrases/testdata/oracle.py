"""Writes cut.json and contrast.json, what phrases_test.go is held to.

cut.json: the words of sentences.txt by jieba 0.42.1 without its hidden Markov
model, whose dictionary ours is made of. contrast.json: log-odds ratios with an
informative Dirichlet prior of ten documents, by NumPy, for random counts.

    pip install jieba==0.42.1 numpy
    python oracle.py            # beside this file
"""

import json
import logging
import pathlib

import jieba
import numpy as np

jieba.setLogLevel(logging.WARNING)
here = pathlib.Path(__file__).parent
cuts = []
for line in (here / "sentences.txt").read_text(encoding="utf-8").splitlines():
    words = [w for w in jieba.cut(line, HMM=False) if any(ch.isalnum() for ch in w)]
    cuts.append({"text": line, "words": [w.lower() for w in words]})
(here / "cut.json").write_text(json.dumps(cuts, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

rng = np.random.default_rng(7)
cases = []
for _ in range(200):
    n, total = int(rng.integers(20, 400)), int(rng.integers(200, 5000))
    k = int(rng.integers(5, n))
    all_ = int(rng.integers(0, total))
    p = (all_ + 0.5) / (total + 1)
    a, b = k + 10 * p, n - k + 10 * (1 - p)
    c, d = all_ + 10 * p, total - all_ + 10 * (1 - p)
    z = np.log((a * d) / (b * c)) / np.sqrt(np.sum(1 / np.array([a, b, c, d])))
    cases.append({"k": k, "n": n, "all": all_, "total": total, "z": float(z), "lift": float(k / n / p)})
(here / "contrast.json").write_text(json.dumps(cases, indent=0) + "\n")
