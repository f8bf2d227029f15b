"""Variances of the estimated effect: sampling, privacy, their bounds, and cluster quality.

A cell distribution `p` has shape (C, 2, K): shares of the K values among the outcomes seen in
each cluster and arm. `priors` have the same shape; `sizes` (C, 2) are units per cell. Variances are
in squared units of the outcome.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import check_distributions, check_resampling


class CellShape(NamedTuple):
    """Cell sizes and the weights (n_c / n)^2 / n_ac that variances of cell means get."""

    sizes: np.ndarray
    weights: np.ndarray


def cell_weights(sizes: ArrayLike) -> CellShape:
    """Weights (n_c / n)^2 / n_ac of the variances of cell means, shape (C, 2).

    Examples
    --------
    >>> cell_weights([[2, 2], [4, 4]]).weights.round(4)
    array([[0.0556, 0.0556],
           [0.1111, 0.1111]])
    """
    n = np.asarray(sizes, dtype=float)
    if n.ndim != 2 or n.shape[1] != 2:
        raise ValueError(f"sizes must have shape (clusters, 2), got {n.shape}")
    if not (n >= 1).all():
        raise ValueError("sizes must be at least 1: an arm is missing in a cluster")
    share = n.sum(1, keepdims=True) / n.sum()
    return CellShape(n, share**2 / n)


def response_matrix(prior: ArrayLike, lam: float) -> np.ndarray:
    """P(given out = row | true = column), (1 - lam) I + lam prior 1', shape (..., K, K).

    Examples
    --------
    >>> response_matrix([0.75, 0.25], 0.5)
    array([[0.875, 0.375],
           [0.125, 0.625]])
    """
    q = check_distributions("prior", prior)
    identity = np.eye(q.shape[-1])
    return (1 - lam) * identity + lam * q[..., None] * np.ones(q.shape[-1])


def inverse_response_matrix(prior: ArrayLike, lam: float) -> np.ndarray:
    """Inverse of `response_matrix`, (I - lam prior 1') / (1 - lam).

    Examples
    --------
    >>> product = inverse_response_matrix([0.75, 0.25], 0.5) @ response_matrix([0.75, 0.25], 0.5)
    >>> bool(np.allclose(product, np.eye(2)))
    True
    """
    lam = check_resampling(lam)
    q = check_distributions("prior", prior)
    identity = np.eye(q.shape[-1])
    return (identity - lam * q[..., None] * np.ones(q.shape[-1])) / (1 - lam)


def debiased_score(outcome: ArrayLike, prior_mean: ArrayLike, lam: float) -> np.ndarray:
    """Unbiased score of a private outcome: (outcome - lam prior_mean) / (1 - lam).

    Examples
    --------
    >>> debiased_score([0.0, 1.0], 0.25, 0.5)
    array([-0.25,  1.75])
    """
    lam = check_resampling(lam)
    return (np.asarray(outcome, float) - lam * np.asarray(prior_mean, float)) / (1 - lam)


def score_variance(y: ArrayLike, prior: ArrayLike, values: ArrayLike, lam: float) -> np.ndarray:
    """Variance of the score of a unit with true outcome y, the prior being known: exact.

    [lam v_q + lam (1 - lam) (y - mean_q)^2] / (1 - lam)^2.

    Examples
    --------
    >>> score_variance([0.0, 1.0], [0.5, 0.5], [0.0, 1.0], lam=2 / (1 + np.e)).round(6)
    array([0.920674, 0.920674])
    """
    lam = check_resampling(lam)
    mean, variance = _prior_moments(prior, values)
    y = np.asarray(y, dtype=float)
    return (lam * variance + lam * (1 - lam) * (y - mean) ** 2) / (1 - lam) ** 2


def cell_gap(p: ArrayLike, prior: ArrayLike, values: ArrayLike, lam: float) -> np.ndarray:
    """Mean over a cell's units of `score_variance`; p and prior (..., K) give shape (...).

    Examples
    --------
    >>> float(cell_gap([0.5, 0.5], [0.5, 0.5], [0.0, 1.0], lam=0.5))
    0.75
    """
    lam = check_resampling(lam)
    mean, variance = _prior_moments(prior, values)
    centre, spread = _prior_moments(p, values)
    own = spread + (mean - centre) ** 2
    return (lam * variance + lam * (1 - lam) * own) / (1 - lam) ** 2


def variance_gap(
    p: ArrayLike, priors: ArrayLike, values: ArrayLike, lam: float, sizes: ArrayLike
) -> float:
    """What privacy adds to the variance of the stratified estimate, for given priors: exact.

    sum_c (n_c/n)^2 sum_a cell_gap / n_ac. Average it over assignments and noise for the variance
    gap of the paper.

    Examples
    --------
    >>> p = np.full((1, 2, 2), 0.5)
    >>> round(variance_gap(p, p, [0.0, 1.0], 0.5, [[10, 10]]), 6)
    0.15
    """
    gap = cell_gap(p, priors, values, lam)
    return float((cell_weights(sizes).weights * gap).sum())


def cell_excess(p: ArrayLike, prior: ArrayLike, values: ArrayLike, lam: float) -> np.ndarray:
    """`cell_gap` minus that of the ideal prior p: an identity, derived here.

    lam / (1 - lam)^2 [sum_k (prior - p)_k (v_k - mean_p)^2 - lam (mean_prior - mean_p)^2].

    Examples
    --------
    >>> float(cell_excess([0.5, 0.5], [0.5, 0.5], [0.0, 1.0], lam=0.5))
    0.0
    """
    lam = check_resampling(lam)
    p, q, v = (np.asarray(x, dtype=float) for x in (p, prior, values))
    centre = p @ v
    square = ((q - p) * (v - centre[..., None]) ** 2).sum(-1)
    return lam / (1 - lam) ** 2 * (square - lam * (q @ v - centre) ** 2)


def excess_bound(
    size: ArrayLike, values: ArrayLike, lam: float, gamma: float, sigma: float
) -> np.ndarray:
    """Bound A(m) on the expected `cell_excess` of a cell of m units, projected priors.

    lam R^2 / (2 (1 - lam)^2) (sqrt(2) K sigma / m + K^1.5 gamma), R the range of the values.
    Derived here; the paper has such a term, whose expression we have not seen.

    Examples
    --------
    >>> float(excess_bound(100, [0.0, 1.0], 0.5, 0.01, 1.0).round(4))
    0.0566
    """
    lam = check_resampling(lam)
    v = np.asarray(values, dtype=float)
    k, width = v.size, v.max() - v.min()
    slack = math.sqrt(2) * k * sigma / np.asarray(size, dtype=float) + k**1.5 * gamma
    return lam * width**2 / (2 * (1 - lam) ** 2) * slack


def cluster_quality(outcomes: ArrayLike, clusters: ArrayLike, arm_sizes: ArrayLike) -> float:
    """Cluster quality phi_a = sum_c (n_c/n)^2 S_c^2 / n_ac; small for homogeneous clusters.

    Parameters
    ----------
    outcomes : array of shape (n,)
        Potential outcomes of all units under arm a.
    clusters : integer array of shape (n,)
        Cluster 0, ..., C-1 of each unit, at least two units each.
    arm_sizes : array of shape (C,)
        Units in arm a of each cluster.

    Examples
    --------
    >>> y, c = [0, 1, 1, 2, 1, 2, 3, 3], [0, 0, 0, 0, 1, 1, 1, 1]
    >>> round(cluster_quality(y, c, [2, 2]), 6)
    0.197917
    """
    s2, n_c = _within(np.asarray(outcomes, float), np.asarray(clusters))
    share = n_c / n_c.sum()
    return float((share**2 * s2 / np.asarray(arm_sizes, float)).sum())


def neyman_variance(
    y0: ArrayLike, y1: ArrayLike, clusters: ArrayLike, n_treated: ArrayLike
) -> float:
    """Variance over assignments of the stratified difference in means of true outcomes: exact.

    Examples
    --------
    >>> c = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> round(neyman_variance([0, 1, 1, 2, 1, 2, 3, 3], [1, 1, 2, 2, 2, 2, 3, 3], c, [2, 2]), 6)
    0.244792
    """
    y0, y1, clusters = np.asarray(y0, float), np.asarray(y1, float), np.asarray(clusters)
    n1 = np.asarray(n_treated, dtype=float)
    s2_effect, n_c = _within(y1 - y0, clusters)
    share = n_c / n_c.sum()
    control = cluster_quality(y0, clusters, n_c - n1)
    return control + cluster_quality(y1, clusters, n1) - float((share**2 * s2_effect / n_c).sum())


def gap_factor(lam: float) -> float:
    """Factor 1 / (1 - lam)^2 - 1 by which an ideal prior inflates within-cell variance.

    Examples
    --------
    >>> gap_factor(0.5)
    3.0
    """
    return 1 / (1 - check_resampling(lam)) ** 2 - 1


def ideal_gap(
    y0: ArrayLike, y1: ArrayLike, clusters: ArrayLike, n_treated: ArrayLike, lam: float
) -> float:
    """Variance gap of noiseless priors without a floor, averaged over assignments: exact.

    gap_factor(lam) sum_a sum_c (n_c/n)^2 S^2(y_c(a)) / n_ac (1 - 1 / n_ac).

    Examples
    --------
    >>> c = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> round(ideal_gap([0, 1, 1, 2, 1, 2, 3, 3], [1, 1, 2, 2, 2, 2, 3, 3], c, [2, 2], 0.4), 9)
    0.25
    """
    total = 0.0
    n1 = np.asarray(n_treated, dtype=float)
    for treated, y in ((False, y0), (True, y1)):
        s2, n_c = _within(np.asarray(y, float), np.asarray(clusters))
        m = n1 if treated else n_c - n1
        total += float(((n_c / n_c.sum()) ** 2 * s2 / m * (1 - 1 / m)).sum())
    return gap_factor(lam) * total


def gap_bound(
    qualities: tuple[float, float],
    sizes: ArrayLike,
    values: ArrayLike,
    lam: float,
    gamma: float,
    sigma: float,
) -> float:
    """Bound on the variance gap: gap_factor (phi_0 + phi_1) + sum (n_c/n)^2 A(n_ac) / n_ac.

    The paper's bound with our explicit A, for projected priors.

    Examples
    --------
    >>> phi = (0.197917, 0.083333)
    >>> round(gap_bound(phi, [[2, 2], [2, 2]], [0, 1, 2, 3], 0.4, 1e-9, 0.0), 4)
    0.5
    """
    shape = cell_weights(sizes)
    excess = excess_bound(shape.sizes, values, lam, gamma, sigma)
    return gap_factor(lam) * sum(qualities) + float((shape.weights * excess).sum())


def rounding_variance(y: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Variance that randomised rounding to the grid gives each outcome: (up - y)(y - down).

    At most a quarter of the squared distance of the two grid points.

    Examples
    --------
    >>> rounding_variance([0.0, 0.25, 1.5], [0.0, 1.0, 2.0])
    array([0.    , 0.1875, 0.25  ])
    """
    v = np.asarray(values, dtype=float)
    y = np.clip(np.asarray(y, dtype=float), v[0], v[-1])
    low = np.clip(np.searchsorted(v, y, side="right") - 1, 0, v.size - 2)
    return (v[low + 1] - y) * (y - v[low])


def _prior_moments(p: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    v = np.asarray(values, dtype=float)
    q = check_distributions("distribution", p, v.size)
    mean = q @ v
    return mean, ((v - mean[..., None]) ** 2 * q).sum(-1)


def _within(y: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance (divisor n_c - 1) of y within each cluster, and n_c."""
    if y.shape != clusters.shape or y.ndim != 1:
        raise ValueError(f"outcomes and clusters must be as long, got {y.shape}, {clusters.shape}")
    n_c = np.bincount(clusters)
    if n_c.min() < 2:
        raise ValueError("clusters must be numbered 0, ..., C-1, with at least two units each")
    mean = np.bincount(clusters, y) / n_c
    return np.bincount(clusters, (y - mean[clusters]) ** 2) / (n_c - 1), n_c.astype(float)
