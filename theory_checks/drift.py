"""Learning rates under drift: recursion, optimum, limits, known paths and bounds, tested.

Run alone with ``python -m theory_checks.drift``. Setting of Fahrbach, Javanmard, Mirrokni, Worah,
ICML 2023, arXiv 2303.15634; formulas re-derived in `privlearn.drift.theory`, because the paper's
full text was not at hand.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize

from privlearn import claims, simulate
from privlearn.claims import Measurement, by_profile
from privlearn.drift import kernels, simulation, streams, studies, theory

PAPER = "Fahrbach et al., ICML 2023, arXiv 2303.15634, linear regression; re-derived here"
OURS = "derived here, for the setting of Fahrbach et al., ICML 2023, arXiv 2303.15634"

SMALL: dict[str, Any] = {"dim": 10, "noise": 0.25, "batch": 4}
BIG: dict[str, Any] = {"dim": 20, "noise": 0.25, "batch": 8}
STEPS = np.arange(60)
BURST = np.where(STEPS == 30, 2.0, np.where(STEPS >= 40, 0.15, 0.0))


_claim = claims.registrar("drift", source=PAPER)


# ------------------------------------------------------------------------ recursion and optimum


def _recursion(profile: str) -> Measurement:
    """Real SGD on drawn batches: regret of three schedules and two batch sizes' worth of noise."""
    n_trials = by_profile(profile, 1_500, 40_000)
    optimal = theory.optimal_schedule(BURST, **SMALL).rates
    erratic = np.where(STEPS % 2 == 0, 0.3, 0.05)
    schedules = {"optimal": optimal, "constant": np.full(60, 0.2), "erratic": erratic}

    def follow(rates: np.ndarray) -> Any:
        table = jnp.asarray(rates, jnp.float32)
        return optax.sgd(lambda t: table[t])

    trial = simulation.regression_trial(
        {name: follow(rates) for name, rates in schedules.items()}, BURST, **SMALL
    )
    found = simulate.monte_carlo(
        trial,
        key=jax.random.key(1),
        n_trials=n_trials,
        batch_size=by_profile(profile, 1_500, 5_000),
    )
    return Measurement(
        np.array([theory.regret(rates, shifts=BURST, **SMALL) for rates in schedules.values()]),
        np.array([found.mean["regret"][name] for name in schedules]),
        np.array([found.stderr["regret"][name] for name in schedules]),
        n_trials,
    )


_claim(
    "recursion",
    "SGD on drawn batches has the regret that the second-moment recursion says, for optimal, "
    "constant and erratic rates",
    _recursion,
    resolution=0.1,
)


def _published(profile: str) -> Measurement:
    """Sums after and before each step, beside a 60-dimensional quasi-Newton search."""
    best = theory.optimal_schedule(BURST, **SMALL)

    def cost(rates: np.ndarray) -> float:
        return float(theory.moments(rates, shifts=BURST, **SMALL).second[1:].sum())

    search = minimize(
        cost, np.full(60, 0.1), method="L-BFGS-B", bounds=[(0, 0.5)] * 60,
        options={"maxfun": 10**6, "ftol": 1e-14},
    )  # fmt: skip
    found = np.array([search.fun, best.second[1:].sum(), 2 * best.regret])
    return Measurement(np.array([best.second[1:].sum(), 24.1691058, 24.9990895]), found)


_claim(
    "greedy-is-global",
    "The greedy schedule equals the minimum over all 60 rates found by L-BFGS, and its two sums "
    "are 24.1691058 (after each step) and 24.9990895 (before)",
    _published,
    tolerance=1e-6,  # where the search stops
    resolution=1e-5,
)


