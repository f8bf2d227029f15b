"""The generative model of the theory, as trials for `privlearn.simulate`.

A trial is a pure function of a JAX key that returns numbers to average::

    trial = interpolating_trial(n=400, p=100, k=4, rho=0.3, signal=2.0, noise=0.5)
    estimate = monte_carlo(trial, key=jax.random.key(0), n_trials=2_000, x64=True)

Model: x ~ N(0, I_p), y = <x, theta0> + noise, n instances in random bags of k. The linear algebra
is that of `kernels`, which the estimators use too. Run trials in 64 bits (``x64=True``): a rho path
reaches ill-conditioned matrices.

Two shortcuts, both exact:

* ``interpolating_trial`` and ``easyllp_trial`` average over the responses, and over the direction
  of theta0, in closed form given X: far fewer trials for the same error.
* ``design="wishart"`` draws the Gram matrices instead of X. Rotate each bag by an orthogonal matrix
  whose first row is constant: bag rows and contrast rows are independent standard normals, so the
  two Gram matrices are independent Wisharts with n / k and n - n / k degrees of freedom, and
  Bartlett's decomposition draws each from about p^2 / 2 numbers.

Source of the model: Javanmard et al. 2024, arXiv 2401.11081.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from privlearn.aggregate import draws, kernels
from privlearn.aggregate.kernels import GramStatistics, Method

Design = Literal["gaussian", "wishart"]


class TrialRisk(NamedTuple):
    """Risk of one draw of the features, everything else averaged out; fields as theory's `Risk`.

    Each has the shape of rho: () for a number, (r,) for a path.
    """

    bias: Array
    variance: Array
    total: Array
    shrinkage: Array


class FittedRisk(NamedTuple):
    """Risk of one fit to drawn responses; each field has the shape of rho.

    Attributes
    ----------
    total : Array
        ||theta_hat - theta0||^2 (in the norm of the covariance, if one is given).
    shrinkage : Array
        <theta_hat, theta0> / ||theta0||^2, in the same inner product.
    """

    total: Array
    shrinkage: Array


class _Size(NamedTuple):
    """Counts of the model: instances, features, members of a bag, bags."""

    n: int
    p: int
    k: int
    m: int


# ------------------------------------------------------------------------------------------ trials


def interpolating_trial(
    n: int,
    p: int,
    k: int,
    rho: ArrayLike,
    signal: float = 1.0,
    noise: float = 1.0,
    *,
    design: Design = "gaussian",
) -> Callable[[Array], TrialRisk]:
    """Make a trial: bias, variance, risk and shrinkage of the interpolating estimator.

    X is drawn; responses and the direction of theta0 are averaged in closed form.

    Parameters
    ----------
    n, p, k : int
        Instances (a multiple of k), features, members of a bag.
    rho : float or array, shape (r,)
        A whole path costs one draw.
    signal, noise : float
        ||theta0||^2 and the variance of one response.
    design : {"gaussian", "wishart"}
        Draw X, or its Gram matrices: the same law, from fewer numbers.

    Returns
    -------
    callable
        key -> `TrialRisk`.

    Raises
    ------
    ValueError, TypeError
        If a count is not a positive integer, n not a multiple of k, or a number out of range.

    Examples
    --------
    >>> import jax
    >>> from privlearn import simulate
    >>> trial = interpolating_trial(n=120, p=30, k=2, rho=0.3, signal=2.0, noise=0.5)
    >>> mean = simulate.monte_carlo(trial, key=jax.random.key(0), n_trials=50, x64=True).mean
    >>> bool(abs(mean.total - 0.463) < 0.05)
    True
    """
    size = check_size(n, p, k)
    rhos = check_rho(rho)
    signal, noise = check_amount("signal", signal), check_amount("noise", noise)
    _check_design(design)
    method = _method(size, rhos)

    def trial(key: Array) -> TrialRisk:
        stats = _draw_design(key, size, design)

        def at(rho: Array) -> TrialRisk:
            parts = kernels.conditional_risk(stats, rho, noise, signal=signal, method=method)
            total = parts.bias + parts.variance
            return TrialRisk(parts.bias, parts.variance, total, parts.shrinkage)

        return _along(at, rhos)

    return trial


def fitted_trial(
    n: int,
    p: int,
    k: int,
    rho: ArrayLike,
    signal: float = 1.0,
    noise: float = 1.0,
    *,
    design: Design = "gaussian",
    covariance: ArrayLike | None = None,
) -> Callable[[Array], FittedRisk]:
    """Make a trial: draw features and responses, fit, compare with theta0.

    The literal experiment, with nothing averaged in closed form.

    Parameters
    ----------
    n, p, k, rho, signal, noise : as in `interpolating_trial`
    design : {"gaussian", "wishart"}
    covariance : array, shape (p, p), optional
        Covariance of x, positive definite; the identity if not given. Risk and signal are then
        those of the predictions, theta' Sigma theta, and theta0 is along the first axis.

    Returns
    -------
    callable
        key -> `FittedRisk`.

    Raises
    ------
    ValueError, TypeError
        As `interpolating_trial`.
    """
    size = check_size(n, p, k)
    rhos = check_rho(rho)
    signal, noise = check_amount("signal", signal), check_amount("noise", noise)
    _check_design(design)
    method = _method(size, rhos)
    root = None if covariance is None else _root(covariance, p)
    scale = 1.0 if root is None else float(np.linalg.norm(root[0]))
    theta0 = np.zeros(p)
    theta0[0] = math.sqrt(signal) / scale

    def trial(key: Array) -> FittedRisk:
        designs, errors = jax.random.split(key)
        if design == "gaussian":
            features = _draw_features(designs, size, root)
            disturbance = math.sqrt(noise / k) * draws.normal(errors, (size.m,))
            means = features.mean(axis=1) @ theta0 + disturbance
            stats = kernels.gram_statistics(features, means)
        else:
            stats = _draw_gram(designs, size, theta0, math.sqrt(noise), root)

        def at(rho: Array) -> FittedRisk:
            return _compare(kernels.solve(stats, rho, method=method), theta0, root)

        return _along(at, rhos)

    return trial


def private_trial(
    n: int,
    p: int,
    k: int,
    rho: ArrayLike,
    signal: float = 1.0,
    noise: float = 1.0,
    *,
    epsilon: float,
    clip: float,
    laplace: Literal["drawn", "averaged"] = "drawn",
) -> Callable[[Array], FittedRisk]:
    """Make a trial of the label-DP release: clip, average, add Laplace noise, fit, compare.

    Parameters
    ----------
    n, p, k, rho, signal, noise : as in `interpolating_trial`
    epsilon : float
        Privacy loss of the release; inf is none.
    clip : float
        Responses are clipped to [-clip, clip].
    laplace : {"drawn", "averaged"}
        Draw the Laplace noise, or average over it in closed form (total only: less error).

    Returns
    -------
    callable
        key -> `FittedRisk`.

    Raises
    ------
    ValueError, TypeError
        As `interpolating_trial`; also if epsilon or clip is not positive.
    """
    size = check_size(n, p, k)
    rhos = check_rho(rho)
    signal, noise = check_amount("signal", signal), check_amount("noise", noise)
    scale = laplace_scale(k, epsilon, clip)
    if laplace not in ("drawn", "averaged"):
        raise ValueError(f"laplace must be 'drawn' or 'averaged', got {laplace!r}")
    method = _method(size, rhos)
    theta0 = np.zeros(p)
    theta0[0] = math.sqrt(signal)

    def trial(key: Array) -> FittedRisk:
        designs, errors, releases = jax.random.split(key, 3)
        features = draws.normal(designs, (size.m, k, p))
        responses = features @ theta0 + math.sqrt(noise) * draws.normal(errors, (size.m, k))
        means = jnp.clip(responses, -clip, clip).mean(axis=1)
        if laplace == "drawn":
            means = means + scale * jax.random.laplace(releases, means.shape)
        stats = kernels.gram_statistics(features, means)

        def at(rho: Array) -> FittedRisk:
            found = _compare(kernels.solve(stats, rho, method=method), theta0)
            if laplace == "drawn":
                return found
            # A bag mean's variance counts k times, in units of one response's.
            spread = kernels.conditional_risk(stats, rho, 2 * k * scale**2, method=method)
            return found._replace(total=found.total + spread.variance)

        return _along(at, rhos)

    return trial


def easyllp_trial(
    n: int,
    p: int,
    k: int,
    signal: float = 1.0,
    noise: float = 1.0,
    *,
    multiplier: float | None = None,
    design: Design = "gaussian",
) -> Callable[[Array], TrialRisk]:
    """Make a trial: multiplier * (instance-loss solution), with means known to be 0.

    Parameters
    ----------
    n, p, k, signal, noise, design : as in `interpolating_trial`
    multiplier : float, optional
        The default k is EasyLLP for squared loss.

    Returns
    -------
    callable
        key -> `TrialRisk`.

    Raises
    ------
    ValueError, TypeError
        As `interpolating_trial`.
    """
    size = check_size(n, p, k)
    signal, noise = check_amount("signal", signal), check_amount("noise", noise)
    t = float(k) if multiplier is None else check_amount("multiplier", multiplier)
    _check_design(design)
    method = _method(size, np.ones(1))

    def trial(key: Array) -> TrialRisk:
        stats = _draw_design(key, size, design)
        one = kernels.conditional_risk(stats, 1.0, noise, method=method)
        # ||I - t T||^2 from ||I - T||^2 and tr T, all over p.
        square = one.bias - 1 + 2 * one.shrinkage
        bias = signal * (1 - 2 * t * one.shrinkage + t**2 * square)
        variance = t**2 * one.variance
        return TrialRisk(bias, variance, bias + variance, t * one.shrinkage)

    return trial


# -------------------------------------------------------------------------------------- the pieces


def _draw_features(key: Array, size: _Size, root: np.ndarray | None = None) -> Array:
    """Features of shape (m, k, p) with covariance root root', white if there is no root."""
    features = draws.normal(key, (size.m, size.k, size.p))
    return features if root is None else features @ root.T


