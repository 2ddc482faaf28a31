"""Makes isotonic.json: isotonic regressions by scikit-learn, which Kindred's are
compared with.

    pip install scikit-learn && python isotonic.py > isotonic.json

Ties in x, pools of every size and evidence outside of what was seen are among them.
"""

import json

import numpy as np
from sklearn.isotonic import IsotonicRegression

rng = np.random.default_rng(11)
out = []
for n, digits, shape in [(30, 4, "rise"), (400, 1, "rise"), (3000, 4, "step"), (1500, 4, "none"), (200, 0, "fall")]:
    x = np.round(rng.normal(-1, 1.5, n), digits)
    p = {"rise": 1 / (1 + np.exp(-x)), "step": np.where(x > 0, 0.6, 0.1), "none": np.full(n, 0.3), "fall": 1 / (1 + np.exp(x))}[shape]
    y = rng.random(n) < p
    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y.astype(float))
    at = np.concatenate([np.linspace(x.min() - 1, x.max() + 1, 60), x[:20]])
    out.append({"x": x.tolist(), "hit": y.tolist(), "at": at.tolist(), "p": fit.predict(at).tolist()})
print(json.dumps(out))
