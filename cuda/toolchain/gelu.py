#!/usr/bin/env python3
"""Fits the polynomial of gelu in kernels/gemm.cu, and says how far off that is.

gelu(x) = x * sat(1/2 + c q(c^2)), c = x within -4.5 and 4.5: the coefficients of q that make the
largest error of x times that least, by linear programming, while 1/2 + c q is at least 1 at 4.5, so
that what is beyond is 0 or 1. Wants numpy and scipy.
"""
import numpy as np
from scipy.optimize import linprog
from scipy.special import erf

END, DEGREE, OVER = 4.5, 9, 3e-6


def fit():
    x = np.linspace(1e-4, END, 6000)
    half = erf(x / np.sqrt(2)) / 2
    powers = np.vander((x / END) ** 2, DEGREE + 1, increasing=True) * x[:, None]
    n = DEGREE + 1
    off = -np.ones((len(x), 1))
    limits = np.vstack([np.hstack([powers * x[:, None], off]), np.hstack([-powers * x[:, None], off]), np.hstack([-powers[-1:], [[0]]])])
    bounds = np.concatenate([half * x, -half * x, [-(0.5 + OVER)]])
    best = linprog(np.r_[np.zeros(n), 1], A_ub=limits, b_ub=bounds, bounds=[(None, None)] * n + [(0, None)], method="highs")
    return best.x[:n] / END ** (2 * np.arange(n)), best.x[n]


def main():
    q, error = fit()
    q = q.astype(np.float32)
    x = np.linspace(-12, 12, 2_000_001).astype(np.float32)
    c = np.clip(x, -np.float32(END), np.float32(END))
    u = c * c
    p = np.full_like(u, q[-1])
    for a in q[-2::-1]:  # one rounding an operation, as fmaf
        p = (p.astype(np.float64) * u + a).astype(np.float32)
    got = x * np.clip((c.astype(np.float64) * p + 0.5).astype(np.float32), 0, 1)
    want = x.astype(np.float64) * (0.5 + erf(x.astype(np.float64) / np.sqrt(2)) / 2)
    off = np.abs(got - want)
    print("from the highest power of c^2 down:", *(repr(float(a)) for a in q[::-1]))
    print(f"off by at most {error:.1e} before rounding, {off.max():.1e} in fp32 (at {x[off.argmax()]:.2f}); gelu(-12) is {got[0]:g}, gelu(12) {got[-1]:g}")


if __name__ == "__main__":
    main()
