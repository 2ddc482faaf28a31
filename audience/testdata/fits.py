"""Goldens of the fits by scikit-learn: logistic regression, shrunk covariance with the
linear discriminant, spherical k-means.

    pip install scikit-learn==1.9.1 && python fits.py > fits.json

The tests hand the same raw values to package audience and compare. Design matrices are
written here from the definitions in basis.go, not taken from it.
"""

import json
import sys

import numpy as np
from scipy.special import erfinv
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance, shrunk_covariance
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(11)
SEEDS, OTHERS, DIM = 120, 600, 6
N = SEEDS + OTHERS
y = np.r_[np.ones(SEEDS), np.zeros(OTHERS)]

x = rng.normal(size=(N, DIM)) * [1, 2, 0.5, 1, 1, 3]
x[:SEEDS, :3] += [0.8, -1, 0.3]
x = x.astype(np.float32).astype(float)
category = np.where(y > 0, rng.choice(4, N, p=[0.1, 0.2, 0.3, 0.4]), rng.choice(4, N, p=[0.1, 0.4, 0.3, 0.2]))
number = np.where(y > 0, rng.choice(7, N, p=[0.1, 0.05, 0.05, 0.1, 0.2, 0.2, 0.3]), rng.choice(7, N, p=[0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1]))
sets = [sorted(set(rng.choice(5, rng.integers(1, 4), p=[0.1, 0.3, 0.2, 0.2, 0.2]) if t == 0 else rng.choice(5, rng.integers(1, 4), p=[0.1, 0.1, 0.1, 0.3, 0.4]))) for t in y]
weight = np.r_[rng.uniform(0.5, 3, SEEDS), np.ones(OTHERS)]


def share(codes, bins):
    """Of everyone, smoothed as shares() does."""
    n = np.bincount(np.concatenate([np.atleast_1d(c) for c in codes]), minlength=bins).astype(float)
    return (n + 0.5) / (len(codes) + 0.5 * bins)


def places(p):
    mid = np.cumsum(p[1:]) - p[1:] / 2
    at = np.sqrt(2) * erfinv(2 * mid / p[1:].sum() - 1)
    w = p[1:] / p[1:].sum()
    at = at - (w * at).sum()
    return at / np.sqrt((w * at**2).sum())


def one_hot(codes, bins):
    return np.eye(bins)[codes]


def block(kind, lines):
    """A column's design, [N, parameters], and the map from parameters to its table."""
    if kind == "category":
        return one_hot(category, 4), np.eye(4)
    if kind == "set":
        width = np.sqrt(max(1, share(sets, 5)[1:].sum()))
        out = np.zeros((N, 5))
        for i, s in enumerate(sets):
            out[i, s] = 1 / np.sqrt(len(s))
        return out * width, np.eye(5) * width
    if lines:
        table = np.zeros((7, 2))
        table[0, 0] = 1
        table[1:, 1] = places(share(number, 7))
        return one_hot(number, 7) @ table, table
    width = 3 / np.sqrt(7)
    table = np.zeros((7, 7))
    table[0, 0] = 1
    for j in range(1, 7):
        table[j, 1 : j + 1] = width
    return one_hot(number, 7) @ table, table


scale = 0.7
fits = []
for name, text, columns, lines in [("text", 100.0, 0.0, False), ("text, light", 10.0, 0.0, False), ("curves", 0.0, 4.0, False), ("lines", 0.0, 10.0, True), ("both", 30.0, 2.0, False)]:
    blocks, tables, penalties = [], [], []
    if text:
        blocks.append(x * scale)
        penalties += [text] * DIM
    if columns:
        for kind in ("category", "number", "set"):
            design, table = block(kind, lines)
            blocks.append(design)
            tables.append((kind, table))
            penalties += [columns] * design.shape[1]
    design = np.concatenate(blocks, axis=1)
    root = np.sqrt(np.array(penalties))
    # The seeds count as they are, the background as much in all.
    w = np.where(y > 0, weight * SEEDS / weight[:SEEDS].sum(), SEEDS / OTHERS)
    model = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(design / root, y, sample_weight=w)
    theta = model.coef_[0] / root
    at = 0
    fit = {"name": name, "text": text, "columns": columns, "lines": lines, "bias": model.intercept_[0]}
    if text:
        fit["vector"] = list(theta[:DIM] * scale)
        at = DIM
    fit["tables"] = []
    for kind, table in tables:
        fit["tables"].append(list(table @ theta[at : at + table.shape[1]]))
        at += table.shape[1]
    fits.append(fit)

