"""Closed forms of the mechanisms: NumPy floats and arrays in, floats and arrays out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def gaussian_delta(sigma: ArrayLike, sensitivity: ArrayLike, epsilon: ArrayLike) -> np.ndarray:
    r"""Exact delta of the Gaussian mechanism at epsilon.

    .. math:: \delta = \Phi(\tfrac{\Delta}{2\sigma} - \tfrac{\epsilon\sigma}{\Delta})
              - e^{\epsilon}\,\Phi(-\tfrac{\Delta}{2\sigma} - \tfrac{\epsilon\sigma}{\Delta})

    Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018,
    Theorem 8. Necessary and sufficient, unlike the classical sqrt(2 ln(1.25/delta)) rule, which
    adds too much noise and is not valid for epsilon > 1. Relative error below 1e-12 for small
    deltas, epsilons and sensitivities too: where the two terms nearly cancel, their difference is
    written with the Mills ratio R as phi(x) times the integral of -R' = 1 - x R over an interval
    of length sensitivity / sigma.

    Examples
    --------
    >>> float(gaussian_delta(sigma=1.0, sensitivity=1.0, epsilon=1.0).round(6))
    0.126937
    """
    mu, epsilon = np.broadcast_arrays(
        np.asarray(sensitivity, dtype=float) / np.asarray(sigma, dtype=float),
        np.asarray(epsilon, dtype=float),
    )
    first = special.log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + special.log_ndtr(-mu / 2 - epsilon / mu)
    by_difference = np.exp(first) * -np.expm1(np.minimum(second - first, 0.0))
    short = np.minimum(mu, 0.5)
    low = epsilon / short - short / 2
    x = low[..., None] + short[..., None] * (_NODES + 1) / 2
    slope = 1 - x * math.sqrt(math.pi / 2) * special.erfcx(x / math.sqrt(2))
    density = np.exp(-low * low / 2) / math.sqrt(2 * math.pi)
    by_integral = density * short / 2 * (slope @ _WEIGHTS)
    return np.where(mu < 0.5, by_integral, by_difference)


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """Return the smallest sigma whose exact delta at epsilon is at most `delta`.

    The inverse of :func:`gaussian_delta` in sigma (Balle and Wang 2018, Algorithm 1), by
    bracketing root search in log sigma; relative error below 1e-13.

    Examples
    --------
    >>> round(gaussian_sigma(epsilon=1.0, delta=1e-5), 4)
    3.7306
    """
    target = math.log(delta)

    def excess(log_sigma: float) -> float:
        value = float(gaussian_delta(math.exp(log_sigma), 1.0, epsilon))
        return (math.log(value) if value > 0 else -1e4) - target

    low, high = -1.0, 1.0
    while excess(low) < 0:
        low -= 2.0
    while excess(high) > 0:
        high += 2.0
    root = optimize.brentq(excess, low, high, xtol=1e-14, rtol=8.9e-16)
    return float(sensitivity * math.exp(root))


def gaussian_epsilon(sigma: float, sensitivity: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 at which the Gaussian mechanism has the given delta.

    Examples
    --------
    >>> round(gaussian_epsilon(sigma=3.7306, sensitivity=1.0, delta=1e-5), 3)
    1.0
    """

    def excess(epsilon: float) -> float:
        return float(gaussian_delta(sigma, sensitivity, epsilon)) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2.0
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-14))


def randomized_response_keep(epsilon: ArrayLike, n_categories: ArrayLike) -> np.ndarray:
    """Probability of telling the truth: e^eps / (e^eps + k - 1).

    Kairouz, Bonawitz and Ramage, "Discrete distribution estimation under local privacy", 2016.

    Examples
    --------
    >>> float(randomized_response_keep(2.0, 12).round(6))
    0.401818
    """
    return 1 / (1 + (np.asarray(n_categories) - 1) * np.exp(-np.asarray(epsilon, dtype=float)))


def randomized_response_epsilon(keep: ArrayLike, n_categories: ArrayLike) -> np.ndarray:
    """Epsilon of k-ary randomised response with truth probability `keep`.

    Examples
    --------
    >>> float(randomized_response_epsilon(0.75, 2).round(6))
    1.098612
    """
    keep = np.asarray(keep, dtype=float)
    return np.abs(np.log(keep) - np.log1p(-keep) + np.log(np.asarray(n_categories) - 1.0))
