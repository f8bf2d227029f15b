"""Asymptotic risk of the interpolating estimator, in every regime (F1 and its corner cases)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, checked, plain


class Risk(NamedTuple):
    """Risk of an estimator, in squared units of the response; fields have one common shape.

    Attributes
    ----------
    bias : float or ndarray
        ||E[theta_hat | X] - theta0||^2.
    variance : float or ndarray
        Trace of the covariance of theta_hat given X. ``inf`` at the peaks (p = m or p = n).
    total : float or ndarray
        Bias + variance: the excess squared prediction error.
    shrinkage : float or ndarray
        x in E[theta_hat] ~ x * theta0; 1 is unbiased, 0 is no information. Without a unit.
    """

    bias: Any
    variance: Any
    total: Any
    shrinkage: Any


def make_risk(bias: FloatArray, variance: FloatArray, shrinkage: FloatArray) -> Risk:
    """Collect arrays, scalars as NumPy scalars."""
    return Risk(plain(bias), plain(variance), plain(bias + variance), plain(shrinkage))


def risk(
    gamma: ArrayLike, k: ArrayLike, rho: ArrayLike, signal: ArrayLike, noise: ArrayLike
) -> Risk:
    """Exact asymptotic risk of the interpolating estimator with knob rho.

    The limit of n, p -> inf with p / n = gamma and k fixed. Arguments broadcast.

    Parameters
    ----------
    gamma : float or array
        p / n, features per instance; positive. 1/k is where there are as many features as bags.
    k : float or array
        Members of a bag; at least 1 (need not be an integer, for smooth curves).
    rho : float or array
        0 is the bag loss (least-norm solution when k * gamma > 1), 1 the instance loss; ``inf`` is
        the limit. For k * gamma > 1 the risk jumps at 0: rho = 0 and rho = 1e-12 differ.
    signal : float or array
        ||theta0||^2, in squared units of the response.
    noise : float or array
        Variance of one response given its features, in the same units.

    Returns
    -------
    Risk
        bias, variance, total, shrinkage. The variance is ``inf`` at k * gamma = 1 with rho = 0 and
        at gamma = 1 with rho > 0 (there the bias too, if k > 1).

    Raises
    ------
    ValueError
        If an argument is out of range or NaN, or the shapes do not broadcast.

    Notes
    -----
    Let delta > 0 solve gamma = h1 / k + (1 - 1/k) h2, h1 = delta / (1 + delta),
    h2 = rho delta / (1 + rho delta) (a quadratic), x = h1 / (k gamma) and
    D = h1 (1 - h1) / k + (1 - 1/k) h2 (1 - h2). Then for gamma < 1 and rho > 0 (F1)::

        variance = noise h1^2 / (k D)
        bias = signal {(1 - x)^2 + [(1 - x)^2 h1^2 / k + x^2 (1 - 1/k) h2^2] / D}

    Source: Javanmard et al. 2024, arXiv 2401.11081, re-derived and checked by simulation.

    Examples
    --------
    >>> r = risk(gamma=0.25, k=2, rho=[0.0, 0.3, 1.0], signal=2.0, noise=0.5)
    >>> r.total.round(4)
    array([0.5   , 0.4627, 0.75  ])
    """
    g, k_, rho_, r2, s2 = checked(gamma=gamma, k=k, rho=rho, signal=signal, noise=noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        regimes = [
            (k_ == 1, _single),
            ((rho_ == 0), _bag),
            (g == 1, _peak),
            (g > 1, _overparametrised),
            (np.isinf(rho_), _hard_regulariser),
        ]
        bias, variance, x = _interpolating(g, k_, rho_, r2, s2)
        conditions = [condition for condition, _ in regimes]
        corners = [corner(g, k_, r2, s2) for _, corner in regimes]
        columns = zip(*corners, strict=True)
        bias, variance, x = (
            np.select(conditions, list(column), default)
            for column, default in zip(columns, (bias, variance, x), strict=True)
        )
    # 0 * inf: without signal there is no bias, without noise no variance, even at a peak.
    return make_risk(np.where(r2 == 0, 0.0, bias), np.where(s2 == 0, 0.0, variance), x)


def leverages(g: FloatArray, k: FloatArray, rho: FloatArray) -> tuple[FloatArray, ...]:
    """(h1, 1 - h1, h2, 1 - h2) of the average-leverage equation, without cancellation.

    For gamma < 1 and 0 < rho < inf. h1 is the average leverage of a bag row, h2 of a contrast row.
    """
    rho = np.clip(rho, 1e-300, 1e300)
    a = rho / (1 + rho) * (1 - g)
    b = (1 / k + (1 - 1 / k) * rho) / (1 + rho) - g
    c = g / (1 + rho)
    root = np.sqrt(b * b + 4 * a * c)
    delta = np.where(b >= 0, 2 * c / (b + root), (root - b) / (2 * a))
    return (
        delta / (1 + delta),
        1 / (1 + delta),
        rho * delta / (1 + rho * delta),
        1 / (1 + rho * delta),
    )


def _interpolating(g: Any, k: Any, rho: Any, r2: Any, s2: Any) -> tuple[FloatArray, ...]:
    """F1, un-simplified: gamma < 1, 0 < rho < inf, any k >= 1."""
    inside = (g < 1) & (rho > 0) & np.isfinite(rho)
    h1, one_less_h1, h2, one_less_h2 = leverages(
        np.where(inside, g, 0.5), k, np.where(inside, rho, 1.0)
    )
    x = h1 / (k * g)
    one_less_x = (1 - 1 / k) * h2 / g
    d = h1 * one_less_h1 / k + (1 - 1 / k) * h2 * one_less_h2
    spread = (one_less_x**2 * h1**2 / k + x**2 * (1 - 1 / k) * h2**2) / d
    return r2 * (one_less_x**2 + spread), s2 * h1**2 / (k * d), x


def _interpolating_by_shrinkage(g: Any, k: Any, x: Any, r2: Any, s2: Any) -> tuple[Any, Any]:
    """F1 simplified to a rational function of the shrinkage x (k > 1): an oracle for the above."""
    q = 1 - g * k * (k * x**2 - 2 * x + 1) / (k - 1)
    bias = r2 * (1 - x) ** 2 * (1 + g * k * (2 * x - 1) / (k - 1)) / q
    return bias, s2 * k * g * x**2 / q


def _minimum_norm(ratio: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Least squares, of least norm when ratio = unknowns per row > 1."""
    over = ratio > 1
    bias = np.where(over, r2 * (1 - 1 / ratio), 0.0)
    variance = np.where(over, s2 / (ratio - 1), s2 * ratio / (1 - ratio))
    return bias, np.where(ratio == 1, np.inf, variance), np.where(over, 1 / ratio, 1.0)


