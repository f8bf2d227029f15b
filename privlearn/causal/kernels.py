"""The steps of Cluster-DP on plain arrays: NumPy and JAX arrays take one path.

Each function asks its argument for its array namespace, so what a simulation vmaps and what a
release runs is the same code; only the draws differ (`privlearn.causal.entropy` for releases, the
functions with a ``key`` here for simulation, which alone import JAX). All of them work under
``jit`` and ``vmap``.

Layout: a cell is a cluster and an arm, cell number = 2 * cluster + arm. Counts are arrays
(..., K) of how often each of the K values occurs in a cell.

Source: Javanmard, Mirrokni, Pouget-Abadie, "Improving the Variance of Differentially Private
Randomized Experiments through Clustering", ICML 2025, arXiv 2308.00957; the projection that keeps
the floor is ours (clipping and renormalising does not keep it).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Normalize = Literal["project", "affine"]


class Effect(NamedTuple):
    """An effect and the variance of its estimate, in outcome units and their square."""

    tau: Any
    variance: Any


class Moments(NamedTuple):
    """Size, mean and sum of squared deviations of the scores of each cell."""

    size: Any
    mean: Any
    squares: Any


class Draw(NamedTuple):
    """What a simulated mechanism gives out: codes (n,) and priors (P, K)."""

    outcomes: Any
    priors: Any


def project_floor(q: Any, gamma: Any) -> Any:
    """Nearest distribution (Euclidean) to each row of q whose entries are all at least gamma.

    The identity on rows that already are one; the uniform distribution for gamma = 1/K.

    Examples
    --------
    >>> project_floor(np.array([0.9, 0.3, -0.2]), 0.05).round(3)
    array([0.775, 0.175, 0.05 ])
    """
    xp = q.__array_namespace__()
    k = q.shape[-1]
    w = q - gamma
    down = xp.flip(xp.sort(w, axis=-1), axis=-1)
    excess = xp.cumsum(down, axis=-1) - (1 - k * gamma)
    ranks = xp.arange(1, k + 1)
    active = xp.maximum(xp.sum(down * ranks > excess, axis=-1, keepdims=True), 1)
    theta = xp.take_along_axis(excess, active - 1, axis=-1) / active
    return gamma + xp.maximum(w - theta, 0)


def shrink_floor(q: Any, gamma: Any) -> Any:
    """Clip each row to [gamma, 1] and scale what is above the floor so that the sum is 1.

    Shrinks towards the uniform distribution even where q is feasible; uniform if nothing is above
    the floor.

    Examples
    --------
    >>> shrink_floor(np.array([0.9, 0.3, -0.2]), 0.05).round(4)
    array([0.7068, 0.2432, 0.05  ])
    """
    xp = q.__array_namespace__()
    k = q.shape[-1]
    above = xp.clip(q, gamma, 1.0) - gamma
    total = xp.sum(above, axis=-1, keepdims=True)
    share = xp.where(total > 0, above / xp.where(total > 0, total, 1.0), 1 / k)
    return gamma + (1 - k * gamma) * share


def priors_from_counts(noisy: Any, sizes: Any, gamma: Any, normalize: Normalize) -> Any:
    """Noisy counts (P, K) to distributions with every entry at least gamma.

    Examples
    --------
    >>> priors_from_counts(np.array([[9.0, 3.0, -2.0]]), np.array([10]), 0.05, "project").round(3)
    array([[0.775, 0.175, 0.05 ]])
    """
    # A prior that no cell uses has size 0; its row is never read.
    q = noisy / (sizes + (sizes == 0))[..., None]
    return project_floor(q, gamma) if normalize == "project" else shrink_floor(q, gamma)


def count_cells(codes: Any, cells: Any, n_cells: int, k: int) -> Any:
    """Count each value in each cell, (n_cells, K), from value codes (n,) and cell numbers (n,).

    Examples
    --------
    >>> count_cells(np.array([0, 1, 1]), np.array([0, 0, 1]), 2, 2)
    array([[1, 1],
           [0, 1]])
    """
    flat = cells * k + codes
    if isinstance(flat, np.ndarray):
        return np.bincount(flat, minlength=n_cells * k).reshape(n_cells, k)
    import jax

    ones = flat.__array_namespace__().ones_like(flat)
    return jax.ops.segment_sum(ones, flat, n_cells * k).reshape(n_cells, k)


def distribution_moments(p: Any, values: Any) -> tuple[Any, Any]:
    """Mean and variance of the values under each row of p, which sums to 1.

    Examples
    --------
    >>> [float(x) for x in distribution_moments(np.array([0.5, 0.5]), np.array([0.0, 2.0]))]
    [1.0, 1.0]
    """
    mean = p @ values
    return mean, ((values - mean[..., None]) ** 2 * p).sum(-1)


def score_moments(counts: Any, values: Any, prior_mean: Any, lam: Any) -> Moments:
    """Moments of the debiased scores g = (value - lam * prior mean) / (1 - lam) of each cell.

    Parameters
    ----------
    counts : array of shape (..., K)
        How often each value was given out in the cell.
    values : array of shape (K,)
    prior_mean : array of shape (...)
        Mean of the values under the cell's released prior.
    lam : float
        Resampling probability.

    Examples
    --------
    >>> score_moments(np.array([[1, 1]]), np.array([0.0, 1.0]), np.array([0.5]), 0.5)
    Moments(size=array([2]), mean=array([0.5]), squares=array([2.]))
    """
    size = counts.sum(-1)
    mean = (counts @ values) / size
    squares = (counts * (values - mean[..., None]) ** 2).sum(-1)
    return Moments(size, (mean - lam * prior_mean) / (1 - lam), squares / (1 - lam) ** 2)


def stratified_effect(moments: Moments) -> Effect:
    """Weighted differences of cell means, weights n_c / n; moments have shape (C, 2), arm last.

    The variance estimate is sum_c (n_c/n)^2 sum_a s^2 / n_ac, on average too large by
    sum_c (n_c/n)^2 S^2(tau_c) / n_c, which no data can tell.

    Examples
    --------
    >>> m = Moments(np.array([[2, 2]]), np.array([[0.0, 1.0]]), np.array([[1.0, 3.0]]))
    >>> effect = stratified_effect(m)
    >>> float(effect.tau), float(effect.variance)
    (1.0, 2.0)
    """
    weight = moments.size.sum(-1) / moments.size.sum()
    tau = (weight * (moments.mean[..., 1] - moments.mean[..., 0])).sum()
    within = (moments.squares / (moments.size - 1) / moments.size).sum(-1)
    return Effect(tau, (weight**2 * within).sum())


def pool_clusters(moments: Moments) -> Moments:
    """Moments (1, 2) of both arms with all clusters thrown together, from moments (C, 2).

    Examples
    --------
    >>> m = Moments(np.array([[2, 2], [2, 2]]), np.array([[0.0, 1], [2, 3]]), np.zeros((2, 2)))
    >>> pool_clusters(m).squares
    array([[4., 4.]])
    """
    size = moments.size.sum(0)
    mean = (moments.size * moments.mean).sum(0) / size
    squares = (moments.squares + moments.size * (moments.mean - mean) ** 2).sum(0)
    return Moments(size[None], mean[None], squares[None])


# ------------------------------------------------------------------------- simulation: JAX and keys


def noisy_priors(key: Any, counts: Any, gamma: Any, sigma: Any, normalize: Normalize) -> Any:
    """Priors (P, K) from exact counts (P, K) and discrete Laplace noise of scale sigma.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> noisy_priors(jax.random.key(0), jnp.array([[5, 5]]), 0.1, 1.0, "project").shape
    (1, 2)
    """
    import jax
    import jax.numpy as jnp

    dtype = jnp.result_type(float)
    draws = jax.random.exponential(key, (2, *counts.shape), dtype) * jnp.asarray(sigma, dtype)
    up, down = jnp.floor(draws)
    return priors_from_counts(counts + up - down, counts.sum(-1), gamma, normalize)


def resample(key: Any, codes: Any, rows: Any, priors: Any, lam: Any) -> Any:
    """Keep each code with probability 1 - lam, else draw from its row of the priors.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> resample(jax.random.key(0), jnp.array([1, 0]), jnp.array([0, 0]), jnp.eye(2)[:1], 1.0)
    Array([0, 0], dtype=int32)
    """
    import jax
    import jax.numpy as jnp

    coin, draw = jax.random.split(key)
    cumulative = jnp.cumsum(priors, axis=-1)[..., :-1]
    u = jax.random.uniform(draw, codes.shape, cumulative.dtype)
    fresh = (u[:, None] >= cumulative[rows]).sum(-1).astype(codes.dtype)
    return jnp.where(jax.random.bernoulli(coin, lam, codes.shape), fresh, codes)


def privatize(
    key: Any,
    codes: Any,
    cells: Any,
    prior_of_cell: Any,
    *,
    k: int,
    n_priors: int,
    lam: Any,
    gamma: Any,
    sigma: Any,
    normalize: Normalize = "project",
) -> Draw:
    """Simulate the whole mechanism: counts, noise, floor, resampling.

    Parameters
    ----------
    key : JAX key
    codes, cells : integer arrays of shape (n,)
        Value code 0..K-1 and cell number of each unit.
    prior_of_cell : integer array of shape (n_cells,)
        Which prior each cell uses: its own (Cluster-DP), its arm's (Cluster-Free-DP), or the only
        one (uniform).
    k, n_priors : int
    lam, gamma, sigma : float
        May be traced.
    normalize : {"project", "affine"}

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> y, cells = jnp.array([0, 1, 1, 0]), jnp.array([0, 0, 1, 1])
    >>> draw = privatize(jax.random.key(0), y, cells, jnp.arange(2), k=2, n_priors=2,
    ...                  lam=0.5, gamma=0.1, sigma=1.0)
    >>> draw.outcomes.shape, draw.priors.shape
    ((4,), (2, 2))
    """
    import jax

    codes, cells = jax.numpy.asarray(codes), jax.numpy.asarray(cells)
    noise, draw = jax.random.split(key)
    rows = prior_of_cell[cells]
    counts = count_cells(codes, rows, n_priors, k)
    priors = noisy_priors(noise, counts, gamma, sigma, normalize)
    return Draw(resample(draw, codes, rows, priors, lam), priors)
