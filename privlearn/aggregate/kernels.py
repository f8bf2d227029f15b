"""Pure JAX functions for squared loss on bags: the losses, and the linear solution for any rho.

Two layouts of the same data:

* **equal bags**: ``features`` of shape (m, k, p): m bags of k members; ``means`` of shape (m,).
* **segments**: ``features`` of shape (n, p) and ``bags`` of shape (n,) with integers 0..m-1: bags
  of any size, rows in any order.

Everything that the linear estimator needs of the data is in three sums (`GramStatistics`), so a
whole path of rho costs one pass over the data. Nothing is jitted here and dtypes follow the inputs;
use float64 (``jax.enable_x64``) wherever a Gram matrix may be ill-conditioned.

Source: Javanmard, Chen, Mirrokni, Badanidiyuru, Fu, "Learning from Aggregate Responses", ICLR 2024,
arXiv 2401.11081 (losses and rho); weights for unequal bags are ours.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.typing import ArrayLike

Weights = Literal["size", "bag"]
Method = Literal["pinv", "cholesky"]


class GramStatistics(NamedTuple):
    """What the data say about theta, for every rho at once.

    With equal bags, or ``weights="size"``, P the projector on bag means:

    Attributes
    ----------
    between : Array, shape (p, p)
        X' P X, the Gram matrix of the bag means.
    within : Array, shape (p, p)
        X' (I - P) X, the Gram matrix of the deviations from the bag means.
    cross : Array, shape (p,)
        X' P y.
    n : Array, scalar
        Number of instances. The ridge of the solution is ``ridge * n``.
    """

    between: Array
    within: Array
    cross: Array
    n: Array


# ------------------------------------------------------------------------------- bags of any size


def segment_means(values: Array, bags: Array, n_bags: int) -> Array:
    """Mean over each bag: values (n, ...) and bags (n,) give (n_bags, ...); empty bags give 0."""
    values = jnp.asarray(values)
    sums = jax.ops.segment_sum(values, bags, n_bags)
    sizes = segment_sizes(bags, n_bags).astype(sums.dtype)
    return sums / jnp.maximum(sizes, 1).reshape((-1,) + (1,) * (sums.ndim - 1))


def segment_sizes(bags: Array, n_bags: int) -> Array:
    """Count the members of each bag, shape (n_bags,)."""
    return jax.ops.segment_sum(jnp.ones_like(bags), bags, n_bags)


def bag_weights(sizes: Array, weights: Weights = "size") -> Array:
    """Weight of each bag in the losses, summing to 1.

    ``"size"``: in proportion to the number of members; ``"bag"``: every bag alike. The two coincide
    for equal bags. An empty bag always weighs nothing.
    """
    sizes = jnp.asarray(sizes)
    if weights == "size":
        raw = sizes
    elif weights == "bag":
        raw = sizes > 0
    else:
        raise ValueError(f"weights must be 'size' or 'bag', got {weights!r}")
    raw = raw.astype(jnp.result_type(float))
    return raw / raw.sum()


# ------------------------------------------------------------------------------------------ losses


def bag_loss(predictions: Array, means: Array) -> Array:
    """Mean over bags of (bag mean of the response - bag mean of the predictions)^2.

    Parameters
    ----------
    predictions : Array, shape (m, k)
        One prediction for each member of each bag.
    means : Array, shape (m,)
        Mean response of each bag.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(bag_loss(jnp.array([[0.0, 2.0], [1.0, 1.0]]), jnp.array([1.0, 2.0])))
    0.5
    """
    return jnp.mean((means - predictions.mean(axis=1)) ** 2)


def instance_loss(predictions: Array, means: Array) -> Array:
    """Mean over instances of (mean response of its bag - prediction)^2; shapes as in `bag_loss`."""
    return jnp.mean((means[:, None] - predictions) ** 2)


def within_bag_variance(predictions: Array) -> Array:
    """Mean over bags of the variance of the predictions in a bag: no response in it.

    It is exactly `instance_loss` - `bag_loss`, the regulariser that rho multiplies.
    """
    return jnp.mean(jnp.var(predictions, axis=1))


def interpolating_loss(predictions: Array, means: Array, rho: ArrayLike) -> Array:
    """(1 - rho) bag loss + rho instance loss = bag loss + rho * within-bag variance.

    rho = 0 is the bag loss, rho = 1 the instance loss, rho > 1 is legal.
    """
    return bag_loss(predictions, means) + rho * within_bag_variance(predictions)


def interpolating_loss_segments(
    predictions: Array,
    means: Array,
    bags: Array,
    rho: ArrayLike,
    weights: Weights = "size",
) -> Array:
    """Interpolating loss for bags of any size.

    The sum over bags of ``bag_weights`` times ((mean response - mean prediction)^2 + rho * variance
    of the predictions in the bag).

    Parameters
    ----------
    predictions : Array, shape (n,)
    means : Array, shape (m,)
    bags : Array of int, shape (n,)
        Bag of each instance, 0..m-1.
    rho : float
    weights : {"size", "bag"}
    """
    m = means.shape[0]
    mean = segment_means(predictions, bags, m)
    variance = segment_means((predictions - mean[bags]) ** 2, bags, m)
    weight = bag_weights(segment_sizes(bags, m), weights)
    return jnp.sum(weight * ((means - mean) ** 2 + rho * variance))


# ------------------------------------------------------------------------------ linear estimators


def gram_statistics(features: Array, means: Array) -> GramStatistics:
    """Compute the sums that determine the interpolating solution, for equal bags, in one pass.

    Parameters
    ----------
    features : Array, shape (m, k, p)
    means : Array, shape (m,)
        Mean response of each bag.

    Returns
    -------
    GramStatistics

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [3.0]], [[0.0], [2.0]]])
    >>> stats = gram_statistics(x, jnp.array([4.0, 2.0]))
    >>> [round(float(a[0, 0]), 5) for a in (stats.between, stats.within, stats.cross[None])]
    [10.0, 4.0, 20.0]
    """
    m, k, p = features.shape
    centres = features.mean(axis=1)
    # A bag's k deviations d_j sum to 0, so k - 1 rows d_j - d_k / (1 + sqrt k) have the same Gram
    # matrix: sum over j < k gives sum_j d_j d_j' + (2 c + (k - 1) c^2) d_k d_k' with
    # c = 1 / (1 + sqrt k), and that factor is 1. Never forms X'X - between, which would cancel.
    deviations = features - centres[:, None, :]
    contrasts = deviations[:, :-1] - deviations[:, -1:] / (1 + math.sqrt(k))
    contrasts = contrasts.reshape(m * (k - 1), p)
    return GramStatistics(
        between=k * (centres.T @ centres),
        within=contrasts.T @ contrasts,
        cross=k * (centres.T @ means),
        n=jnp.asarray(m * k, features.dtype),
    )


def gram_statistics_segments(
    features: Array, means: Array, bags: Array, weights: Weights = "size"
) -> GramStatistics:
    """Like `gram_statistics`, for bags of any size given by integer ids.

    Every sum is weighted by n * bag weight / bag size, which is 1 for ``weights="size"``.

    Parameters
    ----------
    features : Array, shape (n, p)
    means : Array, shape (m,)
    bags : Array of int, shape (n,)
        Bag of each row, 0..m-1.
    weights : {"size", "bag"}
    """
    n, m = features.shape[0], means.shape[0]
    sizes = segment_sizes(bags, m)
    centres = segment_means(features, bags, m)
    weight = n * bag_weights(sizes, weights).astype(features.dtype)
    per_row = weight / jnp.maximum(sizes, 1)
    deviations = features - centres[bags]
    weighted = weight[:, None] * centres
    return GramStatistics(
        between=weighted.T @ centres,
        within=(per_row[bags][:, None] * deviations).T @ deviations,
        cross=weighted.T @ means,
        n=jnp.asarray(n, features.dtype),
    )


def system_matrix(stats: GramStatistics, rho: ArrayLike, ridge: ArrayLike = 0.0) -> Array:
    """Matrix of the normal equations: between + rho * within + ridge * n * I."""
    p = stats.between.shape[-1]
    eye = jnp.eye(p, dtype=stats.between.dtype)
    return stats.between + rho * stats.within + (ridge * stats.n) * eye


def solve(
    stats: GramStatistics,
    rho: ArrayLike,
    ridge: ArrayLike = 0.0,
    *,
    method: Method = "pinv",
    rcond: float | None = None,
) -> Array:
    """Minimiser of the interpolating loss for a linear model, theta of shape (p,).

    Solves (between + rho * within + ridge * n * I) theta = cross.

    Parameters
    ----------
    stats : GramStatistics
    rho : float
        At least 0. 0 is the bag loss, 1 the instance loss.
    ridge : float, default=0
        Adds ridge * ||theta||^2 to the (mean) loss.
    method : {"pinv", "cholesky"}
        ``"pinv"`` returns the solution of least norm when the matrix is singular: eigenvalues not
        above rcond * (largest eigenvalue) are taken as zero. ``"cholesky"`` is about 20 times
        faster and returns NaN for a matrix that is not positive definite.
    rcond : float, optional
        Default p * (machine epsilon): about 2e-14 for p = 100 in float64. It acts on the Gram
        matrix, so directions whose singular value is below about 1e-7 of the largest are dropped;
        `solve_rows` works on the rows and keeps those down to about 1e-14.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [3.0]], [[0.0], [2.0]]])
    >>> stats = gram_statistics(x, jnp.array([4.0, 2.0]))
    >>> [round(float(theta[0]), 5) for theta in solve_path(stats, jnp.array([0.0, 2.5]))]
    [2.0, 1.0]
    """
    matrix = system_matrix(stats, rho, ridge)
    if method == "cholesky":
        return cho_solve((jnp.linalg.cholesky(matrix), True), stats.cross)
    if method != "pinv":
        raise ValueError(f"method must be 'pinv' or 'cholesky', got {method!r}")
    values, vectors = jnp.linalg.eigh(matrix)
    return vectors @ (_inverse_eigenvalues(values, rcond) * (vectors.T @ stats.cross))


def solve_path(
    stats: GramStatistics,
    rhos: Array,
    ridge: ArrayLike = 0.0,
    *,
    method: Method = "pinv",
    rcond: float | None = None,
) -> Array:
    """Solutions for every rho of an array, shape (len(rhos), p), from one pass over the data."""
    return jax.vmap(lambda rho: solve(stats, rho, ridge, method=method, rcond=rcond))(rhos)


def solve_rows(
    features: Array,
    means: Array,
    rho: ArrayLike,
    ridge: ArrayLike = 0.0,
    *,
    bags: Array | None = None,
    weights: Weights = "size",
    rcond: float | None = None,
) -> Array:
    """Find the solution of `solve` by a singular value decomposition of the augmented rows.

    Does not square the condition number: use it when columns differ in scale by more than 1e6 or
    are nearly collinear. Least norm when singular; singular values not above rcond * (largest) are
    taken as zero (default: max(rows, p) * machine epsilon).

    Parameters
    ----------
    features : Array, shape (m, k, p), or (n, p) with ``bags``
    means : Array, shape (m,)
    rho, ridge : float
    bags : Array of int, shape (n,), optional
    """
    rows, targets = augmented_rows(features, means, rho, ridge, bags=bags, weights=weights)
    left, values, right = jnp.linalg.svd(rows, full_matrices=False)
    if rcond is None:
        rcond = max(rows.shape) * float(jnp.finfo(rows.dtype).eps)
    keep = values > rcond * values[0]
    inverse = jnp.where(keep, 1.0 / jnp.where(keep, values, 1.0), 0.0)
    return right.T @ (inverse * (left.T @ targets))


def augmented_rows(
    features: Array,
    means: Array,
    rho: ArrayLike,
    ridge: ArrayLike = 0.0,
    *,
    bags: Array | None = None,
    weights: Weights = "size",
) -> tuple[Array, Array]:
    """Rows and targets of the ordinary least-squares problem with the same solution.

    Scaled bag means with the scaled mean responses as targets, then scaled deviations with target
    0, then, unless ridge is literally 0, p rows of the ridge.
    """
    if bags is None:
        m, k, p = features.shape
        bags = jnp.repeat(jnp.arange(m), k)
        features = features.reshape(m * k, p)
    n, p = features.shape
    m = means.shape[0]
    dtype = features.dtype
    sizes = segment_sizes(bags, m)
    centres = segment_means(features, bags, m)
    weight = jnp.sqrt(n * bag_weights(sizes, weights)).astype(dtype)
    per_row = (weight / jnp.sqrt(jnp.maximum(sizes, 1)))[bags][:, None].astype(dtype)
    deviations = jnp.sqrt(jnp.asarray(rho, dtype)) * per_row * (features - centres[bags])
    rows = [weight[:, None] * centres, deviations]
    targets = [weight * means, jnp.zeros(n, dtype)]
    if not (isinstance(ridge, (int, float)) and ridge == 0):
        rows.append(jnp.sqrt(jnp.asarray(ridge * n, dtype)) * jnp.eye(p, dtype=dtype))
        targets.append(jnp.zeros(p, dtype))
    return jnp.concatenate(rows), jnp.concatenate(targets)


def pseudo_inverse(matrix: Array, rcond: float | None = None) -> Array:
    """Invert a symmetric matrix (p, p), its small eigenvalues taken as zero (see `solve`)."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * _inverse_eigenvalues(values, rcond)) @ vectors.T