def _never_beaten(profile: str) -> Measurement:
    """1 + the largest advantage of any other schedule: 1 if there is none."""
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(by_profile(profile, 150, 3_000)):
        problem: dict[str, Any] = {
            "dim": int(rng.integers(1, 60)),
            "noise": float(rng.exponential()),
            "batch": int(rng.integers(1, 65)),
        }
        shifts = rng.exponential(0.5, 40) * (rng.random(40) < rng.random())
        start = float(rng.exponential(2.0))
        best = theory.optimal_schedule(shifts, start=start, **problem)
        top = float(theory.largest_rate(dim=problem["dim"], batch=problem["batch"]))
        others = [
            rng.uniform(0, 2 * top, 40),
            np.full(40, rng.uniform(0, top)),
            rng.uniform(0, top) / (1 + rng.exponential() * np.arange(40)),
            best.rates * rng.uniform(0.9, 1.1, 40),
        ]
        for rates in others:
            other = theory.regret(rates, shifts=shifts, start=start, **problem)
            worst = max(worst, 1 - other / best.regret)
    return Measurement(1.0, 1 + worst)


_claim(
    "no-schedule-is-better",
    "Random, constant, decaying and perturbed schedules never have less regret than the greedy one",
    _never_beaten,
    tolerance=1e-12,
    resolution=1e-11,
)


def _settled(profile: str) -> Measurement:
    """Fixed point of the schedule and steady states of constants, by iteration."""
    point = theory.fixed_point(0.15, **SMALL)
    long = theory.optimal_schedule(0.15, horizon=2_000, **SMALL)
    fixed = np.tile(0.15 * np.eye(10)[0], (2_000, 1))
    runs = [
        theory.moments([0.2] * 2_000, shifts=0.15, **SMALL),
        theory.moments([0.2] * 2_000, displacements=fixed, start_lag=np.zeros(10), **SMALL),
        theory.moments([point.rate] * 2_000, shifts=0.15, **SMALL),
    ]
    exact = [
        theory.steady_state(0.2, 0.15, direction="random", **SMALL),
        theory.steady_state(0.2, 0.15, direction="fixed", **SMALL),
        theory.steady_state(point.rate, 0.15, direction="random", **SMALL),
    ]
    return Measurement(
        np.array([point.second, point.rate, *exact]),
        np.array([long.second[-1], long.rates[-1], *(run.second[-1] for run in runs)]),
    )


_claim(
    "fixed-point",
    "Under constant drift the schedule settles at v = [g^2 (B+d+1) + sqrt(...)] / (2 B), rate "
    "g^2 / v; constant rates settle at their steady states, in random and in one fixed direction",
    _settled,
    tolerance=1e-10,
    resolution=1e-9,
)


def _one_over_t(profile: str) -> Measurement:
    steps = by_profile(profile, 200_000, 2_000_000)
    with simulate.float64():
        rates, second = jax.jit(kernels.optimal_schedule)(jnp.zeros(steps), 4.0, 1.0, 10.0, 0.25)
        last = steps - 1
        found = np.array([last * float(rates[-1]), last * float(second[-2]) * 4 / (10 * 0.25)])
    return Measurement(np.ones(2), found)


_claim(
    "one-over-t",
    "Without drift t eta_t and t v_t B / (d s2) go to 1",
    _one_over_t,
    tolerance=5e-4,  # the next term is of order log(t) / t
    resolution=1e-3,
)


