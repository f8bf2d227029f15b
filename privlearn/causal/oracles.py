"""Brute force for small worlds: every assignment, every output, every neighbour.

Slow and independent of the closed forms; what tests and theory checks compare against. The priors
go through `weights_from_counts`, so what is enumerated is what a release runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from privlearn.causal import entropy, kernels


class ExactMoments(NamedTuple):
    """Exact mean and variance of the estimate, and of the difference in means of true outcomes."""

    mean: float
    variance: float
    sampling_mean: float
    sampling_variance: float


def assignments(clusters: np.ndarray, n_treated: ArrayLike) -> Iterator[np.ndarray]:
    """Every way to treat n_treated[c] units of each cluster.

    Examples
    --------
    >>> len(list(assignments(np.array([0, 0, 1, 1, 1]), [1, 1])))
    6
    """
    per_cluster = [
        list(itertools.combinations(np.flatnonzero(clusters == c), m))
        for c, m in enumerate(np.asarray(n_treated))
    ]
    for chosen in itertools.product(*per_cluster):
        z = np.zeros(len(clusters), int)
        z[[i for group in chosen for i in group]] = 1
        yield z


def exact_moments(
    y0: ArrayLike,
    y1: ArrayLike,
    clusters: ArrayLike,
    n_treated: ArrayLike,
    values: ArrayLike,
    *,
    lam: float,
    gamma: float,
    normalize: kernels.Normalize = "project",
) -> ExactMoments:
    """Moments of the stratified estimate over all assignments and outputs, priors without noise.

    Outcomes are value codes. Scores come from a numerical inverse of the response matrix.

    Examples
    --------
    >>> exact_moments([0, 1], [1, 1], [0, 0], [1], [0.0, 1.0], lam=0.5, gamma=0.5).mean
    0.5
    """
    y0, y1, clusters = (np.asarray(x) for x in (y0, y1, clusters))
    v = np.asarray(values, dtype=float)
    weight = np.bincount(clusters) / len(clusters)
    estimates, squares, sampling = [], [], []
    for z in assignments(clusters, n_treated):
        y = np.where(z == 1, y1, y0)
        totals, chances = np.zeros(1), np.ones(1)
        plain = 0.0
        for c, arm in itertools.product(range(len(weight)), (0, 1)):
            cell = y[(clusters == c) & (z == arm)]
            scale = (2 * arm - 1) * weight[c] / len(cell)
            plain += scale * v[cell].sum()
            prior = _noiseless_prior(cell, len(v), gamma, normalize)
            channel = (1 - lam) * np.eye(len(v)) + lam * np.outer(prior, np.ones(len(v)))
            scores = v @ np.linalg.inv(channel)
            for code in cell:
                totals = np.add.outer(totals, scale * scores).ravel()
                chances = np.multiply.outer(chances, channel[:, code]).ravel()
        estimates.append(chances @ totals)
        squares.append(chances @ totals**2)
        sampling.append(plain)
    mean, plain_mean = float(np.mean(estimates)), float(np.mean(sampling))
    return ExactMoments(
        mean, float(np.mean(squares)) - mean**2, plain_mean, float(np.var(sampling))
    )


def _noiseless_prior(cell: np.ndarray, k: int, gamma: float, normalize: Any) -> np.ndarray:
    counts = np.bincount(cell, minlength=k)[None].astype(float)
    return kernels.priors_from_counts(counts, np.array([len(cell)]), gamma, normalize)[0]


def neighbours(m: int, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All neighbouring cells of m units with K values, up to the order of units.

    The first unit is the one that differs.

    Examples
    --------
    >>> len(list(neighbours(2, 3)))
    18
    """
    for others in itertools.combinations_with_replacement(range(k), m - 1):
        for a, b in itertools.permutations(range(k), 2):
            yield np.array([a, *others]), np.array([b, *others])


class ReleaseLaw(NamedTuple):
    """Probabilities of the outputs of a cell under two neighbours, (priors, outcomes) each."""

    left: np.ndarray
    right: np.ndarray
    tail: float


def release_law(mechanism: Any, left: np.ndarray, right: np.ndarray, reach: int) -> ReleaseLaw:
    """Exact law of (priors, outcomes) of one cell for two neighbours, noise cut at +-reach.

    Outputs are grouped by the priors that come out: what an analyst can tell apart. `tail` bounds
    the probability outside.

    Parameters
    ----------
    mechanism : ClusterDP
    left, right : integer arrays of shape (m,)
        Value codes of the cell.
    reach : int
    """
    k, m = mechanism.grid.k, len(left)
    line = np.arange(-reach, m + reach + 1)
    noisy = np.stack(np.meshgrid(*[line] * k, indexing="ij"), axis=-1).reshape(-1, k)
    weights = mechanism.weights_from_counts(noisy, np.full(len(noisy), m))
    distinct, where = np.unique(weights, axis=0, return_inverse=True)
    total = entropy.total_weight(k)
    laws = []
    for codes in (left, right):
        noise = discrete_laplace_pmf(noisy - np.bincount(codes, minlength=k), mechanism.sigma)
        prior = np.bincount(where.ravel(), noise.prod(-1), len(distinct))
        outputs = prior[:, None]
        for code in codes:
            chance = mechanism.exact_lam * distinct / total
            chance[:, code] += 1 - mechanism.exact_lam
            outputs = (outputs[:, :, None] * chance[:, None, :]).reshape(len(distinct), -1)
        laws.append(outputs)
    return ReleaseLaw(laws[0], laws[1], 1 - float(min(laws[0].sum(), laws[1].sum())))