def _inverse_eigenvalues(values: Array, rcond: float | None) -> Array:
    """1 / value, or 0 for those not above rcond * the largest (values ascend, as from eigh)."""
    if rcond is None:
        rcond = values.shape[-1] * float(jnp.finfo(values.dtype).eps)
    keep = values > rcond * values[..., -1:]
    return jnp.where(keep, 1.0 / jnp.where(keep, values, 1.0), 0.0)


# ----------------------------------------------------------------------------------------- EasyLLP


def easyllp_pseudo_labels(means: Array, sizes: ArrayLike, prior: ArrayLike) -> Array:
    """Unbiased pseudo-label of every member of a bag: size * mean - (size - 1) * prior.

    Parameters
    ----------
    means : Array, shape (m,)
    sizes : int or Array, shape (m,)
    prior : float
        E[y], or its estimate, the mean of all responses.

    Notes
    -----
    Busa-Fekete, Choi, Dick, Gentile, Munoz Medina, "Easy Learning from Label Proportions", NeurIPS
    2023, arXiv 2302.03115. Unbiased for bags drawn iid.
    """
    sizes = jnp.asarray(sizes)
    return sizes * means - (sizes - 1) * prior


def easyllp_solution(
    stats: GramStatistics, k: ArrayLike, ridge: ArrayLike = 0.0, *, method: Method = "pinv"
) -> Array:
    """EasyLLP for squared loss and equal bags: k times the instance-loss solution.

    Exact when features and responses have mean 0 (see `centre`).
    """
    return jnp.asarray(k) * solve(stats, 1.0, ridge, method=method)


