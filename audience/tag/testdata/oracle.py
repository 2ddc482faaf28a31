"""Writes softmax.json, what tag_test.go is held to: examples drawn here, and what
scikit-learn's LogisticRegression makes of them.

    pip install scikit-learn
    python oracle.py            # beside this file
"""

import json
import pathlib

import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(3)
dim, labels = 12, 4
centers = rng.normal(size=(labels, dim))


def draw(n):
    y = rng.integers(0, labels, n)
    x = centers[y] + 1.6 * rng.normal(size=(n, dim)) + 0.5
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


x, y = draw(90)
probe, truth = draw(400)
out = {"labels": labels, "dim": dim, "x": x.ravel().tolist(), "y": y.tolist(), "probe": probe.ravel().tolist(), "truth": truth.tolist(), "fits": []}
for penalty in (0.03, 0.3, 1.0):
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10000).fit(x.astype(np.float64), y)
    p = model.predict_proba(probe.astype(np.float64))
    out["fits"].append({"penalty": penalty, "probability": np.round(p, 7).ravel().tolist(), "accuracy": float((p.argmax(1) == truth).mean())})
(pathlib.Path(__file__).parent / "softmax.json").write_text(json.dumps(out) + "\n")
