"""The linear model with an intercept, for a whole path of rho in one call.

`weighted_statistics` and `centred_path` are pure JAX; `fit_linear` is what the estimators call: it
works in float64, and where the Gram matrix is singular or badly conditioned it goes over to the
rows themselves (`kernels.solve_rows`), which gives the solution of least norm.

The intercept is not penalised, neither by rho (the within-bag variance does not see it) nor by the
ridge; for a linear model that is the same as taking the weighted means out of features and bag
means first.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import ArrayLike as Rhos

from privlearn.aggregate import kernels
from privlearn.simulate.precision import float64

Solver: TypeAlias = Literal["auto", "gram", "rows"]

#: Below this ratio of smallest to largest eigenvalue of the Gram matrix, "auto" takes the rows:
#: at the limit the coefficients are still good to about 1e-8.
CONDITION_LIMIT = 1e-8


class LinearPath(NamedTuple):
    """Linear models for several rhos.

    Attributes
    ----------
    rhos : ndarray, shape (r,)
    coef : ndarray, shape (r, p)
    intercept : ndarray, shape (r,)
    """

    rhos: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


class BagData(NamedTuple):
    """Rows, bags and bag means, as the linear estimators see them.

    Attributes
    ----------
    features : ndarray, shape (n, p)
    means : ndarray, shape (m,)
        Mean response of each bag.
    codes : ndarray of int, shape (n,)
        Bag of each row, 0..m-1.
    sizes : ndarray of int, shape (m,)
    """

    # NumPy outside jit, JAX within: no one type names both.
    features: Any
    means: Any
    codes: Any
    sizes: Any


def weighted_statistics(
    features: Array, means: Array, codes: Array, weight: Array
) -> kernels.GramStatistics:
    """`kernels.gram_statistics_segments` for any bag weights, divided by the number of rows.

    Parameters
    ----------
    features : Array, shape (n, p)
    means : Array, shape (m,)
    codes : Array of int, shape (n,)
    weight : Array, shape (m,)
        Weight of each bag; 0 leaves a bag out. ``n`` of the result is 1, so that the ridge of
        `kernels.solve` is the alpha in loss + alpha * ||theta||^2 when the weights sum to 1.
    """
    m = means.shape[0]
    sizes = kernels.segment_sizes(codes, m)
    centres = kernels.segment_means(features, codes, m)
    deviations = features - centres[codes]
    weighted = weight[:, None] * centres
    per_row = (weight / sizes)[codes]
    return kernels.GramStatistics(
        between=weighted.T @ centres,
        within=(per_row[:, None] * deviations).T @ deviations,
        cross=weighted.T @ means,
        n=jnp.ones((), features.dtype),
    )


def centred(
    features: Array, means: Array, codes: Array, weight: Array
) -> tuple[Array, Array, Array, Array]:
    """Take the weighted means out: (features, means, mean of features, mean of responses)."""
    total = weight.sum()
    mean_x = weight @ kernels.segment_means(features, codes, means.shape[0]) / total
    mean_y = weight @ means / total
    return features - mean_x, means - mean_y, mean_x, mean_y


def centred_path(
    features: Array,
    means: Array,
    codes: Array,
    weight: Array,
    rhos: Array,
    ridge: ArrayLike,
    fit_intercept: bool,
) -> tuple[Array, Array, Array]:
    """Coefficients (r, p), intercepts (r,) and condition ratios (r,) for every rho.

    Without a ridge a unique solution does not depend on the scale of the columns, so it is found
    with columns of equal scale. Where that problem is (nearly) singular, its condition ratio below
    `CONDITION_LIMIT`, the least-norm solution in the units given is returned.
    """
    if fit_intercept:
        features, means, mean_x, mean_y = centred(features, means, codes, weight)
    else:
        mean_x, mean_y = jnp.zeros(features.shape[1], features.dtype), jnp.zeros((), means.dtype)
    stats = weighted_statistics(features, means, codes, weight)
    size = jnp.sqrt(jnp.diagonal(stats.between) + jnp.diagonal(stats.within))
    scale = jnp.where((jnp.asarray(ridge) > 0) | (size == 0), 1.0, size)
    scaled = stats._replace(
        between=stats.between / scale / scale[:, None],
        within=stats.within / scale / scale[:, None],
        cross=stats.cross / scale,
    )
    unique, ratios = diagonal_path(scaled, rhos, ridge)
    good = ratios > CONDITION_LIMIT

    def with_least_norm() -> Array:
        return jnp.where(good[:, None], unique / scale, kernels.solve_path(stats, rhos, ridge))

    # A branch, not a choice between two results: XLA's CPU runtime (jaxlib 0.10) can deadlock when
    # two batched decompositions of one program run at the same time.
    coef = jax.lax.cond(good.all(), lambda: unique / scale, with_least_norm)
    return coef, mean_y - coef @ mean_x, ratios


def diagonal_path(
    stats: kernels.GramStatistics, rhos: Array, ridge: ArrayLike = 0.0
) -> tuple[Array, Array]:
    """`kernels.solve_path` for a regular problem, by two decompositions instead of one a rho.

    In coordinates in which between + ridge + within is the identity and between + ridge is
    diagonal, with entries d, the system of every rho is diagonal: d + rho (1 - d).

    Returns
    -------
    solutions : Array, shape (r, p)
        Meaningful where the ratio is not tiny.
    ratios : Array, shape (r,)
        Lower bound of smallest / largest eigenvalue of the system of each rho.
    """
    fixed = kernels.system_matrix(stats, 0.0, ridge)
    values, vectors = jnp.linalg.eigh(fixed + stats.within)
    top = jnp.maximum(values[-1], jnp.finfo(values.dtype).tiny)
    whiten = vectors / jnp.sqrt(jnp.maximum(values, jnp.finfo(values.dtype).eps * top))
    shares, turn = jnp.linalg.eigh(whiten.T @ fixed @ whiten)
    axes = whiten @ turn
    shares = jnp.clip(shares, 0.0, 1.0)
    diagonal = shares + rhos[:, None] * (1 - shares)
    least, most = diagonal.min(axis=1), diagonal.max(axis=1)
    ratios = values[0] / top * least / most
    # A share of 0 is rounding away from 0: what it says is that the bag means do not decide.
    safe = jnp.maximum(diagonal, jnp.finfo(values.dtype).eps * most[:, None])
    return (stats.cross @ axes / safe) @ axes.T, ratios


@functools.partial(jax.jit, static_argnames="fit_intercept")
def _gram_path(
    data: BagData, weight: Array, rhos: Array, ridge: Array, fit_intercept: bool
) -> tuple[Array, Array, Array]:
    return centred_path(data.features, data.means, data.codes, weight, rhos, ridge, fit_intercept)


@functools.partial(jax.jit, static_argnames=("weights", "fit_intercept", "with_ridge"))
def _rows_path(
    data: BagData,
    weight: Array,
    rhos: Array,
    ridge: Array,
    weights: kernels.Weights,
    fit_intercept: bool,
    with_ridge: bool,
) -> tuple[Array, Array]:
    features, means = data.features, data.means
    mean_x, mean_y = jnp.zeros(features.shape[1], features.dtype), jnp.zeros((), means.dtype)
    if fit_intercept:
        features, means, mean_x, mean_y = centred(features, means, data.codes, weight)

    def solve(rho: Array) -> Array:
        return kernels.solve_rows(
            features, means, rho, ridge if with_ridge else 0.0, bags=data.codes, weights=weights
        )

    coef = jax.lax.map(solve, rhos)
    return coef, mean_y - coef @ mean_x


def fit_linear(
    data: BagData,
    rhos: Rhos,
    *,
    alpha: float = 0.0,
    fit_intercept: bool = True,
    weights: kernels.Weights = "size",
    solver: Solver = "auto",
) -> LinearPath:
    """Minimise the interpolating loss + alpha * ||theta||^2 for every rho, in float64.

    Parameters
    ----------
    data : BagData
    rhos : array-like, shape (r,)
    alpha : float
    fit_intercept : bool
    weights : {"size", "bag"}
    solver : {"auto", "gram", "rows"}
        ``"gram"``: normal equations, one pass over the data for all rhos. ``"rows"``: a singular
        value decomposition for each rho, exact to rounding in badly scaled or singular problems.
        ``"auto"`` takes the rows for those rhos for which the Gram matrix says so.
    """
    rhos = np.atleast_1d(np.asarray(rhos, float))
    n, p = data.features.shape
    with float64():
        weight = kernels.bag_weights(jnp.asarray(data.sizes), weights)
        ridge = jnp.asarray(float(alpha))
        if solver == "rows" or (solver == "auto" and p > n):
            redo = np.ones(len(rhos), bool)
            coef, intercept = np.empty((len(rhos), p)), np.empty(len(rhos))
        else:
            found = _gram_path(data, weight, jnp.asarray(rhos), ridge, fit_intercept)
            coef, intercept, condition = (np.array(part) for part in found)
            redo = ~(condition > CONDITION_LIMIT) & (solver == "auto")
        if redo.any():
            parts = _rows_path(
                data, weight, jnp.asarray(rhos[redo]), ridge, weights, fit_intercept, alpha > 0
            )
            coef[redo], intercept[redo] = (np.asarray(part) for part in parts)
    return LinearPath(rhos, coef, intercept)


@functools.partial(jax.jit, static_argnames="fit_intercept")
def _fold_losses(
    data: BagData,
    weight: Array,
    held_out: Array,
    rhos: Array,
    ridge: Array,
    fit_intercept: bool,
) -> Array:
    def fold(out: Array) -> Array:
        train = jnp.where(out, 0, weight)
        coef, intercept, _ = centred_path(
            data.features, data.means, data.codes, train / train.sum(), rhos, ridge, fit_intercept
        )
        centres = kernels.segment_means(data.features, data.codes, data.means.shape[0])
        errors = (data.means - (coef @ centres.T + intercept[:, None])) ** 2
        test = jnp.where(out, weight, 0)
        return errors @ test / test.sum()

    return jax.lax.map(fold, held_out)


def fold_losses(
    data: BagData,
    held_out: np.ndarray,
    rhos: Rhos,
    *,
    alpha: float = 0.0,
    fit_intercept: bool = True,
    weights: kernels.Weights = "size",
) -> np.ndarray:
    """Bag loss on held-out bags for every fold and rho, shape (folds, r), in float64.

    Parameters
    ----------
    held_out : ndarray of bool, shape (folds, m)
        Bags on which a fold is validated; it is trained on the others.
    data, rhos, alpha, fit_intercept, weights
        As in `fit_linear`. Singular systems get the least-norm solution from the Gram matrix.
    """
    with float64():
        weight = kernels.bag_weights(jnp.asarray(data.sizes), weights)
        losses = _fold_losses(
            data,
            weight,
            jnp.asarray(held_out),
            jnp.asarray(np.asarray(rhos, float)),
            jnp.asarray(float(alpha)),
            fit_intercept,
        )
        return np.asarray(losses)
