"""The generative model of the theory, as trials for `privlearn.simulate`.

A trial is a pure function of a JAX key that returns numbers to average::

    model = theory.GaussianMixtureModel.orthogonal(...)
    trial = mixture_trial(model, n=400, p=200, q=100, estimators=("base", "known"))
    mean_risk(trial, seed=0, n_trials=100)       # Estimate(mean=FittedRisk(...), stderr=..., n=100)

Model: clusters c ~ weights, x = mu_c + N(0, I_d), y = <x, theta0> + noise; training replaces the p
sensitive features of a row by those of its cluster. Given the fit, its test risk is a closed form,
so no test rows are drawn. Setting: Javanmard and Mirrokni, NeurIPS 2023, arXiv 2310.04015.

Every estimator is `kernels.fit_base` on a table with another sensitive block (zeros, for "drop"):
all tables have one shape, and one batched decomposition fits them. That is no matter of taste.
Two *independent* batched LAPACK calls in one XLA program may hang for ever where XLA's CPU pool
has two threads (jax 0.10). `mean_risk` runs a trial as it wants to be run: in 64 bits (near an
interpolation peak a min-norm fit has no meaning in 32), in equal batches, with one BLAS thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from threadpoolctl import threadpool_limits

from privlearn.lookalike import kernels
from privlearn.lookalike.clustering import MinSizeKMeans
from privlearn.lookalike.coordinates import group_means
from privlearn.lookalike.populations import (
    Case,
    Population,
    Setting,
    check_cases,
    check_count,
    population,
    setting,
)
from privlearn.lookalike.theory import GaussianMixtureModel
from privlearn.simulate import Estimate, float64, monte_carlo

Solver = Literal["cholesky", "svd"]

#: Penalty of the Cholesky stand-in for the min-norm fit; features have variance 1 or more. The
#: risk moves by about 1e-6 of itself unless the fit is within 1 % of an interpolation peak.
TINY = 1e-10


class FittedRisk(NamedTuple):
    """Test risk of fits to drawn data; each field has one entry a case, (c,).

    Attributes
    ----------
    total : Array
        Expected squared prediction error of a new response, its noise included.
    sensitive, other : Array
        ``|theta_hat - theta0|^2`` of each block.
    """

    total: Array
    sensitive: Array
    other: Array


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to one thread: trials fill the cores, threads inside small factorisations collide.

    A batched Cholesky of 300 x 300 matrices is over 100 times slower without it on two cores.
    """
    return threadpool_limits(limits=1, user_api="blas")


