"""Makes lift.json: intervals of known tables by statsmodels and scipy, and
sigmoid fits by scikit-learn, which Kindred's are compared with.

    pip install statsmodels scikit-learn && python lift.py > lift.json
"""

import json

import numpy as np
from sklearn.calibration import _sigmoid_calibration
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

tables = [(56, 70, 48, 80), (9, 10, 3, 10), (10, 10, 0, 10), (5, 56, 0, 29), (0, 100, 0, 100), (1300, 20000, 1100, 20000), (31, 5000, 2, 480)]
out = {"tables": [], "values": [], "sigmoids": []}
for a, n, b, m in tables:
    low, high = confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb")
    row = {"treated": [a, n], "control": [b, m], "difference": [a / n - b / m, low, high]}
    row["rates"] = [list(proportion_confint(a, n, method="wilson")), list(proportion_confint(b, m, method="wilson"))]
    if b > 0:
        low, high = confint_proportions_2indep(a, n, b, m, compare="ratio", method="log-adjusted")
        row["relative"] = [a / n / (b / m) - 1, low - 1, high - 1]
    out["tables"].append(row)

rng = np.random.default_rng(7)
for n, m in [(40, 12), (300, 80), (3, 2)]:
    x = np.round(rng.lognormal(1.2, 1, n) * (rng.random(n) < 0.4), 3)
    y = np.round(rng.lognormal(1.0, 1, m) * (rng.random(m) < 0.4), 3)
    c = CompareMeans(DescrStatsW(x), DescrStatsW(y))
    low, high = c.tconfint_diff(usevar="unequal")
    out["values"].append({"treated": x.tolist(), "control": y.tolist(), "difference": [x.mean() - y.mean(), low, high], "freedom": c.dof_satt()})

for n, slope in [(60, 1.5), (400, 0.7), (2000, 2.2)]:
    e = np.round(rng.normal(-1, 1, n), 4)
    y = rng.random(n) < 1 / (1 + np.exp(-(slope * e - 0.3)))
    a, b = _sigmoid_calibration(e, y.astype(float))
    out["sigmoids"].append({"evidence": e.tolist(), "converted": y.tolist(), "a": -b, "b": -a})
print(json.dumps(out))