def _half_batches(profile: str) -> Measurement:
    """Measured signal and noise of half-batch gradients, and the rate that they give."""
    n_trials, v = by_profile(profile, 8_000, 100_000), 0.5
    d, s2, size = 10, 0.25, 8

    def trial(key: jax.Array) -> jax.Array:
        draw = jax.random.normal(key, (size, d + 1))
        x = draw[:, :d]
        error = x[:, 0] * jnp.sqrt(v) + jnp.sqrt(s2) * draw[:, d]
        g = (x * error[:, None]).reshape(2, size // 2, d).mean(axis=1)
        return jnp.stack(kernels.half_batch_moments(g[0], g[1]))

    found = simulate.monte_carlo(trial, key=jax.random.key(3), n_trials=n_trials, batch_size=4_000)
    trace = float(np.trace(theory.gradient_covariance(np.sqrt(v) * np.eye(d)[0], s2)))
    return Measurement.of(np.array([v, trace / size]), found)


_claim(
    "half-batches",
    "g1.g2 of two half-batches is unbiased for |G|^2 and |g1 - g2|^2 / 4 for tr(Sigma) / B",
    _half_batches,
    source="after McCandlish et al. 2018, arXiv 1812.06162; derived here",
    resolution=0.2,
)


def _noise_scale(profile: str) -> Measurement:
    v = np.geomspace(1e-4, 1e4, 50)
    d, s2, size = 20, 0.25, 8
    trace = np.array(
        [np.trace(theory.gradient_covariance(np.sqrt(x) * np.eye(d)[0], s2)) for x in v]
    )
    return Measurement(
        theory.optimal_rate(v, dim=d, noise=s2, batch=size), theory.noise_scale_rate(v, trace, size)
    )


_claim(
    "noise-scale-form",
    "B v / ((B + d + 1) v + d s2) is |G|^2 / (|G|^2 + tr(Sigma) / B) for this model",
    _noise_scale,
    source=OURS,
    tolerance=1e-12,
    resolution=1e-11,
)


# -------------------------------------------------------------------------- limit, known path

_LIMIT: dict[str, Any] = {
    "end": 3.0, "dim": 5, "noise": 0.5, "batch": 2.0, "start_lag": [1, 0, 0, 0, 0],
}  # fmt: skip


def _zeta(t: float) -> float:
    return 0.3 + 0.2 * float(np.sin(t))


def _ode(profile: str) -> Measurement:
    """Richardson's extrapolation of the recursion, and its three published values."""
    exact = theory.moment_ode(_zeta, None, **_LIMIT).second[-1]
    at = {
        eps: theory.discretised(_zeta, None, epsilon=eps, **_LIMIT).second[-1]
        for eps in (0.5, 0.1, 0.02, 2e-3, 1e-3)
    }
    moving: dict[str, Any] = {
        "end": 2.0,
        "dim": 2,
        "noise": 0.3,
        "batch": 1.5,
        "start_lag": [0.5, -1.0],
    }
    path = lambda t: [np.cos(t), 0.5]  # noqa: E731
    moved = theory.moment_ode(_zeta, path, **moving).second[-1]
    fine, finer = (
        theory.discretised(_zeta, path, epsilon=e, **moving).second[-1] for e in (2e-3, 1e-3)
    )
    return Measurement(
        np.array([exact, moved, 1.1073, 0.9297, 0.8983]),
        np.array([2 * at[1e-3] - at[2e-3], 2 * finer - fine, at[0.5], at[0.1], at[0.02]]),
    )


_claim(
    "differential-equation",
    "The recursion with rate eps zeta and batch eps nu goes to the moment equation, also with a "
    "moving optimum; v(3) = 1.1073, .9297, .8983 for eps = .5, .1, .02",
    _ode,
    tolerance=1e-4,  # four published digits
    resolution=1e-3,
)


def _sde(profile: str) -> Measurement:
    """Euler-Maruyama paths, whose steps are short enough for the bias to be a third of the bar."""
    n_trials = by_profile(profile, 32_000, 400_000)
    trial = simulation.diffusion_trial(
        rate=lambda t: 0.3 + 0.2 * jnp.sin(t), steps=200, end=3.0, dim=5, noise=0.5, batch=2.0
    )
    found = simulate.monte_carlo(trial, key=jax.random.key(4), n_trials=n_trials, batch_size=8_000)
    exact = theory.moment_ode(_zeta, None, **_LIMIT).second[-1]
    return Measurement(exact, found.mean["second"], found.stderr["second"], n_trials)


_claim(
    "diffusion",
    "Paths of the stochastic differential equation have the second moment of the moment equation",
    _sde,
    tolerance=0.01,  # discretisation, of order 3 / 200
    resolution=0.13,
)


def _known_path(profile: str) -> Measurement:
    t = 0.01 * np.arange(400)
    jump = np.where((np.arange(400) >= 200) & (np.arange(400) < 230), 5.0, 0.0)
    path = np.stack([0.8 * np.cos(t), np.full(400, 0.5), jump, 0 * t, 0 * t], axis=1)
    problem: dict[str, Any] = {
        "dim": 5, "noise": 0.5, "batch": 1.0, "step": 0.01, "start_lag": [1, 0, 0, 0, 0.5],
    }  # fmt: skip
    sweep = theory.known_path_limit(path, **problem)
    other = theory.known_path_limit(path, method="L-BFGS", **problem)
    moves = np.cumsum(np.random.default_rng(5).standard_normal((40, 3)) / 20, axis=0)
    known: dict[str, Any] = {"dim": 3, "noise": 0.5, "batch": 4, "start_lag": [1.0, 0.0, 0.0]}
    exact = theory.known_path_schedule(moves, **known)
    quasi = theory.known_path_schedule(moves, method="L-BFGS", **known)
    return Measurement(
        np.array([10.2074028, 10.2074028, quasi.cost, 1.0]),
        np.array([sweep.cost, other.cost, exact.cost, 1 + np.abs(sweep.rates - other.rates).max()]),
    )


_claim(
    "known-path",
    "Forward-backward sweeps with the discrete adjoint and L-BFGS reach the same optimum, for SGD "
    "itself and for the limit (10.2074028 in the example)",
    _known_path,
    source=f"{OURS}; a reconstruction of the paper's characterisation by differential equations",
    tolerance=5e-6,
    resolution=1e-4,
)


# --------------------------------------------------------------------------------- the bounds


def _quadratic(
    rng: np.random.Generator, rates: np.ndarray, least: float, unpredictable: bool
) -> dict[str, Any]:
    """Exact moments of SGD with additive noise on a random drifting quadratic, L = 1."""
    d, steps = int(rng.integers(1, 5)), len(rates)
    hessian = rng.uniform(least, 1, d)
    s2, size = rng.uniform(0.1, 2), int(rng.integers(1, 9))
    mean, variance = rng.standard_normal(d), np.zeros(d)
    sizes = rng.exponential(0.3, steps) * (rng.random(steps) < 0.5)
    v, reach, regret, squares = np.zeros((4, steps))
    for t, eta in enumerate(rates):
        second = variance + mean**2
        v[t], regret[t] = second.sum(), (hessian * second).sum() / 2
        squares[t] = (hessian**2 * second).sum()
        keep = 1 - eta * hessian
        mean, variance = keep * mean, keep**2 * variance + eta**2 * s2 / size / d
        reach[t] = np.sqrt((variance + mean**2).sum())
        if unpredictable:  # an independent direction adds its square to the second moment
            variance = variance + sizes[t] ** 2 / d
        else:  # straight away from the optimum
            mean = mean * (1 + sizes[t] / max(np.linalg.norm(mean), 1e-9))
    return {"v": v, "reach": reach, "regret": regret.sum(), "squares": squares, "sizes": sizes,
            "noise": s2, "batch": size}  # fmt: skip


def _bounds(profile: str) -> Measurement:
    """1 + the largest excess over a bound: convex, strongly convex and smooth."""
    rng = np.random.default_rng(6)
    worst = np.zeros(3)
    for k in range(by_profile(profile, 100, 2_000)):
        rates = np.full(50, rng.uniform(0.02, 0.5)) if k % 2 else rng.uniform(0.02, 0.5, 50)
        run = _quadratic(rng, rates, 0.0, False)
        bound = theory.convex_bound(
            rates, run["v"], shifts=run["sizes"], distances=run["reach"], noise=run["noise"],
            batch=run["batch"], smoothness=1.0,
        )  # fmt: skip
        worst[0] = max(worst[0], run["regret"] / bound - 1)
        strong = _quadratic(rng, rates, 0.3, True)
        for t in range(49):
            step = theory.strongly_convex_step(
                strong["v"][t], strong["sizes"][t], rate=rates[t], modulus=0.3, smoothness=1.0,
                noise=strong["noise"], batch=strong["batch"],
            )  # fmt: skip
            worst[1] = max(worst[1], strong["v"][t + 1] / float(step.second) - 1)
        still = _quadratic_at_rest(rng, rates)
        smooth = theory.nonconvex_bound(
            rates, gap=still["gap"], drift=0.0, noise=still["noise"], batch=still["batch"],
            smoothness=1.0,
        )  # fmt: skip
        worst[2] = max(worst[2], (rates * (1 - rates / 2) * still["squares"]).sum() / smooth - 1)
    return Measurement(np.ones(3), 1 + np.maximum(worst, 0))


def _quadratic_at_rest(rng: np.random.Generator, rates: np.ndarray) -> dict[str, Any]:
    """Squared gradients on a quadratic that does not move, where the descent lemma is sharpest."""
    hessian, mean = rng.uniform(-0.2, 1, 3), rng.standard_normal(3)
    hessian = np.abs(hessian)
    s2, size, variance, squares = rng.uniform(0.1, 2), int(rng.integers(1, 9)), np.zeros(3), []
    gap = float((hessian * mean**2).sum() / 2)
    for eta in rates:
        squares.append((hessian**2 * (variance + mean**2)).sum())
        keep = 1 - eta * hessian
        mean, variance = keep * mean, keep**2 * variance + eta**2 * s2 / size / 3
    return {"gap": gap, "squares": np.array(squares), "noise": s2, "batch": size}


_claim(
    "bounds-hold",
    "No bound (convex, strongly convex step, smooth) is below the exact value on random quadratics",
    _bounds,
    source=OURS,
    tolerance=1e-12,
    resolution=1e-11,
)


def _hindsight(profile: str) -> Measurement:
    """Exact minima over continuous parameters on the four streams of the comparison."""
    exact: list[float] = []
    found: list[float] = []
    published = {
        "burst": (60.1, 110.1, 109.9), "gradual": (35.6, 37.7, 37.2),
        "periodic": (33.6, 44.9, 44.2), "none": (4.15, 16.2, 4.28),
    }  # fmt: skip
    for name, shifts in streams.named(1500).items():
        exact += published[name]
        found += [
            theory.optimal_schedule(shifts, **BIG).regret,
            theory.best_constant(shifts, **BIG).regret,
            theory.best_decay(shifts, **BIG).regret,
        ]
    return Measurement(np.array(exact), np.array(found))


_claim(
    "hindsight-table",
    "Regret of the optimal schedule, the best constant and the best a / (1 + b t) on bursts, "
    "gradual, periodic and no drift (d = 20, B = 8, s2 = .25, T = 1500) as tabulated independently",
    _hindsight,
    source="an independent implementation of the recursion",
    tolerance=4e-3,  # three published digits
    resolution=5e-3,
)


def _filter_order(profile: str) -> Measurement:
    """1 for each true statement: optimal < filter, filter + 5 standard errors < best constant."""
    chosen = {k: v for k, v in streams.named(1500).items() if k in ("burst", "none")}
    cells = studies.compare_on_regression(
        chosen, key=jax.random.key(7), n_trials=by_profile(profile, 16, 400),
        methods=["optimal schedule", "filter", "best constant"], **BIG,
    )  # fmt: skip
    by = {(cell.stream, cell.method): cell for cell in cells}
    true = []
    for name in chosen:
        own = by[name, "filter"]
        true += [
            by[name, "optimal schedule"].regret < own.regret,
            own.regret + 5 * own.stderr < by[name, "best constant"].regret,
        ]
    return Measurement(np.ones(len(true)), np.array(true, dtype=float), n=16)


_claim(
    "filter-between",
    "With frozen settings the filter has more regret than the optimal schedule and less than the "
    "best constant in hindsight, on bursts and without drift (not on gradual drift)",
    _filter_order,
    source="an addition of this package, not from the paper",
    tolerance=1e-9,
    resolution=0.5,
)


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="drift"))