def centre(
    features: Array, means: Array, bags: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Features and bag means with the overall mean removed: (features, means, mean_x, mean_y).

    The overall mean response is the size-weighted mean of the bag means: no instance-level response
    is needed. Takes either layout.
    """
    axes = tuple(range(features.ndim - 1))
    mean_x = features.mean(axis=axes)
    weight = None if bags is None else segment_sizes(bags, means.shape[0])
    mean_y = jnp.average(means, weights=weight)
    return features - mean_x, means - mean_y, mean_x, mean_y


# ------------------------------------------------------------- what the solution does, given X


class ConditionalRisk(NamedTuple):
    """Risk of the linear solution given the features, the responses averaged out.

    Attributes
    ----------
    bias : Array
        ||E[theta_hat | X] - theta0||^2.
    variance : Array
        Trace of the covariance of theta_hat given X.
    shrinkage : Array
        <E[theta_hat | X], theta0> / ||theta0||^2.
    """

    bias: Array
    variance: Array
    shrinkage: Array


def conditional_risk(
    stats: GramStatistics,
    rho: ArrayLike,
    noise: ArrayLike,
    *,
    signal: ArrayLike = 1.0,
    theta0: Array | None = None,
    method: Method = "pinv",
    rcond: float | None = None,
) -> ConditionalRisk:
    """Exact bias and variance of `solve` given the features: no response is drawn.

    E[theta_hat | X] = A^+ between theta0 and Cov = noise * A^+ between A^+, A = between +
    rho * within (equal bags, or ``weights="size"``, where n * noise / size is a bag's variance).

    Parameters
    ----------
    stats : GramStatistics
        Only between and within are used.
    rho : float
    noise : float
        Variance of one response given its features.
    signal : float
        ||theta0||^2, used when theta0 is not given: bias and shrinkage are then averaged over all
        directions of theta0.
    theta0 : Array, shape (p,), optional
    """
    matrix = system_matrix(stats, rho)
    if method == "cholesky":
        eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
        half = solve_triangular(jnp.linalg.cholesky(matrix), eye, lower=True)
        inverse = half.T @ half
    else:
        inverse = pseudo_inverse(matrix, rcond)
    response = inverse @ stats.between
    variance = jnp.asarray(noise) * jnp.sum(response * inverse)
    p = matrix.shape[-1]
    if theta0 is None:
        miss = jnp.eye(p, dtype=matrix.dtype) - response
        bias = jnp.asarray(signal) * jnp.sum(miss**2) / p
        return ConditionalRisk(bias, variance, jnp.trace(response) / p)
    mean = response @ theta0
    return ConditionalRisk(
        jnp.sum((mean - theta0) ** 2), variance, mean @ theta0 / (theta0 @ theta0)
    )