def _draw_gram(
    key: Array,
    size: _Size,
    theta0: np.ndarray | None = None,
    noise_scale: float = 0.0,
    root: np.ndarray | None = None,
) -> GramStatistics:
    """Gram matrices without the rows behind them, and X' P y for responses to theta0.

    With between = L L', noise adds L times normals to X' P y: the right covariance.
    """
    factors, errors = jax.random.split(key)
    between, within = draws.bartlett(factors, size.p, (size.m, size.n - size.m))
    if root is not None:
        between, within = jnp.asarray(root) @ between, jnp.asarray(root) @ within
    cross = jnp.zeros(size.p, between.dtype)
    if theta0 is not None:
        noise = noise_scale * draws.normal(errors, between.shape[1:])
        cross = between @ (between.T @ theta0 + noise)
    n = jnp.asarray(size.n, between.dtype)
    return GramStatistics(between @ between.T, within @ within.T, cross, n)


def _draw_design(key: Array, size: _Size, design: Design) -> GramStatistics:
    """Gram matrices of white features, without responses."""
    if design == "wishart":
        return _draw_gram(key, size)
    features = _draw_features(key, size)
    return kernels.gram_statistics(features, jnp.zeros(size.m, features.dtype))


def _compare(theta: Array, theta0: np.ndarray, root: np.ndarray | None = None) -> FittedRisk:
    """Risk and shrinkage of a fit; 0 / 0 shrinkage without signal is 0."""
    if root is not None:
        theta, theta0 = jnp.asarray(root.T) @ theta, root.T @ theta0
    square = float(theta0 @ theta0)
    return FittedRisk(jnp.sum((theta - theta0) ** 2), theta @ theta0 / (square or 1.0))