# Whitening: covariance of deviations (about the mean that they deviate from), shrunk.
rows = (rng.normal(size=(300, 8)) @ rng.normal(size=(8, 8))).astype(np.float32).astype(float)
target = rng.normal(size=8)
rho = min(0.9, 0.1 + 8 / 300)
cov = EmpiricalCovariance(assume_centered=True).fit(rows).covariance_
solved = np.linalg.solve(shrunk_covariance(cov, shrinkage=rho), target)

# k-means of unit vectors: the sum of 1 - cosine to the nearest unit centre.
clusters = []
for n, dim, k, spread in [(300, 8, 3, 0.5), (300, 12, 5, 0.8), (200, 4, 4, 1.5), (250, 16, 8, 0.6)]:
    centers = rng.normal(size=(k, dim))
    points = centers[rng.integers(k, size=n)] + spread * rng.normal(size=(n, dim))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points.astype(np.float32)
    km = KMeans(k, n_init=20, random_state=0, tol=1e-8).fit(points)
    c = km.cluster_centers_ / np.linalg.norm(km.cluster_centers_, axis=1, keepdims=True)
    clusters.append({"k": k, "dim": dim, "points": [float(str(v)) for v in points.ravel()], "loss": float((1 - (points @ c.T).max(axis=1)).sum())})

# The log-odds of a cluster: values of its seeds against others along one line, both sides
# weighing as much as the seeds, on the others' standard deviation, one value's penalty.
odds = []
for near, others in [
    (rng.normal(0.6, 0.3, 40), rng.normal(0, 0.3, 500)),
    (np.full(12, 0.9), rng.choice([0.9, -0.1], 400, p=[0.1, 0.9])),
    (rng.normal(5, 0.1, 6), rng.normal(0, 1, 300)),
    (rng.normal(0.7, 1, 30), rng.normal(0, 1, 300)),
]:
    w = rng.uniform(0.5, 3, len(near))
    mean, spread = others.mean(), others.std()
    z = (np.r_[near, others] - mean) / spread
    model = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(
        z[:, None], np.r_[np.ones(len(near)), np.zeros(len(others))], sample_weight=np.r_[w, np.full(len(others), w.sum() / len(others))])
    a, b = model.coef_[0][0], model.intercept_[0]
    odds.append({"values": list(map(float, near)), "weights": list(map(float, w)), "others": list(map(float, others)), "slope": float(a / spread), "bias": float(b - a * mean / spread)})


def rounded(v):
    if isinstance(v, (list, np.ndarray)):
        return [rounded(a) for a in v]
    return float(f"{v:.9g}")


json.dump(
    {
        "seeds": SEEDS, "dim": DIM, "scale": scale,
        "x": [float(str(np.float32(v))) for v in x.ravel()], "weight": [float(v) for v in weight],
        "category": [int(c) for c in category], "number": [int(c) for c in number], "sets": [[int(c) for c in s] for s in sets],
        "fits": [{k: rounded(v) if isinstance(v, (list, float)) and not isinstance(v, bool) else v for k, v in f.items()} for f in fits],
        "whiten": {"dim": 8, "rows": [float(str(np.float32(v))) for v in rows.ravel()], "target": rounded(target), "solved": rounded(solved)},
        "kmeans": clusters, "odds": odds,
    },
    sys.stdout, separators=(",", ":"),
)
