"""Who wins, and the best rho (F3 and the quartic)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, checked, plain
from ._risk import risk


class BestRho(NamedTuple):
    """The rho of least risk.

    Attributes
    ----------
    rho : float or ndarray
        0 is the bag loss exactly; ``inf`` occurs without signal.
    shrinkage : float or ndarray
        Shrinkage of the estimator at that rho, without a unit.
    risk : float or ndarray
        Total risk there, in squared units of the response.
    """

    rho: Any
    shrinkage: Any
    risk: Any


def snr_threshold(gamma: ArrayLike, k: ArrayLike) -> Any:
    """Signal-to-noise ratio below which the instance loss has less risk than the bag loss (F3).

    Parameters
    ----------
    gamma : float or array
        p / n, positive.
    k : float or array
        Members of a bag.

    Returns
    -------
    float or ndarray
        Threshold for signal / noise: ``inf`` at k * gamma = 1, where the bag loss fails; 0 where
        the bag loss always wins (gamma >= 1, say); NaN for k = 1, where the two are one.

    Raises
    ------
    ValueError
        If gamma or k is out of range.

    Notes
    -----
    Source: Javanmard et al. 2024, arXiv 2401.11081, re-derived; for 1/k < gamma the bag loss is
    taken with its least-norm solution.

    Examples
    --------
    >>> snr_threshold(0.1, [2, 4]).round(5)
    array([0.7    , 1.09524])
    """
    g, k_ = checked(gamma=gamma, k=k)
    bag_bias, bag_variance = risk(g, k_, 0.0, 1.0, 1.0)[:2]
    instance_bias, instance_variance = risk(g, k_, 1.0, 1.0, 1.0)[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (bag_variance - instance_variance) / (instance_bias - bag_bias)
    ratio = np.where(g >= 1, 0.0, np.maximum(ratio, 0.0))
    return plain(np.where(k_ == 1, np.nan, ratio))


def best_rho(gamma: ArrayLike, k: ArrayLike, signal: ArrayLike, noise: ArrayLike) -> BestRho:
    """Rho of least asymptotic risk: the roots of a quartic in the shrinkage, and the ends.

    Parameters
    ----------
    gamma, k, signal, noise : float or array
        As in `risk`; arguments broadcast.

    Returns
    -------
    BestRho
        rho, shrinkage, risk. rho > 1 happens when noise dominates. For k * gamma > 1 the least-norm
        bag solution rho = 0, a separate and discontinuous point, competes too. rho = 0 is returned
        when rho does nothing (k = 1) and for gamma >= 1, where rho = 0 beats all others.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    With u = 1 - x (x the shrinkage), c = gamma k / (k - 1), F1 is N(u) / Q(u),
    N = signal u^2 (1 + c - 2 c u) + noise k gamma (1 - u)^2 and
    Q = 1 - k gamma + 2 k gamma u - c k u^2; x maps back to rho in closed form.
    Source: derived from F1 (Javanmard et al. 2024, arXiv 2401.11081); ours.

    Examples
    --------
    >>> best = best_rho(gamma=0.1, k=4, signal=1.0, noise=1.0)
    >>> best.rho.round(4), best.risk.round(5)
    (np.float64(0.1345), np.float64(0.36374))
    """
    g, k_, r2, s2 = checked(gamma=gamma, k=k, signal=signal, noise=noise)
    inside = (g < 1) & (k_ > 1) & (r2 > 0) & (s2 > 0)
    # Outside, the candidates 0 and inf are enough, but harmless values keep the quartic finite.
    roots = _rho_candidates(
        np.where(inside, g, 0.1),
        np.where(inside, k_, 4.0),
        np.where(inside, r2, 1.0),
        np.where(inside, s2, 1.0),
    )
    interior = (g < 1) & (k_ > 1) & (r2 > 0)
    roots = np.where(inside[..., None], roots, np.nan)
    if (interior & (s2 == 0)).any():
        noiseless = _rho_candidates(
            np.where(interior, g, 0.1), np.where(interior, k_, 4.0), 1.0, 0.0
        )
        roots = np.where((interior & (s2 == 0))[..., None], noiseless, roots)
    ends = np.stack([np.zeros_like(g), np.full_like(g, np.inf)], axis=-1)
    candidates = np.concatenate([ends[..., :1], roots, ends[..., 1:]], axis=-1)
    valid = ~np.isnan(candidates)
    found = risk(
        g[..., None], k_[..., None], np.where(valid, candidates, 0.0), r2[..., None], s2[..., None]
    )
    total = np.where(valid, found.total, np.inf)
    best = np.argmin(total, axis=-1)[..., None]

    def pick(values: FloatArray) -> Any:
        return plain(np.take_along_axis(np.broadcast_to(values, total.shape), best, -1)[..., 0])

    return BestRho(pick(candidates), pick(found.shrinkage), pick(total))


def _rho_candidates(g: Any, k: Any, r2: Any, s2: Any) -> FloatArray:
    """Rhos at the stationary points of the risk, shape (..., 4), NaN where a root is no rho."""
    g, k, r2, s2 = np.broadcast_arrays(g, k, r2, s2)
    share = r2 / (r2 + s2)
    quartic = _stationarity(g, k, share, 1 - share)
    u = _real_roots(quartic)
    h1 = (k * g)[..., None] * (1 - u)
    h2 = (g * k / (k - 1))[..., None] * u
    with np.errstate(divide="ignore", invalid="ignore"):
        good = (h1 > 0) & (h1 < 1) & (h2 > 0) & (h2 < 1)
        return np.where(good, (h2 / (1 - h2)) * ((1 - h1) / h1), np.nan)


def _stationarity(g: Any, k: Any, r2: Any, s2: Any) -> FloatArray:
    """Coefficients, lowest power first, of N'Q - N Q' in u, shape (..., 5)."""
    c = g * k / (k - 1)
    kg = k * g
    zero = np.zeros_like(kg)
    top = np.stack([s2 * kg, -2 * s2 * kg, r2 * (1 + c) + s2 * kg, -2 * c * r2], axis=-1)
    bottom = np.stack([1 - kg, 2 * kg, -c * k], axis=-1)
    d_top = np.stack([top[..., 1], 2 * top[..., 2], 3 * top[..., 3]], axis=-1)
    d_bottom = np.stack([bottom[..., 1], 2 * bottom[..., 2]], axis=-1)
    result = np.stack([zero] * 6, axis=-1)
    for i in range(3):
        for j in range(3):
            result[..., i + j] += d_top[..., i] * bottom[..., j]
    for i in range(4):
        for j in range(2):
            result[..., i + j] -= top[..., i] * d_bottom[..., j]
    return result[..., :5]


def _real_roots(coefficients: FloatArray) -> FloatArray:
    """Real parts of the nearly real roots, polished by Newton; NaN for the others."""
    degree = coefficients.shape[-1] - 1
    monic = coefficients / coefficients[..., -1:]
    companion = np.zeros((*coefficients.shape[:-1], degree, degree))
    companion[..., 1:, :-1] = np.eye(degree - 1)
    companion[..., :, -1] = -monic[..., :-1]
    roots = np.linalg.eigvals(companion)
    real = np.abs(roots.imag) <= 1e-6 * np.maximum(1.0, np.abs(roots.real))
    u = np.where(real, roots.real, np.nan)
    powers = np.arange(1, degree + 1)
    slopes = monic[..., 1:] * powers
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(4):
            step = _polynomial(monic, u) / _polynomial(slopes, u)
            u = np.where(np.isfinite(step) & (np.abs(step) < 0.1), u - step, u)
    return u


def _polynomial(coefficients: FloatArray, u: FloatArray) -> FloatArray:
    """Evaluate, for u of shape (..., r) and coefficients of shape (..., degree + 1)."""
    value = np.zeros_like(u)
    for i in range(coefficients.shape[-1] - 1, -1, -1):
        value = value * u + coefficients[..., i, None]
    return value
