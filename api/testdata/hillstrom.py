"""Makes hillstrom.json: what the e-mails of Hillstrom's experiment (2008, 64,000
customers, groups drawn by chance) brought about, by statsmodels.

    pip install statsmodels && python hillstrom.py hillstrom.csv.gz > hillstrom.json
"""

import csv
import gzip
import json
import sys

import numpy as np
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

with gzip.open(sys.argv[1], "rt") as f:
    rows = list(csv.DictReader(f))
out = {"customers": len(rows)}
for name in ["visit", "conversion"]:
    y = np.array([int(r[name]) for r in rows])
    spend = np.array([float(r["spend"]) for r in rows])
    control = np.array([r["segment"] == "No E-Mail" for r in rows])
    a, n, b, m = int(y[~control].sum()), int((~control).sum()), int(y[control].sum()), int(control.sum())
    low, high = confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb")
    rlow, rhigh = confint_proportions_2indep(a, n, b, m, compare="ratio", method="log-adjusted")
    c = CompareMeans(DescrStatsW(spend[~control]), DescrStatsW(spend[control]))
    out[name] = {
        "treated": [a, n], "control": [b, m], "difference": [a / n - b / m, low, high],
        "relative": [a / n / (b / m) - 1, rlow - 1, rhigh - 1],
        "value": [spend[~control].mean() - spend[control].mean(), *c.tconfint_diff(usevar="unequal")],
    }
print(json.dumps(out, indent=1))
