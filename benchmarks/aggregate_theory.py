"""The exact risk, and the best rho, on a grid of 100,000 parameter points.

    python benchmarks/aggregate_theory.py [--points 100_000] [--repeats 7]

One process, warmed. The peer is the other route to the same number: the saddle point of the scalar
min-max problem, solved point by point (on few points, scaled up).
"""

import argparse
import time

import numpy as np

from privlearn.aggregate import theory


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n = options.points
    gamma, k = rng.uniform(0.01, 2.0, n), rng.integers(1, 20, n)
    rho = np.where(rng.random(n) < 0.1, 0.0, np.exp(rng.normal(-1, 2, n)))
    signal, noise = np.exp(rng.normal(0, 1, (2, n)))
    private = {"epsilon": 2.0, "clip": 2.0}
    runs = {
        "risk": lambda: theory.risk(gamma, k, rho, signal, noise),
        "risk_private": lambda: theory.risk_private(gamma, k, rho, signal, noise, **private),
        "best_rho": lambda: theory.best_rho(gamma, k, signal, noise),
    }
    print(f"{n:,} points, {options.repeats} repeats (target for risk: under 1 s)")
    for run in runs.values():
        run()
    found = {name: np.empty(options.repeats) for name in runs}
    for repeat in range(options.repeats):
        for name, run in runs.items():
            found[name][repeat] = seconds(run)
    for name, times in found.items():
        print(f"  {name:14s} {np.median(times):.3f} s [{times.min():.3f} .. {times.max():.3f}]")

    few = np.flatnonzero((gamma < 0.95) & (rho > 0))[:50]
    columns = [gamma[few], k[few], rho[few], signal[few], noise[few]]
    start = time.perf_counter()
    saddle = [theory.risk_cgmt(*point).total for point in zip(*columns, strict=True)]
    each = (time.perf_counter() - start) / len(few)
    gap = np.abs(np.array(saddle) / theory.risk(*columns).total - 1).max()
    ratio = each * n / np.median(found["risk"])
    print(f"  saddle point   {each * n:.0f} s for as many (x {ratio:,.0f}); differs by {gap:.0e}")


if __name__ == "__main__":
    main()
