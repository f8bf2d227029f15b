"""Monte-Carlo trials of the interpolating estimator, beside loops in scikit-learn and NumPy.

    python benchmarks/aggregate_monte_carlo.py [--trials 2000] [--repeats 5] [--batch 16]

One trial: draw 400 x 100 features and responses, average the responses in bags of 4, fit at
rho = 0.3, note ||theta_hat - theta0||^2. float64. One process, all sides warmed, repeats
interleaved; ratios are medians of per-repeat ratios, with their range.

Peers
  sklearn       a loop over LinearRegression on augmented rows
  lstsq         a loop over numpy.linalg.lstsq on augmented rows
  numpy         the best loop we could write: SFC64 draws into a fixed buffer, one symmetric product
                of the augmented rows, Cholesky
  numpy short   the same, with Gram matrices drawn by Bartlett's decomposition, as "jax short" does
Ours (one JAX device a core, BLAS threads off, because the trials already fill the cores)
  jax drawn     features drawn: the same work as the peers. Normals are float32-fine (see
                privlearn.aggregate.draws), the linear algebra is float64
  jax short     design="wishart": the same law from a quarter of the numbers. An algorithmic gain,
                not a faster computation of the same thing; "numpy short" has it too
"""

import argparse
import os
import time

from privlearn.environment import widen_xla_pool

# `monte_carlo` leaves one thread of XLA's pool free: without more threads than cores it would use
# one device fewer. Has to be set before JAX starts.
widen_xla_pool()

import jax  # noqa: E402

# One device a core: XLA runs a generated loop on one thread, so the trials are what is shared out.
jax.config.update("jax_num_cpu_devices", os.cpu_count())

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from scipy.linalg import lapack  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from privlearn import simulate  # noqa: E402
from privlearn.aggregate import draws, kernels, simulation, theory  # noqa: E402

N, P, K, RHO, SIGNAL, NOISE = 400, 100, 4, 0.3, 2.0, 0.5
M = N // K
THETA0 = np.zeros(P)
THETA0[0] = np.sqrt(SIGNAL)


# -------------------------------------------------------------------------------------------- peers


def augmented(rng):
    x = rng.standard_normal((N, P))
    y = x @ THETA0 + np.sqrt(NOISE) * rng.standard_normal(N)
    centres = x.reshape(M, K, P).mean(axis=1)
    rows = np.empty((M + N, P))
    rows[:M] = np.sqrt(K) * centres
    rows[M:] = np.sqrt(RHO) * (x - np.repeat(centres, K, axis=0))
    targets = np.zeros(M + N)
    targets[:M] = np.sqrt(K) * y.reshape(M, K).mean(axis=1)
    return rows, targets


def run_sklearn(trials, rng):
    model = LinearRegression(fit_intercept=False)
    return np.array(
        [((model.fit(*augmented(rng)).coef_ - THETA0) ** 2).sum() for _ in range(trials)]
    )


def run_lstsq(trials, rng):
    return np.array(
        [
            ((np.linalg.lstsq(*augmented(rng), rcond=None)[0] - THETA0) ** 2).sum()
            for _ in range(trials)
        ]
    )


def run_numpy(trials, rng):
    x, risks = np.empty((N, P)), np.empty(trials)
    bags = x.reshape(M, K, P)
    root = np.sqrt(RHO)
    for i in range(trials):
        rng.standard_normal(out=x)
        y = x @ THETA0 + np.sqrt(NOISE) * rng.standard_normal(N)
        centres = np.add.reduce(bags, axis=1) / K
        # Rows centre + sqrt(rho) (row - centre): their Gram matrix is that of the problem.
        np.multiply(bags, root, out=bags)
        bags += (1 - root) * centres[:, None]
        gram = x.T @ x  # NumPy sees one array and calls the symmetric product
        cross = K * (centres.T @ y.reshape(M, K).mean(axis=1))
        theta = lapack.dposv(gram, cross, lower=1, overwrite_a=1, overwrite_b=1)[1]
        risks[i] = ((theta - THETA0) ** 2).sum()
    return risks


def run_numpy_short(trials, rng):
    risks = np.empty(trials)
    lower = np.tril_indices(P, -1)
    diagonal = np.arange(P)
    freedoms = [df - diagonal for df in (M, N - M)]
    factors = np.zeros((2, P, P))
    both = np.empty((P, 2 * P))
    for i in range(trials):
        for factor, df in zip(factors, freedoms, strict=True):
            factor[lower] = rng.standard_normal(len(lower[0]))
            factor[diagonal, diagonal] = np.sqrt(rng.chisquare(df))
        between = factors[0]
        both[:, :P] = between
        np.multiply(factors[1], np.sqrt(RHO), out=both[:, P:])
        gram = both @ both.T
        cross = between @ (between.T @ THETA0 + np.sqrt(NOISE) * rng.standard_normal(P))
        theta = lapack.dposv(gram, cross, lower=1, overwrite_a=1, overwrite_b=1)[1]
        risks[i] = ((theta - THETA0) ** 2).sum()
    return risks


# --------------------------------------------------------------------------------------------- ours


def ours(trial, batch):
    """Return a runner and the seconds that its first compilation takes."""
    jitted = jax.jit(lambda key: trial(key).total)

    def run(trials, seed):
        with threadpool_limits(limits=1, user_api="blas"):
            return simulate.monte_carlo(
                jitted, key=jax.random.key(seed), n_trials=trials, x64=True, batch_size=batch
            )

    two_rounds = 2 * batch * jax.local_device_count()
    first = seconds(lambda: run(two_rounds, 0))
    again = seconds(lambda: run(two_rounds, 1))
    return run, first - again


