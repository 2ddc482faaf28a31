"""Makes evaluate.json, the goldens of audience.Evaluate, with scikit-learn.

    python -m venv venv && venv/bin/pip install scikit-learn && venv/bin/python evaluate.py

AUC is sklearn.metrics.roc_auc_score. Lift and precision at n are the mean over
shuffles of ties of what is counted among the best n; here that mean is taken in
closed form from the counts that sklearn.metrics.roc_curve gives at each distinct
score: between two thresholds hits grow evenly with the customers taken.
Scores are multiples of 1/64, so float32 holds them exactly.
"""
import json, pathlib

import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score, roc_curve


def hits(truth, score, n):
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    found, taken = tpr * truth.sum(), tpr * truth.sum() + fpr * (~truth).sum()
    return float(np.interp(n, taken, found))


def case(name, truth, score, k):
    truth, score = np.asarray(truth, bool), np.asarray(score, float)
    assert (score == score.astype(np.float32)).all()
    base = truth.mean()
    # The share's size is rounded half up, and at least one customer.
    size = {q: max(1, int(q / 100 * len(score) + 0.5)) for q in (1, 5, 10)}
    return dict(
        name=name, scores=score.tolist(), truth=truth.astype(int).tolist(), n=len(score), positives=int(truth.sum()),
        auc=float(roc_auc_score(truth, score)), lift={str(q): hits(truth, score, n) / n / base for q, n in size.items()},
        precision={str(n): hits(truth, score, n) / n for n in k})


def main():
    rng = np.random.default_rng(11)
    cases = []
    truth = rng.random(300) < 0.3
    cases.append(case("all scores differ", truth, rng.permutation(300) / 64 + truth * 1.0, [1, 7, 50, 300]))
    truth = rng.random(400) < 0.2
    cases.append(case("five levels, ties across every boundary", truth, np.clip(rng.integers(0, 5, 400) + truth * rng.integers(0, 2, 400), 0, 4) / 4, [1, 3, 20, 99, 400]))
    truth = rng.random(250) < 0.1
    cases.append(case("rare positives, negative scores", truth, -rng.integers(0, 40, 250) / 64 + truth / 4, [2, 10, 25]))
    cases.append(case("every score the same", np.arange(120) % 4 == 0, np.zeros(120), [1, 60, 120]))
    cases.append(case("positives last", np.arange(90) >= 70, -np.arange(90) / 64, [1, 70, 80]))
    cases.append(case("positives first", np.arange(90) < 9, -np.arange(90) / 64, [1, 9, 10]))
    cases.append(case("one positive of eight", [0, 0, 1, 0, 0, 0, 0, 0], [3, 3, 3, 1, 1, 0, 0, 0], [1, 2, 3, 8]))
    out = pathlib.Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(dict(made_by=f"scikit-learn {sklearn.__version__}", cases=cases), separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
