"""What a release of private outcomes and priors promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import check_delta, check_mixture, check_nonnegative

#: Replacing one outcome lowers one count of its cell by 1 and raises another by 1.
SENSITIVITY = 2.0


def second_stage_delta(epsilon: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """Delta of one resampled outcome at epsilon >= 0, the prior being known: exact.

    max(0, 1 - lam - (e^epsilon - 1) lam gamma): the largest hockey-stick divergence between two
    true outcomes, over all priors with floor gamma.

    Examples
    --------
    >>> second_stage_delta([0.0, 0.3, 2.0], 0.37, 0.001).round(5)
    array([0.63   , 0.62987, 0.62764])
    """
    epsilon = check_nonnegative("epsilon", epsilon)
    lam, gamma = check_mixture(lam, gamma)
    with np.errstate(over="ignore"):
        return np.maximum(0.0, 1 - lam - np.expm1(epsilon) * lam * gamma)


def second_stage_epsilon(lam: ArrayLike, gamma: ArrayLike, delta: float = 0.0) -> np.ndarray:
    """Smallest epsilon of one resampled outcome at `delta`, the prior being known: exact.

    log(1 + (1 - lam - delta) / (lam gamma)), or 0 where delta >= 1 - lam; infinite for lam = 0.

    Examples
    --------
    >>> second_stage_epsilon(0.5, 0.1).round(4)
    np.float64(2.3979)
    """
    lam, gamma = check_mixture(lam, gamma)
    delta = check_delta(delta)
    with np.errstate(divide="ignore"):
        return np.log1p(np.maximum(1 - lam - delta, 0.0) / (lam * gamma))


def prior_epsilon(sigma: ArrayLike, sensitivity: float = SENSITIVITY) -> np.ndarray:
    """Epsilon of the released priors: sensitivity / sigma, infinite for sigma = 0.

    One replaced outcome moves two counts by 1 each, so Laplace noise of scale sigma on counts
    (sigma / n on shares) costs 2 / sigma. A summary of the paper has 1 / sigma, which would be
    right for neighbours that add or remove an outcome.

    Examples
    --------
    >>> float(prior_epsilon(10.0))
    0.2
    """
    sigma = check_nonnegative("sigma", sigma)
    with np.errstate(divide="ignore"):
        return np.divide(sensitivity, sigma)


def label_dp_delta(
    epsilon: ArrayLike,
    lam: ArrayLike,
    gamma: ArrayLike,
    sigma: ArrayLike | None = None,
    *,
    sensitivity: float = SENSITIVITY,
) -> np.ndarray:
    """Delta of a whole release at a total epsilon, by composition of its two stages.

    Parameters
    ----------
    epsilon : array-like
        Total epsilon, >= 0.
    lam, gamma : array-like
        Resampling probability in [0, 1] and floor of the priors, positive.
    sigma : array-like, optional
        Scale of the noise on the counts behind the priors. None: priors are public (uniform).
    sensitivity : float, default=2.0
        How far one outcome moves the counts.

    Returns
    -------
    array
        ``second_stage_delta(epsilon - 2/sigma)``; 1 where epsilon < 2/sigma: nothing is promised.

    Examples
    --------
    >>> label_dp_delta([0.1, 0.2, 0.5], 0.95, 0.01, sigma=10.0).round(4)
    array([1.    , 0.05  , 0.0467])
    """
    epsilon = check_nonnegative("epsilon", epsilon)
    if sigma is None:
        return second_stage_delta(epsilon, lam, gamma)
    left = epsilon - prior_epsilon(sigma, sensitivity)
    delta = second_stage_delta(np.maximum(left, 0.0), lam, gamma)
    # What 2 / (2 / epsilon) rounds to must count as epsilon.
    return np.where(left < -1e-12 * epsilon, 1.0, delta)


def label_dp_epsilon(
    lam: ArrayLike,
    gamma: ArrayLike,
    sigma: ArrayLike | None = None,
    *,
    delta: float = 0.0,
    sensitivity: float = SENSITIVITY,
) -> np.ndarray:
    """Total epsilon of a release at `delta`: 2/sigma + log(1 + (1 - lam - delta) / (lam gamma)).

    Examples
    --------
    >>> float(label_dp_epsilon(0.5, 0.1 / 12, 10.0).round(3))
    4.996
    """
    first = 0.0 if sigma is None else prior_epsilon(sigma, sensitivity)
    return first + second_stage_epsilon(lam, gamma, delta)


def resampling_probability(epsilon: ArrayLike, gamma: ArrayLike, delta: float = 0.0) -> np.ndarray:
    """Smallest lam that gives (epsilon, delta) to the second stage.

    (1 - delta) / (1 + (e^epsilon - 1) gamma). For gamma = 1/K and delta = 0 it is K-ary randomised
    response, K / (K - 1 + e^epsilon).

    Examples
    --------
    >>> float(resampling_probability(2.0, 1 / 12).round(6))
    0.652562
    """
    epsilon = check_nonnegative("epsilon", epsilon)
    _, gamma = check_mixture(0.5, gamma)
    with np.errstate(over="ignore"):
        return (1 - check_delta(delta)) / (1 + np.expm1(epsilon) * gamma)


def privacy_losses(lam: float, gamma: float, sigma: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of a privacy loss distribution that dominates a release: losses and probabilities.

    With integer noise each of the two moved counts has the loss of a coin told right with odds
    e^(1/sigma): +-1/sigma. The second stage adds log(1 + (1 - lam) / (lam gamma)), 0, or its
    negative. Losses of stages add, whatever the prior, because the second stage is dominated for
    every prior by the one pair of outcomes that both sit at the floor (Zhu, Dong and Wang 2022,
    on adaptive composition). Derived here.

    Examples
    --------
    >>> losses, probabilities = privacy_losses(0.5, 0.1, 10.0)
    >>> len(losses), round(float(probabilities.sum()), 12)
    (9, 1.0)
    """
    check_mixture(lam, gamma)
    top = float(second_stage_epsilon(lam, gamma))
    losses = np.array([top, 0.0, -top])
    floor = lam * gamma
    probabilities = np.array([1 - lam + floor, max(lam - 2 * floor, 0.0), floor])
    if sigma is None:
        return losses, probabilities
    if not sigma > 0:
        raise ValueError(f"sigma must be positive (without noise nothing is promised), got {sigma}")
    step = float(prior_epsilon(sigma, 1.0))
    right = 1 / (1 + math.exp(-step))
    first = np.array([2 * step, 0.0, -2 * step])
    weights = np.array([right**2, 2 * right * (1 - right), (1 - right) ** 2])
    return (
        np.add.outer(first, losses).ravel(),
        np.multiply.outer(weights, probabilities).ravel(),
    )


