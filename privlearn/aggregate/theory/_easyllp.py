"""Risk of EasyLLP for squared loss, and of every multiple of the instance solution (F5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import checked, plain
from ._risk import Risk, make_risk


def easyllp_risk(
    gamma: ArrayLike,
    k: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    multiplier: ArrayLike | None = None,
) -> Risk:
    """Asymptotic risk of multiplier * (instance-loss solution) on centred data.

    Parameters
    ----------
    gamma, k, signal, noise : float or array
        As in `risk`.
    multiplier : float or array, optional
        t; the default k is EasyLLP, which is unbiased for gamma < 1; 1 is the instance loss.

    Returns
    -------
    Risk
        bias is that of the conditional mean given X, so it is not 0 for EasyLLP: its average
        is unbiased (shrinkage 1) but varies with X. All ``inf`` at gamma = 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    For gamma < 1: signal {(1 - t/k)^2 + t^2 (k-1)/k^2 gamma/(1-gamma)} + noise t^2 gamma /
    (k (1-gamma)); at t = k the total is k gamma / (1-gamma) [noise + signal (1 - 1/k)] (F5).
    Sources: Busa-Fekete et al. 2023, arXiv 2302.03115 (the estimator); the risk is ours.

    Examples
    --------
    >>> easyllp_risk(gamma=0.2, k=4, signal=2.0, noise=0.5).total.round(6)
    np.float64(2.0)
    """
    t = k if multiplier is None else multiplier
    g, k_, r2, s2, t_ = checked(gamma=gamma, k=k, signal=signal, noise=noise, multiplier=t)
    x, square, variance = _instance_moments(g, k_)
    with np.errstate(invalid="ignore"):
        bias = np.where(r2 == 0, 0.0, r2 * (1 - 2 * t_ * x + t_**2 * square))
        spread = np.where((s2 == 0) | (t_ == 0), 0.0, t_**2 * s2 * variance)
    return make_risk(np.where(t_ == 0, r2, bias), spread, t_ * x)


def best_multiplier(gamma: ArrayLike, k: ArrayLike, signal: ArrayLike, noise: ArrayLike) -> Any:
    """Multiple of the instance-loss solution with least risk.

    Returns
    -------
    float or ndarray
        t; 0 at gamma = 1. NaN when signal and noise are both 0.

    Examples
    --------
    >>> t = best_multiplier(gamma=0.2, k=4, signal=2.0, noise=0.5)
    >>> t.round(4), easyllp_risk(0.2, 4, 2.0, 0.5, multiplier=t).total.round(4)
    (np.float64(2.0), np.float64(1.0))
    """
    g, k_, r2, s2 = checked(gamma=gamma, k=k, signal=signal, noise=noise)
    x, square, variance = _instance_moments(g, k_)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r2 * x / (r2 * square + np.where(s2 == 0, 0.0, s2 * variance))
    return plain(t)


def _instance_moments(g: Any, k: Any) -> tuple[Any, Any, Any]:
    """(mean of <v, T v>, mean of |T v|^2, variance for noise 1) of the instance solution."""
    with np.errstate(divide="ignore"):
        under = g < 1
        gap = np.abs(1 - g)
        x = np.where(under, 1 / k, 1 / (k * g))
        square = np.where(
            under,
            1 / k**2 + (k - 1) / k**2 * g / gap,
            (1 + (1 - 1 / k) / gap) / (k * g),
        )
        variance = np.where(under, g / (k * gap), 1 / (k * gap))
    single = (k == 1) & (g == 1)
    return x, np.where(single, 1.0, square), variance