def _along(function: Callable[[Array], Any], rhos: np.ndarray) -> Any:
    """Apply to a number, or to each element of a path."""
    values = jnp.asarray(rhos, jnp.result_type(float))
    return jax.vmap(function)(values) if values.ndim else function(values)


def _method(size: _Size, rhos: np.ndarray) -> Method:
    """Cholesky where the matrix is almost surely regular, else the least-norm solution."""
    rows = size.m if (rhos == 0).any() else size.n
    return "cholesky" if size.p <= rows else "pinv"


def laplace_scale(k: int, epsilon: float, clip: float) -> float:
    """Scale of the Laplace noise on a bag mean of k responses in [-clip, clip]."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if not (clip > 0 and math.isfinite(clip)):
        raise ValueError(f"clip must be positive and finite, got {clip}")
    return 2 * clip / (k * epsilon)


def check_size(n: int, p: int, k: int) -> _Size:
    """Check the counts: positive integers, n a multiple of k."""
    counts = []
    for name, value in (("n", n), ("p", p), ("k", k)):
        try:
            count = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {value!r}") from None
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
        counts.append(count)
    n, p, k = counts
    if n % k:
        raise ValueError(f"n must be a multiple of k = {k}, got {n}: try {n - n % k}")
    return _Size(n, p, k, n // k)


def check_rho(rho: ArrayLike) -> np.ndarray:
    """Check a rho or a vector of them: at least 0 and finite."""
    values = np.asarray(rho, dtype=float)
    if values.ndim > 1:
        raise ValueError(f"rho must be a number or a vector, got shape {values.shape}")
    good = (values >= 0) & np.isfinite(values)
    if not good.all():
        bad = values if values.ndim == 0 else values[~good][0]
        raise ValueError(f"rho must be at least 0 and finite in a simulation, got {bad}")
    return values


def check_amount(name: str, value: float) -> float:
    """Check a number: at least 0 and finite."""
    number = float(value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return number


def _check_design(design: str) -> None:
    if design not in ("gaussian", "wishart"):
        raise ValueError(f"design must be 'gaussian' or 'wishart', got {design!r}")


def _root(covariance: ArrayLike, p: int) -> np.ndarray:
    sigma = np.asarray(covariance, dtype=float)
    if sigma.shape != (p, p) or not np.allclose(sigma, sigma.T):
        raise ValueError(f"covariance must be a symmetric ({p}, {p}) matrix, got {sigma.shape}")
    try:
        return np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        raise ValueError("covariance must be positive definite") from None