def _single(g: Any, k: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Regime k = 1: rho does nothing."""
    return _minimum_norm(g, r2, s2)


def _bag(g: Any, k: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Regime rho = 0: least squares on the bag means."""
    return _minimum_norm(k * g, r2, s2)


def _peak(g: Any, k: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Regime gamma = 1, rho > 0: as many features as instances."""
    infinite = np.full(np.shape(g), np.inf)
    return infinite, infinite, 1 / k


def _overparametrised(g: Any, k: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Regime gamma > 1, rho > 0: every rho gives the least-norm instance solution."""
    bias = r2 * (1 - 1 / (k * g) + (1 - 1 / k) / (k * g * (g - 1)))
    return bias, s2 / (k * (g - 1)), 1 / (k * g)


def _hard_regulariser(g: Any, k: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    """Regime rho = inf, gamma < 1: no variance of predictions within a bag is tolerated.

    theta_hat = 0 while contrasts outnumber features, else least squares in their null space.
    """
    h1 = np.maximum(0.0, 1 - k * (1 - g))
    x = h1 / (k * g)
    return r2 * (1 - x) / (1 - h1), s2 * h1 / (1 - h1), x


# ------------------------------------------------------------------------------ correlated features


def signal_strength(theta0: ArrayLike, covariance: ArrayLike) -> float:
    """Signal of correlated features, theta0' Sigma theta0: what ``signal`` stands for.

    Parameters
    ----------
    theta0 : array, shape (p,)
    covariance : array, shape (p, p)
        Sigma, symmetric positive semi-definite.

    Examples
    --------
    >>> signal_strength([1.0, 1.0], [[1.0, 0.5], [0.5, 1.0]])
    3.0
    """
    vector, sigma = np.asarray(theta0, float), np.asarray(covariance, float)
    if vector.ndim != 1 or sigma.shape != (vector.size, vector.size):
        raise ValueError(
            f"covariance must have shape (p, p) for theta0 of shape (p,), "
            f"got {sigma.shape} and {vector.shape}"
        )
    if not (np.isfinite(vector).all() and np.isfinite(sigma).all()):
        raise ValueError("theta0 and covariance must be finite")
    if not np.allclose(sigma, sigma.T):
        raise ValueError("covariance must be symmetric")
    value = float(vector @ sigma @ vector)
    if value < 0:
        raise ValueError("covariance must be positive semi-definite")
    return value


def risk_correlated(
    gamma: ArrayLike,
    k: ArrayLike,
    rho: ArrayLike,
    theta0: ArrayLike,
    covariance: ArrayLike,
    noise: ArrayLike,
) -> Risk:
    """Asymptotic prediction risk for x ~ N(0, Sigma), Sigma known and invertible.

    Without a least-norm choice the estimator is equivariant under linear maps of x, so the risk
    E(<x, theta_hat - theta0>^2) is that of white features with signal theta0' Sigma theta0.

    Raises
    ------
    ValueError
        Where the solution is a least-norm one, which depends on the coordinates: gamma >= 1, or
        rho = 0 with k * gamma >= 1.

    Examples
    --------
    >>> risk_correlated(0.25, 3, 0.2, [0.6, 0.8], [[1.0, 0.5], [0.5, 1.0]], 0.5).total.round(4)
    np.float64(0.5762)
    """
    signal = signal_strength(theta0, covariance)
    g, k_, rho_ = checked(gamma=gamma, k=k, rho=rho)
    if ((g >= 1) | ((rho_ == 0) & (k_ * g >= 1))).any():
        raise ValueError(
            "risk_correlated needs gamma < 1, and k * gamma < 1 where rho = 0: "
            "a least-norm solution depends on the coordinates of x"
        )
    return risk(gamma, k, rho, signal, noise)
