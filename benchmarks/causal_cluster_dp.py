"""Release and estimation of a large experiment, beside NumPy and beside OpenDP's per-value call.

    python benchmarks/causal_cluster_dp.py [--units 10_000_000] [--clusters 10_000] [--repeats 5]

One process, everything warmed, repeats interleaved. Peers:

- "NumPy pass": the same steps (count, noise, project, resample, histogram of the output, debias)
  written by hand with NumPy's seeded generator. Fast, reproducible, and therefore not private.
- OpenDP's `make_randomized_response`, one Python call per value, with equal guarantee (K-ary
  randomised response, the uniform prior); timed on some values and extrapolated.

Ratios are medians of per-repeat ratios, with their range. Memory is what NumPy allocates at the
peak of a release, per unit.
"""

import argparse
import os
import time
import tracemalloc
from importlib.metadata import version

import numpy as np
import opendp.prelude as dp

from privlearn.causal import ClusterDP, EffectEstimator, OutcomeGrid, UniformPriorDP, kernels
from privlearn.causal.cells import build_cells

K, LAM, GAMMA, SIGMA = 12, 0.5, 0.1 / 12, 10.0


def numpy_pass(codes, z, clusters, n_clusters, rng):
    cells = clusters * 2 + z
    counts = np.bincount(cells * K + codes, minlength=2 * n_clusters * K).reshape(-1, K)
    sizes = counts.sum(1)
    noise = rng.laplace(scale=SIGMA, size=counts.shape)
    priors = kernels.project_floor((counts + noise) / sizes[:, None], GAMMA)
    cumulative = np.cumsum(priors, axis=1)
    who = np.flatnonzero(rng.random(len(codes)) < LAM)
    u = rng.random(len(who))
    rows = cells[who]
    fresh = np.zeros(len(who), np.int32)
    for k in range(K - 1):
        fresh += u >= cumulative[rows, k]
    out = codes.copy()
    out[who] = fresh
    released = np.bincount(cells * K + out, minlength=2 * n_clusters * K).reshape(-1, 2, K)
    v = np.arange(K, dtype=float)
    means = released @ v / sizes.reshape(-1, 2)
    scores = (means - LAM * (priors @ v).reshape(-1, 2)) / (1 - LAM)
    weight = sizes.reshape(-1, 2).sum(1) / len(codes)
    return float(weight @ (scores[:, 1] - scores[:, 0]))


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(name, spent, base):
    ratios = spent / base
    print(
        f"  {name:34s} {np.median(spent):8.3f} s   {np.median(ratios):6.2f}x NumPy pass "
        f"({ratios.min():.2f} to {ratios.max():.2f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--opendp-values", type=int, default=20_000)
    arguments = parser.parse_args()
    n, n_clusters = arguments.units, arguments.clusters
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, n_clusters, n, dtype=np.int32)
    z = rng.integers(0, 2, n, dtype=np.int32)
    y = rng.binomial(K - 1, 0.2 + 0.5 * clusters / n_clusters + 0.1 * z).astype(np.int32)

    grid = OutcomeGrid.of(range(K))
    cluster_dp = ClusterDP(grid, LAM, GAMMA, SIGMA)
    uniform = UniformPriorDP(grid, LAM)
    layout = build_cells(z, clusters)
    last = cluster_dp.release_codes(y, layout)

    steps = {
        "NumPy pass": lambda: numpy_pass(y, z, clusters, n_clusters, rng),
        "Cluster-DP: check, release, estimate": lambda: EffectEstimator().fit(
            cluster_dp.privatize(y, z, clusters)
        ),
        "  of which the layout": lambda: build_cells(z, clusters),
        "  of which the release": lambda: cluster_dp.release_codes(y, layout),
        "  of which the noise (OpenDP)": lambda: cluster_dp.noise.release(
            np.zeros((2 * n_clusters, K), np.int64)
        ),
        "  of which the estimate": lambda: EffectEstimator().fit(last),
        "uniform prior: release": lambda: uniform.release_codes(y, layout),
    }
    times = {name: np.empty(arguments.repeats) for name in steps}
    for step in steps.values():
        step()
    for repeat in range(arguments.repeats):
        for name, step in steps.items():
            times[name][repeat] = seconds(step)

    print(
        f"{n:,} units, {n_clusters:,} clusters, K = {K}, lam = {LAM:g}; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, NumPy {np.__version__}, OpenDP {version('opendp')}"
    )
    for name, spent in times.items():
        report(name, spent, times["NumPy pass"])

    dp.enable_features("contrib")
    keep = 1 - uniform.exact_lam * (1 - 1 / K)
    respond = dp.m.make_randomized_response(list(range(K)), prob=keep)
    some = y[: arguments.opendp_values].tolist()
    per_value = seconds(lambda: [respond(value) for value in some]) / len(some)
    ours = np.median(times["uniform prior: release"]) / n
    print(
        f"  OpenDP, one call a value: {per_value * 1e6:.1f} us, epsilon = {respond.map(1):.6f}; "
        f"ours {ours * 1e9:.0f} ns, epsilon = {uniform.guarantee.epsilon:.6f}: "
        f"{per_value / ours:,.0f}x faster"
    )

    tracemalloc.start()
    cluster_dp.privatize(y, z, clusters)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"  peak memory of a release, beyond its inputs: {peak / n:.0f} bytes a unit")


if __name__ == "__main__":
    main()