def composed_delta(
    epsilon: ArrayLike, lam: float, gamma: float, sigma: float | None = None
) -> np.ndarray:
    """Delta of a whole release at a total epsilon, from the losses of both stages together.

    Never above `label_dp_delta`, and a promise for every epsilon >= 0, below 2/sigma too. Derived
    here, for the integer noise that releases use.

    Examples
    --------
    >>> float(label_dp_delta(0.5, 0.95, 0.01, 10.0).round(5))
    0.04668
    >>> float(composed_delta(0.5, 0.95, 0.01, 10.0).round(5))
    0.04384
    """
    epsilon = check_nonnegative("epsilon", epsilon)
    losses, probabilities = privacy_losses(lam, gamma, sigma)
    return (probabilities * np.maximum(-np.expm1(epsilon[..., None] - losses), 0.0)).sum(-1)


def composed_epsilon(
    lam: float, gamma: float, sigma: float | None = None, *, delta: float = 0.0
) -> float:
    """Smallest epsilon at which `composed_delta` is at most delta, to 1e-12, rounded up.

    Examples
    --------
    >>> round(composed_epsilon(0.95, 0.01, 10.0, delta=0.0467), 2)
    0.3
    """
    check_delta(delta)
    low, high = 0.0, float(label_dp_epsilon(lam, gamma, sigma, delta=delta))
    if float(composed_delta(low, lam, gamma, sigma)) <= delta:
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        if high - low <= 1e-12 * high:
            break
        if float(composed_delta(middle, lam, gamma, sigma)) <= delta:
            high = middle
        else:
            low = middle
    return high


def outcomes_only_epsilon(lam: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """Epsilon if the private outcomes are given out but the priors are not, even without noise.

    second_stage_epsilon + 1 / gamma: one outcome moves every entry of a prior by at most 1/m, which
    costs each of the m - 1 others at most 1 / (m gamma), and its owner as much again. Derived here.
    Without the priors nobody can debias, so no release of this package uses it.

    Examples
    --------
    >>> float(outcomes_only_epsilon(0.95, 0.2).round(3))
    5.234
    """
    return second_stage_epsilon(lam, gamma) + 1 / np.asarray(gamma, dtype=float)


def leaked_share(epsilon: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """Share of the units whose outcome is published in clear beyond what epsilon explains.

    A release that is (epsilon, delta)-DP may say the truth outright with probability delta; at the
    corner where the second stage has epsilon 0 this one does: delta = 1 - lam.

    Examples
    --------
    >>> float(leaked_share(0.0, 0.95, 0.01).round(3))
    0.05
    """
    return second_stage_delta(epsilon, lam, gamma)


def boundary_delta(epsilon: ArrayLike, k: Any) -> np.ndarray:
    """Delta at which empirical priors begin to pay: about (e^epsilon - 1) / K, a rule of thumb.

    Below it, K-ary randomised response (gamma = 1/K) has the smaller variance at equal privacy; at
    delta = 0 that is a theorem.

    Examples
    --------
    >>> boundary_delta([0.2, 1.0], 12).round(3)
    array([0.018, 0.143])
    """
    return np.expm1(check_nonnegative("epsilon", epsilon)) / np.asarray(k)
