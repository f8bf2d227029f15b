"""Risks that are exact at finite n and p, by Wishart and matrix-beta moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, checked
from ._risk import Risk, make_risk


def exact_risk_finite(
    n: ArrayLike, p: ArrayLike, k: ArrayLike, rho: ArrayLike, signal: ArrayLike, noise: ArrayLike
) -> Risk:
    """Expected risk at finite n and p, for the cases with an exact formula.

    These are rho = 0, rho = 1, rho = inf, k = 1, and every rho when p > n.

    Parameters
    ----------
    n : int or array
        Instances; a multiple of k.
    p : int or array
        Features.
    k : int or array
        Members of a bag.
    rho, signal, noise : float or array
        As in `risk`.

    Returns
    -------
    Risk
        Expectations over X of the conditional bias and variance. ``inf`` where the expectation is
        infinite: within 1 of a peak (|p - m| <= 1 for rho = 0, |p - n| <= 1 for rho > 0).

    Raises
    ------
    ValueError
        If n is not a multiple of k, a count is not an integer, or no exact formula is known
        (k > 1, p <= n and rho none of 0, 1, inf): use `risk` there.

    Notes
    -----
    The bias of the instance loss comes from E[U M U] for U a matrix-beta variable and
    E[tr S tr S^-1] = p (n p - 2) / (n - p - 1) for S Wishart (ours); the others from inverse
    Wishart means. Their limits are the corner cases of `risk`.

    Examples
    --------
    >>> exact_risk_finite(n=600, p=90, k=5, rho=0, signal=2.0, noise=0.5).total.round(3)
    np.float64(1.552)
    """
    n_, p_, k_, rho_, r2, s2 = checked(n=n, p=p, k=k, rho=rho, signal=signal, noise=noise)
    m = bag_count(n_, p_, k_)
    known = (k_ == 1) | (rho_ == 0) | (rho_ == 1) | np.isinf(rho_) | (p_ > n_)
    if not known.all():
        raise ValueError(
            "no exact formula is known for k > 1, p <= n and rho other than 0, 1, inf; "
            "use risk for the limit"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        cases = [
            _minimum_norm(np.where(k_ == 1, n_, m), p_, r2, s2),
            _overparametrised(n_, m, p_, r2, s2),
            _hard_regulariser(n_, m, p_, r2, s2),
            _instance(n_, m, p_, r2, s2),
        ]
        conditions = [(k_ == 1) | (rho_ == 0), p_ > n_, np.isinf(rho_), np.ones_like(p_, bool)]
        bias, variance, x = (
            np.select(conditions, list(column)) for column in zip(*cases, strict=True)
        )
    return make_risk(np.where(r2 == 0, 0.0, bias), np.where(s2 == 0, 0.0, variance), x)


def easyllp_risk_finite(
    n: ArrayLike,
    p: ArrayLike,
    k: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    multiplier: ArrayLike | None = None,
) -> Risk:
    """Expected risk of multiplier * (instance-loss solution) at finite n > p + 1, means known.

    EasyLLP for squared loss is multiplier = k, the default.

    Examples
    --------
    >>> easyllp_risk_finite(n=600, p=120, k=4, signal=2.0, noise=0.5).total.round(3)
    np.float64(2.012)
    """
    t = k if multiplier is None else multiplier
    n_, p_, k_, r2, s2, t_ = checked(n=n, p=p, k=k, signal=signal, noise=noise, multiplier=t)
    m = bag_count(n_, p_, k_)
    if (p_ > n_).any():
        raise ValueError("easyllp_risk_finite needs p <= n")
    with np.errstate(divide="ignore", invalid="ignore"):
        _, variance, x = _instance(n_, m, p_, r2, s2)
        square = _second_moment(n_, m, p_)
        bias = r2 * np.where(np.isinf(square), np.inf, t_**2 * square - 2 * t_ * x + 1)
    bias, variance = np.where(r2 == 0, 0.0, bias), np.where(s2 == 0, 0.0, t_**2 * variance)
    return make_risk(bias, variance, t_ * x)


def bag_count(n: FloatArray, p: FloatArray, k: FloatArray) -> FloatArray:
    """Check that n, p and k are counts and n a multiple of k; return n / k."""
    for name, value in (("n", n), ("p", p), ("k", k)):
        if (value != np.round(value)).any():
            raise ValueError(f"{name} must be an integer")
    if (np.remainder(n, k) != 0).any():
        raise ValueError("n must be a multiple of k: drop the instances left over")
    return n / k


def _inverse_wishart(df: Any, p: Any) -> Any:
    """E tr S^-1 for S ~ Wishart_p(df), df >= p; inf where the expectation does not exist."""
    return np.where(df > p + 1, p / (df - p - 1), np.inf)


def _minimum_norm(rows: Any, p: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    over = p > rows
    bias = np.where(over, r2 * (1 - rows / p), 0.0)
    variance = s2 * np.where(over, _inverse_wishart(p, rows), _inverse_wishart(rows, p))
    return bias, variance, np.where(over, rows / p, 1.0)


def _overparametrised(n: Any, m: Any, p: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    inverse = np.where(p > n + 1, 1 / (p - n - 1), np.inf)
    bias = r2 * (1 - n / p + ((n - m) / p) * (1 + m * inverse))
    return bias, s2 * m * inverse, m / p


def _hard_regulariser(n: Any, m: Any, p: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    left = np.maximum(p - (n - m), 0)
    inflation = np.where(left > 0, _inverse_wishart(m, left), 0.0)
    return r2 * (1 - left / p) * (1 + inflation), s2 * inflation, left / p


def _instance(n: Any, m: Any, p: Any, r2: Any, s2: Any) -> tuple[Any, Any, Any]:
    # I - T has the law of T with the roles of bag rows and contrast rows exchanged.
    bias = r2 * _second_moment(n, n - m, p)
    return bias, s2 * (m / n) * _inverse_wishart(n, p), m / n


def _second_moment(n: Any, rows: Any, p: Any) -> Any:
    """E ||T v||^2 for a unit v, T = (X'X)^-1 X'QX, Q a projector of the given rank, p < n - 1.

    T = S^-1/2 U S^1/2 with S = X'X independent of U ~ matrix beta, and
    E[U_ij U_kl] = a d_ij d_kl + c (d_ik d_jl + d_il d_jk).
    """
    base = n * (n + 2) * (n - 1)
    a = rows * (rows * (n + 1) - 2) / base
    c = rows * (n - rows) / base
    spread = np.where(n > p + 1, (n * p - 2) / (n - p - 1), np.inf)
    return a + c + np.where(rows < n, c * spread, 0.0)
