"""Risk under label differential privacy: clip, average, add Laplace noise (F4, F4c)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erf, erfc

from ._arguments import checked, plain
from ._risk import Risk, make_risk, risk
from ._search import golden


def effective_noise(k: ArrayLike, noise: ArrayLike, epsilon: ArrayLike, clip: ArrayLike) -> Any:
    """Noise of one response that has the same effect as the noise plus the Laplace noise (F4).

    A bag mean of responses clipped to [-clip, clip] moves by at most 2 clip / k when one response
    is replaced; Laplace noise of that scale / epsilon adds 8 clip^2 / (k epsilon^2) here.

    Parameters
    ----------
    k : int or array
        Members of a bag.
    noise : float or array
        Variance of one response given its features.
    epsilon : float or array
        Privacy loss (label-DP, replace one response); inf is none.
    clip : float or array
        Bound on |response|, in its units; public knowledge.

    Returns
    -------
    float or ndarray
        In squared units of the response.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: mechanism of Javanmard et al. 2024, arXiv 2401.11081, constants re-derived.
    Ignores clipping itself: use it for clip >= 3.5 sd(y), or `risk_private`.

    Examples
    --------
    >>> effective_noise(k=4, noise=0.25, epsilon=2.0, clip=4.0)
    np.float64(8.25)
    """
    k_, s2, e, c = checked(k=k, noise=noise, epsilon=epsilon, clip=clip)
    return plain(s2 + 8 * (c / e) ** 2 / k_)


def clip_moments(clip: ArrayLike, scale: ArrayLike) -> tuple[Any, Any]:
    """Slope and variance of a normal response after clipping.

    For y ~ N(0, scale^2), clipped y = alpha y + a rest that is uncorrelated with y.

    Parameters
    ----------
    clip : float or array
        Responses are clipped to [-clip, clip].
    scale : float or array
        Standard deviation of y, at least 0.

    Returns
    -------
    alpha : float or ndarray
        2 Phi(clip / scale) - 1, also the share of responses that are not clipped.
    variance : float or ndarray
        Variance of the clipped response.

    Examples
    --------
    >>> alpha, variance = clip_moments(1.0, 1.0)
    >>> alpha.round(4), variance.round(4)
    (np.float64(0.6827), np.float64(0.5161))
    """
    (c,) = checked(clip=clip)
    s = np.asarray(scale, dtype=np.float64)
    if not ((s >= 0) & np.isfinite(s)).all():
        raise ValueError("scale must be at least 0 and finite")
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.minimum(c / s, 40.0)  # beyond 40 sd nothing is clipped
    alpha = erf(ratio / np.sqrt(2))
    density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    variance = s**2 * (alpha - 2 * ratio * density + ratio**2 * erfc(ratio / np.sqrt(2)))
    return plain(alpha), plain(variance)


def risk_private(
    gamma: ArrayLike,
    k: ArrayLike,
    rho: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    *,
    epsilon: ArrayLike,
    clip: ArrayLike,
    clipping: bool = True,
) -> Risk:
    """Asymptotic risk of the interpolating estimator on a label-DP release of the bag means.

    The release: clip each response to [-clip, clip], average over the bag, add Laplace noise of
    scale 2 clip / (k epsilon).

    Parameters
    ----------
    gamma, k, rho, signal, noise : float or array
        As in `risk`.
    epsilon : float or array
        Privacy loss; inf is none.
    clip : float or array
        Public bound on |response|, in units of the response.
    clipping : bool, default=True
        Account for what clipping does to Gaussian responses (F4c). False ignores it (F4): right
        only for clip >= 3.5 sd(y), and far too optimistic for a small clip.

    Returns
    -------
    Risk
        Variance includes the Laplace noise and what clipping makes unpredictable.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Clipped y = alpha <x, theta0> + uncorrelated rest, so with (x, B, V) from `risk` at signal
    alpha^2 signal and noise v - alpha^2 signal + 8 clip^2 / (k epsilon^2)::

        total = (1 - alpha x)^2 signal + B - (1 - x)^2 alpha^2 signal + V                    (F4c)

    Source: mechanism of Javanmard et al. 2024, arXiv 2401.11081; F4c is ours.

    Examples
    --------
    >>> release = dict(epsilon=2.0, clip=1.0)
    >>> risk_private(0.1, 4, 0.2, 1.0, 0.25, **release).total.round(3)
    np.float64(0.526)
    >>> risk_private(0.1, 4, 0.2, 1.0, 0.25, **release, clipping=False).total.round(3)
    np.float64(0.335)
    """
    g, k_, rho_, r2, s2, e, c = checked(
        gamma=gamma, k=k, rho=rho, signal=signal, noise=noise, epsilon=epsilon, clip=clip
    )
    if not clipping:
        return risk(g, k_, rho_, r2, effective_noise(k_, s2, e, c))
    alpha, rest = _clipped_model(c, r2, s2)
    clipped = risk(g, k_, rho_, alpha**2 * r2, effective_noise(k_, rest, e, c))
    return _against_true_signal(clipped, alpha, r2)


def ridge_private_risk(
    gamma: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    *,
    epsilon: ArrayLike,
    clip: ArrayLike,
    ridge: ArrayLike | None = None,
    clipping: bool = False,
) -> Risk:
    """Asymptotic risk of the fair baseline: Laplace noise on every response, then ridge regression.

    Parameters
    ----------
    gamma, signal, noise, epsilon, clip : float or array
        As in `risk_private`, with bags of 1.
    ridge : float or array, optional
        Penalty ridge * ||theta||^2 added to the mean squared error. Default: the best one.
    clipping : bool, default=False
        Account for what clipping does to Gaussian responses.

    Returns
    -------
    Risk

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    kappa = ridge + gamma kappa / (1 + kappa); total = (kappa^2 signal + gamma noise_eff) /
    ((1 + kappa)^2 - gamma); best ridge = gamma noise_eff / signal.

    Examples
    --------
    >>> ridge_private_risk(0.05, 1.0, 0.25, epsilon=[0.5, 4.0], clip=3.0).total.round(4)
    array([0.9353, 0.1983])
    """
    g, r2, s2, e, c = checked(gamma=gamma, signal=signal, noise=noise, epsilon=epsilon, clip=clip)
    alpha, rest = _clipped_model(c, r2, s2) if clipping else (np.ones_like(g), s2)
    total_noise = effective_noise(1, rest, e, c)

    def at(ridge_: Any) -> Risk:
        fitted = _ridge_risk(g, alpha**2 * r2, total_noise, ridge_)
        return _against_true_signal(fitted, alpha, r2) if clipping else fitted

    if ridge is not None:
        (given,) = checked(ridge=ridge)
        return at(given)
    with np.errstate(divide="ignore"):
        best = np.minimum(g * total_noise / np.maximum(alpha**2 * r2, 1e-300), 1e12)
    if clipping:
        log_best = np.log(np.maximum(best, 1e-12))
        best = np.exp(golden(lambda z: at(np.exp(z)).total, log_best - 12, log_best + 12))
    return at(best)


def _ridge_risk(g: Any, r2: Any, s2: Any, ridge: Any) -> Risk:
    b = 1 - ridge - g
    root = np.sqrt(b * b + 4 * ridge)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(b > 0, 2 * ridge / (b + root), (root - b) / 2)
        gap = (1 + kappa) ** 2 - g
        bias = np.where(kappa == 0, 0.0, kappa**2 * r2 / gap)
        variance = np.where(s2 == 0, 0.0, g * s2 / gap)
    return make_risk(bias, variance, 1 / (1 + kappa))


def _clipped_model(clip: Any, r2: Any, s2: Any) -> tuple[Any, Any]:
    """(alpha, variance of the unpredictable rest) of the clipped response."""
    alpha, variance = clip_moments(clip, np.sqrt(r2 + s2))
    return alpha, np.maximum(variance - alpha**2 * r2, 0.0)


def _against_true_signal(fitted: Risk, alpha: Any, r2: Any) -> Risk:
    """Risk about theta0 of an estimator whose own target is alpha * theta0."""
    x = fitted.shrinkage
    bias = (1 - alpha * x) ** 2 * r2 + fitted.bias - (1 - x) ** 2 * alpha**2 * r2
    return make_risk(np.asarray(bias), np.asarray(fitted.variance), np.asarray(alpha * x))