def discrete_laplace_pmf(x: ArrayLike, sigma: float) -> np.ndarray:
    """Probability of integer noise x, proportional to exp(-|x| / sigma).

    Examples
    --------
    >>> float(discrete_laplace_pmf(np.arange(-60, 61), 2.0).sum().round(9))
    1.0
    """
    return np.tanh(1 / (2 * sigma)) * np.exp(-np.abs(x) / sigma)


def worst_delta(mechanism: Any, m: int, epsilons: ArrayLike, reach: int) -> np.ndarray:
    """Largest hockey-stick divergence over all neighbours of a cell of m units, per epsilon.

    A lower bound that misses at most the `tail` of the noise.

    Examples
    --------
    >>> from privlearn.causal import ClusterDP, OutcomeGrid
    >>> mechanism = ClusterDP(OutcomeGrid.of([0, 1]), lam=0.5, gamma=0.1, sigma=1.0)
    >>> worst_delta(mechanism, 1, [0.0, 2.0], reach=20) <= [1.0, 0.5]
    array([ True,  True])
    """
    epsilons = np.asarray(epsilons, dtype=float)
    worst = np.zeros_like(epsilons)
    for left, right in neighbours(m, mechanism.grid.k):
        law = release_law(mechanism, left, right, reach)
        for i, epsilon in enumerate(epsilons):
            over = np.maximum(law.left - math.exp(epsilon) * law.right, 0).sum()
            worst[i] = max(worst[i], over)
    return worst


def worst_epsilon(mechanism: Any, m: int, reach: int) -> float:
    """Largest log ratio of the probability of an output over all neighbours of m units.

    Examples
    --------
    >>> from privlearn.causal import ClusterDP, OutcomeGrid
    >>> mechanism = ClusterDP(OutcomeGrid.of([0, 1]), lam=0.5, gamma=0.1, sigma=1.0)
    >>> worst_epsilon(mechanism, 1, reach=20) <= mechanism.guarantee.epsilon
    True
    """
    worst = 0.0
    for left, right in neighbours(m, mechanism.grid.k):
        law = release_law(mechanism, left, right, reach)
        # Leave out what lies at the cut, where an output's noise is not all there.
        seen = law.right > 1e3 * max(law.tail, 1e-300) ** 2
        worst = max(worst, float(np.log(law.left[seen] / law.right[seen]).max()))
    return worst


def prior_log_ratio(mechanism: Any, left: np.ndarray, right: np.ndarray, reach: int) -> float:
    """Largest log ratio of the probability of the released priors for two neighbours.

    Priors that some noise beyond the reach could also have produced are left out.
    """
    k, m = mechanism.grid.k, len(left)
    line = np.arange(-reach, m + reach + 1)
    noisy = np.stack(np.meshgrid(*[line] * k, indexing="ij"), axis=-1).reshape(-1, k)
    weights = mechanism.weights_from_counts(noisy, np.full(len(noisy), m))
    distinct, where = np.unique(weights, axis=0, return_inverse=True)
    where = where.ravel()
    chances = [
        np.bincount(
            where,
            discrete_laplace_pmf(noisy - np.bincount(codes, minlength=k), mechanism.sigma).prod(-1),
            len(distinct),
        )
        for codes in (left, right)
    ]
    inside = chances[1] > math.exp(-reach / mechanism.sigma)
    return float(np.log(chances[0][inside] / chances[1][inside]).max())


def outcomes_only_worst(
    m: int, k: int, lam: float, gamma: float, normalize: kernels.Normalize = "project"
) -> float:
    """Largest log ratio over neighbours when only outcomes are seen and priors have no noise.

    Examples
    --------
    >>> round(outcomes_only_worst(8, 2, 0.95, 0.2), 3)
    3.256
    """
    worst = 0.0
    for left, right in neighbours(m, k):
        chances = []
        for codes in (left, right):
            prior = _noiseless_prior(codes, k, gamma, normalize)
            law = np.ones(1)
            for code in codes:
                column = lam * prior
                column[code] += 1 - lam
                law = np.multiply.outer(law, column).ravel()
            chances.append(law)
        worst = max(worst, float(np.log(chances[0] / chances[1]).max()))
    return worst