def mean_risk(trial: Callable[[Array], Any], *, seed: int, n_trials: int) -> Estimate:
    """Average a trial in float64 over ``n_trials`` keys of a seed, in one batch up to 50 trials.

    Parameters
    ----------
    trial : callable
        From this module.
    seed : int
    n_trials : int
        Rounded up to whole batches.

    Examples
    --------
    >>> trial = m_anonymity_trial(n=40, p=5, q=5, min_size=2, signal_sensitive=0.8, noise=0.25)
    >>> mean_risk(trial, seed=0, n_trials=20).n
    20
    """
    n_batches = -(-n_trials // 50)
    size = -(-n_trials // n_batches)
    with one_blas_thread():
        return monte_carlo(
            trial, key=jax.random.key(seed), n_trials=n_batches * size, batch_size=size, x64=True
        )


# ------------------------------------------------------------------------------------------ trials


def mixture_trial(
    model: GaussianMixtureModel,
    *,
    n: int,
    p: int,
    q: int,
    estimators: str | Sequence[str] = "empirical",
    ridge: float = 0.0,
    confusion: np.ndarray | None = None,
    test_features: Literal["individual", "anonymised"] = "individual",
    n_responses: int = 1,
    solver: Solver = "cholesky",
) -> Callable[[Array], FittedRisk]:
    """Make a trial: draw a training table, fit every estimator to it, return the test risks.

    Parameters
    ----------
    model : GaussianMixtureModel
    n, p, q : int
        Training rows, sensitive and other features.
    estimators : str or sequence of str
    ridge, confusion : as in `Case`, for all estimators
    test_features, n_responses, solver : as in `cases_trial`

    Returns
    -------
    callable
        key -> `FittedRisk` with entries in the order of ``estimators``.

    Raises
    ------
    ValueError, TypeError
        If a count is not a positive integer, or an argument is none of the above.

    Examples
    --------
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=3, norm=2.0, alignment=0.5,
    ...     signal_sensitive=0.09, signal_public=1.0, noise=0.25)
    >>> trial = mixture_trial(model, n=100, p=30, q=30, estimators=("base", "known"))
    >>> found = mean_risk(trial, seed=0, n_trials=20)
    >>> bool(found.mean.total[1] < found.mean.total[0])
    True
    """
    names = (estimators,) if isinstance(estimators, str) else tuple(estimators)
    return cases_trial(
        [Case(model, name, ridge, confusion) for name in names],
        n=n, p=p, q=q, test_features=test_features, n_responses=n_responses, solver=solver,
    )  # fmt: skip


def cases_trial(
    cases: Sequence[Case],
    *,
    n: int,
    p: int,
    q: int,
    test_features: Literal["individual", "anonymised"] = "individual",
    n_responses: int = 1,
    solver: Solver = "cholesky",
) -> Callable[[Array], FittedRisk]:
    """Make a trial of several ways to train, or several populations, on common random numbers.

    Differences between cases are sharper than their levels, and XLA compiles one program for all.

    Parameters
    ----------
    cases : sequence of Case
        Their models have one number of clusters.
    n, p, q : int
        Training rows, sensitive and other features.
    test_features : {"individual", "anonymised"}
        Whether a new person arrives with her own sensitive features or with the centre that the
        training table would show for her. Not for "base", which has no centres.
    n_responses : int, default=1
        Responses (noise and direction of theta0 outside the centres' span) drawn for each table,
        whose risks the trial averages: the same expectation with less error, from the same
        decomposition.
    solver : {"cholesky", "svd"}
        For ridge 0: a penalty of 1e-10, or singular values, which cost about ten times more and
        need ridge 0 in all cases.

    Returns
    -------
    callable
        key -> `FittedRisk` with entries in the order of ``cases``.

    Raises
    ------
    ValueError, TypeError
        If a count is not a positive integer, or an argument is none of the above.

    Examples
    --------
    >>> models = [GaussianMixtureModel.orthogonal(n_clusters=3, norm=norm, alignment=0.5,
    ...     signal_sensitive=0.25, signal_public=1.0, noise=0.25) for norm in (1.0, 4.0)]
    >>> trial = cases_trial([Case(model) for model in models], n=100, p=30, q=30)
    >>> mean_risk(trial, seed=0, n_trials=20).mean.total.shape
    (2,)
    """
    n, p, q = check_count("n", n), check_count("p", p), check_count("q", q)
    r = check_count("n_responses", n_responses)
    check_cases(cases, test_features)
    lam = _penalties([case.ridge for case in cases], solver)
    settings = jax.tree.map(lambda *leaves: np.stack(leaves), *(setting(c, p, q) for c in cases))

    def trial(key: Array) -> FittedRisk:
        spots, mistakes, z, *rest = _normals(key, (n,), (n,), (n, p + q), *_needs(n, p, q, r))
        draws = _Draws(spots, mistakes, z, *rest)
        fields = jax.tree.map(jnp.asarray, settings)

        def one(case: Setting, lam: Array | None) -> FittedRisk:
            return _one_case(case, draws, p, lam, anonymised=test_features == "anonymised")

        penalties = None if lam is None else jnp.asarray(lam)
        return jax.vmap(one, in_axes=(0, None if lam is None else 0))(fields, penalties)

    return trial


class _Draws(NamedTuple):
    """The standard normals of a trial."""

    spots: Array  # (n,)
    mistakes: Array  # (n,)
    z: Array  # (n, d)
    turns: Array  # (d, r)
    errors: Array  # (n, r)


def _one_case(
    case: Setting, draws: _Draws, p: int, lam: Array | None, *, anonymised: bool
) -> FittedRisk:
    """Build the table of a case, fit it, and give the risk of the fit."""
    labels = jnp.sum(draws.spots[:, None] > case.of_all, axis=1)
    used = jnp.sum(draws.mistakes[:, None] > case.of_true[labels], axis=1)
    X = case.people.means[labels] + draws.z
    theta0, y = _responses(draws.turns, draws.errors, X, case.people, case.variances[0])
    own, true = X[:, :p], case.people.means[:, :p]
    empirical = kernels.empirical_centres(own, labels, len(true))
    shown = (
        case.parts[0] * own
        + case.parts[1] * kernels.centre_table(jnp.asarray(true), used, own[:, :0])
        + case.parts[2] * kernels.centre_table(empirical, labels, own[:, :0])
    )
    fits = _fit(shown, X[:, p:], y, lam)
    if not anonymised:
        return _individual_risk(fits, theta0, case)
    return _anonymised_risk(fits, theta0, case, case.parts[1] * true + case.parts[2] * empirical)


def m_anonymity_trial(
    *,
    n: int,
    p: int,
    q: int,
    min_size: int,
    signal_sensitive: float,
    noise: float,
    signal_public: float = 1.0,
    centred: bool = True,
    ridge: float | Sequence[float] = 0.0,
    n_responses: int = 1,
    solver: Solver = "cholesky",
) -> Callable[[Array], FittedRisk]:
    """Make a trial of many small clusters: isotropic features, random groups of ``min_size`` rows.

    Parameters
    ----------
    n, p, q : int
        Training rows, sensitive and other features.
    min_size : int
        Rows of every cluster; n is a multiple of it.
    signal_sensitive, signal_public, noise : float
        ``|theta0|^2`` of each block and the variance of the response noise.
    centred : bool, default=True
        Centre the table and the response on the training rows before the fit.
    ridge : float or sequence of float
        Several cost one compilation.
    n_responses, solver : as in `cases_trial`

    Returns
    -------
    callable
        key -> `FittedRisk` with fields of the shape of ``ridge``.

    Raises
    ------
    ValueError, TypeError
        As `mixture_trial`; also if n is not a multiple of ``min_size``.

    Examples
    --------
    >>> import jax
    >>> from privlearn import simulate
    >>> trial = m_anonymity_trial(n=60, p=8, q=10, min_size=3, signal_sensitive=0.8, noise=0.25)
    >>> found = simulate.monte_carlo(trial, key=jax.random.key(0), n_trials=40, batch_size=40,
    ...     x64=True)
    >>> found.mean.total.shape
    ()
    """
    n, p, q = check_count("n", n), check_count("p", p), check_count("q", q)
    m, r = check_count("min_size", min_size), check_count("n_responses", n_responses)
    if n % m:
        raise ValueError(f"n must be a multiple of min_size = {m}, got {n}: try {n - n % m}")
    for name, value in (
        ("signal_sensitive", signal_sensitive),
        ("signal_public", signal_public),
        ("noise", noise),
    ):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    lam = _penalties(np.ravel(ridge).tolist(), solver)
    lam = None if lam is None else lam.reshape(np.shape(ridge))
    labels = np.arange(n) // m
    free = np.zeros((2, p + q))
    free[0, :p] = free[1, p:] = 1.0
    length = np.sqrt([signal_sensitive, signal_public])
    people = Population(np.zeros((1, p + q)), np.zeros(p + q), free, length)

    def trial(key: Array) -> FittedRisk:
        X, turns, errors = _normals(key, (n, p + q), *_needs(n, p, q, r))
        theta0, y = _responses(turns, errors, X, people, noise)
        centres = kernels.empirical_centres(X[:, :p], jnp.asarray(labels), n // m)
        table = kernels.centre_table(centres, jnp.asarray(labels), X[:, p:])
        if centred:
            table, y = table - table.mean(axis=0), y - y.mean(axis=0)

        def off(lam: Array | None) -> tuple[Array, Array]:
            fits = _fit(table[:, :p], table[:, p:], y, lam)
            # Centring estimates the intercept too; its error, a 1/n part, is not in the theory.
            return (
                jnp.sum((fits.sensitive - theta0[:p]) ** 2, axis=0).mean(),
                jnp.sum((fits.other - theta0[p:]) ** 2, axis=0).mean(),
            )

        if lam is None or np.ndim(lam) == 0:
            sensitive, other = off(lam if lam is None else jnp.asarray(lam))
        else:
            sensitive, other = jax.vmap(off)(jnp.asarray(lam))
        return FittedRisk(noise + sensitive + other, sensitive, other)

    return trial


def found_clusters_risk(
    model: GaussianMixtureModel,
    *,
    n: int,
    p: int,
    q: int,
    n_clusters: int,
    min_size: int,
    ridge: float = 0.0,
    n_trials: int,
    seed: int,
) -> np.ndarray:
    """Test risks of look-alike training on clusters that are found in the sensitive features.

    No theory covers it: k-means looks at the very features that it averages. Runs on the host.

    Parameters
    ----------
    model, n, p, q, ridge : as in `mixture_trial`
    n_clusters, min_size : int
        For :class:`privlearn.lookalike.MinSizeKMeans` on the sensitive features.
    n_trials, seed : int

    Returns
    -------
    ndarray of shape (n_trials,)
        Risks on individual test features.

    Examples
    --------
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=2, norm=6.0, alignment=0.5,
    ...     signal_sensitive=0.25, signal_public=1.0, noise=0.25)
    >>> found_clusters_risk(model, n=60, p=6, q=10, n_clusters=2, min_size=5, n_trials=2,
    ...     seed=0).shape
    (2,)
    """
    penalties, people = _penalties([ridge], "cholesky"), population(model, p, q)
    assert penalties is not None
    rng = np.random.default_rng(seed)
    theta0 = people.inside.copy()
    for free, length in zip(people.free, people.length, strict=True):
        theta0[free.argmax()] += length
    tables, others, responses = [], [], []
    for _ in range(check_count("n_trials", n_trials)):
        labels = rng.choice(len(model.weights), size=n, p=model.weights)
        X = people.means[labels] + rng.normal(size=(n, p + q))
        y = X @ theta0 + math.sqrt(model.noise) * rng.normal(size=n)
        clusters = MinSizeKMeans(min_size, n_clusters=n_clusters, n_init=3).fit(X[:, :p]).labels_
        tables.append(group_means(X[:, :p], clusters, n_clusters)[clusters])
        others.append(X[:, p:])
        responses.append(y)
    with float64(), one_blas_thread():
        fits = _fit_each(
            *map(jnp.asarray, map(np.stack, (tables, others, responses))), penalties[0]
        )
        theta = np.concatenate([np.asarray(fits.sensitive), np.asarray(fits.other)], axis=1)
    off = theta - theta0
    return model.noise + (off**2).sum(axis=1) + (off @ people.means.T) ** 2 @ model.weights


# -------------------------------------------------------------------------------------- the pieces


def _normals(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Standard normals of several shapes from one draw, as every draw takes XLA long to compile."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _needs(n: int, p: int, q: int, r: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of the normals that `_responses` takes."""
    return (p + q, r), (n, r)


def _responses(
    turns: Array, errors: Array, X: Array, people: Population, noise: Array | float
) -> tuple[Array, Array]:
    """theta0 (d, r), its part outside the means' span in a uniform direction, and y (n, r)."""
    turned = jnp.asarray(people.free)[:, :, None] * turns  # (2, d, r)
    size = jnp.linalg.norm(turned, axis=1, keepdims=True)
    outside = jnp.asarray(people.length)[:, None, None] * turned / jnp.where(size > 0, size, 1.0)
    theta = jnp.asarray(people.inside)[:, None] + outside.sum(axis=0)
    return theta, X @ theta + jnp.sqrt(noise) * errors


def _fit(shown: Array, other: Array, y: Array, lam: Array | float | None) -> kernels.Coefficients:
    """Fit one table (n, p), (n, q) to responses (n, r): coefficients (p, r), (q, r)."""

    def fit(response: Array) -> kernels.Coefficients:
        return kernels.fit_base(shown, other, response, lam=lam)

    return jax.vmap(fit, in_axes=1, out_axes=1)(y)


_fit_each = jax.jit(
    jax.vmap(
        lambda table, other, y, lam: kernels.fit_base(table, other, y, lam=lam),
        in_axes=(0, 0, 0, None),
    )
)


def _individual_risk(fits: kernels.Coefficients, theta0: Array, case: Setting) -> FittedRisk:
    """Risk for new people with their own features: E (x'(theta - theta0))^2 + noise."""
    p = len(fits.sensitive)
    off_s, off_n = fits.sensitive - theta0[:p], fits.other - theta0[p:]
    sensitive, other = (jnp.sum(off**2, axis=0).mean() for off in (off_s, off_n))
    levels = case.people.means[:, :p] @ off_s + case.people.means[:, p:] @ off_n
    between = jnp.mean(case.weights @ levels**2)
    return FittedRisk(case.variances[0] + sensitive + other + between, sensitive, other)


def _anonymised_risk(
    fits: kernels.Coefficients, theta0: Array, case: Setting, carried: Array
) -> FittedRisk:
    """Risk for new people who show a carried centre, one of (K, p), drawn by the joint law."""
    p = len(fits.sensitive)
    off_s, off_n = fits.sensitive - theta0[:p], fits.other - theta0[p:]
    sensitive, other = (jnp.sum(off**2, axis=0).mean() for off in (off_s, off_n))
    truth = case.people.means[:, :p] @ theta0[:p] - case.people.means[:, p:] @ off_n
    misses = (carried @ fits.sensitive)[None] - truth[:, None]  # (true, used, r)
    between = jnp.mean(jnp.einsum("kl,klr->r", case.joint, misses**2))
    return FittedRisk(case.variances.sum() + other + between, sensitive, other)


def _penalties(ridges: Sequence[float], solver: str) -> np.ndarray | None:
    """Penalty of each case; None for the fit by singular values."""
    if not all(math.isfinite(ridge) and ridge >= 0 for ridge in ridges):
        raise ValueError(f"ridge must be a finite number >= 0, got {ridges!r}")
    if solver not in ("cholesky", "svd"):
        raise ValueError(f"solver must be 'cholesky' or 'svd', got {solver!r}")
    if solver == "cholesky":
        return np.array([ridge if ridge > 0 else TINY for ridge in ridges])
    if max(ridges) == 0:
        return None
    if min(ridges) == 0:
        raise ValueError("solver='svd' is for ridge = 0 in all cases")
    return np.array(ridges, float)