class _Number:
    """A trial for one stage of the work has one output, under the name of a risk."""

    def __init__(self, total):
        self.total = total


def stages():
    """Trials that stop early: what each stage adds is the difference to the one before."""

    def draw(key):
        return _Number(draws.normal(key, (M, K, P)).sum())

    def gram(key):
        stats = kernels.gram_statistics(draws.normal(key, (M, K, P)), jnp.zeros(M))
        return _Number(stats.between[0, 0] + stats.within[0, 0])

    def short_draw(key):
        return _Number(sum(factor.sum() for factor in draws.bartlett(key, P, (M, N - M))))

    return {"drawn": {"draws": draw, "two Gram matrices": gram}, "short": {"draws": short_draw}}


# ---------------------------------------------------------------------------------------- measuring


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak():
    """Best measured float64 matrix product, in flop/s, with all threads."""
    side = 2000
    a = np.random.default_rng(0).standard_normal((side, side))
    best = min(seconds(lambda: a @ a) for _ in range(6))
    return 2 * side**3 / best


def summary(values):
    return f"{np.median(values):7.2f} [{values.min():.2f} .. {values.max():.2f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="trials that one device runs at once")
    options = parser.parse_args()
    trials, repeats, batch = options.trials, options.repeats, options.batch

    print(
        f"{trials} trials, n={N} p={P} k={K} rho={RHO}, {os.cpu_count()} cores, "
        f"{jax.local_device_count()} devices, batches of {batch}, jax {jax.__version__}"
    )
    drawn, drawn_compile = ours(simulation.fitted_trial(N, P, K, RHO, SIGNAL, NOISE), batch)
    short, short_compile = ours(
        simulation.fitted_trial(N, P, K, RHO, SIGNAL, NOISE, design="wishart"), batch
    )
    print(f"compile: drawn {drawn_compile:.2f} s, short {short_compile:.2f} s (not counted below)")

    generator = np.random.Generator(np.random.SFC64(0))
    peers = {
        "sklearn": run_sklearn,
        "lstsq": run_lstsq,
        "numpy": run_numpy,
        "numpy short": run_numpy_short,
    }
    for run in peers.values():
        run(20, generator)
    # Threads inside BLAS help or hurt at this size: each peer gets both and is judged by the best.
    runs = {
        f"{name}{suffix}": lambda seed, run=run: run(trials, generator)
        for name, run in peers.items()
        for suffix in ("", ", 1 thread")
    }
    runs |= {
        "jax drawn": lambda seed: drawn(trials, seed),
        "jax short": lambda seed: short(trials, seed),
    }
    times = {name: np.empty(repeats) for name in runs}
    risks = {}
    for repeat in range(repeats):
        for name, run in runs.items():
            limit = 1 if name.endswith("1 thread") else None
            with threadpool_limits(limits=limit, user_api="blas"):
                start = time.perf_counter()
                risks[name] = run(2 + repeat)
                times[name][repeat] = time.perf_counter() - start

    print(
        "\nrisk, all the same up to sampling error "
        f"(limit n -> inf: {theory.risk(P / N, K, RHO, SIGNAL, NOISE).total:.4f})"
    )
    for name, risk in risks.items():
        if isinstance(risk, np.ndarray):
            mean, error = risk.mean(), risk.std(ddof=1) / np.sqrt(trials)
        else:
            mean, error = risk.mean, risk.stderr
        print(f"  {name:21s} {mean:.4f} +- {error:.4f}   {summary(times[name] / trials * 1e3)} ms")

    print("\ntimes faster, median [range] over repeats")
    for name, target in (("sklearn", 15), ("lstsq", 20), ("numpy", 4), ("numpy short", None)):
        peer = np.minimum(times[name], times[f"{name}, 1 thread"])
        goal = "" if target is None else f"   target {target}"
        for mine in ("jax drawn", "jax short"):
            print(f"  {mine} over {name:12s} {summary(peer / times[mine])}{goal}")

    explain(times, trials, batch, repeats)


def explain(times, trials, batch, repeats):
    """What fraction of the machine's matrix-product peak is reached, and where the rest goes."""
    top = peak()
    factor, solves = P**3 / 3, 2 * 2 * P**2
    flops = {
        "drawn": 2 * M * P**2 + 2 * (N - M) * P**2 + factor + solves,
        "short": 2 * 2 * P**3 + factor + solves,
    }
    print(f"\nmeasured float64 matrix-product peak: {top / 1e9:.0f} Gflop/s")
    for kind, parts in stages().items():
        total = np.median(times[f"jax {kind}"]) / trials
        rate = flops[kind] / total
        print(
            f"  {kind}: {flops[kind] / 1e6:.1f} Mflop of linear algebra a trial, "
            f"{rate / 1e9:.1f} Gflop/s, {100 * rate / top:.0f} % of the peak"
        )
        before = 0.0
        for part, trial in parts.items():
            run, _ = ours(trial, batch)
            until = min(seconds(lambda run=run: run(trials, 1)) for _ in range(repeats)) / trials
            print(f"    {part:24s} {(until - before) * 1e3:.3f} ms a trial")
            before = until
        print(f"    {'the rest':24s} {(total - before) * 1e3:.3f} ms a trial")


if __name__ == "__main__":
    main()
